"""Batches in an order that depends only on the seed and the epoch."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Protocol, final

import numpy as np
import torch

from forgefield.core.errors import DataError
from forgefield.data.batching import (
    LOOKED_AHEAD,
    Batching,
    ByCount,
    Consecutive,
    Extents,
    Limits,
    Packed,
    check_extents,
)
from forgefield.data.builder import Batch, Builder
from forgefield.data.crew import Crew
from forgefield.data.dataset import Dataset
from forgefield.data.mixing import Mixture
from forgefield.data.sample_cache import Sample, SampleCache
from forgefield.graph.needs import Needs

IN_A_ROW, FEW_PAIRS = 8, 200_000  # without workers: batches made at once, and their pairs, some 20 MiB


class Draws(Protocol):
    """Which structures an epoch holds."""

    def order(self, epoch: int) -> np.ndarray:
        """Return places in the data set in the order of an epoch; every epoch has the same number of them."""
        ...


@final
class Loader:
    """Made by `make_loader`."""

    def __init__(
        self,
        cache: SampleCache,
        needs: Needs,
        *,
        limits: Limits,
        heads: Sequence[str],
        dtype: torch.dtype,
        device: torch.device | str,
        shuffle: bool,
        seed: int,
        drop_last: bool,
        num_workers: int,
        mixture: Draws | None = None,
    ) -> None:
        self.mixture, self.limits = mixture, limits
        self.dataset, self.needs = cache.dataset, needs
        self.heads, self.dtype, self.device = tuple(heads), dtype, device
        self.shuffle, self.seed, self.drop_last, self.num_workers = shuffle, seed, drop_last, num_workers
        self._cache = cache
        self._builder = Builder(cache, needs, heads, dtype)
        self._crew: Crew | None = None
        self.batching = self._batching()
        self._divided: tuple[int, list[np.ndarray]] | None = None

    def __len__(self) -> int:
        """Batches per epoch, the same for all epochs."""
        return self.batching.count

    def _batching(self) -> Batching:
        limits = self.limits
        if limits.plain or len(self.dataset) == 0:
            return ByCount(len(self.order(0)), limits.structures or 1, drop_last=self.drop_last)
        edges = None if limits.edges is None else self._cache.edges()
        extents = Extents(self._cache.atoms(), edges, levels_of(self.dataset) if limits.same_fidelity else None)
        check_extents(self.dataset, limits, extents)
        if self.mixture is None and not self.shuffle:
            return Consecutive(limits, extents)
        varying = LOOKED_AHEAD if self.mixture is not None else 1
        new = self.mixture.n_new if isinstance(self.mixture, Mixture) else None
        kept = None if new is None else np.arange(len(self.dataset)) < new
        return Packed(limits, extents, [self.order(epoch) for epoch in range(varying)], self.seed, kept)

    def order(self, epoch: int) -> np.ndarray:
        """Places in the data set in the order of an epoch, (n,)."""
        if self.mixture is not None:
            return self.mixture.order(epoch)
        if not self.shuffle:
            return np.arange(len(self.dataset))
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.dataset))

    def batches(self, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch, from batch number `start` on.

        With workers, batches are built ahead in other processes; their contents and order are the same.
        """
        yield from self.prepared(self.places(epoch)[start:])

    def places(self, epoch: int = 0) -> list[np.ndarray]:
        """Places in the data set of the structures of each batch of an epoch, in their order."""
        if self._divided is None or self._divided[0] != epoch:
            self._divided = epoch, self.batching.divide(self.order(epoch), epoch)
        return self._divided[1]

    def prepared(self, chosen: Sequence[np.ndarray]) -> Iterator[Batch]:
        """Yield the batches of the structures at these places, prepared ahead if there are workers."""
        if self.num_workers == 0 or len(chosen) < 2 or (self._crew is not None and self._crew.busy):
            yield from self._in_rows(chosen)
            return
        if self._crew is None or not self._crew.running:
            self._crew = Crew(self._builder.shared(self.num_workers), self.num_workers)
        for batch in self._crew.batches(chosen):
            yield batch.to(self.device)

    def close(self) -> None:
        """End the processes of the workers; they are started again when they are needed."""
        if self._crew is not None:
            self._crew.stop()

    def _in_rows(self, chosen: Sequence[np.ndarray]) -> Iterator[Batch]:
        """Yield batches, several small ones made in a row: between two steps of a model each would cost twice that."""
        ready: deque[Batch] = deque()
        pairs = 0
        for places in chosen:
            ready.append(self.build(places))
            pairs += ready[-1].graph.pair_first.shape[0]
            if len(ready) == IN_A_ROW or pairs > FEW_PAIRS:
                while ready:
                    yield ready.popleft()
                pairs = 0
        yield from ready

    def table_size(self, place: int) -> tuple[int, int]:
        """Return atoms and the largest number of neighbours of the structure at a place."""
        structure, pairs = self._cache.get(place)
        degree = np.bincount(np.concatenate([pairs.first, pairs.second]), minlength=1)
        return len(structure), int(degree.max())

    def sample(self, place: int) -> Sample:
        """Return the structure at a place and its pairs, which are kept while there is room."""
        return self._cache.get(place)

    def build(self, places: np.ndarray) -> Batch:
        """Return the batch of the structures at these places, (S,)."""
        return self._builder.build(places, self.device)


def levels_of(dataset: Dataset) -> np.ndarray:
    """Number of the fidelity of each structure, (n,)."""
    survey = dataset.survey
    names = {kind.head: k for k, kind in reversed(list(enumerate(survey.kinds)))}
    return np.array([names[kind.head] for kind in survey.kinds], dtype=np.int64)[survey.kind]


def make_loader(
    dataset: Dataset,
    needs: Needs,
    *,
    batch_size: int | None = None,
    limits: Limits | None = None,
    heads: Sequence[str] = ("default",),
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    shuffle: bool = False,
    seed: int = 0,
    drop_last: bool = False,
    num_workers: int = 0,
    cache_mb: float = 1024.0,
    mixture: Draws | None = None,
) -> Loader:
    """Return a loader of batches.

    Args:
        dataset: what is loaded.
        needs: the graph that the model asks for.
        batch_size: structures per batch; the same as `limits` of nothing else.
        limits: what no batch may exceed. Batches are then filled evenly; in the order of the data without `shuffle`.
        heads: the model's heads.
        dtype: of the floating tensors (energies stay float64).
        device: where the tensors go.
        shuffle: draw a new order for each epoch; otherwise the data set's order.
        seed: of the orders.
        drop_last: leave out the last batch if it is not full; only where nothing but structures is limited.
        num_workers: processes that build batches ahead; 0 builds them here when they are asked for.
        cache_mb: memory for structures and their neighbour pairs, MiB; workers share as much again.
        mixture: draws the structures of each epoch (replay, weighted sources), in place of `shuffle`.

    Raises:
        DataError: there is not one batch, or a structure is larger than the limits.
    """
    limits = limits or Limits(batch_size)
    if limits.plain and (limits.structures or 0) < 1:
        raise DataError(f"batch_size is {limits.structures}", fix="use at least 1")
    loader = Loader(
        SampleCache(dataset, needs, cache_mb),
        needs,
        limits=limits,
        heads=heads,
        dtype=dtype,
        device=device,
        shuffle=shuffle,
        seed=seed,
        drop_last=drop_last,
        num_workers=num_workers,
        mixture=mixture,
    )
    if len(loader) == 0:
        why = f" with drop_last and batch_size {limits.structures}" if len(dataset) else ""
        raise DataError(
            f"{len(dataset)} structures give no batch{why}", dataset.name or None, "give more data or a smaller batch"
        )
    return loader
