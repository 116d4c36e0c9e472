"""Keys of the `train` block: what is trained on, in which order, for how long."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import AliasChoices, Field, ValidationInfo, field_validator, model_validator

from forgefield.core.settings import Settings
from forgefield.data.batching import Limits, Oversize


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
    batch_size: int | None = Field(
        10,
        ge=1,
        description="Structures per batch; null where max_atoms or max_edges decides alone. Left out beside them it is "
        "null; given beside them it is a limit too.",
    )
    max_atoms: int | None = Field(
        None,
        ge=1,
        description="Most atoms in a batch: structures are packed evenly into as few batches as the limits allow, "
        "anew for each epoch; every epoch has the same number of batches. null = no limit.",
    )
    max_edges: int | None = Field(
        None,
        ge=1,
        description="Most edges (directed neighbour pairs within the cutoff) in a batch, packed as for max_atoms; "
        "memory and time follow the edges most closely. null = no limit.",
    )
    same_size: bool = Field(
        False, description="Put only structures with the same number of atoms into a batch; batch_size is the most."
    )
    same_fidelity: bool = Field(
        False,
        description="Put only structures of one fidelity (head) into a batch; false: levels are mixed in batches.",
    )
    oversize: Oversize = Field(
        "refuse",
        description="A structure that exceeds max_atoms or max_edges by itself: refuse (one message with its index), "
        "or alone (it makes a batch of its own).",
    )
    num_workers: int = Field(
        0,
        ge=0,
        description="Processes that read structures, find neighbours and build graphs ahead; batches and digits stay "
        "the same. 0 = none: batches are built between the steps, which is best where the model runs on the CPU.",
    )
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
    max_cpu_minutes: float | None = Field(
        None,
        gt=0,
        description="Stop at the first update after so many minutes of computing: of all cores, for this process and "
        "those that read data or compile for it (of several training processes the first to get there decides). "
        "Validation counts, other programs on the machine do not; resume continues with as many anew. null = no limit.",
    )

    @model_validator(mode="before")
    @classmethod
    def _cycles_drop_last(cls, data: Any) -> Any:
        """Cycles need updates of equal size, so `drop_last` is true unless it is said to be false."""
        if isinstance(data, dict) and data.get("cycle_steps") and "drop_last" not in data:
            return {**data, "drop_last": True}
        return data

    @model_validator(mode="before")
    @classmethod
    def _budget_instead(cls, data: Any) -> Any:
        """A budget of atoms or edges takes the place of the usual number of structures."""
        if isinstance(data, dict) and (data.get("max_atoms") or data.get("max_edges")) and "batch_size" not in data:
            return {**data, "batch_size": None}
        return data

    @model_validator(mode="after")
    def _something_limits(self) -> Self:
        if self.batch_size is None and self.max_atoms is None and self.max_edges is None:
            raise ValueError("batch_size: null needs max_atoms or max_edges, which then limit the batches")
        return self

    @field_validator("oversize")
    @classmethod
    def _has_a_budget(cls, value: Oversize, info: ValidationInfo) -> Oversize:
        if value == "alone" and info.data.get("max_atoms") is None and info.data.get("max_edges") is None:
            raise ValueError("alone has an effect with max_atoms or max_edges only; remove it")
        return value

    @property
    def limits(self) -> Limits:
        """What no batch may exceed."""
        return Limits(
            self.batch_size, self.max_atoms, self.max_edges, self.same_size, self.oversize, self.same_fidelity
        )

    @field_validator("drop_last")
    @classmethod
    def _whole_updates(cls, value: bool, info: ValidationInfo) -> bool:
        if not value and info.data.get("cycle_steps", 0) > 0:
            raise ValueError("must be true with cycle_steps, which counts updates of equal size; remove it or set true")
        return value
