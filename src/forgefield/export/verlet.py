"""A neighbour list that survives small moves."""

from __future__ import annotations

import numpy as np

from forgefield.core.errors import ConfigError
from forgefield.core.structure import Structure
from forgefield.graph.pairs import Pairs, find_pairs


class VerletList:
    """Pairs within `cutoff`, searched with a margin so that the search is seldom repeated.

    The search reaches `cutoff + skin`. While no atom has moved more than `skin / 2` since, no pair outside it can
    have come within the cutoff. What is returned is cut at `cutoff` every time: the same pairs as a fresh search.

    Args:
        cutoff: distance of the pairs returned, Å.
        skin: margin of the search, Å; 0 searches whenever anything changed.
    """

    def __init__(self, cutoff: float, skin: float = 0.5) -> None:
        if not (np.isfinite(skin) and skin >= 0):
            raise ConfigError(f"skin {skin} Å is not a distance", "skin", "use 0 or more, for example 0.5")
        self.cutoff, self.skin = float(cutoff), float(skin)
        self.searches = 0
        self._seen: Structure | None = None
        self._wide = Pairs(np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros((0, 3), np.int32))

    def pairs(self, structure: Structure) -> Pairs:
        """Return all pairs of the structure closer than the cutoff, each once."""
        if self._stale(structure):
            self._wide = find_pairs(structure, self.cutoff + self.skin)
            self._seen = structure
            self.searches += 1
        wide, x = self._wide, structure.positions
        vectors = x[wide.second] - x[wide.first] + wide.shift @ structure.cell
        near = np.einsum("pk,pk->p", vectors, vectors) < self.cutoff**2
        return Pairs(wide.first[near], wide.second[near], wide.shift[near])

    def _stale(self, structure: Structure) -> bool:
        seen = self._seen
        if seen is None or len(seen) != len(structure):
            return True
        for name in ("numbers", "cell", "pbc"):
            if not np.array_equal(getattr(seen, name), getattr(structure, name)):
                return True
        moved = structure.positions - seen.positions
        return bool(np.einsum("nk,nk->n", moved, moved).max() > (self.skin / 2) ** 2)
