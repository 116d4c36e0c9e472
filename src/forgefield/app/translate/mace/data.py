"""mace-torch: name, device, files, labels and reference energies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from forgefield.app.translation import Given, Remark, Sheet, literal, seen_from
from forgefield.core.elements import number, symbol
from forgefield.core.errors import ForgeError

_FILES = (("train_file", "train"), ("valid_file", "val"), ("test_file", "test"))


def identity(given: Given, sheet: Sheet) -> None:
    """Name, folder, device, precision and seed."""
    name = given["name"] or "run"
    sheet.put("name", name)
    sheet.put("task", "train")
    sheet.put("backend", "mace")
    sheet.put("run_dir", seen_from(str(Path(given["work_dir"]) / name), given, sheet)[0])
    device = given["device"]
    if device in ("cpu", "cuda"):
        sheet.put("device", device)
    else:
        sheet.lost.append(Remark("device", device, "ForgeField computes on cpu and cuda"))
    sheet.put("dtype", given["default_dtype"])
    seed = given["seed"]
    sheet.put("train.seed", seed, "other random numbers follow from it than in mace-torch")
    sheet.put("data.split_seed", seed, "draws another validation part than mace-torch does")


def data(given: Given, sheet: Sheet) -> None:
    """Files, names of labels and reference energies."""
    for theirs, ours in _FILES:
        _files(given, sheet, theirs, ours)
    if given["train_file"] is None and not given.says("heads"):
        raise given.wrong("train_file", "is not given; a run needs training data", "name the file, or its heads")
    fraction = given["valid_fraction"]
    if given["valid_file"] is None:
        sheet.put("data.val_fraction", fraction)
    elif given.says("valid_fraction"):
        sheet.needless.append(Remark("valid_fraction", fraction, "there is a valid_file"))
    sheet.put("data.batch_size", given["valid_batch_size"], "of validation and evaluation")
    sheet.put("data.energy_key", given["energy_key"])
    sheet.put("data.forces_key", given["forces_key"])
    sheet.put("data.head_key", given["head_key"])
    _stress_key(given, sheet)
    _reference_energies(given, sheet)


def _files(given: Given, sheet: Sheet, theirs: str, ours: str) -> None:
    value = given[theirs]
    paths = literal(given, theirs) if isinstance(value, str) and value.startswith("[") else value
    paths = [paths] if isinstance(paths, str) else list(paths or [])
    binary = [path for path in paths if Path(path).suffix in (".h5", ".hdf5")]
    if binary:
        why = "ForgeField reads extxyz and LMDB; name the files that these were made from"
        sheet.lost.append(Remark(theirs, value, why))
        return
    if paths:
        seen = [seen_from(path, given, sheet) for path in paths]
        found = [path for path, _ in seen]
        comment = next((comment for _, comment in seen if comment), "")
        sheet.put(f"data.{ours}", found[0] if len(found) == 1 else found, comment)


def _stress_key(given: Given, sheet: Sheet) -> None:
    """Stress or virial labels are named where the loss uses them, or where the file says so."""
    loss = given["loss"]
    if loss == "virials":
        sheet.put("data.stress_key", given["virials_key"])
        sheet.put("data.stress_quantity", "virial", "divided by the volume, sign turned: everything here is stress")
        unused, why = ["stress_key"], "the loss is of virials"
    elif loss in ("stress", "huber", "universal"):
        sheet.put("data.stress_key", given["stress_key"])
        unused, why = ["virials_key"], "the loss is of stress"
    else:
        unused, why = ["stress_key", "virials_key"], "the loss has no stress"
    sheet.needless += [Remark(name, given[name], why) for name in unused if given.says(name)]


def _reference_energies(given: Given, sheet: Sheet) -> None:
    value = given["E0s"]
    first = "mace-torch takes frames with config_type IsolatedAtom first; here this holds alone"
    if value is None or str(value).lower() in ("isolated", "isolatedatom"):
        sheet.put("data.e0", "isolated", "from frames of one atom, whatever their config_type")
    elif str(value).lower() == "average":
        sheet.put("data.e0", "least_squares", first)
    elif str(value).lower() in ("foundation", "estimated"):
        sheet.lost.append(Remark("E0s", value, "belongs to fine-tuning; see the finetune task"))
    elif isinstance(value, str) and value.endswith(".json"):
        sheet.put("data.e0", seen_from(value, given, sheet)[0], first)
    else:
        sheet.put("data.e0", _by_symbol(given, literal(given, "E0s")), first)


def _by_symbol(given: Given, values: Any) -> dict[str, float]:
    if not isinstance(values, dict) or not values:
        raise given.wrong("E0s", f"{values!r} is not a mapping of atomic numbers to energies")
    try:
        return {symbol(number(key)): float(value) for key, value in values.items()}
    except (ForgeError, ValueError, TypeError) as error:
        raise given.wrong("E0s", str(error)) from None
