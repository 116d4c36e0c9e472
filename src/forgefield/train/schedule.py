"""What a learning rate schedule is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch


class Schedule(ABC):
    """Changes the learning rates of an optimizer; its state is plain numbers.

    `needs_metric` schedules step after each validation; the others at the end of each epoch or cycle
    (`train.scheduler_step_unit`).

    Args:
        optimizer: the optimizer it drives.
    """

    needs_metric: ClassVar[bool]

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer

    @abstractmethod
    def step(self, metric: float) -> None:
        """Take one step, given the last validation loss (ignored by schedules that need no metric)."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Return the numbers that must survive a restart."""

    @abstractmethod
    def load(self, state: dict[str, Any]) -> None:
        """Take back what `state` returned."""

    def scale_rates(self, factor: float, least_change: float = 0.0) -> None:
        """Multiply the rate of every group, unless it would change by no more than `least_change`."""
        for group in self.optimizer.param_groups:
            new = group["lr"] * factor
            if group["lr"] - new > least_change or least_change == 0.0:
                group["lr"] = new
