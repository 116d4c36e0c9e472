"""AIMNet2mult: the learning rate."""

from __future__ import annotations

from collections.abc import Callable

from forgefield.app.translate.aimnet2mult.batches import per_epoch
from forgefield.app.translate.aimnet2mult.losses import last
from forgefield.app.translate.aimnet2mult.reading import Settings
from forgefield.app.translation import Remark, Sheet

KWARGS = "scheduler.kwargs"
CONSTANTS = {"threshold": 1e-4, "threshold_mode": "rel", "cooldown": 0, "eps": 1e-8, "mode": "min"}
QUIET = ("save_history", "verbose", "param_name")
OVERWRITES = "AIMNet2mult's schedule wrote one rate over all groups; here groups keep their ratios"


def schedule(given: Settings, sheet: Sheet) -> None:
    """The schedule, in the unit it counts in; what has no counterpart is named."""
    if not given.has("scheduler.class"):
        sheet.put("train.scheduler", None, "scheduler: null is AIMNet2mult's default")
        for key in given.below("scheduler"):
            sheet.needless.append(Remark(key, given.get(key), "there is no scheduler"))
        return
    name = given["scheduler.class"]
    kind = last(name)
    write = KINDS.get(kind)
    if kind == "CosineAnnealingScheduler" and "torch." in name:
        write = None
    if write is None:
        why = f"ForgeField has the like of {', '.join(KINDS)}; see `forgefield explain train.scheduler` for its own"
        sheet.lost.append(Remark("scheduler.class", name, why))
        sheet.put("train.scheduler", None)
        sheet.needless += [Remark(k, given.get(k), "see scheduler.class") for k in given.below(KWARGS)]
    else:
        write(given, sheet)
        _leftovers(given, sheet, kind)
    _lowest(given, sheet)


def _number(given: Settings, key: str, otherwise: float | None = None) -> float:
    value = given.get(f"{KWARGS}.{key}", otherwise)
    try:
        return float(value)
    except (TypeError, ValueError):
        raise given.wrong(f"{KWARGS}.{key}", f"got {value!r}, expected a number") from None


def _plateau(given: Settings, sheet: Sheet) -> None:
    sheet.put("train.scheduler", "plateau")
    sheet.put("train.lr_factor", _number(given, "factor", 0.1))
    sheet.put("train.plateau_patience", int(_number(given, "patience", 10)), "counts validations, as ignite's does")
    if _number(given, "min_lr", 0.0):
        sheet.put("train.min_lr", _number(given, "min_lr", 0.0), "the run ends when patience runs out there")
    metric = given.get(f"{KWARGS}.metric_name", "loss")
    if metric not in ("loss", "val_loss"):
        _lose(given, sheet, f"{KWARGS}.metric_name", "plateau goes by the loss of the validation (loss, val_loss)")
    elif given.says(f"{KWARGS}.metric_name"):
        sheet.needless.append(Remark(f"{KWARGS}.metric_name", metric, "plateau always goes by the validation loss"))
    for key, value in CONSTANTS.items():
        if given.says(f"{KWARGS}.{key}") and given.get(f"{KWARGS}.{key}") != value:
            _lose(given, sheet, f"{KWARGS}.{key}", f"it is always {value} here, as torch has it by default")
    _lose(given, sheet, f"{KWARGS}.min_delta", "torch's plateau has no such argument and stops with an error")


def _cosine(given: Settings, sheet: Sheet) -> None:
    """Ignite's: counted in updates, from start_value, whatever the optimizer's rate is."""
    first, end = _number(given, "start_value"), _number(given, "end_value")
    size, updates = _number(given, "cycle_size"), per_epoch(given)
    whole = updates * given["trainer.epochs"] if updates else None
    for key, neutral in (
        ("cycle_mult", 1.0),
        ("start_value_mult", 1.0),
        ("end_value_mult", 1.0),
        ("warmup_duration", 0),
    ):
        if given.says(f"{KWARGS}.{key}") and _number(given, key) != neutral and (whole is None or size < whole):
            _lose(given, sheet, f"{KWARGS}.{key}", "see cosine_restarts, whose cycles begin at the same rate")
    sheet.put("train.lr", first, f"start_value; {OVERWRITES}")
    if size != whole:
        said = "the run has as many as the data give" if whole is None else f"the run has {whole}"
        why = f"cycles of {size:g} updates, where {said}: T_max and T_0 are in epochs here (passes over the data; "
        why += (
            "`forgefield check --dry-run` tells their updates); a cycle_size of the whole run becomes scheduler: cosine"
        )
        _lose(given, sheet, f"{KWARGS}.cycle_size", why, always=True)
    sheet.put("train.scheduler", "cosine")
    sheet.put("train.min_lr", end)
    sheet.put("train.scheduler_step_unit", "update", "set at every update, as ignite does")


def _step(given: Settings, sheet: Sheet) -> None:
    _stepwise(given, sheet, int(_number(given, "step_size")), _number(given, "gamma", 0.1))


def _exponential(given: Settings, sheet: Sheet) -> None:
    _stepwise(given, sheet, 1, _number(given, "gamma"))


def _stepwise(given: Settings, sheet: Sheet, size: int, gamma: float) -> None:
    sheet.put("train.scheduler", "step")
    sheet.put("train.step_size", size)
    sheet.put("train.gamma", gamma)
    if per_epoch(given):
        sheet.put("train.scheduler_step_unit", "cycle", "epochs of AIMNet2mult")


def _torch_cosine(given: Settings, sheet: Sheet) -> None:
    length, epochs = _number(given, "T_max"), given["trainer.epochs"]
    if per_epoch(given) is None:
        sheet.put("train.T_max", length)
    elif length == epochs:
        sheet.put("train.scheduler_step_unit", "cycle", "epochs of AIMNet2mult; the curve spans the run, as T_max says")
    else:
        why = f"{length:g} of {epochs} epochs of {per_epoch(given)} updates: T_max is in passes over the data here"
        _lose(given, sheet, f"{KWARGS}.T_max", why)
    sheet.put("train.scheduler", "cosine")
    sheet.put("train.min_lr", _number(given, "eta_min", 0.0))


def _torch_restarts(given: Settings, sheet: Sheet) -> None:
    if per_epoch(given) is not None:
        why = f"epochs of {per_epoch(given)} updates: T_0 is in passes over the data here; set T_0 by hand"
        _lose(given, sheet, f"{KWARGS}.T_0", why)
    sheet.put("train.scheduler", "cosine_restarts")
    sheet.put("train.T_0", _number(given, "T_0"))
    sheet.put("train.T_mult", int(_number(given, "T_mult", 1)))
    sheet.put("train.min_lr", _number(given, "eta_min", 0.0))


KINDS: dict[str, Callable[[Settings, Sheet], None]] = {
    "ReduceLROnPlateauScheduler": _plateau, "ReduceLROnPlateau": _plateau, "CosineAnnealingScheduler": _cosine,
    "StepLR": _step, "ExponentialLR": _exponential, "CosineAnnealingLR": _torch_cosine,
    "CosineAnnealingWarmRestarts": _torch_restarts,
}  # fmt: skip


def _leftovers(given: Settings, sheet: Sheet, kind: str) -> None:
    told = {remark.key for remark in sheet.lost}
    for key in given.below(KWARGS):
        word = key.removeprefix(f"{KWARGS}.")
        if key in given.read or key in told:
            continue
        if word in QUIET or word in CONSTANTS:
            sheet.needless.append(Remark(key, given.get(key), "the rate of all parameters; nothing to say"))
        else:
            sheet.lost.append(Remark(key, given.get(key), f"{kind} has no such argument in this translation"))


def _lowest(given: Settings, sheet: Sheet) -> None:
    key = "scheduler.terminate_on_low_lr"
    value = given.get(key)
    if value:
        note = "of the first group of parameters, as AIMNet2mult looks at it; looked at after each validation too"
        sheet.put("train.terminate_on_low_lr", value, note)
    elif given.says(key):
        sheet.needless.append(Remark(key, value, "the run does not end for its rate"))


def _lose(given: Settings, sheet: Sheet, key: str, why: str, *, always: bool = False) -> None:
    if given.says(key) or always:
        sheet.lost.append(Remark(key, given.get(key), why))
