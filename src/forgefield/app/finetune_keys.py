"""Keys of the `finetune` block: what is changed about the loaded model before it is trained further."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from forgefield.core.settings import Settings
from forgefield.data.label_names import LabelKeys
from forgefield.data.label_units import LabelUnits


def _as_paths(value: object) -> object:
    if isinstance(value, (str, Path)):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


Paths = Annotated[tuple[Path, ...], BeforeValidator(_as_paths, json_schema_input_type=str | list[str])]


class ReplaySettings(Settings):
    """`finetune.replay`: old data that are trained on beside the new, so that the model does not forget them."""

    data: Paths = Field(default=(), description="Old data: a file or a list of them; without it nothing is replayed.")
    val: Paths = Field(
        default=(), description="Old data to validate on; without it data.val_fraction of the old data is taken."
    )
    fraction: float | None = Field(
        default=None,
        gt=0.0,
        lt=1.0,
        description="Share of old structures in every epoch; each epoch draws others. null: all of them, once per "
        "epoch. It holds for validation too.",
    )
    weight: float = Field(
        default=1.0, gt=0.0, description="Factor on the weights of the old structures in the loss, validation included."
    )
    head: str | None = Field(
        default=None, description="Head that the old data train, where they name none; null: the first of the model."
    )
    keys: LabelKeys = Field(default=LabelKeys(), description="Names of the labels in the old files.")
    units: LabelUnits = Field(default=LabelUnits(), description="Units and signs of the old files.")

    @model_validator(mode="before")
    @classmethod
    def _needs_data(cls, values: object) -> object:
        if isinstance(values, dict) and not values.get("data"):
            default = {name: field.get_default() for name, field in cls.model_fields.items()}
            for name, value in values.items():
                if name in default and value not in (default[name], None, [], ()) and value != _plain(default[name]):
                    raise ValueError(f"{name} has no effect without data, the old structures")
        return values


def _plain(value: object) -> object:
    return value.model_dump(mode="json") if isinstance(value, Settings) else value


class FinetuneSettings(Settings):
    """What is changed about the loaded model before it is trained further."""

    new_elements: Literal["refuse", "add"] = Field(
        default="refuse",
        description="Elements in the new data that the model does not know. add: every weight that depends on the "
        "element gets rows for them; predictions for known elements stay the same to the bit.",
    )
    new_element_start: Literal["nearest", "mean"] = Field(
        default="nearest",
        description="Weights that a new element begins with. nearest: those of the known element nearest in the "
        "periodic table (group before period); mean: the mean over all known elements.",
    )
    reference_energies: Literal["keep", "estimate", "given"] | None = Field(
        default=None,
        description="Reference energies (E0) of the heads that the new data train. keep: the model's; estimate: "
        "corrected by least squares on (label energy - model's energy) by composition; given: those of data.e0. "
        "null: given if data.e0 is set, else keep.",
    )
    head: str | None = Field(
        default=None,
        min_length=1,
        description="Name of a new head for the new data; the old heads stay. null: no new head, train.head_key "
        "chooses among those there are.",
    )
    copy_head: str | None = Field(
        default=None, description="Head whose readout, scale, shift and E0s the new one begins with; null: the first."
    )
    correction: bool = Field(
        default=False,
        description="The new head is the loaded model plus a correction, which a second network of the same shape "
        "learns; the loaded network stays as it is, unless train.freeze is null. false: the new head is a readout.",
    )
    drop_heads: tuple[str, ...] = Field(
        default=(), description="Heads to leave behind; one of them may still be copied."
    )
    replay: ReplaySettings = Field(default=ReplaySettings(), description="Old data trained on beside the new.")

    @field_validator("new_element_start")
    @classmethod
    def _adds(cls, value: str, info: ValidationInfo) -> str:
        if value != "nearest" and info.data.get("new_elements") == "refuse":
            raise ValueError("has no effect with new_elements: refuse; set new_elements: add")
        return value

    @field_validator("copy_head", "correction")
    @classmethod
    def _copies(cls, value: str | bool | None, info: ValidationInfo) -> str | bool | None:
        if value and info.data.get("head") is None:
            raise ValueError("has no effect without finetune.head, the name of the new head")
        return value
