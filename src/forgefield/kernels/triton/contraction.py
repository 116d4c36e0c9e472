"""Polynomials of an atom's features with coefficients by element and channel: value, adjoint, second order.

The plan becomes two lists of entries: per output, the terms of the polynomial; per variable, those of its
derivative. A program sums the entries of one row of one atom, so nothing is written twice. Coefficients get their
gradients by a program per coefficient that runs over the atoms of its set; sets must ascend from atom to atom.
"""

# ruff: noqa: ANN001, ANN202
from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from forgefield.kernels.polynomials import read_plan
from forgefield.kernels.triton.launch import ONE_WARP, block


@triton.jit
def _product(x, v, at, variables, C, inside, ORDER: tl.constexpr, MOVED: tl.constexpr, like):
    """Product of `ORDER` variables, or (moved) its derivative along `v`."""
    value = tl.zeros_like(like) + 1.0
    change = tl.zeros_like(like)
    for j in tl.static_range(ORDER):
        where = at + tl.load(variables + j) * C
        factor = tl.load(x + where, mask=inside, other=0.0)
        if MOVED:
            change = change * factor + value * tl.load(v + where, mask=inside, other=0.0)
        value = value * factor
    if MOVED:
        return change
    else:
        return value


@triton.jit
def _rows(
    x,
    v,
    g,
    coefficients,
    set,
    starts,
    entries,
    out,
    C,
    n_variables,
    n_terms,
    n_g,
    n_rows,
    LOWEST: tl.constexpr,
    HIGHEST: tl.constexpr,
    WIDTH: tl.constexpr,
    WITH_G: tl.constexpr,
    MOVED: tl.constexpr,
    SIZE: tl.constexpr,
):
    n = tl.program_id(0).to(tl.int64)
    row = tl.program_id(1)
    c = tl.program_id(2) * SIZE + tl.arange(0, SIZE)
    inside = c < C
    at = n * n_variables * C + c
    own = tl.load(set + n) * n_terms * C + c
    total = tl.zeros((SIZE,), dtype=x.dtype.element_ty)
    for order in tl.static_range(LOWEST, HIGHEST + 1):
        place = starts + row * (HIGHEST - LOWEST + 1) + order - LOWEST
        for k in range(tl.load(place), tl.load(place + 1)):
            entry = entries + k * WIDTH
            part = tl.load(coefficients + own + tl.load(entry) * C, mask=inside, other=0.0)
            if WITH_G:
                part *= tl.load(g + (n * n_g + tl.load(entry + 1)) * C + c, mask=inside, other=0.0)
                part *= tl.load(entry + 2).to(x.dtype.element_ty)
            total += part * _product(x, v, at, entry + 3, C, inside, order, MOVED, total)
    tl.store(out + (n * n_rows + row) * C + c, total, mask=inside)


@triton.jit
def _coefficients(
    x,
    v,
    g,
    bounds,
    entries,
    out,
    C,
    n_variables,
    n_terms,
    n_g,
    first,
    ORDER: tl.constexpr,
    WIDTH: tl.constexpr,
    MOVED: tl.constexpr,
    SIZE: tl.constexpr,
):
    entry = entries + (first + tl.program_id(0)) * WIDTH
    row = tl.program_id(1).to(tl.int64)
    c = tl.program_id(2) * SIZE + tl.arange(0, SIZE)
    inside = c < C
    output = tl.load(entry + 1)
    total = tl.zeros((SIZE,), dtype=x.dtype.element_ty)
    for n in range(tl.load(bounds + row), tl.load(bounds + row + 1)):  # int64, as the bounds are
        from_ = tl.load(g + (n * n_g + output) * C + c, mask=inside, other=0.0)
        total += from_ * _product(x, v, n * n_variables * C + c, entry + 3, C, inside, ORDER, MOVED, total)
    tl.store(out + (row * n_terms + tl.load(entry)) * C + c, total, mask=inside)


class _Entries(NamedTuple):
    """Rows of (coefficient, output, multiplicity, variables...), sorted by row and order of the product."""

    starts: Tensor  # int32, (rows, orders) flat and the end
    entries: Tensor  # int32, (E, width)
    lowest: int
    highest: int


class _Lists(NamedTuple):
    """A plan as the kernels take it."""

    n_variables: int
    n_outputs: int
    n_terms: int
    values: _Entries
    slopes: _Entries
    terms: Tensor  # int32, (terms, width) by order
    orders: list[tuple[int, int, int]]  # order, first term, number of terms


def _entries(
    rows: list[list[tuple[int, int, int, tuple[int, ...]]]], lowest: int, highest: int, like: Tensor
) -> _Entries:
    starts, flat = [0], []
    for row in rows:
        for order in range(lowest, highest + 1):
            mine = [e for e in row if len(e[3]) == order]
            flat += [[*e[:3], *e[3], *[0] * (highest - order)] for e in mine]
            starts.append(len(flat))
    table = np.array(flat, dtype=np.int32).reshape(len(flat), 3 + highest)
    as_ints = [torch.as_tensor(np.asarray(x, dtype=np.int32)).to(like.device) for x in (starts, table)]
    return _Entries(as_ints[0], as_ints[1], lowest, highest)


def _make_lists(plan: Tensor) -> _Lists:
    n_variables, n_outputs, terms = read_plan(plan.cpu().numpy())
    highest = max((len(m) for _, m in terms), default=1)
    values: list[list] = [[] for _ in range(n_outputs)]
    slopes: list[list] = [[] for _ in range(n_variables)]
    for t, (output, m) in enumerate(terms):
        values[output].append((t, output, 1, m))
        for i in sorted(set(m)):
            rest = list(m)
            rest.remove(i)
            slopes[i].append((t, output, m.count(i), tuple(rest)))
    by_order = sorted(((t, o, 1, m) for t, (o, m) in enumerate(terms)), key=lambda e: len(e[3]))
    lengths = [len(e[3]) for e in by_order]
    orders = [(d, lengths.index(d), lengths.count(d)) for d in sorted(set(lengths))]
    flat = _entries([by_order], 1, highest, plan).entries
    made = _entries(values, 1, highest, plan), _entries(slopes, 0, highest - 1, plan)
    return _Lists(n_variables, n_outputs, len(terms), *made, flat, orders)


_kept: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def _lists(plan: Tensor) -> _Lists:
    """Lists of a plan; made once per plan, which is the only time that it is read from the device."""
    if plan not in _kept:
        _kept[plan] = _make_lists(plan)
    return _kept[plan]


def _sum_rows(
    e: _Entries, lists: _Lists, x: Tensor, v: Tensor | None, g: Tensor | None, c: Tensor, sets: Tensor
) -> Tensor:
    """Sum of the entries of each row, (N, rows, C)."""
    n_rows = (e.starts.shape[0] - 1) // (e.highest - e.lowest + 1)
    out = x.new_empty((x.shape[0], n_rows, x.shape[2]))
    if out.numel():
        size = block(x.shape[2], 64)
        grid = (x.shape[0], n_rows, triton.cdiv(x.shape[2], size))
        sizes = (x.shape[2], lists.n_variables, lists.n_terms, lists.n_outputs, n_rows)
        shape = {"LOWEST": e.lowest, "HIGHEST": e.highest, "WIDTH": e.entries.shape[1], "SIZE": size}
        with torch.cuda.device_of(x):
            _rows[grid](x, x if v is None else v, x if g is None else g, c, sets, e.starts, e.entries, out, *sizes,
                        **shape, WITH_G=g is not None, MOVED=v is not None, **ONE_WARP)  # fmt: skip
    return out


def _by_coefficients(lists: _Lists, x: Tensor, v: Tensor | None, g: Tensor, like: Tensor, sets: Tensor) -> Tensor:
    """Gradient by the coefficients, (sets, terms, C). Sets ascend, so each is one range of atoms."""
    out = torch.empty_like(like, memory_format=torch.contiguous_format)
    if not out.numel():
        return out
    rows = torch.arange(like.shape[0] + 1, device=sets.device, dtype=sets.dtype)
    bounds = torch.searchsorted(sets, rows)
    size = block(x.shape[2], 64)
    sizes = (x.shape[2], lists.n_variables, lists.n_terms, lists.n_outputs)
    for order, first, count in lists.orders:
        grid = (count, like.shape[0], triton.cdiv(x.shape[2], size))
        shape = {"ORDER": order, "WIDTH": lists.terms.shape[1], "SIZE": size, "MOVED": v is not None}
        with torch.cuda.device_of(x):
            _coefficients[grid](
                x, x if v is None else v, g, bounds, lists.terms, out, *sizes, first, **shape, **ONE_WARP
            )
    return out


def contraction(features: Tensor, coefficients: Tensor, set: Tensor, plan: Tensor, n_outputs: int) -> Tensor:
    """Values (N, outputs, C) from features (N, variables, C), coefficients (sets, terms, C), sets (N,)."""
    lists = _lists(plan)
    return _sum_rows(
        lists.values, lists, features.contiguous(), None, None, coefficients.contiguous(), set.contiguous()
    )


def contraction_adjoint(
    g: Tensor,
    features: Tensor,
    coefficients: Tensor,
    set: Tensor,
    plan: Tensor,
    need_coefficients: bool,
) -> tuple[Tensor, Tensor]:
    """Gradients by the features and, if needed, by the coefficients (else no rows)."""
    lists, g, x, c, sets = _lists(plan), *(t.contiguous() for t in (g, features, coefficients, set))
    by_features = _sum_rows(lists.slopes, lists, x, None, g, c, sets)
    if not need_coefficients:
        return by_features, c.new_empty((0, *c.shape[1:]))
    return by_features, _by_coefficients(lists, x, None, g, c, sets)


def contraction_second(
    g: Tensor,
    features: Tensor,
    coefficients: Tensor,
    direction: Tensor,
    set: Tensor,
    plan: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of direction x (adjoint by features), by g, features and coefficients."""
    lists = _lists(plan)
    g, x, c, v, sets = (t.contiguous() for t in (g, features, coefficients, direction, set))
    by_g = _sum_rows(lists.values, lists, x, v, None, c, sets)
    return by_g, _sum_rows(lists.slopes, lists, x, v, g, c, sets), _by_coefficients(lists, x, v, g, c, sets)


OPERATORS = (contraction, contraction_adjoint, contraction_second)
