"""Arrays of plain numbers in `.npy` and `.npz` files: sizes are checked before memory is taken, nothing is run."""

from __future__ import annotations

import math
import re
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from forgefield.core.errors import DataError
from forgefield.data.file_signature import Signature

MAX_BYTES = 8 * 2**30
"""Refuse compressed arrays that would be larger than this in memory."""
MAX_RATIO = 1100  # deflate cannot shrink by more than 1032
MAX_MEMBERS = 100_000
MAX_DIMENSIONS = 6
MAX_HEADER = 10_000
MAGIC = b"\x93NUMPY"
HEADER = re.compile(
    rb"\{ *'descr': *'(?P<type>[<>|=](?:b1|[iu][1248]|f[248]|[SU]\d{1,6}))', *"
    rb"'fortran_order': *(?P<order>True|False), *"
    rb"'shape': *\((?P<shape>[\d, L]{0,200})\),? *\}"
)
"""What `np.save` writes before plain numbers and texts of fixed length."""
PIECE = 2**22
LOCAL_HEADER = 30  # bytes of a zip member before its name
STORED = zipfile.ZIP_STORED
COPY = "copy the file again"
ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError, RuntimeError)


class Header(NamedTuple):
    """What a `.npy` says about itself."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype
    start: int  # bytes before the numbers

    @property
    def n_bytes(self) -> int:
        """Bytes of the numbers."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_npy(path: Path) -> np.ndarray:
    """Map the numbers of a `.npy` file; they are read when they are looked at.

    Raises:
        DataError: it is cut off, damaged, or holds Python objects.
    """
    where = str(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            header = _header(stream, where)
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", where, "check the file") from None
    _check_size(header, size, where)
    if header.n_bytes == 0:
        return np.zeros(header.shape, header.dtype)
    return np.memmap(path, header.dtype, "r", header.start, header.shape, "F" if header.fortran else "C")


class NpzFile:
    """The arrays of an `.npz` file. Those stored without compression stay on disk, the others are decompressed once.

    Checksums are compared when a member is first used.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._signature = Signature(path)
        self._held: dict[str, np.ndarray] = {}
        try:
            with zipfile.ZipFile(path) as archive:
                self._members = {m.filename: m for m in archive.infolist()}
                count = len(archive.infolist())
        except ZIP_ERRORS as error:
            raise DataError(
                f"cannot be opened as npz: it is cut off or damaged ({str(error)[:120]})", str(path), COPY
            ) from None
        if count != len(self._members) or count > MAX_MEMBERS:
            raise DataError("holds the same name twice, or far too many names", str(path), "check the file's origin")

    def names(self) -> list[str]:
        """Names of the arrays, in their order."""
        return [n.removesuffix(".npy") for n in self._members]

    def header(self, name: str) -> Header:
        """Return shape and type of an array.

        Raises:
            DataError: it is damaged, or holds Python objects.
        """
        self._signature.check()
        member, where = self._member(name), self._where(name)
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(member) as stream:
                header = _header(stream, where)
        except DataError:
            raise
        except ZIP_ERRORS as error:
            raise DataError(f"is cut off or damaged ({str(error)[:120]})", where, COPY) from None
        _check_size(header, member.file_size, where)
        if member.file_size > MAX_RATIO * max(member.compress_size, 1):
            raise DataError(
                f"claims {member.file_size} bytes in {member.compress_size}", where, "check the file's origin"
            )
        return header

    def __getitem__(self, name: str) -> np.ndarray:
        """Return an array.

        Raises:
            DataError: it is cut off, damaged, too large, or holds Python objects.
        """
        self._signature.check()
        if name not in self._held:
            header = self.header(name)
            member = self._member(name)
            self._held[name] = (
                self._mapped(member, header) if member.compress_type == STORED else self._read(name, header)
            )
        return self._held[name]

    def __contains__(self, name: str) -> bool:
        return f"{name}.npy" in self._members

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_held": {}}

    def _where(self, name: str) -> str:
        return f"{self.path.name}: {name}"

    def _member(self, name: str) -> zipfile.ZipInfo:
        if name not in self:
            raise DataError(f"has no array {name!r}", str(self.path), f"it has {', '.join(self.names()[:20])}")
        return self._members[f"{name}.npy"]

    def _mapped(self, member: zipfile.ZipInfo, header: Header) -> np.ndarray:
        """Map a member that is not compressed, after its checksum was compared."""
        where = self._where(member.filename.removesuffix(".npy"))
        with self.path.open("rb") as stream:
            stream.seek(member.header_offset)
            local = stream.read(LOCAL_HEADER)
            start = member.header_offset + LOCAL_HEADER
            start += int.from_bytes(local[26:28], "little") + int.from_bytes(local[28:30], "little")
            stream.seek(start)
            left, found = member.file_size, 0
            while left > 0 and (piece := stream.read(min(PIECE, left))):
                found, left = zlib.crc32(piece, found), left - len(piece)
        if left or found != member.CRC:
            raise DataError("is cut off or damaged (wrong checksum)", where, COPY)
        if header.n_bytes == 0:
            return np.zeros(header.shape, header.dtype)
        order = "F" if header.fortran else "C"
        return np.memmap(self.path, header.dtype, "r", start + header.start, header.shape, order)

    def _read(self, name: str, header: Header) -> np.ndarray:
        if header.n_bytes > MAX_BYTES:
            fix = "write it again with np.savez, without compression: it then stays on disk"
            raise DataError(f"has {header.n_bytes} bytes when decompressed", self._where(name), fix)
        data = bytearray()
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(self._member(name)) as stream:
                stream.read(header.start)
                while piece := stream.read(PIECE):
                    data += piece
                    if len(data) > header.n_bytes:
                        break
        except ZIP_ERRORS as error:
            raise DataError(f"is cut off or damaged ({str(error)[:120]})", self._where(name), COPY) from None
        if len(data) != header.n_bytes:
            raise DataError(f"holds {len(data)} of {header.n_bytes} bytes", self._where(name), COPY)
        flat = np.frombuffer(data, header.dtype)
        return flat.reshape(header.shape, order="F" if header.fortran else "C")


def _header(stream: IO[bytes], where: str) -> Header:
    """Read the header of a `.npy`: plain numbers or fixed texts of few dimensions."""
    try:
        start = stream.read(len(MAGIC) + 2)
        if start[: len(MAGIC)] != MAGIC or start[len(MAGIC)] not in (1, 2, 3):
            raise DataError("is no array file", where, COPY)
        size = stream.read(2 if start[len(MAGIC)] == 1 else 4)
        length = int.from_bytes(size, "little")
        text = stream.read(min(length, MAX_HEADER))
    except IndexError:
        raise DataError("is cut off", where, COPY) from None
    except ZIP_ERRORS as error:
        raise DataError(f"is cut off or damaged ({str(error)[:120]})", where, COPY) from None
    shape, fortran, dtype = _parsed(text, where)
    if dtype.hasobject or dtype.kind not in "biufSU" or dtype.itemsize == 0:
        fix = "save plain numbers (np.save with allow_pickle=False); objects are never unpickled"
        raise DataError(f"holds {dtype} instead of plain numbers", where, fix)
    if len(shape) > MAX_DIMENSIONS or any(n < 0 for n in shape):
        raise DataError(f"has the impossible shape {shape}"[:200], where, COPY)
    return Header(shape, fortran, dtype, len(start) + len(size) + length)


def _parsed(text: bytes, where: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, order and type in the text of a header."""
    found = HEADER.fullmatch(text.rstrip(b" \n"))
    if found is None:
        what = "holds Python objects or records" if b"O" in text or b"[(" in text else "has a damaged header"
        raise DataError(
            what, where, "save plain numbers (np.save with allow_pickle=False); objects are never unpickled"
        )
    dtype = np.dtype(found["type"].decode("ascii"))
    sizes = [n.strip().rstrip(b"L") for n in found["shape"].split(b",") if n.strip()]
    if not all(n.isdigit() and len(n) < 19 for n in sizes):
        raise DataError("has a damaged header", where, COPY)
    return tuple(map(int, sizes)), found["order"] == b"True", dtype


def _check_size(header: Header, size: int, where: str) -> None:
    """Refuse an array that is not exactly as long as its header says."""
    there = size - header.start
    if there != header.n_bytes:
        what = f"is cut off: {max(there, 0)} of {header.n_bytes} bytes are there"
        if there > header.n_bytes:
            what = f"has {there} bytes where shape {header.shape} needs {header.n_bytes}"
        raise DataError(what, where, COPY)
