"""Huber loss."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from forgefield.core.catalog import Entry
from forgefield.core.settings import Settings
from forgefield.train.loss import Loss
from forgefield.train.normalization import Rows


class HuberSettings(Settings):
    """Where the square ends."""

    huber_delta: float = Field(0.01, gt=0, description="Error above which the loss is linear, in the quantity's unit.")


class Huber(Loss):
    """Mean over all labelled components of d²/2 for |d| < delta, delta (|d| - delta/2) beyond.

    Source:
        P. J. Huber, Ann. Math. Statist. 35, 73 (1964).
    """

    def __init__(self, settings: HuberSettings) -> None:
        self.settings = settings

    def of_rows(self, difference: Tensor, rows: Rows) -> Tensor:
        """Return the sum over the components of each row, (R,)."""
        delta, size = self.settings.huber_delta, difference.abs()
        return torch.where(size < delta, 0.5 * difference.square(), delta * (size - 0.5 * delta)).sum(1)

    def count(self, rows: Rows, width: int) -> Tensor:
        """Return the number of labelled components."""
        return rows.present.sum() * width


ENTRY = Entry(HuberSettings, Huber, "square of small errors, delta times the size of large ones")
