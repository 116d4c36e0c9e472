"""Labels and predictions -> one weighted loss, with missing labels left out before any arithmetic."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import torch
from torch import Tensor

from forgefield.core.catalog import Catalog
from forgefield.core.errors import ConfigError
from forgefield.core.quantities import ALWAYS, DERIVED, QUANTITIES, Normalization, Quantity
from forgefield.train.catalogs import LOSSES
from forgefield.train.keys.loss import QUANTITY_KEYS, LossKeys, keys_of
from forgefield.train.measured import chosen_atoms
from forgefield.train.normalization import Rows, counted, scaled, weighted
from forgefield.train.values import AtomChoice, predicted, rows_of, wanted

if TYPE_CHECKING:
    from forgefield.data.labels import Labels
    from forgefield.models.potential import Outputs, Potential
    from forgefield.train.settings import TrainSettings


class LossReport(NamedTuple):
    """A loss and its parts: `total` is the sum of weight times term, each term is unweighted."""

    total: Tensor
    terms: dict[str, Tensor]


class Loss(ABC):
    """The loss of one quantity: a sum over labelled rows divided by a count of labels.

    The sum and the count are kept apart, so that losses of parts of a batch, of accumulated batches, of whole
    epochs and of several processes are joined exactly. Weights of structures multiply the sum and not the count, as in
    mace-torch. A loss that is no mean, such as one with the root of a mean, names several sums in `sums_of` and
    makes its value of their means in `value`.
    """

    normalizes: ClassVar[bool] = True  # False: its own sum and count are its only normalisation
    sums_of: ClassVar[tuple[str, ...]] = ("",)  # what follows the quantity in the names of its sums

    def accepts(self, quantity: Quantity) -> bool:
        """Say whether it is defined for a quantity."""
        return True

    @abstractmethod
    def of_rows(self, difference: Tensor, rows: Rows) -> Tensor:
        """Return the loss of each row, (R,), from `difference` (R, D): prediction minus label, 0 where absent.

        A loss of K > 1 sums returns what is summed for each, (K, R).
        """

    @abstractmethod
    def count(self, rows: Rows, width: int) -> Tensor:
        """Return what the sum is divided by, for rows of `width` components; 0 if nothing is labelled."""

    def value(self, means: Sequence[Tensor]) -> Tensor:
        """Return the loss, (), from the quotients of its sums and the count."""
        return means[0]

    def sums(self, difference: Tensor, rows: Rows) -> tuple[Tensor, ...]:
        """Return the weighted sums over labelled rows, float64."""
        each = torch.where(rows.present, self.of_rows(difference, rows), 0.0)
        weighed = each * rows.weight.to(each.dtype)
        if len(self.sums_of) == 1:
            return (weighed.sum(dtype=torch.float64),)
        return weighed.sum(1, dtype=torch.float64).unbind()


class Term:
    """One quantity, the loss of its differences, and how structures of different sizes are put together.

    Args:
        quantity: what is compared.
        loss: of the differences.
        normalization: None takes the quantity's own.
        choice: which atoms count.
    """

    def __init__(
        self,
        quantity: Quantity,
        loss: Loss,
        normalization: Normalization | None = None,
        choice: AtomChoice | None = None,
    ) -> None:
        self.quantity, self.loss, self.choice = quantity, loss, choice
        self.normalization: Normalization = normalization or quantity.normalization

    def rows(self, labels: Labels) -> Rows:
        """Return masks, weights and sizes of the rows that are compared."""
        return rows_of(self.quantity, labels, self.choice)

    def sums(self, outputs: Outputs, labels: Labels, rows: Rows) -> tuple[Tensor, ...]:
        """Return the weighted sums over labelled rows, float64, differentiable."""
        difference = _difference(self.quantity, outputs, labels, rows)
        difference = scaled(difference, rows, self.quantity, self.normalization)
        return self.loss.sums(difference, weighted(rows, self.quantity, self.normalization))

    def count(self, labels: Labels, rows: Rows) -> Tensor:
        """Return what the sum is divided by, float64."""
        rows = counted(rows, labels, self.quantity, self.normalization)
        return self.loss.count(rows, self.quantity.width).to(torch.float64)


class WeightedLoss:
    """Sum of one loss per quantity.

    With the mean squared error throughout and all labels present it is the default loss of mace-torch,
    `w_E mean(c ((E-E')/n)^2) + w_F mean(c dF^2) + w_S mean(c dS^2)` with c the weight of the structure; means are over
    structures, force components and the nine stress components. Where labels are missing, ours divides by the labels
    present, not by all rows.

    Args:
        terms: weight and loss of each quantity.
    """

    def __init__(self, terms: Mapping[str, tuple[float, Term]]) -> None:
        self.terms = dict(terms)
        self._names = {name: [name + part for part in term.loss.sums_of] for name, (_, term) in self.terms.items()}
        self.sum_names = [name for names in self._names.values() for name in names]
        self.is_mean = len(self.sum_names) == len(self.terms)  # then each batch of several has its share of it

    def __call__(self, outputs: Outputs, labels: Labels) -> LossReport:
        """Return the loss of one batch, differentiable."""
        rows = self.rows(labels)
        return self.combine(self.sums(outputs, labels, rows), self.counts(labels, rows))

    def rows(self, labels: Labels) -> dict[str, Rows]:
        """Return the rows of each term, of which both its sum and its count are made."""
        return {name: term.rows(labels) for name, (_, term) in self.terms.items()}

    def sums(self, outputs: Outputs, labels: Labels, rows: Mapping[str, Rows] | None = None) -> dict[str, Tensor]:
        """Return the weighted sums of each term by name, float64, differentiable."""
        rows, found = rows or self.rows(labels), dict[str, Tensor]()
        for name, (_, term) in self.terms.items():
            found |= zip(self._names[name], term.sums(outputs, labels, rows[name]), strict=True)
        return found

    def counts(self, labels: Labels, rows: Mapping[str, Rows] | None = None) -> dict[str, Tensor]:
        """Return what the sums of each term are divided by; known before the model is evaluated."""
        rows = rows or self.rows(labels)
        return {name: term.count(labels, rows[name]) for name, (_, term) in self.terms.items()}

    def combine(self, sums: Mapping[str, Tensor], counts: Mapping[str, Tensor]) -> LossReport:
        """Divide sums by counts and add the terms; a term without labels is 0."""
        terms = dict[str, Tensor]()
        for name, (_, term) in self.terms.items():
            count = counts[name].clamp(min=1.0)
            terms[name] = term.loss.value([sums[place] / count for place in self._names[name]])
        weighted = [weight * terms[name] for name, (weight, _) in self.terms.items()]
        return LossReport(torch.stack(weighted).sum(), terms)

    def slopes(self, sums: Mapping[str, Tensor], counts: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the derivative of the loss by each of the sums over a whole batch."""
        leaves = {name: value.detach().requires_grad_() for name, value in sums.items()}
        with torch.enable_grad():
            total = self.combine(leaves, counts).total
        return dict(zip(leaves, torch.autograd.grad(total, list(leaves.values())), strict=True))

    def means(self, sums: Mapping[str, float], counts: Mapping[str, float]) -> dict[str, float | None]:
        """Return each term from plain sums and counts; None where nothing was labelled."""
        plain = {name: torch.tensor(value, dtype=torch.float64) for name, value in sums.items()}
        found = dict[str, float | None]()
        for name, (_, term) in self.terms.items():
            n, places = counts.get(name), self._names[name]
            found[name] = float(term.loss.value([plain[place] / n for place in places])) if n else None
        return found


def build_loss(settings: TrainSettings, potential: Potential | None = None, stage: int = 1) -> WeightedLoss:
    """Make the loss that the `train` block asks for; quantities of weight 0 are left out.

    Args:
        settings: the `train` block.
        potential: what it will be used on; None checks nothing, and knows no targets of a model's own.
        stage: 1, or 2 for the weights of `stage_two`.

    Raises:
        ConfigError: a quantity with weight is not predicted by the potential, or is not known.
    """
    own = {} if potential is None else dict(potential.architecture.extra_quantities())
    known, terms = {**QUANTITIES, **DERIVED, **own}, {}
    for name, weight in settings.loss_weights(stage).items():
        if weight == 0:
            continue
        if name not in known or (potential is not None and (known[name].label or name) not in {*ALWAYS, *own}):
            raise _not_predicted(name, potential)
        terms[name] = (weight, _term(known[name], settings))
    return WeightedLoss(terms)


def _not_predicted(name: str, potential: Potential | None) -> ConfigError:
    own = [] if potential is None else sorted(potential.architecture.extra_quantities())
    there = ", ".join((*QUANTITY_KEYS, *DERIVED, *own))
    return ConfigError(
        f"{name} has weight in the loss, but the model does not predict it",
        f"train.{weight_key(name)}",
        f"take it out, or use an architecture that does; this one predicts {there}",
    )


def weight_key(name: str) -> str:
    """Return the key, below `train`, of the weight of a quantity."""
    return f"{QUANTITY_KEYS[name]}_weight" if name in QUANTITY_KEYS else f"targets.{name}.weight"


def _term(quantity: Quantity, settings: LossKeys) -> Term:
    kind, normalization = keys_of(settings, quantity.name)
    choice = chosen_atoms(settings) if quantity.name == "forces" else None
    return build_term(quantity, kind, normalization, choice=choice, settings=settings)


def build_term(
    quantity: str | Quantity,
    kind: str,
    normalization: Normalization | None = None,
    *,
    choice: AtomChoice | None = None,
    settings: LossKeys | None = None,
) -> Term:
    """Make the term of one quantity with the loss called `kind`.

    Args:
        quantity: or its name.
        kind: name of a loss; auto: cross entropy for classes, mean squared error for numbers.
        normalization: None takes the quantity's own.
        choice: which atoms count.
        settings: where a loss finds its own keys; the defaults if not given.

    Raises:
        ConfigError: there is no such loss, or it cannot be used for this quantity or with this normalisation.
    """
    if isinstance(quantity, str):
        quantity = {**QUANTITIES, **DERIVED}[quantity]
    if kind == "auto":
        kind = "cross_entropy" if quantity.kind == "class" else "mse"
    entry = Catalog(LOSSES).entry(kind)
    keys = {} if settings is None else {k: settings.shape_of(k, quantity.name) for k in entry.settings.model_fields}
    loss: Loss = entry.build(entry.settings(**keys))
    if not loss.accepts(quantity):
        why = "only for vectors of atoms (forces)" if not loss.normalizes else "only for vectors (forces, dipole)"
        if kind == "cross_entropy":
            why = "only for classes: data.targets with a threshold"
        raise ConfigError(
            f"loss {kind!r} is not defined for {quantity.name}, {why}", fix="mse and mae are defined for all"
        )
    if not loss.normalizes and normalization not in (None, "per_atom"):
        raise ConfigError(f"{normalization!r} has no effect with loss {kind!r}, which has its own", fix="use per_atom")
    return Term(quantity, loss, normalization, choice)


def _difference(quantity: Quantity, outputs: Outputs, labels: Labels, rows: Rows) -> Tensor:
    """Prediction minus label, (R, D), zero where there is no label."""
    there = rows.present.unsqueeze(1)
    ours = predicted(quantity, outputs, labels)
    theirs = wanted(quantity, labels).to(ours.dtype)
    # Both sides are masked first: not a number times zero is still not a number.
    return torch.where(there, ours, 0.0) - torch.where(there, theirs, 0.0)
