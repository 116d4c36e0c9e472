"""Total energies of free atoms with all their electrons: what most molecular codes count from."""

from __future__ import annotations

from forgefield.core.units import HARTREE

LIGHT = (
    *(0.0, 0.5, 2.904, 7.478, 14.667, 24.654, 37.845, 54.589, 75.067, 99.734, 128.94),
    *(162.25, 200.05, 242.35, 289.36, 341.26, 398.11, 460.15, 527.54),
)
"""Minus the energy by atomic number, Ha, to a part in a thousand."""


def all_electron(number: int) -> float:
    """Return the energy of a free atom, eV, to about 1 %.

    Beyond argon by the non-relativistic expansion in Z of Thomas, Fermi, Scott and Schwinger.
    """
    if number < len(LIGHT):
        return -LIGHT[number] * HARTREE
    z = float(number)
    return (-0.768745 * z ** (7 / 3) + 0.5 * z**2 - 0.269900 * z ** (5 / 3)) * HARTREE
