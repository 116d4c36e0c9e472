"""Results under the names and in the form that scripts for alignn read: `export.files_of: alignn`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from forgefield.app.folder import RunFolder, write_json
from forgefield.app.reports.contents import Predictions, Property
from forgefield.core.disk import write_atomic
from forgefield.core.units import factor
from forgefield.data.dataset import Dataset
from forgefield.data.parts import TrainingData
from forgefield.train.recorder import read_history

GPA = 1.0 / factor("stress", "GPa")
"""GPa in one eV/Å^3."""
FOLDER = "alignn"
OF_ATOMS, FURTHER = "atomwise", "additional"
"""Targets that alignn has beside the first, by their names in translated runs."""
_ID = re.compile(r": (entry|line) \d+ \((?P<id>.*)\)$")


def write_alignn_files(folder: RunFolder, data: TrainingData, tests: Mapping[str, Dataset]) -> list[Path]:
    """Write ids, histories and predictions of a finished run into run_dir/alignn.

    ids_train_val_test.json; history_train.json and history_val.json: [total, first target, atoms, forces, stress,
    further] for each validation, means; Val_results.json and Test_results.json: a record for each structure, forces in
    eV/Å, stresses in GPa, energies per atom; of a property also prediction_results_test_set.csv, or
    multi_out_predictions.json where it has several numbers. Every record has the id of its own structure.

    Args:
        folder: of the run, with its history and evaluations.
        data: what was trained and validated on.
        tests: what was tested on, by name.

    Returns:
        The files.
    """
    place = folder.root / FOLDER
    ids = {"id_train": identifiers(data.train), "id_val": [] if data.val is None else identifiers(data.val)}
    ids["id_test"] = [one for test in tests.values() for one in identifiers(test)]
    files = [write_json(place / "ids_train_val_test.json", ids), *_histories(folder, place)]
    if data.val is not None:
        files.append(write_json(place / "Val_results.json", list(records(_read(folder, "val")))))
    found = [_read(folder, name) for name in tests]
    if found:
        files.append(write_json(place / "Test_results.json", [one for part in found for one in records(part)]))
    return [*files, *_of_property(place, found)]


def identifiers(dataset: Dataset) -> list[str]:
    """Return the id of each structure: its jid or file in alignn's data, of other data its place in the file."""
    return [identifier(dataset[k].origin) for k in range(len(dataset))]


def identifier(origin: str) -> str:
    """Return the id in the words of where a structure comes from."""
    found = _ID.search(origin)
    return found["id"] if found else origin


def records(found: Predictions) -> Iterator[dict[str, Any]]:
    """Yield a record of each structure, as alignn's Test_results.json has them."""
    forces = len(found.forces) == len(found.numbers)
    for k, (end, count) in enumerate(zip(found.ends, found.n_atoms, strict=True)):
        atoms, row = slice(int(end) - int(count), int(end)), {"id": identifier(str(found.origin[k]))}
        row |= _pair("out", found.energy_label[k : k + 1] / count, found.energy[k : k + 1] / count)
        if forces:
            row |= _pair("grad", found.forces_label[atoms], found.forces[atoms])
            row |= _pair("stress", GPA * found.stress_label[k : k + 1], GPA * found.stress[k : k + 1])
        for name, one in found.further.items():
            word = {OF_ATOMS: "atomwise_pred", FURTHER: FURTHER}.get(name, "out")
            rows = atoms if one.per == "atom" else slice(k, k + 1)
            row |= _pair(word, one.label[rows], one.value[rows])
        yield row


def _pair(word: str, label: np.ndarray, value: np.ndarray) -> dict[str, Any]:
    """Return label and prediction; nothing where there is no label."""
    if not np.isfinite(label).all() or not np.isfinite(value).all():
        return {}
    return {f"target_{word}": label.tolist(), f"pred_{word}": value.tolist()}


def _read(folder: RunFolder, name: str) -> Predictions:
    return Predictions.read(folder.evaluation(name) / "predictions.npz")


def _histories(folder: RunFolder, place: Path) -> list[Path]:
    if not folder.history.is_file():
        return []
    history = read_history(folder.history)
    names = [key.removeprefix("train_") for key in history[0] if key.startswith("train_")] if history else []
    first = next((n for n in names if n not in ("loss", "energy", "forces", "stress", OF_ATOMS, FURTHER)), "energy")
    columns = ("loss", first, OF_ATOMS, "forces", "stress", FURTHER)
    return [
        write_json(
            place / f"history_{part}.json",
            [[float(row.get(f"{part}_{name}") or 0.0) for name in columns] for row in history],
        )
        for part in ("train", "val")
    ]


def _of_property(place: Path, found: list[Predictions]) -> list[Path]:
    """Write the table of the property, if it is one."""
    kept = [(part, one) for part in found if (one := _first(part)) is not None]
    if not kept:
        return []
    rows = [(identifier(str(part.origin[k])), one.label[k], one.value[k]) for part, one in kept
            for k in range(len(part.origin)) if np.isfinite(one.label[k]).all()]  # fmt: skip
    if kept[0][1].value.shape[1] > 1:
        content = [{"id": name, "target": label.tolist(), "predictions": value.tolist()} for name, label, value in rows]
        return [write_json(place / "multi_out_predictions.json", content)]
    classes = kept[0][1].kind == "class"
    lines = ["id,target,prediction"]
    for name, label, value in rows:
        lines.append(
            f"{name}, {round(label[0])}, {int(value[0] > 0.5)}" if classes else f"{name}, {label[0]:6f}, {value[0]:6f}"
        )
    return [write_atomic(place / "prediction_results_test_set.csv", "\n".join(lines) + "\n")]


def _first(found: Predictions) -> Property | None:
    """Return the property of structures that alignn calls the target."""
    return next(
        (one for name, one in found.further.items() if one.per == "structure" and name not in (OF_ATOMS, FURTHER)), None
    )
