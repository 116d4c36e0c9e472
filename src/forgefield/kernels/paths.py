"""Coupling paths of an edge product, and the tables its kernels read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

from forgefield.core.errors import ModelError


class Path(NamedTuple):
    """One coupling: degree of the sender's feature, of the harmonic, and of the message."""

    feature: int
    harmonic: int
    message: int


@cache
def _paths(feature_degrees: tuple[int, ...], max_degree: int) -> tuple[Path, ...]:
    found = [
        Path(l1, l2, l3)
        for l1 in feature_degrees
        for l2 in range(max_degree + 1)
        for l3 in range(abs(l1 - l2), min(l1 + l2, max_degree) + 1)
        if (l1 + l2 + l3) % 2 == 0
    ]
    return tuple(sorted(found, key=lambda p: (p.message, p.feature, p.harmonic)))


def coupling_paths(feature_degrees: Sequence[int], max_degree: int) -> list[Path]:
    """All natural-parity couplings of the features with harmonics up to `max_degree`, ordered by message degree."""
    return list(_paths(tuple(feature_degrees), max_degree))


def feature_offsets(feature_degrees: Sequence[int]) -> dict[int, int]:
    """First row of each degree in features that lie one degree after the other."""
    starts = np.cumsum([0, *(2 * l + 1 for l in feature_degrees)])
    return {l: int(s) for l, s in zip(feature_degrees, starts, strict=False)}


Coupling = Callable[[int, int, int], np.ndarray]
_couplings: dict[tuple[tuple[int, ...], int], Coupling] = {}


def coupling_of(feature_degrees: Sequence[int], max_degree: int) -> Coupling:
    """Return the coupling tensors that `edge_plan` was given for these degrees.

    Raises:
        ModelError: there is no such plan in this process.
    """
    key = (tuple(feature_degrees), max_degree)
    if key not in _couplings:
        raise ModelError(f"no edge plan for the degrees {key[0]} up to {max_degree}", fix="call edge_plan first")
    return _couplings[key]


class _Sparse:
    """Rows of (column, value), turned into one start list and two flat lists."""

    def __init__(self, n_rows: int) -> None:
        self.rows: list[list[tuple[int, float]]] = [[] for _ in range(n_rows)]

    def flat(self) -> tuple[list[int], list[int], list[float]]:
        starts = np.cumsum([0, *(len(row) for row in self.rows)]).tolist()
        entries = [entry for row in self.rows for entry in row]
        return starts, [column for column, _ in entries], [value for _, value in entries]


def edge_plan(feature_degrees: Sequence[int], max_degree: int, coupling: Coupling) -> tuple[np.ndarray, np.ndarray]:
    """Write down an edge product for the kernels.

    Args:
        feature_degrees: degrees of the sender's features, ascending.
        max_degree: highest degree of harmonics and messages.
        coupling: coupling tensor (2 l1 + 1, 2 l2 + 1, 2 l3 + 1) of three degrees.

    Returns:
        plan: int32: numbers of paths, outer rows, message rows, degrees and terms; the paths (feature's degree, its
            first row, harmonic's degree, weight, first outer row) by harmonic degree; degree and offset of each message
            row; the coupling and its transpose as start and column lists.
        values: float64, of the coupling, then of its transpose.

    Raises:
        ModelError: another coupling function was used for these degrees before.
    """
    if _couplings.setdefault((tuple(feature_degrees), max_degree), coupling) is not coupling:
        raise ModelError("two couplings for one set of degrees", fix="use one coupling function in a process")
    paths = coupling_paths(feature_degrees, max_degree)
    first_row = feature_offsets(feature_degrees)
    rows = _message_rows(paths, max_degree)
    place = {key: k for k, key in enumerate(rows)}
    listed, n_outer = [], 0
    terms: list[tuple[int, int, float]] = []
    for weight, p in sorted(enumerate(paths), key=lambda item: item[1].harmonic):
        listed += [p.feature, first_row[p.feature], p.harmonic, weight, n_outer]
        for (m1, m2, m3), value in np.ndenumerate(coupling(*p)):
            if value:
                terms.append((place[p.message, m3, weight], n_outer + m2 * (2 * p.feature + 1) + m1, float(value)))
        n_outer += (2 * p.feature + 1) * (2 * p.harmonic + 1)
    couple, uncouple = _Sparse(len(rows)), _Sparse(n_outer)
    for row, outer, value in terms:
        couple.rows[row].append((outer, value))
        uncouple.rows[outer].append((row, value))
    starts, columns, values = couple.flat()
    back_starts, back_columns, back_values = uncouple.flat()
    head = [len(paths), n_outer, len(rows), max_degree + 1, len(terms)]
    offsets = _offsets(rows)
    plan = [*head, *listed, *(l for l, _, _ in rows), *offsets, *starts, *columns, *back_starts, *back_columns]
    return np.array(plan, dtype=np.int32), np.array(values + back_values)


def _message_rows(paths: list[Path], max_degree: int) -> list[tuple[int, int, int]]:
    """(degree, component, path) of each row of an atom's messages."""
    found = []
    for l3 in range(max_degree + 1):
        mine = [k for k, p in enumerate(paths) if p.message == l3]
        found += [(l3, m3, k) for m3 in range(2 * l3 + 1) for k in mine]
    return found


def _offsets(rows: list[tuple[int, int, int]]) -> list[int]:
    """Position of each row among those of its degree."""
    seen: dict[int, int] = {}
    offsets = []
    for degree, _, _ in rows:
        offsets.append(seen.get(degree, 0))
        seen[degree] = offsets[-1] + 1
    return offsets
