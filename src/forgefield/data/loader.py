"""Batches in an order that depends only on the seed and the epoch."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, final

import numpy as np
import torch
from torch import Tensor

from forgefield.core.errors import DataError
from forgefield.data.dataset import Dataset
from forgefield.data.labels import Labels, join_labels
from forgefield.data.mixing import Mixture
from forgefield.data.sample_cache import Sample, SampleCache
from forgefield.graph.build import build_graph
from forgefield.graph.graph import Graph
from forgefield.graph.needs import Needs

AHEAD = 2  # batches prepared per worker before they are asked for
IN_A_ROW, FEW_PAIRS = 8, 200_000  # without workers: batches made at once, and their pairs, some 20 MiB


class Batch(NamedTuple):
    """What one step is computed from; labels are kept apart from the graph."""

    graph: Graph
    labels: Labels
    index: Tensor  # (S,), places in the data set


@final
class Loader:
    """Made by `make_loader`."""

    def __init__(
        self,
        cache: SampleCache,
        needs: Needs,
        *,
        batch_size: int,
        heads: Sequence[str],
        dtype: torch.dtype,
        device: torch.device | str,
        shuffle: bool,
        seed: int,
        drop_last: bool,
        num_workers: int,
        mixture: Mixture | None = None,
    ) -> None:
        self.mixture = mixture
        self.dataset, self.needs, self.batch_size = cache.dataset, needs, batch_size
        self.heads, self.dtype, self.device = tuple(heads), dtype, device
        self.shuffle, self.seed, self.drop_last, self.num_workers = shuffle, seed, drop_last, num_workers
        self._cache = cache

    def __len__(self) -> int:
        """Batches per epoch."""
        mixture = self.mixture
        n = len(self.dataset) if mixture is None else mixture.n_new + mixture.n_drawn
        whole, rest = divmod(n, self.batch_size)
        return whole + (1 if rest and not self.drop_last else 0)

    def order(self, epoch: int) -> np.ndarray:
        """Places in the data set in the order of an epoch, (n,)."""
        if self.mixture is not None:
            return self.mixture.order(epoch)
        if not self.shuffle:
            return np.arange(len(self.dataset))
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.dataset))

    def batches(self, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch, from batch number `start` on.

        With workers, batches are prepared ahead in threads; their contents and order are the same.
        """
        yield from self.prepared(self.places(epoch)[start:])

    def places(self, epoch: int = 0) -> list[np.ndarray]:
        """Places in the data set of the structures of each batch of an epoch, in their order."""
        order = self.order(epoch)
        return [order[b * self.batch_size : (b + 1) * self.batch_size] for b in range(len(self))]

    def prepared(self, chosen: Sequence[np.ndarray]) -> Iterator[Batch]:
        """Yield the batches of the structures at these places, prepared ahead if there are workers."""
        if self.num_workers == 0:
            yield from self._in_rows(chosen)
            return
        with ThreadPoolExecutor(self.num_workers, thread_name_prefix="batch") as pool:
            waiting: deque[Future[Batch]] = deque()
            following = iter(chosen)
            try:
                for places in following:
                    waiting.append(pool.submit(self.build, places))
                    if len(waiting) >= self.num_workers * AHEAD:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

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
        samples = [self.sample(int(i)) for i in places]
        structures = [s.structure for s in samples]
        pairs = [s.pairs for s in samples]
        graph = build_graph(structures, self.needs, heads=self.heads, dtype=self.dtype, device=self.device, pairs=pairs)
        labels = join_labels(structures, self.dtype, self.device)
        return Batch(graph, labels, torch.as_tensor(places, dtype=torch.int64))


def make_loader(
    dataset: Dataset,
    needs: Needs,
    *,
    batch_size: int,
    heads: Sequence[str] = ("default",),
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    shuffle: bool = False,
    seed: int = 0,
    drop_last: bool = False,
    num_workers: int = 0,
    cache_mb: float = 1024.0,
    mixture: Mixture | None = None,
) -> Loader:
    """Return a loader of batches.

    Args:
        dataset: what is loaded.
        needs: the graph that the model asks for.
        batch_size: structures per batch.
        heads: the model's heads.
        dtype: of the floating tensors (energies stay float64).
        device: where the tensors go.
        shuffle: draw a new order for each epoch; otherwise the data set's order.
        seed: of the orders.
        drop_last: leave out the last batch if it is not full.
        num_workers: threads that prepare batches ahead; 0 prepares them when asked for.
        cache_mb: memory for structures and their neighbour pairs, MiB.
        mixture: draws the structures of each epoch from old and new ones, in place of `shuffle`.

    Raises:
        DataError: there is not one batch.
    """
    if batch_size < 1:
        raise DataError(f"batch_size is {batch_size}", fix="use at least 1")
    loader = Loader(
        SampleCache(dataset, needs.cutoff, cache_mb),
        needs,
        batch_size=batch_size,
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
        why = f" with drop_last and batch_size {batch_size}" if len(dataset) else ""
        raise DataError(
            f"{len(dataset)} structures give no batch{why}", dataset.name or None, "give more data or a smaller batch"
        )
    return loader
