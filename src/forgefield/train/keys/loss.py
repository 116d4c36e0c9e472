"""Keys of the `train` block: what is minimised."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, ValidationInfo, field_validator

from forgefield.core.catalog import Catalog
from forgefield.core.quantities import DERIVED, QUANTITIES, Normalization
from forgefield.core.settings import Settings
from forgefield.train.catalogs import LOSSES, as_value_error

_KINDS: dict[str, Any] = {"enum": list(Catalog(LOSSES).names())}
_TARGET_KINDS: dict[str, Any] = {"enum": ["auto", *Catalog(LOSSES).names()]}
QUANTITY_KEYS = {"energy": "energy", "forces": "force", "stress": "stress"}
"""Quantities with keys of their own: `energy_weight`, `loss_energy`, `energy_normalization` and so on."""
_SHAPES = {"huber_delta": "huber", "smooth_l1_beta": "smooth_l1"}  # key of a loss -> the loss


class TargetSettings(Settings):
    """The loss of one further quantity."""

    weight: float = Field(1.0, ge=0, description="Weight of its loss.")
    loss: str = Field(
        "auto",
        description="Kind of its loss: mse, mae, huber, mae_plus_rmse, ...; auto: cross_entropy for a class "
        "(data.targets with a threshold), mse for numbers.",
        json_schema_extra=_TARGET_KINDS,
    )
    normalization: Normalization | None = Field(
        None, description="As energy_normalization; null = per_atom for charges and virial, total for the dipole."
    )


class LossKeys(Settings):
    """What is minimised."""

    energy_weight: float = Field(1.0, ge=0, description="Weight of the energy loss.")
    force_weight: float = Field(100.0, ge=0, description="Weight of the force loss.")
    targets: dict[str, TargetSettings] = Field(
        default_factory=dict,
        description="Further quantities: virial (of the stress labels), charges, spin_charges, dipole, or a name from "
        "data.targets; each {weight: 1.0, loss: mse, normalization: ...}. The model must predict them. "
        "Their errors are recorded like those of forces, with weight 0 too.",
    )
    stress_weight: float = Field(0.0, ge=0, description="Weight of the stress loss.")
    energy_normalization: Normalization = Field(
        "per_atom",
        description="per_atom: loss of the energy error divided by the number of atoms n; total or per_structure: of "
        "the error as it is; sqrt_atoms: that loss divided by √n. Then the mean over structures.",
    )
    force_normalization: Normalization = Field(
        "per_atom",
        description="per_atom: mean over all labelled atoms; per_structure: mean over those of each structure, then "
        "over structures; total, sqrt_atoms: sum over those of a structure (divided by √n), then mean over structures.",
    )
    stress_normalization: Normalization = Field("total", description="As energy_normalization.")
    loss_energy: str = Field(
        "mse",
        description="mse, mae, huber, smooth_l1, or mae_plus_rmse: mean absolute error plus the root of the mean "
        "squared one, over all of an update; with train.accum_steps above 1 each batch is predicted twice.",
        json_schema_extra=_KINDS,
    )
    loss_force: str = Field("mse", description="As loss_energy; also l2mae or atomwisel2.", json_schema_extra=_KINDS)
    loss_stress: str = Field("mse", description="As loss_energy.", json_schema_extra=_KINDS)
    huber_delta: PositiveFloat | dict[str, PositiveFloat] = Field(
        0.01,
        description="huber: error above which the loss is linear, in the unit of the quantity (per atom where it is "
        "normalised so); one number, or one for each quantity: {energy: 0.01, forces: 0.05}.",
    )
    smooth_l1_beta: PositiveFloat | dict[str, PositiveFloat] = Field(
        1.0, description="smooth_l1: error above which the loss is linear, as huber_delta."
    )
    train_on_free_atoms: bool = Field(
        False, description="Leave atoms held fixed (FixAtoms, move_mask, `fixed`) out of the force loss."
    )
    tag_weights: dict[int, NonNegativeFloat] = Field(
        default_factory=dict,
        description="Factor of atoms in the force loss by tag, {0: 0.0, 2: 2.0}; 0 leaves them out, tags not named "
        "have 1; an atom without tag has tag 0.",
    )
    missing_labels: Literal["refuse", "mask"] = Field(
        "refuse",
        description="Structures that lack a label with weight: refuse the data, or mask (train on what is there).",
    )

    @field_validator("energy_normalization", "force_normalization", "stress_normalization", mode="before")
    @classmethod
    def _with_effect(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse a normalisation of a loss that has no weight."""
        name = str(info.field_name)
        word = name.removesuffix("_normalization")
        if value != cls.model_fields[name].default and info.data.get(f"{word}_weight") == 0:
            raise ValueError(f"has no effect: {word}_weight is 0")
        return value

    @field_validator("loss_energy", "loss_force", "loss_stress")
    @classmethod
    def _defined(cls, value: str, info: ValidationInfo) -> str:
        from forgefield.train.loss import build_term  # needs torch, which not every use of the settings does

        name = str(info.field_name)
        if value == cls.model_fields[name].default:
            return value
        quantity = next(q for q, word in QUANTITY_KEYS.items() if f"loss_{word}" == name)
        normalization = info.data.get(f"{QUANTITY_KEYS[quantity]}_normalization")
        as_value_error(lambda: build_term(quantity, value, normalization))
        return value

    @field_validator("targets")
    @classmethod
    def _targets_defined(cls, value: dict[str, TargetSettings]) -> dict[str, TargetSettings]:
        for name, target in value.items():
            if name in QUANTITY_KEYS:
                raise ValueError(
                    f"{name} has keys of its own: {QUANTITY_KEYS[name]}_weight, loss_{QUANTITY_KEYS[name]}"
                )
            known = {**QUANTITIES, **DERIVED}.get(name)
            if target.loss not in ("auto", *Catalog(LOSSES).names()):
                as_value_error(lambda target=target: Catalog(LOSSES).entry(target.loss))
            if known is not None and target.loss != "auto":
                _check_target(name, target)
        return value

    @field_validator("stress_weight")
    @classmethod
    def _something_to_fit(cls, value: float, info: ValidationInfo) -> float:
        others = (info.data.get("energy_weight"), info.data.get("force_weight"))
        if (value, *others) == (0, 0, 0) and not any(t.weight for t in info.data.get("targets", {}).values()):
            raise ValueError("energy_weight, force_weight and stress_weight are all 0: there is nothing to fit")
        return value

    @field_validator("huber_delta", "smooth_l1_beta")
    @classmethod
    def _shape_used(cls, value: Any, info: ValidationInfo) -> Any:
        name = str(info.field_name)
        kinds = {quantity: info.data.get(f"loss_{word}") for quantity, word in QUANTITY_KEYS.items()}
        kinds |= {quantity: target.loss for quantity, target in info.data.get("targets", {}).items()}
        using = sorted(quantity for quantity, kind in kinds.items() if kind == _SHAPES[name])
        if isinstance(value, dict) and sorted(value) != using:
            raise ValueError(
                f"names {', '.join(value) or 'nothing'}; of loss {_SHAPES[name]} are {', '.join(using) or 'none'}"
            )
        if value != cls.model_fields[name].default and not using:
            raise ValueError(f"has no effect: no loss is {_SHAPES[name]}")
        return value

    @field_validator("train_on_free_atoms", "tag_weights")
    @classmethod
    def _forces_trained(cls, value: Any, info: ValidationInfo) -> Any:
        if value and info.data.get("force_weight") == 0:
            raise ValueError("has no effect: force_weight is 0")
        return value

    def loss_weights(self, stage: int = 1) -> dict[str, float]:
        """Weight of each quantity, 0 included, in a stage of the fit."""
        weights = {quantity: float(getattr(self, f"{word}_weight")) for quantity, word in QUANTITY_KEYS.items()}
        weights |= {name: target.weight for name, target in self.targets.items()}
        second = getattr(self, "stage_two", None)
        return weights if stage == 1 or second is None else second.weights(weights)

    def trained_labels(self) -> set[str]:
        """Labels that the loss of any stage needs."""
        found = {name for stage in (1, 2) for name, weight in self.loss_weights(stage).items() if weight > 0}
        return {DERIVED[name].label if name in DERIVED else name for name in found}

    def shape_of(self, key: str, quantity: str) -> float:
        """Value of a key of a loss for one quantity."""
        value = getattr(self, key)
        return float(value[quantity] if isinstance(value, dict) else value)


def keys_of(settings: LossKeys, quantity: str) -> tuple[str, Normalization | None]:
    """Return the kind of loss and the normalisation of a quantity; None = the quantity's own."""
    if quantity in QUANTITY_KEYS:
        word = QUANTITY_KEYS[quantity]
        return getattr(settings, f"loss_{word}"), getattr(settings, f"{word}_normalization")
    target = settings.targets[quantity]
    return target.loss, target.normalization


def _check_target(name: str, target: TargetSettings) -> None:
    from forgefield.train.loss import build_term

    as_value_error(lambda: build_term(name, target.loss, target.normalization))
