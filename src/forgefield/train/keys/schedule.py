"""Keys of the `train` block: learning rate over time."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import AliasChoices, Field, ValidationInfo, field_validator, model_validator

from forgefield.core.catalog import Catalog
from forgefield.core.settings import Settings
from forgefield.train.catalogs import SCHEDULES

WITH_PERIOD = ("linear", "exponential")  # warm-ups that are told how long they last
FOR_ADAM = ("untuned_linear", "untuned_exponential", "radam")  # warm-ups that follow from Adam's second beta


class ScheduleKeys(Settings):
    """Learning rate over time."""

    scheduler: str | None = Field(
        "plateau",
        description="plateau (steps after each validation), step, exponential, linear, cosine, cosine_restarts, "
        "one_cycle or null. Every group of param_groups keeps its ratio to the others.",
        json_schema_extra={"enum": [*Catalog(SCHEDULES).names(), None]},
    )
    early_stop_factor: float = Field(
        0.0,
        ge=0,
        description="Stop when the best validation lies plateau_patience times this many cycles back, whatever the "
        "scheduler; 0 = never.",
    )
    lr_factor: float = Field(0.8, gt=0, lt=1, description="plateau: factor of each reduction.")
    plateau_patience: int = Field(
        50,
        ge=0,
        validation_alias=AliasChoices("plateau_patience", "patience"),
        description="plateau: validations without improvement that are borne; also the unit of early stopping.",
    )
    step_size: int = Field(
        30, ge=1, description="step: epochs, updates or cycles (see scheduler_step_unit) between reductions."
    )
    gamma: float = Field(
        0.1, gt=0, le=1, description="step, exponential: factor of each reduction; exponential has no default."
    )
    T_max: float | None = Field(
        None, gt=0, description="linear, cosine, one_cycle: epochs until the end of the curve; null = the whole run."
    )
    T_0: float = Field(10.0, gt=0, description="cosine_restarts: epochs until the first restart.")
    T_mult: int = Field(1, ge=1, description="cosine_restarts: each period is so many times as long as the last.")
    pct_start: float = Field(0.3, gt=0, lt=1, description="one_cycle: share of it in which the rate rises to lr.")
    div_factor: float = Field(25.0, ge=1, description="one_cycle: begins with lr divided by this.")
    final_div_factor: float = Field(1e4, ge=1, description="one_cycle: ends with its first rate divided by this.")
    min_lr: float = Field(
        0.0,
        ge=0,
        description="No schedule lowers the rate further (groups with another rate: in proportion). plateau: the fit "
        "ends when patience runs out there.",
    )
    scheduler_step_unit: Literal["epoch", "update", "cycle"] = Field(
        "epoch",
        description="How often the rate is set (T_max and T_0 are in epochs all the same), and what step_size and "
        "exponential count; `cycle` needs cycle_steps.",
    )
    warmup: Literal["linear", "exponential", "untuned_linear", "untuned_exponential", "radam"] | None = Field(
        None,
        description="Factor of the rate that rises to 1, beside the schedule, in update n: linear min(1, n / "
        "warmup_steps), exponential 1 - exp(-n / warmup_steps), untuned_ the same with 2 / (1 - beta2) or 1 / (1 - "
        "beta2) updates, radam that of RAdam.",
    )
    warmup_steps: int | None = Field(None, ge=1, description="Updates of a linear or exponential warm-up.")

    @model_validator(mode="before")
    @classmethod
    def _exponential_says_gamma(cls, data: Any) -> Any:
        """A tenth per step, the default of the step scheduler, would be no schedule: exponential has no default."""
        if isinstance(data, dict) and data.get("scheduler") == "exponential":
            return {"gamma": None, **data}
        return data

    @field_validator("gamma", mode="before")
    @classmethod
    def _given(cls, value: Any) -> Any:
        if value is None:
            raise ValueError("must be given with scheduler: exponential")
        return value

    @field_validator("min_lr")
    @classmethod
    def _below_lr(cls, value: float, info: ValidationInfo) -> float:
        if value and value >= info.data.get("lr", value + 1):
            raise ValueError(f"must be less than lr, which is {info.data['lr']:g}")
        return value

    @field_validator("scheduler_step_unit")
    @classmethod
    def _cycles_there(cls, value: str, info: ValidationInfo) -> str:
        if value == "cycle" and info.data.get("cycle_steps") == 0:
            raise ValueError("needs cycle_steps greater than 0: without it a cycle is an epoch")
        if value != "epoch" and info.data.get("scheduler") in ("plateau", None):
            raise ValueError("has no effect: plateau steps after each validation, null never")
        return value

    @field_validator("warmup")
    @classmethod
    def _betas_there(cls, value: str | None, info: ValidationInfo) -> str | None:
        optimizer = info.data.get("optimizer")
        if value in FOR_ADAM and optimizer in ("sgd", "lbfgs"):
            raise ValueError(f"{value} follows from Adam's betas, which {optimizer} has not; use linear or exponential")
        if value == "radam" and info.data.get("betas", (0.9, 0.999))[1] <= 0.6:
            raise ValueError("radam needs a second beta above 0.6")
        return value

    @field_validator("warmup_steps")
    @classmethod
    def _period(cls, value: int | None, info: ValidationInfo) -> int | None:
        kind = info.data.get("warmup")
        if value is None and kind in WITH_PERIOD:
            raise ValueError(f"must be given with warmup: {kind}")
        if value is not None and "warmup" in info.data and kind not in WITH_PERIOD:
            raise ValueError(f"has no effect with warmup: {kind or 'null'}")
        return value
