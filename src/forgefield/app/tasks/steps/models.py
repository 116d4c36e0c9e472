"""Building a new potential from measurements, or loading one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from forgefield.app.baseline.naming import give_baseline
from forgefield.app.run import RunConfig
from forgefield.app.tasks.steps.aims import aims_of, unseen_elements, with_spreads
from forgefield.app.tasks.steps.datasets import heads_of
from forgefield.app.tasks.steps.levels import check_dispersion, state_dispersion
from forgefield.app.tasks.steps.run import Run
from forgefield.core.catalog import Catalog
from forgefield.core.disk import write_atomic
from forgefield.core.elements import symbol
from forgefield.core.errors import ConfigError, DataError, ModelError
from forgefield.core.settings import Settings
from forgefield.data.parts import TrainingData, reference_setting
from forgefield.data.reference import E0
from forgefield.data.statistics import Statistics, measure
from forgefield.export.target import check_files
from forgefield.models.architecture import ArchitectureContext
from forgefield.models.bundle import MANIFEST, WEIGHTS, load_bundle
from forgefield.models.potential import Potential, build_potential
from forgefield.models.targets import Aims

ARCHITECTURES = "forgefield.models.architectures"
FOREIGN = {".model", ".pt", ".pth", ".ckpt", ".bin"}


class ToMeasure(NamedTuple):
    """What `measure` needs to know of a model: its cutoff, Å, reference energies, heads, and what it shall predict.

    `unseen` are elements that it shall know beside those of the training structures.
    """

    cutoff: float
    e0: E0
    heads: list[str]
    aims: Aims
    unseen: Sequence[int] = ()

    def of(self, data: TrainingData) -> Statistics:
        """Measure the training part."""
        more = {"energies": self.aims.energy, "targets": self.aims.targets}
        return measure(data.measured, self.cutoff, self.e0, self.heads, **more)


def measure_data(run: Run, data: TrainingData, asked: ToMeasure) -> Statistics:
    """Measure the training part, keep the numbers in statistics.json, and say what the user should know."""
    with run.record.stage("reading"):
        statistics = asked.of(data)
    write_atomic(run.folder.statistics, statistics.to_json() + "\n")
    for note in statistics.notes:
        run.say(f"note: {note}")
    energies = f"; reference energies: {statistics.reference_source}" if asked.aims.energy else ""
    run.say(f"measured: {statistics.avg_num_neighbors:.1f} neighbours within {asked.cutoff:g} Å{energies}")
    return statistics


def build_new(run: Run, data: TrainingData) -> Potential:
    """Measure the training data and build a potential with random weights for it."""
    asked = to_measure(run.config, data)
    if asked.unseen:
        names = ", ".join(symbol(z) for z in asked.unseen)
        run.say(f"note: no training structure has {names}: they are judged by what is known of elements")
    statistics = measure_data(run, data, asked)
    return note_model(run, assemble(run.config, asked, statistics, run.dtype))


def to_measure(config: RunConfig, data: TrainingData) -> ToMeasure:
    """Return what `measure` needs to know of a new model."""
    given = config.model_json
    e0: E0 = reference_setting(config.data)
    if given and given.reference_energies:
        e0 = {h: {symbol(z): e for z, e in row.items()} for h, row in given.reference_energies.items()}
    heads, aims = list(given.heads) if given else heads_of(data.train), aims_of(config, data.train)
    return ToMeasure(cutoff_of(*_architecture(config), aims), e0, heads, aims, unseen_elements(config, data))


def assemble(config: RunConfig, asked: ToMeasure, statistics: Statistics, dtype: torch.dtype) -> Potential:
    """Build the potential with random weights that training begins with, from what was measured."""
    given, heads = config.model_json, asked.heads
    backend, settings = _architecture(config)
    base = config.model.fidelity.base
    check_base(base, heads, asked.aims.energy)
    scale = [_scale(statistics, base or head) for head in heads]
    shift = [statistics.by_head[head]["energy_mean_per_atom"] or 0.0 for head in heads]
    energies, neighbours = statistics.reference_energies, statistics.avg_num_neighbors
    elements = [*statistics.elements, *asked.unseen]
    energies = {head: {**dict.fromkeys(asked.unseen, 0.0), **row} for head, row in energies.items()}
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
        aims=with_spreads(asked.aims, statistics),
        dtype=dtype,
        seed=config.train.seed,
    )
    check_asked_files(config, potential)
    _check_named_levels(config, heads)
    if config.model.baseline is not None and not asked.aims.energy:
        what = "is a level of theory for energies, which this model does not learn"
        raise ConfigError(what, "model.baseline", "take it out, or give energies a weight")
    give_baseline(potential, config)
    state_dispersion(potential, config.data)
    check_dispersion(potential)
    return potential


def check_asked_files(config: RunConfig, potential: Potential) -> None:
    """Refuse a model that no file of `export.targets` can hold, before it is trained."""
    if config.export.standard_artifacts:
        check_files(potential, config.export.targets)


def _check_named_levels(config: RunConfig, heads: list[str]) -> None:
    """Refuse settings of physics terms that name a level which the model will not have."""
    for name, settings in config.model.physics.items():
        for key, value in settings.model_dump().items():
            unknown = sorted(set(value) - set(heads)) if key == "functional" and isinstance(value, dict) else []
            if unknown:
                what = f"names {unknown[0]!r}, which no training structure belongs to"
                raise ConfigError(what, f"model.physics.{name}.{key}", f"levels of the data: {', '.join(heads)}")


def check_base(base: str | None, heads: list[str], energy: bool) -> None:
    """Refuse a base that no structure belongs to, and one that nothing is a correction to."""
    if base is not None and not energy:
        what = "is a level whose energies are corrected, but this model has no energies"
        raise ConfigError(what, "model.fidelity.base", "remove it, or give energies or forces a weight")
    if base is not None and base not in heads:
        what = f"is {base!r}, which no training structure belongs to"
        raise ConfigError(what, "model.fidelity.base", f"levels of the data: {', '.join(heads)}")
    if base is not None and len(heads) < 2:
        what = f"there is no level but {base!r} that could be a correction to it"
        raise ConfigError(what, "model.fidelity.base", "remove it, or give data of another level")


def cutoff_of(backend: str, settings: Settings, aims: Aims = Aims()) -> float:  # noqa: B008 (never changed)
    """Return the cutoff that an architecture will ask for, Å, from a trial model of one element."""
    more = {"targets": aims.targets, "energy": aims.energy, "features": aims.features}
    context = ArchitectureContext((1,), ("default",), 1.0, **more)
    with torch.random.fork_rng(devices=[]):
        trial = Catalog(ARCHITECTURES).entry(backend).build(settings, context)
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
    if potential.jumps:
        run.say(f"note: {potential.jumps}")
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
        **({"jumps": potential.jumps} if potential.jumps else {}),
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
