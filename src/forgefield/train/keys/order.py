"""Keys of the `train` block: what is trained on, in which order, for how long."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import AliasChoices, Field, ValidationInfo, field_validator, model_validator

from forgefield.core.settings import Settings


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


class OrderKeys(Settings):
    """What is trained on, in which order, for how long."""

    input_json: str | None = Field(
        None,
        validation_alias=AliasChoices("input_json", "model_json", "config_json"),
        description="model.json with the architecture's settings, instead of the `model` block.",
    )
    head_key: str | None = Field(
        None,
        validation_alias=AliasChoices("head_key", "target_keys", "head"),
        description="Model head of structures that name none; a model with a single head needs no entry.",
    )
    transform: TransformSettings = Field(default_factory=TransformSettings, description="Transformation of the labels.")
    epochs: int = Field(100, ge=1, description="Passes over the training structures.")
    batch_size: int = Field(10, ge=1, description="Structures per batch.")
    num_workers: int = Field(0, ge=0, description="Threads that prepare batches ahead; 0 = none.")
    seed: int = Field(0, ge=0, description="Fixes initial weights, order of the structures and everything random.")
    cycle_steps: int = Field(
        0, ge=0, description="Updates per cycle; a cycle ends with validation and checkpoint. 0 = a cycle is an epoch."
    )
    accum_steps: int = Field(1, ge=1, description="Batches per update; the update is that of one joined batch.")
    drop_last: bool = Field(
        False,
        description="Leave out the last batches of an epoch when they are too few for a full batch or a full update; "
        "true if cycle_steps is set.",
    )
    save_every: int = Field(1, ge=1, description="Cycles between `last` checkpoints; one is always left at the end.")
    max_minutes: float | None = Field(
        None, gt=0, description="Stop at the first update after this time; resume continues. null = no limit."
    )

    @model_validator(mode="before")
    @classmethod
    def _cycles_drop_last(cls, data: Any) -> Any:
        """Cycles need updates of equal size, so `drop_last` is true unless it is said to be false."""
        if isinstance(data, dict) and data.get("cycle_steps") and "drop_last" not in data:
            return {**data, "drop_last": True}
        return data

    @field_validator("drop_last")
    @classmethod
    def _whole_updates(cls, value: bool, info: ValidationInfo) -> bool:
        if not value and info.data.get("cycle_steps", 0) > 0:
            raise ValueError("must be true with cycle_steps, which counts updates of equal size; remove it or set true")
        return value
