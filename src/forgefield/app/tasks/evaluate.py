"""Compare a model with labelled data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from forgefield.app.folder import METRICS, RunFolder
from forgefield.app.reports.baseline import baseline_rows
from forgefield.app.reports.page import write_report
from forgefield.app.run import RunConfig, save_resolved
from forgefield.app.tasks.steps.asking import Question, ask, check_comparable, model_text, output_folder, save_loaded
from forgefield.app.tasks.steps.concluding import error_rows
from forgefield.app.tasks.steps.datasets import check_some_label, describe, set_name, without_free_atoms
from forgefield.app.tasks.steps.evaluating import write_evaluation
from forgefield.app.tasks.steps.models import describe_model
from forgefield.app.tasks.steps.outcome import TaskResult, short, show
from forgefield.app.tasks.steps.predicting import predict_all
from forgefield.app.tasks.steps.record import RunRecord
from forgefield.core.disk import disk_errors
from forgefield.core.errors import ConfigError, ForgeError
from forgefield.data.dataset import Dataset
from forgefield.data.differences import as_labelled


def run_task(config: RunConfig, console: Console) -> TaskResult:
    """Predict labelled structures, and write errors and predictions.

    Raises:
        ForgeError: something in the run, its model, its data or its machine must be mended first.
    """
    check_place(config)
    with disk_errors(home_of(config)):
        question = ask(config, console)
        dataset = without_free_atoms(question.dataset, console)
        check_some_label(dataset)
        check_comparable(question.potential, dataset, console)
        if config.eval.free_atoms and not any(s.fixed is not None and s.fixed.any() for s in dataset):
            raise ConfigError("no atom is held fixed", "eval.free_atoms", "remove it, or give the constraints")
        evaluation = predict_all(config, question, dataset, console)
        dataset = as_labelled(dataset)
        name = set_name(question.paths)
        folder = output_folder(config, name)
        about = {"set": name, "fingerprint": dataset.fingerprint, "weights_sha256": question.weights_sha256}
        files = write_evaluation(folder, evaluation, dataset, question.potential, config.output, about)
        files += save_loaded(config, question)
        files += report(config, question, dataset, name)
    rows = [("model", model_text(question)), ("data", f"{len(dataset)} structures of {name}")]
    rows += error_rows(name, evaluation.metrics["all"])
    if question.potential.baseline is not None:
        rows += baseline_rows(name, evaluation.metrics, question.potential.baseline.name)
    return show(TaskResult(f"{config.name}: evaluate", rows, files, _next(config, files), evaluation.metrics), console)


def home_of(config: RunConfig) -> Path:
    """Return the folder that report.html belongs to: the run's, also if `output.dir` is its evaluation/NAME."""
    if config.output.dir is None:
        return output_folder(config, "any").parent.parent
    inside = config.output.dir.parent.name == "evaluation"
    run = config.output.dir.parent.parent
    return run if inside and RunFolder(run).record.is_file() else config.output.dir


def check_place(config: RunConfig) -> None:
    """Refuse to mix the evaluation of one model into the run of another.

    Raises:
        ForgeError: the folder holds a run, and the model is not of that run.
    """
    home = RunFolder(home_of(config))
    trained = home.checkpoints.exists() or home.artifacts.exists()
    if trained and config.start is not None and not config.start.resolve().is_relative_to(home.root.resolve()):
        what = f"holds the run of another model than {config.start}"
        raise ForgeError(what, str(home.root), "choose another run_dir or output.dir")


def report(config: RunConfig, question: Question, dataset: Dataset, name: str) -> list[Path]:
    """Write report.html, or bring the one of the run that is there up to date."""
    if config.output.metrics_json != METRICS:
        return []
    folder = RunFolder(home_of(config))
    if not folder.checkpoints.exists():
        record = RunRecord(folder, config, question.device, question.potential.dtype)
        save_resolved(config, folder.root)
        record.note(
            status="finished",
            model=describe_model(question.potential),
            backend=question.potential.backend,
            data={name: describe(dataset, question.paths)},
        )
    return [write_report(folder.root)] if folder.record.is_file() else []


def _next(config: RunConfig, files: Sequence[Path]) -> list[tuple[str, str]]:
    """Return what one may want to do next."""
    found = [("look at the single structures", f"ase gui {short(path)}") for path in files if path.suffix == ".xyz"]
    fine = f"forgefield finetune --model {short(config.start or Path())} --data more.xyz --out runs/finetuned"
    return [*found, ("train the model further on other data", fine)]
