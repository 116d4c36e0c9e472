"""One molecule in many geometries in an `.npz`: rMD17, MD17, and the files of sGDML."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from forgefield.core.catalog import Entry
from forgefield.core.errors import DataError
from forgefield.data.frame_blocks import Block, BlockFrames, Column, check_column
from forgefield.data.npy_file import NpzFile
from forgefield.data.reader import Reader, ReaderSettings

ZIP = b"PK\x03\x04"
UNITS = {
    "kcal/mol": "kcal/mol",
    "kj/mol": "kJ/mol",
    "ev": "eV",
    "mev": "meV",
    "ha": "Ha",
    "hartree": "Ha",
    "ang": "Ang",
    "angstrom": "Ang",
    "a": "Ang",
    "bohr": "bohr",
    "au": "bohr",
    "nm": "nm",
}


class Layout(NamedTuple):
    """Names of one kind of file."""

    numbers: str
    positions: str
    energy: str
    forces: str


LAYOUTS = (Layout("nuclear_charges", "coords", "energies", "forces"), Layout("z", "R", "E", "F"))


class Md17NpzSettings(ReaderSettings):
    """rMD17, MD17 and sGDML files; kcal/mol and Å unless the file says otherwise."""


class Md17NpzReader(Reader):
    """Maps the arrays; frames are made when they are asked for."""

    def __init__(self, settings: Md17NpzSettings) -> None:
        self.settings = settings

    def recognises(self, path: Path) -> bool:
        """Return whether it is an npz with the names of rMD17 (nuclear_charges, coords) or of sGDML (z, R)."""
        if not path.is_file():
            return False
        with path.open("rb") as stream:
            if stream.read(len(ZIP)) != ZIP:
                return False
        try:
            file = NpzFile(path)
        except DataError:
            return True  # a damaged zip file: `open` says so
        return _layout(file) is not None

    def open(self, path: Path) -> BlockFrames:
        """Return the geometries in their order.

        Raises:
            DataError: a damaged file, arrays that do not fit each other, an unknown unit.
        """
        file = NpzFile(path)
        layout = _layout(file)
        if layout is None:
            fix = "an rMD17 file has nuclear_charges and coords, an sGDML file z and R"
            raise DataError(f"holds {', '.join(file.names()[:20]) or 'nothing'}", str(path), fix)
        units = {"energy": _unit(file, "e_unit") or "kcal/mol", "length": _unit(file, "r_unit") or "Ang"}
        block = _block(file, layout, path.name)
        said = (
            "as the file says" if "e_unit" in file or "r_unit" in file else "as all files of this kind; it names none"
        )
        notes = list(self.settings.units.overruled(**units))
        notes.append(f"{path.name}: units {units['energy']} and {units['length']}, {said}")
        settings = self.settings.model_copy(update={"units": self.settings.units.declared(**units)})
        usual = {"energy": (layout.energy.lower(),), "forces": (layout.forces.lower(),)}
        return BlockFrames([block], str(path), settings, usual, notes)


def _layout(file: NpzFile) -> Layout | None:
    return next((x for x in LAYOUTS if x.numbers in file and x.positions in file), None)


def _unit(file: NpzFile, name: str) -> str | None:
    """A unit that an sGDML file declares, by our name; None where it says nothing."""
    if name not in file:
        return None
    value = np.asarray(file[name])
    text = value.item() if value.size == 1 else None
    text = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    known = UNITS.get(str(text).strip().lower())
    if known is None or (name == "r_unit") != (known in ("Ang", "bohr", "nm")):
        fix = "set data.energy_unit and data.length_unit after repairing the file: known are " + ", ".join(UNITS)
        raise DataError(f"{name} is {str(text)[:40]!r}, no unit we know", str(file.path), fix)
    return known


def _block(file: NpzFile, layout: Layout, name: str) -> Block:
    arrays = {n: file[n] for n in file.names() if n in file}
    coords, numbers = arrays[layout.positions], arrays[layout.numbers]
    check_column(coords, (None, None, 3), layout.positions, name)
    n, atoms = coords.shape[:2]
    check_column(numbers, (n, atoms) if numbers.ndim == 2 else (atoms,), layout.numbers, name)
    values: dict[str, Column] = {}
    per_atom: dict[str, Column] = {}
    for key, column in arrays.items():
        if key in layout[:2] or column.ndim == 0 or len(column) != n:
            continue  # of the whole file: theory, name, checksums
        if "forces" in key or key == layout.forces:
            check_column(column, (n, atoms, 3), key, name)
            per_atom[key] = column
        elif column.dtype.kind in "biufSU" and column.ndim <= 2:
            values[key] = column
    for key in (layout.energy, layout.forces):
        if key in arrays and len(arrays[key]) != n:
            raise DataError(f"{key} has shape {arrays[key].shape}, expected ({n}, ...)", name, "repair the file")
    lattice = arrays.get("lattice")  # of sGDML: columns are the vectors, one for all geometries
    cell = None if lattice is None else _Repeated(_cell(lattice, name))
    return Block(name, "frame", 0, n, numbers, coords, cell, None, values, per_atom)


def _cell(lattice: np.ndarray, where: str) -> np.ndarray:
    check_column(lattice, (3, 3), "lattice", where)
    return np.array(lattice).T


class _Repeated:
    """The same array for every frame."""

    def __init__(self, value: np.ndarray) -> None:
        self._value, self.shape, self.dtype = value, (1, *value.shape), value.dtype

    def __getitem__(self, index: int) -> np.ndarray:
        return self._value


ENTRY = Entry(Md17NpzSettings, Md17NpzReader, "one molecule in an npz: rMD17, MD17, sGDML (kcal/mol)")
