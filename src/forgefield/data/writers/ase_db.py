"""ASE's SQLite database."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ase.db.row import AtomsRow
from ase.db.sqlite import SQLite3Database

from forgefield.core.catalog import Entry
from forgefield.core.disk import disk_errors
from forgefield.core.structure import Structure
from forgefield.data.structure_rows import Names
from forgefield.data.writer import Writer, WriterSettings


class AseDbWriterSettings(WriterSettings):
    """ASE's SQLite database, version 9 of its layout."""


class AseDbWriter(Writer):
    """One row per structure: labels in ASE's columns where it has them, the rest in `data` under our names.

    Args:
        path: where the file will stand.
        settings: none.
    """

    def __init__(self, path: Path, settings: Any) -> None:
        super().__init__(path, settings)
        self._beside = path.with_name(f".{path.name}.{os.getpid()}.part")
        self._names = Names()
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._beside.unlink(missing_ok=True)
            self._database: SQLite3Database | None = SQLite3Database(
                str(self._beside), create_indices=True, use_lock_file=False, serial=True
            )
            self._database.__enter__()

    def add(self, structure: Structure) -> None:
        """Append a row."""
        if self._database is None:
            raise ValueError("the writer is finished")
        with disk_errors(self.path):
            self._database.write(AtomsRow(self._names.row(structure)))

    def finish(self) -> tuple[str, ...]:
        """Commit and put the file at its path."""
        database, self._database = self._database, None
        if database is not None:
            with disk_errors(self.path):
                database.metadata = self._names.metadata()
                database.__exit__(None, None, None)
                with self._beside.open("rb") as stream:
                    os.fsync(stream.fileno())
                os.replace(self._beside, self.path)
        return tuple(sorted(self._names.notes))

    def abandon(self) -> None:
        """Take away what was written."""
        database, self._database = self._database, None
        if database is not None:
            database.__exit__(ValueError, None, None)
        for ending in ("", "-journal", "-wal", "-shm"):
            self._beside.with_name(self._beside.name + ending).unlink(missing_ok=True)


ENTRY = Entry(AseDbWriterSettings, AseDbWriter, "ASE database (SQLite)")
