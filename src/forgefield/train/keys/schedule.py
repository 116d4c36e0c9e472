"""Keys of the `train` block: learning rate over time, and when to stop."""

from __future__ import annotations

from typing import Literal

from pydantic import AliasChoices, Field, ValidationInfo, field_validator

from forgefield.core.catalog import Catalog
from forgefield.core.settings import Settings
from forgefield.train.catalogs import SCHEDULES


class ScheduleKeys(Settings):
    """Learning rate over time, and when to stop."""

    scheduler: str | None = Field(
        "plateau",
        description="plateau, step or null; plateau steps after each validation.",
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
    step_size: int = Field(30, ge=1, description="step: epochs or cycles between reductions.")
    gamma: float = Field(0.1, gt=0, le=1, description="step: factor of each reduction.")
    scheduler_step_unit: Literal["epoch", "cycle"] = Field(
        "epoch", description="What the step scheduler counts; `cycle` needs cycle_steps."
    )

    @field_validator("scheduler_step_unit")
    @classmethod
    def _cycles_there(cls, value: str, info: ValidationInfo) -> str:
        if value == "cycle" and info.data.get("cycle_steps") == 0:
            raise ValueError("needs cycle_steps greater than 0: without it a cycle is an epoch")
        if value == "cycle" and info.data.get("scheduler") in ("plateau", None):
            raise ValueError("has no effect: only the step scheduler counts; plateau steps after each validation")
        return value
