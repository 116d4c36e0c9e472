"""How large the batches of a loader are, known without a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from forgefield.data.loader import Loader

MOST_BATCHES = 20_000  # batches looked at: epochs beyond them are like the ones before


class Sizes(NamedTuple):
    """Sizes of the structures of a data set, by place."""

    atoms: np.ndarray  # (n,)
    edges: np.ndarray  # (n,), directed: two for each pair
    width: np.ndarray  # (n,), most neighbours of an atom

    def of(self, places: np.ndarray) -> BatchSize:
        """Return the size of the batch of the structures at these places."""
        atoms = int(self.atoms[places].sum())
        width = int(self.width[places].max(initial=0))
        return BatchSize(len(places), atoms, int(self.edges[places].sum()), atoms * width)


class BatchSize(NamedTuple):
    """Size of one batch, or of several taken together."""

    structures: int
    atoms: int
    edges: int
    slots: int  # of the neighbour table, padding included


class Planned(NamedTuple):
    """A batch that training will meet."""

    epoch: int
    places: np.ndarray  # (S,)
    size: BatchSize


def measure_sizes(loader: Loader) -> Sizes:
    """Find the pairs of every structure, as the first epoch would; the loader keeps them while there is room."""
    rows = np.zeros((3, len(loader.dataset)), dtype=np.int64)
    for place in range(rows.shape[1]):
        structure, pairs = loader.sample(place)
        degrees = np.bincount(np.concatenate([pairs.first, pairs.second]).astype(np.int64), minlength=1)
        rows[:, place] = len(structure), 2 * len(pairs.first), degrees.max()
    return Sizes(*rows)


def plan_batches(loader: Loader, sizes: Sizes, epochs: int) -> list[list[Planned]]:
    """Return the batches of the first epochs, up to `epochs` of them and `MOST_BATCHES` batches, by epoch."""
    found: list[list[Planned]] = []
    for epoch in range(min(epochs, max(1, MOST_BATCHES // len(loader)))):
        found.append([Planned(epoch, places, sizes.of(places)) for places in loader.places(epoch)])
    return found


def total(sizes: Sequence[BatchSize]) -> BatchSize:
    """Return the size of batches taken together."""
    return BatchSize(*(sum(column) for column in zip(*sizes, strict=True)))
