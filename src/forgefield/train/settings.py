"""The `train` block: every key of a training run."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Literal

from pydantic import AliasChoices, Field, ValidationInfo, field_validator, model_validator

from forgefield.core.catalog import Catalog
from forgefield.core.errors import ForgeError
from forgefield.core.settings import Matmul, Settings

LOSSES = "forgefield.train.losses"
OPTIMIZERS = "forgefield.train.optimizers"
SCHEDULES = "forgefield.train.schedules"

# A run may be continued with other values of these; every other key must stay as it was.
RESUME_MAY_CHANGE = frozenset(
    {
        "epochs",
        "max_minutes",
        "compile",
        "early_stop_factor",
        "num_workers",
        "save_every",
        "log_every",
        "progress_bar",
        "progress_mininterval",
        "input_json",
    }
)
_LOSS_NAMES = Catalog(LOSSES).names()
_PLUGIN_KEYS = {
    "optimizer": ("betas", "eps", "amsgrad", "momentum"),
    "scheduler": ("lr_factor", "plateau_patience", "step_size", "gamma"),
}


def _aliases(*names: str) -> AliasChoices:
    return AliasChoices(*names)


class TransformSettings(Settings):
    """How labels are transformed before the loss."""

    mode: Literal["identity", "standard", "fairchem"] = Field(
        default="identity", description="Only `identity`: labels are trained on as they are, in eV and Å."
    )

    @field_validator("mode")
    @classmethod
    def _only_identity(cls, mode: str) -> str:
        if mode != "identity":
            raise ValueError(
                f"{mode!r} is refused: it scales energies and forces independently, and forces would no longer be the"
                " derivative of the energy. Use identity; scale, shift and reference energies belong to the model"
            )
        return mode


class TrainSettings(Settings):
    """Everything about fitting: data order, optimizer, schedule, loss, stopping and records."""

    input_json: str | None = Field(
        None,
        validation_alias=_aliases("input_json", "model_json", "config_json"),
        description="model.json with the architecture's settings, instead of the `model` block.",
    )
    epochs: int = Field(100, ge=1, description="Passes over the training structures.")
    batch_size: int = Field(10, ge=1, description="Structures per batch.")
    num_workers: int = Field(0, ge=0, description="Threads that prepare batches ahead; 0 = none.")
    seed: int = Field(0, ge=0, description="Fixes initial weights, order of the structures and everything random.")

    lr: float = Field(0.01, gt=0, description="Initial learning rate.")
    weight_decay: float = Field(5e-7, ge=0, description="Decay of the weights that decay (see no_decay_keywords).")
    optimizer: str = Field(
        "adam",
        description="adam, adamw or sgd.",
        json_schema_extra={"enum": list(Catalog(OPTIMIZERS).names())},
    )
    amsgrad: bool = Field(True, description="AMSGrad variant of adam and adamw.")
    betas: tuple[float, float] = Field((0.9, 0.999), description="Averaging constants of adam and adamw.")
    eps: float = Field(1e-8, gt=0, description="Added to the divisor in adam and adamw.")
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of sgd.")
    no_decay_keywords: tuple[str, ...] = Field(
        (),
        description="Regular expressions: parameters whose name matches one do not decay, beside those that never do "
        "(vectors and scalars; names with bias, norm, scale, shift, embedding, readout or radial).",
    )

    cycle_steps: int = Field(
        0, ge=0, description="Updates per cycle; a cycle ends with validation and checkpoint. 0 = a cycle is an epoch."
    )
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
        validation_alias=_aliases("plateau_patience", "patience"),
        description="plateau: validations without improvement that are borne; also the unit of early stopping.",
    )
    step_size: int = Field(30, ge=1, description="step: epochs or cycles between reductions.")
    gamma: float = Field(0.1, gt=0, le=1, description="step: factor of each reduction.")
    scheduler_step_unit: Literal["epoch", "cycle"] = Field(
        "epoch", description="What the step scheduler counts; `cycle` needs cycle_steps."
    )

    ema_decay: float | None = Field(
        0.99,
        gt=0,
        lt=1,
        description="Decay of the moving average of the weights, used for validation and the result; null = none. "
        "In update n it is at most (1 + n) / (10 + n).",
    )
    amp: bool = Field(False, description="float16 autocast with gradient scaling, on CUDA only; off elsewhere.")
    matmul: Matmul = Field(
        "float32",
        description="Products of float32 matrices while fitting: float32 (strict), tf32 (newer NVIDIA GPUs) or bf16 "
        "(processors with AMX), faster and less exact; where the machine cannot do it, float32, and a line says so.",
    )
    compile: bool | Literal["auto"] = Field(
        "auto",
        description="Train through torch.compile. auto = if a forecast says that it pays within this run, eagerly where"
        " it fails; true = from the first update on, an error where it fails; false = never. What is compiled is first"
        " compared with the eager model, every gradient included; kept between runs in TORCHINDUCTOR_CACHE_DIR.",
    )
    accum_steps: int = Field(1, ge=1, description="Batches per update; the update is that of one joined batch.")
    drop_last: bool = Field(
        False,
        description="Leave out the last batches of an epoch when they are too few for a full batch or a full update; "
        "true if cycle_steps is set.",
    )
    max_grad_norm: float | None = Field(10.0, gt=0, description="Gradients longer than this are shortened; null = off.")
    freeze: Literal["head_only"] | None = Field(
        None, description="head_only: train nothing but the readout layers; null = train everything."
    )

    save_every: int = Field(1, ge=1, description="Cycles between `last` checkpoints; one is always left at the end.")
    log_every: int | Literal["auto"] | None = Field(
        "auto", description="Updates between log lines; auto = 20 lines in all; false, none or off = no lines."
    )
    progress_bar: bool | Literal["auto"] = Field(
        "auto", description="auto = on a terminal; a progress bar replaces the log lines between validations."
    )
    progress_mininterval: float = Field(0.5, gt=0, description="Seconds between redraws of the progress bar.")
    max_minutes: float | None = Field(
        None, gt=0, description="Stop at the first update after this time; resume continues. null = no limit."
    )

    energy_weight: float = Field(1.0, ge=0, description="Weight of the energy loss.")
    force_weight: float = Field(100.0, ge=0, description="Weight of the force loss.")
    stress_weight: float = Field(0.0, ge=0, description="Weight of the stress loss.")
    loss_energy: str = Field(
        "mse",
        description="mse or mae of the energy per atom.",
        json_schema_extra={"enum": list(_LOSS_NAMES)},
    )
    loss_force: str = Field(
        "mse", description="mse, mae, l2mae or atomwisel2.", json_schema_extra={"enum": list(_LOSS_NAMES)}
    )
    loss_stress: str = Field("mse", description="mse or mae.", json_schema_extra={"enum": list(_LOSS_NAMES)})
    head_key: str | None = Field(
        None,
        validation_alias=_aliases("head_key", "target_keys", "head"),
        description="Model head of structures that name none; a model with a single head needs no entry.",
    )
    transform: TransformSettings = Field(default_factory=TransformSettings, description="Transformation of the labels.")

    @model_validator(mode="before")
    @classmethod
    def _cycles_drop_last(cls, data: Any) -> Any:
        """Cycles need updates of equal size, so `drop_last` is true unless it is said to be false."""
        if isinstance(data, dict) and data.get("cycle_steps") and "drop_last" not in data:
            return {**data, "drop_last": True}
        return data

    @field_validator("compile")
    @classmethod
    def _not_with_amp(cls, value: bool | str, info: ValidationInfo) -> bool | str:
        if value is True and info.data.get("amp"):
            raise ValueError("true cannot be had with amp: true, whose rounding hides a wrong result; drop one of them")
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

    @field_validator("betas")
    @classmethod
    def _below_one(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not all(0 <= beta < 1 for beta in value):
            raise ValueError("both must be at least 0 and less than 1")
        return value

    @field_validator("no_decay_keywords")
    @classmethod
    def _compiles(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in value:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is not a regular expression: {error}") from None
        return value

    @field_validator("matmul")
    @classmethod
    def _float32_products(cls, value: str, info: ValidationInfo) -> str:
        if value != "float32" and info.data.get("amp"):
            raise ValueError("has no effect with amp, which multiplies in float16; keep one of the two")
        return value

    @field_validator("optimizer", "scheduler")
    @classmethod
    def _listed(cls, value: str | None, info: ValidationInfo) -> str | None:
        package = OPTIMIZERS if info.field_name == "optimizer" else SCHEDULES
        if value is not None and value not in Catalog(package).names():
            _as_value_error(lambda: Catalog(package).entry(value))
        return value

    @field_validator("loss_energy", "loss_force", "loss_stress")
    @classmethod
    def _defined(cls, value: str, info: ValidationInfo) -> str:
        from forgefield.train.loss import build_term  # needs torch, which not every use of the settings does

        name = str(info.field_name)
        if value == cls.model_fields[name].default:
            return value
        quantity = {"loss_energy": "energy", "loss_force": "forces", "loss_stress": "stress"}[name]
        _as_value_error(lambda: build_term(quantity, value))
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

    @field_validator("scheduler_step_unit")
    @classmethod
    def _cycles_there(cls, value: str, info: ValidationInfo) -> str:
        if value == "cycle" and info.data.get("cycle_steps") == 0:
            raise ValueError("needs cycle_steps greater than 0: without it a cycle is an epoch")
        if value == "cycle" and info.data.get("scheduler") in ("plateau", None):
            raise ValueError("has no effect: only the step scheduler counts; plateau steps after each validation")
        return value

    @field_validator("drop_last")
    @classmethod
    def _whole_updates(cls, value: bool, info: ValidationInfo) -> bool:
        if not value and info.data.get("cycle_steps", 0) > 0:
            raise ValueError("must be true with cycle_steps, which counts updates of equal size; remove it or set true")
        return value

    @field_validator("stress_weight")
    @classmethod
    def _something_to_fit(cls, value: float, info: ValidationInfo) -> float:
        if value == 0 and info.data.get("energy_weight") == 0 and info.data.get("force_weight") == 0:
            raise ValueError("energy_weight, force_weight and stress_weight are all 0: there is nothing to fit")
        return value


def plugin_settings(package: str, name: str, settings: TrainSettings) -> Settings:
    """Return the settings of an optimizer or schedule, filled from the `train` keys of the same names."""
    wanted = Catalog(package).entry(name).settings
    return wanted(**{key: getattr(settings, key) for key in wanted.model_fields})


def _as_value_error(action: Callable[[], object]) -> None:
    """Run a check so that its complaint is reported at the key, with file and line."""
    try:
        action()
    except ForgeError as error:
        raise ValueError(str(error)) from None
