"""Energies from the scalar features, one output per head."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from forgefield.models.blocks.linear import map_rows
from forgefield.models.blocks.network import scaled_silu


class LinearReadout(nn.Module):
    """Energy = scalars times one vector per head.

    Args:
        channels: C.
        n_heads: H.
    """

    def __init__(self, channels: int, n_heads: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels, n_heads))
        self.scale = 1.0 / math.sqrt(channels)

    def forward(self, scalars: Tensor, head: Tensor) -> tuple[Tensor, Tensor]:
        """Energy (N,) of scalars (N, C) for heads (N,), and its gradient (N, C)."""
        chosen = (self.weight * self.scale).T.index_select(0, head)
        return (scalars * chosen).sum(1), chosen


class GatedReadout(nn.Module):
    """Linear, silu, linear; each head has its own hidden block.

    Args:
        channels: C.
        n_heads: H.
        width: hidden features per head.
        head_norm: normalisation of the sum over hidden features; None: H.
    """

    def __init__(self, channels: int, n_heads: int, width: int, head_norm: int | None = None) -> None:
        super().__init__()
        self.norm = 1.0 / math.sqrt((head_norm or n_heads) * width)
        self.width, self.n_heads = width, n_heads
        self.hidden = nn.Parameter(torch.randn(channels, n_heads * width))
        self.weight = nn.Parameter(torch.randn(n_heads * width, n_heads))
        owner = torch.arange(n_heads).repeat_interleave(width).unsqueeze(0)
        self.register_buffer("owner", owner, persistent=False)

    def forward(self, scalars: Tensor, head: Tensor) -> tuple[Tensor, Tensor]:
        """Energy (N,) of scalars (N, C) for heads (N,), and its gradient (N, C)."""
        scale = 1.0 / math.sqrt(self.hidden.shape[0])
        value, slope = scaled_silu(map_rows(scalars, self.hidden, scale))
        weight = (self.weight * self.norm).T.index_select(0, head)
        if self.n_heads > 1:
            weight = weight * (self.owner == head.unsqueeze(1)).to(weight.dtype)
        return (value * weight).sum(1), map_rows(slope * weight, self.hidden, scale, transpose=True)
