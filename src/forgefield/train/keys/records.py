"""Keys of the `train` block: what is shown and written on the way."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from forgefield.core.catalog import Catalog
from forgefield.core.settings import Settings
from forgefield.train.catalogs import RECORDS, as_value_error
from forgefield.train.intervals import Interval
from forgefield.train.records.mlflow import MlflowSettings
from forgefield.train.records.wandb import WandbSettings


class RecordKeys(Settings):
    """What is shown and written on the way."""

    log_every: int | Literal["auto"] | None = Field(
        "auto", description="Updates between log lines; auto = 20 lines in all; false, none or off = no lines."
    )
    progress_bar: bool | Literal["auto"] = Field(
        "auto", description="auto = on a terminal; a progress bar replaces the log lines between validations."
    )
    progress_mininterval: float = Field(0.5, gt=0, description="Seconds between redraws of the progress bar.")

    validate_every: int | str = Field(
        1,
        description="Cycles between validations, or `200 updates`, `5 epochs`. Each gives a row of the records and a "
        "step of plateau; one ends every fit.",
    )
    loggers: tuple[str, ...] = Field(
        ("csv", "jsonl", "tensorboard"),
        description="Where records go: csv (history.csv, breakdown.csv), jsonl (the same as .jsonl, which the report "
        "reads), tensorboard, wandb, mlflow. [] = nowhere.",
        json_schema_extra={"items": {"type": "string", "enum": list(Catalog(RECORDS).names())}},
    )
    wandb: WandbSettings = Field(
        default_factory=WandbSettings, description="The run of Weights & Biases, if wandb is among the loggers."
    )
    mlflow: MlflowSettings = Field(
        default_factory=MlflowSettings, description="The run of MLflow, if mlflow is among the loggers."
    )

    @field_validator("validate_every")
    @classmethod
    def _interval(cls, value: int | str) -> int | str:
        Interval.read(value)
        return value

    @field_validator("log_every", mode="before")
    @classmethod
    def _off_is_none(cls, value: Any) -> Any:
        return None if value is False or value in ("off", "none", "false") else value

    @field_validator("log_every")
    @classmethod
    def _positive(cls, value: Any) -> Any:
        if isinstance(value, int) and value < 1:
            raise ValueError("must be at least 1; write false for no log lines")
        return value

    @field_validator("loggers")
    @classmethod
    def _can_be_had(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            as_value_error(lambda name=name: Catalog(RECORDS).entry(name))
            if value.count(name) > 1:
                raise ValueError(f"{name!r} stands twice")
            package = getattr(Catalog(RECORDS).entry(name).build, "needs", None)
            if package is not None and not _installed(package):
                raise ValueError(
                    f"{name} needs the package {package}, which is not installed; pip install 'forgefield[{name}]', or "
                    f"remove {name} from the list"
                )
        return value

    @field_validator("wandb", "mlflow")
    @classmethod
    def _used(cls, value: Settings, info: ValidationInfo) -> Settings:
        name = str(info.field_name)
        if "loggers" in info.data and name not in info.data["loggers"] and value != type(value)():
            raise ValueError(f"has no effect: {name} is not among the loggers; add it there, or remove this block")
        return value


def _installed(package: str) -> bool:
    """Say whether a package is there; a folder of that name in the current folder (runs of wandb) is none."""
    found = find_spec(package)
    return found is not None and found.origin is not None
