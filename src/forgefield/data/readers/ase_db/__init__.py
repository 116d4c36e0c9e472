"""ASE databases: SQLite, JSON, and PostgreSQL through ase-db-backends."""

from __future__ import annotations

import re
from pathlib import Path

from forgefield.core.catalog import Entry
from forgefield.data.reader import Reader, ReaderSettings
from forgefield.data.readers.ase_db.frames import DatabaseFrames
from forgefield.data.readers.ase_db.served import JsonTable, ServerTable
from forgefield.data.readers.ase_db.sqlite_table import SqliteTable
from forgefield.data.server_address import server_address

SQLITE = b"SQLite format 3\x00"
JSON_START = re.compile(rb'\s*\{\s*"\d+"\s*:\s*\{')


class AseDbSettings(ReaderSettings):
    """ASE database; rows are read when they are asked for, and nothing is ever written."""


class AseDbReader(Reader):
    """Reads one row with one query; labels come from the row, its key-value pairs and its data.

    A label of the same name in `data` that differs from the row's own is kept as `data.name`. `select` is written in
    ASE's query language: "status=completed", "natoms<50,H>0".
    """

    selects = True

    def __init__(self, settings: AseDbSettings) -> None:
        self.settings = settings

    def recognises(self, path: Path) -> bool:
        """Return whether it is an SQLite file, ASE's JSON database, or the address of a PostgreSQL server."""
        if server_address(path) is not None:
            return True
        if not path.is_file():
            return False
        with path.open("rb") as stream:
            start = stream.read(512)
        return start.startswith(SQLITE) or JSON_START.match(start) is not None

    def open(self, path: Path) -> DatabaseFrames:
        """Return the rows in the order of their ids.

        Raises:
            DataError: it is no ASE database, is damaged, or no row is selected.
        """
        address = server_address(path)
        if address is not None:
            return DatabaseFrames(path, ServerTable(address, self.settings.select or ""), self.settings)
        with path.open("rb") as stream:
            is_sqlite = stream.read(len(SQLITE)) == SQLITE
        table = (SqliteTable if is_sqlite else JsonTable)(path, self.settings.select or "")
        return DatabaseFrames(path, table, self.settings)


ENTRY = Entry(AseDbSettings, AseDbReader, "ASE database: SQLite, JSON, or PostgreSQL through ase-db-backends")
