"""Keys of the `train` block: optimizer, weights that move, their average, clipping."""

from __future__ import annotations

from typing import Any

from pydantic import Field, ValidationInfo, field_validator, model_validator

from forgefield.core.catalog import Catalog
from forgefield.core.settings import Settings
from forgefield.train.catalogs import OPTIMIZERS
from forgefield.train.keys.groups import checked_pattern


class OptimizationKeys(Settings):
    """Optimizer, weights that move, their average, clipping."""

    optimizer: str = Field(
        "adam",
        description="adam, adamw, nadam, radam, sgd, or lbfgs: quasi-Newton steps, each update from the whole training "
        "set, which is held in memory in batches of batch_size.",
        json_schema_extra={"enum": list(Catalog(OPTIMIZERS).names())},
    )
    lr: float = Field(
        0.01,
        gt=0,
        description="Initial learning rate; lbfgs: first trial step, 1 unless it is said. Some architectures have a "
        "default of their own, for the default optimizer (their sections say which).",
    )
    weight_decay: float = Field(5e-7, ge=0, description="Decay of the weights that decay (see no_decay_keywords).")
    amsgrad: bool = Field(True, description="AMSGrad variant of adam and adamw.")
    betas: tuple[float, float] = Field((0.9, 0.999), description="Averaging constants of adam, adamw, nadam and radam.")
    eps: float = Field(1e-8, gt=0, description="Added to the divisor in adam, adamw, nadam and radam.")
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of sgd.")
    momentum_decay: float = Field(0.004, ge=0, description="nadam: how slowly its momentum rises to its final value.")
    decoupled_decay: bool = Field(False, description="nadam, radam: decay apart from the gradient, as adamw does.")
    lbfgs_history: int = Field(100, ge=1, description="lbfgs: pairs of steps and gradient changes remembered.")
    lbfgs_iterations: int = Field(
        1, ge=1, description="lbfgs: iterations per update; 2 to 3 passes over the data each."
    )
    no_decay_keywords: tuple[str, ...] = Field(
        (),
        description="Regular expressions: parameters whose name matches one do not decay, beside those that never do "
        "(vectors and scalars; names with bias, norm, scale, shift, embedding, readout or radial).",
    )
    ema_decay: float | None = Field(
        0.99,
        gt=0,
        lt=1,
        description="Decay of the moving average of the weights, used for validation and the result; null = none. "
        "In update n it is at most (1 + n) / (10 + n).",
    )
    max_grad_norm: float | None = Field(
        10.0,
        gt=0,
        description="Gradients longer than this are shortened; null = off, as it is with max_grad_value and lbfgs.",
    )
    max_grad_value: float | None = Field(
        None, gt=0, description="Elements of a gradient larger than this are cut to it; null = off."
    )

    @model_validator(mode="before")
    @classmethod
    def _fitting_defaults(cls, data: Any) -> Any:
        """L-BFGS begins with whole steps; clipping by value or a line search takes the place of clipping by norm."""
        if not isinstance(data, dict):
            return data
        full = data.get("optimizer") == "lbfgs"
        more: dict[str, Any] = {"lr": 1.0} if full else {}
        if full or data.get("max_grad_value") is not None:
            more["max_grad_norm"] = None
        return {**more, **data}

    @field_validator("optimizer")
    @classmethod
    def _whole_set(cls, value: str, info: ValidationInfo) -> str:
        if value != "lbfgs":
            return value
        for key, neutral in (("accum_steps", 1), ("cycle_steps", 0), ("drop_last", False)):
            if info.data.get(key, neutral) != neutral:
                raise ValueError(f"lbfgs takes all training structures for each update, so {key} must go")
        return value

    @field_validator("max_grad_norm", "max_grad_value")
    @classmethod
    def _one_clipping(cls, value: float | None, info: ValidationInfo) -> float | None:
        if value is not None and info.data.get("optimizer") == "lbfgs":
            raise ValueError("has no effect with lbfgs, whose line search needs the true gradient; remove it")
        if value is not None and info.field_name == "max_grad_value" and info.data.get("max_grad_norm") is not None:
            raise ValueError("max_grad_norm clips already; set that to null or remove one of the two")
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
            checked_pattern(pattern)
        return value
