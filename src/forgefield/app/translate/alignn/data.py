"""alignn: name, folder, device, precision, files and what is read from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from forgefield.app.translation import Given, Remark, Sheet, seen_from
from forgefield.core.errors import ForgeError
from forgefield.data.readers.alignn import NAMES
from forgefield.data.readers.alignn.table import read_table

TARGET, ATOMWISE, ADDITIONAL = "target", "atomwise", "additional"
"""Names here of what alignn trains on beside energies, forces and stresses."""


def identity(given: Given, sheet: Sheet) -> None:
    """Name, folder, device, precision and seed."""
    name = given["filename"] or "alignn"
    sheet.put("name", name)
    sheet.put("task", "train")
    sheet.put("backend", "alignn")
    folder = seen_from(given["output_dir"] or ".", given, sheet)[0]
    sheet.put("run_dir", str(Path(folder) / name), "output_dir, in a folder of its own" if folder == "." else "")
    device = given["device"]
    if device is not None:
        known = device in ("cpu", "cuda") or str(device).startswith("cuda:")
        _put_or_lose(sheet, known, "device", device, "ForgeField computes on cpu and cuda")
    precision = given["dtype"]
    known = precision in ("float32", "float64")
    why = "parameters are float32 or float64; train.amp computes parts in float16 or bfloat16"
    _put_or_lose(sheet, known, "dtype", precision, why)
    sheet.put("train.seed", given["random_seed"], "other random numbers follow from it than in alignn")
    if sheet.knows("export.files_of"):
        sheet.put("export.files_of", "alignn", "results under alignn's names too, in run_dir/alignn")
    start = given["restart_model_path"]
    if start is not None:
        why = "bring it in first: forgefield import FILE --program alignn --elements ...; then task: finetune, model_in"
        sheet.lost.append(Remark("restart_model_path", start, why))


def _put_or_lose(sheet: Sheet, known: bool, key: str, value: Any, why: str) -> None:
    if known:
        sheet.put(key, value)
    else:
        sheet.lost.append(Remark(key, value, why))


def data(given: Given, sheet: Sheet) -> None:
    """Where the structures are."""
    if given.says("dataset") and given["dataset"] != "user_data":
        why = "a data set that alignn downloads; save it as id_prop.json and give root_dir=FOLDER"
        sheet.lost.append(Remark("dataset", given["dataset"], why))
    elif given.says("dataset"):
        sheet.needless.append(Remark("dataset", given["dataset"], "your own data"))
    folder, comment = _place(given, sheet)
    sheet.put("data.train", folder, comment)
    given.read |= {"target_key", "force_key", "stresswise_key", "atomwise_key", "additional_output_key"}


def _place(given: Given, sheet: Sheet) -> tuple[str, str]:
    """Return the folder of the data and what is to say about it."""
    if given["root_dir"] is not None:
        return seen_from(given["root_dir"], given, sheet)
    found = data_folder(given)
    path, comment = seen_from(str(found), given, sheet)
    how = "the folder of config.json; root_dir=FOLDER names another"
    return path, how if not comment else f"{comment} (root_dir=FOLDER beside config.json)"


def table_width(given: Given) -> int | None:
    """Return how many targets a line of id_prop.csv has; None where alignn reads another file, or none is there."""
    found = data_file(given)
    if found is None or found.suffix != ".csv":
        return None
    try:
        return read_table(found)[0].numbers.shape[1]
    except ForgeError:
        return 1  # `forgefield check` says what is wrong with it


def data_file(given: Given) -> Path | None:
    """Return the file that alignn reads in the folder of the data; None where it has none."""
    return next((file for name in NAMES if (file := data_folder(given) / name).is_file()), None)


def data_folder(given: Given) -> Path:
    """Return where the data are: root_dir, else the folder of the file, or the only folder in it that has some."""
    named = given.values["root_dir"]
    own = given.source.absolute().parent
    if named is not None:
        place = Path(named)
        return place if place.is_absolute() or not (own / place).exists() else own / place
    if any((own / name).is_file() for name in NAMES):
        return own
    below = [sub for sub in sorted(own.iterdir()) if sub.is_dir() and any((sub / name).is_file() for name in NAMES)]
    return below[0] if len(below) == 1 else own


def settings_beside(data: Path) -> list[Path]:
    """Return the settings files of alignn that stand in a folder of data, or beside a file of them."""
    folder = data if data.is_dir() else data.parent
    found = []
    for file in sorted(folder.glob("*config*.json")):
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(content, dict) and "alignn" in str(content.get("model")):
            found.append(file)
    return found
