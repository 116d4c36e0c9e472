"""Settings of MACE."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from forgefield.core.settings import Settings

_TERM = re.compile(r"^\s*(\d+)x(\d+)([eo])\s*$")

Interaction = Literal["plain", "residual", "density", "density_residual"]


def parse_irreps(text: str) -> list[tuple[int, int]]:
    """Read irreps such as "64x0e + 64x1o" as (multiplicity, degree) pairs of natural parity."""
    found = []
    for term in text.split("+"):
        match = _TERM.match(term)
        if not match:
            raise ValueError(f"{term.strip()!r} is no irrep; write terms like 64x0e + 64x1o")
        degree = int(match[2])
        if match[3] != "eo"[degree % 2]:
            raise ValueError(f"{term.strip()!r}: only natural parity is supported (0e, 1o, 2e, 3o)")
        found.append((int(match[1]), degree))
    return found


class MaceSettings(Settings):
    """Shape of a MACE model (Batatia et al. 2022, arXiv 2206.07697). Defaults suit a small first model."""

    r_max: float = Field(5.0, gt=0, description="Cutoff radius, Å.")
    hidden_irreps: str = Field(
        "32x0e + 32x1o", description="Features of an atom: channels x degree and parity; same channels for each degree."
    )
    max_ell: int = Field(3, ge=0, le=6, description="Highest degree of the spherical harmonics on the edges.")
    correlation: int | list[int] = Field(
        3, description="Body order minus one of each interaction: 1 to 4; one number, or one per interaction."
    )
    num_interactions: int = Field(2, ge=1, le=6, description="Message passing layers.")
    interaction_first: Interaction = Field(
        "residual", description="Kind of the first interaction; plain has no self-connection."
    )
    interaction: Interaction = Field(
        "residual",
        description="Kind of the later interactions; density kinds normalise by a learned count of neighbours.",
    )
    radial_type: Literal["bessel", "gaussian", "chebyshev"] = Field("bessel", description="Radial basis.")
    num_radial_basis: int = Field(8, ge=2, le=512, description="Number of radial basis functions.")
    num_polynomial_cutoff: int = Field(5, ge=2, le=20, description="Order p of the polynomial cutoff.")
    distance_transform: Literal["none", "agnesi", "soft"] = Field(
        "none", description="Transform of the distance before the basis, scaled by the covalent radii."
    )
    radial_mlp: list[int] = Field([64, 64, 64], description="Hidden widths of the radial networks.")
    mlp_irreps: str = Field("16x0e", description="Hidden features of the last readout (scalars), per head.")
    pair_repulsion: bool = Field(False, description="Add the ZBL nuclear repulsion below the sum of covalent radii.")
    use_agnostic_product: bool = Field(False, description="Share the contraction weights between the elements.")
    use_last_readout_only: bool = Field(False, description="Read energies from the last interaction only.")
    use_reduced_cg: bool = Field(False, description="Weights for linearly independent coupling paths only.")

    @field_validator("hidden_irreps", "mlp_irreps")
    @classmethod
    def _readable(cls, text: str) -> str:
        parse_irreps(text)
        return text

    @field_validator("radial_mlp")
    @classmethod
    def _positive(cls, sizes: list[int]) -> list[int]:
        if not sizes or min(sizes) < 1:
            raise ValueError("give at least one width, each 1 or more")
        return sizes

    @model_validator(mode="after")
    def _fits(self) -> MaceSettings:
        hidden = parse_irreps(self.hidden_irreps)
        degrees = [l for _, l in hidden]
        if len({mul for mul, _ in hidden}) != 1:
            raise ValueError("hidden_irreps: give every degree the same number of channels")
        if degrees[0] != 0 or degrees != sorted(set(degrees)):
            raise ValueError("hidden_irreps: start with 0e, then each degree once, ascending")
        if degrees[-1] > self.max_ell * min(self.correlations):
            raise ValueError(
                f"hidden_irreps: degree {degrees[-1]} is out of reach of max_ell {self.max_ell} and the correlation"
            )
        if self.radial_type == "chebyshev" and self.distance_transform != "agnesi":
            raise ValueError("radial_type chebyshev grows like r^n beyond 1 Å: set distance_transform: agnesi")
        mlp = parse_irreps(self.mlp_irreps)
        if len(mlp) != 1 or mlp[0][1] != 0:
            raise ValueError("mlp_irreps: scalars only, such as 16x0e")
        orders = self.correlations
        if len(orders) != self.num_interactions or not all(1 <= c <= 4 for c in orders):
            raise ValueError("correlation: 1 to 4, one number or one per interaction")
        return self

    @property
    def channels(self) -> int:
        """Channels C of each degree."""
        return parse_irreps(self.hidden_irreps)[0][0]

    @property
    def hidden_degrees(self) -> list[int]:
        """Degrees of the features between layers."""
        return [l for _, l in parse_irreps(self.hidden_irreps)]

    @property
    def mlp_width(self) -> int:
        """Hidden width of the last readout, per head."""
        return parse_irreps(self.mlp_irreps)[0][0]

    @property
    def correlations(self) -> list[int]:
        """Correlation of each interaction."""
        return [self.correlation] * self.num_interactions if isinstance(self.correlation, int) else self.correlation
