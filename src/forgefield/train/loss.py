"""Labels and predictions -> one weighted loss, with missing labels left out before any arithmetic."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import torch
from torch import Tensor

from forgefield.core.catalog import Catalog
from forgefield.core.errors import ConfigError
from forgefield.train.catalogs import LOSSES
from forgefield.train.settings import TrainSettings

if TYPE_CHECKING:
    from forgefield.data.loader import Labels
    from forgefield.models.potential import Outputs

QUANTITY_KEYS = {"energy": "energy", "forces": "force", "stress": "stress"}  # quantity -> its word in the train keys


class Rows(NamedTuple):
    """What a loss may know of the R rows it sums: structures (energy, stress) or atoms (forces)."""

    present: Tensor  # (R,), bool: the row is labelled
    weight: Tensor  # (R,), weight of the row's structure
    structure: Tensor  # (R,), index of the row's structure
    n_atoms: Tensor  # (R,), atoms in the row's structure
    n_structures: int


class LossReport(NamedTuple):
    """A loss and its parts: `total` is the sum of weight times term, each term is unweighted."""

    total: Tensor
    terms: dict[str, Tensor]


class Loss(ABC):
    """The loss of one quantity: a sum over labelled rows divided by a count of labels.

    The sum and the count are kept apart, so that losses of parts of a batch, of accumulated batches and of whole
    epochs are joined exactly. Structure weights multiply the sum and not the count, as in mace-torch.
    """

    quantities: ClassVar[frozenset[str]]

    @abstractmethod
    def of_rows(self, difference: Tensor, rows: Rows) -> Tensor:
        """Return the loss of each row, (R,), from `difference` (R, D): prediction minus label, 0 where absent."""

    @abstractmethod
    def count(self, rows: Rows, width: int) -> Tensor:
        """Return what the sum is divided by, for rows of `width` components; 0 if nothing is labelled."""

    def sum(self, difference: Tensor, rows: Rows) -> Tensor:
        """Return the weighted sum over labelled rows, float64."""
        each = torch.where(rows.present, self.of_rows(difference, rows), 0.0)
        return (each * rows.weight.to(each.dtype)).sum(dtype=torch.float64)


class WeightedLoss:
    """Sum of one loss per quantity.

    With the mean squared error throughout and all labels present it is the default loss of mace-torch,
    `w_E mean(c ((E-E')/n)^2) + w_F mean(c dF^2) + w_S mean(c dS^2)` with c the weight of the structure; means are over
    structures, force components and the nine stress components. Where labels are missing, ours divides by the labels
    present, not by all rows.

    Args:
        terms: weight and loss of each quantity.
    """

    def __init__(self, terms: Mapping[str, tuple[float, Loss]]) -> None:
        self.terms = dict(terms)

    def __call__(self, outputs: Outputs, labels: Labels) -> LossReport:
        """Return the loss of one batch, differentiable."""
        return self.combine(self.sums(outputs, labels), self.counts(labels))

    def sums(self, outputs: Outputs, labels: Labels) -> dict[str, Tensor]:
        """Return the weighted sum of each term, float64, differentiable."""
        found = {}
        for name, (_, loss) in self.terms.items():
            rows = _rows(name, labels)
            found[name] = loss.sum(_difference(name, outputs, labels, rows), rows)
        return found

    def counts(self, labels: Labels) -> dict[str, Tensor]:
        """Return what each sum is divided by; known before the model is evaluated."""
        return {
            name: loss.count(_rows(name, labels), _width(name)).to(torch.float64)
            for name, (_, loss) in self.terms.items()
        }

    def combine(self, sums: Mapping[str, Tensor], counts: Mapping[str, Tensor]) -> LossReport:
        """Divide sums by counts and add the terms; a term without labels is 0."""
        terms = {name: sums[name] / counts[name].clamp(min=1.0) for name in self.terms}
        weighted = [weight * terms[name] for name, (weight, _) in self.terms.items()]
        return LossReport(torch.stack(weighted).sum(), terms)


def build_loss(settings: TrainSettings) -> WeightedLoss:
    """Make the loss that the `train` block asks for; quantities of weight 0 are left out."""
    terms = {}
    for quantity, word in QUANTITY_KEYS.items():
        weight = getattr(settings, f"{word}_weight")
        if weight > 0:
            terms[quantity] = (weight, build_term(quantity, getattr(settings, f"loss_{word}")))
    return WeightedLoss(terms)


def build_term(quantity: str, name: str) -> Loss:
    """Make the loss called `name` for one quantity.

    Raises:
        ConfigError: there is none of that name, or it cannot be used for this quantity.
    """
    catalog = Catalog(LOSSES)
    entry = catalog.entry(name)
    loss: Loss = entry.build(entry.settings())
    if quantity not in loss.quantities:
        raise ConfigError(
            f"loss {name!r} is not defined for {quantity}, only for {', '.join(sorted(loss.quantities))}",
            fix="mse and mae are defined for all",
        )
    return loss


def _width(name: str) -> int:
    return {"energy": 1, "forces": 3, "stress": 9}[name]


def _rows(name: str, labels: Labels) -> Rows:
    n_structures = labels.n_atoms.shape[0]
    if name == "forces":
        of_atom = labels.structure
        weight, n_atoms = labels.weight.index_select(0, of_atom), labels.n_atoms.index_select(0, of_atom)
        return Rows(labels.has_forces, weight, of_atom, n_atoms, n_structures)
    present = labels.has_energy if name == "energy" else labels.has_stress
    structure = torch.arange(n_structures, device=labels.n_atoms.device)
    return Rows(present, labels.weight, structure, labels.n_atoms, n_structures)


def _difference(name: str, outputs: Outputs, labels: Labels, rows: Rows) -> Tensor:
    """Prediction minus label, (R, D), zero where there is no label; energies per atom."""
    present = rows.present.unsqueeze(1)
    predicted = getattr(outputs, name).reshape(-1, _width(name))
    wanted = getattr(labels, name).reshape(-1, _width(name)).to(predicted.dtype)
    # Both sides are masked first: not a number times zero is still not a number.
    difference = torch.where(present, predicted, 0.0) - torch.where(present, wanted, 0.0)
    if name == "energy":
        difference = difference / rows.n_atoms.to(difference.dtype).unsqueeze(1)
    return difference
