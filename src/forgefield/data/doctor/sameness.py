"""Whether two structures are the same, whatever their orientation, order of atoms, origin and lattice vectors."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from forgefield.core.structure import Structure
from forgefield.graph.pairs import find_pairs

REACH = 6.0  # Å, in a crystal; a molecule is compared whole
LARGE = 400  # atoms; larger structures are compared in their own order only
SIZE_ROUNDING = 1e-3


def difference(a: Structure, b: Structure) -> float:
    """Return how much the distances of two structures differ, root mean square, Å; infinity if they are no match.

    Each atom's sorted distances to every element are compared; mirror images are the same (so are their energies).
    A cell and its multiple are the same crystal.
    """
    if bool(a.pbc.any()) != bool(b.pbc.any()) or not _same_formula(a.numbers, b.numbers):
        return np.inf
    if a.pbc.all() and abs(a.volume / len(a) / (b.volume / len(b)) - 1.0) > 0.02:
        return np.inf
    elements = np.unique(a.numbers)
    one, other = _surroundings(a, elements), _surroundings(b, elements)
    one, other = _same_width(one, other)
    if len(a) == len(b) and np.array_equal(a.numbers, b.numbers):
        ordered = float(np.sqrt(_mean_square(one, other)))
        if ordered < SIZE_ROUNDING or len(a) > LARGE:
            return ordered
    elif max(len(a), len(b)) > LARGE:
        return np.inf
    return _matched(a.numbers, b.numbers, one.reshape(len(a), -1), other.reshape(len(b), -1))


def _same_formula(one: np.ndarray, other: np.ndarray) -> bool:
    left, right = np.bincount(one, minlength=119), np.bincount(other, minlength=119)
    return bool(np.array_equal(left * len(other), right * len(one)))


def _surroundings(s: Structure, elements: np.ndarray) -> list[list[np.ndarray]]:
    """Sorted distances of every atom to every element, Å."""
    if s.pbc.any():
        pairs = find_pairs(s, REACH)
        vectors = s.positions[pairs.second] + pairs.shift @ s.cell - s.positions[pairs.first]
        lengths = np.tile(np.linalg.norm(vectors, axis=1), 2)
        first, second = np.concatenate([pairs.first, pairs.second]), np.concatenate([pairs.second, pairs.first])
    else:
        table = cdist(s.positions, s.positions)
        first, second = np.nonzero(~np.eye(len(s), dtype=bool))
        lengths = table[first, second]
    kinds = np.searchsorted(elements, s.numbers[second])
    order = np.lexsort((lengths, kinds, first))
    bounds = np.searchsorted((first * len(elements) + kinds)[order], np.arange(len(s) * len(elements) + 1))
    sorted_lengths = lengths[order]
    cells = [sorted_lengths[bounds[k] : bounds[k + 1]] for k in range(len(s) * len(elements))]
    return [cells[k :: len(elements)] for k in range(len(elements))]


def _same_width(one: list[list[np.ndarray]], other: list[list[np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Both as arrays (N, elements, width); what one lacks beyond the reach counts as lying at it."""
    width = max(len(cell) for table in (*one, *other) for cell in table) or 1
    made = []
    for table in (one, other):
        filled = np.full((len(table[0]), len(table), width), REACH)
        for k, cells in enumerate(table):
            for atom, cell in enumerate(cells):
                filled[atom, k, : len(cell)] = cell
        made.append(filled)
    return made[0], made[1]


def _mean_square(one: np.ndarray, other: np.ndarray) -> float:
    squares, there = (one - other) ** 2, (one != REACH) | (other != REACH)
    return float(squares.sum() / max(there.sum(), 1))


def _matched(one: np.ndarray, other: np.ndarray, left: np.ndarray, right: np.ndarray) -> float:
    """Mean square difference under the best assignment of atoms, element by element."""
    total, count = 0.0, 0.0
    for z in np.unique(one):
        a, b = left[one == z], right[other == z]
        costs = cdist(a, b, "sqeuclidean")
        if len(a) == len(b):
            rows, columns = linear_sum_assignment(costs)
            total += float(costs[rows, columns].sum())
        else:  # multiples of one cell: every atom has its like
            total += float(costs.min(axis=1).sum() + costs.min(axis=0).sum())
            a = np.concatenate([a, b])
        count += float((a != REACH).sum())
    return float(np.sqrt(total / max(count, 1.0)))
