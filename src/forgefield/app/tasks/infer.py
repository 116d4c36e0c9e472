"""Predict structures; labels are not needed."""

from __future__ import annotations

import numpy as np
from rich.console import Console

from forgefield.app.baseline.naming import as_written
from forgefield.app.reports.markup import significant
from forgefield.app.run import RunConfig
from forgefield.app.tasks.steps.asking import ask, model_text, output_folder, save_loaded
from forgefield.app.tasks.steps.datasets import set_name
from forgefield.app.tasks.steps.evaluating import write_inference
from forgefield.app.tasks.steps.outcome import TaskResult, short, show
from forgefield.app.tasks.steps.predicting import predict_all
from forgefield.core.disk import disk_errors
from forgefield.core.errors import ConfigError
from forgefield.train.evaluate import Prediction


def run_task(config: RunConfig, console: Console) -> TaskResult:
    """Predict energies, forces and stress of structures, and write them as extxyz and CSV.

    Raises:
        ForgeError: something in the run, its model, its data or its machine must be mended first.
    """
    if config.eval.free_atoms:
        raise ConfigError("has no effect: infer compares with no labels", "eval.free_atoms", "remove it")
    with disk_errors(output_folder(config, "")):
        question = ask(config, console)
        found = predict_all(config, question, question.dataset, console)
        folder = output_folder(config, set_name(question.paths))
        dataset = as_written(config, question.potential, question.dataset)
        files = write_inference(folder, found.predictions, dataset, config.output)
        files += save_loaded(config, question)
    rows = [("model", model_text(question)), ("predicted", _ranges(found.predictions))]
    following = [("look at the structures", f"ase gui {short(p)}") for p in files if p.suffix == ".xyz"]
    return show(TaskResult(f"{config.name}: infer", rows, files, following), console)


def _ranges(predictions: list[Prediction]) -> str:
    """Return how many structures were predicted, and the range of the results."""
    energies = [p.energy for p in predictions if p.energy is not None]
    if not energies:
        return f"{len(predictions)} structures; {', '.join(predictions[0].further)}"
    text = f"{len(predictions)} structures; energies {min(energies):.3f} to {max(energies):.3f} eV"
    largest = [float(np.linalg.norm(p.forces, axis=1).max()) for p in predictions if p.forces is not None]
    return text + (f"; largest force {significant(max(largest))} eV/Å" if largest else "; no forces (eval.energy_only)")
