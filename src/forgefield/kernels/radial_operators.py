"""Operators of sums over neighbours of features times radial functions, on the CPU alone: schemas, and shapes.

Their gradients, up to second order, are registered in C++ (`cpp/radial_sum.h`, which has the formulas).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_TABLE = "Tensor sender, Tensor pair, Tensor sign, Tensor first, Tensor second"
_FACTORS = "Tensor features, Tensor radial, Tensor unit"
_WANTED = "bool need_features, bool need_pairs"
RADIAL_SCHEMAS = {
    "radial_sum": f"({_FACTORS}, {_TABLE}) -> Tensor",
    "radial_sum_adjoint": f"(Tensor g, {_FACTORS}, {_TABLE}, {_WANTED}) -> (Tensor, Tensor, Tensor)",
    "radial_sum_second": (
        f"(Tensor g, {_FACTORS}, Tensor? v_features, Tensor? v_radial, Tensor? v_unit, {_TABLE}, {_WANTED})"
        " -> (Tensor, Tensor, Tensor, Tensor)"
    ),
}
for _name, _schema in RADIAL_SCHEMAS.items():
    torch.library.define(f"forgefield::{_name}", _schema)


def _sum(features: Tensor, radial: Tensor, unit: Tensor, *table: Tensor) -> Tensor:
    return features.new_empty((features.shape[0], 4, features.shape[1]))


def _adjoint(g: Tensor, features: Tensor, radial: Tensor, unit: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    need_features, need_pairs = rest[-2:]
    shape = features.shape if need_features else (0, features.shape[1])
    n = radial.shape[0] if need_pairs else 0
    return features.new_empty(shape), radial.new_empty((n, *radial.shape[1:])), unit.new_empty((n, 3))


def _second(g: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    return g.new_empty(g.shape), *_adjoint(g, *rest)


for _name, _shapes in {
    "radial_sum": _sum,
    "radial_sum_adjoint": _adjoint,
    "radial_sum_second": _second,
}.items():
    torch.library.register_fake(f"forgefield::{_name}", _shapes)
