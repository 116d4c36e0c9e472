"""Keys of the `train` block: which parameters are trained, and which rate and decay each has."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from forgefield.core.settings import Settings


def checked_pattern(pattern: str) -> str:
    """Return a regular expression as it is.

    Raises:
        ValueError: it is none.
    """
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is not a regular expression: {error}") from None
    return pattern


class ParamGroup(Settings):
    """Parameters with a rate and decay of their own."""

    match: str = Field(description="Regular expression, searched in the names of parameters.")
    lr: float | None = Field(None, gt=0, description="Initial learning rate; null = train.lr times lr_factor.")
    lr_factor: float | None = Field(None, gt=0, description="Initial rate as a multiple of train.lr; null = 1.")
    weight_decay: float | None = Field(
        None, ge=0, description="Decay of those that decay (see no_decay_keywords); null = train.weight_decay."
    )

    @field_validator("match")
    @classmethod
    def _compiles(cls, value: str) -> str:
        return checked_pattern(value)

    @field_validator("lr_factor")
    @classmethod
    def _one_of_two(cls, value: float | None, info: ValidationInfo) -> float | None:
        if value is not None and info.data.get("lr") is not None:
            raise ValueError("lr says the rate already; keep one of the two")
        return value


class GroupKeys(Settings):
    """Which parameters are trained, and which rate and decay each has."""

    freeze: Literal["head_only", "base"] | None = Field(
        None,
        description="head_only: train nothing but the readout layers; base: nothing of the level that others are "
        "corrections to (the default with finetune.correction); null = train everything.",
    )
    finetune_modules: tuple[str, ...] = Field(
        (), description="Regular expressions: train only parameters whose name matches one; [] = everything."
    )
    force_no_train: tuple[str, ...] = Field(
        (), description="Regular expressions: parameters whose name matches one are not trained, after freeze and "
        "finetune_modules.",
    )  # fmt: skip
    force_train: tuple[str, ...] = Field(
        (), description="Regular expressions: parameters whose name matches one are trained, whatever else is said."
    )
    param_groups: tuple[ParamGroup, ...] = Field(
        (),
        description="Groups with a rate and decay of their own, each with `match` (regular expression) and, where they "
        "differ from the rest, `lr` or `lr_factor` (of train.lr) and `weight_decay`. A parameter belongs to the first "
        "whose `match` finds it, and each must belong to one (`match: .` takes the rest). [] = one rate for all.",
    )

    @field_validator("finetune_modules", "force_train", "force_no_train")
    @classmethod
    def _compile(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in value:
            checked_pattern(pattern)
        return value

    @field_validator("param_groups")
    @classmethod
    def _one_step_length(cls, value: tuple[ParamGroup, ...], info: ValidationInfo) -> tuple[ParamGroup, ...]:
        for k, group in enumerate(value):
            if info.data.get("optimizer") == "lbfgs" and (group.lr or group.lr_factor) is not None:
                raise ValueError(f"lbfgs has one step length for all parameters: take lr or lr_factor out of group {k}")
        return value

    @field_validator("finetune_modules")
    @classmethod
    def _not_with_freeze(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if value and info.data.get("freeze") is not None:
            raise ValueError("freeze says already what is trained; keep one of the two")
        return value
