"""XequiNet: name, folder, precision, files, parts, base labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from forgefield.app.translation import Given, Remark, Sheet, seen_from

MANY = 1_000_000  # max_num_samples of the code, 10,000,000 in the documentation: no limit is meant
BASE = {"base_energy": "energy", "base_forces": "forces", "base_charges": "charges", "base_dipole": "dipole"}
ALWAYS = ("energy", "forces")


def identity(given: Given, sheet: Sheet) -> None:
    """Name, folder, precision and seed."""
    name = given["trainer.run_name"] or "xequinet"
    sheet.put("name", name)
    sheet.put("task", "train")
    sheet.put("backend", "xpainn")
    folder = seen_from(given["trainer.save_dir"] or ".", given, sheet)[0]
    sheet.put("run_dir", str(Path(folder) / name))
    precision = given["data.default_dtype"]
    if precision in ("float32", "float64"):
        sheet.put("dtype", precision)
    else:
        why = "parameters are float32 or float64; train.amp: float16 computes parts so, on CUDA"
        sheet.lost.append(Remark("data.default_dtype", precision, why))
    seed = given["trainer.seed"]
    if seed is not None:
        sheet.put("train.seed", seed, "other random numbers follow from it than in XequiNet")
    elif given.says("trainer.seed"):
        sheet.needless.append(Remark("trainer.seed", None, "there is always a seed (train.seed)"))


def data(given: Given, sheet: Sheet) -> None:
    """Where the structures are, which of them are used, what is read."""
    path, comment = seen_from(given["data.db_path"] or ".", given, sheet)
    split, limit = given["data.split"], given["data.max_num_samples"]
    known = parts_of(given)
    if known is None or known.get("test"):
        note = "" if known else "; take it out if the split has no part test"
        sheet.put("export.files_of", "xequinet", f"test results under XequiNet's names too, in run_dir/xequinet{note}")
    if split == "split" and limit >= MANY:
        sheet.put("data.train", path, comment or "with the parts of its split.json")
    else:
        sheet.put("data.train", {"path": path, "select": f"{split}:train"}, comment)
        sheet.put("data.val", {"path": path, "select": f"{split}:valid"})
        if known is None or known.get("test"):
            note = "" if known else "take it out if the split has no part test"
            sheet.put("data.test", {"path": path, "select": f"{split}:test"}, note)
    if limit < MANY:
        for part in ("train", "val"):
            sheet.put(f"data.{part}_indices", {"max_samples": limit})
    elif given.says("data.max_num_samples"):
        sheet.needless.append(Remark("data.max_num_samples", limit, "no limit"))
    _batches(given, sheet)
    if given.says("data.targets"):
        why = "labels are read where they are; the weights of the loss say which are trained on"
        sheet.needless.append(Remark("data.targets", given["data.targets"], why))
    for key in ("node_scale", "node_shift"):
        if given.says(f"data.{key}"):
            why = "a start for the last layer; reference energies (data.e0) and a scale are always measured"
            sheet.needless.append(Remark(f"data.{key}", given[f"data.{key}"], why))
    _base(given, sheet)


def parts_of(given: Given) -> dict[str, list[int]] | None:
    """Return the lists of the split; None where the file is not there."""
    folder = Path(given.values["data.db_path"] or ".")
    for place in (given.source.absolute().parent, Path.cwd()):
        file = place / folder / f"{given.values['data.split']}.json"
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(found, dict):
            return {str(name): list(numbers) for name, numbers in found.items() if isinstance(numbers, list)}
    return None


def _batches(given: Given, sheet: Sheet) -> None:
    note = "XequiNet divides it by the number of GPUs; so does ForgeField, in several processes"
    sheet.put("train.batch_size", given["data.batch_size"], note if given.says("data.batch_size") else "")
    sheet.put("data.batch_size", given["data.valid_batch_size"], "of validation and evaluation")
    sheet.put("train.drop_last", True, "as in XequiNet")


def _base(given: Given, sheet: Sheet) -> None:
    """Base labels: the model learns the difference."""
    bases = given["data.base_targets"]
    if not bases:
        if given.says("data.base_targets"):
            sheet.needless.append(Remark("data.base_targets", bases, "no base labels: the model learns the labels"))
        return
    names = [str(name) for name in (bases if isinstance(bases, list) else [bases])]
    strange = [name for name in names if name not in BASE]
    if strange:
        raise given.wrong("data.base_targets", f"{strange[0]!r} is no base label", f"known: {', '.join(BASE)}")
    if not sheet.knows("model.baseline"):
        sheet.lost.append(Remark("data.base_targets", names, "this version does not learn differences to base labels"))
        return
    block: dict[str, Any] = {"method": "labels"}
    further = [BASE[name] for name in names if BASE[name] not in ALWAYS]
    if further:
        block["targets"] = further
    note = "target - base; with {method: gfn2-xtb} tblite computes that level wherever the model is used"
    sheet.put("model.baseline", block, note)
    sheet.put("export.targets", [], "a file for other programs would hold the correction alone")
