"""Element symbols, covalent radii and masses, as ASE tabulates them."""

from __future__ import annotations

import numpy as np
from ase.data import atomic_masses, atomic_numbers, chemical_symbols
from ase.data import covalent_radii as _covalent_radii

from forgefield.core.errors import DataError

MAX_NUMBER = 118
SYMBOLS: list[str] = list(chemical_symbols[: MAX_NUMBER + 1])
NUMBERS: dict[str, int] = {s: z for s, z in atomic_numbers.items() if 0 < z <= MAX_NUMBER}
covalent_radii = np.asarray(_covalent_radii[: MAX_NUMBER + 1], dtype=np.float64)
"""Covalent radii by atomic number, (119,), Å."""
masses = np.asarray(atomic_masses[: MAX_NUMBER + 1], dtype=np.float64)
"""Atomic masses by atomic number, (119,), u."""


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


NOBLE_GASES = (0, 2, 10, 18, 36, 54, 86, 118)


def place_of(number: int) -> tuple[int, int]:
    """Return period and group of an element; lanthanides and actinides stand in group 3."""
    period = next(k for k, last in enumerate(NOBLE_GASES) if number <= last)
    step, length = number - NOBLE_GASES[period - 1], NOBLE_GASES[period] - NOBLE_GASES[period - 1]
    if step <= 2 and not (period == 1 and step == 2):
        return period, step
    return period, max(3, 18 - (length - step))
