"""What structures state of their electrons, and whether it can be."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from forgefield.core.errors import DataError
from forgefield.core.structure import Structure
from forgefield.graph.needs import Needs

WORDS = {"charge": "total charge", "multiplicity": "spin multiplicity (2S + 1)"}
DEFAULTS = {"charge": 0, "multiplicity": 1}


def check_electrons(structures: Sequence[Structure], needs: Needs) -> None:
    """Look whether structures state what the model asks of their electrons, and whether that can be.

    Raises:
        DataError: one does not.
    """
    for name in needs.electrons:
        for structure in structures:
            if getattr(structure, name) is None:
                what = f"the model needs the {WORDS[name]}, which is not stated"
                fix = f"write {name}=... into the file, or set data.{name}: {DEFAULTS[name]} for all that state none"
                if structure.origin == "Atoms":
                    fix = f'set atoms.info["{name}"] = {DEFAULTS[name]}'
                raise DataError(what, structure.origin, fix)
    if needs.electrons:
        for structure in structures:
            check_spin(structure)


def join_charges(structures: Sequence[Structure]) -> np.ndarray:
    """Return the charges that structures state for their atoms, (N,), e: their label `charges`.

    Raises:
        DataError: one does not.
    """
    for structure in structures:
        if "charges" not in structure.labels:
            what = "the model needs the charge of each atom, and this structure states none"
            fix = "name the column that holds them: data.charges_key, or give charges by element"
            if structure.origin == "Atoms":
                fix = "give them: atoms.set_initial_charges(...)"
            raise DataError(what, structure.origin, fix)
    return np.concatenate([s.labels["charges"] for s in structures])


def check_spin(structure: Structure) -> None:
    """Look whether there are electrons enough for the charge, and whether their number goes with the multiplicity.

    Raises:
        DataError: they cannot be so.
    """
    electrons = int(structure.numbers.sum()) - round(structure.charge or 0.0)
    if structure.multiplicity is None:
        if electrons < 0:
            what = f"a charge of {structure.charge:g} is more than its elements can carry"
            raise DataError(what, structure.origin, "repair the charge")
        return
    unpaired = structure.multiplicity - 1
    if electrons < unpaired:
        what = f"charge {structure.charge or 0:g} and multiplicity {unpaired + 1} ask for more than the {electrons}"
        raise DataError(f"{what} electrons there are", structure.origin, "repair charge or multiplicity")
    if (electrons - unpaired) % 2:
        what = f"{electrons} electrons cannot have multiplicity {unpaired + 1}"
        fix = "an even number of electrons has an odd multiplicity (1, 3, ...); repair charge or multiplicity"
        raise DataError(what, structure.origin, fix)
