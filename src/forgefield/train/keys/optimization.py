"""Keys of the `train` block: optimizer, weights that move, their average, clipping."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator

from forgefield.core.catalog import Catalog
from forgefield.core.settings import Settings
from forgefield.train.catalogs import OPTIMIZERS


class OptimizationKeys(Settings):
    """Optimizer, weights that move, their average, clipping."""

    optimizer: str = Field(
        "adam",
        description="adam, adamw or sgd.",
        json_schema_extra={"enum": list(Catalog(OPTIMIZERS).names())},
    )
    lr: float = Field(0.01, gt=0, description="Initial learning rate.")
    weight_decay: float = Field(5e-7, ge=0, description="Decay of the weights that decay (see no_decay_keywords).")
    amsgrad: bool = Field(True, description="AMSGrad variant of adam and adamw.")
    betas: tuple[float, float] = Field((0.9, 0.999), description="Averaging constants of adam and adamw.")
    eps: float = Field(1e-8, gt=0, description="Added to the divisor in adam and adamw.")
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of sgd.")
    no_decay_keywords: tuple[str, ...] = Field(
        (),
        description="Regular expressions: parameters whose name matches one do not decay, beside those that never do "
        "(vectors and scalars; names with bias, norm, scale, shift, embedding, readout or radial).",
    )
    freeze: Literal["head_only"] | None = Field(
        None, description="head_only: train nothing but the readout layers; null = train everything."
    )
    ema_decay: float | None = Field(
        0.99,
        gt=0,
        lt=1,
        description="Decay of the moving average of the weights, used for validation and the result; null = none. "
        "In update n it is at most (1 + n) / (10 + n).",
    )
    max_grad_norm: float | None = Field(10.0, gt=0, description="Gradients longer than this are shortened; null = off.")

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
