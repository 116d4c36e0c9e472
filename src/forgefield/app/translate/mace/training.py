"""mace-torch: losses, updates, learning rate, second stage and records."""

from __future__ import annotations

import math
from importlib.util import find_spec

from forgefield.app.translation import Given, Remark, Sheet
from forgefield.core.catalog import Catalog
from forgefield.train.catalogs import LOSSES, SCHEDULES

_NO_STAGE = "this version has no second stage"
CONSTANT = ("up", "skip", "density")  # parts that decay here and not in mace-torch
KINDS = {"huber": ("huber", "huber", "huber"), "l1l2energyforces": ("mae", "l2mae", "mse")}
NO_LOSS = {
    "universal": "its force loss changes shape with the size of the label",
    "dipole": "ForgeField's MACE has no dipoles", "dipole_polar": "ForgeField's MACE has no dipoles",
    "energy_forces_dipole": "ForgeField's MACE has no dipoles",
}  # fmt: skip


def losses(given: Given, sheet: Sheet) -> None:
    """Weights and kinds of the loss."""
    kind = given["loss"]
    weights = {"energy": given["energy_weight"], "force": given["forces_weight"], "stress": 0.0}
    comments = dict.fromkeys(weights, "")
    if kind == "ef":
        weights |= {"energy": 1.0, "force": 1.0}
        comments["force"] = "loss: ef of mace-torch takes no weights"
    elif kind == "forces_only":
        weights["energy"], comments["energy"] = 0.0, "loss: forces_only"
    elif kind in ("stress", "huber"):
        weights["stress"] = given["stress_weight"]
    if kind in NO_LOSS:
        sheet.lost.append(Remark("loss", kind, NO_LOSS[kind]))
    _kinds(given, sheet, kind)
    for name, weight in weights.items():
        sheet.put(f"train.{name}_weight", weight, comments[name])
    _virials(given, sheet, kind)
    unread = {"stress_weight": ("stress", "huber"), "virials_weight": ("virials",), "huber_delta": ("huber",)}
    for name, losses_of in unread.items():
        if given.says(name) and kind not in losses_of:
            sheet.needless.append(Remark(name, given[name], f"loss: {kind} does not read it"))
    if sheet.knows("train.missing_labels"):
        sheet.put("train.missing_labels", "mask", "means are over the labels there are, not over all structures")


def _kinds(given: Given, sheet: Sheet, kind: str) -> None:
    if kind not in KINDS:
        return
    chosen = dict(zip(("energy", "force", "stress"), KINDS[kind], strict=True))
    if not set(chosen.values()) <= set(Catalog(LOSSES).names()):
        sheet.lost.append(Remark("loss", kind, f"there is no loss {kind}"))
        return
    for name, loss in chosen.items():
        sheet.put(f"train.loss_{name}", loss)
    if kind == "huber":
        note = "weights of structures count here; mace-torch leaves them out of this loss"
        sheet.put("train.huber_delta", given["huber_delta"], note)


def _virials(given: Given, sheet: Sheet, kind: str) -> None:
    if kind != "virials":
        return
    weight = given["virials_weight"]
    if sheet.knows("train.targets"):
        sheet.put("train.targets", {"virial": {"weight": weight}})
    else:
        sheet.lost.append(Remark("loss", kind, "there is no loss of virials, only of stress"))


def updates(given: Given, sheet: Sheet) -> None:
    """Batches, optimizer, decay, clipping and average."""
    sheet.put("train.epochs", given["max_num_epochs"])
    sheet.put("train.batch_size", given["batch_size"])
    sheet.put("train.num_workers", given["num_workers"])
    sheet.put("train.drop_last", not given["lbfgs"], "mace-torch leaves out the last batch of an epoch if not full")
    if given["optimizer"] in ("adam", "adamw"):
        sheet.put("train.optimizer", given["optimizer"])
        sheet.put("train.betas", [given["beta"], 0.999])
    else:
        sheet.lost.append(Remark("optimizer", given["optimizer"], "ForgeField has adam and adamw for this"))
    sheet.put("train.lr", given["lr"])
    sheet.put("train.weight_decay", given["weight_decay"])
    if given["weight_decay"]:
        patterns = [rf"\.{name}\b" for name in CONSTANT]
        sheet.put("train.no_decay_keywords", patterns, "so that the weights that decay are those of mace-torch")
    sheet.put("train.max_grad_norm", given["clip_grad"] or None)
    ema, decay = given["ema"], given["ema_decay"]
    sheet.put("train.ema_decay", decay if ema else None, "" if ema else "mace-torch averages only where ema is set")
    if given.says("ema_decay") and not ema:
        sheet.needless.append(Remark("ema_decay", decay, "ema is not set"))


def schedule(given: Given, sheet: Sheet) -> None:
    """Learning rate, validation and early stopping."""
    kind, every = given["scheduler"], given["eval_interval"]
    patience = given["scheduler_patience"]
    unread = []
    if kind == "ReduceLROnPlateau":
        sheet.put("train.scheduler", "plateau")
        sheet.put("train.lr_factor", given["lr_factor"])
        waits = max(0, math.ceil(patience / every))
        note = "counts validations; mace-torch counts epochs" if every > 1 else ""
        sheet.put("train.plateau_patience", waits, note)
        unread = ["lr_scheduler_gamma"]
    elif kind == "ExponentialLR" and "exponential" in Catalog(SCHEDULES).names():
        sheet.put("train.scheduler", "exponential")
        sheet.put("train.gamma", given["lr_scheduler_gamma"])
        unread = ["lr_factor", "scheduler_patience"]
    else:
        sheet.lost.append(Remark("scheduler", kind, "there is no such schedule"))
    sheet.needless += [Remark(n, given[n], f"scheduler: {kind} does not read it") for n in unread if given.says(n)]
    sheet.put("train.validate_every", every, "" if every == 1 else "mace-torch validates after epoch 1 too")
    _stopping(given, sheet, every)


def _stopping(given: Given, sheet: Sheet, every: int) -> None:
    """Early stopping: a factor of the plateau's patience here, validations of their own there."""
    patience, epochs = given["patience"], given["max_num_epochs"]
    if patience * every >= epochs:
        if given.says("patience"):
            sheet.needless.append(Remark("patience", patience, "never reached before max_num_epochs"))
        return
    unit = sheet.lines["train.plateau_patience"].value if "train.plateau_patience" in sheet.lines else 0
    if not unit:
        unit = 50
        if given["scheduler"] == "ReduceLROnPlateau":
            sheet.lost.append(Remark("patience", patience, "counts in scheduler_patience here, which is 0"))
            return
    note = f"stops {patience * every} epochs after the best validation, as patience: {patience} does"
    sheet.put("train.early_stop_factor", _factor(patience * every, unit), note)


def _factor(window: int, unit: int) -> float:
    """Return a factor of which the product with `unit`, rounded up, is the window."""
    factor = window / unit
    return factor if math.ceil(unit * factor) == window else math.nextafter(factor, 0.0)


def stage_two(given: Given, sheet: Sheet) -> None:
    """The second stage with other weights and a low rate."""
    epochs, kind, start = given["max_num_epochs"], given["loss"], given["start_swa"]
    wanted = given["swa"] or start is not None
    keys = ("swa", "start_swa", "swa_lr", "swa_energy_weight", "swa_forces_weight", "swa_stress_weight",
            "swa_virials_weight")  # fmt: skip
    start = max(1, epochs // 4 * 3) if start is None else start
    begins = wanted and start < epochs
    fits = sheet.knows("train.stage_two") and kind not in ("huber", "virials", "forces_only", *NO_LOSS)
    if not begins or not fits:
        why = "stage two is not asked for" if not wanted else f"stage two would begin at {start}, after the end"
        if begins:
            why = f"a second stage of loss: {kind} has no counterpart" if sheet.knows("train.stage_two") else _NO_STAGE
        given.read.update(keys)
        target = sheet.lost if begins else sheet.needless
        target += [Remark(name, given[name], why) for name in keys if given.says(name)]
        return
    block = {"start": start, "lr": given["swa_lr"], "energy_weight": given["swa_energy_weight"]}
    block["force_weight"] = given["swa_forces_weight"]
    stress, virials = given["swa_stress_weight"], given["swa_virials_weight"]
    if kind == "stress":
        block["stress_weight"] = stress
    elif given.says("swa_stress_weight"):
        sheet.needless.append(Remark("swa_stress_weight", stress, f"loss: {kind} does not read it"))
    if given.says("swa_virials_weight"):
        sheet.needless.append(Remark("swa_virials_weight", virials, f"loss: {kind} does not read it"))
    sheet.put("train.stage_two", block, "its lr is reached at once; mace-torch takes an epoch to get there")


def records(given: Given, sheet: Sheet) -> None:
    """Weights & Biases; the other records need no key."""
    keys = ("wandb_project", "wandb_entity", "wandb_name")
    if not given["wandb"]:
        sheet.needless += [Remark(name, given[name], "wandb is not set") for name in keys if given.says(name)]
        return
    found = find_spec("wandb")
    if found is None or found.origin is None:
        why = "the package wandb is not installed; then write loggers: [csv, jsonl, tensorboard, wandb]"
        sheet.lost += [Remark(name, given[name], why) for name in ("wandb", *keys) if given.says(name)]
        return
    sheet.put("train.loggers", ["csv", "jsonl", "tensorboard", "wandb"])
    block = {"project": given["wandb_project"], "entity": given["wandb_entity"], "name": given["wandb_name"]}
    note = "offline unless you add mode: online; `wandb sync` sends it later"
    sheet.put("train.wandb", {key: value for key, value in block.items() if value}, note)
