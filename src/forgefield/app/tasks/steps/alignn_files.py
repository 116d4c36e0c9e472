"""Results under the names and in the form that scripts for alignn read: `export.files_of: alignn`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
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
WORDS = ("out", "atomwise_pred", "grad", "stress")
"""What every record of alignn's training and validation has, though the list be empty."""
LEAST = 1e-12  # probability, so that its logarithm is a number
_ID = re.compile(r": (entry|line) \d+ \((?P<id>.*)\)$")


def write_alignn_files(
    folder: RunFolder,
    data: TrainingData,
    tests: Mapping[str, Dataset],
    trained: Predictions,
    weights: Mapping[str, float],
) -> list[Path]:
    """Write ids, histories and predictions of a finished run into run_dir/alignn.

    ids_train_val_test.json; history_train.json and history_val.json: [total, first target, atoms, forces, stress,
    further] for each validation, each with its weight, so that the five sum to the total; Train_results.json,
    Val_results.json and Test_results.json: a record for each structure, forces in eV/Å, stresses in GPa, energies per
    atom, classes as logarithms of both probabilities; mad: range and mean absolute deviation of the first target; of a
    property also prediction_results_test_set.csv and prediction_results_train_set.csv, or multi_out_predictions.json
    where it has several numbers. Every record has the id of its own structure.

    Args:
        folder: of the run, with its history and evaluations.
        data: what was trained and validated on.
        tests: what was tested on, by name.
        trained: predictions of the training structures.
        weights: of the loss, by quantity.

    Returns:
        The files.
    """
    place = folder.root / FOLDER
    ids = {"id_train": identifiers(data.train), "id_val": [] if data.val is None else identifiers(data.val)}
    ids["id_test"] = [one for test in tests.values() for one in identifiers(test)]
    files = [write_json(place / "ids_train_val_test.json", ids), *_histories(folder, place, weights)]
    files.append(write_json(place / "Train_results.json", [*records(trained, (*WORDS, FURTHER))]))
    checked = [] if data.val is None else [_read(folder, "val")]
    if checked:
        files.append(write_json(place / "Val_results.json", [*records(checked[0], WORDS)]))
    found = [_read(folder, name) for name in tests]
    if found:
        files.append(write_json(place / "Test_results.json", [one for part in found for one in records(part)]))
    return [*files, *_spread(place, [trained, *checked, *found]), *_of_property(place, found, trained)]


def identifiers(dataset: Dataset) -> list[str]:
    """Return the id of each structure: its jid or file in alignn's data, of other data its place in the file."""
    return [identifier(dataset[k].origin) for k in range(len(dataset))]


def identifier(origin: str) -> str:
    """Return the id in the words of where a structure comes from."""
    found = _ID.search(origin)
    return found["id"] if found else origin


def records(found: Predictions, words: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """Yield a record of each structure, as alignn's results have them; `words` stand there even without numbers."""
    forces = len(found.forces) == len(found.numbers)
    first = _first(found)
    for k, (end, count) in enumerate(zip(found.ends, found.n_atoms, strict=True)):
        atoms, row = slice(int(end) - int(count), int(end)), {"id": identifier(str(found.origin[k]))}
        row |= {f"{side}_{word}": [] for word in words for side in ("target", "pred")}
        row |= _pair("out", found.energy_label[k : k + 1] / count, found.energy[k : k + 1] / count)
        if forces:
            row |= _pair("grad", found.forces_label[atoms], found.forces[atoms])
            row |= _pair("stress", GPA * found.stress_label[k : k + 1], GPA * found.stress[k : k + 1])
        for name, one in found.further.items():
            rows = atoms if one.per == "atom" else slice(k, k + 1)
            if one is first:
                row |= _pair("out", *_as_out(one, rows))
            else:
                word = {OF_ATOMS: "atomwise_pred", FURTHER: FURTHER}.get(name, name)
                row |= _pair(word, one.label[rows], one.value[rows])
        yield row


def _as_out(one: Property, rows: slice) -> tuple[np.ndarray, np.ndarray]:
    """Return label and prediction in the shape of alignn's output: one number in a list, several in a list of lists."""
    label, value = one.label[rows], one.value[rows]
    if one.kind == "class":
        return label[:, 0], np.log(np.clip(np.stack([1.0 - value[:, 0], value[:, 0]], 1), LEAST, 1.0))
    return (label[:, 0], value[:, 0]) if value.shape[1] == 1 else (label, value)


def _pair(word: str, label: np.ndarray, value: np.ndarray) -> dict[str, Any]:
    """Return label and prediction; nothing where there is no label."""
    if not np.isfinite(label).all() or not np.isfinite(value).all():
        return {}
    return {f"target_{word}": label.tolist(), f"pred_{word}": value.tolist()}


def _read(folder: RunFolder, name: str) -> Predictions:
    return Predictions.read(folder.evaluation(name) / "predictions.npz")


def _histories(folder: RunFolder, place: Path, weights: Mapping[str, float]) -> list[Path]:
    if not folder.history.is_file():
        return []
    history = read_history(folder.history)
    names = [key.removeprefix("train_") for key in history[0] if key.startswith("train_")] if history else []
    others = (n for n in names if n not in ("loss", "energy", "forces", "stress", OF_ATOMS, FURTHER))
    first = "energy" if weights.get("energy") else next(others, "energy")
    columns = ("loss", first, OF_ATOMS, "forces", "stress", FURTHER)
    factors = {"loss": 1.0, **weights}
    return [
        write_json(
            place / f"history_{part}.json",
            [[factors.get(name, 0.0) * float(row.get(f"{part}_{name}") or 0.0) for name in columns] for row in history],
        )
        for part in ("train", "val")
    ]


def _spread(place: Path, parts: Sequence[Predictions]) -> list[Path]:
    """Write range and mean absolute deviation of the first target, unless it is a class or has several numbers."""
    found = [_first(part) for part in parts]
    if found[0] is not None and (found[0].kind == "class" or found[0].value.shape[1] > 1):
        return []
    labels = [part.energy_label / part.n_atoms if one is None else one.label[:, 0]
              for part, one in zip(parts, found, strict=True)]  # fmt: skip
    known = np.concatenate(labels)
    known = known[np.isfinite(known)]
    if not len(known):
        return []
    numbers = {"MAX": known.max(), "MIN": known.min(), "MAD": np.abs(known - known.mean()).mean()}
    return [write_atomic(place / "mad", "".join(f"{name} val:{float(x)}\n" for name, x in numbers.items()))]


def _of_property(place: Path, found: Sequence[Predictions], trained: Predictions) -> list[Path]:
    """Write the tables of the property, if it is one."""
    first = _first(trained)
    if first is None:
        return []
    rows = [(identifier(str(part.origin[k])), one.label[k], one.value[k]) for part in found
            if (one := _first(part)) is not None
            for k in range(len(part.origin)) if np.isfinite(one.label[k]).all()]  # fmt: skip
    if first.value.shape[1] > 1:
        content = [
            {"id": name, "target": label.tolist(), "predictions": [value.tolist()]} for name, label, value in rows
        ]
        return [write_json(place / "multi_out_predictions.json", content)] if found else []
    classes = first.kind == "class"
    lines = ["id,target,prediction"]
    for name, label, value in rows:
        lines.append(
            f"{name}, {round(label[0])}, {int(value[0] > 0.5)}" if classes else f"{name}, {label[0]:6f}, {value[0]:6f}"
        )
    files = [write_atomic(place / "prediction_results_test_set.csv", "\n".join(lines) + "\n")] if found else []
    if not classes:
        known = np.isfinite(first.label[:, 0])
        pairs = zip(first.label[known, 0], first.value[known, 0], strict=True)
        lines = ["target,prediction", *(f"{label:6f}, {value:6f}" for label, value in pairs)]
        files.append(write_atomic(place / "prediction_results_train_set.csv", "\n".join(lines) + "\n"))
    return files


def _first(found: Predictions) -> Property | None:
    """Return the property of structures that alignn calls the target; None where that is the energy."""
    if np.isfinite(found.energy).any():
        return None
    return next(
        (one for name, one in found.further.items() if one.per == "structure" and name not in (OF_ATOMS, FURTHER)), None
    )
