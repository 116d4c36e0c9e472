"""Made-up structures on which an export can be checked when there are no data."""

from __future__ import annotations

import numpy as np

from forgefield.core.elements import covalent_radii
from forgefield.core.structure import Structure
from forgefield.export.probes import probe
from forgefield.models.potential import Potential

MOST_ELEMENTS = 8


def specimens(potential: Potential, seed: int = 0) -> list[Structure]:
    """Return a cluster and a periodic cell of the elements that a potential knows.

    Atoms stand near the points of a cubic grid, about a bond length apart.
    """
    random = np.random.default_rng(seed)
    elements = np.array(potential.elements)
    numbers = random.choice(elements, size=min(len(elements), MOST_ELEMENTS), replace=False)
    numbers = np.resize(numbers, 8)
    spacing = 2.2 * float(covalent_radii[numbers].max())
    grid = np.stack(np.meshgrid(*[np.arange(2)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    positions = spacing * (grid + random.uniform(-0.1, 0.1, size=(8, 3)))
    cell = 2 * spacing * np.eye(3)
    features = {name: np.zeros(width) for name, width in potential.needs.features}
    like = Structure(numbers, positions, head=potential.heads[0], features=features)
    cluster = probe(numbers, positions, like=like, origin="a made-up cluster")
    periodic = np.ones(3, dtype=bool)
    inside = probe(numbers, positions, cell, periodic, like=like, origin="a made-up cell")
    return [made for made in (cluster, inside) if potential.takes(made.pbc.tolist())]
