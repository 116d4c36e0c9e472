"""Train a potential further, on other data."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from forgefield.app.baseline.applying import to_learn
from forgefield.app.baseline.rules import settled
from forgefield.app.reports.markup import milli
from forgefield.app.run import RunConfig, save_resolved
from forgefield.app.tasks import resume
from forgefield.app.tasks.steps.concluding import conclude
from forgefield.app.tasks.steps.datasets import load_training_data, note_training_data
from forgefield.app.tasks.steps.examining import examine_training_data
from forgefield.app.tasks.steps.fitting import checking_loader, fit_model
from forgefield.app.tasks.steps.going_on import as_resumed
from forgefield.app.tasks.steps.models import ToMeasure, find_bundle, measure_data, note_model
from forgefield.app.tasks.steps.outcome import TaskResult
from forgefield.app.tasks.steps.run import Run, new_run
from forgefield.app.tasks.steps.starting import Start, begin
from forgefield.core.elements import symbol
from forgefield.data.parts import TrainingData
from forgefield.models.bundle import read_manifest, sha256
from forgefield.models.widening import TensorRow
from forgefield.train.checkpoint import STATE
from forgefield.train.evaluate import evaluate
from forgefield.train.measured import measured_in_evaluation

REFERENCES = {"keep": "of the model", "estimate": "estimated from the new data", "given": "replaced by data.e0"}


def run_task(config: RunConfig, console: Console) -> TaskResult:
    """Load a potential, say what was loaded and how good it is on the new data, and fit it to them.

    A run that a signal stopped, and that was saved, is continued; one that was killed is with `--continue`.

    Raises:
        ForgeError: something in the run, its model, its data or its machine must be mended first.
    """
    if (again := as_resumed(config)) is not None:
        return resume.run_task(again, console)
    with new_run(config, console) as run:
        data = load_training_data(run)
        note_training_data(run, data)
        examine_training_data(run, data)
        data = to_learn(run, data, settled(run.config))
        with run.record.stage("loading"):
            start = begin(run, data)
        note_model(run, start.potential)
        prepare(run, start, data)
        tell_start(run, start, data)
        result = fit_model(run, start.potential, data)
        return conclude(run, start.potential, data, result)


def prepare(run: Run, start: Start, data: TrainingData) -> None:
    """Measure the new data, and keep the settings as they are carried out."""
    measure_data(run, data, ToMeasure(start.potential.cutoff, start.e0, start.heads, start.potential.aims))
    dtype = str(start.potential.dtype).removeprefix("torch.")
    save_resolved(run.config.model_copy(update={"dtype": dtype}), run.folder.root)


def tell_start(run: Run, start: Start, data: TrainingData) -> None:
    """Say and record exactly what was loaded, and its errors before any training."""
    potential = start.potential
    with run.record.stage("evaluation"):
        measured = measured_in_evaluation(potential, run.config.train)
        before = evaluate(
            start.before,
            checking_loader(run, potential, data.checked),
            measured=measured,
            whole=potential.baseline is not None,
        ).metrics
    origin = _origin(run)
    record = {**origin, **start.to_json(), "errors_before": before["all"], "errors_before_by_head": before["by_head"]}
    run.record.note(start=record)
    absent = [symbol(z) for z in potential.elements if z not in data.train.elements()]
    dtype = str(potential.dtype).removeprefix("torch.")
    converted = "" if origin["dtype"] == dtype else f", converted from {origin['dtype']}"
    lines = [
        f"loaded: {run.config.start} ({origin['kind']})",
        *_tensor_lines(start.tensors, origin["weights_sha256"]),
        f"  cutoff {potential.cutoff:g} Å; {dtype}{converted}",
        f"  reference energies: {REFERENCES[start.how]}",
        *(f"    {row}" for row in start.references.rows if row.moved),
        *(f"  {note}" for note in start.references.notes),
        *_base_lines(start),
        *([f"  not in the new data, kept: {' '.join(absent)}"] if absent else []),
        *(_errors(head, errors, len(potential.heads)) for head, errors in before["by_head"].items()),  # type: ignore[union-attr]
    ]
    for line in lines:
        run.say(line)


def _base_lines(start: Start) -> list[str]:
    base = start.potential.context.fidelity.base
    if base is None or start.potential is start.before:
        return []
    (head,) = start.growth.heads
    unit = start.potential.context.fidelity.correction_scale * start.potential.scale[0].item()
    return [f"  head {head} is head {base} plus a correction by a second network, in units of {1000 * unit:.4g} meV"]


def _errors(head: str, errors: Any, n_heads: int) -> str:
    of_head = f" of head {head}" if n_heads > 1 else ""
    return (
        f"  before training, on the validation data{of_head}: forces RMSE {milli(errors.get('forces_rmse'))} meV/Å, "
        f"energy RMSE {milli(errors.get('energy_rmse_per_atom'))} meV/atom"
    )


def _tensor_lines(rows: list[TensorRow], digest: str) -> list[str]:
    """Return one line for each part of the model, and a sum: every tensor is counted."""
    groups: dict[str, list[TensorRow]] = {}
    for row in rows:
        groups.setdefault(row.group, []).append(row)
    width = max(map(len, groups))
    lines = [
        f"  weights: {len(rows)} tensors, every one accounted for; sha256 {digest[:16]}",
        f"  {'part':<{width}}  tensors     loaded        new       left",
    ]
    for name, part in [*groups.items(), ("all", rows)]:
        loaded, new, left = (sum(getattr(row, key) for row in part) for key in ("loaded", "new", "left"))
        lines.append(f"  {name:<{width}}  {len(part):>7} {loaded:>10,} {new:>10,} {left:>10,}")
    notes = dict.fromkeys(text for row in rows for text in row.note.split("; ") if text)
    return [*lines, *([f"  new: {'; '.join(notes)}"] if notes else [])]


def _origin(run: Run) -> dict[str, Any]:
    """Return the identity of the weights that were loaded, without paths."""
    assert run.config.start is not None
    manifest, folder = read_manifest(find_bundle(run.config.start))
    file = run.config.model.weights or folder / manifest["weights"]["path"]
    kind = "a checkpoint, with the weights that were validated" if (folder / STATE).is_file() else "a bundle"
    return {
        "kind": kind,
        "dtype": manifest["dtype"],
        "weights_sha256": sha256(file),
        "provenance": manifest.get("provenance", {}),
    }
