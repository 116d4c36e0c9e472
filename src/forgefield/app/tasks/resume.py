"""Continue a run that stopped, as if it had not."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from forgefield.app.run import RunConfig, load_run, resolved, save_resolved
from forgefield.app.tasks.steps.concluding import conclude
from forgefield.app.tasks.steps.datasets import fingerprint, load_training_data
from forgefield.app.tasks.steps.fitting import fit_model
from forgefield.app.tasks.steps.models import note_model
from forgefield.app.tasks.steps.outcome import TaskResult
from forgefield.app.tasks.steps.run import Run, continued_run
from forgefield.core.errors import ConfigError, DataError, ModelError
from forgefield.data.parts import TrainingData
from forgefield.models.bundle import MANIFEST, load_bundle
from forgefield.models.potential import Potential
from forgefield.train.settings import RESUME_MAY_CHANGE

FREE = {"name", "id", "task", "run_dir", "model_in", "device", "output", "export", "eval"}
"""Keys that may differ from the run that is continued."""
FREE_DATA = {"train", "val", "test", "test_indices", "lmdb", "batch_size", "format"}
"""Keys of `data` that may differ: the contents are compared by their fingerprint instead."""
FREE_MODEL = {"manifest", "weights", "head", "export"}


def run_task(config: RunConfig, console: Console) -> TaskResult:
    """Continue from the last checkpoint of `run_dir`, and conclude as a training run does.

    Raises:
        ForgeError: there is nothing to continue, or settings or data are not those of the run.
    """
    with continued_run(config, console) as run:
        original = check_same_settings(run)
        data = load_training_data(run)
        check_same_data(run, data)
        potential = load_last(run)
        with run.record.closing():
            save_resolved(as_continued(run.config, original), run.folder.root)
            note_model(run, potential)
            result = fit_model(run, potential, data, resume=True)
            return conclude(run, potential, data, result)


def check_same_settings(run: Run) -> RunConfig:
    """Compare with run.resolved.yaml, key by key; return that run.

    Raises:
        ConfigError: a setting that must stay differs; old and new values are named.
    """
    original = load_run(run.folder.resolved)[0]
    if run.config.start is not None and run.config.start.resolve() != run.folder.last.resolve():
        what = f"resume continues {run.folder.last}, not {run.config.start}"
        raise ConfigError(what, "model_in", "remove model_in, or use task finetune with a new run_dir")
    old, new = comparable(original), comparable(run.config)
    if original.task == "finetune":  # its bundle decides about the architecture, not what was said beside it
        old, new = ({k: v for k, v in values.items() if not k.startswith("model.")} for values in (old, new))
    changed = [f"{key} was {old.get(key)!r}, is {new.get(key)!r}" for key in sorted(old.keys() | new.keys())
               if old.get(key) != new.get(key)]  # fmt: skip
    if changed:
        fix = "restore these, or start a new run with task finetune and another run_dir"
        raise ConfigError(f"settings differ from the run's: {'; '.join(changed)}", str(run.folder.resolved), fix)
    return original


def comparable(config: RunConfig) -> dict[str, Any]:
    """Return what must stay the same on resuming, as dotted keys and plain values."""
    plain = {key: value for key, value in resolved(config).items() if key not in FREE}
    free = {"data": FREE_DATA, "train": RESUME_MAY_CHANGE, "model": FREE_MODEL}
    found: dict[str, Any] = {}
    for key, value in plain.items():
        if isinstance(value, dict):
            found |= {f"{key}.{k}": v for k, v in value.items() if k not in free.get(key, set())}
        else:
            found[key] = value
    return found


def check_same_data(run: Run, data: TrainingData) -> None:
    """Compare the contents of training and validation data with those of the run.

    Raises:
        DataError: they differ.
    """
    before = run.record.content.get("fingerprint")
    if before is not None and before != fingerprint(data):
        what = "the training or validation data are not those that the run was started with"
        raise DataError(what, ", ".join(map(str, run.config.data.train)), "restore them, or start a new run")


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
    kept = {"task": original.task, "model_in": original.model_in, "model": original.model, "name": original.name}
    return config.model_copy(update=kept)
