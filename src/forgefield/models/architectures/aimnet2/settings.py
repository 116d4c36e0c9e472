"""Settings of AIMNet2."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from forgefield.core.settings import Settings


class AevSettings(Settings):
    """Radial functions of the atomic environment; vectors have the scalars' functions unless rc_v is given."""

    rc_s: float = Field(5.0, gt=0, description="Cutoff radius, Å.")
    nshifts_s: int = Field(16, ge=2, le=128, description="Number of Gaussians.")
    rmin: float = Field(0.8, ge=0, description="Centre of the first Gaussian, Å.")
    eta_s: float | None = Field(None, gt=0, description="Width, 1/Å^2; null = (nshifts_s / (rc_s - rmin))^2.")
    shifts_s: list[float] | None = Field(None, description="Centres, Å; null = evenly from rmin to before rc_s.")
    rc_v: float | None = Field(None, gt=0, description="Cutoff of the vectors' own functions, Å; null = none.")
    nshifts_v: int | None = Field(None, ge=2, le=128, description="Number of the vectors' Gaussians, with rc_v.")
    eta_v: float | None = Field(None, gt=0, description="Their width, 1/Å^2, with rc_v.")
    shifts_v: list[float] | None = Field(None, description="Their centres, Å, with rc_v.")

    @model_validator(mode="after")
    def _fits(self) -> AevSettings:
        if self.rmin >= min(self.rc_s, self.rc_v or self.rc_s):
            raise ValueError("rmin must be smaller than rc_s and rc_v")
        if self.rc_v is None and (self.nshifts_v or self.eta_v or self.shifts_v):
            raise ValueError("nshifts_v, eta_v and shifts_v have an effect only with rc_v")
        if self.rc_v is not None and self.rc_v > self.rc_s:
            raise ValueError("rc_v must not be larger than rc_s")
        for shifts, count, name in (
            (self.shifts_s, self.nshifts_s, "shifts_s"),
            (self.shifts_v, self.n_vector, "shifts_v"),
        ):
            if shifts is not None and len(shifts) != count:
                raise ValueError(f"{name}: give {count} centres, as many as there are Gaussians")
        return self

    @property
    def n_vector(self) -> int:
        """Number of radial functions of the vectors."""
        return self.nshifts_v or self.nshifts_s


class Aimnet2Settings(Settings):
    """Shape of an AIMNet2 model (Anstine, Zubatyuk, Isayev 2025). Defaults are those of the published models."""

    aev: AevSettings = Field(AevSettings(), description="Radial functions.")
    nfeature: int = Field(16, ge=1, le=512, description="Features of an atom, A.")
    d2features: bool = Field(True, description="One value of each feature for each radial function: A x nshifts_s.")
    ncomb_v: int = Field(12, ge=1, le=512, description="Combinations of a feature's radial functions in vectors.")
    hidden: list[list[int]] = Field(
        [[512, 380], [512, 380], [512, 380, 380]], description="Hidden widths of the network of each pass."
    )
    aim_size: int = Field(256, ge=1, description="Width of the last pass's output, which energies are read from.")
    energy_hidden: list[int] = Field([128, 128], description="Hidden widths of the energy's network, per head.")
    num_charge_channels: Literal[1, 2] = Field(
        1, description="1 = closed shell; 2 = charges of both spins, for which structures must state multiplicities."
    )
    moments_about: Literal["origin", "mass"] = Field(
        "origin", description="What dipoles and quadrupoles refer to: the origin, or the centre of mass."
    )

    @model_validator(mode="after")
    def _fits(self) -> Aimnet2Settings:
        if len(self.hidden) < 2:
            raise ValueError("hidden: give at least two passes; charges come from all but the last")
        if min((w for widths in (*self.hidden, self.energy_hidden) for w in widths), default=1) < 1:
            raise ValueError("hidden, energy_hidden: widths must be 1 or more")
        if not all(self.hidden) or not self.energy_hidden:
            raise ValueError("hidden, energy_hidden: give at least one width for each network")
        if self.d2features and self.aev.n_vector != self.aev.nshifts_s:
            raise ValueError("aev.nshifts_v: d2features asks for as many functions of the vectors as of the scalars")
        return self
