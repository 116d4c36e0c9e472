"""Length of the error vector, weighted by the size of the structure."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from forgefield.core.catalog import Entry
from forgefield.core.quantities import Quantity
from forgefield.core.settings import Settings
from forgefield.train.loss import Loss
from forgefield.train.normalization import Rows


class Atomwisel2Settings(Settings):
    """The size-weighted error length has no settings."""


class Atomwisel2(Loss):
    """Sum over labelled atoms of (atoms in the structure) x (length of the force error), per labelled structure.

    Source:
        The force loss of fairchem's GemNet-OC models of the same name.
    """

    normalizes: ClassVar[bool] = False

    def __init__(self, settings: Atomwisel2Settings) -> None:
        self.settings = settings

    def accepts(self, quantity: Quantity) -> bool:
        """Vectors of atoms only."""
        return quantity.is_vector and quantity.per == "atom"

    def of_rows(self, difference: Tensor, rows: Rows) -> Tensor:
        """Return size times length of each row, (R,)."""
        return rows.n_atoms.to(difference.dtype) * torch.linalg.vector_norm(difference, dim=1)

    def count(self, rows: Rows, width: int) -> Tensor:
        """Return the number of structures with at least one labelled atom."""
        labelled = rows.present.new_zeros(rows.n_structures, dtype=torch.int64)
        return (labelled.index_add(0, rows.structure, rows.present.to(torch.int64)) > 0).sum()


ENTRY = Entry(Atomwisel2Settings, Atomwisel2, "force error length times number of atoms, per structure")
