"""The operators: schemas, shapes for compilers, and gradients. Their code comes from `library` (CPU) or Triton (CUDA).

All take contiguous or strided tensors, float32 or float64. The third derivative is not there: it raises. On the CPU
the gradients registered in C++ (`cpp/gradients.h`) come before those below, which say the same: calls from Python would
be felt in small batches.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from forgefield.core.errors import ModelError
from forgefield.kernels import (  # noqa: F401
    dense_operators,
    gate_operators,
    linear_operators,
    neighbour_operators,
    radial_operators,
    step_operators,
)
from forgefield.kernels.paths import coupling_paths

_TABLE = (
    "Tensor sender, Tensor pair, Tensor sign, Tensor visit, Tensor plan, Tensor values, int[] degrees, int max_degree"
)
_EDGE = f"Tensor weights, Tensor features, Tensor harmonics, {_TABLE}"
SCHEMAS = {
    "edge_product": f"({_EDGE}) -> Tensor[]",
    "edge_product_adjoint": (
        f"(Tensor[] g, {_EDGE}, bool need_features, bool need_harmonics) -> (Tensor, Tensor, Tensor)"
    ),
    "edge_product_second": (
        "(Tensor[] g, Tensor weights, Tensor features, Tensor harmonics, Tensor? v_weights, Tensor? v_features, "
        f"Tensor? v_harmonics, {_TABLE}, bool need_features, bool need_harmonics) -> (Tensor[], Tensor, Tensor, Tensor)"
    ),
    "contraction": "(Tensor features, Tensor coefficients, Tensor set, Tensor plan, int n_outputs) -> Tensor",
    "contraction_adjoint": (
        "(Tensor g, Tensor features, Tensor coefficients, Tensor set, Tensor plan, bool need_coefficients)"
        " -> (Tensor, Tensor)"
    ),
    "contraction_second": (
        "(Tensor g, Tensor features, Tensor coefficients, Tensor direction, Tensor set, Tensor plan)"
        " -> (Tensor, Tensor, Tensor)"
    ),
    "gated": "(Tensor x, float gain) -> (Tensor, Tensor, Tensor)",
    "gated_backward": "(Tensor? g_value, Tensor? g_slope, Tensor x, Tensor sigmoid, float gain) -> Tensor",
}
for _name, _schema in SCHEMAS.items():
    torch.library.define(f"forgefield::{_name}", _schema)
ops: Any = torch.ops.forgefield


# -- shapes ----------------------------------------------------------------------------------------------------


def _messages(features: Tensor, degrees: list[int], max_degree: int) -> list[Tensor]:
    paths = coupling_paths(degrees, max_degree)
    n, c = features.shape[0], features.shape[2]
    count = [sum(p.message == l for p in paths) for l in range(max_degree + 1)]
    return [features.new_empty((n, 2 * l + 1, count[l] * c)) for l in range(max_degree + 1)]


def _like_edges(w: Tensor, h: Tensor, y: Tensor, features: bool, harmonics: bool) -> tuple[Tensor, Tensor, Tensor]:
    g_h = torch.empty_like(h, memory_format=torch.contiguous_format) if features else h.new_empty((0,))
    g_y = y.new_empty((y.shape[0] if harmonics else 0, y.shape[1]))
    return torch.empty_like(w, memory_format=torch.contiguous_format), g_h, g_y


def _edge_shapes(weights: Tensor, features: Tensor, harmonics: Tensor, *rest: Any) -> list[Tensor]:
    return _messages(features, *rest[-2:])


def _adjoint_shapes(g: list[Tensor], weights: Tensor, features: Tensor, harmonics: Tensor, *rest: Any) -> Any:
    return _like_edges(weights, features, harmonics, *rest[-2:])


def _second_shapes(g: list[Tensor], weights: Tensor, features: Tensor, harmonics: Tensor, *rest: Any) -> Any:
    return _messages(features, *rest[-4:-2]), *_like_edges(weights, features, harmonics, *rest[-2:])


def _contraction_shapes(features: Tensor, coefficients: Tensor, which: Tensor, plan: Tensor, n_outputs: int) -> Tensor:
    return features.new_empty((features.shape[0], n_outputs, features.shape[2]))


def _contraction_adjoint_shapes(g: Tensor, features: Tensor, coefficients: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    shape = coefficients.shape if rest[-1] else (0, *coefficients.shape[1:])
    return features.new_empty(features.shape), coefficients.new_empty(shape)


def _contraction_second_shapes(g: Tensor, features: Tensor, coefficients: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    return tuple(x.new_empty(x.shape) for x in (g, features, coefficients))


def _gated_shapes(x: Tensor, gain: float) -> tuple[Tensor, ...]:
    return tuple(x.new_empty(x.shape) for _ in range(3))


def _gated_backward_shape(g_value: Tensor | None, g_slope: Tensor | None, x: Tensor, *rest: Any) -> Tensor:
    return x.new_empty(x.shape)


for _name, _shapes in {
    "edge_product": _edge_shapes,
    "edge_product_adjoint": _adjoint_shapes,
    "edge_product_second": _second_shapes,
    "contraction": _contraction_shapes,
    "contraction_adjoint": _contraction_adjoint_shapes,
    "contraction_second": _contraction_second_shapes,
    "gated": _gated_shapes,
    "gated_backward": _gated_backward_shape,
}.items():
    torch.library.register_fake(f"forgefield::{_name}", _shapes)


# -- gradients -------------------------------------------------------------------------------------------------


def _edge_context(ctx: Any, inputs: tuple[Any, ...], output: object) -> None:
    weights, features, harmonics, *table, degrees, max_degree = inputs
    ctx.save_for_backward(weights, features, harmonics, *table)
    ctx.shape = (degrees, max_degree)


def _edge_backward(ctx: Any, g: list[Tensor]) -> tuple[Any, ...]:
    _, need_f, need_h, *_ = ctx.needs_input_grad
    found = ops.edge_product_adjoint(g, *ctx.saved_tensors, *ctx.shape, need_f, need_h)
    wanted = (True, need_f, need_h)
    return *(x if w else None for x, w in zip(found, wanted, strict=True)), *[None] * 8


def _adjoint_context(ctx: Any, inputs: tuple[Any, ...], output: object) -> None:
    g, weights, features, harmonics, *table, degrees, max_degree, need_f, need_h = inputs
    ctx.save_for_backward(*g, weights, features, harmonics, *table)
    ctx.n, ctx.shape, ctx.there = len(g), (degrees, max_degree), (need_f, need_h)


def _adjoint_backward(ctx: Any, v_w: Tensor, v_f: Tensor, v_h: Tensor) -> tuple[Any, ...]:
    g, rest = list(ctx.saved_tensors[: ctx.n]), ctx.saved_tensors[ctx.n :]
    _, _, need_f, need_h, *_ = ctx.needs_input_grad
    directions = (v_w, v_f if ctx.there[0] else None, v_h if ctx.there[1] else None)
    g_g, *found = ops.edge_product_second(g, *rest[:3], *directions, *rest[3:], *ctx.shape, need_f, need_h)
    wanted = (True, need_f, need_h)
    return g_g, *(x if w else None for x, w in zip(found, wanted, strict=True)), *[None] * 10


def _contraction_context(ctx: Any, inputs: tuple[Any, ...], output: object) -> None:
    ctx.save_for_backward(*inputs[:4])


def _contraction_backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
    need = ctx.needs_input_grad[1]
    g_features, g_coefficients = ops.contraction_adjoint(g, *ctx.saved_tensors, need)
    return g_features, g_coefficients if need else None, None, None, None


def _contraction_adjoint_context(ctx: Any, inputs: tuple[Any, ...], output: object) -> None:
    ctx.with_coefficients = inputs[5]
    ctx.save_for_backward(*inputs[:5])


def _contraction_adjoint_backward(ctx: Any, v: Tensor, v_coefficients: Tensor) -> tuple[Any, ...]:
    g, features, coefficients, *rest = ctx.saved_tensors
    g_g, g_features, g_coefficients = ops.contraction_second(g, features, coefficients, v, *rest)
    if ctx.with_coefficients:
        g_g = g_g + ops.contraction(features, v_coefficients, *rest, g.shape[1])
        g_features = g_features + ops.contraction_adjoint(g, features, v_coefficients, *rest, False)[0]
    return g_g, g_features, g_coefficients, None, None, None


def _gated_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.save_for_backward(inputs[0], output[2])
    ctx.gain = inputs[1]
    ctx.set_materialize_grads(False)


def _gated_backward(ctx: Any, g_value: Tensor | None, g_slope: Tensor | None, g_sigmoid: object) -> tuple[Any, ...]:
    x, s = ctx.saved_tensors
    return ops.gated_backward(g_value, g_slope, x, s, ctx.gain), None


def _no_third(ctx: Any, *g: object) -> tuple[Any, ...]:
    raise ModelError("the kernels have no third derivative", fix="set kernels: plain for this run")


torch.library.register_autograd("forgefield::edge_product", _edge_backward, setup_context=_edge_context)
torch.library.register_autograd("forgefield::edge_product_adjoint", _adjoint_backward, setup_context=_adjoint_context)
torch.library.register_autograd("forgefield::contraction", _contraction_backward, setup_context=_contraction_context)
torch.library.register_autograd(
    "forgefield::contraction_adjoint", _contraction_adjoint_backward, setup_context=_contraction_adjoint_context
)
torch.library.register_autograd("forgefield::gated", _gated_backward, setup_context=_gated_context)
for _name in (
    "edge_product_second",
    "contraction_second",
    "gated_backward",
    "network_backward",
    "network_second",
    "dense_backward",
    "dense_second",
    "lengths_backward",
    "lengths_second",
    "radial_sum_second",
    "neighbour_sum_second",
    "atom_step_second",
):
    torch.library.register_autograd(f"forgefield::{_name}", _no_third)
