"""Operators of linear maps and small networks, on the CPU alone: schemas and shapes for compilers.

Their gradients are registered in C++. Those of `linear` and `mix` are there in any order; `network` has two.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

LINEAR_SCHEMAS = {
    "linear": "(Tensor x, Tensor weights, Tensor counts, int[] blocks, float scale, bool transpose) -> Tensor",
    "linear_weights": (
        "(Tensor x, Tensor g, Tensor counts, int[] blocks, float scale, bool transpose, int[] shape) -> Tensor"
    ),
    "mix": "(Tensor[] parts, Tensor[] weights, float factor) -> Tensor",
    "mix_adjoint": "(Tensor g, Tensor[] weights, int[] rows, float factor) -> Tensor[]",
    "mix_weights": "(Tensor[] parts, Tensor g, float factor) -> Tensor[]",
    "network": "(Tensor x, Tensor[] weights, float gain) -> Tensor[]",
    "network_adjoint": "(Tensor g, Tensor[] hidden, Tensor[] weights, float gain) -> Tensor[]",
    "network_backward": (
        "(Tensor? g, Tensor[] g_z, Tensor x, Tensor[] hidden, Tensor[] weights, float gain, bool need_x)"
        " -> (Tensor, Tensor[])"
    ),
    "network_second": (
        "(Tensor v, Tensor g, Tensor[] hidden, Tensor[] t, Tensor[] weights, float gain)"
        " -> (Tensor, Tensor[], Tensor[])"
    ),
}
for _name, _schema in LINEAR_SCHEMAS.items():
    torch.library.define(f"forgefield::{_name}", _schema)


def _linear(x: Tensor, weights: Tensor, counts: Tensor, blocks: list[int], scale: float, transpose: bool) -> Tensor:
    columns = weights.shape[-2 if transpose else -1]
    return x.new_empty((x.shape[0], blocks[0], columns) if x.dim() == 3 else (x.shape[0], columns))


def _linear_weights(x: Tensor, *rest: Any) -> Tensor:
    return x.new_empty(rest[-1])


def _mix(parts: list[Tensor], weights: list[Tensor], factor: float) -> Tensor:
    return parts[0].new_empty((parts[0].shape[0], sum(x.shape[1] for x in parts), weights[0].shape[1]))


def _mix_adjoint(g: Tensor, weights: list[Tensor], rows: list[int], factor: float) -> list[Tensor]:
    return [g.new_empty((g.shape[0], n, w.shape[0])) for n, w in zip(rows, weights, strict=True)]


def _mix_weights(parts: list[Tensor], g: Tensor, factor: float) -> list[Tensor]:
    return [g.new_empty((x.shape[2], g.shape[2])) for x in parts]


def _network(x: Tensor, weights: list[Tensor], gain: float) -> list[Tensor]:
    hidden = [x.new_empty((x.shape[0], w.shape[1])) for w in weights[:-1] for _ in range(2)]
    return [x.new_empty((x.shape[0], weights[-1].shape[1])), *hidden]


def _network_adjoint(g: Tensor, hidden: list[Tensor], weights: list[Tensor], gain: float) -> list[Tensor]:
    return [g.new_empty((g.shape[0], weights[0].shape[0])), *(z.new_empty(z.shape) for z in hidden[::2])]


def _network_backward(g: Tensor | None, g_z: list[Tensor], x: Tensor, hidden: list[Tensor], *rest: Any) -> Any:
    weights, _, need_x = rest
    return x.new_empty(x.shape if need_x else (0,)), [w.new_empty(w.shape) for w in weights]


def _network_second(v: Tensor, g: Tensor, hidden: list[Tensor], t: list[Tensor], *rest: Any) -> Any:
    weights = rest[0]
    return g.new_empty(g.shape), [z.new_empty(z.shape) for z in t], [w.new_empty(w.shape) for w in weights]


for _name, _shapes in {
    "linear": _linear,
    "linear_weights": _linear_weights,
    "mix": _mix,
    "mix_adjoint": _mix_adjoint,
    "mix_weights": _mix_weights,
    "network": _network,
    "network_adjoint": _network_adjoint,
    "network_backward": _network_backward,
    "network_second": _network_second,
}.items():
    torch.library.register_fake(f"forgefield::{_name}", _shapes)
