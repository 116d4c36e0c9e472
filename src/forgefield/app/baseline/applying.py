"""Giving the data sets of a task their base labels, and making differences of their labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from forgefield.app.baseline.cache import FILE, Cache
from forgefield.app.baseline.computing import Counts, complete, refuse, verify
from forgefield.app.baseline.labels import BaseLabels
from forgefield.app.run import RunConfig
from forgefield.app.tasks.steps.datasets import test_sets
from forgefield.app.tasks.steps.outcome import say
from forgefield.app.tasks.steps.run import Run
from forgefield.core.errors import DataError
from forgefield.data.dataset import Dataset
from forgefield.data.differences import Differences
from forgefield.data.isolated import separate_isolated
from forgefield.data.parts import TrainingData
from forgefield.models.baseline.settings import BaselineSettings
from forgefield.models.baseline.xtb import version
from forgefield.models.potential import Potential

Tell = Callable[[str], None]


def labels_of(settings: BaselineSettings, folder: Path | None = None) -> BaseLabels:
    """Return what gives base labels; computed ones are kept in a folder, or without one in memory."""
    kept = Cache(folder / FILE) if folder is not None and settings.computed else Cache(None)
    return BaseLabels(settings, kept)


def differences(dataset: Dataset, labels: BaseLabels) -> Dataset:
    """Return a data set whose labels are label minus base."""
    return Dataset([Differences(dataset, labels, labels.settings.learned)])


def to_learn(run: Run, data: TrainingData, settings: BaselineSettings | None) -> TrainingData:
    """Return the training data as the model learns them: label minus base, where it corrects a baseline.

    All base labels are computed first, those of the test data too, so that nothing fails after training.

    Raises:
        ForgeError: base labels are missing, wrong, or cannot be computed.
    """
    if settings is None:
        return data
    labels = labels_of(settings, run.folder.root)
    tests = [separate_isolated(test)[0] for test in test_sets(run.config, data).values()]
    replay = [] if data.replay is None else [data.replay.train, data.replay.val]
    sets = [data.measured, *([] if data.val is None else [data.val]), *replay, *tests]
    with run.record.stage("baseline"):
        if settings.computed:
            labels.cache.note("tblite", version())
        checked = verify(labels, sets)
        counts, lacking = complete(labels, sets, run.console)
    described = {**settings.model_dump(mode="json"), "name": settings.name}
    run.record.note(baseline={**described, "labels": counts.to_json(), "compared": checked})
    tell(run.say, settings, counts, checked)
    if counts.failures:
        if run.config.data.on_error != "skip":
            raise refuse(counts.failures)
        data = _without(data, len(replay) > 0, lacking)
    return _as_differences(data, labels)


def tell(say: Tell, settings: BaselineSettings, counts: Counts, compared: int) -> None:
    """Say where base labels come from."""
    parts = [
        f"{counts.stated} from the data" if counts.stated else "",
        f"{counts.computed} computed by tblite {version()}" if counts.computed else "",
        f"{counts.kept} computed before" if counts.kept else "",
    ]
    checked = f"; {compared} of the data's were computed again and agree" if compared else ""
    say(f"baseline: the model corrects {settings.name}; base labels: {', '.join(p for p in parts if p)}{checked}")
    for failure in counts.failures:
        say(f"note: left out (on_error: skip): {failure.where}: {failure.what}")


def judged(run: Run, potential: Potential, dataset: Dataset) -> Dataset:
    """Return a set to evaluate after training as differences, where the model corrects a baseline."""
    if potential.baseline is None:
        return dataset
    skip = run.config.data.on_error == "skip"
    return _solved(dataset, labels_of(potential.baseline, run.folder.root), run.console, skip=skip)


def asked(config: RunConfig, potential: Potential, dataset: Dataset, console: Console) -> Dataset:
    """Return the data of evaluate and infer with base labels, where the model corrects a baseline.

    Raises:
        ForgeError: base labels are missing, wrong, or cannot be computed.
    """
    if config.eval.correction_alone:
        return dataset
    return with_base(potential, dataset, console, skip=config.data.on_error == "skip")


def with_base(potential: Potential, dataset: Dataset, console: Console, *, skip: bool = False) -> Dataset:
    """Return a data set as differences, where the model corrects a baseline; skip leaves out what cannot be computed.

    Raises:
        ForgeError: base labels are missing, wrong, or cannot be computed.
    """
    if potential.baseline is None:
        return dataset
    labels = labels_of(potential.baseline)
    verify(labels, [dataset])
    return _solved(dataset, labels, console, skip=skip)


def _solved(dataset: Dataset, labels: BaseLabels, console: Console, *, skip: bool) -> Dataset:
    counts, (lacking,) = complete(labels, [dataset], console)
    if counts.failures and not (skip and len(lacking) < len(dataset)):
        raise refuse(counts.failures)
    for failure in counts.failures:
        say(console, f"note: left out (on_error: skip): {failure.where}: {failure.what}")
    return differences(dataset.subset(np.setdiff1d(np.arange(len(dataset)), lacking)), labels)


def _without(data: TrainingData, replayed: bool, lacking: Sequence[np.ndarray]) -> TrainingData:
    """Leave out what has no base labels.

    Raises:
        DataError: how structures are drawn was settled with them.
    """
    if data.draws is not None or replayed:
        fix = "take these structures out of the files"
        raise DataError("on_error: skip cannot leave structures out of weighted draws or replay", "data.on_error", fix)
    measured = _left(data.measured, lacking[0])
    val = None if data.val is None else _left(data.val, lacking[1])
    return data._replace(measured=measured, train=separate_isolated(measured)[0], val=val)


def _left(dataset: Dataset, lacking: np.ndarray) -> Dataset:
    return dataset.subset(np.setdiff1d(np.arange(len(dataset)), lacking))


def _as_differences(data: TrainingData, labels: BaseLabels) -> TrainingData:
    """Wrap all that is trained on and validated; the test part stays as it is labelled until it is judged."""
    replay = data.replay
    if replay is not None:
        replay = replay._replace(train=differences(replay.train, labels), val=differences(replay.val, labels))
    return data._replace(
        measured=differences(data.measured, labels),
        train=differences(data.train, labels),
        val=None if data.val is None else differences(data.val, labels),
        replay=replay,
    )
