"""Matrix products with one matrix per element, on atoms sorted by element.

Each function takes `counts`, atoms per element on the CPU, and loops over the elements that are there. Under
`torch.jit.trace` the scripted twins run, so that an exported file keeps the loop; under `torch.export` the loop is
unrolled over all elements the model knows, with group sizes that stay unknown until the file is run; under
`torch.compile` the operators of `grouped_operators.py`, into which it does not look.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from forgefield.models.blocks.grouped_operators import contract_operator, linear_operator


def _linear(x: Tensor, weights: Tensor, counts: Tensor) -> Tensor:
    out: list[Tensor] = []
    start = 0
    sizes: list[int] = counts.tolist()
    for z in range(len(sizes)):
        n = sizes[z]
        if n > 0:
            out.append(torch.matmul(x.narrow(0, start, n), weights[z]))
        start += n
    return torch.cat(out, 0)


def _contract(weights: Tensor, tables: list[Tensor], monomials: Tensor, counts: Tensor) -> Tensor:
    out: list[Tensor] = []
    start = 0
    n_elements = weights.shape[0]
    sizes: list[int] = counts.tolist()
    columns = monomials.transpose(0, 1)
    for z in range(len(sizes)):
        n = sizes[z]
        if n > 0:
            w = weights[z if n_elements > 1 else 0]
            rows: list[Tensor] = []
            start_path = 0
            for table in tables:
                part = w.narrow(0, start_path, table.shape[0]).t()
                rows.append(torch.matmul(part, table.flatten(1)).unflatten(1, [table.shape[1], table.shape[2]]))
                start_path += table.shape[0]
            out.append(torch.bmm(torch.cat(rows, 1), columns.narrow(2, start, n)))
        start += n
    return torch.cat(out, 2)


def _group_sizes(counts: Tensor, n_atoms: int) -> list[int]:
    """Atoms of each element as sizes that are known only when the exported program runs."""
    sizes: list[int] = counts.tolist()
    for n in sizes:
        torch._check(n >= 0)
    torch._check(sum(sizes) == n_atoms)
    return sizes


def _joined(parts: list[Tensor], axis: int, n_atoms: int) -> Tensor:
    """Join the groups; reading them through an index gives the result a size that the exporter knows."""
    whole = torch.cat(parts, axis)
    return whole.index_select(axis, torch.arange(n_atoms, device=whole.device))


def _linear_exported(x: Tensor, weights: Tensor, counts: Tensor) -> Tensor:
    groups = x.split(_group_sizes(counts, x.shape[0]))
    return _joined([torch.matmul(g, w) for g, w in zip(groups, weights.unbind(0), strict=True)], 0, x.shape[0])


def _contract_exported(weights: Tensor, tables: list[Tensor], monomials: Tensor, counts: Tensor) -> Tensor:
    n_atoms = monomials.shape[2]
    groups = monomials.transpose(0, 1).split(_group_sizes(counts, n_atoms), 2)
    out: list[Tensor] = []
    for z, group in enumerate(groups):
        parts = weights[z if weights.shape[0] > 1 else 0].split([t.shape[0] for t in tables])
        rows = [(p.t() @ t.flatten(1)).unflatten(1, t.shape[1:]) for p, t in zip(parts, tables, strict=True)]
        table = torch.cat(rows, 1)
        # Inductor compiles baddbmm, unlike bmm, for groups of unknown size; beta = 0 leaves the first term out.
        out.append(torch.baddbmm(table.new_zeros(1, 1, 1), table, group, beta=0))
    return _joined(out, 2, n_atoms)


@cache
def _scripted(name: str) -> torch.jit.ScriptFunction:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.script({"linear": _linear, "contract": _contract}[name])


def linear_by_element(x: Tensor, weights: Tensor, counts: Tensor) -> Tensor:
    """Multiply each atom's rows by its element's matrix.

    Args:
        x: (N, ..., C).
        weights: (Z, C, D).
        counts: atoms of each element, (Z,), on the CPU; atoms are sorted by element.

    Returns:
        (N, ..., D).
    """
    if torch.compiler.is_exporting():
        return _linear_exported(x, weights, counts)
    if torch.compiler.is_compiling():
        return linear_operator(x, weights, counts)
    function = _scripted("linear") if torch.jit.is_tracing() else _linear
    return function(x, weights, counts)


def contract_by_element(weights: Tensor, tables: list[Tensor], monomials: Tensor, counts: Tensor) -> Tensor:
    """Contract monomials with tables that are first weighted by element and channel.

    Args:
        weights: of the paths, (Z, K, C), or (1, K, C) for all elements alike.
        tables: blocks (k, rows, Q) whose k add up to K.
        monomials: (Q, C, N).
        counts: atoms of each element, (Z,), on the CPU.

    Returns:
        (C, all rows, N).
    """
    if torch.compiler.is_exporting():
        return _contract_exported(weights, tables, monomials, counts)
    if torch.compiler.is_compiling():
        return contract_operator(weights, tables, monomials, counts)
    function = _scripted("contract") if torch.jit.is_tracing() else _contract
    return function(weights, tables, monomials, counts)
