"""Structures grouped by their number of atoms, as AIMNet2 keeps them: one HDF5 file, or a folder of `NNN.npz`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from forgefield.core.catalog import Entry
from forgefield.core.errors import DataError
from forgefield.data.frame_blocks import Block, BlockFrames, Column, check_column
from forgefield.data.hdf5_file import Hdf5File, is_hdf5
from forgefield.data.npy_file import NpzFile
from forgefield.data.passed_over import open_each
from forgefield.data.raw_frame import RawFrame
from forgefield.data.reader import Reader, ReaderSettings

USUAL = {
    "energy": ("energy",),
    "forces": ("forces",),
    "stress": ("stress",),
    "charges": ("charges",),
    "spin_charges": ("spin_charges",),
    "dipole": ("dipole",),
    "quadrupole": ("quadrupole",),
    "charge": ("charge",),
    "multiplicity": ("mult",),
}
STRUCTURE_SHAPES = {"charge": (), "energy": (), "mult": (), "dipole": (3,), "quadrupole": (6,)}
ATOM_SHAPES = {"forces": (3,), "charges": (), "spin_charges": ()}
GEOMETRY = frozenset(("coord", "numbers", "cell", "pbc", "_index"))
QUADRUPOLE = ((0, 0), (1, 1), (2, 2), (0, 1), (1, 2), (2, 0))
"""Order of the six numbers: measured on AIMNet2's own files against the moments of their charges."""


class SizeGroupedSettings(ReaderSettings):
    """AIMNet2's HDF5 file or folder of npz files; eV, Å, e."""


class SizeGroupedReader(Reader):
    """Reads frames when they are asked for."""

    usual = USUAL

    def __init__(self, settings: SizeGroupedSettings) -> None:
        self.settings = settings

    def recognises(self, path: Path) -> bool:
        """Return whether it is HDF5, or a folder of `*.npz` whose names are numbers."""
        if path.is_dir():
            return bool(_npz_files(path))
        return is_hdf5(path)

    def open(self, path: Path) -> BlockFrames:
        """Return the structures by ascending size, or in the order that `_index` gives.

        Raises:
            DataError: no group of that kind, damaged or incomplete arrays, or groups with different keys.
        """
        arrays_of: Callable[[str], Mapping[str, Column]]
        if path.is_dir():
            files = {p.name: p for p in _npz_files(path)}
            names, arrays_of = list(files), lambda name: _npz_arrays(files[name])
        else:
            file = Hdf5File(path)
            names, arrays_of = file.groups(), file.arrays
        if not names:
            raise DataError("holds no groups", str(path), "is this a file of AIMNet2's layout?")

        def opened(name: str) -> tuple[int, str, Mapping[str, Column], Block]:
            arrays = arrays_of(name)
            return _size(name, path), name, arrays, _block(name, arrays, path)

        found, notes = open_each(names, opened, "groups", skip=self.settings.on_error == "skip")
        found.sort(key=lambda group: group[:2])
        _same_keys({name: arrays for _, name, arrays, _ in found}, path)
        order = _order([arrays.get("_index") for _, _, arrays, _ in found])
        blocks = [block for *_, block in found]
        return BlockFrames(blocks, str(path), self.settings, USUAL, notes, order, _repair)


def _npz_files(path: Path) -> list[Path]:
    return sorted(p for p in path.glob("*.npz") if p.stem.isdigit() and p.is_file())


def _npz_arrays(path: Path) -> dict[str, Column]:
    file = NpzFile(path)
    return {name: file[name] for name in file.names() if name in file}


def _size(name: str, path: Path) -> int:
    stem = name.removesuffix(".npz")
    if not stem.isdigit() or not stem.isascii() or len(stem) > 9:
        raise DataError(f"has a group {name[:40]!r}", str(path), "groups are named by the number of their atoms")
    return int(stem)


def _same_keys(groups: Mapping[str, Mapping[str, Column]], path: Path) -> None:
    first, keys = next((name, set(arrays)) for name, arrays in groups.items())
    for name, arrays in groups.items():
        if set(arrays) != keys:
            differ = ", ".join(sorted(set(arrays) ^ keys))
            fix = "write all groups with the same keys, or one file per set of labels"
            raise DataError(f"groups {first} and {name} have different keys: {differ}", str(path), fix)


def _block(name: str, arrays: Mapping[str, Column], path: Path) -> Block:
    where = f"{path.name}: {name}"
    for needed in ("coord", "numbers"):
        if needed not in arrays:
            fix = f"it has {', '.join(sorted(arrays)[:20]) or 'nothing'}; is this a file of AIMNet2's layout?"
            raise DataError(f"has no array {needed!r}", where, fix)
    check_column(arrays["coord"], (None, None, 3), "coord", where)
    n, atoms = arrays["coord"].shape[:2]
    check_column(arrays["numbers"], (n, atoms), "numbers", where)
    shapes = {k: (n, *s) for k, s in STRUCTURE_SHAPES.items()} | {k: (n, atoms, *s) for k, s in ATOM_SHAPES.items()}
    shapes |= {"cell": (n, 3, 3), "pbc": (n, 3), "_index": (n,)}
    for key in shapes.keys() & arrays.keys():
        column = arrays[key]
        if column.shape != (*shapes[key], 1) and not (key == "quadrupole" and column.shape == (n, 3, 3)):
            check_column(column, shapes[key], key, where)
    values: dict[str, Column] = {}
    per_atom: dict[str, Column] = {}
    for key, column in arrays.items():
        if key in GEOMETRY:
            continue
        if column.shape[:1] != (n,):
            raise DataError(f"{key} has shape {tuple(column.shape)}, expected ({n}, ...)", where, "repair the file")
        inside = key not in (*STRUCTURE_SHAPES, "stress", "quadrupole") and column.shape[1:2] == (atoms,)
        (per_atom if inside or key in ATOM_SHAPES else values)[key] = column
    cell, pbc = arrays.get("cell"), arrays.get("pbc")
    return Block(where, "structure", 0, n, arrays["numbers"], arrays["coord"], cell, pbc, values, per_atom)


def _order(indices: list[Column | None]) -> np.ndarray | None:
    """Places of the structures in the order they were written, if the file says so."""
    known = [np.asarray(i[:]).reshape(-1) for i in indices if i is not None]
    if len(known) != len(indices):
        return None
    joined = np.concatenate(known)
    return np.argsort(joined, kind="stable") if len(np.unique(joined)) == len(joined) else None


def _repair(raw: RawFrame) -> RawFrame:
    """Six components of a quadrupole as a symmetric (3, 3) tensor."""
    value = raw.values.get("quadrupole")
    if value is None or np.shape(value) != (6,):
        return raw
    tensor = np.zeros((3, 3))
    for component, (i, j) in zip(value, QUADRUPOLE, strict=True):
        tensor[i, j] = tensor[j, i] = component
    return raw._replace(values={**raw.values, "quadrupole": tensor})


ENTRY = Entry(SizeGroupedSettings, SizeGroupedReader, "size-grouped HDF5 file or folder of NNN.npz (AIMNet2)")
