"""What a learning rate schedule is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from forgefield.core.errors import ConfigError


@dataclass(frozen=True)
class Span:
    """How long a fit is, counted in steps of its schedule.

    Args:
        per_epoch: steps in an epoch.
        total: steps in the whole fit, as its settings plan it.
    """

    per_epoch: float = 1.0
    total: float = 1.0


class Schedule(ABC):
    """Changes the learning rates of an optimizer; its state is plain numbers.

    `needs_metric` schedules step after each validation; the others as often as `train.scheduler_step_unit` says. The
    rates of all groups are changed by one factor, so their ratios stay. `rates.LearningRates` keeps `rates` over
    restarts and lays the warm-up over them.

    Args:
        optimizer: the optimizer it drives, with the initial rates of its groups.
    """

    needs_metric: ClassVar[bool]

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        self.first_rates = [float(group["lr"]) for group in optimizer.param_groups]
        self.rates = list(self.first_rates)

    @property
    def exhausted(self) -> bool:
        """Whether the fit should end, because the rate is at its floor and no longer helps."""
        return False

    @abstractmethod
    def step(self, metric: float) -> None:
        """Take one step, given the last validation loss (ignored by schedules that need no metric)."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Return the numbers that must survive a restart, beside `rates`."""

    @abstractmethod
    def load(self, state: dict[str, Any]) -> None:
        """Take back what `state` returned."""

    def scale_rates(self, factor: float, *, least_change: float = 0.0, lowest: float = 0.0) -> None:
        """Multiply the rate of every group, unless that of the first would change by no more than `least_change`.

        Args:
            factor: of all rates.
            least_change: in units of the rate.
            lowest: share of its first rate below which no rate goes.
        """
        new = [max(rate * factor, lowest * first) for rate, first in zip(self.rates, self.first_rates, strict=True)]
        if self.rates[0] - new[0] > least_change or least_change == 0.0:
            self.rates = new
        self._write()

    def set_rates(self, fraction: float) -> None:
        """Set the rate of every group to this multiple of its first one."""
        self.rates = [fraction * rate for rate in self.first_rates]
        self._write()

    def _write(self) -> None:
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate


class Curve(Schedule):
    """A schedule whose rate is a formula of the number of steps taken."""

    needs_metric: ClassVar[bool] = False

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        super().__init__(optimizer)
        self.count = 0

    @abstractmethod
    def fraction(self, count: int) -> float:
        """Return the rate after so many steps, as a multiple of the first rate."""

    def step(self, metric: float) -> None:
        """Count one step."""
        self.count += 1
        self.set_rates(self.fraction(self.count))

    def state(self) -> dict[str, Any]:
        """Return the count."""
        return {"count": self.count}

    def load(self, state: dict[str, Any]) -> None:
        """Take back the count."""
        self.count = int(state["count"])


class Stretch(Curve):
    """A curve that ends `T_max` epochs after the beginning, or with the run.

    Args:
        optimizer: the optimizer it drives.
        T_max: epochs until the end; None = those of the run.
        span: how many steps an epoch and the run have.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, T_max: float | None, span: Span | None) -> None:
        super().__init__(optimizer)
        span = span or Span()
        self.spans_run = T_max is None
        self.length = span.total if T_max is None else T_max * span.per_epoch

    def state(self) -> dict[str, Any]:
        """Return the count, and the length if it is that of the run."""
        return super().state() | ({"length": self.length} if self.spans_run else {})

    def load(self, state: dict[str, Any]) -> None:
        """Take back the count.

        Raises:
            ConfigError: the curve spans the whole run, and the run has another length now.
        """
        super().load(state)
        if self.spans_run and state["length"] != self.length:
            raise ConfigError(
                f"the curve of the learning rate spans the whole run, of {state['length']:g} steps before and"
                f" {self.length:g} now: it would jump",
                "train.T_max",
                "restore train.epochs and train.max_updates; give T_max in runs that may be prolonged",
            )
