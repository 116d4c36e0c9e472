"""When a fit ends."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import cast

from forgefield.core.errors import DataError
from forgefield.train.metrics import Errors, Metrics
from forgefield.train.settings import TrainSettings
from forgefield.train.state import TrainState, Watch
from forgefield.train.validation_names import names_with


def validation_values(loss: float, metrics: Metrics, targets: Sequence[str] = ()) -> dict[str, float | None]:
    """Return the metrics of `validation_names` by name; None where there is no label."""
    errors = cast("Errors", metrics["all"])
    return {name: loss if name == "loss" else errors.get(name) for name in names_with(targets)}


def metric_of(values: Mapping[str, float | None], name: str) -> float:
    """Return the metric by which the best weights are chosen.

    Args:
        values: the metrics of `validation_names` by name.
        name: one of them.

    Raises:
        DataError: it has no labels.
    """
    value = values.get(name)
    if value is None:
        what = f"no validation structure has the labels of {name}"
        raise DataError(what, "train.best_metric", "choose another metric, or give the labels")
    return value


class Stopping:
    """Looks at the limits and at the validation metrics; all it remembers stands in `progress.stops`.

    Args:
        state: where the fit stands.
        settings: the `train` block.
    """

    def __init__(self, state: TrainState, settings: TrainSettings) -> None:
        self.state, self.settings = state, settings

    def judge(self, values: Mapping[str, float | None]) -> None:
        """Take note of a validation at the end of a whole cycle.

        Args:
            values: the metrics of `validation_names` by name.

        Raises:
            DataError: one that is watched has no labels.
        """
        stops = self.state.progress.stops
        for place, condition in enumerate(self.settings.early_stops):
            value = values.get(condition.metric)
            if value is None:
                what = f"no validation structure has the labels of {condition.metric}"
                raise DataError(what, f"train.early_stops.{place}.metric", "watch another metric, or give the labels")
            watch = stops.setdefault(condition.metric, Watch())
            if watch.lowest is None or value < watch.lowest - condition.threshold:
                watch.lowest, watch.without = value, 0
            else:
                watch.without += 1
            tired = condition.patience is not None and watch.without >= condition.patience
            watch.met = tired or (condition.lower_bound is not None and value <= condition.lower_bound)

    def reason(self, epochs: int | None = None) -> str | None:
        """Say why the fit ends now: epochs, max_updates, early_stop, early_stops, min_lr, low_lr; or None.

        Signals and the limit of time are for `Cycles`, since all processes must take note of them at once.

        Args:
            epochs: after which the fit ends, if not those of the settings.
        """
        progress, settings = self.state.progress, self.settings
        if progress.epoch >= (epochs or settings.epochs):
            return "epochs"
        if settings.max_updates is not None and progress.update >= settings.max_updates:
            return "max_updates"
        window = math.ceil(settings.plateau_patience * settings.early_stop_factor)
        if settings.early_stop_factor > 0 and progress.cycle - progress.best.cycle >= max(1, window):
            return "early_stop"
        if self._conditions_met():
            return "early_stops"
        if self.state.schedule is not None and self.state.schedule.exhausted:
            return "min_lr"
        if self._low_rate():
            return "low_lr"
        return None

    def _conditions_met(self) -> bool:
        watches = [self.state.progress.stops.get(stop.metric, Watch()) for stop in self.settings.early_stops]
        join = all if self.settings.early_stop_mode == "all" else any
        return bool(watches) and join(watch.met for watch in watches)

    def _low_rate(self) -> bool:
        lowest, schedule = self.settings.terminate_on_low_lr, self.state.schedule
        if lowest is None or schedule is None or schedule.rests:
            return False
        return schedule.rates[0] < lowest
