"""A neighbour list that survives small moves, and the graph that goes with it."""

from __future__ import annotations

import copy
from typing import NamedTuple

import numpy as np
import torch

from forgefield.core.errors import ConfigError, DataError
from forgefield.core.structure import Structure
from forgefield.graph.build import build_graph
from forgefield.graph.graph import Graph
from forgefield.graph.needs import Needs
from forgefield.graph.pairs import Pairs, find_far_pairs
from forgefield.graph.pieces import make_piece
from forgefield.models.potential import Potential


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
        self._offset = np.zeros((0, 3))
        self._squares = np.zeros(0)

    def pairs(self, structure: Structure) -> Pairs:
        """Return all pairs of the structure closer than the cutoff, each once."""
        return self.chosen(self.near(structure))

    def chosen(self, near: np.ndarray) -> Pairs:
        """Return the pairs of the last search for which `near`, (W,) bool, is true."""
        return Pairs(*(column[near] for column in self._wide))

    def wide(self, structure: Structure) -> Pairs:
        """Search again if that is needed; return all pairs of the last search, those of the margin too."""
        self._search(structure)
        return self._wide

    def near(self, structure: Structure) -> np.ndarray:
        """Search again if that is needed; say which pairs of the last search are closer than the cutoff, (W,) bool."""
        self._search(structure)
        x = structure.positions
        vectors = x.take(self._wide.second, 0)
        vectors -= x.take(self._wide.first, 0)
        vectors += self._offset
        self._squares = np.einsum("pk,pk->p", vectors, vectors)
        return self._squares < self.cutoff**2

    def closer(self, cutoff: float) -> np.ndarray:
        """Say which pairs of the last search were closer than this, Å, when `near` was last called, (W,) bool."""
        return self._squares < cutoff**2

    def _search(self, structure: Structure) -> None:
        if self._stale(structure):
            self._wide = find_far_pairs(structure, self.cutoff + self.skin)
            self._offset = self._wide.shift @ structure.cell
            self._seen = structure
            self.searches += 1

    def _stale(self, structure: Structure) -> bool:
        seen = self._seen
        if seen is None or len(seen) != len(structure):
            return True
        for name in ("numbers", "cell", "pbc"):
            before, now = getattr(seen, name), getattr(structure, name)
            if before is not now and not np.array_equal(before, now):
                return True
        moved = structure.positions - seen.positions
        return bool(np.einsum("nk,nk->n", moved, moved).max() > (self.skin / 2) ** 2)


def moved(structure: Structure, positions: np.ndarray) -> Structure:
    """Return the structure with its atoms elsewhere; what has been checked of the rest is not checked again.

    Args:
        structure: with elements, cell and head as they are now.
        positions: (N, 3), Å.

    Raises:
        DataError: positions are not finite.
    """
    if not np.isfinite(positions).all():
        raise DataError("positions hold NaN or infinity", structure.origin, "look at what moved the atoms")
    other = copy.copy(structure)
    object.__setattr__(other, "positions", np.array(positions, dtype=np.float64))
    return other


State = tuple[object, ...]  # head, charge, multiplicity, charges of the atoms, features


def _state(structure: Structure) -> State:
    features = tuple((name, value.tobytes()) for name, value in structure.features.items())
    charges = structure.labels.get("charges")
    stated = None if charges is None else charges.tobytes()
    return structure.level, structure.charge, structure.multiplicity, stated, features


class Kept(NamedTuple):
    """The last graph, and what it is valid for."""

    graph: Graph
    order: np.ndarray  # (N,), sorted row -> original row
    near: np.ndarray  # (W,) or (2, W), pairs of the last search that are in it; those in its triplets
    searches: int
    state: State
    place: tuple[torch.dtype, torch.device]


class MovingGraph:
    """The graph of one structure whose atoms move.

    While the same pairs are within the cutoff, only the positions are put in anew: sorting, neighbour table and shifts
    stay as they are, on the device. When a pair comes or goes, the graph is built again from the last search.

    Far pairs are those of the last search, a few too many: physics terms cut by themselves. Where other things than
    distances say which atoms are neighbours (`Needs.by_distance`), every step searches anew.

    Args:
        needs: the graph that the model asks for.
        skin: margin of the search, Å.
    """

    def __init__(self, needs: Needs, skin: float) -> None:
        self.neighbours = VerletList(needs.cutoff, skin)
        self.far = VerletList(needs.far_cutoff, skin) if needs.far_cutoff else None
        self.builds, self.needs = 0, needs
        self._kept: Kept | None = None

    def graph(self, structure: Structure, potential: Potential) -> Graph:
        """Return the graph of the structure for a potential, in its precision and on its device."""
        weight = next(potential.parameters())
        place = (weight.dtype, weight.device)
        made_for = {"heads": potential.heads, "dtype": weight.dtype, "device": weight.device}
        if not self.needs.by_distance:
            self.builds += 1
            self.neighbours.searches += 1
            return build_graph([structure], potential.needs, **made_for)
        near = self.neighbours.near(structure)
        far = self.far.wide(structure) if self.far else None
        chosen = np.stack([near, self.neighbours.closer(self.needs.triplets)]) if self.needs.triplets else near
        if not self._valid(chosen, _state(structure), place):
            piece = make_piece(self.neighbours.chosen(near), len(structure))._replace(far=far)
            graph = build_graph([structure], potential.needs, **made_for, pairs=[piece])
            order = graph.order.cpu().numpy()
            self._kept = Kept(graph, order, chosen, self.searches, _state(structure), place)
            self.builds += 1
            return graph
        assert self._kept is not None
        rows = torch.from_numpy(structure.positions.take(self._kept.order, 0))
        return self._kept.graph._replace(positions=rows.to(weight.device))

    @property
    def searches(self) -> int:
        """Searches made so far."""
        return self.neighbours.searches + (self.far.searches if self.far else 0)

    def _valid(self, near: np.ndarray, state: State, place: tuple[torch.dtype, torch.device]) -> bool:
        kept = self._kept
        if kept is None or kept.searches != self.searches or (kept.state, kept.place) != (state, place):
            return False
        return bool((kept.near == near).all())
