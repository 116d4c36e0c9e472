"""Errors of training predictions, summed on the way: by head, and by element for forces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from forgefield.core.elements import symbol

if TYPE_CHECKING:
    from forgefield.data.loader import Batch
    from forgefield.models.potential import Outputs, Potential
    from forgefield.train.team import Team

Sums = dict[str, list[float]]


class Tally:
    """Counts, absolute and squared errors of one update, over its batches.

    They are of the raw weights before each update, as the training loss is, and cost no pass of their own. Sums are
    matrix products, so that they repeat to the last bit on every device.

    Args:
        elements: atomic numbers of the model, ascending, (Z,).
        heads: names of the heads, (H,).
    """

    def __init__(self, elements: Sequence[int], heads: Sequence[str]) -> None:
        self.elements = [int(z) for z in elements]
        quantities = ("energy", "forces", "stress")
        self.places = [f"head/{head}/{quantity}" for head in heads for quantity in quantities]
        self.places += [f"element/{symbol(z)}/forces" for z in self.elements]
        self.numbers, self.head_index = torch.tensor(self.elements), torch.arange(len(heads))
        self.sums = torch.zeros(0)
        self.reset()

    @classmethod
    def of(cls, potential: Potential) -> Tally:
        """Make one for the elements and heads of a potential."""
        return cls(potential.elements, potential.heads)

    def reset(self) -> None:
        """Forget the last update."""
        self.sums = torch.zeros(0)

    def add(self, outputs: Outputs, batch: Batch) -> None:
        """Add the errors of one batch: (len(places), 3) of components, absolute and squared error, float64."""
        labels, graph = batch.labels, batch.graph
        n_atoms = labels.n_atoms.to(torch.float64).unsqueeze(1)
        energy = (outputs.energy.detach().double() - labels.energy).unsqueeze(1) / n_atoms
        forces = outputs.forces.detach().double() - labels.forces
        stress = (outputs.stress.detach().double() - labels.stress).flatten(1)
        if self.numbers.device != graph.numbers.device:
            self.numbers, self.head_index = self.numbers.to(graph.head.device), self.head_index.to(graph.head.device)
        by_head = _members(graph.head, self.head_index)
        of_forces = _three(forces, labels.has_forces)
        parts = [
            by_head @ _three(energy, labels.has_energy),
            by_head.index_select(1, labels.structure) @ of_forces,
            by_head @ _three(stress, labels.has_stress),
        ]
        per_head = torch.stack(parts, 1).reshape(-1, 3)
        per_element = _members(graph.numbers.index_select(0, graph.inverse), self.numbers) @ of_forces
        found = torch.cat([per_head, per_element])
        self.sums = found if self.sums.numel() == 0 else self.sums + found

    def join(self, team: Team) -> None:
        """Add up the sums of all processes that train together; every one of them calls it."""
        if team.size > 1:
            own = self.sums if self.sums.numel() else torch.zeros(len(self.places), 3, dtype=torch.float64)
            self.sums = team.sum_values(own.to(team.device))

    def add_to(self, sums: Sums) -> None:
        """Add the last update to plain sums, by place; what is not labelled is left out."""
        if self.sums.numel() == 0:
            return
        for place, values in zip(self.places, self.sums.tolist(), strict=True):
            if values[0]:
                before = sums.get(place, [0.0, 0.0, 0.0])
                sums[place] = [a + b for a, b in zip(before, values, strict=True)]


def errors_of(sums: Mapping[str, Sequence[float]]) -> dict[str, dict[str, dict[str, float]]]:
    """Return MAE and RMSE from plain sums: group -> member -> names as in the metrics of an evaluation."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for place, (count, absolute, squared) in sums.items():
        group, rest = place.split("/", 1)
        member, quantity = rest.rsplit("/", 1)
        suffix = "_per_atom" if quantity == "energy" else ""
        errors = found.setdefault(group, {}).setdefault(member, {})
        errors[f"{quantity}_mae{suffix}"] = absolute / count
        errors[f"{quantity}_rmse{suffix}"] = (squared / count) ** 0.5
    return found


def _members(index: Tensor, of: Tensor) -> Tensor:
    """Which rows belong to which group, (G, R) of 0 and 1."""
    return (of.unsqueeze(1) == index.unsqueeze(0)).to(torch.float64)


def _three(difference: Tensor, present: Tensor) -> Tensor:
    """Count, absolute and squared sum of the components of each row, (R, 3), zero where there is no label."""
    difference = torch.where(present.unsqueeze(1), difference, 0.0)
    count = present.to(torch.float64) * difference.shape[1]
    return torch.stack([count, difference.abs().sum(1), difference.square().sum(1)], 1)
