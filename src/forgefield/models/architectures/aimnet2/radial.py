"""Radial functions: Gaussians times a cosine that ends at the cutoff."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

NEAREST = 1e-6  # Å: the cutoff function does not look closer


class Gaussians(nn.Module):
    """exp(-eta (r - s_g)^2) (1 + cos(pi r / rc)) / 2, zero beyond rc.

    Args:
        cutoff: rc, Å.
        count: number of functions.
        first: centre of the first one, Å.
        eta: width, 1/Å^2; None: (count / (rc - first))^2.
        shifts: centres s_g, Å; None: evenly from `first`, the one after the last would be at rc.
    """

    def __init__(
        self, cutoff: float, count: int, first: float, eta: float | None, shifts: Sequence[float] | None
    ) -> None:
        super().__init__()
        step = (cutoff - first) / count
        self.cutoff, self.eta = cutoff, step**-2 if eta is None else eta
        centres = [first + k * step for k in range(count)] if shifts is None else list(shifts)
        self.register_buffer("centres", torch.tensor(centres, dtype=torch.float64), persistent=False)

    def forward(self, r: Tensor) -> Tensor:
        """Values (P, G) at distances (P, 1), Å."""
        envelope = 0.5 * torch.cos(r.clamp(NEAREST, self.cutoff) * (math.pi / self.cutoff)) + 0.5
        return torch.exp(-self.eta * (r - self.centres) ** 2) * envelope
