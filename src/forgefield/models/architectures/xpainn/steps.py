"""The blocks of XPaiNN with each atom's own steps as compiled operators: the same numbers in fewer passes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from forgefield.kernels.operators import ops
from forgefield.models.architectures.xpainn.dense import Network, times
from forgefield.models.architectures.xpainn.gather import neighbour_sums
from forgefield.models.architectures.xpainn.irreps import Irreps
from forgefield.models.blocks.linear import in_kernels

if TYPE_CHECKING:
    from forgefield.models.architectures.xpainn.action import Message, Surroundings, Update


def serves(x: Tensor, layer_norm: bool, activation: str) -> bool:
    """Whether the operators compute what the settings ask for."""
    return in_kernels(x) and layer_norm and activation == "silu"


def _layout(width: int, irreps: Irreps | None) -> list[int]:
    """The sizes of a step; see `kernels/step_operators.py`."""
    return [width, *(k for part in (irreps.parts if irreps is not None else []) for k in part)]


def _norm(h: Tensor, scalars: nn.LayerNorm, features: nn.Module, width: int, irreps: Irreps | None) -> list[Tensor]:
    """Normalised scalars, and the equivariant features of each degree, (N (2l+1), C)."""
    parameters, softness = [scalars.weight, scalars.bias], 0.0
    if irreps is not None:
        parameters += [features.weight, *([features.bias] if features.bias is not None else [])]  # type: ignore[list-item]
        softness = features.softness  # type: ignore[assignment]
    return ops.atom_step([h], parameters, "norm", _layout(width, irreps), softness)


def network(x: Tensor, net: Network) -> Tensor:
    """A network with SiLU, (N, out)."""
    weights, biases = [layer.weight for layer in net.layers], [layer.bias for layer in net.layers]
    return ops.dense(x, x.new_empty((0, 0)), x.new_empty(0, dtype=torch.int64), weights, biases, False, True)[0]


def message(block: Message, h: Tensor, near: Surroundings) -> Tensor:
    """Scalars and features behind each other, (N, C + size), with the messages added; the first block's h has none."""
    width, irreps, first = block.layout.width, block.irreps, not block.layout.state
    normed, *parts = _norm(h, block.norm, block.equivariant_norm, width, None if first else irreps)
    sent = network(normed, block.sender)
    if not first:
        own = block.layout.n_weights - irreps.count
        sent = ops.atom_step([sent, *parts], [], "gate", _layout(own, irreps), 0.0)[0]
    sums = neighbour_sums(sent, block.radial(near.radial), near.harmonics, near.graph, block.layout)
    return nn.functional.pad(h, (0, sum(irreps.sizes))) + sums if first else h + sums


def update(block: Update, h: Tensor) -> Tensor:
    """Update scalars and features (N, C + size); the scalars alone where nobody reads the features."""
    width, irreps, softness = block.sizes[0], block.irreps, block.softness
    normed, *parts = _norm(h, block.norm, block.equivariant_norm, width, irreps)
    mixed = [times(x, w) for x, w in zip(parts, block.mix.weights, strict=True)]
    bias = [block.mix.bias] if block.mix.bias is not None else []
    joined, dots = ops.atom_step([normed, *mixed], bias, "products", _layout(width, irreps), softness)
    net, dotted = network(joined, block.network), block.dot(dots)
    if not block.moves:
        return ops.atom_step([h.narrow(1, 0, width), net, dotted], [], "update", [width], 0.0)[0]
    return ops.atom_step([h, net, dotted, *mixed], bias, "update", _layout(width, irreps), 0.0)[0]
