"""Pairs that are not simply all within a cutoff: the nearest neighbours, or a cutoff that grows."""

from __future__ import annotations

import numpy as np

from forgefield.core.errors import DataError
from forgefield.core.structure import Structure
from forgefield.graph.needs import Needs
from forgefield.graph.pairs import Pairs, find_pairs

MOST_SEARCHES = 10
"""After so many the cutoff grows no more."""
AS_NEAR = 1e-8
"""Å: neighbours whose distances differ by less belong to one shell."""


def find_neighbours(structure: Structure, needs: Needs) -> Pairs:
    """Return the pairs of a structure that a model asks for, by second atom.

    Raises:
        DataError: an atom of a crystal has not as many neighbours as the model asks for within any sensible distance.
    """
    if needs.nearest:
        return _nearest(structure, needs)
    cutoff = needs.cutoff
    pairs = _without_images(find_pairs(structure, cutoff), needs)
    for _ in range(MOST_SEARCHES if needs.extra_cutoff else 0):
        if len(np.union1d(pairs.first, pairs.second)) == len(structure):
            break
        cutoff += needs.extra_cutoff
        pairs = _without_images(find_pairs(structure, cutoff), needs)
    return pairs


def _without_images(pairs: Pairs, needs: Needs) -> Pairs:
    """Leave out the pairs of an atom and its own image, unless they count."""
    return pairs if needs.own_images else Pairs(*(column[pairs.first != pairs.second] for column in pairs))


def _nearest(structure: Structure, needs: Needs) -> Pairs:
    pairs, cutoff = find_pairs(structure, needs.cutoff), needs.cutoff
    wanted = needs.nearest if structure.pbc.any() else min(needs.nearest, len(structure) - 1)
    for _ in range(2 * MOST_SEARCHES):
        both = np.bincount(np.concatenate([pairs.first, pairs.second]), minlength=len(structure))
        if both.min() >= wanted:
            break
        cutoff *= 1.5
        pairs = find_pairs(structure, cutoff)
    else:
        what = f"an atom has not {wanted} neighbours within {cutoff:.0f} Å"
        raise DataError(what, structure.origin, "look at the cell, or ask for fewer neighbours")
    ahead, back = _among_nearest(pairs, structure, wanted)
    own = pairs.first == pairs.second
    times = (ahead | back).astype(int)
    if needs.duplicates == "mutual":
        times = ahead.astype(int) + back
    elif needs.duplicates == "own_images":
        times[own] *= 2
    return Pairs(*(np.repeat(column, times, axis=0) for column in pairs))


def _among_nearest(pairs: Pairs, structure: Structure, wanted: int) -> tuple[np.ndarray, np.ndarray]:
    """Whether the second atom is among the first's nearest, (P,), and whether the first is among the second's, (P,)."""
    x = structure.positions
    vectors = x[pairs.second] - x[pairs.first] + (pairs.shift @ structure.cell if structure.pbc.any() else 0.0)
    length = np.tile(np.linalg.norm(vectors, axis=1), 2)
    centre = np.concatenate([pairs.first, pairs.second])
    order = np.lexsort((length, centre))
    degree = np.bincount(centre, minlength=len(structure))
    last = np.zeros(len(structure))
    if wanted:
        last = length[order[np.cumsum(degree) - degree + wanted - 1]]
    inside = length <= last[centre] + AS_NEAR
    return inside[: len(vectors)], inside[len(vectors) :]
