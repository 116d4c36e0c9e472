"""One pass over a data set: what its statistics are made of, in some tens of bytes per structure."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from forgefield.core.structure import Structure
from forgefield.data.dataset import Dataset
from forgefield.data.isolated import head_of, is_isolated
from forgefield.graph.pairs import find_pairs


class Neighbours(NamedTuple):
    """Neighbours of all atoms together."""

    total: int
    atoms: int
    with_any: int  # atoms that have at least one
    most: int

    @property
    def mean(self) -> float:
        """Mean over the atoms that have any, as mace-torch counts."""
        return self.total / self.with_any


class Gathered(NamedTuple):
    """What one pass collects; frames of one free atom are only noted by their place."""

    elements: list[int]  # atomic numbers, ascending
    counts: np.ndarray  # (S, n_elements), int32
    energies: np.ndarray  # (S,), NaN without energy
    heads: np.ndarray  # (S,)
    force_squares: np.ndarray  # (S,), sum over components
    force_counts: np.ndarray  # (S,), components
    neighbours: Neighbours
    isolated: np.ndarray  # places of the frames of one free atom
    rest: np.ndarray  # places of the others, (S,)


def gather(dataset: Dataset, cutoff: float, heads: Sequence[str]) -> Gathered:
    """Pass over all structures once.

    Args:
        dataset: the structures.
        cutoff: of the neighbours, Å.
        heads: of the model; a structure without head counts for the first.

    Raises:
        DataError: a head is not in the model.
    """
    columns: dict[int, int] = {}
    entries = array("q"), array("q"), array("q")  # row, column, count of each element of each structure
    floats, numbers = (array("d"), array("d")), (array("q"), array("q"))
    isolated, rest = array("q"), array("q")
    neighbours = [0, 0, 0, 0]
    for place, structure in enumerate(dataset):
        if is_isolated(structure):
            isolated.append(place)
            continue
        found, counts = np.unique(structure.numbers, return_counts=True)
        for z, count in zip(found.tolist(), counts.tolist(), strict=True):
            for table, value in zip(entries, (len(rest), columns.setdefault(z, len(columns)), count), strict=True):
                table.append(value)
        forces = structure.labels.get("forces")
        for table, value in zip(floats, (_energy(structure), _squares(forces)), strict=True):
            table.append(value)
        numbers[0].append(list(heads).index(head_of(structure, heads)))
        numbers[1].append(0 if forces is None else forces.size)
        _add_neighbours(neighbours, degrees(structure, cutoff))
        rest.append(place)
    return Gathered(
        sorted(columns),
        _table(entries, columns, len(rest)),
        np.array(floats[0]),
        np.array(numbers[0], dtype=np.int64),
        np.array(floats[1]),
        np.array(numbers[1], dtype=np.int64),
        Neighbours(*neighbours),
        np.array(isolated, dtype=np.int64),
        np.array(rest, dtype=np.int64),
    )


def degrees(structure: Structure, cutoff: float) -> np.ndarray:
    """Return the neighbours of each atom, periodic images included, (N,)."""
    pairs = find_pairs(structure, cutoff)
    ends = np.concatenate([pairs.first, pairs.second]).astype(np.int64)
    return np.bincount(ends, minlength=len(structure))


def _energy(structure: Structure) -> float:
    return float(structure.labels.get("energy", np.nan))


def _squares(forces: np.ndarray | None) -> float:
    return 0.0 if forces is None else float((forces**2).sum())


def _add_neighbours(sums: list[int], found: np.ndarray) -> None:
    sums[0] += int(found.sum())
    sums[1] += len(found)
    sums[2] += int(np.count_nonzero(found))
    sums[3] = max(sums[3], int(found.max()))


def _table(entries: Sequence[array[int]], columns: dict[int, int], n_rows: int) -> np.ndarray:
    """Return the atoms of each element in each structure, elements ascending, (S, n_elements)."""
    ranks = np.empty(len(columns), dtype=np.int64)
    for rank, z in enumerate(sorted(columns)):
        ranks[columns[z]] = rank
    table = np.zeros((n_rows, len(columns)), dtype=np.int32)
    row, column, count = (np.frombuffer(values, dtype=np.int64) if values else np.zeros(0, int) for values in entries)
    table[row, ranks[column] if len(column) else column] = count
    return table
