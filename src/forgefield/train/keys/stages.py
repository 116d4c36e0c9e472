"""Keys of the `train` block: the second stage of a fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import AliasChoices, Field, NonNegativeFloat, ValidationInfo, field_validator

from forgefield.core.settings import Settings
from forgefield.train.keys.loss import QUANTITY_KEYS


class StageTwoSettings(Settings):
    """What changes in the second stage of a fit."""

    start: int = Field(
        ge=1,
        validation_alias=AliasChoices("start", "start_swa", "start_stage_two"),
        description="Epochs before it begins; early stopping before that begins it at once, and then it is as long as "
        "planned.",
    )
    energy_weight: float = Field(1000.0, ge=0, description="Weight of the energy loss from then on.")
    force_weight: float | None = Field(None, ge=0, description="Weight of the force loss; null = unchanged.")
    stress_weight: float | None = Field(None, ge=0, description="Weight of the stress loss; null = unchanged.")
    target_weights: dict[str, NonNegativeFloat] = Field(
        default_factory=dict, description="Weights of `targets` that change, by name."
    )
    lr: float = Field(
        1e-3,
        gt=0,
        validation_alias=AliasChoices("lr", "swa_lr", "stage_two_lr"),
        description="Constant learning rate from then on; groups keep their ratios, the scheduler rests.",
    )
    average: Literal["ema", "equal"] = Field(
        "ema",
        description="Weights that are validated and handed out from then on: ema (the raw ones without ema_decay), or "
        "equal, the mean of the weights after every update of the stage (SWA).",
    )

    def weights(self, first: Mapping[str, float]) -> dict[str, float]:
        """Return the weights of the second stage, from those of the first."""
        own = {name: getattr(self, f"{word}_weight") for name, word in QUANTITY_KEYS.items()}
        return {**first, **{k: float(v) for k, v in own.items() if v is not None}, **self.target_weights}


class StageKeys(Settings):
    """The second stage."""

    stage_two: StageTwoSettings | None = Field(
        None,
        validation_alias=AliasChoices("stage_two", "swa"),
        description="Second stage with other weights of the loss (energy up) and a low learning rate; null = none.",
    )

    @field_validator("stage_two")
    @classmethod
    def _fits(cls, value: StageTwoSettings | None, info: ValidationInfo) -> StageTwoSettings | None:
        if value is None:
            return value
        epochs, targets = info.data.get("epochs"), info.data.get("targets")
        if epochs is not None and value.start >= epochs:
            raise ValueError(f"start {value.start} is not before the end: epochs is {epochs}")
        unknown = sorted(set(value.target_weights) - set(targets or {}))
        if targets is not None and unknown:
            raise ValueError(f"target_weights names {', '.join(unknown)}, which targets does not")
        first = {name: float(info.data.get(f"{word}_weight", 1.0)) for name, word in QUANTITY_KEYS.items()}
        first |= {name: target.weight for name, target in (targets or {}).items()}
        if not any(value.weights(first).values()):
            raise ValueError("all weights are 0: there is nothing to fit")
        return value
