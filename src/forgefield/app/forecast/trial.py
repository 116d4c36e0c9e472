"""Carrying out a few updates and a part of the validation, and reading clock and memory at each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from forgefield.app.forecast.choice import Kind, Trial
from forgefield.app.forecast.gauge import Gauge
from forgefield.core.errors import DeviceError
from forgefield.data.loader import Loader
from forgefield.data.sizes import BatchSize, Sizes
from forgefield.train.loss import WeightedLoss
from forgefield.train.state import TrainState
from forgefield.train.step import take_update

_CAUTION = 1.25  # a probe is left out if so many times its expected memory does not fit


@dataclass(frozen=True)
class Step:
    """One update as it was carried out.

    Args:
        kind: why it was carried out.
        sizes: of its batches.
        seconds: on the wall, the preparation of its batches included.
        cpu_seconds: of computing time of all threads of this process.
        peak: most memory used up to its end, bytes.
    """

    kind: Kind
    sizes: tuple[BatchSize, ...]
    seconds: float
    cpu_seconds: float
    peak: int

    @property
    def slots(self) -> int:
        """Neighbour table of the largest batch."""
        return max(size.slots for size in self.sizes)


class Rehearsal:
    """Carries out updates with the loader, the loss and the optimizer of the fit.

    Args:
        state: what moves; it is thrown away afterwards.
        loader: training batches.
        sizes: of the structures of the loader.
        losses: what is minimised.
        max_grad_norm: as in the settings.
        gauge: clock and memory.
    """

    def __init__(
        self,
        state: TrainState,
        loader: Loader,
        sizes: Sizes,
        losses: WeightedLoss,
        max_grad_norm: float | None,
        gauge: Gauge,
    ) -> None:
        self.state, self.loader, self.sizes, self.gauge = state, loader, sizes, gauge
        self.losses, self.max_grad_norm = losses, max_grad_norm
        self.before = gauge.used()
        self.steps: list[Step] = []

    def carry_out(self, trials: Sequence[Trial]) -> None:
        """Carry out updates one after the other; probes that may not fit into memory are left out.

        Raises:
            ForgeError: loss or gradient is not a number, or a batch of the training does not fit into memory.
        """
        trials = [trial for trial in trials if self._fits(trial)]
        batches = self.loader.prepared([places for trial in trials for places in trial.places])
        start = self.gauge.now()
        for trial in trials:
            try:
                update = [next(batches) for _ in trial.places]
                take_update(self.state, update, self.losses, max_grad_norm=self.max_grad_norm)
            except (torch.cuda.OutOfMemoryError, MemoryError) as error:
                largest = max((self.sizes.of(places) for places in trial.places), key=lambda size: size.slots)
                raise self._too_large(largest, 0.5) from error
            end = self.gauge.now()
            sizes = tuple(self.sizes.of(places) for places in trial.places)
            wall, cpu = end.wall - start.wall, end.cpu - start.cpu
            self.steps.append(Step(trial.kind, sizes, wall, cpu, self.gauge.peak()))
            start = end

    def memory_of(self, size: BatchSize) -> float:
        """Return the peak memory that a batch of this size would need, bytes: in proportion, from the largest done."""
        largest = max(self.steps, key=lambda step: step.slots)
        return self.before + (largest.peak - self.before) * size.slots / largest.slots

    def _fits(self, trial: Trial) -> bool:
        """Say whether the largest batch of a trial has room, as far as the trials before it tell.

        Raises:
            DeviceError: it has not, and it is one that training will meet.
        """
        limit = self.gauge.limit()
        if not self.steps or limit is None:
            return True
        largest = max((self.sizes.of(places) for places in trial.places), key=lambda size: size.slots)
        needed = self.memory_of(largest)
        if trial.kind == "probe":
            return _CAUTION * needed < limit
        if needed > limit:
            share = max(0.0, limit - self.before) / max(1.0, needed - self.before)
            raise self._too_large(largest, share)
        return True

    def _too_large(self, size: BatchSize, share: float) -> DeviceError:
        """Return the complaint, and the setting with which a batch of this share of the size would be made."""
        limits, count, key = self.loader.limits, size.structures, "batch_size"
        what = f"a batch of {count} structures does not fit into the memory of {self.gauge.device}"
        if limits.edges is not None:
            count, key = size.edges, "max_edges"
        elif limits.atoms is not None:
            count, key = size.atoms, "max_atoms"
        return DeviceError(what, f"train.{key}", f"try {max(1, int(count * share))}, or a smaller model")


def largest_batches(places: Sequence[np.ndarray], sizes: Sizes, count: int) -> np.ndarray:
    """Return the structures of the batches of most edges, the largest first, (n,)."""
    ranked = sorted(places, key=lambda chosen: int(sizes.edges[chosen].sum()), reverse=True)
    return np.concatenate(ranked[:count])
