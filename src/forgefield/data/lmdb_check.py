"""Look through the pages of an LMDB file before liblmdb does: it follows damaged pointers and takes the process down.

Layout (liblmdb 0.9, data version 1, little endian): pages of one size; the first two are headers, of which the one
with the higher transaction number counts. It points to the root of a tree of branch and leaf pages. Long values lie in
pages of their own, which are not visited here: that they lie inside of the file is enough.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np

from forgefield.core.errors import DataError

MAGIC, VERSION = 0xBEEFC0DE, 1
HEAD = 16  # bytes before what a page holds
NODE = 8  # bytes before a key
PAGE_SIZES = frozenset(2**k for k in range(9, 17))
BRANCH, LEAF, DIRTY, META = 0x01, 0x02, 0x10, 0x08
BIG = 0x01  # a node whose value lies in pages of its own
INTEGER_KEYS = 0x08
EMPTY = 2**64 - 1
DEEPEST, LONGEST_KEY = 31, 511
_META = struct.Struct("<QHHHHIIQQ")
_TREE = struct.Struct("<IHHQQQQQ")
_LAST = struct.Struct("<QQ")


class _Header(NamedTuple):
    """One of the two headers."""

    page_size: int
    flags: int
    depth: int
    entries: int
    root: int
    last_page: int
    transaction: int


def check_lmdb(path: Path) -> None:
    """Refuse an LMDB file whose tree leads outside of the file.

    Args:
        path: the file itself, `data.mdb` of a folder.

    Raises:
        DataError: it is empty, cut off or damaged, or holds databases within the database.
    """
    _walk(path, None)


def places_of_values(path: Path) -> list[tuple[bytes, int]]:
    """Return all keys, and where in the file the value of each begins, bytes.

    Raises:
        DataError: as `check_lmdb`.
    """
    found: list[tuple[bytes, int]] = []
    _walk(path, found)
    return found


def _walk(path: Path, found: list[tuple[bytes, int]] | None) -> None:
    where, size = str(path), path.stat().st_size
    if size == 0:
        raise DataError("is empty", where, "copy the file again")
    header = _newest(path, size)
    needed = (header.last_page + 1) * header.page_size
    if size < needed:
        raise DataError(f"is cut off: {size} of {needed} bytes are there", where, "copy or download it again")
    if header.root == EMPTY:
        return
    data = np.memmap(path, np.uint8, "r")
    _Walk(data, header, where, found).run()


def _damaged(what: str, where: str) -> DataError:
    return DataError(f"cannot be opened as LMDB: it is damaged ({what})", where, "copy the file again")


def _newest(path: Path, size: int) -> _Header:
    """The header that counts, after both were looked at."""
    where = str(path)
    with path.open("rb") as stream:
        first = _header(stream.read(HEAD + 144), where, size)
        stream.seek(first.page_size)
        second = _header(stream.read(HEAD + 144), where, size)
    if first.page_size != second.page_size:
        raise _damaged("its two headers differ", where)
    return max(first, second, key=lambda h: h.transaction)


def _header(raw: bytes, where: str, size: int) -> _Header:
    if len(raw) < HEAD + 136:
        raise DataError(f"is cut off: {size} bytes are there", where, "copy or download it again")
    _, _, flags, _, _, magic, version, _, _ = _META.unpack_from(raw)
    page_size = _TREE.unpack_from(raw, _META.size)[0]
    tree = _TREE.unpack_from(raw, _META.size + _TREE.size)
    last_page, transaction = _LAST.unpack_from(raw, _META.size + 2 * _TREE.size)
    if magic != MAGIC or version != VERSION or not flags & META or page_size not in PAGE_SIZES:
        raise _damaged("a header is wrong", where)
    _, kind, depth, _, _, _, entries, root = tree
    if kind & ~INTEGER_KEYS:
        raise DataError("is an LMDB file with several values to a key", where, "is this an atomistic data set?")
    if (root != EMPTY and not 2 <= root <= last_page) or depth > DEEPEST or last_page > 2**48:
        raise _damaged("a header is wrong", where)
    return _Header(page_size, kind, depth, entries, root, last_page, transaction)


class _Walk:
    """Visits every branch and leaf page once, and lists the places of values in `found` if that is given."""

    def __init__(
        self, data: np.ndarray, header: _Header, where: str, found: list[tuple[bytes, int]] | None = None
    ) -> None:
        self._data, self._header, self._where, self._found = data, header, where, found
        self._seen: set[int] = set()
        self._entries = 0

    def run(self) -> None:
        """Visit the tree level by level."""
        level = [self._header.root]
        for depth in range(self._header.depth, 0, -1):
            below: list[int] = []
            for number in level:
                below += self._page(number, leaf=depth == 1)
            level = below
        if self._entries != self._header.entries:
            raise self._wrong(f"{self._entries} of {self._header.entries} records are there")

    def _wrong(self, what: str) -> DataError:
        return _damaged(what, self._where)

    def _page(self, number: int, leaf: bool) -> list[int]:
        """Check one page; returns the pages below it."""
        size = self._header.page_size
        if not 2 <= number <= self._header.last_page or number in self._seen:
            raise self._wrong(f"page {number} is named twice or not there")
        self._seen.add(number)
        page = self._data[number * size : (number + 1) * size]
        own, _, flags, lower, upper = struct.unpack("<QHHHH", page[:HEAD].tobytes())
        wanted = LEAF if leaf else BRANCH
        if own != number or flags & ~DIRTY != wanted or not HEAD <= lower <= upper <= size or lower % 2:
            raise self._wrong(f"page {number}")
        at = page[HEAD:lower].view("<u2").astype(np.int64)
        if (
            len(at) == 0
            or (not leaf and len(at) < 2)
            or (at < lower).any()
            or (at > size - NODE).any()
            or (at % 2).any()
        ):
            raise self._wrong(f"page {number}")
        words = page[at[:, None] + np.arange(NODE)].view("<u2").astype(np.int64)  # (n, 4): low, high, flags, key
        keys = words[:, 3]
        if (keys > LONGEST_KEY).any() or (at + NODE + keys > size).any():
            raise self._wrong(f"page {number}")
        if not leaf:
            return (words[:, 0] | words[:, 1] << 16 | words[:, 2] << 32).tolist()
        self._values(page, at + NODE + keys, words, number)
        self._entries += len(at)
        return []

    def _values(self, page: np.ndarray, at: np.ndarray, words: np.ndarray, number: int) -> None:
        """Check that the values of a leaf lie inside of it, or inside of the file."""
        size, lengths, big = self._header.page_size, words[:, 0] | words[:, 1] << 16, words[:, 2] == BIG
        if (words[~big, 2] != 0).any():
            raise DataError("holds databases within the database", self._where, "is this an atomistic data set?")
        inside = np.where(big, 8, lengths)
        if (at + inside > size).any():
            raise self._wrong(f"page {number}")
        starts = number * size + at
        if big.any():
            pages = page[at[big][:, None] + np.arange(8)].view("<u8")[:, 0]
            if (pages < 2).any() or (pages > self._header.last_page).any():
                raise self._wrong(f"page {number} names a page that is not there")
            ends = pages.astype(np.int64) * size + HEAD + lengths[big]
            if (ends > (self._header.last_page + 1) * size).any():
                raise self._wrong(f"page {number} names a value that is not there")
            starts[big] = pages.astype(np.int64) * size + HEAD
        if self._found is not None:
            names = [page[a - n : a].tobytes() for a, n in zip(at.tolist(), words[:, 3].tolist(), strict=True)]
            self._found += zip(names, starts.tolist(), strict=True)
