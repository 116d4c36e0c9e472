"""Pairs of edges that meet at an atom: one comes in, the other goes out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from forgefield.core.structure import Structure
from forgefield.graph.needs import Needs


class Triplets(NamedTuple):
    """Edges u -> v and v -> w of one structure, by the outgoing edge, then in the order of the incoming ones.

    The P pairs are 2 P edges: edge p runs from the pair's first atom to its second, edge P + p back.
    """

    entering: np.ndarray  # (T,), int32: edge u -> v
    leaving: np.ndarray  # (T,), int32: edge v -> w
    angle: np.ndarray  # (T,), int32: number of the angle, which u -> v -> w and w -> v -> u have in common
    shown: np.ndarray  # (A,), int32: a triplet with each angle


def find_triplets(first: np.ndarray, second: np.ndarray, shift: np.ndarray, at: Structure, needs: Needs) -> Triplets:
    """List all triplets of a structure that a model asks for.

    Args:
        first: first atom of each pair, (P,).
        second: second atom, (P,).
        shift: lattice translations of the second atom, (P, 3).
        at: the structure.
        needs: limits of the triplets.
    """
    x, n_pairs = at.positions, len(first)
    vectors = x[second] - x[first] + (shift @ at.cell if at.pbc.any() else 0.0)
    vectors = np.concatenate([vectors, -vectors])
    receiver = np.concatenate([second, first])
    near = np.flatnonzero(np.einsum("ek,ek->e", vectors, vectors) < needs.triplets**2)
    edges = near[np.argsort(receiver[near], kind="stable")]
    degree = np.bincount(receiver[edges], minlength=len(at))
    start = np.cumsum(degree) - degree
    count = degree[receiver[edges]]
    within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    entering = edges[np.repeat(start[receiver[edges]], count) + within]
    reverse = (edges + n_pairs) % (2 * n_pairs) if n_pairs else edges
    leaving = np.repeat(reverse, count)
    outgoing = np.repeat(np.arange(len(edges)) - start[receiver[edges]], count)  # its place among the atom's edges
    twin = np.arange(len(within)) + (within - outgoing) * (np.repeat(count, count) - 1)
    keep = np.ones(len(entering), bool)
    if not needs.backtracking:
        keep &= entering != np.repeat(edges, count)
    if math.isfinite(needs.opposite):
        across = vectors[entering] + vectors[leaving]
        keep &= np.einsum("tk,tk->t", across, across) < needs.opposite**2
    shown = outgoing <= within
    angle = np.cumsum(shown & keep) - 1
    angle = np.where(shown, angle, angle[twin])
    found = entering[keep], leaving[keep], angle[keep], np.flatnonzero(shown[keep])
    return Triplets(*(x.astype(np.int32) for x in found))


def join_triplets(parts: Sequence[Triplets], n_pairs: Sequence[int]) -> dict[str, np.ndarray]:
    """Number the edges of several structures through.

    Args:
        parts: triplets of each structure.
        n_pairs: its pairs.

    Returns:
        The arrays of `Graph`.
    """
    counts = np.asarray(n_pairs)
    before, total = np.cumsum(counts) - counts, int(counts.sum())
    names = ("triplet_entering", "triplet_leaving", "triplet_angle", "angle_triplet")
    found: dict[str, list[np.ndarray]] = {name: [] for name in names}
    angles = triplets = 0
    for part, own, offset in zip(parts, counts, before, strict=True):
        ends = [
            np.where(edge < own, edge + offset, edge - own + offset + total) for edge in (part.entering, part.leaving)
        ]
        for column, values in zip(found.values(), [*ends, part.angle + angles, part.shown + triplets], strict=True):
            column.append(values)
        angles, triplets = angles + len(part.shown), triplets + len(part.angle)
    return {name: np.concatenate([*column, np.zeros(0, np.int64)]).astype(np.int64) for name, column in found.items()}
