"""A JSON file that is one long list: its entries are found once and decoded when they are asked for."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from forgefield.core.errors import DataError
from forgefield.data.foreign_errors import reason
from forgefield.data.lmdb_file import signature
from forgefield.data.passed_over import told

CHUNK = 1 << 20  # bytes read at a time
LARGEST_ENTRY = 1 << 28  # bytes
LARGEST_ARCHIVE = 1 << 33  # bytes, unpacked
BLANK = " \t\r\n"
ZIP = b"PK\x03\x04"


class _Text(NamedTuple):
    """Decoded text that has been read, and where it starts in the file."""

    text: str
    start: int


class JsonList:
    """Entries of a JSON list in a file, or in a zip archive with one member.

    Args:
        path: the file. An archive is unpacked into memory.
        skip: where it is damaged or cut off, keep the entries before; `notes` say so.

    Raises:
        DataError: it is no list, is damaged or cut off; names the entry.
    """

    def __init__(self, path: Path, *, skip: bool = False) -> None:
        self._path, self._signature = path, signature(path)
        self._held = _unpacked(path) if _is_zip(path) else None
        self.notes: tuple[str, ...] = ()
        found: list[tuple[int, int]] = []
        try:
            self._scan(found)
        except DataError as error:
            if not skip or not found:
                raise
            self.notes = (told(f"what comes after {len(found)} entries is", [str(error)]),)
        self._ends = np.array(found, dtype=np.int64).reshape(-1, 2)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> Any:
        start, end = (int(x) for x in self._ends[index])
        try:
            return json.loads(self._read(start, end - start))
        except (ValueError, RecursionError) as error:
            where = f"{self._path.name}: entry {index}"
            raise DataError(f"is damaged ({error})", where, "was the file changed?") from None

    def _read(self, start: int, count: int) -> bytes:
        if self._held is not None:
            return self._held[start : start + count]
        if signature(self._path) != self._signature:
            raise DataError("was changed while it was in use", str(self._path), "start again")
        with self._path.open("rb") as stream:
            stream.seek(start)
            return stream.read(count)

    def _scan(self, found: list[tuple[int, int]]) -> None:
        """Add start and end of each entry in bytes."""
        text = self._more(_Text("", 0), 0)
        at = _skip(text.text, 0)
        if text.text[at : at + 1] != "[":
            raise DataError("is no JSON list", str(self._path), "is this an id_prop.json?")
        at += 1
        while True:
            at, text = self._next(text, at)
            if text.text[at : at + 1] == "]":
                return
            if found:
                if text.text[at : at + 1] != ",":
                    raise self._damaged(len(found), "no comma after it")
                at, text = self._next(text, at + 1)
            end, text, at = self._entry(text, at, len(found))
            found.append((text.start + at, text.start + end))
            at = end

    def _entry(self, text: _Text, at: int, index: int) -> tuple[int, _Text, int]:
        """End of the entry that starts at a place; more of the file is read until it is whole."""
        decoder = json.JSONDecoder()
        while True:
            try:
                return decoder.raw_decode(text.text, at)[1], text, at
            except RecursionError:
                raise self._damaged(index, "nested too deeply") from None
            except ValueError as error:
                if len(text.text) - at > LARGEST_ENTRY:
                    raise self._damaged(index, "too long") from None
                longer = self._more(text, at)
                if len(longer.text) + at == len(text.text):
                    raise self._damaged(index, str(error)) from None
                if _hopeless(text.text, error):
                    raise self._damaged(index, str(error)) from None
                text, at = longer, 0

    def _next(self, text: _Text, at: int) -> tuple[int, _Text]:
        """Place of the next character that is not blank."""
        at = _skip(text.text, at)
        while at >= len(text.text):
            longer = self._more(text, at)
            if not longer.text:
                raise DataError("the list has no end", str(self._path), "the file is cut off: copy it again")
            text, at = longer, _skip(longer.text, 0)
        return at, text

    def _more(self, text: _Text, keep_from: int) -> _Text:
        """Drop what is done with and read on; twice as much as is waiting, so that long entries stay cheap."""
        kept = text.text[keep_from:]
        read = self._read(text.start + len(text.text), max(CHUNK, len(kept)))
        return _Text(kept + read.decode("latin1"), text.start + keep_from)  # one character per byte

    def _damaged(self, index: int, why: str) -> DataError:
        return DataError(
            f"cannot be read ({why})", f"{self._path.name}: entry {index}", "the file is cut off or damaged"
        )


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in BLANK:
        at += 1
    return at


def _hopeless(text: str, error: ValueError) -> bool:
    """Whether an error lies so far before the end of the text that reading on cannot mend it."""
    place = error.pos if isinstance(error, json.JSONDecodeError) else len(text)
    return place < len(text) - CHUNK // 2 and "string" not in str(error)


def _is_zip(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(4) == ZIP


def json_member(archive: zipfile.ZipFile) -> zipfile.ZipInfo | None:
    """Return the one JSON file of an archive; None if there is none or more than one."""
    members = [m for m in archive.infolist() if m.filename.endswith(".json") and not m.filename.startswith("__MACOSX")]
    return members[0] if len(members) == 1 else None


def _unpacked(path: Path) -> bytes:
    """The one JSON file of an archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            member = json_member(archive)
            if member is None:
                raise DataError("the archive does not hold exactly one .json file", str(path), "unpack it")
            if member.file_size > LARGEST_ARCHIVE:
                raise DataError(f"unpacks to {member.file_size} bytes", str(path), "unpack it, or split it")
            return archive.read(member)
    except DataError:
        raise
    except Exception as error:  # damaged archives end in many kinds of exceptions
        fix = "it is cut off or damaged: copy it again"
        raise DataError(f"cannot be unpacked ({reason(error)})", str(path), fix) from None
