"""Polynomials as the kernels read them: prefixes in depth-first order, and per output the terms that end them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np

Monomial = tuple[int, ...]


class Term(NamedTuple):
    """One monomial of one output."""

    prefix: Monomial
    output: int
    last: int


def polynomial_plan(
    terms: Sequence[tuple[int, Monomial]], n_variables: int, n_outputs: int
) -> tuple[np.ndarray, list[int]]:
    """Write down sums of monomials for the kernels.

    Args:
        terms: (output, monomial), each once; a monomial is an ascending tuple of variables, at least one.
        n_variables: of the features.
        n_outputs: of the polynomials.

    Returns:
        plan: int32: numbers of variables, outputs, prefixes, groups and terms; the prefixes (depth, variable, groups
            from, to), the groups (output, terms from, to), the last variable of each term.
        order: the plan's terms as indices of `terms`.
    """
    keyed = [(Term(m[:-1], output, m[-1]), k) for k, (output, m) in enumerate(terms)]
    keyed.sort()
    order = [k for _, k in keyed]
    by_prefix = {p: list(part) for p, part in groupby((t for t, _ in keyed), key=lambda t: t.prefix)}
    prefixes = sorted({p[:d] for p in by_prefix for d in range(len(p) + 1)})
    nodes: list[int] = []
    groups: list[int] = []
    last: list[int] = []
    for p in prefixes:
        first = len(groups) // 3
        for output, part in groupby(by_prefix.get(p, []), key=lambda t: t.output):
            mine = [t.last for t in part]
            groups += [output, len(last), len(last) + len(mine)]
            last += mine
        nodes += [len(p), p[-1] if p else 0, first, len(groups) // 3]
    head = [n_variables, n_outputs, len(prefixes), len(groups) // 3, len(last)]
    return np.array([*head, *nodes, *groups, *last], dtype=np.int32), order


def read_plan(plan: np.ndarray) -> tuple[int, int, list[tuple[int, Monomial]]]:
    """Inverse of `polynomial_plan`: numbers of variables and outputs, (output, monomial) of each term in its order."""
    n_variables, n_outputs, n_prefixes, n_groups, n_terms = (int(x) for x in plan[:5])
    nodes = plan[5 : 5 + 4 * n_prefixes].reshape(-1, 4).tolist()
    groups = plan[5 + 4 * n_prefixes :][: 3 * n_groups].reshape(-1, 3).tolist()
    last = plan[5 + 4 * n_prefixes + 3 * n_groups :].tolist()
    terms: list[tuple[int, Monomial]] = [(0, ())] * n_terms
    prefix: Monomial = ()
    for depth, variable, first, end in nodes:
        prefix = (*prefix[: depth - 1], variable) if depth else ()
        for output, start, stop in groups[first:end]:
            terms[start:stop] = [(output, (*prefix, i)) for i in last[start:stop]]
    return n_variables, n_outputs, terms
