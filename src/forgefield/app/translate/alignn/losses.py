"""alignn: what is trained on, with which weight. Its loss sums mean absolute errors, whatever `criterion` says."""

from __future__ import annotations

from typing import Any

from forgefield.app.translate.alignn.data import ADDITIONAL, ATOMWISE, TARGET, table_width
from forgefield.app.translation import Given, Remark, Sheet
from forgefield.core.units import factor

GPA = 1.0 / factor("stress", "GPa")
"""GPa in one eV/Å^3."""
ALWAYS_L1 = "alignn minimises mean absolute errors"


def is_force_field(given: Given) -> bool:
    """Say whether energies are trained on with forces or stresses; else alignn learns a property."""
    weights = given["model.gradwise_weight"], given["model.stresswise_weight"]
    return bool(given["model.calculate_gradient"]) and any(weights)


def losses(given: Given, sheet: Sheet) -> None:
    """Energies, forces and stresses, or a property; then targets of atoms and further ones."""
    targets: dict[str, dict[str, Any]] = {}
    keys: dict[str, dict[str, Any]] = {}
    _criterion(given, sheet)
    if is_force_field(given):
        _force_field(given, sheet)
    else:
        _property(given, sheet, keys, targets)
    _further(given, sheet, keys, targets)
    _features(given, sheet)
    if keys:
        sheet.put("data.targets", keys, "names in the file; forgefield data info tells which there are")
    if targets:
        sheet.put("train.targets", targets)


def _criterion(given: Given, sheet: Sheet) -> None:
    name = given["criterion"]
    if name in ("mse", "poisson", "zig"):
        why = "without effect in alignn, whose loss is always l1, as here; see train.loss_energy for others"
        if given.says("criterion"):
            sheet.needless.append(Remark("criterion", name, why))
    elif name != "l1":
        raise given.wrong("criterion", f"got {name!r}", "give mse, l1, poisson or zig")
    elif given.says("criterion"):
        sheet.needless.append(Remark("criterion", name, f"{ALWAYS_L1}, as here"))


def _factor(given: Given, sheet: Sheet) -> float:
    scale = given["target_multiplication_factor"]
    if scale is None:
        return 1.0
    why = "errors are weighed by it; predictions stay in the unit of the file, which alignn's do not"
    sheet.needless.append(Remark("target_multiplication_factor", scale, why))
    return abs(scale)


def _force_field(given: Given, sheet: Sheet) -> None:
    scale = _factor(given, sheet)
    sheet.put("data.energy_key", given["target_key"])
    sheet.put("data.forces_key", given["force_key"])
    sheet.put(
        "train.energy_weight", scale * given["model.graphwise_weight"], "mean absolute error of the energy per atom"
    )
    sheet.put("train.loss_energy", "mae", ALWAYS_L1)
    sheet.put("train.energy_normalization", "per_atom")
    sheet.put("train.force_weight", given["model.gradwise_weight"])
    sheet.put("train.loss_force", "mae")
    weight = given["model.stresswise_weight"]
    if weight:
        note = "read as GPa, +dE/dstrain per volume, as alignn computes them; VASP has kbar of the other sign, then "
        note += "stress_unit: kbar, stress_sign: vasp"
        sheet.put("data.stress_key", given["stresswise_key"], note)
        sheet.put("train.stress_weight", weight * GPA, f"{weight:g} for errors in GPa, here of eV/Å³")
        sheet.put("train.loss_stress", "mae")
        sheet.put("train.stress_normalization", "total")
    else:
        sheet.put("data.stress_key", None, "stresses are not trained on, nor read")
        sheet.put("train.stress_weight", 0.0)
    if given.says("model.calculate_gradient"):
        sheet.needless.append(Remark("model.calculate_gradient", True, "forces are trained on"))
    if given.says("model.output_features"):
        sheet.needless.append(
            Remark("model.output_features", given["model.output_features"], "the energy is one number")
        )
    _no_classes(given, sheet)


def _property(given: Given, sheet: Sheet, keys: dict[str, Any], targets: dict[str, Any]) -> None:
    """A target of structures: a number, several, or a class."""
    if given.says("model.calculate_gradient"):
        why = "there are no forces: the target is a property of the structure"
        sheet.needless.append(Remark("model.calculate_gradient", given["model.calculate_gradient"], why))
    for key in ("energy", "force", "stress"):
        sheet.put(f"train.{key}_weight", 0.0, "no energies: a model of properties" if key == "energy" else "")
    weight = _factor(given, sheet) * given["model.graphwise_weight"]
    others = given["model.atomwise_weight"] or given["model.additional_output_weight"]
    if not weight and others:
        return
    if not weight:
        why = "all weights are 0, so that alignn trains nothing. Give model.graphwise_weight=1 beside the file, for "
        why += "forces model.gradwise_weight=1 too (--force: graphwise_weight is 1)"
        sheet.lost.append(Remark("model.graphwise_weight", 0.0, why))
        weight = 1.0
    columns = table_width(given)
    for word in () if columns else ("energy", "forces", "stress"):
        sheet.put(f"data.{word}_key", None, "alignn reads the target alone" if word == "energy" else "")
    key = "target" if columns and not given.says("target_key") else given["target_key"]
    width = columns or given["model.output_features"]
    classes = given["model.classification"] or given["classification_threshold"] is not None
    keys[TARGET] = {"key": key, "per": "structure"}
    targets[TARGET] = {"weight": weight}
    if classes:
        keys[TARGET]["threshold"] = _classes(given, sheet, columns)
        width = 1  # alignn has two outputs for two classes
    else:
        targets[TARGET] |= {"loss": "mae"}
    if width > 1:
        keys[TARGET]["components"] = width
    if given.says("model.output_features"):
        why = "one number" if width == 1 else f"{width} numbers" + " in a line of id_prop.csv" * (columns is not None)
        why = "the probability of one of two classes" if classes else why
        sheet.needless.append(Remark("model.output_features", given["model.output_features"], why))
    if not classes:
        _no_classes(given, sheet)


def _classes(given: Given, sheet: Sheet, columns: int | None) -> float:
    """Return the number above which a label is of the second class."""
    threshold = given["classification_threshold"]
    if columns and columns > 1:
        what = f"got {threshold}, but id_prop.csv has {columns} targets in a line"
        raise given.wrong("classification_threshold", what, "leave one of them in the table, or take it out")
    for name, why in (
        ("model.classification", "as its loss, the cross entropy; the probability of being above the threshold"),
        ("classification_threshold", "above it is class 1, see data.targets (0.5 where labels are 0 and 1)"),
    ):
        if given.says(name):
            sheet.needless.append(Remark(name, given[name], why))
    return 0.5 if threshold is None else threshold


def _no_classes(given: Given, sheet: Sheet) -> None:
    if given["classification_threshold"] is not None:
        why = "energies and forces are numbers; classes are learned without them (gradwise_weight: 0)"
        sheet.lost.append(Remark("classification_threshold", given["classification_threshold"], why))
    if given["model.classification"]:
        sheet.lost.append(
            Remark("model.classification", True, "give gradwise_weight: 0 and a classification_threshold")
        )


def _further(given: Given, sheet: Sheet, keys: dict[str, Any], targets: dict[str, Any]) -> None:
    """Targets of atoms (charges, magnetic moments) and further ones of structures (densities of states)."""
    for name, per, label, count, weight in (
        (ATOMWISE, "atom", "atomwise_key", "model.atomwise_output_features", "model.atomwise_weight"),
        (ADDITIONAL, "structure", "additional_output_key", "model.additional_output_features",
         "model.additional_output_weight"),
    ):  # fmt: skip
        width, share = given[count], given[weight]
        if width and share:
            keys[name] = {"key": given[label], "per": per} | ({"components": width} if width > 1 else {})
            targets[name] = {"weight": share, "loss": "mae"}
            continue
        for key in (count, weight):
            if given.says(key):
                sheet.needless.append(Remark(key, given[key], f"is trained with {count} and {weight} above 0 only"))


def _features(given: Given, sheet: Sheet) -> None:
    width = given["model.extra_features"]
    if width:
        sheet.put("data.features", {"extra_features": "extra_features"}, f"{width} numbers of each structure")
        sheet.put("model.extra_features", width)
    elif given.says("model.extra_features"):
        sheet.needless.append(Remark("model.extra_features", 0, "no further inputs"))
