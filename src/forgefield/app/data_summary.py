"""What a data set holds, in plain values: for `data info`, `data stats` and `data view`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from forgefield.core.elements import symbol
from forgefield.core.structure import Structure
from forgefield.data.dataset import Dataset
from forgefield.data.isolated import is_isolated
from forgefield.data.label_names import AUTO
from forgefield.data.label_units import INTERNAL, LabelUnits
from forgefield.data.reader import Frames
from forgefield.data.trajectories import TrajectoryFinder

_SEEN = 100_000  # distinct formulas that are counted by name
_KEPT = 8  # numbers of a value that is shown as an example


@dataclass
class Tally:
    """Counts over the structures of a data set; one pass, constant memory but for distinct names."""

    structures: int = 0
    free_atoms: Counter[str] = field(default_factory=Counter[str])
    atoms: int = 0
    smallest: int = 0
    largest: int = 0
    elements: Counter[int] = field(default_factory=Counter[int])
    formulas: Counter[str] = field(default_factory=Counter[str])
    labels: Counter[str] = field(default_factory=Counter[str])
    base: Counter[str] = field(default_factory=Counter[str])
    features: Counter[str] = field(default_factory=Counter[str])
    marks: dict[str, Counter[str]] = field(default_factory=dict[str, Counter[str]])
    info: Counter[str] = field(default_factory=Counter[str])
    periodic: Counter[str] = field(default_factory=Counter[str])
    fixed: int = 0
    weighted: int = 0

    def add(self, s: Structure) -> None:
        """Take the next structure."""
        self.structures += 1
        self.atoms += len(s)
        self.smallest = min(self.smallest or len(s), len(s))
        self.largest = max(self.largest, len(s))
        if is_isolated(s):
            self.free_atoms[symbol(int(s.numbers[0]))] += 1
        numbers, counts = np.unique(s.numbers, return_counts=True)
        found = dict(zip(numbers.tolist(), counts.tolist(), strict=True))
        self.elements.update(found)
        formula = "".join(f"{symbol(z)}{n if n > 1 else ''}" for z, n in found.items())
        if formula in self.formulas or len(self.formulas) < _SEEN:
            self.formulas[formula] += 1
        self.labels.update(list(s.labels))
        self.base.update(list(s.base))
        self.features.update(list(s.features))
        self.info.update(list(s.info))
        for name in ("config_type", "head", "fidelity", "charge", "multiplicity"):
            value = getattr(s, name)
            if value is not None and not (name == "config_type" and value == "default"):
                self.marks.setdefault(name, Counter())[f"{value:g}" if isinstance(value, float) else str(value)] += 1
        self.periodic["".join("xyz"[k] for k in range(3) if s.pbc[k]) or "no"] += 1
        self.fixed += s.fixed is not None and bool(np.any(s.fixed))
        self.weighted += s.weight != 1.0


def tally(dataset: Dataset) -> tuple[Tally, TrajectoryFinder]:
    """Pass over a data set once; returns the counts, and what was found of trajectories."""
    found, finder = Tally(), TrajectoryFinder()
    for structure in dataset:
        found.add(structure)
        finder.add(structure)
    return found, finder


def plain(dataset: Dataset) -> dict[str, Any]:
    """Return what a data set holds in plain values."""
    found, finder = tally(dataset)
    trajectories = finder.found()
    return {
        "structures": found.structures,
        "left_out": dataset.n_left_out,
        "atoms": found.atoms,
        "atoms_per_structure": [found.smallest, found.largest],
        "elements": {symbol(z): found.elements[z] for z in sorted(found.elements)},
        "formulas": dict(found.formulas.most_common(20)),
        "n_formulas": len(found.formulas),
        "free_atoms": dict(found.free_atoms),
        "periodic": dict(found.periodic.most_common()),
        "labels": dict(found.labels),
        "base_labels": dict(found.base),
        "features": dict(found.features),
        **{name: dict(counts.most_common(20)) for name, counts in found.marks.items()},
        "with_fixed_atoms": found.fixed,
        "with_weight": found.weighted,
        "header_entries": dict(found.info.most_common(40)),
        "trajectories": {"number": len(trajectories), "structures": sum(t.stop - t.start for t in trajectories)},
        "sources": [
            {"path": part.source, "structures": len(part), "keys": part.chosen, "others": list(part.others),
             "notes": list(part.notes), "units": told_units(part)}
            for part in dataset.parts
        ],
    }  # fmt: skip


def told_units(part: Frames) -> str:
    """Return the units a source is read by, those of its labels that nobody has named as "not stated"."""
    if part.units is None:
        return "eV, Å and e, as they are kept"
    parts, units = list[str](), part.units
    virial = "virial" in (part.chosen.get("stress") or "").lower() and units.stress_quantity != "stress"
    for name in type(units).model_fields:
        value = getattr(units, name)
        if name == "stress" and virial:
            parts.append(f"virial {units.settled('energy')} (as the energy)")
        elif value not in (AUTO, None):
            parts.append(f"{name.replace('_', ' ')} {value}")
        elif name in ("energy", "length") or part.chosen.get(name.removesuffix("_sign")) is not None:
            parts.append(f"{name.replace('_', ' ')} {_usual(units, name)}")
    return ", ".join(parts)


def _usual(units: LabelUnits, name: str) -> str:
    """What a unit or sign that nobody has named is taken for, and why."""
    if name == "forces":
        stated = AUTO not in (units.energy, units.length)
        why = "as energy and length" if stated else "not stated"
        return f"{units.settled('energy')}/{units.settled('length')} ({why})"
    return f"{INTERNAL[name]} (not stated)"
