"""What is known of the elements beforehand, as numbers."""

from __future__ import annotations

from importlib import resources
from typing import Literal

import numpy as np

from forgefield.core.elements import symbol
from forgefield.core.errors import ModelError

UNKNOWN = -9999.0
"""Stands in the table where a number is not known."""


def element_features(kind: Literal["cgcnn", "atomic_number", "basic", "cfid"], elements: tuple[int, ...]) -> np.ndarray:
    """Return the features of elements, (Z, F), as alignn gives them to its networks.

    Args:
        kind: which features.
        elements: atomic numbers.

    Raises:
        ModelError: there are none of an element.
    """
    if kind == "atomic_number":
        return np.array(elements, dtype=float)[:, None]
    place = resources.files("forgefield.models.architectures.alignn") / "elements.npz"
    with place.open("rb") as file, np.load(file, allow_pickle=False) as table:
        rows = np.unpackbits(table["cgcnn"], axis=1, count=92) if kind == "cgcnn" else table["cfid"]
        columns = table["basic"] if kind == "basic" else slice(None)
    found = rows[[min(z, len(rows) - 1) for z in elements]][:, columns].astype(float)
    missing = [z for z, row in zip(elements, found, strict=True) if not np.isfinite(row).all() or not row.any()]
    if missing:
        what = f"there are no {kind} features of {', '.join(map(symbol, missing))}"
        raise ModelError(what, "model.atom_features", "use atomic_number, or leave the element out")
    return found


def scaled_features(kind: Literal["cgcnn", "atomic_number", "basic", "cfid"], elements: tuple[int, ...]) -> np.ndarray:
    """Return the features with mean 0 and deviation 1 over hydrogen to fermium, where they are numbers, (Z, F).

    What is not known of an element is 0 there.
    """
    found = element_features(kind, elements)
    if kind == "cgcnn":
        return found
    table = element_features(kind, tuple(range(1, 101)))
    known = np.ma.masked_equal(table, UNKNOWN)
    mean, spread = known.mean(0).filled(0.0), known.std(0).filled(0.0)
    scaled = (found - mean) / np.where(spread > 0, spread, 1.0)
    return np.where(found == UNKNOWN, 0.0, scaled)
