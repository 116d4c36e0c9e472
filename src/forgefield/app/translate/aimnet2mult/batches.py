"""AIMNet2mult: batches, length of the run, validation."""

from __future__ import annotations

from forgefield.app.translate.aimnet2mult.reading import Settings
from forgefield.app.translation import Remark, Sheet

TRAIN, VAL = "data.samplers.train.kwargs", "data.samplers.val.kwargs"


def batches(given: Settings, sheet: Sheet) -> None:
    """What stands in a batch of training."""
    size, mode = given[f"{TRAIN}.batch_size"], given.get(f"{TRAIN}.batch_mode", "molecules")
    several = len(given.names("data.fidelity_datasets")) > 1
    if mode == "atoms":
        sheet.put("train.batch_size", None)
        sheet.put("train.max_atoms", size, "batch_mode: atoms")
        sheet.put("train.oversize", "alone", "a structure of more atoms is a batch of its own, as in AIMNet2mult")
    elif mode == "molecules":
        sheet.put("train.batch_size", size, "batch_mode: molecules")
    else:
        raise given.wrong(f"{TRAIN}.batch_mode", f"got {mode!r}, expected atoms or molecules")
    mixed = "; false mixes them, which costs nothing here: nothing is padded"
    sheet.put("train.same_size", True, f"a batch of AIMNet2mult has structures of one size{mixed}")
    if several:
        sheet.put("train.same_fidelity", True, f"and of one fidelity (its README says mixed){mixed}")
    if not given.get(f"{TRAIN}.shuffle", True):
        why = "training structures are always shuffled, as train.seed says"
        sheet.lost.append(Remark(f"{TRAIN}.shuffle", False, why))
    strategy = given.get(f"{TRAIN}.sampling_strategy", "weighted")
    if strategy not in ("weighted", "uniform"):
        raise given.wrong(f"{TRAIN}.sampling_strategy", f"got {strategy!r}, expected weighted or uniform")
    _say(given, sheet, f"{TRAIN}.sampling_strategy", "weighted is data.sampling, uniform is to leave that out")
    _workers(given, sheet)


def _workers(given: Settings, sheet: Sheet) -> None:
    key = "data.loaders.train.num_workers"
    if given.says(key):
        note = f"{key} was dead upstream; now threads that prepare batches ahead"
        sheet.put("train.num_workers", given[key], note)
    _say(given, sheet, "data.loaders.val.num_workers",
         "was dead upstream; validation has the threads of train.num_workers")  # fmt: skip
    for part in ("train", "val"):
        _say(
            given, sheet, f"data.loaders.{part}.pin_memory", "was dead upstream; batches are made where they are needed"
        )


def length(given: Settings, sheet: Sheet) -> None:
    """Epochs: of `batches_per_epoch` updates there, passes over the data here."""
    epochs, per_epoch = given["trainer.epochs"], given.get(f"{TRAIN}.batches_per_epoch", -1)
    if per_epoch > 0:
        sheet.put("train.cycle_steps", per_epoch, "batches_per_epoch: an epoch of AIMNet2mult is a cycle here")
        sheet.put("train.max_updates", epochs * per_epoch, f"{epochs} epochs of {per_epoch} updates")
        sheet.put("train.epochs", epochs * per_epoch, "passes over the data; never reached: max_updates ends the run")
        given.read.add(f"{TRAIN}.batches_per_epoch")
    else:
        sheet.put("train.epochs", epochs)
        _say(given, sheet, f"{TRAIN}.batches_per_epoch", "an epoch is one pass over the data")


def per_epoch(given: Settings) -> int | None:
    """Return the updates in an epoch of AIMNet2mult; None where that is a pass over the data."""
    found = given.get(f"{TRAIN}.batches_per_epoch", -1)
    return found if found > 0 else None


def validation(given: Settings, sheet: Sheet) -> None:
    """When and in which batches is validated."""
    wanted = {key: _interval(given, key) for key in ("log_frequency.val", "val_frequency.every") if given.has(key)}
    given.read.add("val_frequency.mode")
    if len(set(wanted.values())) > 1:
        raise given.wrong("log_frequency.val", "and val_frequency say two intervals of validation", "keep one of them")
    if wanted:
        key, interval = next(iter(wanted.items()))
        sheet.put("train.validate_every", interval, f"{key}; the schedule and the choice of the best go by it")
    _say(given, sheet, "log_frequency", "one validation per epoch")
    _say(given, sheet, "val_frequency", "one validation per epoch")
    if not given.has("log_frequency.val"):
        _say(given, sheet, "log_frequency.val", "one validation per epoch")
    _say(given, sheet, "log_frequency.train", "was dead upstream (the one below wandb counts); see train.log_every")
    _validation_batches(given, sheet)


def _interval(given: Settings, key: str) -> int | str:
    every = given[key]
    if every < 1:
        raise given.wrong(key, f"got {every}, expected a whole number from 1 on")
    mode = "iterations" if key == "log_frequency.val" else given.get("val_frequency.mode", "epochs")
    if mode not in ("iterations", "epochs"):
        raise given.wrong("val_frequency.mode", f"got {mode!r}, expected iterations or epochs")
    return f"{every} updates" if mode == "iterations" else every


def _validation_batches(given: Settings, sheet: Sheet) -> None:
    size, mode = given[f"{VAL}.batch_size"], given.get(f"{VAL}.batch_mode", "molecules")
    if mode == "molecules":
        sheet.put("data.batch_size", size, "of validation and evaluation")
        _say(given, sheet, f"{VAL}.batch_mode", "data.batch_size counts structures")
    else:
        for key in ("batch_size", "batch_mode"):
            _say(given, sheet, f"{VAL}.{key}", "data.batch_size: auto finds what fits; errors do not depend on it")
    _say(given, sheet, f"{VAL}.shuffle", "errors do not depend on the order")
    _say(given, sheet, f"{VAL}.sampling_strategy", "every validation structure counts once")
    if given.get(f"{VAL}.batches_per_epoch", -1) > 0:
        why = "all validation structures are always used; keep fewer apart with data.val_fraction or data.val_indices"
        sheet.lost.append(Remark(f"{VAL}.batches_per_epoch", given[f"{VAL}.batches_per_epoch"], why))
    _say(given, sheet, f"{VAL}.batches_per_epoch", "all validation structures are used")


def _say(given: Settings, sheet: Sheet, key: str, why: str) -> None:
    lost = {remark.key for remark in sheet.lost}
    if given.says(key) and key not in lost:
        sheet.needless.append(Remark(key, given.get(key), why))
