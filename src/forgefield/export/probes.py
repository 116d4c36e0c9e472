"""Structures to verify an exported file on, beside the sample."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from forgefield.core.elements import covalent_radii
from forgefield.core.structure import Structure
from forgefield.export.target import lattice


def bare(structure: Structure, heads: Sequence[str]) -> Structure:
    """Return the structure with no label but the charges of its atoms, on a head of the model; a molecule without box.

    A box in which nothing repeats is no cell: exported files are given none, and stress is of cells.
    """
    head = structure.level if structure.level in heads else heads[0]
    known = {"labels": inputs_among(structure.labels), "base": {}, "head": head, "cell": lattice(structure)}
    return dataclasses.replace(structure, **known)


def inputs_among(labels: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return those labels that a model may ask for: charges of the atoms."""
    return {name: labels[name] for name in ("charges",) if name in labels}


def probe(numbers: np.ndarray, *rest: np.ndarray, like: Structure, origin: str) -> Structure:
    """Return a neutral structure of the lowest multiplicity there is, with head and features of another.

    Its atoms have charges that add up to nothing, for models that ask for some.
    """
    multiplicity = 1 + int(numbers.sum()) % 2
    charges = 0.2 * np.cos(1.7 * np.arange(len(numbers)) + numbers)
    known = {"head": like.head, "features": like.features, "charge": 0, "multiplicity": multiplicity}
    known["labels"] = {"charges": charges - charges.mean()}
    return Structure(numbers, *rest, origin=origin, **known)


def probes(
    sample: Sequence[Structure], elements: Sequence[int], heads: Sequence[str], cutoff: float
) -> list[Structure]:
    """Make small structures unlike the sample, so that nothing of the sample can be frozen into a file.

    A lone atom; the smallest structure of the sample (three atoms or more, if there is one) with an atom less; with an
    element less, if it has several; in a periodic box; and a crystal with one atom per cell, the cell shorter than the
    cutoff. The lone atom and the crystal are on the last head.

    Args:
        sample: structures of the data set.
        elements: atomic numbers the model knows.
        heads: names of the model's heads.
        cutoff: cutoff radius, Å.
    """
    smallest = min((s for s in sample if len(s) > 2), key=len, default=sample[0])
    first, last_head = bare(smallest, heads), heads[-1]
    last = dataclasses.replace(first, head=last_head)
    made = [probe(np.array([elements[0]]), np.zeros((1, 3)), like=last, origin="probe: lone atom")]
    x, z = first.positions, first.numbers
    if len(first) > 2:
        made.append(probe(z[1:], x[1:], first.cell, first.pbc, like=first, origin="probe: one atom less"))
    rest = z != z[-1]
    if rest.any():
        made.append(probe(z[rest], x[rest], first.cell, first.pbc, like=first, origin="probe: one element less"))
    box = np.diag(np.ptp(x, axis=0) + 3.0) + np.array([[0.0, 0.0, 0.0], [0.4, 0.0, 0.0], [0.2, 0.3, 0.0]])
    made.append(probe(z, x, box, np.ones(3, bool), like=first, origin="probe: periodic box"))
    edge = max(0.6 * cutoff, 2.0 * float(covalent_radii[elements[-1]]))
    cell = edge * np.array([[1.0, 0.0, 0.0], [0.3, 1.0, 0.0], [0.1, 0.2, 1.0]])
    heaviest = np.array([elements[-1]])
    made.append(probe(heaviest, np.zeros((1, 3)), cell, np.ones(3, bool), like=last, origin="probe: crystal"))
    return made
