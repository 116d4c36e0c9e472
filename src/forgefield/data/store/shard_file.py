"""The file of a shard: its tables are read through LMDB once, its records with plain reads at known places.

Mapping the whole file instead costs a page fault for nearly every record that is read at random from a large store,
and what was mapped counts as memory of the process.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

import lmdb
import numpy as np

from forgefield.core.errors import DataError
from forgefield.data.lmdb_check import places_of_values

AGAIN = "copy the store again"
_TURNS = [threading.Lock()]  # LMDB opens a file once per process; a child process puts a new lock in its place


def _after_fork() -> None:
    _TURNS[0] = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


@final
class RecordFile:
    """Blocks of a finished LMDB file; safe to use from several threads and forked processes.

    Who replaces the file does not disturb it: it goes on with the file that was there.

    Args:
        path: the file.

    Raises:
        DataError: it cannot be opened, or its tables are damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise DataError(f"cannot be opened ({error.strerror})", str(path), "was the store moved?") from None
        weakref.finalize(self, os.close, self._file)
        self._starts = _starts(path)

    def read(self, block: int, place: int, size: int) -> bytearray:
        """Return a copy of a part of a block; shorter than asked for, or empty, where the file ends or has no such."""
        if block >= len(self._starts):
            return bytearray()
        copy = bytearray(size)
        try:
            found = os.preadv(self._file, [copy], int(self._starts[block]) + place)
        except OSError as error:
            raise DataError(f"cannot be read ({error.strerror})", str(self.path), AGAIN) from None
        return copy if found == size else copy[:found]


def _starts(path: Path) -> np.ndarray:
    """Where in the file each block begins, by its number, (n,); blocks have keys b0000000000, b0000000001, ..."""
    found = {int(key[1:]): place for key, place in places_of_values(path) if key[:1] == b"b" and key[1:].isdigit()}
    if found.keys() != set(range(len(found))):
        raise DataError("is damaged: a block of records is missing", str(path), AGAIN)
    return np.array([found[number] for number in range(len(found))], dtype=np.int64)


@contextmanager
def tables(path: Path) -> Generator[Any]:
    """Open the file with LMDB for as long as its tables are read; yields a transaction.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with (
            _TURNS[0],
            lmdb.open(str(path), subdir=False, readonly=True, lock=False, readahead=False, create=False) as opened,
            opened.begin() as transaction,
        ):
            yield transaction
    except lmdb.Error as error:
        raise DataError(f"cannot be read as LMDB ({error})", str(path), AGAIN) from None
