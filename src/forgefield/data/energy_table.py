"""Tables of self-atomic energies fitted to a data set, one for each fidelity, head or other mark."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from forgefield.core.errors import DataError
from forgefield.core.structure import Structure
from forgefield.data.dataset import Dataset
from forgefield.data.isolated import is_isolated
from forgefield.data.self_energies import explain_ties, fit_energies

MARKS = ("fidelity", "head", "config_type")


@dataclass(frozen=True)
class FittedTable:
    """Energies of the elements of one group of structures.

    Args:
        name: of the group.
        energies: atomic number -> eV.
        given: those that were not fitted.
        n_structures: structures with an energy.
        n_used: those of the last fit.
        rms: what is left, per atom, root mean square, eV.
        ties: which elements cannot be told apart, in words; empty where all can.
    """

    name: str
    energies: dict[int, float]
    given: tuple[int, ...]
    n_structures: int
    n_used: int
    rms: float
    ties: str

    def summary(self) -> str:
        """Return one line about the fit."""
        return (
            f"{self.name}: {self.n_used:,} of {self.n_structures:,} structures, "
            f"{1000 * self.rms:.4g} meV per atom left (RMS)"
        )


def fit_tables(
    dataset: Dataset, by: str, percentiles: tuple[float, float] | None, given: Mapping[int, float]
) -> list[FittedTable]:
    """Fit energies of elements in one pass over the structures; frames of one free atom are left out.

    Args:
        dataset: the structures.
        by: fidelity, head, config_type; all: one table; auto: fidelity where structures name one, else head, else all.
        percentiles: of the residuals, for the second fit; None = one fit.
        given: energies that are known, atomic number -> eV.

    Raises:
        DataError: no structure has an energy, or `by` is unknown.
    """
    if by not in ("auto", "all", *MARKS):
        raise DataError(f"tables cannot be made by {by!r}", "--by", f"one of auto, all, {', '.join(MARKS)}")
    rows: dict[tuple[str, str, str], Rows] = {}
    for structure in dataset:
        if "energy" in structure.labels and not is_isolated(structure):
            names = (structure.fidelity or "default", structure.head or "default", structure.config_type)
            rows.setdefault(names, Rows()).add(structure)
    if not rows:
        raise DataError("no structure has an energy", dataset.name, "give its name: --set data.energy_key=NAME")
    if by == "auto":
        by = next((mark for k, mark in enumerate(MARKS[:2]) if any(names[k] != "default" for names in rows)), "all")
    groups: dict[str, list[Rows]] = {}
    for names, part in rows.items():
        groups.setdefault("default" if by == "all" else names[MARKS.index(by)], []).append(part)
    return [_fit(name, parts, percentiles, given) for name, parts in sorted(groups.items())]


class Rows:
    """Compositions and energies, some tens of bytes per structure."""

    def __init__(self) -> None:
        self.elements, self.counts, self.lengths, self.energies = array("h"), array("q"), array("h"), array("d")

    def add(self, structure: Structure) -> None:
        """Take a structure with an energy."""
        found, counts = np.unique(structure.numbers, return_counts=True)
        self.elements.extend(found.tolist())
        self.counts.extend(counts.tolist())
        self.lengths.append(len(found))
        self.energies.append(float(structure.labels["energy"]))

    def table(self, elements: np.ndarray) -> np.ndarray:
        """Return atoms of each element, (S, Z), int32."""
        found = np.zeros((len(self.energies), len(elements)), dtype=np.int32)
        rows = np.repeat(np.arange(len(self.energies)), np.array(self.lengths))
        found[rows, np.searchsorted(elements, np.array(self.elements))] = np.array(self.counts)
        return found


def _fit(
    name: str, parts: list[Rows], percentiles: tuple[float, float] | None, given: Mapping[int, float]
) -> FittedTable:
    elements = np.unique(np.concatenate([np.unique(np.array(part.elements)) for part in parts]))
    counts = np.concatenate([part.table(elements) for part in parts])
    energies = np.concatenate([np.array(part.energies) for part in parts])
    known = [k for k, z in enumerate(elements.tolist()) if z in given]
    free = [k for k in range(len(elements)) if k not in known]
    values = {int(elements[k]): float(given[int(elements[k])]) for k in known}
    rest = energies - counts[:, known] @ np.array([given[int(elements[k])] for k in known])
    if not free:
        raise DataError("all elements are given", "--given", "leave out those that are to be fitted")
    fit = fit_energies(counts[:, free], rest, percentiles)
    values |= {int(elements[k]): float(v) for k, v in zip(free, fit.values, strict=True)}
    left = rest[fit.used] - counts[fit.used][:, free] @ fit.values
    rms = float(np.sqrt(np.mean((left / counts[fit.used].sum(axis=1)) ** 2)))
    ties = explain_ties(fit.tied, [int(elements[k]) for k in free]) if fit.tied else ""
    ties += "; the solution of smallest norm is taken: give one of them with --given" if ties else ""
    return FittedTable(
        name, values, tuple(int(elements[k]) for k in known), len(energies), int(fit.used.sum()), rms, ties
    )
