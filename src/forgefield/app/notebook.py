"""The Python interface: what the command line does, as functions on objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from ase import Atoms
from ase.stress import voigt_6_to_full_3x3_stress
from rich.console import Console

from forgefield.app.baseline.applying import with_base
from forgefield.app.run import RunConfig, config_of, load_run
from forgefield.app.tasks.steps.datasets import check_some_label
from forgefield.app.tasks.steps.machine import choose_device
from forgefield.app.tasks.steps.models import find_bundle
from forgefield.app.tasks.steps.outcome import TaskResult
from forgefield.app.tasks.steps.together import together
from forgefield.core import allocator
from forgefield.core.errors import ConfigError
from forgefield.core.settings import Matmul
from forgefield.core.structure import Structure
from forgefield.data.checks import check_elements
from forgefield.data.dataset import Dataset, open_dataset
from forgefield.data.loader import make_loader
from forgefield.export.artifact import Artifact, export_artifacts
from forgefield.export.calculator import charges_of, choose_dtype, electrons_of, features_of
from forgefield.graph.needs import Needs
from forgefield.kernels.choice import kernels
from forgefield.models.bundle import load_bundle
from forgefield.models.potential import Potential
from forgefield.models.precision import require
from forgefield.train.evaluate import Evaluation
from forgefield.train.evaluate import evaluate as evaluate_loader

Model = Potential | str | Path
Data = Dataset | str | Path | Structure | Atoms | Sequence[str | Path | Structure | Atoms]


def run(
    config: RunConfig | str | Path | Mapping[str, Any], name: str | None = None, *, quiet: bool = False
) -> TaskResult:
    """Carry out a run: what `forgefield run` does.

    Args:
        config: a RunConfig, the path of a run.yaml, or a mapping with the keys of run.yaml.
        name: which run of a file with several.
        quiet: print nothing.

    Returns:
        The summary, the files written, and the errors by data set.

    Raises:
        ForgeError: something must be mended first.
    """
    allocator.tune()
    if isinstance(config, Mapping):
        config = config_of(dict(config))
    elif not isinstance(config, RunConfig):
        runs = load_run(config, name)
        if len(runs) != 1:
            raise ConfigError(f"holds {len(runs)} runs", str(config), f"name one of: {', '.join(r.name for r in runs)}")
        config = runs[0]
    task = import_module(f"forgefield.app.tasks.{config.task}")
    with kernels(config.kernels), together(config, Console(quiet=quiet)) as (own, console):
        return task.run_task(own, console)


def fit(
    data: str | Path | Sequence[str | Path],
    run_dir: str | Path,
    *,
    backend: str = "mace",
    test: str | Path | Sequence[str | Path] | None = None,
    model: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    quiet: bool = False,
) -> TaskResult:
    """Train a new potential: what `forgefield train` does.

    Args:
        data: training data.
        run_dir: new folder of the run.
        backend: architecture.
        test: data to evaluate afterwards.
        model: settings of the architecture, as under `model:` in run.yaml.
        training: settings of the fit, as under `train:` in run.yaml.
        settings: all other keys of run.yaml, e.g. `{"device": "cpu", "data": {"val_fraction": 0.2}}`.
        quiet: print nothing.

    Returns:
        The summary; the potential to load stands in run_dir/artifacts.

    Raises:
        ForgeError: something must be mended first.
    """
    blocks = {key: dict(value) if isinstance(value, Mapping) else value for key, value in (settings or {}).items()}
    block = {"train": _texts(data), **({"test": _texts(test)} if test is not None else {}), **blocks.pop("data", {})}
    given = {"task": "train", "backend": backend, "run_dir": str(run_dir), "data": block}
    given |= {"model": dict(model or {}), "train": dict(training or {})}
    twice = sorted(set(given) & set(blocks))
    if twice:
        raise ConfigError(
            f"settings has {twice[0]!r}, which has an argument of its own", "settings", "use the argument"
        )
    return run({**given, **blocks}, quiet=quiet)


def load(model: Model, device: str = "auto", dtype: str | None = None) -> Potential:
    """Load a potential: an artifacts folder, a checkpoint, a manifest, or a run folder (its best model).

    Args:
        model: where it stands; a potential is returned as it is.
        device: auto, cpu, cuda or cuda:N.
        dtype: float32 or float64; None keeps its own.

    Raises:
        ForgeError: it cannot be loaded.
    """
    allocator.tune()
    if isinstance(model, Potential):
        return model
    chosen = choose_device(device, Console(quiet=True))
    return load_bundle(find_bundle(Path(model)), dtype=choose_dtype(dtype), device=chosen).eval()


def evaluate(
    model: Model,
    data: Data,
    *,
    batch_size: int | Literal["auto"] = "auto",
    energy_only: bool = False,
    device: str = "auto",
    matmul: Matmul = "float32",
) -> dict[str, Any]:
    """Compare a potential with labelled data; nothing is written.

    Args:
        model: a potential or where it stands.
        data: labelled structures: a data set, files, Structures, or ASE Atoms with a calculator's results.
        batch_size: structures at a time; auto finds out what is fast and fits half of the free memory.
        energy_only: leave forces and stress out.
        device: for a model that is loaded here.
        matmul: products of float32 matrices: float32, or tf32 or bf16, which are refused where they have no effect.

    Returns:
        MAE and RMSE under all, by_element, by_component, by_config_type and by_head; eV, eV/Å, eV/Å^3.

    Raises:
        ForgeError: model and data do not go together, or there are no labels.
    """
    potential = load(model, device)
    dataset = as_dataset(data, potential.needs)
    check_some_label(dataset)
    return _predict(potential, dataset, batch_size, energy_only, matmul).metrics


def predict(
    model: Model,
    data: Data,
    *,
    batch_size: int | Literal["auto"] = "auto",
    energy_only: bool = False,
    device: str = "auto",
    matmul: Matmul = "float32",
) -> list[Any]:
    """Predict structures, with or without labels.

    Args:
        model: a potential or where it stands.
        data: a data set, files, Structures or ASE Atoms, whose charges and further inputs are read as in ASE.
        batch_size: structures at a time; auto finds out what is fast and fits half of the free memory.
        energy_only: leave forces and stress out.
        device: for a model that is loaded here.
        matmul: products of float32 matrices: float32, or tf32 or bf16, which are refused where they have no effect.

    Returns:
        One prediction per structure: `energy` (eV), `forces` (n, 3) eV/Å, `stress` (3, 3) eV/Å^3, and `further`
        targets by name, (D,) of the structure or (n, D) of its atoms.

    Raises:
        ForgeError: model and data do not go together.
    """
    potential = load(model, device)
    return _predict(potential, as_dataset(data, potential.needs), batch_size, energy_only, matmul).predictions


def save(
    model: Model,
    folder: str | Path,
    data: Data,
    *,
    targets: Sequence[str] = ("torchscript",),
    device: str = "cpu",
    correction_alone: bool = False,
) -> Artifact:
    """Write a potential as files that other programs load; refused unless they agree with it.

    Args:
        model: a potential or where it stands.
        folder: the artifacts folder.
        data: a few structures to check the files on.
        targets: formats beside the weights and the manifest.
        device: for a model that is loaded here.
        correction_alone: write files of a model that corrects a baseline, which hold the correction alone.

    Raises:
        ForgeError: a file does not agree, or cannot be written.
    """
    potential = load(model, device)
    dataset = as_dataset(data, potential.needs)
    sample = [dataset[k] for k in range(min(len(dataset), 16))]
    about = {"exported": "Python"}
    return export_artifacts(
        potential, folder, targets=targets, provenance=about, sample=sample, correction_alone=correction_alone
    )


def as_dataset(data: Data, needs: Needs) -> Dataset:
    """Return anything that holds structures as a data set, with what a model needs of ASE Atoms."""
    if isinstance(data, Dataset):
        return data
    if isinstance(data, Structure | Atoms):
        return as_dataset([data], needs)
    if isinstance(data, str | Path) or all(isinstance(item, str | Path) for item in data):
        return open_dataset(data)  # type: ignore[arg-type]
    items = list(data)
    return Dataset.of([x if isinstance(x, Structure) else _of_atoms(x, k, needs) for k, x in enumerate(items)])


def _predict(
    potential: Potential, dataset: Dataset, batch_size: int | Literal["auto"], energy_only: bool, matmul: Matmul
) -> Evaluation:
    require(matmul, next(potential.parameters()).device, potential.dtype, "matmul")
    check_elements(dataset, potential.elements, "the model")
    dataset = with_base(potential, dataset, Console(quiet=True))
    loader = make_loader(
        dataset,
        potential.needs,
        batch_size=1 if batch_size == "auto" else batch_size,
        heads=potential.heads,
        dtype=potential.dtype,
        device=next(potential.parameters()).device,
    )
    memory = 0.5 if batch_size == "auto" else None
    whole = potential.baseline is not None
    return evaluate_loader(potential, loader, energy_only=energy_only, matmul=matmul, memory=memory, whole=whole)


def _of_atoms(atoms: Atoms, index: int, needs: Needs) -> Structure:
    """Return ASE Atoms as a structure; results of their calculator become labels."""
    labels = charges_of(atoms) if needs.atom_charges else {}
    if atoms.calc is not None:
        results = atoms.calc.results
        labels |= {name: results[name] for name in ("energy", "forces") if name in results}
        if "stress" in results:
            labels["stress"] = voigt_6_to_full_3x3_stress(results["stress"])
    features = features_of(atoms, [name for name, _ in needs.features])
    more = {"labels": labels, "features": features, **electrons_of(atoms, ("charge", "multiplicity"))}
    return Structure(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, origin=f"atoms {index}", **more)


def _texts(paths: str | Path | Sequence[str | Path]) -> list[str]:
    return [str(paths)] if isinstance(paths, str | Path) else [str(p) for p in paths]
