"""What one structure's distances tell: contacts, a descriptor, and how stiff its bonds are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from forgefield.core.elements import covalent_radii
from forgefield.core.structure import Structure
from forgefield.graph.pairs import find_pairs

REACH = 6.0  # Å
CENTRES = np.linspace(0.9, 5.4, 8)  # Å
WIDTH = 0.55  # Å
MOST_NEIGHBOURS = 3000  # per atom, before the reach is shortened
CHUNK = 50_000  # pairs
FEWEST_BONDS = 20
BONDED = 1.25  # of the sum of covalent radii
_HUES = np.random.default_rng(20).uniform(0.4, 1.6, (2, len(covalent_radii)))
N_DESCRIPTOR = 3 * len(CENTRES)

Bonds = dict[tuple[int, int], np.ndarray]
"""Element pair -> sums over bonds of 1, r, f, r², r f, f²: f pushes the two atoms apart, eV/Å."""


class Geometry(NamedTuple):
    """What is kept of one structure."""

    descriptor: np.ndarray  # (N_DESCRIPTOR,), mean over atoms; same for every orientation, order and cell
    closest: float  # smallest distance over sum of covalent radii; inf without pairs
    closest_own: float  # the same among atoms of one image
    closest_length: float  # Å
    typical: float  # median over atoms of the nearest distance over the sum of radii
    loneliest: float  # largest distance of an atom to its nearest neighbour, Å; inf beyond REACH
    polarity: float  # largest imbalance of an atom's surroundings, 0 to 1; 0 = a centre of inversion
    bonds: Bonds


def survey_geometry(structure: Structure) -> Geometry:
    """Look at all pairs within `REACH`, or less where a broken cell would have too many."""
    reach = _reach(structure)
    pairs = find_pairs(structure, reach)
    first, second = pairs.first, pairs.second
    vectors = structure.positions[second] + pairs.shift @ structure.cell - structure.positions[first]
    lengths = np.sqrt((vectors**2).sum(axis=1))
    numbers, n = structure.numbers, len(structure)
    ratio = lengths / (covalent_radii[numbers[first]] + covalent_radii[numbers[second]])
    nearest, relative = np.full(n, np.inf), np.full(n, np.inf)
    for ends in (first, second):
        np.minimum.at(nearest, ends, lengths)
        np.minimum.at(relative, ends, ratio)
    own = ~pairs.shift.any(axis=1)
    at = int(ratio.argmin()) if len(ratio) else -1
    return Geometry(
        descriptor=_descriptor(lengths, numbers[first], numbers[second], n, reach),
        closest=float(ratio[at]) if at >= 0 else np.inf,
        closest_own=float(ratio[own].min()) if own.any() else np.inf,
        closest_length=float(lengths[at]) if at >= 0 else np.inf,
        typical=float(np.median(relative)),
        loneliest=float(nearest.max()),
        polarity=_polarity(vectors, lengths, first, second, n, reach),
        bonds=_bonds(structure, first, second, vectors, lengths, ratio),
    )


def _reach(structure: Structure) -> float:
    if not structure.pbc.any():
        return REACH
    density = len(structure) / max(structure.volume, 1e-9)
    if not structure.pbc.all():  # an empty direction makes the volume meaningless
        return REACH
    return min(REACH, (MOST_NEIGHBOURS / (density * 4.19)) ** (1 / 3))


def _fade(lengths: np.ndarray, reach: float) -> np.ndarray:
    return (1.0 - (lengths / reach) ** 2) ** 2


def _descriptor(lengths: np.ndarray, one: np.ndarray, other: np.ndarray, n: int, reach: float) -> np.ndarray:
    total = np.zeros((3, len(CENTRES)))
    for start in range(0, len(lengths), CHUNK):
        part = slice(start, start + CHUNK)
        bumps = np.exp(-0.5 * ((lengths[part, None] - CENTRES) / WIDTH) ** 2) * _fade(lengths[part], reach)[:, None]
        hues = _HUES[:, one[part]] * _HUES[:, other[part]]
        total[0] += bumps.sum(axis=0)
        total[1:] += hues @ bumps
    return 2.0 * total.reshape(-1) / n


def _polarity(
    vectors: np.ndarray, lengths: np.ndarray, first: np.ndarray, second: np.ndarray, n: int, reach: float
) -> float:
    if not len(lengths):
        return 0.0
    weights = _fade(lengths, reach) / np.maximum(lengths, 1e-9) ** 2
    pulls = vectors / np.maximum(lengths, 1e-9)[:, None] * weights[:, None]
    total, norm = np.zeros((n, 3)), np.zeros(n)
    for axis in range(3):
        total[:, axis] = np.bincount(first, pulls[:, axis], n) - np.bincount(second, pulls[:, axis], n)
    norm = np.bincount(first, weights, n) + np.bincount(second, weights, n)
    return float((np.linalg.norm(total, axis=1) / np.maximum(norm, 1e-12)).max())


def _bonds(
    structure: Structure,
    first: np.ndarray,
    second: np.ndarray,
    vectors: np.ndarray,
    lengths: np.ndarray,
    ratio: np.ndarray,
) -> Bonds:
    forces = structure.labels.get("forces")
    chosen = np.flatnonzero((ratio < BONDED) & (lengths > 0.3))
    if forces is None or not len(chosen):
        return {}
    i, j, r = first[chosen], second[chosen], lengths[chosen]
    push = ((forces[j] - forces[i]) * vectors[chosen]).sum(axis=1) / r
    a, b = structure.numbers[i], structure.numbers[j]
    kinds, inverse = np.unique(np.minimum(a, b) * 1000 + np.maximum(a, b), return_inverse=True)
    sums = [np.bincount(inverse, w, len(kinds)) for w in (np.ones_like(r), r, push, r * r, r * push, push * push)]
    table = np.array(sums).T
    return {(int(kind) // 1000, int(kind) % 1000): table[row] for row, kind in enumerate(kinds)}


def add_bonds(total: Bonds, more: Mapping[tuple[int, int], np.ndarray]) -> None:
    """Add the sums of one structure to those of many."""
    for kind, sums in more.items():
        total[kind] = total[kind] + sums if kind in total else sums


class Spring(NamedTuple):
    """A kind of bond: spring constant of one bond (eV/Å²), and how well a spring describes it (-1 to 1)."""

    constant: float
    agreement: float
    force: float  # spread of what pushes the atoms apart, eV/Å
    count: float


def spring(sums: np.ndarray) -> Spring | None:
    """Return the spring of a kind of bond; None where too few bonds, or all of one length.

    Two atoms pushed apart by f each: f_j - f_i = -2 k (r - r0).
    """
    n, r, f, rr, rf, ff = sums
    spread, force = rr / n - (r / n) ** 2, ff / n - (f / n) ** 2
    if n < FEWEST_BONDS or spread <= 1e-6 or force <= 1e-12:
        return None
    both = rf / n - r * f / n**2
    return Spring(float(-0.5 * both / spread), float(-both / np.sqrt(spread * force)), float(np.sqrt(force)), float(n))
