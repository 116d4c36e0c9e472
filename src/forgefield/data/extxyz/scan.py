"""One pass over an extended XYZ file: where its frames begin, how many atoms they have, which names occur."""

from __future__ import annotations

import re
from array import array
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple, final

import numpy as np
from ase.io.extxyz import key_val_str_to_dict

from forgefield.core.errors import DataError
from forgefield.data.passed_over import told

DEFAULT_COLUMNS = 4  # symbol and position
ROWS_AT_ONCE = 4096
MOST_PATTERNS = 4096
COMMENT = re.compile(rb"(?:^|\s)(?:Properties|Lattice)\s*=", re.IGNORECASE)
NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![\w.=])")

Names = tuple[frozenset[str], str]
"""Names in the comment line, and its Properties."""


class Index(NamedTuple):
    """What a pass over the file found."""

    starts: np.ndarray  # (n,), bytes
    lengths: np.ndarray  # (n,), bytes
    counts: np.ndarray  # (n,), atoms
    group: np.ndarray  # (n,), place in `names`
    numbers: np.ndarray  # (n,), of the frame in the file, those left out counted
    names: list[Names]  # those that occur, by first appearance


@final
class Scan:
    """Reads a file line by line; memory for some bytes per frame only.

    With `skip`, a frame whose count of atoms is not true is left out, with the one before if that has too few, and
    reading goes on at the next line that is a count and has a comment line of extended XYZ after it.

    Args:
        stream: the text, as bytes; with `skip` it can go back.
        path: the file, for messages.
        skip: leave out frames whose count of atoms is wrong.
    """

    def __init__(self, stream: BinaryIO, path: Path, *, skip: bool = False) -> None:
        self._stream, self._path, self._skip = stream, path, skip
        self._numbers, self._left_out, self._frames = array("Q"), list[str](), 0
        self._starts, self._lengths, self._counts, self._group = array("Q"), array("Q"), array("Q"), array("I")
        self._names: dict[Names, int] = {}
        self._patterns: dict[str, int] = {}
        self._at = self._line = 0

    def index(self) -> Index:
        """Read the file to its end.

        Raises:
            DataError: it is empty, no text, or its counts of atoms are not true.
        """
        try:
            line = self._next()
            while line:
                line = self._next() if not line.strip() else self._frame_or_next(line)
        except UnicodeDecodeError:
            raise DataError("is not a text file", str(self._path), "set data.format to the right format") from None
        if not self._starts and self._left_out:
            raise DataError(f"no frame can be read; the first: {self._left_out[0]}", str(self._path))
        if not self._starts:
            raise DataError("is empty", str(self._path), "give a file with at least one frame")
        columns = (self._starts, self._lengths, self._counts, self._group, self._numbers)
        starts, lengths, counts, group, numbers = (np.array(c, dtype=np.int64) for c in columns)
        return Index(starts, lengths, counts, group, numbers, list(self._names))

    def notes(self) -> tuple[str, ...]:
        """Return one line on what was left out, or nothing."""
        if not self._left_out:
            return ()
        n = len(self._left_out)
        what = "1 frame that cannot be read is" if n == 1 else f"{n} frames that cannot be read are"
        return (told(what, self._left_out),)

    @property
    def n_left_out(self) -> int:
        """Frames that were left out."""
        return len(self._left_out)

    def _frame_or_next(self, first: bytes) -> bytes:
        """Take in one frame, or pass it over if it is wrong and may be; returns the line after it."""
        if not self._skip:
            return self._frame(first)
        start, number, groups = self._at, self._line, len(self._group)
        try:
            return self._frame(first)
        except UnicodeDecodeError:
            self._left_out.append(f"{self._path.name}: frame {self._frames} (line {number}): is no text")
        except DataError as error:
            self._left_out.append(str(error))
        del self._group[groups:]
        self._stream.seek(start)
        begins = first.strip().lstrip(b"-").isdigit() or COMMENT.search(self._stream.readline())
        if self._starts and not begins:  # the frame before counts too few atoms
            for column in (self._starts, self._lengths, self._counts, self._group, self._numbers):
                column.pop()
            self._left_out[-1] += " (so that frame is left out)"  # and what follows is none
        else:
            self._frames += 1
        self._stream.seek(start)
        self._at, self._line = start, number
        return self._resume()

    def _resume(self) -> bytes:
        """Return the next line that begins a frame; nothing at the end of the file."""
        line = self._next()
        while line:
            start, at, number = self._stream.tell(), self._at, self._line
            if line.strip().isdigit() and COMMENT.search(self._next()):
                self._stream.seek(start)
                self._at, self._line = at, number
                return line
            self._stream.seek(start)
            self._at, self._line = at, number
            line = self._next()
        return b""

    def _next(self) -> bytes:
        line = self._stream.readline()
        self._at += len(line)
        self._line += 1
        return line

    def _frame(self, first: bytes) -> bytes:
        """Take in one frame; returns the line after it."""
        index, start = self._frames, self._at - len(first)
        where = f"{self._path.name}: frame {index} (line {self._line})"
        count = _count(first.decode(), where, index)
        comment = self._next()
        text, there = comment.decode().rstrip("\r\n"), 0
        self._group.append(self._group_of(text))
        expected, last = _columns(text), list[bytes]()
        while there < count:
            rows = list(islice(self._stream, min(ROWS_AT_ONCE, count - there)))
            if len(rows) < min(ROWS_AT_ONCE, count - there):
                what = f"the file ends after {there + len(rows)} of {count} atoms"
                raise DataError(what, where, "the file is cut off: copy it again")
            self._at += sum(map(len, rows))
            self._line += len(rows)
            _check_rows(expected, b"".join(rows).decode().split("\n"), there, len(rows), where)
            there += len(rows)
            last = rows
        end, line = self._at, self._next()
        if not line and not last[-1].endswith(b"\n"):
            _check_last_line([row.decode().rstrip("\r\n") for row in last], where)
        while line.lstrip().startswith(b"VEC"):
            end, line = self._at, self._next()
        self._starts.append(start)
        self._lengths.append(end - start)
        self._counts.append(count)
        self._numbers.append(index)
        self._frames += 1
        return line

    def _group_of(self, comment: str) -> int:
        """The place of the names of a comment line; lines that differ in numbers alone are taken apart once."""
        pattern = NUMBER.sub("0", comment)
        known = self._patterns.get(pattern)
        if known is None:
            if len(self._patterns) >= MOST_PATTERNS:
                self._patterns.clear()
            known = self._names.setdefault(_names(comment), len(self._names))
            self._patterns[pattern] = known
        return known


def _names(comment: str) -> Names:
    try:
        found = key_val_str_to_dict(comment)
    except (ValueError, TypeError, IndexError):
        return frozenset(), ""  # whoever reads the frame is told
    return frozenset(found), str(found.get("Properties", ""))


def _count(line: str, where: str, index: int) -> int:
    try:
        count = int(line)
    except ValueError:
        fix = f"the atom count of frame {index - 1} may be too small" if index else "is this an extended XYZ file?"
        raise DataError(f"expected a count of atoms, found {line.strip()[:60]!r}", where, fix) from None
    if count < 1:
        raise DataError(f"has {count} atoms", where, "remove this frame")
    return count


def _columns(comment: str) -> int:
    """Columns that the comment line promises."""
    for word in comment.replace('"', " ").split():
        if word.startswith("Properties="):
            counts = word.split("=", 1)[1].split(":")[2::3]
            return sum(int(c) for c in counts if c.isdigit())
    return 0


def _check_rows(expected: int, rows: Sequence[str], first: int, n_rows: int, where: str) -> None:
    for k in range(n_rows):
        found = len(rows[k].split())
        if expected and found != expected:
            fix = "the atom count may be wrong or the file damaged here"
            what = f"atom {first + k} has {found} columns, Properties says {expected}: {rows[k][:60]!r}"
            raise DataError(what, where, fix)
        if found < DEFAULT_COLUMNS:
            what = f"atom {first + k} has {found} columns, needs a symbol and three coordinates: {rows[k][:60]!r}"
            raise DataError(what, where, "the atom count may be wrong")


def _check_last_line(rows: Sequence[str], where: str) -> None:
    """Refuse a last number that was cut short: no newline, and shorter than rows that all have one length."""
    lengths = {len(r) for r in rows[:-1]}
    if len(lengths) == 1 and len(rows[-1]) < lengths.pop():
        raise DataError(
            f"the last line has no end and is shorter than the others: {rows[-1][:60]!r}",
            where,
            "the file is cut off: copy it again",
        )
