"""The learning rates of all groups: first rate, schedule and warm-up together."""

from __future__ import annotations

from typing import Any, Literal

import torch

from forgefield.core.catalog import Catalog
from forgefield.train.catalogs import SCHEDULES
from forgefield.train.plan import planned_updates
from forgefield.train.schedule import Schedule, Span
from forgefield.train.settings import TrainSettings, plugin_settings
from forgefield.train.warmup import WarmUp

Moment = Literal["update", "epoch", "cycle", "validation"]


class LearningRates:
    """Sets the rate of each group to that of the schedule times the factor of the warm-up.

    Args:
        optimizer: with the initial rates of its groups.
        schedule: lowers the rates, or None.
        warmup: factors by the number of updates, or None.
        unit: at which moments a schedule that needs no metric steps.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, schedule: Schedule | None, warmup: WarmUp | None, unit: str = "epoch"
    ) -> None:
        self.optimizer, self.schedule, self.warmup, self.unit = optimizer, schedule, warmup, unit
        self.updates = 0
        self.rests = False
        self._first = [float(group["lr"]) for group in optimizer.param_groups]
        self._own = list(self._first)
        self._write()

    @property
    def rates(self) -> list[float]:
        """Rate of each group without warm-up."""
        return self._own if self.schedule is None or self.rests else self.schedule.rates

    @property
    def exhausted(self) -> bool:
        """Whether the schedule wants the fit to end."""
        return self.schedule is not None and not self.rests and self.schedule.exhausted

    def rest(self, factor: float) -> None:
        """From now on keep each group at its first rate times a factor; schedule and warm-up end."""
        self.rests, self._own = True, [rate * factor for rate in self._first]
        self._write()

    @property
    def _own_moment(self) -> str:
        return "validation" if self.schedule is not None and self.schedule.needs_metric else self.unit

    def reach(self, moment: Moment, metric: float = 0.0) -> None:
        """Take note that an update, epoch, cycle or validation is over.

        Args:
            moment: what is over.
            metric: validation loss, if it is a validation.
        """
        if moment == "update":
            self.updates += 1
        if self.schedule is not None and not self.rests and moment == self._own_moment:
            self.schedule.step(metric)
        self._write()

    def state(self) -> dict[str, Any]:
        """Return the numbers that must survive a restart."""
        own = None if self.schedule is None else self.schedule.state()
        shared = {"first": self._first, "rates": list(self.rates), "updates": self.updates}
        return {**shared, "schedule": own, "rests": self.rests}

    def load(
        self,
        state: dict[str, Any] | None,
        updates: int,
        *,
        own_rates: bool = False,
        own_schedule: bool = False,
        forget_best: bool = False,
    ) -> None:
        """Take back what `state` returned.

        Args:
            state: it, or what checkpoints held before there were warm-ups: the state of the schedule alone.
            updates: done so far, for such checkpoints.
            own_rates: keep the first rates of these settings, times what the schedule had made of those in `state`.
            own_schedule: `state` is of another schedule; this one begins, unless it rests.
            forget_best: the validation losses that the schedule has seen are not comparable to those to come.
        """
        if state is None or "rates" not in state:
            rates = [float(group["lr"]) for group in self.optimizer.param_groups]
            state = {"rates": rates, "updates": updates, "schedule": state}
        self.updates, self.rests = int(state["updates"]), bool(state.get("rests", False))
        if own_schedule and not self.rests:
            self._write()
            return
        self._own = [float(rate) for rate in state["rates"]]
        if own_rates:
            factor = self._own[0] / float(state.get("first", self._own)[0])
            self._own = [rate * factor for rate in self._first]
        if self.schedule is not None and not own_schedule:
            self.schedule.rates = list(self._own)
            kept = dict(state["schedule"] or {})
            if forget_best and "best" in kept:
                kept["best"] = None
            self.schedule.load(kept)
        self._write()

    def _write(self) -> None:
        factors = [1.0] * len(self.rates)
        if self.warmup is not None and not self.rests:
            factors = self.warmup.factors(self.updates)
        for group, rate, factor in zip(self.optimizer.param_groups, self.rates, factors, strict=True):
            group["lr"] = rate * factor


def make_rates(optimizer: torch.optim.Optimizer, settings: TrainSettings, updates_per_epoch: int) -> LearningRates:
    """Make schedule and warm-up of a fit.

    Args:
        optimizer: with the initial rates of its groups.
        settings: the `train` block.
        updates_per_epoch: updates in an epoch.
    """
    schedule = None
    if settings.scheduler is not None:
        unit = settings.scheduler_step_unit
        every = {"epoch": updates_per_epoch, "update": 1, "cycle": max(1, settings.cycle_steps)}[unit]
        span = Span(updates_per_epoch / every, planned_updates(updates_per_epoch, settings) / every)
        build = Catalog(SCHEDULES).entry(settings.scheduler).build
        schedule = build(optimizer, plugin_settings(SCHEDULES, settings.scheduler, settings), span)
    warmup = WarmUp(settings.warmup, optimizer, settings.warmup_steps) if settings.warmup is not None else None
    return LearningRates(optimizer, schedule, warmup, settings.scheduler_step_unit)
