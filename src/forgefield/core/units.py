"""Unit names users write, and the factors that bring them to eV, Å and what follows from these."""

from __future__ import annotations

import difflib

from forgefield.core.errors import ConfigError

HARTREE = 27.211386245988  # eV, CODATA 2018
BOHR = 0.529177210903  # Å, CODATA 2018
KCAL_PER_MOL = 0.0433641153087705  # eV
KJ_PER_MOL = 0.010364269656262175  # eV
DEBYE = 0.20819433270935603  # e Å
GPA = 1.0 / 160.21766339999996  # eV/Å^3

ENERGY = {"eV": 1.0, "meV": 1e-3, "Ha": HARTREE, "kcal/mol": KCAL_PER_MOL, "kJ/mol": KJ_PER_MOL}
LENGTH = {"Ang": 1.0, "bohr": BOHR, "nm": 10.0}
PRESSURE = {"GPa": GPA, "kbar": GPA / 10.0}

UNITS: dict[str, dict[str, float]] = {
    "energy": dict(ENERGY),
    "length": dict(LENGTH),
    "forces": {f"{e}/{x}": ENERGY[e] / LENGTH[x] for e in ENERGY for x in LENGTH},
    "dipole": {"e*Ang": 1.0, "e*bohr": BOHR, "Debye": DEBYE},
    "quadrupole": {"e*Ang^2": 1.0, "e*bohr^2": BOHR**2, "Debye*Ang": DEBYE},
    "polarizability": {"Ang^3": 1.0, "bohr^3": BOHR**3},
    "stress": {**{f"{e}/{x}^3": ENERGY[e] / LENGTH[x] ** 3 for e in ENERGY for x in LENGTH}, **PRESSURE},
}


def factor(quantity: str, unit: str) -> float:
    """Return the number that turns a value in `unit` into the internal unit of `quantity`.

    Args:
        quantity: energy, length, forces, dipole, quadrupole, polarizability or stress.
        unit: a name of `UNITS[quantity]`, for example "kcal/mol/Ang" for forces.

    Raises:
        ConfigError: the unit is not known; the nearest name is given.
    """
    table = UNITS[quantity]
    if unit not in table:
        near = difflib.get_close_matches(unit, table, n=1)
        hint = f"did you mean {near[0]!r}? Known: " if near else "known: "
        raise ConfigError(f"{unit!r} is no unit of {quantity}", fix=hint + ", ".join(table))
    return table[unit]
