"""Pacemaker's training data: a pickled pandas DataFrame, compressed, read without pandas and without unpickling."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from forgefield.core.catalog import Entry
from forgefield.core.errors import DataError
from forgefield.core.structure import Structure
from forgefield.data.labelling import choose_keys, label_structure, other_names
from forgefield.data.looked_at import frames_looked_at
from forgefield.data.pickled_table import load_table
from forgefield.data.raw_frame import RawFrame
from forgefield.data.reader import Frames, Reader, ReaderSettings
from forgefield.data.table_layout import Kept, Table, plain, single

GZIP, PICKLE, PIECE = b"\x1f\x8b", b"\x80", 2**20
START = 8192  # bytes looked at
FREE_BYTES, MAX_RATIO = 16 * 2**20, 100  # of decompressed data: more than the first only in this proportion
LOOKED_AT = 32
ATOMS, WEIGHT, FORCE_WEIGHTS = "ase_atoms", "w_energy", "w_forces"
MASK = "force_mask"
USUAL = {"energy": ("energy", "energy_corrected"), "forces": ("forces",), "stress": ("stress",)}
GEOMETRY = frozenset(("numbers", "positions", "tags"))
NORMALIZED = 1e-6


class PacemakerSettings(ReaderSettings):
    """`*.pckl.gzip` as Pacemaker trains on it: eV, Å."""

    max_bytes: int = Field(
        default=4 * 2**30, gt=0, description="Refuse files larger than this when decompressed, bytes."
    )


class PacemakerReader(Reader):
    """Decodes the whole table at once, as its format asks; frames are made when they are asked for."""

    usual = USUAL

    def __init__(self, settings: PacemakerSettings) -> None:
        self.settings = settings

    def recognises(self, path: Path) -> bool:
        """Return whether it is a pickle, compressed or not, that begins with a DataFrame."""
        if not path.is_file():
            return False
        try:
            with path.open("rb") as stream:
                start = stream.read(START)
            if start.startswith(GZIP):
                start = zlib.decompressobj(31).decompress(start, START)
        except (OSError, zlib.error):
            return False
        return start.startswith(PICKLE) and b"pandas" in start and b"DataFrame" in start

    def open(self, path: Path) -> PacemakerFrames:
        """Return the rows of the table.

        Raises:
            DataError: a damaged or hostile file, another kind of table, rows that are no structures.
        """
        table = load_table(_decompressed(path, self.settings.max_bytes), str(path))
        if ATOMS not in table.columns:
            listing = ", ".join(map(str, table.columns)) or "none"
            raise DataError(f"has no column {ATOMS!r}", str(path), f"its columns: {listing[:300]}")
        if table.n_rows == 0:
            raise DataError("holds no structures", str(path), "give a table with at least one row")
        return PacemakerFrames(table, path, self.settings)


def _decompressed(path: Path, limit: int) -> bytes:
    """The pickle, decompressed piece by piece while it stays in proportion to the file."""
    size = path.stat().st_size
    data = bytearray()
    try:
        with path.open("rb") as plain_file:
            packed = plain_file.read(2) == GZIP
        with gzip.open(path) if packed else path.open("rb") as stream:
            while piece := stream.read(PIECE):
                data += piece
                if len(data) > limit or len(data) > FREE_BYTES + MAX_RATIO * size:
                    what = f"grows from {size} to more than {len(data)} bytes when decompressed"
                    raise DataError(what, str(path), "is this an atomistic data set? split it into several files")
    except EOFError:
        raise DataError("the compressed file is cut off", str(path), "copy or download it again") from None
    except (OSError, zlib.error) as error:
        raise DataError(f"the compressed file is damaged ({error})", str(path), "copy it again") from None
    return bytes(data)


class PacemakerFrames(Frames):
    """Rows of the table as structures."""

    def __init__(self, table: Table, path: Path, settings: PacemakerSettings) -> None:
        self._table, self._settings, self._name = table, settings, path.name
        self._weights, notes = _weights(table, path.name)
        self._keys = settings.keys
        masked = FORCE_WEIGHTS in table.columns and self._keys.force_mask is None
        if masked:
            self._keys = self._keys.model_copy(update={"force_mask": MASK})
        places = np.unique(np.linspace(0, table.n_rows - 1, LOOKED_AT).astype(int))
        sample = frames_looked_at(self._raw, places, table.n_rows, settings.on_error == "skip")
        usual = dict(USUAL)
        if "energy" in table.columns:
            usual["energy"] = ("energy",)
            notes += _corrected(table, path.name)
        chosen = choose_keys(sample, self._keys, settings.units, str(path), usual)
        super().__init__(str(path), chosen, other_names(sample, chosen), notes)
        self.units = settings.units

    def __len__(self) -> int:
        return self._table.n_rows

    def __getitem__(self, index: int) -> Structure:
        return label_structure(self._raw(index), self.chosen, self._keys, self._settings.units)

    def _raw(self, row: int) -> RawFrame:
        origin = f"{self._name}: record {row}"
        raw = _atoms(self._table.columns[ATOMS][row], origin)
        values, arrays, n = dict(raw.values), dict(raw.arrays), len(raw.numbers)
        for name, column in self._table.columns.items():
            if name in (ATOMS, WEIGHT):
                continue
            value = plain(column[row], 100 * n + 1000) if isinstance(column, list) else np.asarray(column[row])
            if isinstance(value, np.ndarray) and _belongs_to_atoms(name, value, n):
                arrays[name] = value
            elif value is not None:
                values[name] = value.item() if isinstance(value, np.ndarray) and value.size == 1 else value
        if self._weights is not None and "config_weight" not in values:
            values["config_weight"] = float(self._weights[row])
        forces_weights = arrays.pop(FORCE_WEIGHTS, None)
        if forces_weights is not None and MASK not in arrays:
            arrays[MASK] = _mask(forces_weights, n, origin)
        return raw._replace(values=values, arrays=arrays)


def _belongs_to_atoms(name: str, value: np.ndarray, n: int) -> bool:
    if name in ("forces", FORCE_WEIGHTS):
        return value.ndim > 0
    return value.ndim >= 2 and len(value) == n and value.shape != (3, 3)


def _weights(table: Table, name: str) -> tuple[np.ndarray | None, list[str]]:
    """Weights of the structures, and what was done to them."""
    if WEIGHT not in table.columns or "config_weight" in table.columns:
        return None, []
    found = [single(w) for w in table.columns[WEIGHT]]
    if None in found:
        where = f"{name}: record {found.index(None)}"
        raise DataError("w_energy is not one number", where, "repair or drop this column")
    weights = np.array(found, dtype=np.float64)
    if not np.isfinite(weights).all() or (weights < 0).any():
        row = int(np.flatnonzero(~(weights >= 0) | ~np.isfinite(weights))[0])
        raise DataError(f"w_energy is {weights[row]}", f"{name}: record {row}", "repair or drop this column")
    if abs(weights.sum() - 1.0) < NORMALIZED:
        note = f"{name}: w_energy, which adds up to 1, times the number of rows is the weight of each structure"
        return weights * len(weights), [f"{note}; of w_forces only the zeros count"]
    return weights, [f"{name}: w_energy is the weight of each structure; of w_forces only the zeros count"]


def _corrected(table: Table, name: str) -> list[str]:
    """Say so where Pacemaker would fit another energy than the one that is read."""
    if "energy_corrected" not in table.columns:
        return []
    pairs = zip(table.columns["energy"], table.columns["energy_corrected"], strict=True)
    if all(single(a) == single(b) for a, b in pairs):
        return []
    return [f"{name}: energy_corrected differs from energy, which is read; data.energy_key: energy_corrected reads it"]


def _mask(weights: np.ndarray, n: int, origin: str) -> np.ndarray:
    per_atom = weights.reshape(n, -1) if n and weights.size in (n, 3 * n) else None
    if per_atom is None or per_atom.dtype.kind not in "biuf":
        raise DataError(f"w_forces has shape {weights.shape}, expected ({n},)", origin, "repair this record")
    return (per_atom != 0).any(axis=1).astype(np.int64)


def _atoms(found: Any, origin: str) -> RawFrame:
    """The structure in a stand-in of `ase.Atoms`."""
    state = found.state if isinstance(found, Kept) and found.name == "Atoms" else None
    if not isinstance(state, dict) or not isinstance(state.get("arrays"), dict):
        raise DataError("holds no ASE structure", origin, "write the column with ase.Atoms objects")
    arrays = {k: plain(v) for k, v in state["arrays"].items() if isinstance(k, str)}
    numbers, positions = arrays.get("numbers"), arrays.get("positions")
    if not isinstance(numbers, np.ndarray) or numbers.dtype.kind not in "iu" or numbers.ndim != 1:
        raise DataError("has no whole atomic numbers", origin, "repair this record")
    if not isinstance(positions, np.ndarray) or positions.shape != (len(numbers), 3) or positions.dtype.kind != "f":
        raise DataError(f"has no positions of shape ({len(numbers)}, 3)", origin, "repair this record")
    holder = state.get("_cellobj")
    inner = holder.state if isinstance(holder, Kept) and isinstance(holder.state, dict) else state
    cell, pbc = plain(inner.get("array", inner.get("_cell"))), plain(state.get("_pbc"))
    for name, value, shape in (("cell", cell, (3, 3)), ("pbc", pbc, (3,))):
        if not isinstance(value, np.ndarray) or value.shape != shape or value.dtype.kind not in "biuf":
            raise DataError(f"its atoms have no {name}", origin, "write the column with ase.Atoms objects")
    info: Any = state.get("info")
    tags = arrays.get("tags")
    return RawFrame(
        numbers=numbers.astype(np.int64),
        positions=positions,
        cell=cell,
        pbc=np.asarray(pbc).astype(bool),
        values={
            k: v
            for k, v in ((k, plain(v)) for k, v in (info if isinstance(info, dict) else {}).items())
            if isinstance(k, str) and v is not None
        },
        arrays={k: v for k, v in arrays.items() if k not in GEOMETRY and _per_atom(v, len(numbers))},
        origin=origin,
        fixed=_fixed(state.get("_constraints"), len(numbers), origin),
        tags=tags.astype(np.int64) if isinstance(tags, np.ndarray) and tags.dtype.kind in "iu" else None,
    )


def _per_atom(value: Any, n: int) -> bool:
    return isinstance(value, np.ndarray) and value.shape[:1] == (n,)


def _fixed(constraints: Sequence[Any] | Mapping[str, Any] | None, n: int, origin: str) -> np.ndarray | None:
    """Atoms held fixed in all three directions, (N,); None without constraints."""
    if not isinstance(constraints, (list, tuple)) or not constraints:
        return None
    fixed = np.zeros(n, dtype=bool)
    for constraint in constraints:
        state = constraint.state if isinstance(constraint, Kept) and isinstance(constraint.state, dict) else {}
        if getattr(constraint, "name", "") != "FixAtoms":
            continue
        index = plain(state.get("index"))
        if not isinstance(index, np.ndarray) or index.dtype.kind not in "iub" or index.ndim != 1:
            raise DataError("its constraint FixAtoms holds no indices", origin, "repair this record")
        if index.dtype.kind != "b" and len(index) and not -n <= int(index.min()) <= int(index.max()) < n:
            raise DataError("its constraint FixAtoms names an atom that is not there", origin, "repair this record")
        fixed[index] = True
    return fixed


ENTRY = Entry(PacemakerSettings, PacemakerReader, "Pacemaker's DataFrame of structures, *.pckl.gzip")
