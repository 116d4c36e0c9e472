"""Real spherical harmonics and their gradient, as polynomials of the unit vector."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from e3nn import o3
from torch import Tensor, nn

from forgefield.models.blocks.coupling import TINY, monomials


@cache
def _coefficients(degree: int) -> np.ndarray:
    """Coefficients of the harmonics of one degree in the monomials of x, y, z: (monomials, 2l+1)."""
    generator = np.random.default_rng(7)
    points = generator.normal(size=(200, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    powers = np.array([np.prod(points[:, list(m)], axis=1) for m in monomials(3, degree)]).T
    values = o3.spherical_harmonics(degree, torch.as_tensor(points), normalize=True, normalization="component")
    fit = np.linalg.lstsq(powers, values.numpy(), rcond=None)[0]
    fit[np.abs(fit) < TINY] = 0.0
    return fit


def _derivative(degree: int, axis: int) -> np.ndarray:
    """Coefficients of the derivative by one axis, in the monomials of one degree less."""
    lower = {m: k for k, m in enumerate(monomials(3, degree - 1))}
    out = np.zeros((len(lower), 2 * degree + 1))
    for m, row in zip(monomials(3, degree), _coefficients(degree), strict=True):
        if axis in m:
            rest = list(m)
            rest.remove(axis)
            out[lower[tuple(rest)]] += m.count(axis) * row
    return out


class SphericalHarmonics(nn.Module):
    """Real harmonics up to a degree, component normalised (sum over m of Y^2 = 2l+1), with their gradient.

    Order and axes are e3nn's (y is the polar axis). Valid on unit vectors; the gradient is that of the polynomial
    and must be projected on the tangent plane by the caller.

    Args:
        max_degree: highest degree L.
    """

    def __init__(self, max_degree: int) -> None:
        super().__init__()
        self.max_degree = max_degree
        values, slopes = [], []
        self._parents: list[list[int]] = []
        self._axes: list[list[int]] = []
        for degree in range(1, max_degree + 1):
            before = {m: k for k, m in enumerate(monomials(3, degree - 1))}
            self._parents.append([before[m[:-1]] for m in monomials(3, degree)])
            self._axes.append([m[-1] for m in monomials(3, degree)])
        for degree in range(1, max_degree + 1):
            values.append(torch.as_tensor(_coefficients(degree)))
            gradient = np.stack([_derivative(degree, a) for a in range(3)], axis=-1)
            slopes.append(torch.as_tensor(gradient.reshape(len(gradient), -1)))
        for k, (value, slope) in enumerate(zip(values, slopes, strict=True)):
            self.register_buffer(f"value_{k + 1}", value, persistent=False)
            self.register_buffer(f"slope_{k + 1}", slope, persistent=False)

    def forward(self, unit: Tensor) -> tuple[Tensor, Tensor]:
        """Evaluate at unit vectors.

        Args:
            unit: (P, 3).

        Returns:
            values: (P, (L+1)^2).
            gradient: (P, (L+1)^2, 3).
        """
        axes = unit.unbind(-1)
        power = [torch.ones_like(axes[0])]
        values = [power[0].unsqueeze(-1)]
        slopes = [torch.zeros_like(unit).unsqueeze(1)]
        below = values[0]
        for degree in range(1, self.max_degree + 1):
            parents, which = self._parents[degree - 1], self._axes[degree - 1]
            power = [power[p] * axes[a] for p, a in zip(parents, which, strict=True)]
            slope = below @ getattr(self, f"slope_{degree}")
            slopes.append(slope.unflatten(1, (2 * degree + 1, 3)))
            below = torch.stack(power, dim=-1)
            values.append(below @ getattr(self, f"value_{degree}"))
        return torch.cat(values, 1), torch.cat(slopes, 1)
