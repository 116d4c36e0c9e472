"""alignn: epochs, batches, optimizer, schedule, stopping."""

from __future__ import annotations

from forgefield.app.translation import Given, Remark, Sheet

DEAD = "without effect in alignn"


def training(given: Given, sheet: Sheet) -> None:
    """Epochs, batches, optimizer, schedule, stopping."""
    sheet.put("train.epochs", given["epochs"])
    sheet.put("train.batch_size", given["batch_size"])
    sheet.put("train.drop_last", True, "as in alignn")
    sheet.put("train.num_workers", given["num_workers"])
    sheet.put("train.lr", given["learning_rate"])
    sheet.put("train.ema_decay", None, "alignn has no average of the weights")
    sheet.put("train.max_grad_norm", None, "alignn does not clip")
    _optimizer(given, sheet)
    _schedule(given, sheet)
    _stopping(given, sheet)
    if given["use_amp"]:
        sheet.put("train.amp", "bfloat16")
    elif given.says("use_amp"):
        sheet.needless.append(Remark("use_amp", False, "no mixed precision"))
    if given["standard_scalar_and_pca"]:
        why = (
            "alignn scales predictions by it and not the labels; targets are always standardised inside the model here"
        )
        sheet.needless.append(Remark("standard_scalar_and_pca", True, why))
    elif given.says("standard_scalar_and_pca"):
        sheet.needless.append(Remark("standard_scalar_and_pca", False, "targets are standardised inside the model"))
    if given.says("published"):
        sheet.needless.append(Remark("published", given["published"], "keys without effect in alignn have none here"))


def _optimizer(given: Given, sheet: Sheet) -> None:
    name = given["optimizer"]
    if name not in ("adamw", "sgd"):
        sheet.lost.append(Remark("optimizer", name, "alignn has adamw and sgd"))
        name = "adamw"
    sheet.put("train.optimizer", name)
    if name == "adamw":
        sheet.put("train.amsgrad", False)
    else:
        sheet.put("train.momentum", 0.9)
    note = "not of vectors, norms, embeddings and readouts; alignn leaves out bias, bn and norm only"
    sheet.put("train.weight_decay", given["weight_decay"], note if given["weight_decay"] else "")


def _schedule(given: Given, sheet: Sheet) -> None:
    name, published = given["scheduler"], given["published"]
    if name not in ("onecycle", "none", "step", None):
        raise given.wrong("scheduler", f"got {name!r}", "give onecycle, step or none")
    if name in ("none", None) or published:
        note = f"{name}: without effect in alignn before 2026" if name == "onecycle" else ""
        sheet.put("train.scheduler", None, note)
    elif name == "onecycle":
        note = "before 2026 alignn drove an optimizer with it that was thrown away; published=true: null, as there"
        sheet.put("train.scheduler", "one_cycle", note)
        if given["lr_total_epochs"] is not None:
            sheet.put("train.T_max", given["lr_total_epochs"])
        sheet.put("train.scheduler_step_unit", "update")
    else:
        sheet.put("train.scheduler", "step", f"{DEAD}; published=true: null, as there")
    if given.says("lr_total_epochs") and "train.T_max" not in sheet.lines:
        sheet.needless.append(Remark("lr_total_epochs", given["lr_total_epochs"], "of onecycle only; null is the run"))
    if given.says("warmup_steps"):
        why = f"{DEAD}; one_cycle rises over train.pct_start (0.3) of the run; train.warmup is for others"
        sheet.needless.append(Remark("warmup_steps", given["warmup_steps"], why))


def _stopping(given: Given, sheet: Sheet) -> None:
    patience, key = given["n_early_stopping"], "n_early_stopping"
    if patience is None or given["published"]:
        if given.says(key):
            sheet.needless.append(Remark(key, patience, "no early stop" if patience is None else DEAD))
        return
    block = [{"metric": "loss", "patience": patience}]
    sheet.put("train.early_stops", block, f"{DEAD}; published=true leaves it out")
