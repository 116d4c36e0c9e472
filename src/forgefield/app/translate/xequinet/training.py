"""XequiNet: epochs, optimizer, average, records, and what has no place in training."""

from __future__ import annotations

from typing import Any

from forgefield.app.translate.xequinet.modules import follow, modules_of, names_of
from forgefield.app.translation import Given, Remark, Sheet

OPTIMIZERS = {"adam": 0.0, "adamw": 0.01, "nadam": 0.0, "radam": 0.0}
"""Optimizers and torch's default decay of each."""
KWARGS = {"betas": "betas", "eps": "eps", "weight_decay": "weight_decay", "amsgrad": "amsgrad",
          "momentum_decay": "momentum_decay", "decoupled_weight_decay": "decoupled_decay"}  # fmt: skip
AMSGRAD = ("adam", "adamw")


def training(given: Given, sheet: Sheet) -> None:
    """Epochs, optimizer, average, checkpoints."""
    sheet.put("train.epochs", given["trainer.max_epochs"])
    _optimizer(given, sheet)
    sheet.put("train.max_grad_norm", given["trainer.grad_clip"])
    decay = given["trainer.ema_decay"]
    note = "" if given.says("trainer.ema_decay") else "not given; XequiNet's documentation says 0.995, its code null"
    if decay is None and given.says("trainer.ema_decay"):
        note = "null ends XequiNet with an error at its first validation"
    sheet.put("train.ema_decay", decay, note)
    sheet.put("train.best_k", given["trainer.best_k"])
    sheet.put("train.num_workers", given["trainer.num_workers"])
    if given.says("trainer.log_steps"):
        sheet.put("train.log_every", given["trainer.log_steps"])
    _start(given, sheet)


def _optimizer(given: Given, sheet: Sheet) -> None:
    said = given["trainer.optimizer"]
    name = str(said).lower()
    if name not in OPTIMIZERS:
        raise given.wrong("trainer.optimizer", f"got {said!r}", "give Adam, AdamW, NAdam or RAdam")
    sheet.put("train.optimizer", name)
    options: dict[str, Any] = dict(given["trainer.optimizer_kwargs"] or {})
    if name in AMSGRAD and "amsgrad" not in options:
        sheet.put("train.amsgrad", False)
    decay = options.pop("weight_decay", OPTIMIZERS[name])
    note = "not of vectors, norms, embeddings and readouts; XequiNet decays all" if decay else ""
    sheet.put("train.weight_decay", decay, note)
    for key, value in options.items():
        ours = KWARGS.get(key)
        if ours is None or (ours == "amsgrad" and name not in AMSGRAD):
            sheet.lost.append(Remark(f"trainer.optimizer_kwargs.{key}", value, f"{name} has no such key here"))
        else:
            sheet.put(f"train.{ours}", value)


def _start(given: Given, sheet: Sheet) -> None:
    file, resumes, modules = (given[f"trainer.{key}"] for key in ("ckpt_file", "resume", "finetune_modules"))
    if file is not None:
        why = (
            "weights of XequiNet's checkpoints are not taken over; train anew, or task finetune from a run of your own"
        )
        sheet.lost.append(Remark("trainer.ckpt_file", file, why))
    elif given.says("trainer.ckpt_file"):
        sheet.needless.append(Remark("trainer.ckpt_file", None, "new weights"))
    if resumes:
        why = "a run is continued by `forgefield resume RUN_DIR`, or the same command again"
        sheet.needless.append(Remark("trainer.resume", True, why))
    elif given.says("trainer.resume"):
        sheet.needless.append(Remark("trainer.resume", False, "a new run"))
    if modules:
        _finetune(given, sheet, [str(word) for word in (modules if isinstance(modules, list) else [modules])])
    elif given.says("trainer.finetune_modules"):
        sheet.needless.append(Remark("trainer.finetune_modules", modules, "all is trained"))


def _finetune(given: Given, sheet: Sheet, words: list[str]) -> None:
    """Name what is trained; the rest is frozen."""
    modules = modules_of(given)
    found = follow(words, modules)
    if not found.strange:
        sheet.put("train.finetune_modules", found.patterns, f"XequiNet's {', '.join(words)}; all else is frozen")
        return
    why = f"{', '.join(map(repr, found.strange))}: no word for whole layers that are here too. Modules of this model: "
    why += f"{', '.join(names_of(modules))}; or set train.finetune_modules, regular expressions on our names, by hand"
    sheet.lost.append(Remark("trainer.finetune_modules", words, why))


def remarks(given: Given, sheet: Sheet) -> None:
    """Keys that need nothing, and the section of molecular dynamics."""
    for key, why in {
        "trainer.log_file": "history.csv and breakdown.csv in run_dir",
        "trainer.log_epochs": "every validation is a row of history.csv; train.validate_every says how often",
        "md": "molecular dynamics, which is not a part of training: use the artifacts in ASE",
    }.items():
        if given.says(key):
            sheet.needless.append(Remark(key, given[key], why))
