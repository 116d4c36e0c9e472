"""XequiNet: the rate, its warm-up, and when training ends."""

from __future__ import annotations

from typing import Any

from forgefield.app.translate.xequinet.data import parts_of
from forgefield.app.translate.xequinet.losses import TARGETS, scale_of
from forgefield.app.translation import Given, Remark, Sheet

NAMES = {
    "cosine_annealing": "cosine", "cosine": "cosine", "cosine_annealing_warm_restarts": "cosine_restarts",
    "cosine_restarts": "cosine_restarts", "reduce_on_plateau": "plateau", "plateau": "plateau",
    "exponential": "exponential", "step": "step", "linear_decay": "linear",
}  # fmt: skip
WARMUPS = ("linear", "exponential", "untuned_linear", "untuned_exponential", "radam")
OPTIONS = {
    "cosine": ("T_max",), "cosine_restarts": ("T_0", "T_mult"), "plateau": ("factor", "patience"),
    "exponential": ("gamma",), "step": ("step_size", "gamma"), "linear": ("T_max",),
}  # fmt: skip
KWARGS = "trainer.lr_scheduler_kwargs"


def schedule(given: Given, sheet: Sheet) -> None:
    """Rate and schedule; T_max and T_0 are in epochs on both sides."""
    sheet.put("train.lr", given["trainer.max_lr"])
    said = given["trainer.lr_scheduler"]
    name = None if said is None or str(said).lower() in ("none", "null") else NAMES.get(str(said).lower(), "")
    if name == "":
        raise given.wrong("trainer.lr_scheduler", f"got {said!r}", f"give one of {', '.join(NAMES)}")
    options: dict[str, Any] = dict(given[KWARGS] or {})
    note = "both names of it end XequiNet with an error; here it works" if name == "plateau" else ""
    sheet.put("train.scheduler", name, note)
    if name is not None:
        _options(given, sheet, name, options)
        sheet.put("train.min_lr", given["trainer.min_lr"])
        if name not in ("plateau", "step"):
            sheet.put("train.scheduler_step_unit", "update", "the rate is set at every update, as in XequiNet")
    elif given.says("trainer.min_lr"):
        sheet.needless.append(Remark("trainer.min_lr", given["trainer.min_lr"], "nothing lowers the rate"))
    for key, value in options.items():
        if name is None or key not in OPTIONS[name]:
            sheet.lost.append(Remark(f"{KWARGS}.{key}", value, f"{name} has no such key here"))
    _warmup(given, sheet)


def _options(given: Given, sheet: Sheet, name: str, options: dict[str, Any]) -> None:
    epochs = given["trainer.max_epochs"]
    if name in ("cosine", "linear"):
        length = options.get("T_max", epochs)
        sheet.put("train.T_max", None if length == epochs else length)
    elif name == "cosine_restarts":
        sheet.put("train.T_0", options.get("T_0", epochs))
        sheet.put("train.T_mult", options.get("T_mult", 1))
    elif name == "plateau":
        sheet.put("train.lr_factor", options.get("factor", 0.1))
        sheet.put("train.plateau_patience", options.get("patience", 10))
    elif name == "step":
        sheet.put("train.step_size", options.get("step_size", max(1, epochs // 5)), "epochs")
        sheet.put("train.gamma", options.get("gamma", 0.1))
    else:
        if "gamma" not in options:
            raise given.wrong(KWARGS, "exponential needs gamma", "give {gamma: 0.999}")
        sheet.put("train.gamma", options["gamma"], "at every update")


def _warmup(given: Given, sheet: Sheet) -> None:
    said, epochs = given["trainer.warmup_scheduler"], given["trainer.warmup_epochs"]
    name = None if said is None or str(said).lower() in ("none", "null") else str(said).lower()
    if name is not None and name not in WARMUPS:
        raise given.wrong("trainer.warmup_scheduler", f"got {said!r}", f"give one of {', '.join(WARMUPS)}, or null")
    if name in ("linear", "exponential"):
        per_epoch = updates_per_epoch(given)
        if per_epoch is None:
            why = "its split.json is not there, so that the updates of an epoch are not known; set train.warmup and "
            why += f"train.warmup_steps ({epochs:g} epochs) by hand, or translate where the data are"
            sheet.lost.append(Remark("trainer.warmup_scheduler", said, why))
            return
        steps = max(1, round(epochs * per_epoch / (2 if name == "exponential" else 1)))
        half = ", half of them: 1 - exp(-2t/T)" if name == "exponential" else ""
        sheet.put("train.warmup", name)
        sheet.put("train.warmup_steps", steps, f"{epochs:g} epochs of {per_epoch} updates{half}")
        return
    if name is not None:
        sheet.put("train.warmup", name)
    if given.says("trainer.warmup_epochs"):
        sheet.needless.append(Remark("trainer.warmup_epochs", epochs, "of linear and exponential warm-ups only"))


def updates_per_epoch(given: Given) -> int | None:
    """Return the whole batches of an epoch; None where the split is not there."""
    parts = parts_of(given)
    if parts is None or not parts.get("train"):
        return None
    count = min(len(parts["train"]), given["data.max_num_samples"])
    return max(1, count // given["data.batch_size"])


def stopping(given: Given, sheet: Sheet) -> None:
    """Conditions under which the run ends."""
    stops, mode = given["trainer.early_stoppings"], given["trainer.early_stopping_mode"]
    if mode not in ("and", "or"):
        raise given.wrong("trainer.early_stopping_mode", f"got {mode!r}", "give and, or or")
    if not stops:
        for key in ("trainer.early_stoppings", "trainer.early_stopping_mode"):
            if given.says(key):
                sheet.needless.append(Remark(key, given[key], "no early stop"))
        return
    found = []
    for name, block in stops.items():
        one = _stop(given, sheet, str(name), dict(block or {}))
        found += [one] if one is not None else []
    if found:
        sheet.put("train.early_stops", found)
        sheet.put("train.early_stop_mode", "all" if mode == "and" else "any")


def _stop(given: Given, sheet: Sheet, name: str, block: dict[str, Any]) -> dict[str, Any] | None:
    key, kind = f"trainer.early_stoppings.{name}", block.pop("metric", "mae")
    known = {"energy": "energy_{}", "energy/atom": "energy_{}_per_atom", "forces": "forces_{}", "stress": "stress_{}"}
    known |= {theirs: f"{ours}_{{}}" for theirs, ours in TARGETS.items()}
    if name not in known or kind not in ("mae", "rmse"):
        sheet.lost.append(Remark(key, kind, f"errors are mae and rmse of {', '.join(known)}"))
        return None
    scale, found = scale_of(given, name), {"metric": known[name].format(kind)}
    patience, threshold, bound = (block.pop(k, None) for k in ("patience", "threshold", "lower_bound"))
    for word, value in block.items():
        sheet.lost.append(Remark(f"{key}.{word}", value, "known: metric, patience, threshold, lower_bound"))
    if patience is None and not bound:
        sheet.needless.append(Remark(key, kind, "without patience and bound it is met at an error of 0 only"))
        return None
    more: dict[str, Any] = {"patience": patience} if patience is not None else {}
    more |= {"threshold": threshold / scale} if threshold and patience is not None else {}
    return found | more | ({"lower_bound": bound / scale} if bound else {})
