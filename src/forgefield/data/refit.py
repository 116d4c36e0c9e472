"""Reference energies corrected so that a model's energies meet the labels of other data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from forgefield.core.elements import symbol


class Correction(NamedTuple):
    """Least squares of residuals on compositions.

    Args:
        values: what to add to the reference energy of each element, (Z,), eV.
        rank: how many of them the compositions determine.
        rms_before: root mean square of the residuals per atom, eV.
        rms_after: what is left of it.
    """

    values: np.ndarray
    rank: int
    rms_before: float
    rms_after: float


def fit_correction(counts: np.ndarray, residuals: np.ndarray) -> Correction:
    """Fit residual = sum over elements of count x value, float64; of equally good solutions the smallest is taken.

    Args:
        counts: atoms of each element in each structure, (S, Z).
        residuals: label minus energy of the model, (S,), eV.
    """
    counts = counts.astype(np.float64)
    values, _, rank, _ = np.linalg.lstsq(counts, residuals, rcond=None)
    sizes = counts.sum(1)

    def rms(rest: np.ndarray) -> float:
        return float(np.sqrt(np.mean((rest / sizes) ** 2)))

    return Correction(values, int(rank), rms(residuals), rms(residuals - counts @ values))


def explain_rank(correction: Correction, elements: Sequence[int], what: str) -> str | None:
    """Say what it means that compositions do not determine every element; None where they do."""
    if correction.rank == len(elements):
        return None
    names = ", ".join(symbol(z) for z in elements)
    return (
        f"{what}: the compositions of the data determine only {correction.rank} of {len(elements)} values ({names}), "
        "so the smallest change that fits is taken. Sums over these compositions are right, single values may not be: "
        "for other compositions give data.e0 (energies of free atoms), or add structures of other compositions"
    )
