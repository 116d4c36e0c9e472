"""Rows of an ASE SQLite database: one query per row, opened read-only, by each thread and process for itself."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from ase.db.core import bytes_to_object, parse_selection
from ase.db.sqlite import VERSION, SQLite3Database

from forgefield.core.errors import DataError
from forgefield.data.foreign_errors import reason
from forgefield.data.lmdb_file import signature
from forgefield.data.own_handle import OwnHandle
from forgefield.data.readers.ase_db.frames import Table

OLDEST, BINARY_DATA = 5, 9  # versions of ASE's layout
FLOATS = ("positions", "cell", "forces", "stress", "dipole", "magmoms", "charges")
INITIAL = ("initial_magmoms", "initial_charges")
NUMBERS = ("energy", "free_energy", "magmom")
COLUMNS = ("numbers", "tags", "pbc", "constraints", "key_value_pairs", "data", *FLOATS, *INITIAL, *NUMBERS)
QUERY = f"SELECT {', '.join(COLUMNS)} FROM systems WHERE id=?"
NO_DATA = b"\x08\x00\x00\x00\x00\x00\x00\x00{}"
SHOWN = 8
HEADER = 100  # bytes


class SqliteTable(Table):
    """The selected rows of a file.

    Args:
        path: the SQLite file.
        select: ASE's query text; empty = all rows.

    Raises:
        DataError: it is no ASE database, is damaged, locked, or no row is selected.
    """

    def __init__(self, path: Path, select: str = "") -> None:
        self.path, self.name, self._own = path, path.name, OwnHandle(partial(_connect, path))
        self._signature = signature(path)
        _check_size(path)
        try:
            connection = self._connection()
            tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
            if not {"systems", "information"} <= tables:
                raise DataError("is an SQLite file but no ASE database", str(path), "give a file that ase.db wrote")
            information = dict(connection.execute("SELECT name, value FROM information"))
            self._version, self.metadata = _information(information, path)
            self.ids = self._select(connection, select)
        except (sqlite3.Error, UnicodeDecodeError, OverflowError, ValueError, TypeError) as error:
            raise self._damaged(error) from None

    def row(self, row_id: int) -> Mapping[str, Any]:
        """Return one row, decoded.

        Raises:
            DataError: it is gone or damaged, or the file was changed.
        """
        try:
            found = self._connection().execute(QUERY, (row_id,)).fetchone()
        except (sqlite3.Error, UnicodeDecodeError, OverflowError) as error:
            raise self._damaged(error, row_id) from None
        if found is None:
            raise DataError("is gone", f"{self.name}: row {row_id}", "was the file changed while it was read?")
        return self._decode(dict(zip(COLUMNS, found, strict=True)), f"{self.name}: row {row_id}")

    def _connection(self) -> sqlite3.Connection:
        connection = self._own.get()
        try:
            same = signature(self.path) == self._signature
        except OSError:
            same = False
        if not same:
            raise DataError("was changed while it was in use", str(self.path), "start again when nobody writes to it")
        return connection

    def _select(self, connection: sqlite3.Connection, select: str) -> np.ndarray:
        if not select.strip():
            ids = [row[0] for row in connection.execute("SELECT id FROM systems")]
            if not ids:
                raise DataError("holds no rows", str(self.path), "give a database with at least one")
            return np.sort(np.array(ids, dtype=np.int64))
        try:
            statement, arguments = _Statements(str(self.path), create_indices=False, use_lock_file=False).statement(
                select
            )
        except Exception as error:  # the parser of the library raises many kinds
            raise DataError(
                f"select {select!r} cannot be understood ({reason(error)})",
                str(self.path),
                "write it as 'status=completed'",
            ) from None
        ids = np.sort(np.array([row[0] for row in connection.execute(statement, arguments)], dtype=np.int64))
        if not len(ids):
            connection.text_factory = lambda text: bytes(text).decode("utf-8", "replace")
            raise DataError(f"no row matches select {select!r}", str(self.path), _what_there_is(connection))
        return ids

    def _decode(self, row: dict[str, Any], origin: str) -> dict[str, Any]:
        try:
            row["numbers"], row["tags"] = _blob(row["numbers"], "<i4"), _blob(row["tags"], "<i4")
            for name in (*FLOATS, *INITIAL):
                row[name] = _blob(row[name], "<f8")
            for name in ("forces", "positions"):
                row[name] = None if row[name] is None else row[name].reshape(-1, 3)
            row["pbc"] = None if row["pbc"] is None else [bool(int(row["pbc"]) & bit) for bit in (1, 2, 4)]
            pairs, data = row["key_value_pairs"], row["data"]
            row["key_value_pairs"] = {} if pairs in (None, "{}") else json.loads(pairs)
            row["data"] = {} if data is None or data == NO_DATA else _data(data)
        except Exception as error:  # damaged bytes end in many kinds of exceptions of the library
            raise DataError(
                f"is damaged ({reason(error)})", origin, "copy the file again, or leave the row out"
            ) from None
        return row

    def _damaged(self, error: Exception, row_id: int | None = None) -> DataError:
        where = str(self.path) if row_id is None else f"{self.name}: row {row_id}"
        if isinstance(error, sqlite3.OperationalError) and "lock" in str(error):
            return DataError(f"is locked by a program that writes to it ({error})", where, "wait, or copy the file")
        return DataError(
            f"cannot be read as SQLite ({reason(error)})", where, "it is cut off or damaged: copy it again"
        )


class _Statements(SQLite3Database):
    """ASE's translation of its query language into SQL; opens nothing."""

    def statement(self, select: str) -> tuple[str, list[Any]]:
        """Return SQL and its arguments, for the ids of the rows."""
        keys, comparisons = parse_selection(select)
        sql, arguments = self.create_select_statement(keys, comparisons, what="systems.id")
        return sql, list(arguments)


def _check_size(path: Path) -> None:
    """Refuse a file that is shorter than its header says; SQLite notices only when it needs a missing page."""
    with path.open("rb") as stream:
        header = stream.read(HEADER)
    if len(header) < HEADER:
        raise DataError(f"is an SQLite file that is cut off: it has {len(header)} bytes", str(path), "copy it again")
    page_size = int.from_bytes(header[16:18], "big")
    needed = int.from_bytes(header[28:32], "big") * (1 << 16 if page_size == 1 else page_size)
    size = path.stat().st_size
    if header[24:28] == header[92:96] and size < needed:
        raise DataError(f"is cut off: {size} of {needed} bytes are there", str(path), "copy it again")


def _connect(path: Path) -> sqlite3.Connection:
    """Open read-only; a folder that cannot be written to needs SQLite's promise that nobody else writes."""
    mode = "mode=ro" if os.access(path.parent, os.W_OK) else "mode=ro&immutable=1"
    connection = sqlite3.connect(
        f"file:{quote(str(path.resolve()))}?{mode}", uri=True, timeout=5.0, check_same_thread=False
    )
    connection.execute("PRAGMA query_only = 1")
    connection.execute("PRAGMA trusted_schema = 0")
    return connection


def _information(found: Mapping[str, Any], path: Path) -> tuple[int, dict[str, Any]]:
    """Version of the layout, and the user's metadata."""
    try:
        version = int(found.get("version", 0))
        metadata = json.loads(found.get("metadata") or "{}")
    except (TypeError, ValueError, RecursionError):
        raise DataError("its table of information is damaged", str(path), "copy the file again") from None
    if not OLDEST <= version <= VERSION:
        raise DataError(
            f"has version {version} of ASE's layout; {OLDEST} to {VERSION} are known",
            str(path),
            f"convert it: python -m ase.db.convert {path.name}" if version < OLDEST else "update ASE",
        )
    return version, metadata if isinstance(metadata, dict) else {}


def _blob(value: Any, kind: str) -> np.ndarray | None:
    if value is None:
        return None
    if not isinstance(value, bytes):
        raise TypeError("a column that is no array")
    return np.frombuffer(value, kind)


def _data(value: Any) -> Any:
    from ase.io.jsonio import decode

    return decode(value) if isinstance(value, str) else bytes_to_object(value)


def _what_there_is(connection: sqlite3.Connection) -> str:
    """Keys and texts that rows have, for messages."""
    texts = connection.execute(
        "SELECT key, value, COUNT(*) FROM text_key_values GROUP BY key, value ORDER BY 3 DESC LIMIT ?", (SHOWN,)
    ).fetchall()
    keys = connection.execute("SELECT DISTINCT key FROM keys LIMIT ?", (2 * SHOWN,)).fetchall()
    if texts:
        return "rows have " + ", ".join(f"{k}={v} ({n})" for k, v, n in texts)
    return f"rows have the keys {', '.join(k for (k,) in keys)}" if keys else "its rows have no keys"
