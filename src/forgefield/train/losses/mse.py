"""Mean squared error."""

from __future__ import annotations

from torch import Tensor

from forgefield.core.catalog import Entry
from forgefield.core.settings import Settings
from forgefield.train.loss import Loss
from forgefield.train.normalization import Rows


class MseSettings(Settings):
    """The mean squared error has no settings."""


class Mse(Loss):
    """Mean over all labelled components of the squared error.

    Source:
        The weighted losses of mace-torch 0.3.16 have this form.
    """

    def __init__(self, settings: MseSettings) -> None:
        self.settings = settings

    def of_rows(self, difference: Tensor, rows: Rows) -> Tensor:
        """Return the squared norm of each row, (R,)."""
        return difference.square().sum(1)

    def count(self, rows: Rows, width: int) -> Tensor:
        """Return the number of labelled components."""
        return rows.present.sum() * width


ENTRY = Entry(MseSettings, Mse, "mean squared error of every component")
