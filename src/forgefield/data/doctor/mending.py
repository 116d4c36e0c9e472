"""Writes a data set without the structures that are certainly wrong."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.extxyz import write_extxyz

from forgefield.core.disk import disk_errors
from forgefield.core.errors import DataError
from forgefield.core.quantities import ALWAYS
from forgefield.core.structure import Structure
from forgefield.data.dataset import Dataset
from forgefield.data.doctor.finding import Finding

CERTAIN = ("unreadable", "duplicates", "placeholder_values", "overlapping_atoms")


def write_mended(dataset: Dataset, found: Sequence[Finding], path: Path) -> list[int]:
    """Write the training data as extxyz without what `CERTAIN` findings name; returns the places left out.

    Raises:
        DataError: the path exists, nothing is left, or extxyz cannot hold all that is known.
    """
    if path.exists():
        raise DataError("exists already", str(path), "name a new file")
    wrong = sorted({p.index for f in found if f.name in CERTAIN for p in f.places if p.part == "train"})
    rest = np.setdiff1d(np.arange(len(dataset)), wrong)
    if not len(rest):
        raise DataError("no structure would be left", dataset.name, "look at the findings")
    beside = path.with_name(path.name + ".part")
    with disk_errors(path):
        try:
            with beside.open("w", encoding="utf-8") as stream:
                for index in rest.tolist():
                    write_extxyz(stream, [_atoms(dataset[index])])
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    return wrong


def _atoms(s: Structure) -> Atoms:
    lost = [name for name in s.labels if name not in ALWAYS]
    lost += [name for name in ("base", "features", "fixed", "force_mask") if getattr(s, name) is not None]
    lost = [name for name in lost if name not in ("base", "features") or getattr(s, name)]
    if lost:
        what = f"has {', '.join(lost)}, which this extxyz would lose"
        raise DataError(what, s.origin, "leave the structures out by hand: --json lists their indices")
    atoms = Atoms(s.numbers, s.positions, cell=s.cell, pbc=s.pbc)
    stated = {"config_type": s.config_type, "head": s.head, "fidelity": s.fidelity, "charge": s.charge}
    stated |= {"multiplicity": s.multiplicity, "config_weight": None if s.weight == 1 else s.weight}
    atoms.info.update(s.info)
    atoms.info.update({k: v for k, v in stated.items() if v is not None and (k, v) != ("config_type", "default")})
    if s.tags is not None:
        atoms.set_tags(s.tags)
    atoms.calc = SinglePointCalculator(atoms, **_labels(s))
    return atoms


def _labels(s: Structure) -> dict[str, object]:
    labels: dict[str, object] = {k: v for k, v in s.labels.items() if k != "stress"}
    if "energy" in labels:
        labels["energy"] = float(s.labels["energy"])
    if "stress" in s.labels:
        t = s.labels["stress"]
        labels["stress"] = np.array([t[0, 0], t[1, 1], t[2, 2], t[1, 2], t[0, 2], t[0, 1]])
    return labels
