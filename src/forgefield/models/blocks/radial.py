"""Radial bases, distance transforms and the cutoff, each with its derivative."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from forgefield.core.elements import covalent_radii


def polynomial_cutoff(x: Tensor, p: int) -> tuple[Tensor, Tensor]:
    """Smooth step from 1 at x = 0 to 0 at x = 1, with its derivative; zero beyond.

    Args:
        x: distance over cutoff, any shape.
        p: order; value and p-1 derivatives vanish at 1.

    Source:
        Gasteiger et al., Directional Message Passing (2020), equation 8.
    """
    a, b, c = (p + 1) * (p + 2) / 2, p * (p + 2), p * (p + 1) / 2
    low = x ** (p - 1)
    value = 1.0 - low * x * (a - x * (b - c * x))
    slope = -low * (a * p - x * (b * (p + 1) - c * (p + 2) * x))
    inside = x < 1.0
    return torch.where(inside, value, torch.zeros_like(x)), torch.where(inside, slope, torch.zeros_like(x))


class BesselBasis(nn.Module):
    """sqrt(2/R) sin(n pi r / R) / r for n = 1..B.

    Source:
        Gasteiger et al., Directional Message Passing (2020), equation 7.
    """

    def __init__(self, cutoff: float, size: int) -> None:
        super().__init__()
        self.scale = math.sqrt(2.0 / cutoff)
        wave = math.pi / cutoff * torch.arange(1, size + 1, dtype=torch.float64)
        self.register_buffer("wave", wave, persistent=False)

    def forward(self, r: Tensor) -> tuple[Tensor, Tensor]:
        """Value and derivative at distances (P, 1), Å: twice (P, B)."""
        inverse = 1.0 / r
        phase = self.wave * r
        value = self.scale * torch.sin(phase) * inverse
        return value, (self.scale * torch.cos(phase) * self.wave - value) * inverse


class GaussianBasis(nn.Module):
    """Gaussians centred on an even grid over [0, R], as wide as their spacing."""

    def __init__(self, cutoff: float, size: int) -> None:
        super().__init__()
        self.register_buffer("centre", torch.linspace(0.0, cutoff, size, dtype=torch.float64), persistent=False)
        self.rate = -0.5 / (cutoff / (size - 1)) ** 2

    def forward(self, r: Tensor) -> tuple[Tensor, Tensor]:
        """Value and derivative at distances (P, 1), Å: twice (P, B)."""
        away = r - self.centre
        value = torch.exp(self.rate * away * away)
        return value, 2.0 * self.rate * away * value


class ChebyshevBasis(nn.Module):
    """Chebyshev polynomials T_1..T_B of the (transformed) distance itself, as MACE has them.

    They grow like r^n beyond 1 Å: of use only with a distance transform onto (0, 1), which the settings demand.
    """

    def __init__(self, cutoff: float, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, r: Tensor) -> tuple[Tensor, Tensor]:
        """Value and derivative at distances (P, 1): twice (P, B)."""
        t, d = [torch.ones_like(r), r], [torch.zeros_like(r), torch.ones_like(r)]
        for _ in range(2, self.size + 1):
            t.append(2.0 * r * t[-1] - t[-2])
            d.append(2.0 * t[-2] + 2.0 * r * d[-1] - d[-2])
        return torch.cat(t[1 : self.size + 1], -1), torch.cat(d[1 : self.size + 1], -1)


class AgnesiTransform(nn.Module):
    """Maps distances to (0, 1), steep where two atoms bond.

    Source:
        Witt et al., ACEpotentials.jl, J. Chem. Phys. 159 (2023) 164101; constants as in MACE-MP.
    """

    def __init__(self, q: float = 0.9183, p: float = 4.5791, a: float = 1.0805) -> None:
        super().__init__()
        self.q, self.p, self.a = q, p, a
        self.register_buffer("radii", torch.as_tensor(covalent_radii), persistent=False)

    def forward(self, r: Tensor, z_first: Tensor, z_second: Tensor) -> tuple[Tensor, Tensor]:
        """Transformed distance and its derivative, (P, 1), for atomic numbers (P,)."""
        middle = 0.5 * (self.radii[z_first] + self.radii[z_second]).unsqueeze(-1)
        x = r / middle
        up, lift = x**self.q, x ** (self.q - self.p)
        ratio = up / (1.0 + lift)
        value = 1.0 / (1.0 + self.a * ratio)
        slope = ratio / x * (self.q - (self.q - self.p) * lift / (1.0 + lift))
        return value, -self.a * slope / middle * value * value


class SoftTransform(nn.Module):
    """Follows the distance beyond the bond length and flattens below it, with a tanh step between."""

    def __init__(self, alpha: float = 4.0) -> None:
        super().__init__()
        self.alpha = alpha
        self.register_buffer("radii", torch.as_tensor(covalent_radii), persistent=False)

    def forward(self, r: Tensor, z_first: Tensor, z_second: Tensor) -> tuple[Tensor, Tensor]:
        """Transformed distance and its derivative, (P, 1), for atomic numbers (P,)."""
        bond = (self.radii[z_first] + self.radii[z_second]).unsqueeze(-1)
        low, high = 0.75 * bond, bond * (4.0 / 3.0)
        rate = self.alpha / (high - low)
        step = torch.tanh(rate * (r - 0.5 * (low + high)))
        half = 0.5 * (1.0 + step)
        return low + (r - low) * half, half + (r - low) * 0.5 * rate * (1.0 - step * step)


BASES = {"bessel": BesselBasis, "gaussian": GaussianBasis, "chebyshev": ChebyshevBasis}
TRANSFORMS = {"none": None, "agnesi": AgnesiTransform, "soft": SoftTransform}


class RadialBasis(nn.Module):
    """Basis of the (transformed) distance times the cutoff of the true distance.

    Args:
        kind: a name of BASES.
        cutoff: R, Å.
        size: number of functions B.
        envelope: order of the polynomial cutoff.
        transform: a name of TRANSFORMS.
    """

    def __init__(self, kind: str, cutoff: float, size: int, envelope: int, transform: str = "none") -> None:
        super().__init__()
        self.cutoff, self.envelope = cutoff, envelope
        self.basis = BASES[kind](cutoff, size)
        maker = TRANSFORMS[transform]
        self.transform = maker() if maker else None

    def forward(self, r: Tensor, z_first: Tensor, z_second: Tensor) -> tuple[Tensor, Tensor]:
        """Value and derivative by the distance, twice (P, B), at distances (P, 1), Å."""
        step, d_step = polynomial_cutoff(r / self.cutoff, self.envelope)
        if self.transform is None:
            value, slope = self.basis(r)
        else:
            t, d_t = self.transform(r, z_first, z_second)
            value, slope = self.basis(t)
            slope = slope * d_t
        return value * step, slope * step + value * (d_step / self.cutoff)
