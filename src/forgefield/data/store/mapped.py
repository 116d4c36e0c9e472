"""LMDB files open for reading: one process may open a file only once, so all who read it share it."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any, final
from weakref import WeakValueDictionary

import lmdb

from forgefield.core.errors import DataError

MAPPED_AT_MOST, LEAST = 256 * 2**20, 8 * 2**20
"""Bytes of all files together that may be mapped before one is closed and opened anew; of one file, at least."""
AROUND = 64 * 2**10  # bytes that the system maps around those that are read

_OPEN: WeakValueDictionary[str, MappedFile] = WeakValueDictionary()
_turns = threading.Lock()


@final
class MappedFile:
    """A finished LMDB file; threads take turns, a forked process opens it for itself. Made by `shared`."""

    def __init__(self, path: Path, signature: tuple[int, int, int]) -> None:
        self.path, self.signature = path, signature
        self._lock = threading.Lock()
        self._environment: lmdb.Environment | None = None
        self._transaction: Any = None
        self._read = 0

    def get(self, key: bytes, start: int = 0, end: int | None = None) -> bytearray | None:
        """Return a copy of a part of a value; None if there is no such key.

        Raises:
            DataError: the file was changed, or cannot be read.
        """
        try:
            with self._lock:
                if self._environment is None or self._read > max(MAPPED_AT_MOST // len(_OPEN), LEAST):
                    self._reopen()
                value = self._transaction.get(key)
                if value is None:
                    return None
                copy = bytearray(value[start:end])
                self._read += len(copy) + AROUND
                return copy
        except lmdb.Error as error:
            raise DataError(f"cannot be read as LMDB ({error})", str(self.path), "copy the store again") from None

    def _reopen(self) -> None:
        self._close()
        if signature(self.path) != self.signature:
            raise DataError("was changed while it was in use", str(self.path), "start again")
        self._environment = lmdb.open(
            str(self.path), subdir=False, readonly=True, lock=False, readahead=False, create=False
        )
        self._transaction = self._environment.begin(buffers=True)

    def close(self) -> None:
        """Let go of the file; it is opened again when it is needed."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._environment is not None:
            self._transaction.abort()
            self._environment.close()
        self._environment, self._transaction, self._read = None, None, 0

    def after_fork(self) -> None:
        """Begin anew in a child process, whose parent may have held the lock."""
        self._lock = threading.Lock()
        self._close()


def shared(path: Path) -> MappedFile:
    """Return the open file of this process, or open it."""
    key, now = os.path.realpath(path), signature(path)
    with _turns:
        found = _OPEN.get(key)
        if found is None or found.signature != now:
            if found is not None:  # another file of that name; who reads the old one is told so
                found.close()
            found = _OPEN[key] = MappedFile(path, now)
    return found


def signature(path: Path) -> tuple[int, int, int]:
    """Return what changes when a file does.

    Raises:
        DataError: it is gone.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise DataError(f"is gone ({error.strerror})", str(path), "was the store moved?") from None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _after_fork() -> None:
    global _turns
    _turns = threading.Lock()
    for file in list(_OPEN.values()):
        file.after_fork()


os.register_at_fork(after_in_child=_after_fork)
