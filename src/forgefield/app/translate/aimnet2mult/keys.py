"""The keys of AIMNet2mult's train.yaml and model.yaml, and what each holds; `*` stands for a name or number."""

from __future__ import annotations

from collections.abc import Iterable

from forgefield.app.translation import Key, Kind


def _keys(kind: Kind, *names: str) -> dict[str, Key]:
    return {name: Key(kind) for name in names}


_SAMPLERS = tuple(f"data.samplers.{part}.kwargs" for part in ("train", "val"))
KEYS: dict[str, Key] = {
    **_keys("text", "run_name", "project_name"),
    **_keys("whole", "fidelity_offset", "trainer.epochs"),
    **_keys("truth", "use_fidelity_readouts"),
    **_keys("text", "data.fidelity_datasets.*", "data.val_fidelity_datasets.*"),
    **_keys("number or none", "data.fidelity_weights.*"),
    **_keys("text", "data.sae.energy.files.*", "data.sae.energy.file", "data.sae.energy.mode"),
    **_keys("number", "data.val_fraction"),
    **_keys("truth", "data.separate_val", "data.ddp_load_full_dataset"),
    **_keys("list", "data.x", "data.y"),
    **_keys("whole", *(f"{sampler}.{name}" for sampler in _SAMPLERS for name in ("batch_size", "batches_per_epoch"))),
    **_keys("text", *(f"{sampler}.{name}" for sampler in _SAMPLERS for name in ("batch_mode", "sampling_strategy"))),
    **_keys("truth", *(f"{sampler}.shuffle" for sampler in _SAMPLERS)),
    **_keys("whole", "data.loaders.train.num_workers", "data.loaders.val.num_workers"),
    **_keys("truth", "data.loaders.train.pin_memory", "data.loaders.val.pin_memory"),
    **_keys("text", "loss.class", "loss.kwargs.components.*.fn"),
    **_keys("number", "loss.kwargs.eta", "loss.kwargs.components.*.weight", "loss.kwargs.components.*.scale"),
    **_keys("text", "loss.kwargs.components.*.kwargs.key_true", "loss.kwargs.components.*.kwargs.key_pred"),
    **_keys("number", "loss.kwargs.components.*.kwargs.missing_label_regularization"),
    **_keys("text", "optimizer.class"),
    **_keys("number", *(f"optimizer.kwargs.{name}" for name in ("lr", "weight_decay", "eps", "momentum",
                                                               "momentum_decay"))),
    **_keys("list", "optimizer.kwargs.betas", "optimizer.force_train", "optimizer.force_no_train"),
    **_keys("truth", *(f"optimizer.kwargs.{name}" for name in ("amsgrad", "decoupled_weight_decay", "nesterov"))),
    **_keys("text", "optimizer.param_groups.*.re"),
    **_keys("number", "optimizer.param_groups.*.lr", "optimizer.param_groups.*.weight_decay"),
    **_keys("number or none", "optimizer.grad_clip.max_norm"),
    **_keys("text", "scheduler.class"),
    **_keys("list", "scheduler.kwargs.*"),  # any; each class has its own
    **_keys("number or none", "scheduler.terminate_on_low_lr"),
    **_keys("text", "checkpoint.dirname", "checkpoint.filename_prefix"),
    **_keys("truth", "checkpoint.save_best", "checkpoint.kwargs.require_empty"),
    **_keys("whole", "checkpoint.kwargs.n_saved", "log_frequency.val", "log_frequency.train", "val_frequency.every"),
    **_keys("text", "val_frequency.mode"),
    **_keys("text", *(f"wandb.init.{name}" for name in ("name", "mode", "entity", "project", "notes"))),
    **_keys("list", "wandb.watch_model.*"),
    **_keys("whole", "wandb.log_frequency.train", "wandb.log_frequency.val"),
    **_keys("text", "metrics.class", "metrics.kwargs.cfg.*.abbr"),
    **_keys("number", "metrics.kwargs.cfg.*.scale", "metrics.kwargs.cfg.*.mult"),
    **_keys("truth", "metrics.kwargs.cfg.*.peratom"),
    **_keys("text", "model.class", "model.kwargs.outputs.*.class"),
    **_keys("whole", *(f"model.kwargs.{name}" for name in ("nfeature", "ncomb_v", "aim_size", "num_charge_channels",
                                                          "max_z"))),
    **_keys("truth", "model.kwargs.d2features"),
    **_keys("list", "model.kwargs.hidden", "model.kwargs.aev.shifts_s", "model.kwargs.aev.shifts_v"),
    **_keys("number or none", *(f"model.kwargs.aev.{name}" for name in ("rc_s", "rc_v", "rmin", "eta_s", "eta_v"))),
    **_keys("whole", "model.kwargs.aev.nshifts_s", "model.kwargs.aev.nshifts_v"),
    **_keys("list", "model.kwargs.outputs.*.kwargs.*", "model.kwargs.outputs.*.kwargs.mlp.*"),  # any
}  # fmt: skip
"""Every key; those of kind `list` without a `*` hold lists, the others anything."""

BLOCKS = (
    "data.fidelity_datasets", "data.val_fidelity_datasets", "data.fidelity_weights", "data.sae", "data.sae.energy",
    "data.sae.energy.files", "scheduler", "scheduler.kwargs", "optimizer.param_groups", "optimizer.kwargs",
    "optimizer.grad_clip", "checkpoint", "checkpoint.kwargs", "log_frequency", "val_frequency", "wandb", "wandb.init",
    "wandb.watch_model", "wandb.log_frequency", "metrics", "metrics.kwargs", "metrics.kwargs.cfg",
    "metrics.kwargs.cfg.*", "loss.kwargs.components.*", "loss.kwargs.components.*.kwargs",
    "model.kwargs.outputs.*.kwargs",
)  # fmt: skip
"""Blocks that may be null or empty."""


def pattern_of(name: str, patterns: Iterable[str]) -> str | None:
    """Return the pattern that a dotted key matches, or None."""
    parts = name.split(".")
    for pattern in patterns:
        words = pattern.split(".")
        if len(words) == len(parts) and all(w in ("*", p) for w, p in zip(words, parts, strict=True)):
            return pattern
    return None
