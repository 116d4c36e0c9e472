"""Lower the learning rate along half a wave of the cosine."""

from __future__ import annotations

import math

import torch
from pydantic import Field

from forgefield.core.catalog import Entry
from forgefield.core.settings import Settings
from forgefield.train.schedule import Span, Stretch


class CosineSettings(Settings):
    """What the cosine schedule takes from the `train` block."""

    lr: float = Field(description="initial rate")
    T_max: float | None = Field(description="epochs until the end")
    min_lr: float = Field(description="rate at the end")


class Cosine(Stretch):
    """Rate = min_lr + (lr - min_lr) (1 + cos(pi t / T)) / 2 after t steps, and min_lr after T, T_max in steps.

    Source:
        Loshchilov and Hutter, ICLR 2017. As PyTorch's CosineAnnealingLR up to T; that rises again afterwards.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, settings: CosineSettings, span: Span | None = None) -> None:
        super().__init__(optimizer, settings.T_max, span)
        self.lowest = settings.min_lr / settings.lr

    def fraction(self, count: int) -> float:
        """Return the rate after so many steps, as a multiple of the first rate."""
        return half_wave(self.lowest, min(count / self.length, 1.0))


def half_wave(lowest: float, share: float) -> float:
    """Go from 1 at share 0 to `lowest` at share 1 along a cosine."""
    return lowest + (1.0 - lowest) * (1.0 + math.cos(math.pi * share)) / 2.0


ENTRY = Entry(CosineSettings, Cosine, "lower the rate along a cosine")
