"""Operators of steps that treat each atom by itself: schemas, and shapes for compilers (CPU alone).

A step is `norm`, `gate`, `products` or `update` (`cpp/atom_steps.h`, `cpp/atom_updates.h` have the formulas); its
layout is the scalars' width, then l and channels of each degree. Gradients, up to second order, are registered in C++.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_GIVEN, _STEP = "Tensor[] rows, Tensor[] parameters", "str step, int[] layout, float softness"
STEP_SCHEMAS = {
    "atom_step": f"({_GIVEN}, {_STEP}) -> Tensor[]",
    "atom_step_adjoint": f"(Tensor[] g, {_GIVEN}, {_STEP}, bool need) -> Tensor[]",
    "atom_step_second": f"(Tensor[] g, {_GIVEN}, Tensor[] v, Tensor[] v_parameters, {_STEP}) -> Tensor[]",
}
for _name, _schema in STEP_SCHEMAS.items():
    torch.library.define(f"forgefield::{_name}", _schema)


def _out(step: str, layout: list[int]) -> list[tuple[int, int]]:
    """Rows and columns that an atom has of each result."""
    width, parts = layout[0], list(zip(layout[1::2], layout[2::2], strict=True))
    if step == "norm":
        return [(1, width), *((2 * l + 1, c) for l, c in parts)]
    if step == "products":
        count = sum(c for _, c in parts)
        return [(1, width + count), (1, count)]
    return [(1, width + sum((2 * l + 1) * c for l, c in parts))]


def _value(rows: list[Tensor], parameters: list[Tensor], step: str, layout: list[int], softness: float) -> list[Tensor]:
    n = rows[0].shape[0]
    return [rows[0].new_empty((n * m, c)) for m, c in _out(step, layout)]


def _adjoint(g: list[Tensor], rows: list[Tensor], parameters: list[Tensor], *rest: Any) -> list[Tensor]:
    return [x.new_empty(x.shape) for x in (*rows, *(parameters if rest[-1] else []))]


def _second(g: list[Tensor], rows: list[Tensor], parameters: list[Tensor], *rest: Any) -> list[Tensor]:
    return [x.new_empty(x.shape) for x in (*g, *rows, *parameters)]


for _name, _shapes in {"atom_step": _value, "atom_step_adjoint": _adjoint, "atom_step_second": _second}.items():
    torch.library.register_fake(f"forgefield::{_name}", _shapes)
