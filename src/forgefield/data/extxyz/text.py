"""The text of a file that may be compressed, read at any place."""

from __future__ import annotations

import gzip
import lzma
import os
import tempfile
import zlib
from pathlib import Path
from typing import IO, Any, BinaryIO, final
from weakref import finalize

from forgefield.core.disk import disk_errors
from forgefield.core.errors import DataError
from forgefield.data.passed_over import told

STEP = 2**16  # bytes
XZ, GZIP = b"\xfd7zXZ\x00", b"\x1f\x8b"


def start_of(path: Path) -> bytes:
    """Return the first bytes of a file."""
    with path.open("rb") as stream:
        return stream.read(len(XZ))


def open_text(path: Path) -> BinaryIO | gzip.GzipFile | lzma.LZMAFile:
    """Open a file, decompressed by what it contains, not by its name."""
    start = start_of(path)
    if start.startswith(XZ):
        return lzma.open(path, "rb")
    return gzip.open(path, "rb") if start.startswith(GZIP) else path.open("rb")


@final
class Text:
    """Parts of a file. A compressed one is unpacked into the temporary folder (TMPDIR) until the end.

    Args:
        path: the file.
        skip: of a compressed one that is cut off or damaged, take what comes before; `notes` say so.

    Raises:
        DataError: it cannot be unpacked.
    """

    def __init__(self, path: Path, *, skip: bool = False) -> None:
        self.path, self._signature, self._skip = path, _signature(path), skip
        self.notes: tuple[str, ...] = ()
        self._open()

    def _open(self) -> None:
        self.packed = start_of(self.path).startswith((XZ, GZIP))
        if self.packed:
            self._file, self.notes = _unpacked(self.path, self._skip)
        else:
            self._file = os.open(self.path, os.O_RDONLY)
        self._closing = finalize(self, os.close, self._file)
        self.check()

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_signature": self._signature, "_skip": self._skip, "notes": self.notes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def stream(self) -> BinaryIO:
        """Return the whole text, from its beginning; close it."""
        stream = os.fdopen(os.dup(self._file), "rb", buffering=2**20)
        stream.seek(0)
        return stream

    def part(self, start: int, length: int) -> bytes:
        """Return some of the bytes; safe in threads and forked processes.

        Raises:
            DataError: the file was changed.
        """
        if not self.packed:
            self.check()
        return os.pread(self._file, length, start)

    def check(self) -> None:
        """Refuse a file that is not as it was.

        Raises:
            DataError: it was changed.
        """
        if _signature(self.path) != self._signature:
            raise DataError("was changed while it was read", str(self.path), "start again when it is complete")


def _signature(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _unpacked(path: Path, skip: bool) -> tuple[int, tuple[str, ...]]:
    """A file without name that holds the text, gone when it is closed; and what the user should know."""
    with tempfile.TemporaryFile(prefix="forgefield-") as copy:
        notes: tuple[str, ...] = ()
        try:
            with open_text(path) as stream, disk_errors(tempfile.gettempdir()):
                _copy(stream, copy)
                copy.flush()
        except (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile) as error:
            cut = isinstance(error, EOFError)
            what = "the compressed file is cut off" if cut else f"the compressed file is damaged ({error})"
            wrong = DataError(what, str(path), "copy or download it again")
            copy.flush()
            if not skip or not copy.tell():
                raise wrong from None
            notes = (told("what lies behind the damage is", [str(wrong)]),)
        return os.dup(copy.fileno()), notes


def _copy(stream: BinaryIO | gzip.GzipFile | lzma.LZMAFile, copy: IO[bytes]) -> None:
    """Copy all that can be unpacked before an error is raised: one small step of the decoder at a time."""
    while piece := stream.read1(STEP):  # type: ignore[union-attr]
        copy.write(piece)
