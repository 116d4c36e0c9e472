"""Operators of edge-gated networks, on the CPU alone: schemas, and shapes for compilers.

`norm_silu` is SiLU of a layer norm; `gated_sum` sums gated messages over edges; `gated_layer` is a whole layer of such
messages; `interpolate` looks rows up in a table. Their gradients, up to second order, are registered in C++
(`cpp/norm_silu.h`, `gated_sum.h`, `gated_layer.h`, `interpolate.h`, which have the formulas).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_ROWS = "Tensor x, Tensor weight, Tensor bias"
_GRAPH = "Tensor edge, Tensor nodes, Tensor weight"
_ENDS = "Tensor source, Tensor target"
_LAYER = (
    "Tensor input, Tensor matrix, Tensor bias, Tensor nodes, Tensor weight, Tensor norm_weight, Tensor norm_bias, "
    f"{_ENDS}, Tensor place"
)
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
    "gated_layer": f"({_LAYER}, bool keep) -> (Tensor, Tensor)",
    "gated_layer_adjoint": f"(Tensor g, Tensor? g_kept, {_LAYER}, bool need) -> ({', '.join(['Tensor'] * 7)})",
    "gated_layer_second": (
        f"(Tensor g, Tensor? g_kept, {_LAYER}, Tensor? v_input, Tensor? v_nodes, Tensor? v_weight)"
        f" -> ({', '.join(['Tensor'] * 9)})"
    ),
    "interpolate": "(Tensor x, Tensor table, float low, float rate) -> Tensor",
    "interpolate_adjoint": "(Tensor g, Tensor x, Tensor table, float low, float rate, bool need) -> (Tensor, Tensor)",
    "interpolate_second": (
        "(Tensor g, Tensor x, Tensor table, Tensor? v_x, Tensor? v_table, float low, float rate)"
        " -> (Tensor, Tensor, Tensor)"
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


def _layer(*given: Any) -> tuple[Tensor, ...]:
    nodes, source, keep = given[3], given[7], given[-1]
    width = nodes.shape[1] // 3
    count = source.shape[0] if keep else 0
    return nodes.new_empty((nodes.shape[0], 2 * width)), nodes.new_empty((count, width))


def _layer_adjoint(g: Tensor, g_kept: Tensor | None, *given: Any) -> tuple[Tensor, ...]:
    return tuple(t.new_empty(t.shape) for t in given[:7])


def _layer_second(g: Tensor, g_kept: Tensor | None, *given: Any) -> tuple[Tensor, ...]:
    kept = g.new_empty((0, g.shape[1] // 2)) if g_kept is None else g_kept.new_empty(g_kept.shape)
    return g.new_empty(g.shape), kept, *(t.new_empty(t.shape) for t in given[:7])


def _interpolate(x: Tensor, table: Tensor, low: float, rate: float) -> Tensor:
    return x.new_empty((x.shape[0], table.shape[1]))


def _interpolate_adjoint(g: Tensor, x: Tensor, table: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    return x.new_empty(x.shape), table.new_empty(table.shape)


def _interpolate_second(g: Tensor, x: Tensor, table: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    return tuple(t.new_empty(t.shape) for t in (g, x, table))


for _name, _shapes in {
    "norm_silu": _norm,
    "norm_silu_adjoint": _norm_adjoint,
    "norm_silu_second": _norm_second,
    "gated_sum": _sum,
    "gated_sum_adjoint": _sum_adjoint,
    "gated_sum_second": _sum_second,
    "gated_layer": _layer,
    "gated_layer_adjoint": _layer_adjoint,
    "gated_layer_second": _layer_second,
    "interpolate": _interpolate,
    "interpolate_adjoint": _interpolate_adjoint,
    "interpolate_second": _interpolate_second,
}.items():
    torch.library.register_fake(f"forgefield::{_name}", _shapes)
