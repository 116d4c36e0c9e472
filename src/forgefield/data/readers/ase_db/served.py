"""Rows of ASE databases that are no SQLite file: JSON, held in memory, and PostgreSQL, asked row by row."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ase.db.core import Database, connect, parse_selection
from ase.db.row import AtomsRow

from forgefield.core.errors import DataError
from forgefield.data.foreign_errors import reason
from forgefield.data.own_handle import OwnHandle
from forgefield.data.readers.ase_db.frames import Table

ROW_FIELDS = (
    *("numbers", "positions", "cell", "pbc", "tags", "energy", "free_energy", "forces", "stress", "dipole"),
    *("magmom", "magmoms", "charges", "initial_magmoms", "initial_charges", "key_value_pairs", "data"),
)


class JsonTable(Table):
    """Rows of ASE's JSON database, all in memory.

    Args:
        path: the file.
        select: ASE's query text; empty = all rows.

    Raises:
        DataError: it is damaged, or no row is selected.
    """

    def __init__(self, path: Path, select: str = "") -> None:
        self.name, where = path.name, str(path)
        _check_select(select, where)
        try:
            database = connect(where, type="json", use_lock_file=False)
            self._rows = {int(row.id): _fields(row) for row in database.select(select)}
            self.metadata = {str(k): v for k, v in database.metadata.items()}
        except Exception as error:  # damaged JSON ends in many kinds of exceptions of the library
            raise DataError(
                f"cannot be read ({reason(error)})", where, "it is cut off or damaged: copy it again"
            ) from None
        self.ids = np.array(sorted(self._rows), dtype=np.int64)
        if not len(self.ids):
            raise DataError(f"no row matches select {select!r}" if select else "holds no rows", where, "check it")

    def row(self, row_id: int) -> Mapping[str, Any]:
        """Return one row."""
        return self._rows[row_id]


class _Served:
    """A connection to a server; the library opens and closes its own for each question."""

    def __init__(self, address: str) -> None:
        self.database: Database = connect(address, type="postgresql", use_lock_file=False)

    def close(self) -> None:
        """Nothing stays open between questions."""


class ServerTable(Table):
    """Rows of a PostgreSQL server, each asked for by its id.

    Args:
        address: "postgresql://user:password@host:5432/name".
        select: ASE's query text; empty = all rows.

    Raises:
        DataError: ase-db-backends is not installed, or the server does not answer.
    """

    def __init__(self, address: str, select: str = "") -> None:
        self.name = address.rsplit("@", 1)[-1]  # never the password
        if importlib.util.find_spec("ase_db_backends") is None:
            fix = "pip install ase-db-backends psycopg2-binary"
            raise DataError("PostgreSQL needs the package ase-db-backends", self.name, fix)
        self._address, self._own = address, OwnHandle(self._connect)
        _check_select(select, self.name)
        try:
            database = self._own.get().database
            self.metadata = dict(database.metadata)
            ids = [row.id for row in database.select(select, include_data=False)]
        except Exception as error:  # drivers raise many kinds
            raise DataError(
                f"cannot be read ({reason(error)})", self.name, "check the address and the rights"
            ) from None
        self.ids = np.array(sorted(ids), dtype=np.int64)
        if not len(self.ids):
            raise DataError(f"no row matches select {select!r}" if select else "holds no rows", self.name, "check it")

    def row(self, row_id: int) -> Mapping[str, Any]:
        """Return one row.

        Raises:
            DataError: it is gone or damaged.
        """
        try:
            return _fields(self._own.get().database.get(id=row_id))
        except Exception as error:  # drivers and parsers raise many kinds
            where = f"{self.name}: row {row_id}"
            raise DataError(f"cannot be read ({reason(error)})", where, "is it gone or damaged?") from None

    def _connect(self) -> _Served:
        return _Served(self._address)


def _check_select(select: str, where: str) -> None:
    try:
        parse_selection(select)
    except Exception as error:  # the parser of the library raises many kinds
        what = f"select {select!r} cannot be understood ({reason(error)})"
        raise DataError(what, where, "write it as 'status=completed'") from None


def _fields(row: AtomsRow) -> dict[str, Any]:
    return {**{name: row.get(name) for name in ROW_FIELDS}, "constraints": row._constraints}
