"""Predictions, labels and masks of any quantity of the table, as rows of components."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from forgefield.core.quantities import Quantity
from forgefield.train.normalization import Rows

if TYPE_CHECKING:
    from forgefield.data.labels import Labels
    from forgefield.models.potential import Outputs


class AtomChoice(NamedTuple):
    """Which atoms' forces are trained on.

    Args:
        free_only: leave out atoms held fixed.
        tag_weights: factor of atoms by tag; 0 leaves them out, tags that are not named have 1.
    """

    free_only: bool = False
    tag_weights: tuple[tuple[int, float], ...] = ()


def predicted(quantity: Quantity, outputs: Outputs, labels: Labels) -> Tensor:
    """Return predictions as rows, (R, D)."""
    name = quantity.label or quantity.name
    value = outputs.extra[name] if name in getattr(outputs, "extra", ()) else getattr(outputs, name)
    return _form(quantity, value, labels)


def wanted(quantity: Quantity, labels: Labels) -> Tensor:
    """Return labels as rows, (R, D); anything where absent."""
    name = quantity.label or quantity.name
    value = getattr(labels, name, None)
    if value is None:
        value = labels.extra.get(name)
    if value is None:  # nothing in this batch is labelled
        rows = labels.structure if quantity.per == "atom" else labels.n_atoms
        value = labels.weight.new_zeros(rows.shape[0], *quantity.shape)
    return _form(quantity, value, labels)


def present(quantity: Quantity, labels: Labels) -> Tensor:
    """Say which rows are labelled, (R,) bool."""
    name = quantity.label or quantity.name
    has = getattr(labels, f"has_{name}", None)
    if has is None:
        has = labels.has_extra.get(name)
    if has is None:
        has = torch.zeros_like(labels.structure if quantity.per == "atom" else labels.n_atoms, dtype=torch.bool)
    if quantity.name == "virial" and labels.volume is not None:
        return has & (labels.volume > 0)
    return has


def rows_of(quantity: Quantity, labels: Labels, choice: AtomChoice | None = None) -> Rows:
    """Return masks, weights and sizes of the rows of a quantity."""
    n_structures = labels.n_atoms.shape[0]
    if quantity.per == "structure":
        structure = torch.arange(n_structures, device=labels.n_atoms.device)
        return Rows(present(quantity, labels), labels.weight, structure, labels.n_atoms, n_structures)
    of_atom = labels.structure
    weight, n_atoms = labels.weight.index_select(0, of_atom), labels.n_atoms.index_select(0, of_atom)
    rows = Rows(present(quantity, labels), weight, of_atom, n_atoms, n_structures)
    return rows if choice is None else _chosen(rows, labels, choice)


def _chosen(rows: Rows, labels: Labels, choice: AtomChoice) -> Rows:
    """Leave out and weigh atoms as asked."""
    there, weight = rows.present, rows.weight
    if choice.free_only and labels.fixed is not None:
        there = there & ~labels.fixed
    tags = torch.zeros_like(labels.structure) if labels.tags is None else labels.tags
    for tag, factor in choice.tag_weights:
        if factor == 0:
            there = there & (tags != tag)
        else:
            weight = torch.where(tags == tag, weight * factor, weight)
    return rows._replace(present=there, weight=weight)


def _form(quantity: Quantity, value: Tensor, labels: Labels) -> Tensor:
    value = value.reshape(-1, quantity.width)
    if quantity.name != "virial":
        return value
    assert labels.volume is not None, "a virial needs volumes"
    return -value * labels.volume.to(value.dtype).unsqueeze(1)
