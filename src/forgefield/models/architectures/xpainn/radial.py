"""Radial functions with learned parameters, and cutoffs that bring them to zero smoothly."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

NEAREST = 1e-5  # Å, added to distances that are divided by
SLOPE = 0.5 / 0.529177210903  # 1/Å, of the exponential that Bernstein polynomials begin with


class Bessel(nn.Module):
    """sqrt(2/R) sin(f_k r) / (r + 1e-5), f_k learned, at first k pi / R."""

    def __init__(self, size: int, cutoff: float) -> None:
        super().__init__()
        self.scale = math.sqrt(2.0 / cutoff)
        self.frequencies = nn.Parameter(math.pi / cutoff * torch.arange(1.0, size + 1))

    def forward(self, r: Tensor) -> Tensor:
        """Values (P, B) at distances (P, 1), Å."""
        return torch.sin(r * self.frequencies) * (self.scale / (r + NEAREST))


class Gaussian(nn.Module):
    """Normal densities around learned centres, at first evenly from 0 to R, of learned widths, at first 1 Å."""

    def __init__(self, size: int, cutoff: float) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.linspace(0.0, cutoff, size))
        self.widths = nn.Parameter(torch.ones(size))

    def forward(self, r: Tensor) -> Tensor:
        """Values (P, B) at distances (P, 1), Å."""
        rate = 1.0 / self.widths
        return torch.exp(-0.5 * ((r - self.centres) * rate) ** 2) * (rate.abs() / math.sqrt(2.0 * math.pi))


class ExponentialNormal(nn.Module):
    """exp(-b_k (exp(-r) - m_k)^2) with learned m_k, at first evenly from 1 to exp(-R), and b_k."""

    def __init__(self, size: int, cutoff: float) -> None:
        super().__init__()
        last = math.exp(-cutoff)
        self.centres = nn.Parameter(torch.linspace(1.0, last, size))
        self.rates = nn.Parameter((torch.arange(1.0, size + 1) / (2.0 * (1.0 - last))) ** 2)

    def forward(self, r: Tensor) -> Tensor:
        """Values (P, B) at distances (P, 1), Å."""
        return torch.exp(-self.rates * (torch.exp(-r) - self.centres) ** 2)


class Bernstein(nn.Module):
    """Bernstein polynomials of exp(-a r), a learned (Unke et al., SpookyNet, 2021)."""

    logarithms: Tensor
    powers: Tensor

    def __init__(self, size: int, cutoff: float) -> None:
        super().__init__()
        k = torch.arange(size, dtype=torch.float64)
        last = torch.tensor(float(size), dtype=torch.float64)
        binomials = torch.lgamma(last) - torch.lgamma(k + 1.0) - torch.lgamma(last - k)
        self.register_buffer("logarithms", binomials, persistent=False)
        self.register_buffer("powers", k, persistent=False)
        self.slope = nn.Parameter(torch.tensor([math.log(math.expm1(SLOPE))]))

    def forward(self, r: Tensor) -> Tensor:
        """Values (P, B) at distances (P, 1), Å."""
        x = r * nn.functional.softplus(self.slope)
        rest = torch.log(-torch.expm1(-x))
        size = self.powers.shape[0]
        return torch.exp(self.logarithms - (size - 1.0 - self.powers) * x + self.powers * rest)


KERNELS = {"bessel": Bessel, "gaussian": Gaussian, "expnorm": ExponentialNormal, "expbern": Bernstein}


def cutoff_function(kind: str, r: Tensor, cutoff: float) -> Tensor:
    """Factor from 1 at r = 0 to 0 at the cutoff and beyond, (P, 1).

    cosine: two derivatives are finite, the first vanishes at the cutoff. polynomial: the first two vanish. exponential:
    all vanish.
    """
    inside = r < cutoff
    x = torch.where(inside, r, torch.zeros_like(r)) / cutoff
    if kind == "cosine":
        value = 0.5 * torch.cos(math.pi * x) + 0.5
    elif kind == "polynomial":
        value = 1.0 - x**3 * (10.0 - x * (15.0 - 6.0 * x))
    else:
        value = torch.exp(-(x**2) / (1.0 - x**2))
    return torch.where(inside, value, torch.zeros_like(r))


class RadialBasis(nn.Module):
    """Radial functions times the cutoff.

    Args:
        kernel: a name of KERNELS.
        size: number of functions.
        cutoff: R, Å.
        envelope: cosine, polynomial or exponential.
    """

    def __init__(self, kernel: str, size: int, cutoff: float, envelope: str) -> None:
        super().__init__()
        self.functions = KERNELS[kernel](size, cutoff)
        self.cutoff, self.envelope = cutoff, envelope

    def forward(self, r: Tensor) -> Tensor:
        """Functions times cutoff, then the cutoff itself, (P, B + 1), at distances (P, 1), Å."""
        cutoff = cutoff_function(self.envelope, r, self.cutoff)
        return torch.cat([self.functions(r) * cutoff, cutoff], 1)
