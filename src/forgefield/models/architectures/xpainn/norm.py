"""Layer norm of equivariant features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from forgefield.models.architectures.xpainn.irreps import Irreps


class EquivariantNorm(nn.Module):
    """Subtract the scalars' mean, divide by the root of the mean squared length of all channels, scale and shift.

    Args:
        irreps: channels by degree.
        softness: e; divided is by sqrt(mean + e^2), so that features that vanish at a cutoff do so smoothly.
    """

    def __init__(self, irreps: Irreps, softness: float) -> None:
        super().__init__()
        self.irreps, self.softness = irreps, softness
        self.weight = nn.Parameter(torch.ones(irreps.count))
        self.bias = nn.Parameter(torch.zeros(irreps.channels[0])) if irreps.degrees[0] == 0 else None

    def forward(self, parts: Sequence[Tensor]) -> list[Tensor]:
        """Normalise (N, 2l+1, C) of each degree."""
        parts = list(parts)
        if self.bias is not None:
            parts[0] = parts[0] - parts[0].mean(2, keepdim=True)
        squares = torch.stack([part.square().sum((1, 2)) for part in parts]).sum(0) / self.irreps.count
        factor = torch.rsqrt(squares + self.softness**2).reshape(-1, 1, 1)
        weights = self.weight.split(list(self.irreps.channels))
        found = [part * factor * weight for part, weight in zip(parts, weights, strict=True)]
        if self.bias is not None:
            found[0] = found[0] + self.bias
        return found
