"""Errors of training predictions, summed on the way: by head, and by element for what belongs to atoms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from forgefield.core.elements import symbol
from forgefield.core.quantities import Quantity
from forgefield.train.measured import Measured
from forgefield.train.team import ALONE, Team
from forgefield.train.values import predicted, rows_of, wanted

if TYPE_CHECKING:
    from forgefield.data.labels import Labels
    from forgefield.data.loader import Batch
    from forgefield.models.potential import Outputs, Potential

Sums = dict[str, list[float]]
TOGETHER = 16  # updates that are summed at once: the machine then stays with this code for a while


class _Held(NamedTuple):
    """One batch: predictions without their history, labels, and to which head and element its rows belong."""

    update: int  # from 0, since the last flush
    outputs: Outputs
    labels: Labels
    head: Tensor  # (S,)
    numbers: Tensor  # (N,), sorted
    inverse: Tensor  # (N,), original row -> sorted row


class Tally:
    """Counts, absolute and squared errors of training predictions, update by update.

    They are of the raw weights before each update, as the training loss is, and cost no pass of their own. What is
    needed is held, and summed for several updates at once; the sums are the same to the last bit whenever that is.

    Args:
        elements: atomic numbers of the model, ascending, (Z,).
        heads: names of the heads, (H,).
        measured: which quantities, of which atoms.
        team: the processes that train together.
    """

    def __init__(
        self, elements: Sequence[int], heads: Sequence[str], measured: Measured | None = None, team: Team = ALONE
    ) -> None:
        self.measured, self.team = measured or Measured(), team
        self.elements, self.heads = np.array([int(z) for z in elements]), list(heads)
        quantities = self.measured.quantities
        self.places = [f"head/{head}/{q.name}" for q in quantities for head in self.heads]
        of_atoms = [q.name for q in quantities if q.per == "atom"]
        self.places += [f"element/{symbol(int(z))}/{name}" for name in of_atoms for z in self.elements]
        self.updates, self._held = 0, list[_Held]()

    @classmethod
    def of(cls, potential: Potential, measured: Measured | None = None, team: Team = ALONE) -> Tally:
        """Make one for the elements and heads of a potential."""
        return cls(potential.elements, potential.heads, measured, team)

    def add(self, outputs: Outputs, batch: Batch) -> None:
        """Hold the predictions of one batch of the update in hand."""
        graph = batch.graph
        held = {name: value.detach() for name, value in outputs.extra.items()}
        kept = outputs._replace(
            energy=outputs.energy.detach(), forces=outputs.forces.detach(), stress=outputs.stress.detach(),
            atom_energies=outputs.energy.detach(), extra=held,
        )  # fmt: skip
        self._held.append(_Held(self.updates, kept, batch.labels, graph.head, graph.numbers, graph.inverse))

    def end_update(self, sums: Sums) -> None:
        """Count an update; its errors are in the sums after `flush` at the latest."""
        self.updates += 1
        if self.updates == TOGETHER:
            self.flush(sums)

    def flush(self, sums: Sums) -> None:
        """Add the updates that are held to plain sums, by place; what is not labelled is left out.

        Every process of the team calls it after the same update.
        """
        found = np.zeros((self.updates, len(self.places), 3))
        for held in self._held:
            found[held.update] += self._summed(held)
        if self.team.size > 1 and self.updates:
            found = self.team.sum_values(torch.from_numpy(found).to(self.team.device)).cpu().numpy()
        self.updates, self._held = 0, []
        for of_update in found.tolist():
            for place, values in zip(self.places, of_update, strict=True):
                if values[0]:
                    before = sums.get(place, [0.0, 0.0, 0.0])
                    sums[place] = [a + b for a, b in zip(before, values, strict=True)]

    def _summed(self, held: _Held) -> np.ndarray:
        """Number of components, absolute and squared errors by place, (places, 3)."""
        n_heads, n_elements = len(self.heads), len(self.elements)
        by_head: list[np.ndarray] = []
        by_element: list[np.ndarray] = []
        heads, structure = _host(held.head), _host(held.labels.structure)
        numbers = _host(held.numbers)[_host(held.inverse)]
        atoms = heads[structure] * n_elements + np.searchsorted(self.elements, numbers)
        for quantity in self.measured.quantities:
            three = self._three(quantity, held)
            if quantity.per == "structure":
                by_head.append(_binned(heads, three, n_heads))
                continue
            both = _binned(atoms, three, n_heads * n_elements).reshape(n_heads, n_elements, 3)
            by_head.append(both.sum(1))
            by_element.append(both.sum(0))
        return np.concatenate([*by_head, *by_element])

    def _three(self, quantity: Quantity, held: _Held) -> tuple[np.ndarray, ...] | None:
        """Number of labelled components, absolute and squared error of each row; None if no row is labelled."""
        present = _host(rows_of(quantity, held.labels, self.measured.choice_of(quantity)).present)
        if not present.any():
            return None
        ours, theirs = predicted(quantity, held.outputs, held.labels), wanted(quantity, held.labels)
        error = np.subtract(_host(ours), _host(theirs), dtype=np.float64)
        if quantity.name == "energy":
            error /= _host(held.labels.n_atoms)[:, None]
        error = np.where(present[:, None], error, 0.0)
        return error.shape[1] * present.astype(np.float64), np.abs(error).sum(1), np.square(error).sum(1)


def _host(tensor: Tensor) -> np.ndarray:
    """Bring numbers to the host; numpy knows no bfloat16."""
    return (tensor.float() if tensor.dtype is torch.bfloat16 else tensor).cpu().numpy()


def _binned(index: np.ndarray, three: tuple[np.ndarray, ...] | None, size: int) -> np.ndarray:
    """Sum the three numbers of each row by group, (size, 3)."""
    if three is None:
        return np.zeros((size, 3))
    return np.stack([np.bincount(index, weights, size) for weights in three], 1)


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
