"""Lower the learning rate by one factor at each step."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field

from forgefield.core.catalog import Entry
from forgefield.core.settings import Settings
from forgefield.train.schedule import Schedule, Span


class ExponentialSettings(Settings):
    """What the exponential schedule takes from the `train` block."""

    lr: float = Field(description="initial rate")
    gamma: float = Field(description="factor of each reduction")
    min_lr: float = Field(description="rate below which it does not go")


class Exponential(Schedule):
    """Rate = max(lr x gamma^t, min_lr) after t steps.

    Source:
        PyTorch's ExponentialLR, with a floor.
    """

    needs_metric: ClassVar[bool] = False

    def __init__(
        self, optimizer: torch.optim.Optimizer, settings: ExponentialSettings, span: Span | None = None
    ) -> None:
        super().__init__(optimizer)
        self.settings = settings

    def step(self, metric: float) -> None:
        """Lower the rates."""
        self.scale_rates(self.settings.gamma, lowest=self.settings.min_lr / self.settings.lr)

    def state(self) -> dict[str, Any]:
        """Return nothing: the rates tell all."""
        return {}

    def load(self, state: dict[str, Any]) -> None:
        """Take nothing back."""


ENTRY = Entry(ExponentialSettings, Exponential, "lower the rate by one factor at each step")
