"""Lower the learning rate along a straight line."""

from __future__ import annotations

import torch
from pydantic import Field

from forgefield.core.catalog import Entry
from forgefield.core.settings import Settings
from forgefield.train.schedule import Span, Stretch


class LinearSettings(Settings):
    """What the linear schedule takes from the `train` block."""

    lr: float = Field(description="initial rate")
    T_max: float | None = Field(description="epochs until the end")
    min_lr: float = Field(description="rate at the end")


class Linear(Stretch):
    """Rate = lr + (min_lr - lr) x min(t, T) / T after t steps, where T is T_max in steps.

    Source:
        PyTorch's LinearLR, with a start factor of 1 and an end factor of min_lr / lr.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, settings: LinearSettings, span: Span | None = None) -> None:
        super().__init__(optimizer, settings.T_max, span)
        self.lowest = settings.min_lr / settings.lr

    def fraction(self, count: int) -> float:
        """Return the rate after so many steps, as a multiple of the first rate."""
        return 1.0 + (self.lowest - 1.0) * min(count / self.length, 1.0)


ENTRY = Entry(LinearSettings, Linear, "lower the rate along a straight line")
