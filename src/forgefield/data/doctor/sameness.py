"""Whether two structures are the same, whatever their orientation, order of atoms, origin and lattice vectors."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist, pdist

from forgefield.core.structure import Structure
from forgefield.graph.pairs import find_pairs

REACH = 6.0  # Å, in a crystal; a molecule is compared whole
LARGE = 400  # atoms; larger structures are compared in their own order only
SIZE_ROUNDING = 1e-3
SURE, FAR = 1e-4, 0.02  # Å: below, copies in one order; beyond, not near


def difference(a: Structure, b: Structure) -> float:
    """Return how much the distances of two structures differ, root mean square, Å; infinity if they are no match.

    Each atom's sorted distances to every element are compared; mirror images are the same (so are their energies).
    A cell and its multiple are the same crystal.
    """
    if bool(a.pbc.any()) != bool(b.pbc.any()) or not _same_formula(a.numbers, b.numbers):
        return np.inf
    if a.pbc.all() and abs(a.volume / len(a) / (b.volume / len(b)) - 1.0) > 0.02:
        return np.inf
    if not a.pbc.any():
        sure = _by_all_distances(a, b)
        if sure is not None:
            return sure
    one, other = _surroundings(a, b)
    if len(a) == len(b) and np.array_equal(a.numbers, b.numbers):
        ordered = float(np.sqrt(_mean_square(one, other)))
        if ordered < SIZE_ROUNDING or len(a) > LARGE:
            return ordered
    elif max(len(a), len(b)) > LARGE:
        return np.inf
    return _matched(a.numbers, b.numbers, one.reshape(len(a), -1), other.reshape(len(b), -1))


def _by_all_distances(a: Structure, b: Structure) -> float | None:
    """What two molecules differ by, where all their distances tell: beyond `FAR`, or next to nothing in this order.

    No assignment of atoms is better than all distances in ascending order.
    """
    if len(a) != len(b) or len(a) < 2:
        return None
    one, other = pdist(a.positions), pdist(b.positions)
    if np.array_equal(a.numbers, b.numbers) and (ordered := _root_mean_square(one - other)) < SURE:
        return ordered
    one.sort()
    other.sort()
    least = _root_mean_square(one - other)
    return least if least > FAR else None


def _root_mean_square(values: np.ndarray) -> float:
    return float(np.sqrt((values**2).mean()))


def _same_formula(one: np.ndarray, other: np.ndarray) -> bool:
    left, right = np.bincount(one, minlength=119), np.bincount(other, minlength=119)
    return bool(np.array_equal(left * len(other), right * len(one)))


def _surroundings(a: Structure, b: Structure) -> tuple[np.ndarray, np.ndarray]:
    """Sorted distances of every atom to every element, Å, both (N, elements, width).

    What one lacks beyond the reach counts as lying at it.
    """
    elements = np.unique(a.numbers)
    lists = [_neighbours(s, elements) for s in (a, b)]
    counts = [np.bincount(row, minlength=len(s) * len(elements)) for s, (row, _) in zip((a, b), lists, strict=True)]
    width = max(1, *(int(count.max()) for count in counts))
    made = []
    for (row, lengths), count in zip(lists, counts, strict=True):
        order = np.lexsort((lengths, row))
        table = np.full((len(count), width), REACH)
        place = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
        table[row[order], place] = lengths[order]
        made.append(table.reshape(-1, len(elements), width))
    return made[0], made[1]


def _neighbours(s: Structure, elements: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Atom times elements plus the neighbour's element, and the distance, Å, of all neighbours."""
    if s.pbc.any():
        pairs = find_pairs(s, REACH)
        vectors = s.positions[pairs.second] + pairs.shift @ s.cell - s.positions[pairs.first]
        lengths = np.tile(np.linalg.norm(vectors, axis=1), 2)
        first, second = np.concatenate([pairs.first, pairs.second]), np.concatenate([pairs.second, pairs.first])
    else:
        table = cdist(s.positions, s.positions)
        first, second = np.nonzero(~np.eye(len(s), dtype=bool))
        lengths = table[first, second]
    return first.astype(np.int64) * len(elements) + np.searchsorted(elements, s.numbers[second]), lengths


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
