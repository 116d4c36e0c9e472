"""Frames of one free atom: they give reference energies, and are not trained on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from forgefield.core.elements import symbol
from forgefield.core.errors import DataError
from forgefield.core.structure import Structure
from forgefield.data.dataset import Dataset
from forgefield.data.survey import is_called_isolated

MARK = "isolatedatom"


def is_isolated(structure: Structure) -> bool:
    """Return whether a frame is one free atom.

    That is one atom, not periodic, or with `config_type` IsolatedAtom (in any case, also isolated_atom).

    Raises:
        DataError: more than one atom is called so.
    """
    marked = is_called_isolated(structure.config_type)
    if marked and len(structure) != 1:
        raise DataError(f"config_type is IsolatedAtom but it has {len(structure)} atoms", structure.origin, "rename it")
    return len(structure) == 1 and (marked or not structure.pbc.any())


def separate_isolated(dataset: Dataset) -> tuple[Dataset, Dataset]:
    """Return (all other structures, frames of one free atom)."""
    free = are_isolated(dataset)
    return dataset.subset(np.flatnonzero(~free)), dataset.subset(np.flatnonzero(free))


def are_isolated(dataset: Dataset) -> np.ndarray:
    """Return which structures are one free atom, (n,) bool, as `is_isolated` says.

    Raises:
        DataError: more than one atom is called so.
    """
    survey = dataset.survey
    called, alone = survey.where(kind.config_free for kind in survey.kinds), survey.n_atoms == 1
    for wrong in np.flatnonzero(called & ~alone)[:1]:
        is_isolated(dataset[int(wrong)])
    return alone & (called | survey.where(not kind.periodic for kind in survey.kinds))


def isolated_energies(isolated: Dataset, heads: Sequence[str]) -> dict[str, dict[int, float]]:
    """Read the energy of each element from frames of one free atom.

    Returns:
        Head -> atomic number -> energy, eV. Frames without energy are passed over.

    Raises:
        DataError: two frames give one element different energies.
    """
    found: dict[str, dict[int, float]] = {head: {} for head in heads}
    origin: dict[tuple[str, int], str] = {}
    for structure in isolated:
        if "energy" not in structure.labels:
            continue
        head, z, energy = head_of(structure, heads), int(structure.numbers[0]), float(structure.labels["energy"])
        known = found[head].setdefault(z, energy)
        first = origin.setdefault((head, z), structure.origin)
        if known != energy:
            raise DataError(
                f"two energies for the isolated atom {symbol(z)}: {known} eV ({first}) and {energy} eV",
                structure.origin,
                "keep the right one",
            )
    return found


def head_of(structure: Structure, heads: Sequence[str]) -> str:
    """Return the head that a structure trains: the one it names, or the first.

    Raises:
        DataError: it names a head that is not there.
    """
    if structure.level is None:
        return heads[0]
    if structure.level not in heads:
        raise DataError(f"head {structure.level!r} is not in the model", structure.origin, "heads: " + ", ".join(heads))
    return structure.level
