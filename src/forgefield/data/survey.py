"""What kinds of structures a data set has: found in one pass, kept as a few bytes per structure."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import NamedTuple, final

import numpy as np

from forgefield.core.structure import Structure


class Kind(NamedTuple):
    """What many structures have in common."""

    elements: tuple[int, ...]  # ascending
    labels: tuple[str, ...]  # ascending
    head: str | None
    config_free: bool  # called an isolated atom
    periodic: bool  # in any direction
    fixed: bool  # some atom is held fixed


@final
class Survey:
    """The kind and the size of every structure.

    Args:
        kinds: the kinds that occur.
        kind: place of each structure's kind among them, (n,).
        n_atoms: (n,)
    """

    def __init__(self, kinds: Sequence[Kind], kind: np.ndarray, n_atoms: np.ndarray) -> None:
        self.kinds, self.kind, self.n_atoms = tuple(kinds), kind, n_atoms

    def __len__(self) -> int:
        return len(self.kind)

    def take(self, places: np.ndarray) -> Survey:
        """Return the survey of the structures at these places, (m,)."""
        return Survey(self.kinds, self.kind[places], self.n_atoms[places])

    def present(self) -> list[Kind]:
        """Kinds that at least one structure has, in the order of their first appearance."""
        numbers, first = np.unique(self.kind, return_index=True)
        return [self.kinds[int(k)] for k in numbers[np.argsort(first)]]

    def where(self, wanted: Iterable[bool]) -> np.ndarray:
        """Return which structures are of a wanted kind, (n,) bool; `wanted` has a truth value for each kind."""
        table = np.fromiter(wanted, dtype=bool, count=len(self.kinds))
        return table[self.kind] if len(table) else np.zeros(0, dtype=bool)


class Surveyor:
    """Makes a survey from structures that come one by one, or continues one."""

    def __init__(self, kinds: Sequence[Kind] = ()) -> None:
        self.kinds = {kind: place for place, kind in enumerate(kinds)}
        self._kind, self._n_atoms = array("I"), array("I")

    def add(self, structure: Structure) -> int:
        """Take in a structure; returns the place of its kind."""
        place = self.kinds.setdefault(kind_of(structure), len(self.kinds))
        self._kind.append(place)
        self._n_atoms.append(len(structure.numbers))
        return place

    def finish(self) -> Survey:
        """Return the survey of all structures so far."""
        return Survey(list(self.kinds), _numbers(self._kind), _numbers(self._n_atoms))


def kind_of(structure: Structure) -> Kind:
    """Return the kind of a structure."""
    return Kind(
        tuple(sorted(set(structure.numbers.tolist()))),
        tuple(sorted(structure.labels)),
        structure.level,
        is_called_isolated(structure.config_type),
        bool(structure.pbc.any()),
        structure.fixed is not None and bool(np.any(structure.fixed)),
    )


def is_called_isolated(config_type: str) -> bool:
    """Return whether a group name says isolated atom, in any case and with any separator."""
    return config_type.lower().replace("_", "").replace("-", "").replace(" ", "") == "isolatedatom"


def survey(structures: Iterable[Structure]) -> Survey:
    """Return the survey of structures, in one pass over them."""
    made = Surveyor()
    for structure in structures:
        made.add(structure)
    return made.finish()


def join(surveys: Sequence[Survey]) -> Survey:
    """Return the survey of several sources taken together."""
    table: dict[Kind, int] = {}
    kinds: list[np.ndarray] = []
    for one in surveys:
        places = np.array([table.setdefault(kind, len(table)) for kind in one.kinds], dtype=np.int64)
        kinds.append(places[one.kind] if len(one) else np.zeros(0, dtype=np.int64))
    sizes = [one.n_atoms for one in surveys]
    empty = np.zeros(0, dtype=np.int64)
    return Survey(list(table), np.concatenate([empty, *kinds]), np.concatenate([empty, *sizes]))


def _numbers(values: array[int]) -> np.ndarray:
    return np.frombuffer(values, dtype=np.uint32).astype(np.int64) if len(values) else np.zeros(0, dtype=np.int64)
