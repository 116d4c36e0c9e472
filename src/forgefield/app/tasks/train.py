"""Train a new potential."""

from __future__ import annotations

from rich.console import Console

from forgefield.app.baseline.applying import to_learn
from forgefield.app.run import RunConfig
from forgefield.app.tasks import resume
from forgefield.app.tasks.steps.concluding import conclude
from forgefield.app.tasks.steps.datasets import load_training_data, note_training_data
from forgefield.app.tasks.steps.examining import examine_training_data
from forgefield.app.tasks.steps.fitting import fit_model
from forgefield.app.tasks.steps.going_on import as_resumed
from forgefield.app.tasks.steps.models import build_new
from forgefield.app.tasks.steps.outcome import TaskResult
from forgefield.app.tasks.steps.run import new_run


def run_task(config: RunConfig, console: Console) -> TaskResult:
    """Read and measure the data, build a potential, fit it, judge it, and hand it out with a report.

    A run that a signal stopped, and that was saved, is continued; one that was killed is with `--continue`.

    Raises:
        ForgeError: something in the run, its data or its machine must be mended first.
    """
    if (again := as_resumed(config)) is not None:
        return resume.run_task(again, console)
    with new_run(config, console) as run:
        data = load_training_data(run)
        note_training_data(run, data)
        examine_training_data(run, data)
        data = to_learn(run, data, run.config.model.baseline)
        potential = build_new(run, data)
        result = fit_model(run, potential, data)
        return conclude(run, potential, data, result)
