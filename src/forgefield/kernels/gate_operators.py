"""Operators of edge-gated networks, on the CPU alone: schemas, and shapes for compilers.

`norm_silu` is SiLU of a layer norm; `gated_sum` sums gated messages over edges. Their gradients, up to second order,
are registered in C++ (`cpp/norm_silu.h`, `cpp/gated_sum.h`, which have the formulas).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_ROWS = "Tensor x, Tensor weight, Tensor bias"
_GRAPH = "Tensor edge, Tensor nodes, Tensor weight"
_ENDS = "Tensor source, Tensor target"
GATE_SCHEMAS = {
    "norm_silu": f"({_ROWS}) -> Tensor",
    "norm_silu_adjoint": f"(Tensor g, {_ROWS}, bool need_parameters) -> (Tensor, Tensor, Tensor)",
    "norm_silu_second": f"(Tensor g, {_ROWS}, Tensor v) -> (Tensor, Tensor, Tensor, Tensor)",
    "gated_sum": f"({_GRAPH}, {_ENDS}, bool keep) -> (Tensor, Tensor)",
    "gated_sum_adjoint": f"(Tensor g, Tensor? g_kept, {_GRAPH}, {_ENDS}) -> (Tensor, Tensor, Tensor)",
    "gated_sum_second": (
        f"(Tensor g, {_GRAPH}, Tensor? v_edge, Tensor? v_nodes, Tensor? v_weight, {_ENDS}, bool keep)"
        " -> (Tensor, Tensor, Tensor, Tensor, Tensor)"
    ),
}
for _name, _schema in GATE_SCHEMAS.items():
    torch.library.define(f"forgefield::{_name}", _schema)


def _norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return x.new_empty(x.shape)


def _norm_adjoint(g: Tensor, x: Tensor, weight: Tensor, bias: Tensor, need: bool) -> tuple[Tensor, ...]:
    return tuple(t.new_empty(t.shape) for t in (x, weight, bias))


def _norm_second(g: Tensor, x: Tensor, weight: Tensor, bias: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    return tuple(t.new_empty(t.shape) for t in (x, x, weight, bias))


def _kept(edge: Tensor, keep: bool) -> Tensor:
    return edge.new_empty(edge.shape if keep else (0, edge.shape[1]))


def _sums(edge: Tensor, nodes: Tensor) -> Tensor:
    return nodes.new_empty((nodes.shape[0], 2 * edge.shape[1]))


def _sum(edge: Tensor, nodes: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    return _sums(edge, nodes), _kept(edge, rest[-1])


def _sum_adjoint(g: Tensor, g_kept: Tensor | None, edge: Tensor, nodes: Tensor, weight: Tensor, *rest: Any) -> Any:
    return tuple(t.new_empty(t.shape) for t in (edge, nodes, weight))


def _sum_second(g: Tensor, edge: Tensor, nodes: Tensor, weight: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    return _sums(edge, nodes), _kept(edge, rest[-1]), *(t.new_empty(t.shape) for t in (edge, nodes, weight))


for _name, _shapes in {
    "norm_silu": _norm,
    "norm_silu_adjoint": _norm_adjoint,
    "norm_silu_second": _norm_second,
    "gated_sum": _sum,
    "gated_sum_adjoint": _sum_adjoint,
    "gated_sum_second": _sum_second,
}.items():
    torch.library.register_fake(f"forgefield::{_name}", _shapes)
