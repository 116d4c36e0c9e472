"""Reference energies of a model that is trained further: kept, estimated anew, or given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from forgefield.app.tasks.steps.fitting import Ordered, checking_loader
from forgefield.core.elements import symbol
from forgefield.core.errors import DataError
from forgefield.data.dataset import Dataset
from forgefield.data.isolated import head_of, isolated_energies, separate_isolated
from forgefield.data.parts import TrainingData, reference_setting
from forgefield.data.reference import Compositions, settle_references
from forgefield.data.refit import Correction, explain_rank, fit_correction
from forgefield.models.potential import Potential
from forgefield.train.evaluate import evaluate

SETTING = "finetune.reference_energies"
FITTED_WHOLE = (
    "reference energies were fitted to whole label energies, as if the loaded network added nothing: right only "
    f"where those it was trained with were fitted so too. Otherwise set {SETTING}: estimate, which fits what it lacks"
)


class ReferenceRow(NamedTuple):
    """Reference energy of one element in one head, eV, and where it comes from; `before` is None for a new element."""

    head: str
    element: str
    before: float | None
    after: float
    source: str

    @property
    def moved(self) -> bool:
        """Whether it is new or differs by more than a rounding."""
        return self.before is None or abs(self.after - self.before) > 1e-6

    def __str__(self) -> str:
        before = "new" if self.before is None else f"{self.before:.4f}"
        return f"{self.element} of head {self.head}: {before} -> {self.after:.4f} eV ({self.source})"


class References(NamedTuple):
    """What was done with the reference energies, and what the user should know."""

    rows: list[ReferenceRow]
    notes: list[str]


class Refit:
    """Settles the reference energies of a potential, in place.

    Args:
        run: settings and device.
        potential: widened already; the E0 of a new element is 0.
        data: the new data.
        new: elements that were added.
    """

    def __init__(self, run: Ordered, potential: Potential, data: TrainingData, new: Sequence[int]) -> None:
        self.run, self.potential, self.data = run, potential, data
        self.elements, self.new = potential.elements, list(new)
        self.heads = trained_heads(potential, data)
        self.table = potential.self_energies.double().cpu().numpy().copy()
        self.before = self.table.copy()
        self.source = {(h, z): "kept" for h in potential.heads for z in self.elements}
        self.notes: list[str] = []
        self._compositions: Compositions | None = None
        self._residuals: np.ndarray | None = None

    def settle(self) -> References:
        """Do what the settings ask for; returns every energy before and after.

        Raises:
            DataError: the data do not allow it.
        """
        how = how_references(self.run)
        if how == "given":
            self._take_given()
        else:
            self._find_new()
            if how == "estimate":
                for head in self.heads:
                    self._correct(head, self._elements_of(head), "estimated")
        self._fill_other_heads()
        self.potential.self_energies.copy_(self.potential.self_energies.new_tensor(self.table))
        return References(self._rows(), self.notes)

    # ------------------------------------------------------------------------------------------------ the three ways

    def _take_given(self) -> None:
        compositions, isolated = self._measured(), separate_isolated(self.data.measured)[1]
        e0, where = reference_setting(self.run.config.data), self.data.measured.name
        elements = self.data.train.elements()
        found = settle_references(e0, isolated, self._of_columns(compositions, elements), elements, self.heads, where)
        if found.source == "least squares":
            self.notes.append(FITTED_WHOLE)
        for head, table in found.energies.items():
            for z, energy in table.items():
                self._set(head, z, energy, found.source)

    def _find_new(self) -> None:
        """Give new elements the energies of their free atoms, else fit them while all others are held."""
        if not self.new:
            return
        free = isolated_energies(separate_isolated(self.data.measured)[1], self.heads)
        for head in self.heads:
            there = [z for z in self._elements_of(head) if z in self.new]
            for z in there:
                if z in free[head]:
                    self._set(head, z, free[head][z], "free atom")
            self._correct(head, [z for z in there if z not in free[head]], "least squares")

    def _correct(self, head: str, elements: list[int], source: str) -> None:
        """Fit a correction of some elements of one head to what the model's energies lack."""
        if not elements:
            return
        rows, counts, residuals = self._rest(head)
        if not rows.any():
            what = f"no structure of head {head!r} has an energy to estimate reference energies from"
            raise DataError(what, self.data.train.name, f"set {SETTING}: given and data.e0, or check data.energy_key")
        columns = [self.elements.index(z) for z in elements]
        correction = fit_correction(counts[:, columns], residuals)
        for z, value in zip(elements, correction.values.tolist(), strict=True):
            self._set(head, z, self._energy(head, z) + value, source)
        self._tell(head, elements, correction)

    def _tell(self, head: str, elements: list[int], correction: Correction) -> None:
        names = " ".join(symbol(z) for z in elements)
        before, after = (1000.0 * x for x in (correction.rms_before, correction.rms_after))
        self.notes.append(
            f"reference energies of {names} (head {head}) by least squares on label minus model: "
            f"energy RMS {before:.4g} -> {after:.4g} meV/atom"
        )
        rank = explain_rank(correction, elements, f"reference energies (head {head})")
        self.notes += [rank] if rank else []

    def _fill_other_heads(self) -> None:
        """A new element needs an energy in heads that have no data of it: that of the first head that has."""
        for z in self.new:
            owner = next(h for h in self.heads if z in self._elements_of(h))
            for head in self.potential.heads:
                if z not in self._elements_of(head):
                    self._set(head, z, self._energy(owner, z), f"as in head {owner}")

    # ------------------------------------------------------------------------------------------------------- numbers

    def _measured(self) -> Compositions:
        """Compositions and labels of all training structures, (S, Z) by the model's elements."""
        if self._compositions is None:
            columns = np.array(self.elements)
            structures = list(self.data.train)
            self._compositions = Compositions(
                np.array(
                    [np.bincount(np.searchsorted(columns, s.numbers), minlength=len(columns)) for s in structures]
                ),
                np.array([float(s.labels.get("energy", np.nan)) for s in structures]),
                np.array([self.heads.index(head_of(s, self.heads)) for s in structures]),
            )
        return self._compositions

    def _of_columns(self, found: Compositions, elements: Sequence[int]) -> Compositions:
        labelled = ~np.isnan(found.energies)
        columns = [self.elements.index(z) for z in elements]
        return Compositions(found.counts[labelled][:, columns], found.energies[labelled], found.heads[labelled])

    def _rest(self, head: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Labelled structures of a head (S,) bool, their compositions (n, Z), and label minus model (n,), eV."""
        found = self._measured()
        rows = ~np.isnan(found.energies) & (found.heads == self.heads.index(head))
        if self._residuals is None:
            self._residuals = found.energies - _energies(self.run, self.potential, self.data.train)
        index = self.potential.heads.index(head)
        moved = self.table[index] - self.before[index]
        return rows, found.counts[rows], self._residuals[rows] - found.counts[rows] @ moved

    def _elements_of(self, head: str) -> list[int]:
        """Elements that a head's data have."""
        if head not in self.heads:
            return []
        found = self._measured()
        there = found.counts[found.heads == self.heads.index(head)].any(0)
        return [z for z, present in zip(self.elements, there.tolist(), strict=True) if present]

    def _energy(self, head: str, z: int) -> float:
        return float(self.table[self.potential.heads.index(head), self.elements.index(z)])

    def _set(self, head: str, z: int, energy: float, source: str) -> None:
        self.table[self.potential.heads.index(head), self.elements.index(z)] = energy
        self.source[head, z] = source

    def _rows(self) -> list[ReferenceRow]:
        rows = []
        for k, head in enumerate(self.potential.heads):
            for j, z in enumerate(self.elements):
                before = None if z in self.new else float(self.before[k, j])
                rows.append(ReferenceRow(head, symbol(z), before, float(self.table[k, j]), self.source[head, z]))
        return rows


def how_references(run: Ordered) -> str:
    """Return keep, estimate or given."""
    config = run.config
    return config.finetune.reference_energies or ("keep" if config.data.e0 == "auto" else "given")


def trained_heads(potential: Potential, data: TrainingData) -> list[str]:
    """Return the heads that the new data train, in the model's order."""
    named = data.train.heads()
    return [h for h in potential.heads if h in named] or potential.heads[:1]


def _energies(run: Ordered, potential: Potential, dataset: Dataset) -> np.ndarray:
    """Energies that the model predicts, (S,), eV."""
    found = evaluate(potential, checking_loader(run, potential, dataset), energy_only=True)
    return np.array([p.energy for p in found.predictions])
