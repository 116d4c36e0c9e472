"""Settings of the D3 term, and the parameters of each head that follow from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import Field, model_validator

from forgefield.core.errors import ConfigError
from forgefield.core.settings import Settings
from forgefield.models.physics.d3.tables import Damping, damping_of

NONE = Damping(0.0, 0.0, 0.0, 1.0)
"""No dispersion."""


class D3Settings(Settings):
    """Settings of the D3(BJ) dispersion."""

    functional: str | dict[str, str | None] | None = Field(
        None,
        description="Functional whose published parameters are used (pbe, b3lyp, wb97m, ...), or a map from head to "
        "functional (null: no dispersion for this head). Names are matched whole.",
    )
    s6: float | None = Field(None, ge=0, description="Free parameter instead of a functional's; default 1.")
    s8: float | None = Field(None, description="Free parameter instead of a functional's.")
    a1: float | None = Field(None, description="Free parameter instead of a functional's.")
    a2: float | None = Field(None, ge=0, description="Free parameter instead of a functional's, Bohr, as published.")
    cutoff: float = Field(32.5, gt=0, le=60, description="Pairs up to this distance have dispersion energy, Å.")
    cutoff_width: float = Field(1.5, ge=0, description="The energy of a pair fades over this last stretch, Å; 0 cuts.")
    cn_cutoff: float = Field(21.9, gt=0, le=60, description="Neighbours up to this distance are counted, Å.")
    cn_cutoff_width: float = Field(1.5, ge=0, description="The count fades over this last stretch, Å; 0 cuts.")

    @model_validator(mode="after")
    def _fits(self) -> D3Settings:
        """A functional or parameters, never both; widths within their cutoffs."""
        free = [name for name in ("s6", "s8", "a1", "a2") if getattr(self, name) is not None]
        if self.functional is not None and free:
            raise ValueError(f"give either a functional or {', '.join(free)}, not both")
        if self.functional is None and not {"s8", "a1", "a2"} <= set(free):
            raise ValueError("name a functional, for example pbe, or give s8, a1 and a2")
        for end, width in (("cutoff", "cutoff_width"), ("cn_cutoff", "cn_cutoff_width")):
            if getattr(self, width) >= getattr(self, end):
                raise ValueError(f"{width} must be smaller than {end}")
        return self


def damping_by_head(settings: D3Settings, heads: Sequence[str]) -> list[Damping]:
    """Parameters of each head.

    Raises:
        ConfigError: a functional is not known, or the map lacks a head.
    """
    if settings.functional is None:
        given = {name: value for name in Damping._fields if (value := getattr(settings, name)) is not None}
        return [Damping(**{"s6": 1.0, **given})] * len(heads)
    if isinstance(settings.functional, str):
        return [damping_of(settings.functional)] * len(heads)
    return _mapped(settings.functional, heads)


def _mapped(functional: Mapping[str, str | None], heads: Sequence[str]) -> list[Damping]:
    """Parameters of each head; names of other heads are passed over, so that a level can be taken out of a model."""
    absent = [name for name in heads if name not in functional]
    if absent:
        fix = f"name it, null if it needs none; there are: {', '.join(functional)}"
        raise ConfigError(f"no functional for the head {absent[0]!r}", "physics.d3.functional", fix)
    chosen = [functional[name] for name in heads]
    return [NONE if name is None else damping_of(name) for name in chosen]
