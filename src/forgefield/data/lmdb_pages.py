"""Are the pages of an LMDB file sound? The library believes what they say, and a damaged one ends the process.

Looked at are the two headers and the tree of keys: each place that a page names must lie in the page or in the file.
Values on pages of their own are not read, so a file of a million large records takes about a second.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np

from forgefield.core.errors import DataError

HEADER = 16  # bytes of a page before what it holds
MAGIC, VERSION = 0xBEEFC0DE, 1
META = struct.Struct("<IIQQ48s48sQQ")  # magic, version, address, size, two trees, last page, transaction
TREE = struct.Struct("<IHHQQQQQ")  # page size, flags, depth, branches, leaves, overflows, entries, root
BRANCH, LEAF, OF_META = 1, 2, 8
BIG, SUB_TREE = 1, 2  # flags of nodes: value on pages of its own; a tree inside
NO_PAGE = (1 << 64) - 1
PAGE_SIZES = frozenset(1 << k for k in range(8, 17))
DEEPEST = 32


class Tree(NamedTuple):
    """The newer of the two headers."""

    page_size: int
    depth: int
    entries: int
    root: int
    last_page: int
    transaction: int


def check_pages(path: Path) -> None:
    """Refuse an LMDB file that is cut off or damaged where the library would not notice.

    Raises:
        DataError: says what is wrong.
    """
    file = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(file).st_size
        tree = _newer(file, size, path)
        if size < (tree.last_page + 1) * tree.page_size:
            needed = (tree.last_page + 1) * tree.page_size
            raise DataError(f"is cut off: {size} of {needed} bytes are there", str(path), "copy or download it again")
        if tree.root == NO_PAGE:
            return
        entries = _walk(file, size, tree, path)
        if entries != tree.entries:
            _damaged(path, f"{tree.entries} keys are promised, {entries} are there")
    finally:
        os.close(file)


def _newer(file: int, size: int, path: Path) -> Tree:
    """The header that counts."""
    first = _header(file, 0, size, path)
    second = _header(file, first.page_size, size, path)
    if second.page_size != first.page_size:
        _damaged(path, "its headers disagree")
    return max(first, second, key=lambda tree: tree.transaction)


def _header(file: int, start: int, size: int, path: Path) -> Tree:
    raw = os.pread(file, HEADER + META.size, start)
    if len(raw) < HEADER + META.size:
        raise DataError(f"is cut off: it has {size} bytes", str(path), "copy or download it again")
    magic, version, _, _, _, main, last, transaction = META.unpack_from(raw, HEADER)
    page_size = struct.unpack_from("<I", raw, HEADER + 24)[0]
    _, flags, depth, _, _, _, entries, root = TREE.unpack(main)
    kind = struct.unpack_from("<H", raw, 10)[0]
    if magic != MAGIC or version != VERSION or kind != OF_META or page_size not in PAGE_SIZES:
        _damaged(path, "its header is no LMDB header")
    if flags != 0 or depth > DEEPEST or (root == NO_PAGE) != (depth == 0):
        _damaged(path, "its header does not fit together, or it is another kind of LMDB")
    return Tree(page_size, depth, entries, root, last, transaction)


def _walk(file: int, size: int, tree: Tree, path: Path) -> int:
    """Number of keys in the tree, all of whose pages are looked at."""
    level, entries, seen = np.array([tree.root], dtype=np.uint64), 0, 0
    for depth in range(1, tree.depth + 1):
        below: list[np.ndarray] = []
        if len(np.unique(level)) < len(level) or level.min() < 2 or level.max() > tree.last_page:
            _damaged(path, "a page is named twice, or does not exist")
        seen += len(level)
        if seen > tree.last_page:
            _damaged(path, "more pages are named than there are")
        for page in level.tolist():
            raw = os.pread(file, tree.page_size, page * tree.page_size)
            children, count = _page(raw, page, depth == tree.depth, tree, size, path)
            below.append(children)
            entries += count
        level = np.concatenate(below)
    return entries


def _page(raw: bytes, page: int, leaf: bool, tree: Tree, size: int, path: Path) -> tuple[np.ndarray, int]:
    """Pages below a branch, and number of keys of a leaf."""
    number, _, flags, lower, upper = struct.unpack_from("<QHHHH", raw.ljust(HEADER, b"\0"))
    upper, place = upper or 1 << 16, f"page {page}"  # 65536 does not fit into two bytes
    if len(raw) != tree.page_size or number != page or flags & ~16 != (LEAF if leaf else BRANCH):
        _damaged(path, f"{place} is not of the kind that it should be")
    count = (lower - HEADER) // 2
    if lower % 2 or not HEADER <= lower <= upper <= tree.page_size or count < (1 if leaf else 2):
        _damaged(path, f"{place} does not fit together")
    words = np.frombuffer(raw, "<u2")
    starts = words[HEADER // 2 : HEADER // 2 + count].astype(np.int64)
    if (starts % 2).any() or starts.min() < upper or starts.max() > tree.page_size - 8:
        _damaged(path, f"{place} names a place outside itself")
    low, high, marks, key = (words[starts // 2 + k].astype(np.int64) for k in range(4))
    ends = starts + 8 + key
    if not leaf:
        if ends.max() > tree.page_size:
            _damaged(path, f"{place} has a key that does not fit")
        return (low | high << 16 | marks << 32).astype(np.uint64), 0
    length = low | high << 16
    if (marks & ~(BIG | SUB_TREE)).any():
        _damaged(path, f"{place} has nodes of unknown kind")
    big = (marks & BIG).astype(bool)
    if (ends + np.where(big, 8, length)).max() > tree.page_size:
        _damaged(path, f"{place} has a value that does not fit")
    for end, bytes_there in zip(ends[big].tolist(), length[big].tolist(), strict=True):
        first = int.from_bytes(raw[end : end + 8], "little")
        if first < 2 or first > tree.last_page or first * tree.page_size + HEADER + bytes_there > size:
            _damaged(path, f"{place} names a value outside the file")
    return np.zeros(0, dtype=np.uint64), count


def _damaged(path: Path, why: str) -> NoReturn:
    raise DataError(f"is damaged ({why})", str(path), "copy or download it again")
