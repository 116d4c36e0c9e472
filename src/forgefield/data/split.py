"""Dividing a data set into training and validation."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from forgefield.core.errors import DataError
from forgefield.data.dataset import Dataset
from forgefield.data.isolated import are_isolated


@dataclass(frozen=True, eq=False)
class Split:
    """Places of the training and validation structures in a data set, each ascending.

    Args:
        train: (n,)
        val: (m,)
        fraction: the part asked for.
        seed: of the draw.
    """

    train: np.ndarray
    val: np.ndarray
    fraction: float
    seed: int

    @property
    def hash(self) -> str:
        """SHA-256 of both lists of places (hex)."""
        digest = hashlib.sha256(b"forgefield-split-1")
        for places in (self.train, self.val):
            digest.update(f"{len(places)}:".encode())
            digest.update(places.astype("<i8").tobytes())
        return digest.hexdigest()

    def to_dict(self) -> dict[str, object]:
        """Return plain numbers, for split.json."""
        return {
            "seed": self.seed,
            "fraction": self.fraction,
            "hash": self.hash,
            "train": self.train.tolist(),
            "val": self.val.tolist(),
        }


def split_dataset(dataset: Dataset, fraction: float, seed: int) -> Split:
    """Draw `fraction` of the structures for validation.

    Frames of one free atom always stay in training, where reference energies are measured.

    Raises:
        DataError: too few structures to have both parts.
    """
    rest = np.flatnonzero(~are_isolated(dataset))
    count = round(len(rest) * fraction)
    if fraction > 0:
        count = max(count, 1)
        if count >= len(rest):
            raise DataError(
                f"{len(rest)} structures cannot be split into training and validation",
                dataset.name,
                "give more data, give data.val, or set data.val_fraction to 0",
            )
    val = np.sort(np.random.default_rng(seed).permutation(rest)[:count])
    train = np.setdiff1d(np.arange(len(dataset)), val)
    return Split(train, val, fraction, seed)
