"""The structures of a store."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import zlib
from functools import cached_property
from pathlib import Path

import numpy as np

from forgefield.core.disk import disk_errors
from forgefield.core.errors import DataError, ForgeError
from forgefield.core.structure import Structure
from forgefield.data.passed_over import open_each
from forgefield.data.reader import Frames
from forgefield.data.store.header import AGAIN, FILE, Header, ShardEntry, read_header
from forgefield.data.store.pages import page_checksum
from forgefield.data.store.shard import ATOMS, KIND, Shard
from forgefield.data.survey import Survey, join

SMALLEST = 8192  # bytes of an LMDB file; a smaller one was killed while LMDB began it


def shard_file(number: int) -> str:
    """Return the name of a shard."""
    return f"shard-{number:05d}.mdb"


def open_shards(folder: Path, header: Header, *, skip: bool = False) -> tuple[list[Shard], list[str]]:
    """Open the finished shards; with `skip` those that can be opened, and a note on the others.

    Raises:
        DataError: one is missing or damaged; with `skip`, all are.
    """
    return open_each(header.shards, lambda entry: Shard(folder / entry.file, entry), "shards", skip=skip)


def take_in_unfinished(folder: Path, header: Header) -> Header:
    """Return the header with the shard that a killed append left, unless somebody goes on with it.

    What its last transaction left is complete. The fingerprint is then counted anew by who needs it.
    """
    path = folder / shard_file(len(header.shards))
    if not path.exists() or path.stat().st_size < SMALLEST:
        return header
    try:
        lock = lock_folder(folder)
    except DataError:
        return header
    try:
        shard = Shard(path, None)
        if not len(shard):
            return header
        index = zlib.crc32(shard.index.tobytes())
        entry = ShardEntry(path.name, len(shard), path.stat().st_size, index, page_checksum(path))
        more = header.records + len(shard), header.atoms + shard.state[3]
        header = dataclasses.replace(
            header, records=more[0], atoms=more[1], shards=(*header.shards, entry), fingerprint=""
        )
        with contextlib.suppress(ForgeError, OSError):  # the store may be read-only: then it is done each time
            header.write(folder)
        return header
    finally:
        os.close(lock)


def lock_folder(folder: Path) -> int:
    """Return a lock on a folder as an open file; it is free again when the process ends, however that happens.

    Raises:
        DataError: another writer holds it.
    """
    with disk_errors(folder):
        lock = os.open(folder, os.O_RDONLY)
    with contextlib.suppress(OSError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return lock
    os.close(lock)
    raise DataError("is being written by another process", str(folder), "wait for it, or stop it")


class StoreFrames(Frames):
    """Structures of a store, decoded when asked for; they were checked when they were written.

    Args:
        folder: the store.
        skip: leave out shards that cannot be opened; a note tells them.
    """

    def __init__(self, folder: Path, *, skip: bool = False) -> None:
        self.folder, self.header = folder, read_header(folder)
        if self.header.job:
            what = "is being converted, or its conversion was stopped"
            raise DataError(what, str(folder), "repeat the command that writes it: it goes on where it was")
        self.header = take_in_unfinished(folder, self.header)
        self._shards, broken = open_shards(folder, self.header, skip=skip)
        if not self._shards:
            raise DataError("holds no structures", str(folder), AGAIN)
        self._ends = np.cumsum([len(s) for s in self._shards], dtype=np.int64)
        self._ends_list: list[int] = self._ends.tolist()
        labels = sorted({name for shard in self._shards for kind in shard.kinds for name in kind.labels})
        super().__init__(
            str(folder), dict.fromkeys(labels) | {name: name for name in labels}, (), [*broken, *self._notes()]
        )
        self.n_left_out = self.header.records - len(self)

    def __len__(self) -> int:
        return self._ends_list[-1]

    def __getitem__(self, index: int) -> Structure:
        if len(self._ends_list) == 1:
            return self._shards[0].get(index, self.folder.name, 0)
        shard = int(np.searchsorted(self._ends, index, side="right"))
        first = self._ends_list[shard - 1] if shard else 0
        return self._shards[shard].get(index - first, self.folder.name, first)

    @cached_property
    def sizes(self) -> np.ndarray:
        """Atoms of every structure, (n,), without reading one."""
        return np.concatenate([s.index[:, ATOMS] for s in self._shards]).astype(np.int64)

    def survey(self) -> Survey:
        """Return the kinds and sizes of the structures, without reading one."""
        parts = [Survey(s.kinds, s.index[:, KIND].astype(np.int64), s.index[:, ATOMS].astype(np.int64))
                 for s in self._shards]  # fmt: skip
        return join(parts)

    @property
    def fingerprint(self) -> str | None:
        """Fingerprint of all structures as the header has it; None after an append that was cut short."""
        return None if self.n_left_out else self.header.fingerprint or None

    def _notes(self) -> list[str]:
        notes: list[str] = []
        if not self.header.fingerprint:
            what = "an append to it was cut short; all that was complete is read"
            notes.append(f"{self.folder.name}: {what}; append again to finish it")
        if self.header.float32:
            notes.append(f"{self.folder.name}: positions and forces were rounded to float32 when it was written")
        return notes


def is_store(path: Path) -> bool:
    """Return whether a folder is a store."""
    return path.is_dir() and (path / FILE).is_file()
