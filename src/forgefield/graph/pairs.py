"""Neighbour pairs of one structure."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from vesin import NeighborList

from forgefield.core.errors import DataError
from forgefield.core.structure import Structure


class Pairs(NamedTuple):
    """Undirected pairs within a cutoff, each once, by second atom."""

    first: np.ndarray  # (P,), int32
    second: np.ndarray  # (P,), int32
    shift: np.ndarray  # (P, 3), int32: lattice translations of the second atom


def find_pairs(structure: Structure, cutoff: float) -> Pairs:
    """Return all pairs closer than `cutoff` (Å), periodic images included, each once.

    Lattice vectors along which the structure is not periodic are replaced by vectors across it, so that a slab
    with an empty third vector works.
    """
    search = NeighborList(cutoff=float(cutoff), full_list=False)
    first, second, shift = search.compute(
        points=structure.positions,
        box=_closed_cell(structure),
        periodic=structure.pbc.tolist(),
        quantities="ijS",
        copy=True,
    )
    order = np.argsort(second, kind="stable")  # sums by the second atom then read their pairs one after the other
    return Pairs(first[order].astype(np.int32), second[order].astype(np.int32), shift[order].astype(np.int32))


def find_far_pairs(structure: Structure, cutoff: float) -> Pairs:
    """Return all pairs up to `cutoff` (Å), or of a whole molecule where it is infinite, each once.

    Raises:
        DataError: it is infinite, and the structure is periodic.
    """
    if math.isfinite(cutoff):
        return find_pairs(structure, cutoff)
    if structure.pbc.any():
        what = "is periodic, but the model sums over all pairs of atoms without a cutoff"
        raise DataError(what, structure.origin, "use coulomb with method dsf or ewald for periodic structures")
    first, second = np.triu_indices(len(structure), 1)
    order = np.argsort(second, kind="stable")
    zeros = np.zeros((len(first), 3), np.int32)
    return Pairs(first[order].astype(np.int32), second[order].astype(np.int32), zeros)


def _closed_cell(structure: Structure) -> np.ndarray:
    """Cell whose non-periodic rows are unit vectors orthogonal to the others (never zero)."""
    if not structure.pbc.any():
        return np.eye(3)
    cell = structure.cell.copy()
    if structure.pbc.all():
        return cell
    basis = [cell[k] for k in range(3) if structure.pbc[k]]
    for k in range(3):
        if structure.pbc[k]:
            continue
        for trial in np.eye(3):
            rest = trial - sum((trial @ q) * q for q in _orthonormal(basis))
            if np.linalg.norm(rest) > 0.5:
                cell[k] = rest / np.linalg.norm(rest)
                break
        basis.append(cell[k])
    return cell


def _orthonormal(vectors: list[np.ndarray]) -> list[np.ndarray]:
    if not vectors:
        return []
    return list(np.linalg.qr(np.array(vectors).T)[0].T)
