"""What follows a fit: judge the best model, hand it out, report, and say what to do next."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms

from forgefield.app.baseline.applying import judged
from forgefield.app.reports.baseline import baseline_rows
from forgefield.app.reports.contents import Predictions
from forgefield.app.reports.markup import duration, milli, significant
from forgefield.app.reports.page import write_report
from forgefield.app.reports.reading import force_share
from forgefield.app.tasks.steps.alignn_files import write_alignn_files
from forgefield.app.tasks.steps.datasets import load_test_data
from forgefield.app.tasks.steps.evaluating import as_arrays, write_evaluation
from forgefield.app.tasks.steps.fitting import WORDS, checking_loader
from forgefield.app.tasks.steps.further import names_in, unit_of
from forgefield.app.tasks.steps.levels import handed_out, untrained_heads, without_untrained
from forgefield.app.tasks.steps.outcome import TaskResult, say, short, show
from forgefield.app.tasks.steps.prolonging import prolonging
from forgefield.app.tasks.steps.run import Run
from forgefield.app.tasks.steps.xequinet_files import write_xequinet_files
from forgefield.core.errors import ModelError
from forgefield.core.quantities import ALWAYS
from forgefield.core.structure import Structure
from forgefield.data.dataset import Dataset
from forgefield.data.differences import as_labelled
from forgefield.data.parts import TrainingData
from forgefield.export.artifact import export_artifacts
from forgefield.export.calculator import ForgeField
from forgefield.export.prediction import Prediction, predict
from forgefield.export.probes import bare
from forgefield.models.potential import Potential
from forgefield.train.evaluate import evaluate
from forgefield.train.joining import team
from forgefield.train.loop import FitResult
from forgefield.train.measured import measured_in_evaluation

SAMPLE = 16


def conclude(run: Run, potential: Potential, data: TrainingData, result: FitResult) -> TaskResult:
    """Evaluate the best weights, export them, write the report, and show the summary.

    Of several processes the first does so; the others have nothing left to do.
    """
    if not team().leads:
        return TaskResult("", [], [])
    tests = load_test_data(run, data, potential.elements)
    metrics = judge(run, potential, data, tests)
    if run.config.export.files_of == "alignn":
        weights = run.config.train.loss_weights()
        write_alignn_files(run.folder, data, tests, _of_training(run, potential, data), weights)
    elif run.config.export.files_of == "xequinet":
        write_xequinet_files(run.folder, run.config.name, tests)
    trained = _trained(run, potential, data)
    folder = hand_out(run, trained, sample_of(data.val or data.train), metrics)
    run.record.note(status="finished")
    with run.record.stage("report"):
        report = write_report(run.folder.root)
    run.record.note()
    return show(_summary(run, data, result, metrics, report, folder), run.console)


def judge(run: Run, potential: Potential, data: TrainingData, tests: Mapping[str, Dataset]) -> dict[str, Any]:
    """Evaluate the model on the test and validation data and write all down; return the errors by set."""
    sets = {name: judged(run, potential, test) for name, test in tests.items()}
    sets["val" if data.val is not None else "train"] = data.checked
    found: dict[str, Any] = {}
    with run.record.stage("evaluation"):
        for name, dataset in sets.items():
            measured = measured_in_evaluation(potential, run.config.train)
            whole = potential.baseline is not None
            loader = checking_loader(run, potential, dataset)
            evaluation = evaluate(potential, loader, measured=measured, whole=whole)
            dataset = as_labelled(dataset)
            for note in evaluation.notes:
                say(run.console, f"note: {name}: {note}")
            about = {"set": name, "fingerprint": dataset.fingerprint, "run": run.config.name}
            write_evaluation(run.folder.evaluation(name), evaluation, dataset, potential, about=about)
            found[name] = evaluation.metrics
    run.record.note(judged=next(iter(sets)))
    return found


def hand_out(run: Run, potential: Potential, sample: Sequence[Structure], metrics: dict[str, Any]) -> Path | None:
    """Export the model unless `export.standard_artifacts` is off; return the folder, of several levels the first."""
    if not run.config.export.standard_artifacts:
        return None
    folder = run.folder.root / run.config.export.dir
    with run.record.stage("export"):
        checks: list[dict[str, float]] = []
        handed = handed_out(potential, run.config.export)
        for inside, model in handed:
            export_artifacts(
                model,
                folder / inside,
                targets=run.config.export.targets,
                provenance=provenance(run, metrics),
                sample=sample,
                correction_alone=run.config.export.correction_alone,
            )
            checks.append(check_in_ase(folder / inside, model, bare(sample[0], model.heads), run.device))
    worst = {name: max(check[name] for check in checks) for name in checks[0]}
    first = handed[0].folder
    run.record.note(artifacts=str(run.config.export.dir / first), ase_check=worst)
    return folder / first


def _of_training(run: Run, potential: Potential, data: TrainingData) -> Predictions:
    """Return the predictions of the training structures."""
    with run.record.stage("evaluation"):
        loader, whole = checking_loader(run, potential, data.train), potential.baseline is not None
        measured = measured_in_evaluation(potential, run.config.train)
        evaluation = evaluate(potential, loader, measured=measured, whole=whole)
    return as_arrays(evaluation.predictions, as_labelled(data.train), potential)


def _trained(run: Run, potential: Potential, data: TrainingData) -> Potential:
    """Return the model without the levels of theory that no structure trained; say which they are."""
    seen = data.train, data.replay.train if data.replay is not None else None
    if run.config.task == "finetune":
        kept = potential.context.fidelity.base if run.config.train.freeze == "base" else None
        left = [head for head in untrained_heads(potential, *seen) if head != kept]
        if left:
            say(run.console, f"note: no structure trained {', '.join(left)}: the shared network has changed under it")
            run.record.note(untrained_heads=left)
        return potential
    trained, left = without_untrained(potential, *seen)
    if left:
        say(run.console, f"note: no structure trained {', '.join(left)}: left out of the artifacts")
        run.record.note(untrained_heads=left)
    return trained


def check_in_ase(folder: Path, potential: Potential, structure: Structure, device: torch.device) -> dict[str, float]:
    """Load the artifacts as an ASE calculator and compare one structure with the model.

    Returns:
        Deviation of the energy, eV per atom, and the largest of a force component, eV/Å.

    Raises:
        ModelError: they differ by more than rounding explains.
    """
    atoms = Atoms(structure.numbers, structure.positions, cell=structure.cell, pbc=structure.pbc)
    alone = {} if potential.baseline is None else {"baseline": "correction"}
    atoms.info |= {"charge": structure.charge or 0.0, "multiplicity": structure.multiplicity or 1}
    if potential.needs.atom_charges:
        atoms.set_initial_charges(structure.labels["charges"])
    atoms.info |= structure.features
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a calculator warns of was said when the model was made
        atoms.calc = ForgeField.load(folder, device=str(device), head=structure.level or potential.heads[0], **alone)
    (expected,) = predict(potential, [structure])
    if not potential.context.energy:
        return _check_properties(atoms, expected, folder, 1e-8 if potential.dtype == torch.float64 else 1e-4)
    energy = abs(atoms.get_potential_energy() - expected.energy) / len(structure)
    forces = float(np.abs(atoms.get_forces() - expected.forces).max())
    allowed = 1e-8 if potential.dtype == torch.float64 else 1e-4
    if not (energy <= allowed and forces <= 10 * allowed):
        what = f"the ASE calculator deviates from the model: {energy:.1e} eV per atom, {forces:.1e} eV/Å"
        raise ModelError(what, str(folder), "do not use these artifacts; please report the model's settings")
    return {"energy_per_atom": energy, "forces": forces}


def _check_properties(atoms: Atoms, expected: Prediction, folder: Path, allowed: float) -> dict[str, float]:
    """Compare what a model without energies predicts, over max(1, largest)."""
    worst = 0.0
    for name, value in expected.extra.items():
        error = np.abs(np.asarray(atoms.calc.get_property(name, atoms)) - value).max() / max(1.0, np.abs(value).max())
        worst = max(worst, float(error))
    if not worst <= allowed:
        what = f"the ASE calculator deviates from the model by {worst:.1e}"
        raise ModelError(what, str(folder), "do not use these artifacts; please report the model's settings")
    return {"further": worst}


def provenance(run: Run, metrics: dict[str, Any]) -> dict[str, Any]:
    """Return where a model comes from, for its manifest: plain values, no paths of this machine."""
    record = run.record.content
    return {
        "run": run.config.name,
        "task": run.config.task,
        "started": record["started"],
        "forgefield": record["environment"]["forgefield"],
        "torch": record["environment"]["torch"],
        "data_fingerprint": record.get("fingerprint"),
        "fit": record.get("fit"),
        "start": record.get("start"),
        "errors": {name: found["all"] for name, found in metrics.items()},
    }


def sample_of(dataset: Dataset) -> list[Structure]:
    """Return a few structures, spread over the data set."""
    step = max(1, len(dataset) // SAMPLE)
    return [dataset[k] for k in range(0, len(dataset), step)][:SAMPLE]


def error_rows(name: str, errors: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the lines of the summary that tell the errors of one set."""
    label = "validation" if name == "val" else name
    rows = []
    if errors.get("forces_rmse") is not None:
        share = force_share(errors)
        typical = f", {significant(100 * share, 2, pad=True)} % of the typical force" if share is not None else ""
        rows.append(
            (
                f"{label}: forces",
                f"RMSE {milli(errors['forces_rmse'])}, MAE {milli(errors['forces_mae'])} meV/Å{typical}",
            )
        )
    if errors.get("energy_rmse") is not None:
        per_atom = f"RMSE {milli(errors['energy_rmse_per_atom'])}, MAE {milli(errors['energy_mae_per_atom'])} meV/atom"
        rows.append((f"{label}: energy", f"{per_atom} ({milli(errors['energy_rmse'])} per structure)"))
    if errors.get("stress_rmse") is not None:
        text = f"RMSE {milli(errors['stress_rmse'])}, MAE {milli(errors['stress_mae'])} meV/Å³"
        rows.append((f"{label}: stress", text))
    for one in names_in(errors):
        if errors.get(f"{one}_accuracy") is not None:
            area = errors.get(f"{one}_auc")
            text = f"{100 * errors[f'{one}_accuracy']:.1f} % right"
            rows.append((f"{label}: {one}", text + ("" if area is None else f", area under the curve {area:.3f}")))
            continue
        text = f"RMSE {significant(errors[f'{one}_rmse'])}, MAE {significant(errors[f'{one}_mae'])} {unit_of(one)}"
        rows.append((f"{label}: {one}", text.rstrip()))
    return rows


def _summary(
    run: Run, data: TrainingData, result: FitResult, metrics: dict[str, Any], report: Path, folder: Path | None
) -> TaskResult:
    """Return the table of results and the commands that may come next."""
    n_val = 0 if data.val is None else len(data.val)
    ended = WORDS.get(result.reason, result.reason)
    rows = [
        ("model", f"{run.record.content['backend']}, {run.record.content['model']['parameters']:,} parameters"),
        ("data", f"{len(data.train)} training, {n_val} validation structures{_old(data)}"),
        ("epochs", f"{result.epochs_done} done; the best model is of epoch {result.best_epoch}"),
        ("ended", ended),
        ("time", f"{duration(result.seconds)} training, {duration(run.record.content['seconds']['total'])} in all"),
    ]
    for name, found in metrics.items():
        rows += error_rows(name, found["all"])
        rows += baseline_rows(name, found, run.record.content.get("baseline", {}).get("name", ""))
        by_head = found.get("by_head", {})
        for head, errors in by_head.items() if len(by_head) > 1 else ():
            rows += error_rows(f"{'validation' if name == 'val' else name}, {head}", errors)
    if folder:
        check = run.record.content["ase_check"]
        deviation, unit = check.get("forces", check.get("further", 0.0)), " eV/Å" * ("forces" in check)
        agreement = f"to within {deviation:.0e}{unit}" if deviation else "exactly"
        rows.append(("artifacts", f"checked against the model; the ASE calculator agrees {agreement}"))
    files = [report, *([folder] if folder else []), run.folder.best]
    files += [run.folder.root / name] if (name := run.config.export.files_of) else []
    model = short(folder or run.folder.best)
    return TaskResult(f"{run.config.name}: {run.config.task}", rows, files, next_commands(run, model, result), metrics)


def _old(data: TrainingData) -> str:
    if data.replay is None:
        return ""
    return f"; of old data {data.replay.mixture.n_drawn} in an epoch, {len(data.replay.val)} to validate on"


def next_commands(run: Run, model: str, result: FitResult) -> list[tuple[str, str]]:
    """Return three things to try after training."""
    root = short(run.folder.root)
    heads, energies = run.record.content["model"]["heads"], run.config.train.trained_labels() & {*ALWAYS}
    several = len(heads) > 1 and run.config.export.fidelity == "all"
    named, asked = (f", head='{heads[-1]}'", f" --head {heads[-1]}") if several else ("", "")
    named += ", baseline=base" if run.record.content.get("baseline", {}).get("method") == "labels" else ""
    python = f"from forgefield import ForgeField; calculator = ForgeField.load('{model}'{named})"
    return [
        (
            "predict energies and forces of new structures" if energies else "predict new structures",
            f"forgefield infer --model {model} --data structures.xyz --out predictions{asked}",
        ),
        prolonging(root, run.config, result),
        ("use the model in Python, with ASE", f'python -c "{python}"'),
    ]
