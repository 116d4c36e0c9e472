"""Keys of the `train` block: when to stop, and which checkpoints to keep."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from contextvars import ContextVar
from typing import Any, Literal

from pydantic import Field, ValidationInfo, ValidatorFunctionWrapHandler, field_validator

from forgefield.core.settings import Settings
from forgefield.train.validation_names import VALIDATION_NAMES, names_with


def checked_metric(name: str, targets: Iterable[str] = ()) -> str:
    """Return the name of a validation metric as it is.

    Raises:
        ValueError: there is none of this name for these targets; the nearest one is given.
    """
    names = names_with(targets)
    if name in names:
        return name
    near = difflib.get_close_matches(name.removeprefix("val_"), names, n=1)
    hint = f"did you mean {near[0]!r}? There are: " if near else "there are: "
    raise ValueError(f"no validation metric {name!r}; {hint}{', '.join(names)}")


_targets: ContextVar[tuple[str, ...]] = ContextVar("targets", default=())


class EarlyStop(Settings):
    """A condition under which one validation metric is good enough or no longer falls."""

    metric: str = Field(description="Validation metric, as best_metric; in eV, eV per atom, eV/Å, eV/Å^3.")
    patience: int | None = Field(
        None, ge=1, description="Met after so many validations in a row without improvement; null = only lower_bound."
    )
    threshold: float = Field(0.0, ge=0, description="A fall below the lowest value by this or less is no improvement.")
    lower_bound: float | None = Field(None, ge=0, description="Met when the metric is not above this; null = none.")

    @field_validator("metric")
    @classmethod
    def _there(cls, value: str) -> str:
        return checked_metric(value, _targets.get())

    @field_validator("threshold")
    @classmethod
    def _with_patience(cls, value: float, info: ValidationInfo) -> float:
        if value and "patience" in info.data and info.data["patience"] is None:
            raise ValueError("has no effect without patience; give that too")
        return value

    @field_validator("lower_bound")
    @classmethod
    def _something(cls, value: float | None, info: ValidationInfo) -> float | None:
        if value is None and "patience" in info.data and info.data["patience"] is None:
            raise ValueError("give patience or lower_bound: without both the condition is never met")
        return value


class StoppingKeys(Settings):
    """When to stop, and which checkpoints to keep."""

    max_updates: int | None = Field(None, ge=1, description="Stop after so many updates in all; null = no limit.")
    early_stops: tuple[EarlyStop, ...] = Field(
        (),
        description="Conditions under which the fit ends, looked at after each cycle: `metric` (as best_metric) with "
        "`patience` (validations without a fall by more than `threshold`), `lower_bound`, or both, of which one is "
        "enough.",
    )
    early_stop_mode: Literal["all", "any"] = Field(
        "all", description="Whether all conditions of early_stops must be met at once, or any of them."
    )
    terminate_on_low_lr: float | None = Field(
        None,
        gt=0,
        description="Stop when the schedule (without warm-up) has lowered the rate below this; null = never.",
    )
    best_metric: str = Field(
        "loss",
        description="Validation metric whose lowest value is the best; it decides which weights are handed out: "
        f"{', '.join(VALIDATION_NAMES)}, and NAME_mae, NAME_rmse of each of targets.",
    )
    best_k: int = Field(
        1, ge=1, description="Checkpoints kept of the best validations; beyond 1 they stand in checkpoints/best-UPDATE."
    )

    @field_validator("best_metric")
    @classmethod
    def _there(cls, value: str, info: ValidationInfo) -> str:
        return checked_metric(value, info.data.get("targets", ()))

    @field_validator("early_stops", mode="wrap")
    @classmethod
    def _of_targets(cls, value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
        """Tell the conditions which targets there are, so that each complains at its own key."""
        token = _targets.set(tuple(info.data.get("targets", ())))
        try:
            return handler(value)
        finally:
            _targets.reset(token)

    @field_validator("early_stops")
    @classmethod
    def _once_each(cls, value: tuple[EarlyStop, ...]) -> tuple[EarlyStop, ...]:
        names = [stop.metric for stop in value]
        if len(set(names)) != len(names):
            raise ValueError("a metric stands in several conditions; join them into one")
        return value

    @field_validator("early_stop_mode")
    @classmethod
    def _something_to_join(cls, value: str, info: ValidationInfo) -> str:
        if value != "all" and len(info.data.get("early_stops", (1, 2))) < 2:
            raise ValueError("has no effect with fewer than two early_stops")
        return value

    @field_validator("terminate_on_low_lr")
    @classmethod
    def _reachable(cls, value: float | None, info: ValidationInfo) -> float | None:
        if value is None:
            return value
        if info.data.get("scheduler", "") is None:
            raise ValueError("has no effect with scheduler: null, which never lowers the rate")
        if value <= info.data.get("min_lr", 0.0):
            raise ValueError("must be above min_lr, below which no schedule goes")
        return value
