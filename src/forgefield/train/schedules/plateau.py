"""Lower the learning rate when the validation loss no longer falls."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field

from forgefield.core.catalog import Entry
from forgefield.core.settings import Settings
from forgefield.train.schedule import Schedule, Span

THRESHOLD = 1e-4  # a fall by less than this fraction is none
LEAST_CHANGE = 1e-8  # without a floor, rates are not changed by less than this


class PlateauSettings(Settings):
    """What the plateau schedule takes from the `train` block."""

    lr_factor: float = Field(description="factor of each reduction")
    plateau_patience: int = Field(description="validations without improvement that are borne")
    lr: float = Field(description="initial rate")
    min_lr: float = Field(description="rate at which the fit ends when patience runs out once more")


class Plateau(Schedule):
    """Multiply the rates by `lr_factor` after more than `plateau_patience` validations without improvement.

    No rate falls below `min_lr` (of groups with another first rate: in proportion); when patience runs out there, the
    schedule is exhausted.

    Source:
        The rule and constants of PyTorch's ReduceLROnPlateau, which mace-torch uses.
    """

    needs_metric: ClassVar[bool] = True

    def __init__(self, optimizer: torch.optim.Optimizer, settings: PlateauSettings, span: Span | None = None) -> None:
        super().__init__(optimizer)
        self.settings = settings
        self.best: float | None = None
        self.bad = 0
        self.at_end = False

    @property
    def exhausted(self) -> bool:
        """Whether patience has run out at the lowest rate."""
        return self.at_end

    def step(self, metric: float) -> None:
        """Count a validation; lower the rates when patience has run out."""
        if self.best is None or metric < self.best * (1.0 - THRESHOLD):
            self.best, self.bad = metric, 0
        else:
            self.bad += 1
        if self.bad > self.settings.plateau_patience:
            lowest = self.settings.min_lr / self.settings.lr
            self.at_end = lowest > 0.0 and self.rates[0] <= lowest * self.first_rates[0]
            least = LEAST_CHANGE if lowest == 0.0 else 0.0
            self.scale_rates(self.settings.lr_factor, least_change=least, lowest=lowest)
            self.bad = 0

    def state(self) -> dict[str, Any]:
        """Return the best loss and the count of bad validations."""
        return {"best": self.best, "bad": self.bad, "at_end": self.at_end}

    def load(self, state: dict[str, Any]) -> None:
        """Take back the best loss and the count."""
        self.best, self.bad = state["best"], int(state["bad"])
        self.at_end = bool(state.get("at_end", False))


ENTRY = Entry(PlateauSettings, Plateau, "lower the rate when the validation loss stalls")
