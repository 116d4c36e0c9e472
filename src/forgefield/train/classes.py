"""How well classes are told apart."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

BORDER = 0.5
"""Probability from which on a structure counts as predicted to be of the class."""


class Curve(NamedTuple):
    """Receiver operating characteristic: one point per probability that occurs, from none called positive to all."""

    false_positive: np.ndarray  # (K,), share of the negatives that are called positive
    true_positive: np.ndarray  # (K,), share of the positives that are


def of_classes(probability: np.ndarray, label: np.ndarray) -> dict[str, float | int | None]:
    """Return accuracy, area under the curve, and the confusion table of a class.

    Args:
        probability: of the label 1, (n, 1) or (n,).
        label: 1 or 0, of the same shape.
    """
    p, y = probability.reshape(-1), label.reshape(-1) > BORDER
    called = p >= BORDER
    return {
        "accuracy": float((called == y).mean()) if len(y) else None,
        "auc": area(p, y),
        "true_positive": int((called & y).sum()),
        "false_positive": int((called & ~y).sum()),
        "true_negative": int((~called & ~y).sum()),
        "false_negative": int((~called & y).sum()),
    }


def curve(probability: np.ndarray, positive: np.ndarray) -> Curve | None:
    """Return the characteristic of probabilities (n,) of what is positive or not, (n,) bool; None for one kind only."""
    n_positive = int(positive.sum())
    if n_positive in (0, len(positive)):
        return None
    order = np.argsort(-probability, kind="stable")
    last = np.append(np.diff(probability[order]) != 0, True)  # equal probabilities are one step
    true = np.cumsum(positive[order])[last]
    false = np.cumsum(~positive[order])[last]
    start = np.zeros(1)
    negatives = len(positive) - n_positive
    return Curve(np.concatenate([start, false / negatives]), np.concatenate([start, true / n_positive]))


def area(probability: np.ndarray, positive: np.ndarray) -> float | None:
    """Return the area under the curve: the chance that a positive has the higher probability; ties count half."""
    found = curve(probability, positive)
    return None if found is None else float(np.trapezoid(found.true_positive, found.false_positive))
