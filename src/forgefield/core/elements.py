"""Element symbols and covalent radii, as ASE tabulates them."""

from __future__ import annotations

import numpy as np
from ase.data import atomic_numbers, chemical_symbols
from ase.data import covalent_radii as _covalent_radii

from forgefield.core.errors import DataError

MAX_NUMBER = 118
SYMBOLS: list[str] = list(chemical_symbols[: MAX_NUMBER + 1])
NUMBERS: dict[str, int] = {s: z for s, z in atomic_numbers.items() if 0 < z <= MAX_NUMBER}
covalent_radii = np.asarray(_covalent_radii[: MAX_NUMBER + 1], dtype=np.float64)
"""Covalent radii by atomic number, (119,), Å."""


def symbol(number: int) -> str:
    """Return the element symbol of an atomic number."""
    if not 0 < number <= MAX_NUMBER:
        raise DataError(f"{number} is no atomic number", fix="use 1 to 118")
    return SYMBOLS[number]


def number(name: str | int) -> int:
    """Return the atomic number of a symbol, a number, or a number written as text."""
    text = str(name).strip()
    if text in NUMBERS:
        return NUMBERS[text]
    if text.isdigit() and 0 < int(text) <= MAX_NUMBER:
        return int(text)
    raise DataError(f"{name!r} is no element", fix="use a symbol such as 'Si' or an atomic number")
