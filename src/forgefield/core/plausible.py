"""Numbers that no structure can have: from damaged files or wrong units; they would hang or poison what follows."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from forgefield.core.errors import DataError
from forgefield.core.quantities import ALWAYS, QUANTITIES, Quantity

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

ROUNDING = 1e-6  # of the largest component of a label: by how much symmetric tensors may fail to be so
NOISE = 1e-2  # the same, of known physics: finite differences and DFT codes give slightly asymmetric tensors
NOTHING = 1e-6  # in internal units of known physics: noise alone, where the tensor vanishes


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


def check_symmetric(what: str, quantity: Quantity, value: np.ndarray, origin: str) -> None:
    """Refuse a label of a symmetric tensor that is not symmetric; of stresses, readers decide.

    Args:
        what: how the label is called.
        quantity: what it is.
        value: (3, 3, ...), or (N, 3, 3, ...) of atoms.
        origin: where it was read.

    Raises:
        DataError: gives the two components that differ most.
    """
    if quantity.rotates != "tensor" or not quantity.symmetric or quantity.name in ALWAYS or not value.size:
        return
    known, rank = quantity.name in QUANTITIES, len(quantity.shape)
    largest = float(np.abs(value).max())
    allowed = max(NOISE * largest, NOTHING) if known else ROUNDING * largest
    for a, b in pairwise(range(value.ndim - rank, value.ndim)):  # exchanges of neighbours make up all others
        other = value.swapaxes(a, b)
        place = np.unravel_index(np.abs(value - other).argmax(), value.shape)
        if abs(value[place] - other[place]) <= allowed:
            continue
        one = list(place[value.ndim - rank :])
        two = [place[k] for k in range(value.ndim - rank, value.ndim)]
        i, j = a - (value.ndim - rank), b - (value.ndim - rank)
        two[i], two[j] = one[j], one[i]
        names = ["".join("xyz"[k] for k in word) for word in (one, two)]
        of_atom = f" of atom {place[0] + 1}" if value.ndim > rank else ""
        found = f"{names[0]} = {value[place]:.6g}, {names[1]} = {other[place]:.6g}{of_atom}"
        raise DataError(f"{what} is not symmetric: {found}", origin, _mend(quantity, known))


def _mend(quantity: Quantity, known: bool) -> str:
    if known:
        return "check the order of its nine numbers: xx xy xz yx yy yz zx zy zz"
    if len(quantity.shape) > 2:
        return "make the labels symmetric in all indices; other tensors of this rank cannot be learned"
    free = f"data.targets.{quantity.name}.symmetric: false"
    return f"set {free}, which xpainn can learn in a new model, or make the labels symmetric"
