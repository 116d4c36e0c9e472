"""The two benchmark systems, with random labels: speed does not ask for better ones."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.build import bulk, molecule

from forgefield.core.structure import Structure
from forgefield.graph.pairs import find_pairs

SPREAD = 0.05  # Å, of the random displacements


def molecules(seed: int) -> Atoms:
    """27 atoms of C, H, N and O in contact: benzene, pyridine and formaldehyde."""
    atoms = molecule("C6H6")
    for name, place, turned in (("C5H5N", (3.4, 0.3, 0.2), True), ("H2CO", (1.5, 4.2, 0.0), False)):
        part = molecule(name)
        if turned:
            part.rotate(90, "y")
        part.translate(place)
        atoms += part
    atoms.pbc = False
    return displaced(atoms, seed)


def silicon(seed: int) -> Atoms:
    """64 atoms of diamond silicon, periodic."""
    return displaced(bulk("Si", cubic=True) * (2, 2, 2), seed)


def displaced(atoms: Atoms, seed: int) -> Atoms:
    """A copy with Gaussian displacements."""
    atoms = atoms.copy()
    atoms.positions += np.random.default_rng(seed).normal(0.0, SPREAD, atoms.positions.shape)
    return atoms


CASES = {"molecules": [molecules(k) for k in range(10)], "silicon": [silicon(0)]}


def write_case(name: str, cutoff: float, energy_per_atom: float) -> dict[str, np.ndarray]:
    """One case as flat arrays, labels and the mean number of neighbours included."""
    frames = CASES[name]
    generator = np.random.default_rng(1)
    n_atoms = sum(len(atoms) for atoms in frames)
    n_pairs = 0
    for atoms in frames:
        structure = Structure(
            numbers=atoms.numbers.astype(np.int64),
            positions=atoms.positions,
            cell=atoms.cell.array,
            pbc=np.asarray(atoms.pbc),
            labels={},
        )
        n_pairs += len(find_pairs(structure, cutoff).first)
    return {
        "ptr": np.cumsum([0] + [len(atoms) for atoms in frames]),
        "numbers": np.concatenate([atoms.numbers for atoms in frames]).astype(np.int64),
        "positions": np.concatenate([atoms.positions for atoms in frames]),
        "cell": np.stack([atoms.cell.array for atoms in frames]),
        "pbc": np.stack([np.asarray(atoms.pbc) for atoms in frames]),
        "energy": np.array([energy_per_atom * len(atoms) for atoms in frames]) + generator.normal(size=len(frames)),
        "forces": generator.normal(size=(n_atoms, 3)),
        "avg_num_neighbors": np.array(2 * n_pairs / n_atoms),
    }
