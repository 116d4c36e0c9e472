"""`model.baseline`: the level of theory that a model corrects."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from forgefield.core.settings import Settings

Method = Literal["gfn2-xtb", "gfn1-xtb", "labels"]
ENERGETIC = ("energy", "forces", "stress")
"""What is always learned as a difference."""
OF_THE_PROGRAM = ("accuracy", "temperature", "max_iterations")
OF_LABELS = ("level", "dispersion")


class BaselineSettings(Settings):
    """`model.baseline`: the model learns what this level of theory lacks of the labels."""

    method: Method = Field(
        description="gfn2-xtb or gfn1-xtb: computed by tblite, in training where the data bring no base labels, and "
        "always where the model is used. labels: the base labels of the data (data.base), of a level that is not known "
        "here; the model alone is then a correction.",
    )
    targets: tuple[Literal["charges", "dipole"], ...] = Field(
        default=(),
        description="Further trained quantities that are learned as differences too; energies, forces and stress "
        "always are. Those left out are learned as they are labelled.",
    )
    accuracy: float = Field(
        default=0.1, gt=0.0, description="Thresholds of tblite relative to its own defaults; smaller is more exact."
    )
    temperature: float = Field(default=300.0, ge=0.0, description="Electronic temperature of tblite, K.")
    max_iterations: int = Field(default=250, ge=1, description="Iterations after which tblite gives a structure up.")
    level: str | None = Field(
        default=None, min_length=1, description="With labels: what level they are of, in words; kept with the model."
    )
    dispersion: Literal["included", "absent"] | None = Field(
        default=None,
        description="With labels: whether the base labels include dispersion. Needed where a term of model.physics "
        "adds some. GFN1-xTB includes D3, GFN2-xTB D4.",
    )

    @field_validator(*OF_THE_PROGRAM, *OF_LABELS)
    @classmethod
    def _has_an_effect(cls, value: Any, info: ValidationInfo) -> Any:
        method = info.data.get("method")
        if method is None or value == cls.model_fields[str(info.field_name)].default:
            return value
        if (method == "labels") == (info.field_name in OF_THE_PROGRAM):
            other = "a method that tblite computes" if method == "labels" else "method labels"
            raise ValueError(f"has an effect with {other} only; remove it")
        return value

    @property
    def computed(self) -> bool:
        """Whether the level can be computed here."""
        return self.method != "labels"

    @property
    def name(self) -> str:
        """What the level is called in messages."""
        return self.method if self.computed else self.level or "the level of the base labels"

    @property
    def learned(self) -> tuple[str, ...]:
        """Names of the quantities that are learned as differences."""
        return (*ENERGETIC, *self.targets)

    @property
    def has_dispersion(self) -> bool | None:
        """Whether the level includes dispersion; None if that is not stated."""
        if self.computed:
            return True
        return None if self.dispersion is None else self.dispersion == "included"


def as_baseline(value: Any) -> Any:
    """Accept the name of a method alone; say what is missing from a mapping.

    Raises:
        ValueError: it is given by level of theory.
    """
    if isinstance(value, str):
        return {"method": value}
    if isinstance(value, dict) and value and not set(value) & set(BaselineSettings.model_fields):
        raise ValueError("one baseline serves all levels of theory: give {method: gfn2-xtb}, no map of levels")
    return value
