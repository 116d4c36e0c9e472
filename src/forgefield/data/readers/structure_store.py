"""A sampler's StructureStore: one npz per structure under `structures/`, listed in `index.jsonl`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from forgefield.core.catalog import Entry
from forgefield.core.errors import DataError
from forgefield.data.file_signature import Signature
from forgefield.data.lazy_frames import LazyFrames
from forgefield.data.npy_file import NpzFile
from forgefield.data.passed_over import open_each
from forgefield.data.raw_frame import RawFrame
from forgefield.data.reader import Reader, ReaderSettings

INDEX = "index.jsonl"
GEOMETRY = frozenset(("numbers", "positions", "tags", "fixed", "cell", "pbc", "info_json"))
MAX_LINE = 2**20
SNIFFED = 2**14
FIX = "repair this line, or write the store again"


class StructureStoreSettings(ReaderSettings):
    """Structures of a sampling run; float32, Å, with whatever their info holds."""


class StructureStoreReader(Reader):
    """Reads the list of structures at once, each structure when it is asked for."""

    def __init__(self, settings: StructureStoreSettings) -> None:
        self.settings = settings

    def recognises(self, path: Path) -> bool:
        """Return whether it is a list of npz files in JSON lines, or a folder with one."""
        index = _index_of(path)
        if index is None:
            return False
        try:
            with index.open("rb") as stream:
                first = next((x for x in iter(lambda: stream.readline(SNIFFED), b"") if x.strip()), b"")
        except OSError:
            return False
        return first.lstrip().startswith(b"{") and b'"path"' in first and b".npz" in first

    def open(self, path: Path) -> NpzFrames:
        """Return the structures in the order of the list.

        Raises:
            DataError: no list, a line that is none, a name that leads outside of the folder.
        """
        index = _index_of(path)
        if index is None:
            raise DataError(f"holds no {INDEX}", str(path), "name the folder of a StructureStore")
        return NpzFrames(index, self.settings)


def _index_of(path: Path) -> Path | None:
    if path.is_file():
        return path
    return next((p for p in (path / INDEX, path / "structures" / INDEX) if p.is_file()), None)


class NpzFrames(LazyFrames):
    """Structures of a store, read one by one."""

    def __init__(self, index: Path, settings: StructureStoreSettings) -> None:
        self._index, self._signature = index, Signature(index)
        lines, skip = _lines(index), settings.on_error == "skip"
        one = lambda line: _record(line[1], f"{index.name}: line {line[0] + 1}", index)  # noqa: E731
        self._records, notes = open_each(lines, one, "lines", skip=skip)
        if not self._records:
            raise DataError("is empty", str(index), "give a list with at least one structure")
        super().__init__(index, len(self._records), settings, notes)
        self.n_left_out = len(lines) - len(self._records)

    def raw(self, index: int) -> RawFrame:
        """Return one structure as its file has it."""
        self._signature.check()
        path, listed = self._records[index]
        origin = f"{self._index.name}: structure {index} ({path.name})"
        if not path.is_file():
            raise DataError("its file is missing", origin, "copy the store again")
        file = NpzFile(path)
        found = {name: np.array(file[name]) for name in file.names() if name in file}
        numbers = _array(found, "numbers", (-1,), origin)
        positions = _array(found, "positions", (-1, 3), origin)
        if numbers is None or positions is None or numbers.dtype.kind not in "iu":
            raise DataError("has no numbers or no positions", origin, "write it again")
        n = len(numbers)
        if positions.shape != (n, 3):
            raise DataError(f"{n} atomic numbers but positions of shape {positions.shape}", origin, "write it again")
        cell, pbc = _array(found, "cell", (3, 3), origin), _array(found, "pbc", (3,), origin)
        fixed, tags = _array(found, "fixed", (n,), origin), _array(found, "tags", (n,), origin)
        cell = np.zeros((3, 3)) if cell is None else cell
        values = listed | _info(found.get("info_json"), origin)
        arrays = {k: v for k, v in found.items() if k not in GEOMETRY and v.shape[:1] == (n,) and v.ndim > 1}
        values |= {k: v for k, v in found.items() if k not in GEOMETRY and k not in arrays}
        arrays |= {k: v for k, v in ((k, np.asarray(v)) for k, v in values.items()) if v.shape == (n, 3)}
        return RawFrame(
            numbers=numbers,
            positions=positions,
            cell=cell,
            pbc=np.full(3, bool(np.any(cell))) if pbc is None else pbc.astype(bool),
            values={k: v for k, v in values.items() if k not in arrays},
            arrays=arrays,
            origin=origin,
            fixed=None if fixed is None else fixed.astype(bool),
            tags=None if tags is None else tags.astype(np.int64),
        )


def _lines(index: Path) -> list[tuple[int, str]]:
    try:
        text = index.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read ({type(error).__name__})", str(index), "copy it again") from None
    return [(k, line) for k, line in enumerate(text.split("\n")) if line.strip()]


def _record(line: str, where: str, index: Path) -> tuple[Path, dict[str, Any]]:
    """File of a structure and what the list says about it."""
    record = _json(line, where)
    name = record.get("path")
    if not isinstance(name, str) or not name:
        raise DataError("names no path", where, FIX)
    relative = Path(name)
    if relative.is_absolute() or ".." in relative.parts or "\0" in name:
        raise DataError(f"leads outside of the store: {name[:60]!r}", where, FIX)
    beside = index.parent / relative.name
    path = beside if beside.is_file() or index.parent.name == "structures" else index.parent / relative
    kind = record.get("kind")
    return path, {"kind": kind} if isinstance(kind, str) else {}


def _info(value: np.ndarray | None, origin: str) -> dict[str, Any]:
    if value is None:
        return {}
    text = value.item() if value.size == 1 else None
    if not isinstance(text, (str, bytes)):
        raise DataError("info_json is no text", origin, "write it again")
    text = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    return {} if not text.strip() else _json(text, f"{origin}: info_json")


def _json(text: str, where: str) -> dict[str, Any]:
    try:
        if len(text) > MAX_LINE:
            raise ValueError(f"longer than {MAX_LINE} letters")
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"is no JSON ({str(error)[:80]})", where, FIX) from None
    if not isinstance(found, dict):
        raise DataError("is no JSON object", where, FIX)
    return {k: v for k, v in found.items() if isinstance(v, (bool, int, float, str, list))}


def _array(found: dict[str, np.ndarray], name: str, shape: tuple[int, ...], origin: str) -> np.ndarray | None:
    """A field of known shape, or None where it is missing or empty; -1 is any length."""
    value = found.get(name)
    if value is None or (value.size == 0 and name not in ("numbers", "positions")):
        return None
    fits = value.ndim == len(shape) and all(e in (-1, n) for e, n in zip(shape, value.shape, strict=True))
    if not fits or value.dtype.kind not in "biuf":
        raise DataError(f"{name} has shape {value.shape} of {value.dtype}", origin, "write it again")
    return value


ENTRY = Entry(StructureStoreSettings, StructureStoreReader, "StructureStore: npz files listed in index.jsonl")
