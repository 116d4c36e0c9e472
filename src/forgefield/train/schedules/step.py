"""Lower the learning rate at fixed intervals."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field

from forgefield.core.catalog import Entry
from forgefield.core.settings import Settings
from forgefield.train.schedule import Schedule


class StepSettings(Settings):
    """What the step schedule takes from the `train` block."""

    step_size: int = Field(description="epochs or cycles between reductions")
    gamma: float = Field(description="factor of each reduction")


class Step(Schedule):
    """Multiply the rates by `gamma` every `step_size` epochs or cycles."""

    needs_metric: ClassVar[bool] = False

    def __init__(self, optimizer: torch.optim.Optimizer, settings: StepSettings) -> None:
        super().__init__(optimizer)
        self.settings = settings
        self.count = 0

    def step(self, metric: float) -> None:
        """Count one epoch or cycle."""
        self.count += 1
        if self.count % self.settings.step_size == 0:
            self.scale_rates(self.settings.gamma)

    def state(self) -> dict[str, Any]:
        """Return the count."""
        return {"count": self.count}

    def load(self, state: dict[str, Any]) -> None:
        """Take back the count."""
        self.count = int(state["count"])


ENTRY = Entry(StepSettings, Step, "lower the rate every few epochs or cycles")
