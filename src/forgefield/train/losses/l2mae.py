"""Mean length of the error vector."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from forgefield.core.catalog import Entry
from forgefield.core.settings import Settings
from forgefield.train.loss import Loss, Rows


class L2maeSettings(Settings):
    """The mean error length has no settings."""


class L2mae(Loss):
    """Mean over labelled atoms of the length of the force error, which does not depend on the axes.

    Source:
        The force loss of fairchem's OC20 and OC22 models of the same name.
    """

    quantities: ClassVar[frozenset[str]] = frozenset({"forces"})

    def __init__(self, settings: L2maeSettings) -> None:
        self.settings = settings

    def of_rows(self, difference: Tensor, rows: Rows) -> Tensor:
        """Return the length of each row, (R,); its gradient at length 0 is 0."""
        return torch.linalg.vector_norm(difference, dim=1)

    def count(self, rows: Rows, width: int) -> Tensor:
        """Return the number of labelled atoms."""
        return rows.present.sum()


ENTRY = Entry(L2maeSettings, L2mae, "mean length of the force error of an atom")
