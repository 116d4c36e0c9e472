"""Lower the learning rate at fixed intervals."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field

from forgefield.core.catalog import Entry
from forgefield.core.settings import Settings
from forgefield.train.schedule import Schedule, Span


class StepSettings(Settings):
    """What the step schedule takes from the `train` block."""

    step_size: int = Field(description="steps between reductions")
    gamma: float = Field(description="factor of each reduction")
    lr: float = Field(description="initial rate")
    min_lr: float = Field(description="rate below which it does not go")


class Step(Schedule):
    """Rate = max(lr x gamma^(t // step_size), min_lr) after t steps.

    Source:
        PyTorch's StepLR, with a floor.
    """

    needs_metric: ClassVar[bool] = False

    def __init__(self, optimizer: torch.optim.Optimizer, settings: StepSettings, span: Span | None = None) -> None:
        super().__init__(optimizer)
        self.settings = settings
        self.count = 0

    def step(self, metric: float) -> None:
        """Count one step."""
        self.count += 1
        if self.count % self.settings.step_size == 0:
            self.scale_rates(self.settings.gamma, lowest=self.settings.min_lr / self.settings.lr)

    def state(self) -> dict[str, Any]:
        """Return the count."""
        return {"count": self.count}

    def load(self, state: dict[str, Any]) -> None:
        """Take back the count."""
        self.count = int(state["count"])


ENTRY = Entry(StepSettings, Step, "lower the rate every few steps")
