"""Train a potential further, on other data."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from forgefield.app.reports.markup import milli
from forgefield.app.run import RunConfig, save_resolved
from forgefield.app.tasks import resume
from forgefield.app.tasks.steps.concluding import conclude
from forgefield.app.tasks.steps.datasets import check_heads, load_training_data, note_training_data
from forgefield.app.tasks.steps.fitting import checking_loader, fit_model
from forgefield.app.tasks.steps.models import (
    find_bundle,
    load_start,
    measure_data,
    note_model,
    own_references,
    use_given_references,
)
from forgefield.app.tasks.steps.outcome import TaskResult
from forgefield.app.tasks.steps.run import Run, new_run
from forgefield.app.tasks.steps.sameness import as_resumed
from forgefield.core.elements import symbol
from forgefield.data.checks import check_elements
from forgefield.data.parts import TrainingData, reference_setting
from forgefield.models.bundle import read_manifest, sha256
from forgefield.models.potential import Potential
from forgefield.train.evaluate import evaluate


def run_task(config: RunConfig, console: Console) -> TaskResult:
    """Load a potential, say what was loaded and how good it is on the new data, and fit it to them.

    A run that a signal stopped, and that was saved, is continued.

    Raises:
        ForgeError: something in the run, its model, its data or its machine must be mended first.
    """
    if (again := as_resumed(config)) is not None:
        return resume.run_task(again, console)
    with new_run(config, console) as run:
        potential = note_model(run, load_start(config, run.device))
        data = load_training_data(run)
        note_training_data(run, data)
        prepare(run, potential, data)
        tell_start(run, potential, data)
        result = fit_model(run, potential, data)
        return conclude(run, potential, data, result)


def prepare(run: Run, potential: Potential, data: TrainingData) -> None:
    """Check that model and data fit together, and settle the reference energies."""
    check_heads(data.train, potential.heads, "train.head_key")
    check_elements(data.train, potential.elements, "the model")
    own = run.config.data.e0 == "auto"
    elements = data.train.elements()
    e0 = own_references(potential, elements) if own else reference_setting(run.config.data)
    statistics = measure_data(run, data, potential.cutoff, e0, potential.heads)
    use_given_references(potential, run.config.data, statistics)
    save_resolved(run.config.model_copy(update={"dtype": str(potential.dtype).removeprefix("torch.")}), run.folder.root)


def tell_start(run: Run, potential: Potential, data: TrainingData) -> None:
    """Say and record exactly what was loaded, and its errors before any training."""
    with run.record.stage("evaluation"):
        before = evaluate(potential, checking_loader(run, potential, data.val or data.train)).metrics["all"]
    start = {**_origin(run), "errors_before": before}
    references = "of the model" if run.config.data.e0 == "auto" else "replaced by data.e0"
    new = [symbol(z) for z in potential.elements if z not in data.train.elements()]
    n_tensors = len(list(potential.architecture.parameters()))
    lines = [
        f"loaded: {run.config.start}",
        f"  weights: {n_tensors} of {n_tensors} tensors, sha256 {start['weights_sha256'][:16]}",
        f"  cutoff {potential.cutoff:g} Å; {str(potential.dtype).removeprefix('torch.')}",
        f"  reference energies: {references}",
        *([f"  not in the new data: {' '.join(new)}"] if new else []),
        f"  before training, on the validation data: forces RMSE {milli(before.get('forces_rmse'))} meV/Å, "
        f"energy RMSE {milli(before.get('energy_rmse_per_atom'))} meV/atom",
    ]
    for line in lines:
        run.say(line)
    run.record.note(start=start)


def _origin(run: Run) -> dict[str, Any]:
    """Return the identity of the weights that were loaded, without paths."""
    assert run.config.start is not None
    manifest, folder = read_manifest(find_bundle(run.config.start))
    file = run.config.model.weights or folder / manifest["weights"]["path"]
    return {"weights_sha256": sha256(file), "provenance": manifest.get("provenance", {})}
