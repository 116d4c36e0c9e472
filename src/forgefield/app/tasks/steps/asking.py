"""A model and the structures it is asked about."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from forgefield.app.baseline.applying import asked
from forgefield.app.baseline.naming import check_alone
from forgefield.app.run import RunConfig
from forgefield.app.tasks.steps.datasets import check_heads, open_asked
from forgefield.app.tasks.steps.machine import choose_device
from forgefield.app.tasks.steps.models import find_bundle, load_start
from forgefield.app.tasks.steps.outcome import say
from forgefield.core.errors import ConfigError, DataError, ModelError
from forgefield.core.quantities import ALWAYS, Quantity
from forgefield.data.checks import check_elements
from forgefield.data.dataset import Dataset
from forgefield.data.settings import DataSettings
from forgefield.models.bundle import read_manifest, save_bundle, sha256
from forgefield.models.potential import Potential


@dataclass(frozen=True)
class Question:
    """A loaded model, the structures to predict, and where they come from.

    Args:
        potential: the model.
        dataset: the structures.
        paths: files of the structures.
        device: where to compute.
        weights_sha256: identity of the weights.
    """

    potential: Potential
    dataset: Dataset
    paths: tuple[Path, ...]
    device: torch.device
    weights_sha256: str


def ask(config: RunConfig, console: Console) -> Question:
    """Load the model and open the structures, and check that they go together.

    Raises:
        ForgeError: model, data, head or device cannot be used.
    """
    device = choose_device(config.device, console)
    potential = load_start(config, device)
    head = config.model.head
    if head is not None and head not in potential.heads:
        raise ModelError(f"the model has no head {head!r}", "model.head", f"use one of: {', '.join(potential.heads)}")
    dataset, paths = open_asked(_with_features(config.data, potential), head)
    check_heads(dataset, potential.heads, "model.head")
    check_elements(dataset, potential.elements, "the model")
    check_alone(config, potential, console)
    dataset = asked(config, potential, dataset, console)
    question = Question(potential, dataset, paths, device, _weights_sha256(config))
    say(console, f"model: {model_text(question)}")
    say(console, f"data: {len(dataset)} structures")
    return question


def _with_features(data: DataSettings, potential: Potential) -> DataSettings:
    """Return the data block with the features that the model needs; those not named are sought under their own name."""
    own = {name: name for name, _ in potential.needs.features}
    return data.model_copy(update={"features": own | data.features}) if own else data


def check_comparable(potential: Potential, dataset: Dataset, console: Console) -> None:
    """Refuse to evaluate a model on data that have no label of what it predicts; say which of its targets have none.

    Raises:
        DataError: there is none, or one of another kind, such as a number where the model predicts a class.
    """
    targets = potential.targets.quantities
    names = {*(ALWAYS if potential.context.energy else ()), *targets}
    labelled = {name for kind in dataset.survey.present() for name in kind.labels}
    _check_kinds(potential, dataset)
    lacking = [name for name in targets if name not in labelled]
    declared = "; ".join(f"data.targets: {{{name}: {_declaration(targets[name])}}}" for name in lacking)
    if not names & labelled:
        what = f"no frame has a label of what the model predicts ({', '.join(sorted(names))})"
        raise DataError(what, dataset.name, f"declare it: {declared}, or use task infer")
    if lacking:
        say(console, f"note: no frame has {', '.join(lacking)}, which is not compared; to do so: {declared}")


def _check_kinds(potential: Potential, dataset: Dataset) -> None:
    for name, wanted in potential.targets.quantities.items():
        survey = dataset.survey
        for place in np.flatnonzero(survey.where(name in kind.labels for kind in survey.kinds))[:1]:
            found = dataset[int(place)].declared.get(name, wanted)
            if (found.kind, found.per, found.width) != (wanted.kind, wanted.per, wanted.width):
                what = f"{name} is {_in_words(found)} there; the model predicts {_in_words(wanted)}"
                raise DataError(what, dataset.name, f"declare it: data.targets: {{{name}: {_declaration(wanted)}}}")


def _in_words(quantity: Quantity) -> str:
    what = "a class" if quantity.kind == "class" else "a number" if quantity.width == 1 else f"{quantity.width} numbers"
    return f"{what} of each {quantity.per}"


def _declaration(quantity: Quantity) -> str:
    """Return the entry of data.targets that finds a target."""
    width = f", components: {quantity.width}" if quantity.width > 1 else ""
    level = ", threshold: NUMBER" if quantity.kind == "class" else ""
    return f"{{key: NAME_IN_THE_FILE, per: {quantity.per}{width}{level}}}"


def model_text(question: Question) -> str:
    """Return the model in words."""
    potential = question.potential
    count = sum(p.numel() for p in potential.parameters())
    return f"{potential.backend}, {count:,} parameters, {str(potential.dtype).removeprefix('torch.')}"


def output_folder(config: RunConfig, name: str) -> Path:
    """Return where evaluate and infer write: output.dir, else a folder of run_dir."""
    if config.output.dir is not None:
        return config.output.dir
    if config.run_dir is None:
        raise ConfigError("neither output.dir nor run_dir is given", "output.dir", "name the folder to write to")
    kind = "evaluation" if config.task == "evaluate" else "inference"
    return config.run_dir / kind / name


def save_loaded(config: RunConfig, question: Question) -> list[Path]:
    """Save the loaded model as a bundle where `model.export` asks for it."""
    if config.model.export is None:
        return []
    provenance = {"run": config.name, "task": config.task, "weights_sha256": question.weights_sha256}
    return [save_bundle(question.potential, config.model.export.dir, provenance=provenance)]


def _weights_sha256(config: RunConfig) -> str:
    assert config.start is not None
    manifest, folder = read_manifest(find_bundle(config.start))
    return sha256(config.model.weights or folder / manifest["weights"]["path"])
