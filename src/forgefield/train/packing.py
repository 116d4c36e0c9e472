"""Batches as large as measured memory and speed allow."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch

from forgefield.core.errors import DeviceError
from forgefield.train.memory import Meter, meter_of, ran_out

if TYPE_CHECKING:
    from forgefield.data.loader import Batch, Loader

T = TypeVar("T")
FALLBACK = 32  # structures per batch where the system does not tell its free memory
GAIN = 0.97  # a larger batch must take less than this share of the time per slot, or growing ends
PATIENCE = 2  # doublings without a gain before growing ends
MIB = 2**20


@dataclass
class Growth:
    """How large a batch may be, in atoms times slots of the widest neighbour table, and what was learned about it.

    Args:
        budget: memory that a batch may take, bytes.
        limit: size allowed now.
        estimate: size that takes the budget, from the last batch measured.
        ceiling: half of a size that ran out of memory.
        best: size of the fastest batches so far.
        best_rate: their time per unit of size, s.
        losses: doublings since then that brought nothing.
        grows: whether larger batches are still tried.
    """

    budget: float
    limit: int = 1
    estimate: float = np.inf
    ceiling: float = np.inf
    best: int = 1
    best_rate: float = np.inf
    losses: int = 0
    grows: bool = True

    @property
    def most(self) -> float:
        """Largest size allowed now."""
        return min(self.limit, self.estimate, self.ceiling)

    def learn(self, size: int, seconds: float, taken: int) -> None:
        """Take in the time and the memory of one batch of about the size allowed."""
        if taken > 0:
            self.estimate = self.budget / taken * size
        if not self.grows:
            return
        if seconds / size < GAIN * self.best_rate:
            self.best, self.best_rate, self.losses = self.limit, seconds / size, 0
        else:
            self.losses += 1
        room = 2 * self.limit <= min(self.estimate, self.ceiling)
        self.grows = self.losses < PATIENCE and room
        self.limit = 2 * self.limit if self.grows else self.best

    def shrink(self, size: int) -> None:
        """A batch of this size ran out of memory: allow half of it from now on."""
        self.ceiling, self.limit, self.grows = size / 2, max(1, size // 2), False


class Packer:
    """Runs a computation over all structures of a loader, in its order, in batches it sizes itself.

    It starts with one structure and doubles the batch while that makes the work faster per neighbour and the next
    doubling stays within a share of the free memory, as measured on the batches before. Where memory runs out all the
    same, the batch is halved and repeated.

    Args:
        loader: the structures.
        share: of the free memory that a batch may take, 0 to 1.
        meter: of the memory; None takes that of the loader's device.
    """

    def __init__(self, loader: Loader, share: float, meter: Meter | None = None) -> None:
        self.loader, self.share = loader, share
        self.meter = meter or meter_of(torch.device(loader.device))
        self.free = self.meter.free()
        self.growth = Growth(share * (self.free or 0))
        self.most = FALLBACK if self.free is None else len(loader.dataset)
        self.largest, self.batches = 0, 0
        self.notes: list[str] = []

    def run(self, compute: Callable[[Batch], T]) -> Iterator[T]:
        """Yield what `compute` makes of each batch.

        Raises:
            DeviceError: one structure alone does not fit into memory.
        """
        order, done = self.loader.order(0), 0
        while done < len(order):
            n, size = self._take(order, done)
            result = self._attempt(order[done : done + n], size, compute)
            if result is not None:
                done, self.batches, self.largest = done + n, self.batches + 1, max(self.largest, n)
                yield result
        self.notes.append(self._summary())

    def _take(self, order: np.ndarray, done: int) -> tuple[int, int]:
        """Return how many structures the next batch holds, at least one, and its size."""
        atoms = widest = size = n = 0
        for place in order[done : done + self.most].tolist():
            n_atoms, width = self.loader.table_size(place)
            atoms, widest = atoms + n_atoms, max(widest, width)
            larger = atoms * (widest + 1)
            if n and self.free is not None and larger > self.growth.most:
                break
            n, size = n + 1, larger
        return n, size

    def _attempt(self, places: np.ndarray, size: int, compute: Callable[[Batch], T]) -> T | None:
        """Compute one batch and learn from it; None if memory ran out and it must be made smaller."""
        self.meter.start()
        began = time.perf_counter()
        try:
            result = compute(self.loader.build(places))
        except (RuntimeError, MemoryError) as error:
            if not ran_out(error):
                raise
            problem = str(error).splitlines()[0]
        else:
            self._learn(size, time.perf_counter() - began)
            return result
        self.meter.clear()  # outside the handler, whose traceback holds the tensors
        self._halve(places, size, problem)
        return None

    def _learn(self, size: int, seconds: float) -> None:
        if self.free is None:
            return
        if self.batches == 0:  # the first is slow whatever its size
            self.growth.limit = self.growth.best = size
        elif 2 * size > self.growth.limit:
            self.growth.learn(size, seconds, self.meter.taken())

    def _halve(self, places: np.ndarray, size: int, problem: str) -> None:
        if len(places) == 1:
            structure = self.loader.dataset[int(places[0])]
            what = f"a structure of {len(structure)} atoms alone does not fit into memory ({problem})"
            raise DeviceError(what, structure.origin, "use a device with more memory, or a smaller model")
        self.most = len(places) // 2
        self.growth.shrink(size)
        self.notes.append(f"a batch of {len(places)} structures ran out of memory; went on with half of it")

    def _summary(self) -> str:
        """Return what was chosen, in one sentence."""
        batches = f"{self.batches} batches of up to {self.largest} structures"
        if self.free is None:
            return f"{batches}: the system does not tell its free memory"
        allowed, free = (round(x / MIB) for x in (self.growth.budget, self.free))
        return f"{batches}, chosen by measured speed within {allowed:,} MiB ({self.share:.0%} of {free:,} MiB free)"
