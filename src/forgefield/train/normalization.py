"""How losses of structures of different sizes are put together.

| | quantity of a structure (energy) | quantity of atoms (forces) |
|---|---|---|
| `per_atom` | loss of the difference divided by the number of atoms n | mean over all labelled atoms |
| `per_structure` | loss of the difference as it is | mean over the labelled atoms of each structure |
| `total` | the same | sum over the labelled atoms of each structure |
| `sqrt_atoms` | loss of the difference as it is, divided by √n | that sum, divided by √n |

All but the mean over all atoms are then averaged over the labelled structures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from forgefield.core.quantities import Normalization, Quantity

if TYPE_CHECKING:
    from forgefield.data.labels import Labels


class Rows(NamedTuple):
    """What a loss may know of the R rows it sums: structures (energy, stress) or atoms (forces)."""

    present: Tensor  # (R,), bool: the row is labelled
    weight: Tensor  # (R,), weight of the row: its structure's, its tag's, and the normalisation's
    structure: Tensor  # (R,), index of the row's structure
    n_atoms: Tensor  # (R,), atoms in the row's structure
    n_structures: int


def scaled(difference: Tensor, rows: Rows, quantity: Quantity, normalization: Normalization) -> Tensor:
    """Divide differences of structures by their number of atoms if that is asked for, (R, D)."""
    if normalization == "per_atom" and quantity.per == "structure":
        return difference / rows.n_atoms.to(difference.dtype).unsqueeze(1)
    return difference


def weighted(rows: Rows, quantity: Quantity, normalization: Normalization) -> Rows:
    """Put the factor that the normalisation gives to each row into its weight."""
    if normalization == "sqrt_atoms":
        return rows._replace(weight=rows.weight * rows.n_atoms.to(rows.weight.dtype).rsqrt())
    if normalization == "per_structure" and quantity.per == "atom":
        labelled = _labelled_atoms(rows).index_select(0, rows.structure).clamp(min=1)
        return rows._replace(weight=rows.weight / labelled.to(rows.weight.dtype))
    return rows


def counted(rows: Rows, labels: Labels, quantity: Quantity, normalization: Normalization) -> Rows:
    """Return the rows that the sum is divided by: atoms for their mean, else structures with any label."""
    if quantity.per == "structure" or normalization == "per_atom":
        return rows
    every = torch.arange(rows.n_structures, device=rows.present.device)
    return Rows(_labelled_atoms(rows) > 0, labels.weight, every, labels.n_atoms, rows.n_structures)


def _labelled_atoms(rows: Rows) -> Tensor:
    """Labelled atoms of each structure, (S,)."""
    none = torch.zeros(rows.n_structures, dtype=torch.int64, device=rows.present.device)
    return none.index_add(0, rows.structure, rows.present.to(torch.int64))
