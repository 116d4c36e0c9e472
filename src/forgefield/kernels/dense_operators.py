"""Operators of networks with GELU or SiLU, and of squared lengths of mixed vectors: schemas, and shapes (CPU alone).

Their gradients, up to second order, are registered in C++ (`cpp/dense.h`, `cpp/lengths.h`, which have the formulas).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

DENSE_SCHEMAS = {
    "dense": (
        "(Tensor x, Tensor table, Tensor row, Tensor[] weights, Tensor[] biases, bool activated, bool silu) -> Tensor[]"
    ),
    "dense_adjoint": "(Tensor g, Tensor[] z, Tensor[] weights, bool activated, bool silu, int first) -> Tensor[]",
    "dense_backward": (
        "(Tensor? g, Tensor[] g_z, Tensor x, Tensor table, Tensor row, Tensor[] z, Tensor[] weights, bool activated,"
        " bool silu, bool need_x) -> (Tensor, Tensor, Tensor[], Tensor[])"
    ),
    "dense_second": (
        "(Tensor v, Tensor g, Tensor[] z, Tensor[] t, Tensor[] weights, bool activated, bool silu, int first)"
        " -> (Tensor, Tensor[], Tensor[])"
    ),
    "lengths": "(Tensor sums, Tensor mix, int n_scalar) -> Tensor",
    "lengths_adjoint": "(Tensor g, Tensor sums, Tensor mix, int n_scalar) -> Tensor",
    "lengths_backward": "(Tensor g, Tensor sums, Tensor mix, int n_scalar) -> (Tensor, Tensor)",
    "lengths_second": "(Tensor g, Tensor sums, Tensor mix, Tensor v, int n_scalar) -> (Tensor, Tensor, Tensor)",
}
for _name, _schema in DENSE_SCHEMAS.items():
    torch.library.define(f"forgefield::{_name}", _schema)


def _dense(x: Tensor, table: Tensor, row: Tensor, weights: list[Tensor], *rest: Any) -> list[Tensor]:
    n, widths = x.shape[0], [w.shape[1] for w in weights]
    return [x.new_empty((n, widths[-1])), *(x.new_empty((n, c)) for c in (widths if rest[1] else widths[:-1]))]


def _adjoint(
    g: Tensor, z: list[Tensor], weights: list[Tensor], activated: bool, silu: bool, first: int
) -> list[Tensor]:
    n, inputs = g.shape[0], weights[0].shape[0] - first
    return [g.new_empty((n, inputs)), *(g.new_empty((n, w.shape[1])) for w in weights[:-1])]


def _backward(g: Tensor | None, g_z: list[Tensor], x: Tensor, table: Tensor, row: Tensor, *rest: Any) -> Any:
    _, weights, _, _, need_x = rest
    by_weights = [w.new_empty(w.shape) for w in weights], [w.new_empty((w.shape[1],)) for w in weights]
    return x.new_empty(x.shape if need_x else (0,)), table.new_empty(table.shape), *by_weights


def _second(v: Tensor, g: Tensor, z: list[Tensor], t: list[Tensor], weights: list[Tensor], *rest: Any) -> Any:
    return g.new_empty(g.shape), [x.new_empty(x.shape) for x in z], [w.new_empty(w.shape) for w in weights]


def _lengths(sums: Tensor, mix: Tensor, n_scalar: int) -> Tensor:
    return sums.new_empty((sums.shape[0], mix.shape[0] * (n_scalar + mix.shape[2])))


def _lengths_adjoint(g: Tensor, sums: Tensor, mix: Tensor, n_scalar: int) -> Tensor:
    return sums.new_empty(sums.shape)


def _lengths_backward(g: Tensor, sums: Tensor, mix: Tensor, n_scalar: int) -> tuple[Tensor, Tensor]:
    return sums.new_empty(sums.shape), mix.new_empty(mix.shape)


def _lengths_second(g: Tensor, sums: Tensor, mix: Tensor, v: Tensor, n_scalar: int) -> tuple[Tensor, ...]:
    return g.new_empty(g.shape), sums.new_empty(sums.shape), mix.new_empty(mix.shape)


for _name, _shapes in {
    "dense": _dense,
    "dense_adjoint": _adjoint,
    "dense_backward": _backward,
    "dense_second": _second,
    "lengths": _lengths,
    "lengths_adjoint": _lengths_adjoint,
    "lengths_backward": _lengths_backward,
    "lengths_second": _lengths_second,
}.items():
    torch.library.register_fake(f"forgefield::{_name}", _shapes)
