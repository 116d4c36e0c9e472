"""Base labels that were computed, kept in one file, so that none is computed twice."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from forgefield.core.errors import DataError
from forgefield.core.structure import Structure
from forgefield.models.baseline.settings import OF_THE_PROGRAM, BaselineSettings
from forgefield.models.baseline.xtb import electrons

FILE = "baseline.sqlite"
COMMIT_EVERY = 64  # results
_TABLES = (
    "CREATE TABLE IF NOT EXISTS results (key BLOB PRIMARY KEY, arrays BLOB, failure TEXT)",
    "CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, text TEXT)",
)


def key_of(structure: Structure, settings: BaselineSettings) -> bytes:
    """Return what a result is kept under: a hash of the structure and of how it is computed.

    Raises:
        DataError: the method is not made for such a structure.
    """
    charge, unpaired = electrons(structure)
    digest = hashlib.sha256(json.dumps([settings.method, *(getattr(settings, n) for n in OF_THE_PROGRAM)]).encode())
    digest.update(f"|{charge!r}|{unpaired}|{len(structure)}|".encode())
    digest.update(structure.numbers.astype("<i8").tobytes())
    digest.update(structure.positions.astype("<f8").tobytes())
    if structure.pbc.any():
        digest.update(structure.pbc.tobytes() + structure.cell.astype("<f8").tobytes())
    return digest.digest()


class Failure(str):
    """Why a structure has no result."""


class Cache:
    """Results by key. What was put is on the disk after at most `COMMIT_EVERY` results, and when it is closed.

    Args:
        path: the file; None keeps all in memory.

    Raises:
        DataError: the file is there and is none of ours.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._open: sqlite3.Connection | None = None
        self._kept: dict[bytes, dict[str, np.ndarray] | Failure] = {}
        self._waiting = 0

    def __getstate__(self) -> dict[str, Any]:
        self.commit()
        return {**self.__dict__, "_open": None, "_waiting": 0}

    def get(self, key: bytes) -> dict[str, np.ndarray] | Failure | None:
        """Return a result, why there is none, or None where it was never computed."""
        if self.path is None:
            return self._kept.get(key)
        row = self._do("SELECT arrays, failure FROM results WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        return Failure(row[1]) if row[0] is None else load_arrays(row[0])

    def put(self, key: bytes, result: Mapping[str, np.ndarray] | Failure) -> None:
        """Keep a result."""
        if self.path is None:
            self._kept[key] = result if isinstance(result, Failure) else dict(result)
            return
        failed = isinstance(result, Failure)
        packed = None if failed else save_arrays({n: np.array(v, dtype=np.float64) for n, v in result.items()})
        self._do("INSERT OR REPLACE INTO results VALUES (?, ?, ?)", (key, packed, str(result) if failed else None))
        self._waiting += 1
        if self._waiting >= COMMIT_EVERY:
            self.commit()

    def note(self, name: str, text: str) -> None:
        """Keep a word about the results."""
        if self.path is not None:
            self._do("INSERT OR REPLACE INTO about VALUES (?, ?)", (name, text))
            self.commit()

    def commit(self) -> None:
        """Write what was put to the disk."""
        if self._open is not None:
            self._open.commit()
        self._waiting = 0

    def close(self) -> None:
        """Write and close the file; it is opened again when it is needed."""
        self.commit()
        if self._open is not None:
            self._open.close()
        self._open = None

    def _do(self, command: str, values: tuple[Any, ...]) -> sqlite3.Cursor:
        try:
            if self._open is None:
                self._open = sqlite3.connect(str(self.path), check_same_thread=False)
                for table in _TABLES:
                    self._open.execute(table)
            return self._open.execute(command, values)
        except sqlite3.Error as error:
            what = f"base labels cannot be kept there ({error})"
            raise DataError(what, str(self.path), "remove the file; what it held is computed anew") from error
