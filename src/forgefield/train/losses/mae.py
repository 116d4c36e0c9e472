"""Mean absolute error."""

from __future__ import annotations

from torch import Tensor

from forgefield.core.catalog import Entry
from forgefield.core.settings import Settings
from forgefield.train.loss import Loss
from forgefield.train.normalization import Rows


class MaeSettings(Settings):
    """The mean absolute error has no settings."""


class Mae(Loss):
    """Mean over all labelled components of the absolute error."""

    def __init__(self, settings: MaeSettings) -> None:
        self.settings = settings

    def of_rows(self, difference: Tensor, rows: Rows) -> Tensor:
        """Return the sum of absolute components of each row, (R,)."""
        return difference.abs().sum(1)

    def count(self, rows: Rows, width: int) -> Tensor:
        """Return the number of labelled components."""
        return rows.present.sum() * width


ENTRY = Entry(MaeSettings, Mae, "mean absolute error of every component")
