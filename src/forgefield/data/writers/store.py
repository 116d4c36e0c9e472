"""ForgeField's own store."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from pydantic import Field

from forgefield.core.catalog import Entry
from forgefield.core.disk import disk_errors
from forgefield.core.structure import Structure
from forgefield.data.store.frames import lock_folder
from forgefield.data.store.header import FILE
from forgefield.data.store.store_writer import StoreWriter
from forgefield.data.writer import Writer, WriterSettings


class StoreFileSettings(WriterSettings):
    """A folder of typed arrays in LMDB shards, with checksums."""

    float32: bool = Field(
        default=False, description="Round positions and forces to float32: half the size, and no longer the same data."
    )
    shard_mb: int = Field(default=1024, gt=0, description="Size at which the next shard is begun, MiB.")


class StoreFile(Writer):
    """Written in a hidden folder beside, from which a killed conversion goes on.

    Args:
        path: the folder.
        settings: precision and size of the shards.
    """

    def __init__(self, path: Path, settings: StoreFileSettings) -> None:
        super().__init__(path, settings)
        self._beside = path.with_name(f".{path.name}.part")
        self._store: StoreWriter | None = None

    def take_up(self, job: str) -> dict[str, Any]:
        """Go on with the hidden folder, if it is of the same job."""
        return dict(self._open(job).progress)

    def _open(self, job: str = "unnamed") -> StoreWriter:
        if self._store is None:
            settings: StoreFileSettings = self.settings
            self._store = StoreWriter(
                self._beside, float32=settings.float32, job={"inputs": job}, shard_bytes=settings.shard_mb * 2**20
            )
        return self._store

    def keep(self, progress: dict[str, Any]) -> None:
        """Remember how far the conversion is."""
        self._open().progress = progress

    def add(self, structure: Structure) -> None:
        """Append a structure."""
        self._open().add(structure)

    def pause(self) -> bool:
        """Leave it as the last commit left it."""
        if self._store is not None:
            self._store.leave()
        return True

    def finish(self) -> tuple[str, ...]:
        """Complete the store and put it at its path, in place of a store that stands there."""
        self._open().finish()
        with disk_errors(self.path):
            if (self.path / FILE).is_file():
                old = self.path.with_name(f".{self.path.name}.old")
                os.rename(self.path, old)
                os.rename(self._beside, self.path)
                shutil.rmtree(old)
            else:
                os.rename(self._beside, self.path)
        return ("positions and forces were rounded to float32",) if self.settings.float32 else ()

    def abandon(self) -> None:
        """Take away the hidden folder."""
        if self._store is not None:
            self._store.stop()
            shutil.rmtree(self._beside, ignore_errors=True)

    def forget(self) -> None:
        """Take away what an earlier conversion left, unless it is still at work."""
        if self._beside.is_dir():
            lock = lock_folder(self._beside)
            shutil.rmtree(self._beside, ignore_errors=True)
            os.close(lock)


ENTRY = Entry(StoreFileSettings, StoreFile, "ForgeField's own store, a folder")
