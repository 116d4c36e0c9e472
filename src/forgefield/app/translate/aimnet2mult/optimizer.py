"""AIMNet2mult: optimizer, its groups, frozen parameters, clipping."""

from __future__ import annotations

from typing import Any

from forgefield.app.translate.aimnet2mult.losses import last
from forgefield.app.translate.aimnet2mult.parameters import DECAYS, expression_of, found_by
from forgefield.app.translate.aimnet2mult.reading import Settings
from forgefield.app.translation import Remark, Sheet

KINDS = {"Adam": "adam", "AdamW": "adamw", "RAdam": "radam", "NAdam": "nadam", "SGD": "sgd"}
TORCH = {"lr": 1e-3, "weight_decay": 0.0, "betas": [0.9, 0.999], "eps": 1e-8, "momentum_decay": 0.004}
READ = {
    "betas": ("adam", "adamw", "radam", "nadam"), "eps": ("adam", "adamw", "radam", "nadam"),
    "amsgrad": ("adam", "adamw"), "momentum": ("sgd",), "momentum_decay": ("nadam",),
    "decoupled_weight_decay": ("radam", "nadam"), "nesterov": ("sgd",),
}  # fmt: skip
OURS = {"decoupled_weight_decay": "decoupled_decay"}
GROUPS = "optimizer.param_groups"


def optimizer(given: Settings, sheet: Sheet) -> None:
    """Kind, rate, decay; then what is constant in AIMNet2mult: clipping, no average."""
    name = given["optimizer.class"]
    kind = KINDS.get(last(name)) if str(name).startswith("torch.optim.") else None
    if kind is None:
        why = f"ForgeField has {', '.join(f'torch.optim.{k}' for k in KINDS)} (and lbfgs)"
        sheet.lost.append(Remark("optimizer.class", name, why))
    else:
        sheet.put("train.optimizer", kind)
    decay = 1e-2 if kind == "adamw" else 0.0
    lr = given.get("optimizer.kwargs.lr", TORCH["lr"])
    sheet.put("train.lr", lr)
    sheet.put("train.weight_decay", given.get("optimizer.kwargs.weight_decay", decay),
              "of matrices; AIMNet2mult lets biases, readouts and shifts decay too")  # fmt: skip
    if kind in READ["amsgrad"]:
        sheet.put("train.amsgrad", given.get("optimizer.kwargs.amsgrad", False))
    for key in ("betas", "eps", "momentum", "momentum_decay", "decoupled_weight_decay"):
        if kind in READ[key] and (given.has(f"optimizer.kwargs.{key}") or key == "momentum"):
            sheet.put(f"train.{OURS.get(key, key)}", given.get(f"optimizer.kwargs.{key}", 0.0))
    _others(given, sheet, kind)
    clip = "the constant of AIMNet2mult's code; its README says 0.4, by value"
    if given.has("optimizer.grad_clip.max_norm"):
        clip = f"optimizer.grad_clip.max_norm: {given['optimizer.grad_clip.max_norm']:g} was dead upstream; {clip}"
    sheet.put("train.max_grad_norm", given.get("optimizer.grad_clip.max_norm", 1.0), clip)
    sheet.put("train.ema_decay", None, "AIMNet2mult has no average of weights")
    _groups(given, sheet, lr)
    _frozen(given, sheet)


def _others(given: Settings, sheet: Sheet, kind: str | None) -> None:
    for key, kinds in READ.items():
        path = f"optimizer.kwargs.{key}"
        if not given.says(path) or (kind in kinds and key != "nesterov"):
            continue
        if kind in kinds and given[path]:
            sheet.lost.append(Remark(path, given[path], "sgd has plain momentum here"))
        else:
            sheet.needless.append(Remark(path, given[path], f"optimizer.class {kind or ''} has no effect of it"))
    for path in ("optimizer.kwargs", "optimizer.grad_clip", GROUPS):
        if given.says(path):
            sheet.needless.append(Remark(path, given[path], "empty"))


def _groups(given: Settings, sheet: Sheet, lr: float) -> None:
    """Groups with a rate or decay of their own; what they find there is named as it is called here."""
    rules: list[dict[str, Any]] = []
    notes: list[str] = []
    for name in given.names(GROUPS):
        block = f"{GROUPS}.{name}"
        if not given.has(f"{block}.re"):
            raise given.wrong(f"{block}.re", "is not given; a group needs a regular expression")
        try:
            names = found_by(given, f"{block}.re", given[f"{block}.re"])
        except LookupError as error:
            sheet.lost.append(Remark(f"{block}.re", given[f"{block}.re"], f"{error}; write train.param_groups"))
            given.read |= {f"{block}.lr", f"{block}.weight_decay"}
            continue
        rule = _rule(given, sheet, block, names, lr)
        if rule:
            rules.append({"match": expression_of(names, given), **rule})
            notes.append(name)
        else:
            _needless(given, sheet, block, "the rate of the rest, and no decay, as these have here anyway")
    if rules:
        note = f"{', '.join(notes)} of optimizer.param_groups, by the names that parameters have here; `.` is the rest"
        sheet.put("train.param_groups", [*rules, {"match": "."}], note)


def _rule(given: Settings, sheet: Sheet, block: str, names: list[str], lr: float) -> dict[str, Any]:
    """Return what a group has of its own."""
    rate, decay = given.get(f"{block}.lr"), given.get(f"{block}.weight_decay")
    rule: dict[str, Any] = {} if rate is None or rate == lr else {"lr_factor": rate / lr}
    if any(DECAYS.search(name) for name in names):
        rule |= {} if decay is None else {"weight_decay": decay}
    elif decay:
        why = "embeddings, readouts, shifts and biases do not decay here: 0 is no natural value for them"
        sheet.lost.append(Remark(f"{block}.weight_decay", decay, why))
    return rule


def _needless(given: Settings, sheet: Sheet, block: str, why: str) -> None:
    lost = {remark.key for remark in sheet.lost}
    sheet.needless += [Remark(key, given.get(key), why) for key in given.below(block) if key not in lost]


def _frozen(given: Settings, sheet: Sheet) -> None:
    """`force_train` and `force_no_train`, which upstream never applied."""
    for word in ("force_no_train", "force_train"):
        key, found = f"optimizer.{word}", []
        for expression in given.get(key, []):
            try:
                found.append(expression_of(found_by(given, key, str(expression)), given))
            except LookupError as error:
                why = f"{error}; was dead upstream. train.freeze: head_only trains the readouts alone"
                sheet.lost.append(Remark(key, expression, why))
        if found:
            sheet.put(f"train.{word}", found, f"{key} was dead upstream; now it is applied")
        elif given.says(key) and not given[key]:
            sheet.needless.append(Remark(key, [], "empty; lists were dead upstream, here they are applied"))
