"""Raise the learning rate and lower it further, once."""

from __future__ import annotations

import torch
from pydantic import Field

from forgefield.core.catalog import Entry
from forgefield.core.settings import Settings
from forgefield.train.schedule import Span, Stretch
from forgefield.train.schedules.cosine import half_wave


class OneCycleSettings(Settings):
    """What the one-cycle schedule takes from the `train` block."""

    T_max: float | None = Field(description="epochs until the end")
    pct_start: float = Field(description="share of the rise")
    div_factor: float = Field(description="highest rate over the first")
    final_div_factor: float = Field(description="first rate over the last")


class OneCycle(Stretch):
    """Along half cosines from lr / div_factor up to lr, and down to lr / div_factor / final_div_factor.

    The top is at pct_start x T - 1 steps and the end at T - 1, where T is T_max in steps: the run has rates of 0 to
    T - 1 steps. Momentum and betas stay as they are.

    Source:
        Smith and Topin, arXiv:1708.07120; PyTorch's OneCycleLR.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, settings: OneCycleSettings, span: Span | None = None) -> None:
        super().__init__(optimizer, settings.T_max, span)
        self.top = settings.pct_start * self.length - 1.0
        self.first = 1.0 / settings.div_factor
        self.last = self.first / settings.final_div_factor
        self.set_rates(self.fraction(0))

    def fraction(self, count: int) -> float:
        """Return the rate after so many steps, as a multiple of the highest rate."""
        if count <= self.top:
            return 1.0 - half_wave(0.0, count / self.top) * (1.0 - self.first) if self.top > 0 else 1.0
        begun = max(self.top, 0.0)
        fall = self.length - 1.0 - begun
        return half_wave(self.last, min((count - begun) / fall, 1.0)) if fall > 0 else self.last


ENTRY = Entry(OneCycleSettings, OneCycle, "raise the rate to lr and lower it further")
