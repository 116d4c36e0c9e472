"""From places in a data set to a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, final

import numpy as np
import torch
from torch import Tensor

from forgefield.core.errors import DataError, ForgeError
from forgefield.data.labels import Labels, join_labels
from forgefield.data.sample_cache import SampleCache
from forgefield.graph.build import build_graph
from forgefield.graph.graph import Graph
from forgefield.graph.needs import Needs


class Batch(NamedTuple):
    """What one step is computed from; labels are kept apart from the graph."""

    graph: Graph
    labels: Labels
    index: Tensor  # (S,), places in the data set

    def to(self, device: torch.device | str) -> Batch:
        """Copy to a device; the index stays where it is."""
        return Batch(self.graph.to(device), self.labels.to(device), self.index)


@final
class Builder:
    """Builds batches; it can be sent to another process, which then keeps samples of its own.

    Args:
        cache: of the data set.
        needs: the graph that the model asks for.
        heads: the model's heads.
        dtype: of the floating tensors (energies stay float64).
    """

    def __init__(self, cache: SampleCache, needs: Needs, heads: Sequence[str], dtype: torch.dtype) -> None:
        self.cache, self.needs, self.heads, self.dtype = cache, needs, tuple(heads), dtype

    def build(self, places: np.ndarray, device: torch.device | str = "cpu") -> Batch:
        """Return the batch of the structures at these places, (S,)."""
        samples = [self.cache.get(int(i)) for i in places]
        structures = [s.structure for s in samples]
        pairs = [s.pairs for s in samples]
        graph = build_graph(structures, self.needs, heads=self.heads, dtype=self.dtype, device=device, pairs=pairs)
        labels = join_labels(structures, self.dtype, device)
        return Batch(graph, labels, torch.as_tensor(places, dtype=torch.int64))

    def shared(self, count: int) -> Builder:
        """Return one of so many that share the memory of this one's samples; it begins with none."""
        return Builder(self.cache.shared(count), self.needs, self.heads, self.dtype)

    def explain(self, places: np.ndarray, error: Exception) -> ForgeError:
        """Return what to say of an error met while this batch was built: the structure that causes it, if one does."""
        if isinstance(error, ForgeError):
            return error
        for place in places.tolist():
            try:
                self.build(np.array([place]))
            except Exception as found:
                where = f"{self.cache.dataset.name}: structure {place}"
                return DataError(f"cannot be made a graph of ({type(found).__name__}: {found})", where)
        return DataError(
            f"structures {places.tolist()} cannot be made a batch of ({type(error).__name__}: {error})",
            self.cache.dataset.name,
        )
