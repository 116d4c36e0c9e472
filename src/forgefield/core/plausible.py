"""Numbers that no structure can have: from damaged files or wrong units; they would hang or poison what follows."""

from __future__ import annotations

from typing import Any

import numpy as np

from forgefield.core.errors import DataError

MIN_VOLUME = 1e-6  # Å^6, square of the volume; of area or length where fewer directions are periodic
FARTHEST = 1e6  # Å, of a position or a cell vector
THINNEST = 0.05  # Å, between opposite faces of a periodic cell
DENSEST = 0.01  # Å^3 per atom of a crystal; solid hydrogen in a planet's core has 1
LARGEST = {
    "energy": 1e7,
    "forces": 1e6,
    "stress": 1e5,
    "charges": 1e3,
    "spin_charges": 1e3,
}
"""Largest absolute value of a label in internal units; of the energy, per atom: all electrons of Og have 1.5e6 eV."""


def whole_numbers(numbers: Any, origin: str) -> np.ndarray:
    """Return atomic numbers as int64, (N,).

    Raises:
        DataError: they are no whole numbers, or not in one row.
    """
    found = np.asarray(numbers)
    if found.dtype.kind not in "iu":
        floats = found.dtype.kind == "f" and np.isfinite(found).all() and (found == np.round(found)).all()
        if not floats and found.size:
            raise DataError("atomic numbers are not whole numbers", origin, "repair the element column")
    if found.ndim != 1:
        raise DataError(f"atomic numbers have shape {found.shape}, expected (N,)", origin, "repair the element column")
    return np.ascontiguousarray(found, dtype=np.int64)


def check_extent(positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, origin: str) -> None:
    """Refuse positions and cells that no structure has. Cells may be left-handed and skewed.

    Raises:
        DataError: says which number is beyond reason.
    """
    for name, value in (("positions", positions), ("cell", cell)):
        largest = float(np.abs(value).max(initial=0.0))
        if largest > FARTHEST:
            fix = "is the length unit right? Otherwise remove or repair this frame"
            raise DataError(f"{name} reach {largest:.3g} Å", origin, fix)
    periodic = cell[pbc]
    if len(periodic) == 0:
        return
    gram = periodic @ periodic.T
    square = float(np.linalg.det(gram))
    if square <= MIN_VOLUME:
        raise DataError("is periodic but its cell has zero volume", origin, "give the Lattice, or set pbc to F F F")
    volume = square**0.5
    heights = np.diag(np.linalg.inv(gram)) ** -0.5
    if heights.min() < THINNEST or (len(periodic) == 3 and volume < DENSEST * len(positions)):
        what = f"its cell is {heights.min():.2g} Å thin, with {volume / len(positions):.2g} Å^3 per atom"
        raise DataError(what, origin, "is the length unit right? Otherwise repair the cell")


def check_size(what: str, name: str, value: np.ndarray, n_atoms: int, origin: str) -> None:
    """Refuse a label beyond reason.

    Raises:
        DataError: gives its largest number.
    """
    limit = LARGEST.get(name)
    if limit is None:
        return
    largest = float(np.abs(value).max(initial=0.0)) / (n_atoms if name == "energy" else 1)
    if largest > limit:
        per = " per atom" if name == "energy" else ""
        fix = "are unit and key right? Otherwise remove this frame or its label"
        raise DataError(f"{what} reaches {largest:.3g} in eV and Å{per}", origin, fix)
