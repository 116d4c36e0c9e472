"""Predictions beside the energy, from an architecture's numbers to those of the user."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from forgefield.core.errors import ModelError
from forgefield.core.quantities import QUANTITIES, Quantity
from forgefield.models.architecture import Architecture, PhysicsTerm


class Spread(NamedTuple):
    """Mean and standard deviation of the labels of a target, one number for each component."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


class Aims(NamedTuple):
    """What a model shall predict beside forces and stress, and from which further inputs.

    Args:
        targets: quantities beside the energy.
        energy: whether it predicts an energy.
        features: names and widths of further inputs of the structures.
        spreads: mean and spread of the labels of targets.
    """

    targets: tuple[Quantity, ...] = ()
    energy: bool = True
    features: tuple[tuple[str, int], ...] = ()
    spreads: Mapping[str, Spread] = {}

    def to_json(self) -> dict[str, Any]:
        """Return plain values for a manifest."""
        return {
            "targets": [asdict(q) for q in self.targets],
            "energy": self.energy,
            "features": [list(row) for row in self.features],
            "spreads": {name: spread._asdict() for name, spread in self.spreads.items()},
        }

    @classmethod
    def from_json(cls, block: Mapping[str, Any]) -> Aims:
        """Read what `to_json` wrote."""
        return cls(
            tuple(Quantity(**{**row, "shape": tuple(row["shape"])}) for row in block["targets"]),
            block["energy"],
            tuple((name, length) for name, length in block["features"]),
            {name: Spread(tuple(row["mean"]), tuple(row["std"])) for name, row in block["spreads"].items()},
        )


def check_aims(backend: str, aims: Aims, architecture: Architecture, terms: Mapping[str, PhysicsTerm]) -> None:
    """Refuse aims that a model cannot reach.

    Raises:
        ModelError: a target or a feature is not one for this architecture, or physics terms have no energy to add to.
    """
    missing = [q.name for q in aims.targets if q.name not in architecture.extra_quantities()]
    if missing:
        able = ", ".join(architecture.extra_quantities()) or "energy, forces and stress only"
        what = f"{backend} does not predict {missing[0]}; as it is set it predicts {able}"
        raise ModelError(what, f"train.targets.{missing[0]}", "take it out, or take an architecture that does")
    if aims.features and not architecture.uses_features:
        what = f"{backend} has no use for the features {', '.join(name for name, _ in aims.features)}"
        raise ModelError(what, "data.features", "take them out, or take an architecture that uses them")
    if terms and not aims.energy:
        what = f"the term {next(iter(terms))} adds to an energy, which this model does not predict"
        raise ModelError(what, f"model.physics.{next(iter(terms))}", "take it out, or give energies a weight")


def is_scaled(quantity: Quantity) -> bool:
    """Whether a quantity is shifted and scaled to its labels: numbers of the user's own, not known physics."""
    return quantity.kind == "number" and quantity.name not in QUANTITIES


class Targets(nn.Module):
    """Turns what an architecture predicts into values: mean + std x prediction, or the probability of a class.

    What rotates has no mean, and one spread for all of its components. All is computed in float64.

    Args:
        quantities: what the architecture predicts, by name.
        spreads: mean and spread of their labels; those that are not named stay as they are.
    """

    def __init__(self, quantities: Mapping[str, Quantity], spreads: Mapping[str, Spread]) -> None:
        super().__init__()
        self.quantities = dict(quantities)
        self.spreads = {name: spreads[name] for name, q in self.quantities.items() if is_scaled(q) and name in spreads}
        for name, spread in self.spreads.items():
            shape = self.quantities[name].shape
            self.register_buffer(f"mean_{name}", torch.tensor(spread.mean, dtype=torch.float64).reshape(shape))
            self.register_buffer(f"std_{name}", torch.tensor(spread.std, dtype=torch.float64).reshape(shape))

    def _apply(self, fn, recurse: bool = True):  # noqa: ANN001, ANN202
        """Keep means and spreads in float64 whatever the weights are cast to."""
        kept = dict(self.named_buffers())
        super()._apply(fn, recurse)
        for name, value in kept.items():
            setattr(self, name, value.to(getattr(self, name).device))
        return self

    def forward(self, predicted: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the values, by name."""
        return {name: self._value(name, raw) for name, raw in predicted.items()}

    def _value(self, name: str, raw: Tensor) -> Tensor:
        if name in self.spreads:
            return getattr(self, f"mean_{name}") + getattr(self, f"std_{name}") * raw.double()
        if name in self.quantities and self.quantities[name].kind == "class":
            return torch.sigmoid(raw.double())
        return raw
