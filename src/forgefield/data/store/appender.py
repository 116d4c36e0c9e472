"""A conversion that appends to a store: all of it, or nothing; killed, the same command goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any, final

from forgefield.core.disk import disk_errors
from forgefield.core.errors import DataError
from forgefield.core.structure import Structure
from forgefield.data.store.frames import SMALLEST, shard_file, take_in_unfinished
from forgefield.data.store.header import Header, read_header
from forgefield.data.store.shard import Shard
from forgefield.data.store.store_writer import StoreWriter
from forgefield.data.writer import Writer, WriterSettings

JOB = "append"


@final
class StoreAppender(Writer):
    """Appends to a store in new shards, with the precision that it has. Who reads it sees the old state until the end.

    Args:
        path: the store.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, WriterSettings())
        self._store: StoreWriter | None = None
        self._job, self._before, self._continued = "", Header(), False

    def take_up(self, job: str) -> dict[str, Any]:
        """Go on with what a killed append of the same job left; what another left stays in the store.

        Raises:
            DataError: it is no store, is damaged, or is being written.
        """
        header = read_header(self.path)
        if header.job:
            raise DataError("is being converted, or its conversion was stopped", str(self.path), "finish that first")
        left = self._left(header)
        mine = left.get(JOB) == job
        self._before = header if mine else take_in_unfinished(self.path, header)
        self._continued = mine
        self._job, self._store = job, StoreWriter(self.path, float32=header.float32)
        self._store.progress = left if mine else {}
        return {k: v for k, v in left.items() if k != JOB} if mine else {}

    def _left(self, header: Header) -> dict[str, Any]:
        """What an append that did not end had done; empty after one that did."""
        path = self.path / shard_file(len(header.shards))
        if path.exists() and path.stat().st_size >= SMALLEST:
            return Shard(path, None).progress
        if header.fingerprint or not header.shards:
            return {}
        return Shard(self.path / header.shards[-1].file, header.shards[-1]).progress

    @property
    def _open(self) -> StoreWriter:
        if self._store is None:
            self.take_up("")
        assert self._store is not None
        return self._store

    def keep(self, progress: dict[str, Any]) -> None:
        """Remember how far the conversion is."""
        self._open.progress = {**progress, JOB: self._job}

    def add(self, structure: Structure) -> None:
        """Append a structure."""
        self._open.add(structure)

    def pause(self) -> bool:
        """Leave it as the last commit left it; what was committed is in the store, and the same command goes on."""
        if self._store is not None:
            self._store.leave()
        return True

    def finish(self) -> tuple[str, ...]:
        """Make what was appended visible."""
        header = self._open.finish()
        return (f"{header.records - self._before.records} were appended to {self._before.records}",)

    def abandon(self) -> None:
        """Take away what was appended, unless it goes on with an earlier append."""
        if self._store is None:
            return
        self._store.leave()
        if self._continued:
            return
        first = len(self._before.shards)
        with disk_errors(self.path):
            self._before.write(self.path)
            for file in self.path.glob("shard-*.mdb"):
                if int(file.stem.removeprefix("shard-")) >= first:
                    file.unlink()
