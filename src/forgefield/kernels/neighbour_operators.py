"""Operators of sums over neighbours of features x weights x harmonics: schemas, and shapes (CPU alone).

A layout is the scalars' width, 1 with states (else 0), then l and channels of each degree; `cpp/neighbour_sum.h` has
the formulas and what lies where. Gradients, up to second order, are registered in C++.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_TABLE = "Tensor sender, Tensor pair, Tensor sign, Tensor first, Tensor second, int[] layout"
_FACTORS = "Tensor features, Tensor weights, Tensor harmonics"
NEIGHBOUR_SCHEMAS = {
    "neighbour_sum": f"({_FACTORS}, {_TABLE}) -> Tensor",
    "neighbour_sum_adjoint": (
        f"(Tensor g, {_FACTORS}, {_TABLE}, bool need_features, bool need_harmonics) -> (Tensor, Tensor, Tensor)"
    ),
    "neighbour_sum_second": (
        f"(Tensor g, {_FACTORS}, Tensor? v_features, Tensor? v_weights, Tensor? v_harmonics, {_TABLE}, "
        "bool need_features, bool need_harmonics) -> (Tensor, Tensor, Tensor, Tensor)"
    ),
}
for _name, _schema in NEIGHBOUR_SCHEMAS.items():
    torch.library.define(f"forgefield::{_name}", _schema)


def _sum(features: Tensor, weights: Tensor, harmonics: Tensor, *rest: Any) -> Tensor:
    width, _, *parts = rest[-1]
    columns = width + sum((2 * l + 1) * c for l, c in zip(parts[::2], parts[1::2], strict=True))
    return features.new_empty((features.shape[0], columns))


def _adjoint(g: Tensor, features: Tensor, weights: Tensor, harmonics: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    rows = [
        x.new_empty(x.shape if need else (0, x.shape[1]))
        for x, need in zip((features, harmonics), rest[-2:], strict=True)
    ]
    return rows[0], weights.new_empty(weights.shape), rows[1]


def _second(g: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    return g.new_empty(g.shape), *_adjoint(g, *rest)


for _name, _shapes in {
    "neighbour_sum": _sum,
    "neighbour_sum_adjoint": _adjoint,
    "neighbour_sum_second": _second,
}.items():
    torch.library.register_fake(f"forgefield::{_name}", _shapes)
