"""The rehearsal of one run: everything a training task does, in small, with nothing left behind."""

from __future__ import annotations

import importlib
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from forgefield.app.folder import RunFolder, read_json
from forgefield.app.forecast.checking import rehearse_checking, rehearse_export, rehearse_judging, rehearse_saving
from forgefield.app.forecast.choice import Plan, make_plan
from forgefield.app.forecast.gauge import Gauge, crowded
from forgefield.app.forecast.memory import Observed, Sets
from forgefield.app.forecast.outlook import Forecast, look_ahead
from forgefield.app.forecast.trial import Rehearsal
from forgefield.app.run import RunConfig
from forgefield.app.tasks.steps.concluding import sample_of
from forgefield.app.tasks.steps.datasets import checked_training_data, test_sets
from forgefield.app.tasks.steps.fitting import checking_loader, training_loader
from forgefield.app.tasks.steps.machine import choose_device
from forgefield.app.tasks.steps.models import assemble, to_measure
from forgefield.app.tasks.steps.run import dtype_of
from forgefield.app.tasks.steps.starting import begin
from forgefield.core.errors import ConfigError, DeviceError
from forgefield.data.isolated import separate_isolated
from forgefield.data.loader import Loader
from forgefield.data.parts import TrainingData
from forgefield.data.sizes import Sizes, measure_sizes
from forgefield.models.bundle import load_bundle
from forgefield.models.potential import Potential
from forgefield.train.checkpoint import STATE
from forgefield.train.loop import prepare
from forgefield.train.loss import build_loss
from forgefield.train.plan import updates_per_epoch

# What a training task loads on its way; it takes memory.
_LOADED = ("torch.utils.tensorboard", "forgefield.app.reports.page", "forgefield.export.artifact")

_WITHOUT_GRADIENTS = 0.2  # of the memory of training, at least


@dataclass(frozen=True)
class Asked:
    """A run that is not carried out, and where it would be."""

    config: RunConfig

    @cached_property
    def device(self) -> torch.device:
        """Where it would compute."""
        return choose_device(self.config.device, Console(quiet=True))


def forecast(config: RunConfig) -> Forecast:
    """Carry out at most 20 steps of a training run, and say what all of it will take.

    Nothing is written but a nameless file of zeros, to learn how fast the disk is.

    Args:
        config: a run whose task is train, finetune or resume.

    Raises:
        ForgeError: the run could not be carried out either, or its first steps fail.
    """
    begun = time.perf_counter()
    run = Asked(config)
    for name in _LOADED:
        importlib.import_module(name)
    data = checked_training_data(config)
    potential, done = _model(run, data)
    loader = training_loader(run, potential, data.fitted, data.mixture)
    sizes = measure_sizes(loader)
    judged = _judged(run, potential, data)
    seconds = time.perf_counter() - begun
    gauge = Gauge(run.device)
    per_epoch = updates_per_epoch(len(loader), config.train)
    state, losses = prepare(potential, config.train, run.device, per_epoch), build_loss(config.train, potential)
    plan = make_plan(loader, sizes, config.train, max(1, config.train.epochs - done))
    rehearsal = Rehearsal(state, loader, sizes, losses, config.train.max_grad_norm, gauge)
    shared = _carry_out(rehearsal, plan)
    (checker, val_sizes), *others = judged
    for one, its_sizes in judged:
        _check_room(rehearsal, one, its_sizes)
    checking = rehearse_checking(run, state, checker, val_sizes, losses, gauge)
    for one, its_sizes in others:
        rehearse_judging(run, state, one, its_sizes)
    saving = rehearse_saving(state, _place(config))
    peak = gauge.peak()
    rehearsal.carry_out(plan.probes)
    export = rehearse_export(state, sample_of(checker.dataset)) if config.export.standard_artifacts else 0.0
    tested = Sizes(*map(np.concatenate, zip(*(found for _, found in others), strict=True))) if others else None
    sets = Sets(sizes, val_sizes, tested)
    seen = Observed(seconds, done, peak, checking, saving, export, shared)
    return look_ahead(config, state, plan, rehearsal, sets, seen)


def _carry_out(rehearsal: Rehearsal, plan: Plan) -> bool:
    """Carry out the updates of a plan but for its probes; return whether other programs used the cores meanwhile."""
    gauge = rehearsal.gauge
    for kind in ("first", "largest"):
        rehearsal.carry_out([trial for trial in plan.trials if trial.kind == kind])
    start = gauge.now()
    rehearsal.carry_out([trial for trial in plan.trials if trial.kind == "typical"])
    return not gauge.cuda and crowded(start, gauge.now())


def _judged(run: Asked, potential: Potential, data: TrainingData) -> list[tuple[Loader, Sizes]]:
    """Return the sets that are evaluated, with their sizes: validation, and test if there is one."""
    tests = [separate_isolated(test)[0] for test in test_sets(run.config, data).values()]
    sets = [data.checked, *(test for test in tests if len(test))]
    loaders = [checking_loader(run, potential, dataset) for dataset in sets]
    return [(loader, measure_sizes(loader)) for loader in loaders]


def _check_room(rehearsal: Rehearsal, loader: Loader, sizes: Sizes) -> None:
    """Refuse a batch to evaluate that could not fit: without gradients it needs some tenths of what training needs.

    Raises:
        DeviceError: it cannot; a smaller one is named.
    """
    largest = max((sizes.of(places) for places in loader.places()), key=lambda size: size.slots)
    limit, needed = rehearsal.gauge.limit(), rehearsal.memory_of(largest) - rehearsal.before
    if limit is not None and _WITHOUT_GRADIENTS * needed > limit:
        fitting = max(1, int(largest.structures * limit / needed))
        what = f"evaluating {largest.structures} structures at once would need more memory than there is"
        raise DeviceError(what, "data.batch_size", f"set it to {fitting} or less")


def _model(run: Asked, data: TrainingData) -> tuple[Potential, int]:
    """Return the model that the task would begin with, and the epochs that it has behind it."""
    config = run.config
    if config.task == "resume":
        return _interrupted(run)
    if config.task == "train":
        asked = to_measure(config, data)
        return assemble(config, asked, asked.of(data), dtype_of(config)), 0
    return begin(run, data).potential, 0


def _interrupted(run: Asked) -> tuple[Potential, int]:
    if run.config.run_dir is None:
        raise ConfigError("run_dir is not given", "run_dir", "name the folder of the run to continue")
    folder = RunFolder.open(run.config.run_dir)
    last = folder.last if folder.last.is_dir() else folder.best
    return load_bundle(last, device=run.device), int(read_json(last / STATE)["progress"]["epoch"])


def _place(config: RunConfig) -> Path | None:
    """Return the nearest folder of the run that is there already."""
    if config.run_dir is None:
        return None
    return next((place for place in (config.run_dir, *config.run_dir.parents) if place.is_dir()), None)
