"""Building a new potential from measurements, or loading one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from forgefield.app.baseline.naming import give_baseline
from forgefield.app.run import RunConfig
from forgefield.app.tasks.steps.datasets import heads_of
from forgefield.app.tasks.steps.levels import check_dispersion, state_dispersion
from forgefield.app.tasks.steps.run import Run
from forgefield.core.catalog import Catalog
from forgefield.core.disk import write_atomic
from forgefield.core.elements import symbol
from forgefield.core.errors import ConfigError, DataError, ModelError
from forgefield.core.settings import Settings
from forgefield.data.dataset import Dataset
from forgefield.data.parts import TrainingData, reference_setting
from forgefield.data.reference import E0
from forgefield.data.statistics import Statistics, measure
from forgefield.models.architecture import ArchitectureContext
from forgefield.models.bundle import MANIFEST, WEIGHTS, load_bundle
from forgefield.models.potential import Potential, build_potential

ARCHITECTURES = "forgefield.models.architectures"
FOREIGN = {".model", ".pt", ".pth", ".ckpt", ".bin"}


def measure_data(run: Run, data: TrainingData, cutoff: float, e0: E0, heads: list[str]) -> Statistics:
    """Measure the training part, keep the numbers in statistics.json, and say what the user should know."""
    with run.record.stage("reading"):
        statistics = measure(data.measured, cutoff, e0, heads)
    write_atomic(run.folder.statistics, statistics.to_json() + "\n")
    for note in statistics.notes:
        run.say(f"note: {note}")
    run.say(
        f"measured: {statistics.avg_num_neighbors:.1f} neighbours within {cutoff:g} Å; "
        f"reference energies: {statistics.reference_source}"
    )
    return statistics


def build_new(run: Run, data: TrainingData) -> Potential:
    """Measure the training data and build a potential with random weights for it."""
    cutoff, e0, heads = to_measure(run.config, data.train)
    statistics = measure_data(run, data, cutoff, e0, heads)
    return note_model(run, assemble(run.config, heads, statistics, run.dtype))


def to_measure(config: RunConfig, train: Dataset) -> tuple[float, E0, list[str]]:
    """Return what `measure` needs to know of a new model: its cutoff, Å, its reference energies and heads."""
    given = config.model_json
    e0: E0 = reference_setting(config.data)
    if given and given.reference_energies:
        e0 = {h: {symbol(z): e for z, e in row.items()} for h, row in given.reference_energies.items()}
    return cutoff_of(*_architecture(config)), e0, list(given.heads) if given else heads_of(train)


def assemble(config: RunConfig, heads: list[str], statistics: Statistics, dtype: torch.dtype) -> Potential:
    """Build the potential with random weights that training begins with, from what was measured."""
    given = config.model_json
    backend, settings = _architecture(config)
    scale = [_scale(statistics, head) for head in heads]
    shift = [statistics.by_head[head]["energy_mean_per_atom"] or 0.0 for head in heads]
    energies, elements, neighbours = statistics.reference_energies, statistics.elements, statistics.avg_num_neighbors
    if given:
        elements = _known_to_model_json(list(given.elements), statistics)
        energies = given.reference_energies or energies
        neighbours = given.avg_num_neighbors or neighbours
        scale = list(given.scale) if given.scale else scale
        shift = list(given.shift) if given.shift else [0.0] * len(heads)
    potential = build_potential(
        backend,
        settings,
        elements=elements,
        heads=heads,
        reference_energies=energies,
        avg_num_neighbors=neighbours,
        scale=scale,
        shift=shift,
        physics=config.model.physics,
        fidelity=config.model.fidelity,
        dtype=dtype,
        seed=config.train.seed,
    )
    asked = config.export.targets if config.export.standard_artifacts else ()
    if asked and potential.unexportable:
        what = f"the physics term {potential.unexportable[0]} cannot be in a file of {', '.join(asked)}"
        raise ConfigError(what, "export.targets", "set it to []: the weights alone serve Python and ASE")
    _check_named_levels(config, heads)
    give_baseline(potential, config)
    state_dispersion(potential, config.data)
    check_dispersion(potential)
    return potential


def _check_named_levels(config: RunConfig, heads: list[str]) -> None:
    """Refuse settings of physics terms that name a level which the model will not have."""
    for name, settings in config.model.physics.items():
        for key, value in settings.model_dump().items():
            unknown = sorted(set(value) - set(heads)) if key == "functional" and isinstance(value, dict) else []
            if unknown:
                what = f"names {unknown[0]!r}, which no training structure belongs to"
                raise ConfigError(what, f"model.physics.{name}.{key}", f"levels of the data: {', '.join(heads)}")


def cutoff_of(backend: str, settings: Settings) -> float:
    """Return the cutoff that an architecture will ask for, Å, from a trial model of one element."""
    with torch.random.fork_rng(devices=[]):
        trial = Catalog(ARCHITECTURES).entry(backend).build(settings, ArchitectureContext((1,), ("default",), 1.0))
    return float(trial.needs.cutoff)


def load_start(config: RunConfig, device: torch.device) -> Potential:
    """Load the model a run starts from, in the precision the run asks for, else in its own.

    Raises:
        ModelError: there is none, it is damaged, or it is of another program.
    """
    if config.start is None:
        raise ConfigError("model_in is not given", "model_in", "name the artifacts or checkpoint folder to load")
    dtype = {"float32": torch.float32, "float64": torch.float64}[config.dtype]
    wanted = dtype if "dtype" in config.model_fields_set else None
    return load_bundle(find_bundle(config.start), dtype=wanted, device=device, weights=config.model.weights)


def find_bundle(path: Path) -> Path:
    """Return the folder of the bundle that a path means: itself, or the best one of a run folder.

    Raises:
        ModelError: there is no bundle.
    """
    path = Path(path)
    if path.is_dir():
        for inside in (".", "artifacts", "checkpoints/best"):
            if (path / inside / MANIFEST).is_file():
                return path / inside
        found = ", ".join(sorted(p.name for p in path.iterdir())[:5]) or "nothing"
        fix = "give a folder that has it, such as runs/demo/artifacts or runs/demo/checkpoints/best"
        raise ModelError(f"holds no {MANIFEST} (it holds {found})", str(path), fix)
    if not path.exists():
        raise ModelError("does not exist", str(path), "give the artifacts or checkpoint folder of a run")
    if path.suffix in FOREIGN:
        what = f"is a {path.suffix} file, which may run code when it is opened and is never loaded here"
        raise ModelError(what, str(path), f"turn it into a bundle first: forgefield import {path}")
    if path.suffix == Path(WEIGHTS).suffix:
        if (path.parent / MANIFEST).is_file() and path.name == WEIGHTS:
            return path.parent
        raise ModelError(
            f"weights alone do not describe a model: no {MANIFEST} beside them", str(path), "give its folder"
        )
    return path


def own_references(potential: Potential, elements: list[int]) -> dict[str, dict[str, float]]:
    """Return the reference energies of a potential for some elements, as `data.e0` would give them."""
    rows = potential.self_energies.tolist()
    return {
        head: {symbol(z): rows[k][potential.elements.index(z)] for z in elements}
        for k, head in enumerate(potential.heads)
    }


def note_model(run: Run, potential: Potential) -> Potential:
    """Record and say what the model is; return it."""
    described = describe_model(potential)
    run.record.note(model=described, backend=potential.backend)
    names = " ".join(symbol(z) for z in potential.elements)
    heads = f"; heads: {', '.join(potential.heads)}" if len(potential.heads) > 1 else ""
    run.say(f"model: {potential.backend}, {described['parameters']:,} parameters; elements: {names}{heads}")
    return potential


def describe_model(potential: Potential) -> dict[str, Any]:
    """Return what the model is, in plain values."""
    return {
        "backend": potential.backend,
        "parameters": sum(p.numel() for p in potential.parameters()),
        "elements": potential.elements,
        "heads": potential.heads,
        "cutoff": potential.cutoff,
        "settings": potential.settings.model_dump(mode="json"),
        "scale": potential.scale.tolist(),
        "shift": potential.shift.tolist(),
        **({} if potential.baseline is None else {"baseline": potential.baseline.name}),
    }


def _architecture(config: RunConfig) -> tuple[str, Settings]:
    if config.backend is None or config.model.settings is None:
        known = ", ".join(Catalog(ARCHITECTURES).names())
        raise ConfigError("backend is not given", "backend", f"name the architecture: {known}")
    return config.backend, config.model.settings


def _scale(statistics: Statistics, head: str) -> float:
    """Scale of the energies: typical force, else spread of the energies, else one."""
    found = statistics.by_head[head]
    return found["force_rms"] or found["energy_std_per_atom"] or 1.0


def _known_to_model_json(elements: list[int], statistics: Statistics) -> list[int]:
    missing = [symbol(z) for z in statistics.elements if z not in elements]
    if missing:
        names = ", ".join(missing)
        raise DataError(f"the data have {names}, which z_table lacks", "train.input_json", f"add {names} to z_table")
    return elements
