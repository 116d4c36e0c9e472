"""What a model is told about its training data: plain numbers, measured once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from forgefield.core.errors import DataError
from forgefield.core.quantities import Quantity
from forgefield.data.dataset import Dataset
from forgefield.data.gathering import Gathered, Neighbours, degrees, gather
from forgefield.data.moments import Moments, measure_targets
from forgefield.data.reference import E0, Compositions, no_references, settle_references
from forgefield.graph.pairs import find_pairs


@dataclass(frozen=True)
class Statistics:
    """Measured on the training split, frames of one free atom left out.

    Args:
        elements: atomic numbers, ascending.
        reference_energies: head -> atomic number -> eV.
        reference_source: given, isolated atoms, or least squares.
        avg_num_neighbors: mean number of neighbours of the atoms that have any, as mace-torch counts.
        max_num_neighbors: largest number of neighbours of an atom.
        force_rms: root mean square of the force components, eV/Å; None without forces.
        energy_mean_per_atom: mean over structures of (E - sum of E0) / n, eV; None without energies.
        energy_std_per_atom: standard deviation of the same (n - 1 in the denominator), eV; None for fewer than 2.
        by_head: the last three for each head.
        n_structures: structures measured.
        n_atoms: atoms measured.
        n_isolated: frames of one free atom that were left out.
        cutoff: the neighbours' cutoff, Å.
        notes: what the user should know.
        targets: mean and spread of the labels of further targets, by name.
    """

    elements: list[int]
    reference_energies: dict[str, dict[int, float]]
    reference_source: str
    avg_num_neighbors: float
    max_num_neighbors: int
    force_rms: float | None
    energy_mean_per_atom: float | None
    energy_std_per_atom: float | None
    by_head: dict[str, dict[str, float | None]]
    n_structures: int
    n_atoms: int
    n_isolated: int
    cutoff: float
    notes: list[str] = field(default_factory=list)
    targets: Moments = field(default_factory=dict)

    def to_json(self) -> str:
        """Return JSON text; floats keep all digits."""
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> Statistics:
        """Read what `to_json` wrote.

        Raises:
            DataError: it is not such a text.
        """
        try:
            block: dict[str, Any] = json.loads(text)
            tables = block["reference_energies"]
            block["reference_energies"] = {h: {int(z): e for z, e in t.items()} for h, t in tables.items()}
            return cls(**block)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError(f"no statistics of a data set ({error})", fix="measure again, by training anew") from None


def measure(
    train: Dataset,
    cutoff: float,
    e0: E0 = "auto",
    heads: Sequence[str] = ("default",),
    *,
    energies: bool = True,
    targets: Sequence[Quantity] = (),
) -> Statistics:
    """Measure the training split.

    Frames of one free atom give reference energies and are left out of everything else; leave them out of the
    training batches too (`separate_isolated`).

    Args:
        train: the training split only.
        cutoff: of the model, Å.
        e0: the setting `data.e0`, see `forgefield.data.reference.E0`.
        heads: of the model; a structure without head counts for the first.
        energies: the model has an energy; False: its reference energies are 0.
        targets: further labels whose mean and spread are wanted.

    Raises:
        DataError: nothing to train on, an element without E0, or no atom with a neighbour.
    """
    rows = gather(train, cutoff, heads)
    rest, isolated = train.subset(rows.rest), train.subset(rows.isolated)
    if len(rest) == 0:
        raise DataError("no structures to train on", train.name, "the data hold frames of one free atom only")
    elements = rows.elements
    _check_neighbours(rows.neighbours, rest, cutoff)
    labelled = ~np.isnan(rows.energies)
    compositions = Compositions(rows.counts[labelled], rows.energies[labelled], rows.heads[labelled])
    references = no_references(elements, heads)
    if energies:
        references = settle_references(e0, isolated, compositions, elements, heads, train.name)
    _check_free(isolated, cutoff)
    notes = [*train.notes, *references.notes]
    if len(isolated):
        use = "give the reference energies" if references.source == "isolated atoms" else "are not used"
        notes.append(f"{len(isolated)} frames of one free atom {use} and are left out of training")
    table = np.array([[references.energies[h][z] for z in elements] for h in heads])
    bound = rows.energies - (rows.counts * table[rows.heads]).sum(axis=1)
    per_atom = bound / rows.counts.sum(axis=1)
    by_head = {h: _moments(rows, per_atom, rows.heads == k) for k, h in enumerate(heads)}
    return Statistics(
        elements=elements,
        reference_energies=references.energies,
        reference_source=references.source,
        avg_num_neighbors=rows.neighbours.mean,
        max_num_neighbors=rows.neighbours.most,
        **_moments(rows, per_atom, np.ones(len(rest), dtype=bool)),
        by_head=by_head,
        n_structures=len(rest),
        n_atoms=rows.neighbours.atoms,
        n_isolated=len(isolated),
        cutoff=float(cutoff),
        notes=notes,
        targets=measure_targets(rest, targets),
    )


def _moments(rows: Gathered, per_atom: np.ndarray, which: np.ndarray) -> dict[str, float | None]:
    values = per_atom[which & ~np.isnan(per_atom)]
    components = int(rows.force_counts[which].sum())
    rms = float(np.sqrt(rows.force_squares[which].sum() / components)) if components else None
    return {
        "force_rms": rms,
        "energy_mean_per_atom": float(values.mean()) if len(values) else None,
        "energy_std_per_atom": float(values.std(ddof=1)) if len(values) > 1 else None,
    }


def _check_neighbours(neighbours: Neighbours, dataset: Dataset, cutoff: float) -> None:
    if not neighbours.with_any:
        nearest = nearest_distance(dataset)
        hint = f"; the nearest atoms are {nearest:.2f} Å apart" if nearest is not None else ""
        raise DataError(
            f"within the cutoff of {cutoff} Å no atom has a neighbour{hint}",
            dataset.name,
            "use a larger cutoff (4 to 6 Å is usual), or check data.length_unit",
        )


def _check_free(isolated: Dataset, cutoff: float) -> None:
    for structure in isolated:
        if degrees(structure, cutoff).any():
            raise DataError(
                f"is called an isolated atom but its periodic images are within {cutoff} Å",
                structure.origin,
                "use a larger cell, or another config_type",
            )


def nearest_distance(dataset: Dataset, sample: int = 20, reach: float = 12.0) -> float | None:
    """Return the smallest distance between two atoms in the first structures, Å; None beyond `reach`."""
    best = None
    for index in range(min(sample, len(dataset))):
        s = dataset[index]
        pairs = find_pairs(s, reach)
        if len(pairs.first):
            vectors = s.positions[pairs.second] + pairs.shift @ s.cell - s.positions[pairs.first]
            shortest = float(np.linalg.norm(vectors, axis=1).min())
            best = shortest if best is None else min(best, shortest)
    return best
