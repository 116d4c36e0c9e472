"""AIMNet2mult: the loss and its weights, which sum to 1."""

from __future__ import annotations

from typing import Any

from forgefield.app.translate.aimnet2mult.reading import Settings
from forgefield.app.translation import Remark, Sheet

COMPONENTS = "loss.kwargs.components"
MODULES = ("aimnet2mult.train.loss", "aimnet.train.loss", "aimnet2.train.loss")
OWN_KEYS = {"energy": "energy", "forces": "force"}  # quantities with keys of their own in run.yaml
LOSSES: dict[str, dict[str, Any]] = {
    "energy_loss_fn": {"normalization": {"energy": "sqrt_atoms"}, "default": "energy"},
    "mse_loss_fn": {"normalization": {"energy": "total"}, "default": None},
    "peratom_loss_fn": {"normalization": {}, "default": None},
    "dipole_loss_fn": {"normalization": {}, "default": "dipole"},
    "quadrupole_loss_fn": {"normalization": {}, "default": "quadrupole"},
}
OF_ATOMS = ("forces", "charges", "spin_charges")
KNOWN = {
    "energy_loss_fn": ("energy",), "mse_loss_fn": ("energy", *OF_ATOMS), "peratom_loss_fn": OF_ATOMS,
    "dipole_loss_fn": ("dipole",), "quadrupole_loss_fn": ("quadrupole",),
}  # fmt: skip
"""Quantities that each function may be of, so that it means the same here."""
SIX = "mean over nine elements of the tensor; in AIMNet2mult over six of them"


def losses(given: Settings, sheet: Sheet) -> None:
    """The components of MTLoss, each with its share of the sum of all weights."""
    kind = given["loss.class"]
    if last(kind) != "MTLoss":
        what = "weights that change with the losses"
        why = f"{what if last(kind) == 'MTAdaWLoss' else 'an unknown loss'}; ForgeField has fixed weights, as MTLoss"
        sheet.lost.append(Remark("loss.class", kind, why))
    if given.says("loss.kwargs.eta"):
        sheet.lost.append(Remark("loss.kwargs.eta", given["loss.kwargs.eta"], "belongs to MTAdaWLoss"))
    names = given.names(COMPONENTS)
    weights = {name: float(given.get(f"{COMPONENTS}.{name}.weight", 0.0)) for name in names}
    total = sum(weights.values())
    if total <= 0 or min(weights.values()) < 0:
        raise given.wrong(f"{COMPONENTS}.{names[0]}.weight" if names else COMPONENTS, "weights must be above 0")
    targets: dict[str, Any] = {}
    found: set[str] = set()
    for name in names:
        quantity = _component(given, sheet, name)
        if quantity is None:
            continue
        if quantity in found:
            sheet.lost.append(Remark(f"{COMPONENTS}.{name}", weights[name], f"a second loss of {quantity}"))
            continue
        found.add(quantity)
        share = weights[name] / total
        note = f"{weights[name]:g} of the sum {total:g}: MTLoss normalises its weights to sum 1"
        _put(given, sheet, name, quantity, share, note, targets)
    for quantity, key in OWN_KEYS.items():
        if quantity not in found:
            sheet.put(f"train.{key}_weight", 0.0, f"no component of the loss has {quantity} that data.y lists")
    if targets:
        note = "shares of the same sum"
        sheet.put("train.targets", targets, f"{note}; quadrupole: {SIX}" if "quadrupole" in targets else note)
    sheet.put("train.missing_labels", "mask", "means are over the labels that there are, per quantity")


def _component(given: Settings, sheet: Sheet, name: str) -> str | None:
    """Return the quantity of a component, or None where it is none of ours."""
    block = f"{COMPONENTS}.{name}"
    function = last(given.get(f"{block}.fn", ""))
    known = LOSSES.get(function)
    label = given.get(f"{block}.kwargs.key_true", known and known["default"])
    predicted = given.get(f"{block}.kwargs.key_pred", "charges" if function.startswith(("dipole", "quadru")) else label)
    given.read |= {f"{block}.kwargs", block}
    if given.says(f"{block}.scale"):
        sheet.lost.append(Remark(f"{block}.scale", given[f"{block}.scale"], "belongs to MTAdaWLoss"))
    _regularization(given, sheet, f"{block}.kwargs.missing_label_regularization")
    moment = label in ("dipole", "quadrupole")
    fits = predicted == ("charges" if moment else label)
    if known is None or label not in KNOWN[function] or not fits:
        why = (
            f"no loss of that kind of {label}; there are mse, mae, huber of {', '.join(('energy', *OF_ATOMS))}, dipole"
        )
        sheet.lost.append(Remark(block, f"{function} of {label}", why))
        return None
    if label not in [str(word) for word in given["data.y"]]:
        why = "data.y does not list it, so that its loss is 0; its weight counts in the sum all the same"
        sheet.needless.append(Remark(block, label, why))
        return None
    if label == "spin_charges" and given.get("model.kwargs.num_charge_channels", 1) == 1:
        why = "a model of closed shells predicts none, so that its loss is 0; its weight counts in the sum"
        sheet.needless.append(Remark(block, label, why))
        return None
    return label


def _regularization(given: Settings, sheet: Sheet, key: str) -> None:
    value = given.get(key, 0.0)
    if not given.says(key):
        return
    if value:
        why = "charges are not pulled to 0 where labels are absent (their sum is the total charge in any case); "
        why += "give such structures a small weight of labels instead, or leave the component out"
        sheet.lost.append(Remark(key, value, why))
    else:
        sheet.needless.append(Remark(key, value, "without it predictions that have no label are free here too"))


def _put(
    given: Settings, sheet: Sheet, name: str, quantity: str, share: float, note: str, targets: dict[str, Any]
) -> None:
    function = last(given[f"{COMPONENTS}.{name}.fn"])
    normalization = LOSSES[function]["normalization"].get(quantity)
    if quantity in OWN_KEYS:
        key = OWN_KEYS[quantity]
        sheet.put(f"train.{key}_weight", share, note)
        if normalization is not None:
            said = (
                "squared error of the energy divided by √N, as energy_loss_fn" if normalization == "sqrt_atoms" else ""
            )
            sheet.put(f"train.{key}_normalization", normalization, said)
    else:
        targets[quantity] = {"weight": share}


def unused_labels(given: Settings, sheet: Sheet) -> None:
    """Labels of `data.y` that no component of the loss reads."""
    trained = set(sheet.lines["train.targets"].value) if "train.targets" in sheet.lines else set()
    trained |= {quantity for quantity, key in OWN_KEYS.items() if sheet.lines[f"train.{key}_weight"].value}
    extra = [str(name) for name in given["data.y"] if str(name) not in trained]
    if extra and given.says("data.y"):
        sheet.needless.append(Remark("data.y", extra, "read, but no component of the loss has them"))


def last(path: str) -> str:
    """Return the name at the end of a class path of AIMNet2mult, ignite or torch; it is text, nothing is imported."""
    module, _, name = str(path).rpartition(".")
    return name if not module or module.split(".")[0] in ("aimnet2mult", "aimnet", "aimnet2", "torch", "ignite") else ""
