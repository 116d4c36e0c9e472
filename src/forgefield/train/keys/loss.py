"""Keys of the `train` block: what is minimised."""

from __future__ import annotations

from pydantic import Field, ValidationInfo, field_validator

from forgefield.core.catalog import Catalog
from forgefield.core.settings import Settings
from forgefield.train.catalogs import LOSSES, as_value_error


class LossKeys(Settings):
    """What is minimised."""

    energy_weight: float = Field(1.0, ge=0, description="Weight of the energy loss.")
    force_weight: float = Field(100.0, ge=0, description="Weight of the force loss.")
    stress_weight: float = Field(0.0, ge=0, description="Weight of the stress loss.")
    loss_energy: str = Field(
        "mse",
        description="mse or mae of the energy per atom.",
        json_schema_extra={"enum": list(Catalog(LOSSES).names())},
    )
    loss_force: str = Field(
        "mse", description="mse, mae, l2mae or atomwisel2.", json_schema_extra={"enum": list(Catalog(LOSSES).names())}
    )
    loss_stress: str = Field(
        "mse", description="mse or mae.", json_schema_extra={"enum": list(Catalog(LOSSES).names())}
    )

    @field_validator("loss_energy", "loss_force", "loss_stress")
    @classmethod
    def _defined(cls, value: str, info: ValidationInfo) -> str:
        from forgefield.train.loss import build_term  # needs torch, which not every use of the settings does

        name = str(info.field_name)
        if value == cls.model_fields[name].default:
            return value
        quantity = {"loss_energy": "energy", "loss_force": "forces", "loss_stress": "stress"}[name]
        as_value_error(lambda: build_term(quantity, value))
        return value

    @field_validator("stress_weight")
    @classmethod
    def _something_to_fit(cls, value: float, info: ValidationInfo) -> float:
        if value == 0 and info.data.get("energy_weight") == 0 and info.data.get("force_weight") == 0:
            raise ValueError("energy_weight, force_weight and stress_weight are all 0: there is nothing to fit")
        return value
