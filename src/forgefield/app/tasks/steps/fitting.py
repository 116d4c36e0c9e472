"""Fitting a potential inside a run."""

from __future__ import annotations

import hashlib
import json
from typing import Protocol

import torch

from forgefield.app.run import RunConfig
from forgefield.app.tasks.steps.datasets import fingerprint
from forgefield.app.tasks.steps.run import Run
from forgefield.app.tasks.steps.sameness import described
from forgefield.data.batching import Limits
from forgefield.data.dataset import Dataset
from forgefield.data.loader import Draws, Loader, make_loader
from forgefield.data.parts import TrainingData
from forgefield.models.potential import Potential
from forgefield.train.constant_terms import constant_terms, taken_out
from forgefield.train.loop import FitResult, fit

WORDS = {
    "epochs": "all epochs done",
    "early_stop": "stopped early: the validation loss no longer fell",
    "early_stops": "stopped early: the conditions of train.early_stops are met",
    "min_lr": "stopped: the validation loss no longer fell at train.min_lr",
    "low_lr": "stopped: the learning rate fell below train.terminate_on_low_lr",
    "max_updates": "stopped by train.max_updates; with a larger one `forgefield resume` continues",
    "max_minutes": "stopped by train.max_minutes; `forgefield resume` continues",
    "max_cpu_minutes": "stopped by train.max_cpu_minutes; `forgefield resume` continues",
}


class Ordered(Protocol):
    """What was asked for, and where it is computed: a run, or the rehearsal of one."""

    @property
    def config(self) -> RunConfig:
        """The settings."""
        ...

    @property
    def device(self) -> torch.device:
        """Where to compute."""
        ...


def fit_model(run: Run, potential: Potential, data: TrainingData, *, resume: bool = False) -> FitResult:
    """Fit the potential; it ends with the weights of the best validation."""
    once = run.config.train.constant_physics == "once"
    with run.record.stage("training"), taken_out(potential, constant_terms(potential) if once else ()) as constant:
        train, val = (
            training_loader(run, potential, data.fitted, data.mixture),
            checking_loader(run, potential, data.checked),
        )
        result = fit(
            potential,
            train,
            val,
            run.config.train,
            folder=run.folder.root,
            device=run.device,
            resume=resume,
            accept=run.config.accept,
            config_fingerprint=model_fingerprint(potential),
            data_fingerprint=fingerprint(data),
            described=described(run.config),
            console=run.console,
            constant=constant,
        )
    run.record.note(
        fit={
            "best_epoch": result.best_epoch,
            "best_metric": result.best_metric,
            "best_by": run.config.train.best_metric,
            "ranked": list(result.ranked),
            "trained": list(result.trained),
            "epochs_done": result.epochs_done,
            "seconds": result.seconds,
            "reason": WORDS.get(result.reason, result.reason),
            "compilation": list(result.compilation),
            "loss": list(result.loss),
        }
    )
    return result


def training_loader(run: Ordered, potential: Potential, dataset: Dataset, mixture: Draws | None = None) -> Loader:
    """Return the batches that are trained on; a mixture draws them from several sources."""
    train = run.config.train
    return make_loader(
        dataset,
        potential.needs,
        limits=train.limits,
        heads=potential.heads,
        dtype=potential.dtype,
        device=run.device,
        shuffle=True,
        seed=train.seed,
        drop_last=train.drop_last,
        num_workers=train.num_workers,
        mixture=mixture,
    )


def checking_loader(run: Ordered, potential: Potential, dataset: Dataset) -> Loader:
    """Return the batches of a set to evaluate, in its order; what limits atoms or edges in training limits them too."""
    train, size = run.config.train, run.config.data.unmeasured_batch
    budget = run.config.data.batch_size == "auto" and (train.max_atoms or train.max_edges)
    return make_loader(
        dataset,
        potential.needs,
        limits=Limits(size, train.max_atoms, train.max_edges, oversize="alone") if budget else Limits(size),
        heads=potential.heads,
        dtype=potential.dtype,
        device=run.device,
    )


def model_fingerprint(potential: Potential) -> str:
    """Return the SHA-256 of what a model is apart from its weights (hex)."""
    what = {
        "backend": potential.backend,
        "settings": potential.settings.model_dump(mode="json"),
        "elements": potential.elements,
        "heads": potential.heads,
        "dtype": str(potential.dtype),
        "self_energies": potential.self_energies.tolist(),
        "scale": potential.scale.tolist(),
        "shift": potential.shift.tolist(),
    }
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()
