"""Elements as overlaps of their valence orbitals in GFN-xTB with a row of Gaussians."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any

import numpy as np

from forgefield.core.elements import symbol
from forgefield.core.errors import ModelError

# Auxiliary Gaussians: of each degree the largest exponent (1/Bohr^2), the ratio of one to the next, and their number.
GAUSSIANS = {
    "aux28": ((128.0, 2.0, 16), (32.0, 4.0, 8), (4.0, 4.0, 4)),
    "aux56": ((128.0, 2.0**0.5, 32), (64.0, 2.0, 16), (4.0, 2.0, 8)),
}


@cache
def _table() -> dict[str, Any]:
    file = resources.files("forgefield.models.architectures.xpainn") / "xtb_orbitals.json"
    return json.loads(file.read_text(encoding="utf-8"))


def gaussian_overlap(l: int, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Overlap of two normalised Gaussians of degree l at one centre, by their exponents."""
    return (2.0 * np.sqrt(a * b) / (a + b)) ** (l + 1.5)


def orbital(l: int, n: int, zeta: float, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Expand a Slater function in normalised Gaussians.

    Returns:
        exponents: 1/Bohr^2.
        coefficients: of normalised Gaussians; the sum is normalised.
    """
    exponents, coefficients = (np.array(x) for x in _table()["expansions"][f"{n} {l} {count}"])
    exponents = exponents * zeta**2
    norm = coefficients @ gaussian_overlap(l, exponents[:, None], exponents) @ coefficients
    return exponents, coefficients / np.sqrt(norm)


def overlaps(method: str, auxiliary: str, elements: Sequence[int]) -> np.ndarray:
    """Overlap of each auxiliary Gaussian with the orbitals of its degree and orientation, summed over shells.

    Args:
        method: gfn1-xtb or gfn2-xtb.
        auxiliary: a name of GAUSSIANS.
        elements: atomic numbers.

    Returns:
        (Z, 28 or 56), s, then p, then d.

    Raises:
        ModelError: the method has no orbitals of an element.
    """
    rows = []
    for number in elements:
        shells = _table()[method].get(symbol(number))
        if shells is None:
            fix = "set embed_basis: one-hot"
            raise ModelError(f"{method} has no orbitals of {symbol(number)}", "model.embed_basis", fix)
        parts = []
        for l, (first, ratio, many) in enumerate(GAUSSIANS[auxiliary]):
            wide = first / ratio ** np.arange(many)
            part = np.zeros(many)
            for n, degree, zeta, count in shells:
                if degree == l:
                    exponents, coefficients = orbital(l, n, zeta, count)
                    part += gaussian_overlap(l, wide[:, None], exponents) @ coefficients
            parts.append(part)
        rows.append(np.concatenate(parts))
    return np.array(rows)
