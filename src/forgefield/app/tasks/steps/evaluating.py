"""Comparing predictions with labels, and writing both down."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.stress import full_3x3_to_voigt_6_stress

from forgefield.app.folder import write_json
from forgefield.app.reports.baseline import composition_part
from forgefield.app.reports.contents import Predictions, Property
from forgefield.app.run import OutputSettings
from forgefield.app.tasks.steps.further import cells_of, columns_of, in_ase, of_atoms, units_of
from forgefield.core.disk import write_atomic
from forgefield.core.quantities import Quantity
from forgefield.core.structure import Structure
from forgefield.data.dataset import Dataset
from forgefield.models.potential import Potential
from forgefield.train.evaluate import Evaluation, Prediction

UNITS = {"energy": "eV", "energy_per_atom": "eV per atom", "forces": "eV/Å", "stress": "eV/Å^3, positive = tensile"}
STANDARD = OutputSettings()


def write_evaluation(
    folder: Path,
    evaluation: Evaluation,
    dataset: Dataset,
    potential: Potential,
    names: OutputSettings = STANDARD,
    about: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Write errors and predictions of one data set.

    Args:
        folder: where to.
        evaluation: predictions and errors.
        dataset: what was evaluated, in the same order.
        potential: what predicted.
        names: file names; null writes none.
        about: what the metrics are of, kept under `about` in metrics.json.

    Returns:
        The files written.
    """
    files = []
    if names.metrics_json:
        if potential.baseline is not None:
            about = {**(about or {}), "baseline": potential.baseline.name}
        about = {**(about or {}), "units": {**UNITS, **units_of(potential)}}
        files.append(write_json(folder / names.metrics_json, {"about": about, **evaluation.metrics}))
    if names.metrics_csv:
        files.append(write_atomic(folder / names.metrics_csv, metrics_table(evaluation.metrics)))
    if names.predictions_csv:
        files.append(write_atomic(folder / names.predictions_csv, predictions_table(evaluation.predictions, dataset)))
    if names.predictions_xyz:
        files.append(write_atomic(folder / names.predictions_xyz, predictions_xyz(evaluation.predictions, dataset)))
    arrays = as_arrays(evaluation.predictions, dataset, potential)
    files.append(write_atomic(folder / "predictions.npz", packed(arrays)))
    return files


def write_inference(
    folder: Path, predictions: Sequence[Prediction], dataset: Dataset, names: OutputSettings = STANDARD
) -> list[Path]:
    """Write predictions of structures that need no labels: a table of energies, one of forces, and extxyz."""
    files = []
    if names.predictions_xyz:
        files.append(write_atomic(folder / names.predictions_xyz, predictions_xyz(predictions, dataset)))
    if names.predictions_csv:
        table = folder / names.predictions_csv
        files.append(write_atomic(table, predictions_table(predictions, dataset)))
        if any(p.forces is not None for p in predictions):
            beside = table.with_name(f"{table.stem}.forces{table.suffix}")
            files.append(write_atomic(beside, forces_table(predictions, dataset)))
    return files


def metrics_table(metrics: Mapping[str, Any]) -> str:
    """Return all errors as CSV: one row per group and member, one column per error."""
    rows = [{"group": "all", "name": "", **metrics["all"]}]
    for group, members in metrics.items():
        if group.startswith("by_"):
            rows += [{"group": group.removeprefix("by_"), "name": name, **v} for name, v in members.items()]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return _csv(columns, ([_cell(row.get(name)) for name in columns] for row in rows))


def predictions_table(predictions: Sequence[Prediction], dataset: Dataset) -> str:
    """Return one CSV row per structure: energy, label and error, size of the forces, stress, and what else there is."""
    columns = ["index", "origin", "formula", "n_atoms", "config_type"]
    energies = any(p.energy is not None for p in predictions)
    columns += ["energy", "energy_per_atom"] if energies else []
    with_forces = any(p.forces is not None for p in predictions)
    labelled = energies and any("energy" in s.labels for s in dataset)
    compared = with_forces and any("forces" in s.labels for s in dataset)
    periodic = with_forces and any(has_stress(s) for s in dataset)
    columns += ["energy_label", "energy_error_per_atom"] if labelled else []
    columns += ["base_energy"] if any(p.base for p in predictions) else []
    columns += ["max_force"] if with_forces else []
    columns += ["forces_rmse", "max_force_error"] if compared else []
    columns += [f"stress_{axes}" for axes in ("xx", "yy", "zz", "yz", "xz", "xy")] if periodic else []
    further = [cells_of(p, s) for p, s in zip(predictions, dataset, strict=True)]
    columns += columns_of(further)
    rows = []
    for p, s, more in zip(predictions, dataset, further, strict=True):
        row = {"index": p.index, "origin": s.origin, "formula": Atoms(s.numbers).get_chemical_formula(),
               "n_atoms": len(s), "config_type": s.config_type, **_compared(p, s), **more}  # fmt: skip
        rows.append([_cell(row.get(name)) for name in columns])
    return _csv(columns, rows)


def forces_table(predictions: Sequence[Prediction], dataset: Dataset) -> str:
    """Return one CSV row per atom: structure, atom, element, force, eV/Å, and what else the model says of atoms."""
    rows, more = [], []
    for p, s in zip(predictions, dataset, strict=True):
        if p.forces is None:
            continue
        symbols = Atoms(s.numbers).get_chemical_symbols()
        more, values = of_atoms(p)
        numbers = np.concatenate([p.forces, values], 1) if more else p.forces
        rows += [[p.index, k, symbols[k], *map(_cell, numbers[k].tolist())] for k in range(len(s))]
    return _csv(["index", "atom", "element", "force_x", "force_y", "force_z", *more], rows)


def predictions_xyz(predictions: Sequence[Prediction], dataset: Dataset) -> str:
    """Return extxyz: predictions as energy, forces and stress; labels as ref_energy, ref_forces and ref_stress."""
    frames = [_atoms(p, s) for p, s in zip(predictions, dataset, strict=True)]
    text = io.StringIO()
    ase.io.write(text, frames, format="extxyz")
    return text.getvalue()


def as_arrays(predictions: Sequence[Prediction], dataset: Dataset, potential: Potential) -> Predictions:
    """Return predictions and labels as plain arrays, for the report."""
    structures = [dataset[k] for k in range(len(dataset))]
    nan = float("nan")
    with_forces = all(p.forces is not None for p in predictions)
    table, elements = potential.self_energies.cpu().numpy(), np.array(potential.elements)
    heads = [potential.heads.index(s.level) if s.level in potential.heads else 0 for s in structures]
    baseline = [table[h, np.searchsorted(elements, s.numbers)].sum() for h, s in zip(heads, structures, strict=True)]
    if all("energy" in p.base for p in predictions):
        based = np.array([float(p.base["energy"]) for p in predictions])
        baseline = np.array(baseline) + composition_part(based, [s.numbers for s in structures])
    no_forces = np.zeros((0, 3))
    return Predictions(
        n_atoms=np.array([len(s) for s in structures]),
        numbers=np.concatenate([s.numbers for s in structures]),
        energy=np.array([nan if p.energy is None else p.energy for p in predictions]),
        energy_label=np.array(
            [
                nan if p.energy is None else float(s.labels.get("energy", nan))
                for p, s in zip(predictions, structures, strict=True)
            ]
        ),
        baseline=np.array(baseline),
        forces=np.concatenate([p.forces for p in predictions if p.forces is not None]) if with_forces else no_forces,
        forces_label=np.concatenate([_forces_label(p, s) for p, s in zip(predictions, structures, strict=True)]),
        stress=np.array([p.stress for p in predictions]) if with_forces else np.zeros((0, 3, 3)),
        stress_label=np.array([s.labels.get("stress", np.full((3, 3), nan)) for s in structures]),
        index=np.array([p.index for p in predictions]),
        config_type=np.array([s.config_type for s in structures]),
        origin=np.array([s.origin for s in structures]),
        further={
            name: _property(q, predictions, structures)
            for name, q in potential.targets.quantities.items()
            if name in predictions[0].further
        },
    )


def _property(quantity: Quantity, predictions: Sequence[Prediction], structures: Sequence[Structure]) -> Property:
    """Return predictions and labels of one more quantity."""
    rows = [p.further[quantity.name].reshape(-1, quantity.width) for p in predictions]
    labels = [
        s.labels[quantity.name].reshape(row.shape) if quantity.name in s.labels else np.full(row.shape, np.nan)
        for s, row in zip(structures, rows, strict=True)
    ]
    return Property(np.concatenate(rows), np.concatenate(labels), quantity.per, quantity.kind)


def packed(arrays: Predictions) -> bytes:
    """Return the arrays as the bytes of an .npz file."""
    file = io.BytesIO()
    np.savez_compressed(file, **arrays.arrays())  # type: ignore[arg-type]
    return file.getvalue()


def has_stress(structure: Structure) -> bool:
    """Say whether a stress is defined: the structure is periodic along three vectors."""
    return bool(structure.pbc.all())


def _compared(p: Prediction, s: Structure) -> dict[str, Any]:
    """Return the columns of one structure that need labels or forces."""
    found: dict[str, Any] = {"base_energy": float(p.base["energy"])} if "energy" in p.base else {}
    if p.energy is not None:
        found |= {"energy": p.energy, "energy_per_atom": p.energy / len(s)}
    if p.energy is not None and "energy" in s.labels:
        label = float(s.labels["energy"])
        found |= {"energy_label": label, "energy_error_per_atom": (p.energy - label) / len(s)}
    if p.forces is not None:
        found["max_force"] = float(np.linalg.norm(p.forces, axis=1).max())
        if "forces" in s.labels and (p.counted is None or p.counted.any()):
            error = (p.forces - s.labels["forces"])[slice(None) if p.counted is None else p.counted]
            largest = float(np.linalg.norm(error, axis=1).max())
            found |= {"forces_rmse": float(np.sqrt(np.square(error).mean())), "max_force_error": largest}
    if p.stress is not None and has_stress(s):
        voigt = full_3x3_to_voigt_6_stress(p.stress).tolist()
        found |= {f"stress_{axes}": v for axes, v in zip(("xx", "yy", "zz", "yz", "xz", "xy"), voigt, strict=True)}
    return found


def _atoms(p: Prediction, s: Structure) -> Atoms:
    """Return a structure with its predictions as results, and its labels under other names."""
    atoms = Atoms(s.numbers, s.positions, cell=s.cell, pbc=s.pbc)
    atoms.info |= {k: v for k, v in s.info.items() if k not in ("energy", "stress", "forces", "free_energy")}
    atoms.info |= {"config_type": s.config_type, "index": p.index} | ({"head": s.head} if s.head else {})
    if "energy" in s.labels:
        atoms.info["ref_energy"] = float(s.labels["energy"])
    if "forces" in s.labels:
        atoms.arrays["ref_forces"] = s.labels["forces"]
    if "stress" in s.labels:
        atoms.info["ref_stress"] = s.labels["stress"]
    if "energy" in p.base:
        atoms.info["base_energy"] = float(p.base["energy"])
    if "forces" in p.base and p.forces is not None:
        atoms.arrays["base_forces"] = p.base["forces"]
    results: dict[str, Any] = {} if p.energy is None else {"energy": p.energy}
    if p.forces is not None:
        results["forces"] = p.forces
    if p.stress is not None and has_stress(s):
        results["stress"] = full_3x3_to_voigt_6_stress(p.stress)
    more, info, arrays = in_ase(p, s)
    atoms.info |= info
    atoms.arrays |= arrays
    atoms.calc = SinglePointCalculator(atoms, **results, **more)
    return atoms


def _forces_label(p: Prediction, s: Structure) -> np.ndarray:
    """Reference forces, (n, 3), eV/Å; not a number for atoms that do not count."""
    if "forces" not in s.labels:
        return np.full((len(s), 3), np.nan)
    return s.labels["forces"] if p.counted is None else np.where(p.counted[:, None], s.labels["forces"], np.nan)


def _cell(value: object) -> object:
    return "" if value is None else repr(value) if isinstance(value, float) else value


def _csv(columns: Sequence[str], rows: Any) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()
