"""HDF5 files from elsewhere: plain arrays only, no links to other places, sizes checked before anything is read."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from forgefield.core.errors import DataError
from forgefield.data.file_signature import Signature

MAGIC = b"\x89HDF\r\n\x1a\n"
MAX_CHUNK = 256 * 2**20  # bytes that one compressed piece may have in memory
MAX_NAMES = 100_000
KEPT_BYTES = 2**20  # of each array that are read at once
FILTERS = frozenset((h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32))
LZF = 32000
COPY = "copy the file again"
ERRORS = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, UnicodeError, OverflowError)


def is_hdf5(path: Path) -> bool:
    """Return whether a file begins as HDF5 does."""
    with path.open("rb") as stream:
        return stream.read(len(MAGIC)) == MAGIC


class Hdf5File:
    """Groups of plain arrays; opened again in each process that reads them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._signature = Signature(path)
        self._open: tuple[int, h5py.File] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": None}

    def attributes(self) -> dict[str, Any]:
        """Return the plain numbers and texts that are attached to the whole file."""
        found: dict[str, Any] = {}
        attrs = self._file().attrs
        try:
            for name in list(attrs)[:MAX_NAMES]:
                kind = attrs.get_id(name)
                if kind.dtype.kind in "biufSU" and math.prod(kind.shape or ()) <= 10_000:
                    found[str(name)] = attrs[name]
                elif h5py.check_string_dtype(kind.dtype) is not None and kind.shape == ():
                    found[str(name)] = str(attrs[name])
        except ERRORS as error:
            raise DataError(f"the file's attributes are damaged ({_short(error)})", str(self.path), COPY) from None
        return found

    def groups(self) -> list[str]:
        """Return the names of the groups at the top, sorted.

        Raises:
            DataError: there is anything else, or a link that leads elsewhere.
        """
        return sorted(self._members("/", h5py.Group))

    def arrays(self, group: str) -> dict[str, Hdf5Array]:
        """Return the arrays of a group by name.

        Raises:
            DataError: one of them is damaged, incomplete, lies elsewhere, or is not plain.
        """
        return {name: Hdf5Array(self, f"/{group}/{name}") for name in sorted(self._members(group, h5py.Dataset))}

    def dataset(self, name: str) -> Any:
        """Return an array of the open file."""
        self._signature.check()
        return self._file()[name]

    def _file(self) -> h5py.File:
        held = self._open
        if held is None or held[0] != os.getpid():
            try:
                held = self._open = (os.getpid(), h5py.File(self.path, "r"))
            except ERRORS as error:
                what = f"cannot be opened as HDF5: it is cut off or damaged ({_short(error)})"
                raise DataError(what, str(self.path), COPY) from None
        return held[1]

    def _members(self, group: str, wanted: type) -> list[str]:
        """Names in a group, after the kind of each was looked at."""
        file, names, where = self._file(), [], f"{self.path.name}: {group}"
        try:
            place: Any = file[group]
            if len(place) > MAX_NAMES:
                raise DataError(f"holds {len(place)} names", where, "check the file's origin")
            for name in place:
                link = place.get(name, getlink=True)
                if not isinstance(link, h5py.HardLink):
                    raise DataError(f"{name!r} is a link to another place", where, "write the file without links")
                if place.get(name, getclass=True) is not wanted:
                    fix = "a size-grouped file holds groups of arrays and nothing else"
                    raise DataError(f"{name!r} is not a {wanted.__name__.lower()}", where, fix)
                names.append(str(name))
        except ERRORS as error:
            raise DataError(f"is cut off or damaged ({_short(error)})", where, COPY) from None
        return names


class Hdf5Array:
    """One array of a file: rows are read in runs, and the last run is kept."""

    def __init__(self, file: Hdf5File, name: str) -> None:
        self._held, self._name = file, name
        self._run: tuple[int, np.ndarray] | None = None
        self.where = f"{file.path.name}: {name[1:]}"
        try:
            found = file.dataset(name)
            self.shape: tuple[int, ...] = tuple(int(n) for n in found.shape or ())
            self.dtype: np.dtype = found.dtype
            self._check(found)
        except ERRORS as error:
            raise DataError(f"is cut off or damaged ({_short(error)})", self.where, COPY) from None
        per_row = math.prod(self.shape[1:]) * self.dtype.itemsize
        self._rows = max(1, KEPT_BYTES // max(per_row, 1))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_run": None}

    def __getitem__(self, index: Any) -> Any:
        """Return one row, or all with `[:]`."""
        if not isinstance(index, int):
            return self._read(0, self.shape[0])[index]
        start = index - index % self._rows
        if self._run is None or self._run[0] != start:
            self._run = (start, self._read(start, min(start + self._rows, self.shape[0])))
        return self._run[1][index - start]

    def _read(self, start: int, stop: int) -> np.ndarray:
        try:
            return self._held.dataset(self._name)[start:stop]
        except ERRORS as error:
            raise DataError(f"rows {start} to {stop} cannot be read ({_short(error)})", self.where, COPY) from None

    def _check(self, found: Any) -> None:
        """Refuse what is not plain, lies elsewhere, was never written, or would not fit."""
        if self.dtype.kind not in "biufSU" or self.dtype.hasobject or self.dtype.itemsize > 2**16:
            raise DataError(f"holds {self.dtype} instead of plain numbers", self.where, "write plain arrays")
        if found.is_virtual or found.external:
            raise DataError("lies in other files", self.where, "write the file with its numbers inside")
        if not self.shape:
            raise DataError("is one value, not an array over structures", self.where, "write arrays over structures")
        size, stored = math.prod(self.shape) * self.dtype.itemsize, found.id.get_storage_size()
        if found.chunks is None:
            if stored != size:
                raise DataError(f"has {stored} of {size} bytes", self.where, "the file is incomplete: write it again")
            return
        self._check_chunks(found, size)

    def _check_chunks(self, found: Any, size: int) -> None:
        plist = found.id.get_create_plist()
        for k in range(plist.get_nfilters()):
            if plist.get_filter(k)[0] not in FILTERS | {LZF}:
                raise DataError(f"is compressed by {plist.get_filter(k)[3]!r}", self.where, "write it with gzip or lzf")
        if math.prod(found.chunks) * self.dtype.itemsize > MAX_CHUNK:
            raise DataError(f"is stored in pieces of shape {found.chunks}", self.where, "write smaller pieces")
        pieces = math.prod(-(-n // c) for n, c in zip(self.shape, found.chunks, strict=True))
        there = found.id.get_num_chunks() if size else pieces
        if there != pieces:
            raise DataError(f"has {there} of {pieces} pieces", self.where, "the file is incomplete: write it again")


def _short(error: Exception) -> str:
    return str(error).splitlines()[0][:160] if str(error) else type(error).__name__
