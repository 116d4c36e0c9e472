"""Structures and their neighbour pairs, found once and kept while there is room."""

from __future__ import annotations

import copy
import threading
from typing import Any, NamedTuple

import numpy as np

from forgefield.core.structure import Structure
from forgefield.data.dataset import Dataset
from forgefield.graph.needs import Needs
from forgefield.graph.pieces import Piece, find_piece

BYTES_PER_MB = 2**20


class Sample(NamedTuple):
    """A structure and its pairs."""

    structure: Structure
    pairs: Piece

    @property
    def n_bytes(self) -> int:
        """Memory of the arrays."""
        s = self.structure
        arrays = (s.numbers, s.positions, s.cell, *s.labels.values(), *s.base.values())
        return sum(np.asarray(a).nbytes for a in arrays) + self.pairs.n_bytes


class SampleCache:
    """Samples of one data set by place; safe to use from several threads.

    When full it keeps what it has: each epoch passes over all structures, so the first are as good as the last.

    Args:
        dataset: where structures come from.
        needs: which pairs are found.
        limit_mb: memory for the arrays, MiB.
    """

    def __init__(self, dataset: Dataset, needs: Needs, limit_mb: float = 1024.0) -> None:
        self.dataset, self.needs = dataset, needs
        self._limit = self._room = limit_mb * BYTES_PER_MB
        self._kept: dict[int, Sample] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": {}, "_lock": None, "_room": self._limit}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    def shared(self, count: int) -> SampleCache:
        """Return one of so many empty caches that have the memory of this one together."""
        other = copy.copy(self)
        other._limit = other._room = self._limit / count
        return other

    def atoms(self) -> np.ndarray:
        """Return the number of atoms of every structure, (n,)."""
        return self.dataset.survey.n_atoms.astype(np.int64)

    def edges(self) -> np.ndarray:
        """Return the number of directed edges of every structure, (n,); their pairs are kept while there is room."""
        return np.array([2 * len(self.get(k).pairs.first) for k in range(len(self.dataset))])

    def get(self, index: int) -> Sample:
        """Return the structure at this place and its pairs."""
        kept = self._kept.get(index)
        if kept is not None:
            return kept
        structure = self.dataset[index]
        sample = Sample(structure, find_piece(structure, self.needs))
        with self._lock:
            if index not in self._kept and sample.n_bytes <= self._room:
                self._room -= sample.n_bytes
                self._kept[index] = sample
        return sample
