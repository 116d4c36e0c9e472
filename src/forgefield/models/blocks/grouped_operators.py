"""The products of `grouped.py` as operators with written gradients: their loop has sizes that depend on values.

A compiler that follows sizes as symbols cannot follow these, so it takes each operator as it is and compiles around it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


@torch.library.custom_op("forgefield_loops::linear", mutates_args=())
def _linear(x: Tensor, weights: Tensor, counts: Tensor) -> Tensor:
    """(N, ..., C) times the element's matrix of (Z, C, D)."""
    return torch.cat([torch.matmul(part, w) for part, w in zip(x.split(counts.tolist()), weights, strict=True)])


@_linear.register_fake
def _(x: Tensor, weights: Tensor, counts: Tensor) -> Tensor:
    return x.new_empty((*x.shape[:-1], weights.shape[2]))


@torch.library.custom_op("forgefield_loops::linear_weights", mutates_args=())
def _linear_weights(x: Tensor, g: Tensor, counts: Tensor) -> Tensor:
    """Gradient (Z, C, D) of `_linear` by the matrices."""
    sizes = counts.tolist()
    parts = zip(x.split(sizes), g.split(sizes), strict=True)
    return torch.stack([a.flatten(0, -2).T @ b.flatten(0, -2) for a, b in parts])


@_linear_weights.register_fake
def _(x: Tensor, g: Tensor, counts: Tensor) -> Tensor:
    return x.new_empty((counts.shape[0], x.shape[-1], g.shape[-1]))


@torch.library.custom_op("forgefield_loops::contract", mutates_args=())
def _contract(rows: Tensor, columns: Tensor, counts: Tensor) -> Tensor:
    """(Z, C, R, Q) or (1, C, R, Q), by element, times (C, Q, N): (C, R, N)."""
    if rows.shape[0] == 1:
        return torch.bmm(rows[0], columns)
    parts = zip(rows, columns.split(counts.tolist(), 2), strict=True)
    return torch.cat([torch.bmm(row, part) for row, part in parts], 2)


@_contract.register_fake
def _(rows: Tensor, columns: Tensor, counts: Tensor) -> Tensor:
    return columns.new_empty((rows.shape[1], rows.shape[2], columns.shape[2]))


@torch.library.custom_op("forgefield_loops::contract_rows", mutates_args=())
def _contract_rows(g: Tensor, columns: Tensor, counts: Tensor, n: int) -> Tensor:
    """Gradient (n, C, R, Q) of `_contract` by the rows."""
    sizes = counts.tolist() if n > 1 else [g.shape[2]]
    parts = zip(g.split(sizes, 2), columns.split(sizes, 2), strict=True)
    return torch.stack([torch.bmm(a, b.transpose(1, 2)) for a, b in parts])


@_contract_rows.register_fake
def _(g: Tensor, columns: Tensor, counts: Tensor, n: int) -> Tensor:
    return g.new_empty((n, g.shape[0], g.shape[1], columns.shape[1]))


def _keep_inputs(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _linear_backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, None]:
    x, weights, counts = ctx.saved_tensors
    return _linear(g, weights.transpose(1, 2), counts), _linear_weights(x, g, counts), None


def _contract_backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, None]:
    rows, columns, counts = ctx.saved_tensors
    return _contract_rows(g, columns, counts, rows.shape[0]), _contract(rows.transpose(2, 3), g, counts), None


_linear.register_autograd(_linear_backward, setup_context=_keep_inputs)
_contract.register_autograd(_contract_backward, setup_context=_keep_inputs)


def linear_operator(x: Tensor, weights: Tensor, counts: Tensor) -> Tensor:
    """Do what `grouped.linear_by_element` does."""
    return _linear(x, weights, counts)


def contract_operator(weights: Tensor, tables: list[Tensor], monomials: Tensor, counts: Tensor) -> Tensor:
    """Do what `grouped.contract_by_element` does; the tables are weighted for all elements at once."""
    rows = []
    for table, part in zip(tables, weights.split([t.shape[0] for t in tables], 1), strict=True):
        rows.append(torch.matmul(part.transpose(1, 2), table.flatten(1)).unflatten(2, table.shape[1:]))
    return _contract(torch.cat(rows, 2), monomials.transpose(0, 1), counts)
