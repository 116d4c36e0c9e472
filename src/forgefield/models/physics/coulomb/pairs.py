"""Functions of the distance: energy of two unit charges over the Coulomb constant, with its derivative."""

from __future__ import annotations

import math

import torch
from torch import Tensor

Function = tuple[Tensor, Tensor]
"""Value and derivative by the distance, twice (F,)."""


def bare(r: Tensor) -> Function:
    """1 / r."""
    inverse = 1.0 / r
    return inverse, -inverse * inverse


def screened(r: Tensor, width: float) -> Function:
    """erfc(r / (sqrt(2) width)) / r: a unit charge and its Gaussian cloud of opposite charge."""
    rate = 1.0 / (math.sqrt(2.0) * width)
    value = torch.erfc(rate * r) / r
    return value, -(value + 2.0 * rate / math.sqrt(math.pi) * torch.exp(-((rate * r) ** 2))) / r


def damped_shifted(r: Tensor, alpha: float, cutoff: float) -> Function:
    """Damped Coulomb, shifted so that value and slope vanish at the cutoff; zero beyond.

    Source:
        Fennell, Gezelter, J. Chem. Phys. 124 (2006) 234104, equation 18.
    """
    value, slope = screened(r, 1.0 / (math.sqrt(2.0) * alpha))
    end, fall = _at_cutoff(alpha, cutoff)
    inside = (r < cutoff).to(r.dtype)
    return (value - end + (r - cutoff) * fall) * inside, (slope + fall) * inside


def self_energy(alpha: float, cutoff: float, *, shifted: bool) -> float:
    """Energy of a charge and its own damped image at distance 0, over its square and the constant, 1/Å.

    Args:
        alpha: damping, 1/Å.
        cutoff: Å.
        shifted: the image's force is shifted too, as in `e_self` of LAMMPS's pair_style coul/dsf; else the energy
            alone, as in Wolf et al., J. Chem. Phys. 110 (1999) 8254, which the aimnet package has.
    """
    end, fall = _at_cutoff(alpha, cutoff)
    return -0.5 * (end + fall * cutoff * shifted) - alpha / math.sqrt(math.pi)


def _at_cutoff(alpha: float, cutoff: float) -> tuple[float, float]:
    """Value of the damped Coulomb function at the cutoff and how fast it falls there, 1/Å, 1/Å^2."""
    end = math.erfc(alpha * cutoff) / cutoff
    return end, end / cutoff + 2.0 * alpha / math.sqrt(math.pi) * math.exp(-((alpha * cutoff) ** 2)) / cutoff


def near_part(r: Tensor, cutoff: float) -> Function:
    """f(r) / r with f = exp(1 - 1 / (1 - (r / cutoff)^2)), smooth to all orders; zero beyond the cutoff.

    Source:
        Anstine, Zubatyuk, Isayev, AIMNet2, Chem. Sci. 16 (2025) 10228.
    """
    inside = r < cutoff
    x = torch.where(inside, r / cutoff, torch.zeros_like(r))
    rest = 1.0 / (1.0 - x * x)
    f = torch.where(inside, torch.exp(1.0 - rest), torch.zeros_like(r))
    slope = torch.where(f > 0, -2.0 * x / cutoff * f * rest * rest, torch.zeros_like(r))
    return f / r, (slope - f / r) / r
