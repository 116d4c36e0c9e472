"""Settings of XPaiNN."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from forgefield.core.settings import Settings
from forgefield.models.architectures.xpainn.irreps import Irreps, parse_irreps

Mode = Literal["energy", "charges", "dipole", "polar", "scalar", "spatial", "cartesian"]
KINKED = ("relu", "leakyrelu")


class EwaldSettings(Settings):
    """Message passing between all atoms of a crystal, by way of reciprocal vectors, after the action blocks."""

    use_pbc: bool = Field(True, description="Waves with the crystal's period; there are no others, see docs/xpainn.md.")
    projection_dim: int = Field(8, ge=1, le=512, description="Numbers of each wave that filters are made of.")
    ewald_blocks: int = Field(1, ge=1, le=8, description="Number of blocks.")
    num_k_points: tuple[int, int, int] = Field(
        (3, 3, 3), description="Highest index of reciprocal vectors along each lattice vector."
    )

    @model_validator(mode="after")
    def _fits(self) -> EwaldSettings:
        if not self.use_pbc:
            raise ValueError(
                "use_pbc: false takes a fixed grid of waves, on which energies depend on how a molecule is turned; for "
                "molecules leave ewald out, raise the cutoff, or add model.physics.coulomb"
            )
        if min(self.num_k_points) < 0 or max(self.num_k_points) < 1:
            raise ValueError("num_k_points: give three numbers, none below 0 and one above")
        return self


class XpainnSettings(Settings):
    """Shape of an XPaiNN model. Names are XequiNet's; docs/xpainn.md tells its defaults and what differs."""

    node_dim: int = Field(64, ge=1, le=4096, description="Scalar features of an atom.")
    node_irreps: str = Field(
        "64x0e + 32x1o + 16x2e", description="Equivariant features, degrees 0 to 4; harmonics of these are taken."
    )
    embed_basis: Literal["gfn2-xtb", "gfn1-xtb", "one-hot"] = Field(
        "gfn2-xtb", description="Elements as overlaps of their GFN-xTB orbitals, or as learned vectors (one-hot)."
    )
    aux_basis: Literal["aux56", "aux28"] = Field("aux56", description="Gaussians that the orbitals overlap with.")
    num_basis: int = Field(20, ge=2, le=256, description="Number of radial functions.")
    rbf_kernel: Literal["bessel", "gaussian", "expnorm", "expbern"] = Field("bessel", description="Radial functions.")
    cutoff: float = Field(5.0, gt=0, description="Cutoff radius, Å.")
    cutoff_fn: Literal["polynomial", "cosine", "exponential"] = Field(
        "polynomial",
        description="How messages end at the cutoff. cosine: with a jump of the second derivative, so that forces "
        "have a kink there; the others: smoothly.",
    )
    action_blocks: int = Field(3, ge=1, le=32, description="Number of blocks of message and update.")
    activation: Literal["silu", "softplus"] = Field("silu", description="Activation of all networks.")
    layer_norm: bool = Field(True, description="Normalise features before each message and update.")
    softness: float = Field(
        0.1,
        gt=0,
        le=10,
        description="e in the lengths sqrt(x^2 + e^2) - e and in the norm: how early features that vanish (by "
        "symmetry, at the cutoff) are seen to do so. XequiNet has 1e-6, with which forces jump there.",
    )
    charge_embed: bool = Field(False, description="Let atoms know the total charge, which structures must state.")
    spin_embed: bool = Field(False, description="Let atoms know the unpaired electrons: state the multiplicity.")
    output_modes: list[Mode] | None = Field(
        None, description="What is predicted; null: energies and all of train.targets. A list is checked against them."
    )
    hidden_dim: int = Field(64, ge=1, le=4096, description="Hidden width of the networks that read outputs.")
    hidden_irreps: str | None = Field(
        None,
        description="Channels between, of outputs that are vectors or tensors; null: 32x1o for dipoles, "
        "64x0e + 16x2e for polarizabilities, 16 of each degree for others.",
    )
    conservation: bool = Field(True, description="Shift charges evenly so that they sum to the total charge.")
    magnitude: bool = Field(False, description="Predict the length of the dipole too, as dipole_magnitude.")
    isotropic: bool = Field(False, description="Predict a third of the polarizability's trace too.")

    ewald: EwaldSettings | None = Field(
        None, description="Messages between all atoms of a crystal (XequiNet's xpainn-ewald); null: none."
    )

    @field_validator("output_modes", mode="before")
    @classmethod
    def _listed(cls, given: object) -> object:
        """Take one name as a list of one; atomic_charges is charges."""
        listed = [given] if isinstance(given, str) else given
        if isinstance(listed, list):
            return ["charges" if name == "atomic_charges" else name for name in listed]
        return listed

    @field_validator("activation", mode="before")
    @classmethod
    def _smooth(cls, given: object) -> object:
        if given in KINKED:
            raise ValueError(f"{given} has a kink, so that forces would jump; use silu or softplus")
        return given

    @field_validator("cutoff_fn", mode="before")
    @classmethod
    def _ends(cls, given: object) -> object:
        if given == "flat":
            raise ValueError("flat does not go to zero in any way that is known; use polynomial, cosine, exponential")
        return given

    @field_validator("node_irreps", "hidden_irreps")
    @classmethod
    def _readable(cls, text: str | None) -> str | None:
        if text is not None:
            parse_irreps(text)
        return text

    @model_validator(mode="after")
    def _fits(self) -> XpainnSettings:
        if self.embed_basis == "one-hot" and "aux_basis" in self.model_fields_set and self.aux_basis != "aux56":
            raise ValueError("aux_basis has an effect only with embed_basis gfn2-xtb or gfn1-xtb")
        if self.output_modes is not None and len(set(self.output_modes)) != len(self.output_modes):
            raise ValueError("output_modes: name each mode once")
        return self

    @property
    def irreps(self) -> Irreps:
        """Channels of the equivariant features."""
        return parse_irreps(self.node_irreps)
