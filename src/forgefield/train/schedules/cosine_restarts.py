"""Lower the learning rate along a cosine, again and again."""

from __future__ import annotations

import torch
from pydantic import Field

from forgefield.core.catalog import Entry
from forgefield.core.settings import Settings
from forgefield.train.schedule import Curve, Span
from forgefield.train.schedules.cosine import half_wave


class CosineRestartsSettings(Settings):
    """What the schedule takes from the `train` block."""

    lr: float = Field(description="initial rate, and that after each restart")
    T_0: float = Field(description="epochs until the first restart")
    T_mult: int = Field(description="factor of each period")
    min_lr: float = Field(description="rate at the end of each period")


class CosineRestarts(Curve):
    """Rate = min_lr + (lr - min_lr) (1 + cos(pi u / T_i)) / 2, u steps after the last restart, T_i = T_0 x T_mult^i.

    Source:
        Loshchilov and Hutter, ICLR 2017; PyTorch's CosineAnnealingWarmRestarts.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, settings: CosineRestartsSettings, span: Span | None = None
    ) -> None:
        super().__init__(optimizer)
        self.period = settings.T_0 * (span or Span()).per_epoch
        self.growth = settings.T_mult
        self.lowest = settings.min_lr / settings.lr

    def fraction(self, count: int) -> float:
        """Return the rate after so many steps, as a multiple of the first rate."""
        if self.growth == 1:
            return half_wave(self.lowest, count % self.period / self.period)
        begun, period = 0.0, self.period
        while count >= begun + period:
            begun, period = begun + period, period * self.growth
        return half_wave(self.lowest, (count - begun) / period)


ENTRY = Entry(CosineRestartsSettings, CosineRestarts, "lower the rate along a cosine, with restarts")
