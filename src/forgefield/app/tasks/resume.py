"""Continue a run that stopped, as if it had not."""

from __future__ import annotations

from rich.console import Console

from forgefield.app.baseline.applying import to_learn
from forgefield.app.run import RunConfig, load_run, save_resolved
from forgefield.app.tasks.steps.concluding import conclude
from forgefield.app.tasks.steps.datasets import fingerprint, load_training_data, note_training_data
from forgefield.app.tasks.steps.fitting import fit_model
from forgefield.app.tasks.steps.models import note_model
from forgefield.app.tasks.steps.outcome import TaskResult
from forgefield.app.tasks.steps.prolonging import hint
from forgefield.app.tasks.steps.run import Run, continued_run
from forgefield.app.tasks.steps.sameness import check_same
from forgefield.core.errors import ConfigError, DataError, ModelError
from forgefield.data.checks import check_elements
from forgefield.data.parts import TrainingData
from forgefield.models.bundle import MANIFEST, load_bundle
from forgefield.models.potential import Potential
from forgefield.train.checkpoint import recover
from forgefield.train.continuation import CONTENTS, accepts
from forgefield.train.joining import team


def run_task(config: RunConfig, console: Console) -> TaskResult:
    """Continue from the last checkpoint of `run_dir`, and conclude as a training run does.

    Raises:
        ForgeError: there is nothing to continue, or settings or data are not those of the run.
    """
    with continued_run(config, console) as run:
        if team().leads:
            recover(run.folder.root)
        team().barrier()
        original = check_same_settings(run)
        data = load_training_data(run)
        check_same_data(run, data)
        potential = load_last(run)
        data = to_learn(run, data, potential.baseline)
        with run.record.closing():
            save_resolved(as_continued(run.config, original), run.folder.root)
            note_model(run, potential)
            result = fit_model(run, potential, data, resume=True)
            if (advice := hint(run.config, original, result)) is not None:
                run.say(advice)
            return conclude(run, potential, data, result)


def check_same_settings(run: Run) -> RunConfig:
    """Compare with run.resolved.yaml, key by key; return that run.

    Raises:
        ConfigError: a setting that must stay differs and is not accepted; old and new values are named.
    """
    original = load_run(run.folder.resolved)[0]
    if run.config.start is not None and run.config.start.resolve() != run.folder.last.resolve():
        what = f"resume continues {run.folder.last}, not {run.config.start}"
        raise ConfigError(what, "model_in", "remove model_in, or use task finetune with a new run_dir")
    check_same(original, run.config, str(run.folder.resolved))
    return original


def check_same_data(run: Run, data: TrainingData) -> None:
    """Compare the contents of training and validation data with those of the run.

    Raises:
        DataError: they differ, and that is not accepted.
    """
    before = run.record.content.get("fingerprint")
    if before is None or before == fingerprint(data):
        return
    if not any(accepts([name], CONTENTS) or name.startswith("data.") for name in run.config.accept):
        what = "the training or validation data are not those that the run was started with"
        fix = f"restore them, accept them (resume --accept {CONTENTS}), or start a new run"
        raise DataError(what, ", ".join(map(str, run.config.data.train)), fix)
    check_elements(data.train, load_last(run).elements, "the model")
    note_training_data(run, data)


def load_last(run: Run) -> Potential:
    """Load the model of the last checkpoint; its exact weights and state come with the fit.

    Raises:
        ModelError: there is no checkpoint.
    """
    for folder in (run.folder.last, run.folder.best):
        if (folder / MANIFEST).is_file():
            return load_bundle(folder, device=run.device)
    what = "the run stopped before its first checkpoint"
    raise ModelError(what, str(run.folder.checkpoints), "start it anew in another run_dir")


def as_continued(config: RunConfig, original: RunConfig) -> RunConfig:
    """Return the run as it would be started in one go: what was asked now, as the task it was."""
    kept = {"task": original.task, "model_in": original.model_in, "model": original.model, "name": original.name,
            "accept": ()}  # fmt: skip
    return config.model_copy(update=kept)
