"""Seconds of a step as a sum of parts in proportion to its size."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from forgefield.data.sizes import BatchSize

_ROUNDS, _BORNE = 20, 1.5  # reweightings; deviations, in typical ones, that keep their full weight


@dataclass(frozen=True, eq=False)
class Cost:
    """Seconds of a step: per batch + per atom + per edge, none of them negative.

    Args:
        parts: (3,), s per batch, atom and edge.
        spread: typical relative deviation of a step from it.
    """

    parts: np.ndarray
    spread: float

    def seconds(self, work: np.ndarray) -> np.ndarray:
        """Return the seconds of rows of `work_of`, (n,)."""
        return work @ self.parts


def work_of(batches: Sequence[BatchSize]) -> tuple[int, int, int]:
    """Return what the seconds of a step grow with: its batches, atoms and edges."""
    return len(batches), sum(size.atoms for size in batches), sum(size.edges for size in batches)


def fit_cost(work: Sequence[Sequence[float]], seconds: Sequence[float]) -> Cost:
    """Fit the parts to measured steps: relative deviations, in which outliers count little.

    Args:
        work: rows of `work_of`, one for each step.
        seconds: of each step.
    """
    table, target = np.array(work, dtype=np.float64).reshape(-1, 3), np.asarray(seconds, dtype=np.float64)
    weights = np.ones(len(target))
    parts = np.zeros(3)
    for _ in range(_ROUNDS):
        parts = _not_negative(table / target[:, None] * weights[:, None], weights)
        deviation = np.abs(table @ parts / target - 1.0)
        borne = _BORNE * max(1.4826 * float(np.median(deviation)), 1e-6)
        weights = np.sqrt(np.minimum(1.0, borne / np.maximum(deviation, 1e-12)))
    return Cost(parts, float(np.median(np.abs(table @ parts / target - 1.0))))


def _not_negative(table: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Least squares with parts >= 0: the best of all choices of parts that are not zero."""
    best, least = np.zeros(table.shape[1]), np.inf
    for count in range(1, table.shape[1] + 1):
        for kept in itertools.combinations(range(table.shape[1]), count):
            found = np.linalg.lstsq(table[:, kept], target, rcond=None)[0]
            rest = float(((table[:, kept] @ found - target) ** 2).sum())
            if (found >= 0).all() and rest < least * (1 - 1e-9):
                best, least = np.zeros(table.shape[1]), rest
                best[list(kept)] = found
    return best
