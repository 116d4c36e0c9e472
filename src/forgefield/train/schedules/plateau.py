"""Lower the learning rate when the validation loss no longer falls."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field

from forgefield.core.catalog import Entry
from forgefield.core.settings import Settings
from forgefield.train.schedule import Schedule

THRESHOLD = 1e-4  # a fall by less than this fraction is none
LEAST_CHANGE = 1e-8  # rates are not changed by less than this


class PlateauSettings(Settings):
    """What the plateau schedule takes from the `train` block."""

    lr_factor: float = Field(description="factor of each reduction")
    plateau_patience: int = Field(description="validations without improvement that are borne")


class Plateau(Schedule):
    """Multiply the rates by `lr_factor` after more than `plateau_patience` validations without improvement.

    Source:
        The rule and constants of PyTorch's ReduceLROnPlateau, which mace-torch uses.
    """

    needs_metric: ClassVar[bool] = True

    def __init__(self, optimizer: torch.optim.Optimizer, settings: PlateauSettings) -> None:
        super().__init__(optimizer)
        self.settings = settings
        self.best: float | None = None
        self.bad = 0

    def step(self, metric: float) -> None:
        """Count a validation; lower the rates when patience has run out."""
        if self.best is None or metric < self.best * (1.0 - THRESHOLD):
            self.best, self.bad = metric, 0
        else:
            self.bad += 1
        if self.bad > self.settings.plateau_patience:
            self.scale_rates(self.settings.lr_factor, LEAST_CHANGE)
            self.bad = 0

    def state(self) -> dict[str, Any]:
        """Return the best loss and the count of bad validations."""
        return {"best": self.best, "bad": self.bad}

    def load(self, state: dict[str, Any]) -> None:
        """Take back the best loss and the count."""
        self.best, self.bad = state["best"], int(state["bad"])


ENTRY = Entry(PlateauSettings, Plateau, "lower the rate when the validation loss stalls")
