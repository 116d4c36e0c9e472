"""The `train` block: every key of a training run."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationInfo, field_validator

from forgefield.core.catalog import Catalog
from forgefield.core.settings import Settings
from forgefield.train.catalogs import OPTIMIZERS, SCHEDULES, as_value_error
from forgefield.train.keys.groups import GroupKeys
from forgefield.train.keys.loss import LossKeys
from forgefield.train.keys.optimization import OptimizationKeys
from forgefield.train.keys.order import OrderKeys
from forgefield.train.keys.precision import PrecisionKeys
from forgefield.train.keys.records import RecordKeys
from forgefield.train.keys.schedule import ScheduleKeys
from forgefield.train.keys.stages import StageKeys
from forgefield.train.keys.stopping import StoppingKeys

# A run may be continued with other values of these; every other key must stay as it was.
RESUME_MAY_CHANGE = frozenset(
    {
        "epochs",
        "max_minutes",
        "max_cpu_minutes",
        "compile",
        "early_stop_factor",
        "early_stops",
        "early_stop_mode",
        "terminate_on_low_lr",
        "max_updates",
        "num_workers",
        "save_every",
        "log_every",
        "loggers",
        "wandb",
        "mlflow",
        "progress_bar",
        "progress_mininterval",
        "input_json",
    }
)
_PLUGIN_KEYS = {
    "optimizer": (
        "betas", "eps", "amsgrad", "momentum", "momentum_decay", "decoupled_decay", "lbfgs_history", "lbfgs_iterations",
    ),
    "scheduler": (
        "lr_factor", "plateau_patience", "step_size", "gamma", "T_max", "T_0", "T_mult",
        "pct_start", "div_factor", "final_div_factor", "min_lr",
    ),
}  # fmt: skip


class TrainSettings(
    RecordKeys, PrecisionKeys, StageKeys, StoppingKeys, LossKeys, ScheduleKeys, GroupKeys, OptimizationKeys, OrderKeys
):
    """Everything about fitting: data order, optimizer, schedule, loss, precision, stopping and records.

    The keys stand in `train/keys`, by subject; rules between subjects stand here. Validation goes from the last base to
    the first, so that a rule may look at keys of the bases behind its own.
    """

    @field_validator("optimizer", "scheduler")
    @classmethod
    def _listed(cls, value: str | None, info: ValidationInfo) -> str | None:
        package = OPTIMIZERS if info.field_name == "optimizer" else SCHEDULES
        if value is not None and value not in Catalog(package).names():
            as_value_error(lambda: Catalog(package).entry(value))
        return value

    @field_validator(*_PLUGIN_KEYS["optimizer"], *_PLUGIN_KEYS["scheduler"])
    @classmethod
    def _has_effect(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse a changed key that the chosen optimizer or scheduler does not use."""
        name = str(info.field_name)
        owner = next(key for key, names in _PLUGIN_KEYS.items() if name in names)
        if owner not in info.data or value == cls.model_fields[name].default:
            return value
        if name == "plateau_patience" and info.data.get("early_stop_factor", 0) > 0:
            return value
        chosen = info.data[owner]
        package = OPTIMIZERS if owner == "optimizer" else SCHEDULES
        if chosen is None or name not in Catalog(package).entry(chosen).settings.model_fields:
            raise ValueError(f"has no effect with {owner} {chosen or 'null'}; remove it or choose another {owner}")
        return value

    @field_validator("amp")
    @classmethod
    def _exact_line_search(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("optimizer") == "lbfgs":
            raise ValueError("cannot be had with lbfgs, whose line search compares losses to the last digits")
        return value


def plugin_settings(package: str, name: str, settings: TrainSettings) -> Settings:
    """Return the settings of an optimizer or schedule, filled from the `train` keys of the same names."""
    wanted = Catalog(package).entry(name).settings
    return wanted(**{key: getattr(settings, key) for key in wanted.model_fields})
