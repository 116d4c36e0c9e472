"""LMDB files: opened once per process, told apart by their keys, refused when cut off."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import lmdb

from forgefield.core.errors import DataError
from forgefield.data.lmdb_check import check_lmdb

MAGIC, MAGIC_AT = 0xBEEFC0DE, 16  # of an LMDB file, after the page header
PICKLE = b"\x80"


class Environment:
    """An LMDB file that is open. One process may open a file only once, so all who read it share this.

    Args:
        path: the file with the pages (not the folder around it).
    """

    def __init__(self, path: Path) -> None:
        self.signature = signature(path)
        check_lmdb(path)
        try:
            self.lmdb = lmdb.open(
                str(path), subdir=False, readonly=True, lock=False, readahead=False, meminit=False, max_readers=64
            )
        except lmdb.Error as error:
            raise DataError(f"cannot be opened as LMDB ({error})", str(path), "copy the file again") from None


_OPEN: WeakValueDictionary[tuple[int, str], Environment] = WeakValueDictionary()
_LOCKS = [threading.Lock()]  # a child process puts a new one in its place


def _forget_after_fork() -> None:
    """Close what a child process has inherited: the library refuses to open a file twice, and counts these."""
    _LOCKS[0] = threading.Lock()
    for environment in list(_OPEN.values()):
        environment.lmdb.close()
    _OPEN.clear()


os.register_at_fork(after_in_child=_forget_after_fork)


def signature(path: Path) -> tuple[int, int, int]:
    """Return what changes when a file is replaced or written: inode, size, time."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def open_shared(path: Path) -> Environment:
    """Return the open file of this process, or open it.

    Raises:
        DataError: it is empty, cut off, no LMDB file, or was changed while it was in use.
    """
    key = (os.getpid(), str(path.resolve()))
    with _LOCKS[0]:
        environment = _OPEN.get(key)
        if environment is None:
            environment = _OPEN[key] = Environment(path)
    if environment.signature != signature(path):
        raise DataError("was changed while it was in use", str(path), "start again")
    return environment


class LmdbFile:
    """An LMDB file that may be pickled and forked: each process opens it for itself.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open: tuple[int, Environment] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": None}

    @property
    def environment(self) -> lmdb.Environment:
        """The environment of this process."""
        held = self._open
        if held is None or held[0] != os.getpid():
            held = self._open = (os.getpid(), open_shared(self.path))
        return held[1].lmdb

    def get(self, key: bytes) -> bytes | None:
        """Return a value; None where there is no such key.

        Raises:
            DataError: the file is damaged.
        """
        try:
            with self.environment.begin() as transaction:
                return transaction.get(key)
        except lmdb.Error as error:
            raise DataError(f"is damaged ({error})", str(self.path), "copy the file again") from None

    def keys(self) -> list[bytes]:
        """Return all keys in their order.

        Raises:
            DataError: the file is damaged.
        """
        try:
            with self.environment.begin() as transaction:
                return [bytes(key) for key in transaction.cursor().iternext(values=False)]
        except lmdb.Error as error:
            raise DataError(f"is damaged ({error})", str(self.path), "copy the file again") from None


def is_lmdb(path: Path) -> bool:
    """Return whether a file starts as LMDB files do."""
    with path.open("rb") as stream:
        start = stream.read(MAGIC_AT + 4)
    return len(start) == MAGIC_AT + 4 and int.from_bytes(start[MAGIC_AT:], "little") == MAGIC


def first_kind(shards: Sequence[Path]) -> str | None:
    """Return the layout of the first LMDB file that is whole; "damaged" where none is, None where there is no file."""
    found = None
    for shard in shards:
        found = lmdb_kind(shard)
        if found != "damaged":
            return found
    return found


def lmdb_kind(path: Path) -> str | None:
    """Return which layout an LMDB file has, by its keys.

    Returns:
        "aselmdb", "xequinet" or "fairchem"; "damaged" where it cannot be opened; None for any other.
    """
    try:
        if not is_lmdb(path):
            return None
        file = LmdbFile(path)
        if file.get(b"nextid") is not None:
            return "aselmdb"
        first = file.get((0).to_bytes(8, "little"))
        if first is not None and first.startswith(PICKLE):
            return "xequinet"
        known = file.get(b"0"), file.get(b"length")
        if any(value is not None and value.startswith(PICKLE) for value in known):
            return "fairchem"
        return "fairchem" if not any(True for _ in file.keys()) else None  # noqa: SIM118
    except (DataError, OSError):
        return "damaged"
