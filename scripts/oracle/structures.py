"""The structures that the golden forward cases are evaluated on.

Coordinates are rounded to eight decimals, so that a text file carries them exactly.
"""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.build import bulk, molecule

ELEMENTS = (1, 6, 7, 8, 14)


def displaced(atoms: Atoms, seed: int, amplitude: float) -> Atoms:
    """A copy with Gaussian displacements of every coordinate."""
    copy = atoms.copy()
    noise = np.random.default_rng(seed).normal(0.0, amplitude, copy.positions.shape)
    copy.positions = np.round(copy.positions + noise, 8)
    copy.cell = np.round(copy.cell.array, 8)
    return copy


def acetamide() -> Atoms:
    """Nine atoms of C, H, N and O, no periodicity."""
    return displaced(molecule("CH3CONH2"), seed=1, amplitude=0.06)


def silicon() -> Atoms:
    """Eight atoms of diamond silicon, periodic."""
    return displaced(bulk("Si", cubic=True), seed=2, amplitude=0.08)


def triclinic() -> Atoms:
    """Three atoms of two elements in a skew cell that is smaller than every cutoff used here."""
    cell = [[2.6, 0.1, 0.0], [0.9, 2.9, 0.2], [-0.4, 0.7, 3.1]]
    scaled = [[0.02, 0.05, 0.03], [0.55, 0.45, 0.08], [0.40, 0.52, 0.56]]
    atoms = Atoms(numbers=[14, 8, 8], cell=cell, scaled_positions=scaled, pbc=True)
    return displaced(atoms, seed=3, amplitude=0.03)


def lone_atom() -> Atoms:
    """One nitrogen atom without neighbours."""
    return Atoms(numbers=[7], positions=[[0.3, -0.2, 0.1]])


def slab() -> Atoms:
    """Two layers of silicon with hydroxyl, periodic in the plane only; the cell has a third vector."""
    atoms = bulk("Si", cubic=True)
    atoms.cell[2] = [0.3, 0.2, 14.0]
    atoms.pbc = (True, True, False)
    top = atoms.positions[:, 2].max()
    atoms += Atoms(numbers=[8, 1], positions=[[1.1, 1.3, top + 1.65], [1.9, 1.2, top + 2.15]])
    return displaced(atoms, seed=4, amplitude=0.05)


STRUCTURES = {
    "acetamide": acetamide,
    "silicon": silicon,
    "triclinic": triclinic,
    "lone_atom": lone_atom,
    "slab": slab,
}


def pack(names: list[str], heads: list[int]) -> dict[str, np.ndarray]:
    """The named structures as flat arrays, one head index for each."""
    atoms = [STRUCTURES[name]() for name in names]
    return {
        "name": np.array(names),
        "ptr": np.cumsum([0] + [len(a) for a in atoms]),
        "numbers": np.concatenate([a.numbers for a in atoms]).astype(np.int64),
        "positions": np.concatenate([a.positions for a in atoms]),
        "cell": np.stack([a.cell.array for a in atoms]),
        "pbc": np.stack([a.pbc for a in atoms]),
        "head": np.array(heads, dtype=np.int64),
    }
