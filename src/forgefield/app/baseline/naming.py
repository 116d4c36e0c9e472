"""The baseline of a run: given to its model, and named in what it writes."""

from __future__ import annotations

import dataclasses

from rich.console import Console

from forgefield.app.run import RunConfig
from forgefield.app.tasks.steps.outcome import say
from forgefield.core.errors import ConfigError, ModelError
from forgefield.core.structure import Structure
from forgefield.data.dataset import Dataset
from forgefield.data.differences import as_labelled
from forgefield.data.parts import View
from forgefield.models.baseline.xtb import Xtb
from forgefield.models.potential import Potential


def give_baseline(potential: Potential, config: RunConfig) -> None:
    """Give a new model the baseline that the run asks for.

    Raises:
        ModelError: the program that computes it is not installed, or the model's charges have another task.
    """
    baseline = config.model.baseline
    if baseline is None:
        return
    if not potential.context.energy:
        what = f"corrects the energies of {baseline.name}, but this model has no energies"
        raise ModelError(what, "model.baseline", "take it out, or give energies or forces a weight")
    if baseline.computed:
        Xtb(baseline)
    charged = [name for name, term in potential.physics.items() if term.uses_charges]
    if "charges" in baseline.targets and charged:
        what = f"the term {charged[0]} takes the model's charges, which would be differences to {baseline.name}"
        raise ModelError(what, "model.baseline.targets", "remove charges from it, or give the term charges by element")
    potential.baseline = baseline


def check_alone(config: RunConfig, potential: Potential, console: Console) -> None:
    """Say where a correction alone is predicted.

    Raises:
        ConfigError: it is asked for, and the model is whole.
    """
    if not config.eval.correction_alone:
        return
    if potential.baseline is None:
        raise ConfigError("the model corrects no baseline: it is whole", "eval.correction_alone", "remove it")
    say(console, f"note: what is predicted is the correction to {potential.baseline.name} alone")


class Noted(View):
    """Structures with a word in their `info`."""

    def __init__(self, dataset: Dataset, name: str, text: str) -> None:
        super().__init__(dataset)
        self._added = {name: text}

    def __getitem__(self, index: int) -> Structure:
        structure = self.dataset[index]
        return dataclasses.replace(structure, info={**structure.info, **self._added})


def as_written(config: RunConfig, potential: Potential, dataset: Dataset) -> Dataset:
    """Return the structures as predictions are written beside them; a correction alone is named in each frame."""
    if config.eval.correction_alone and potential.baseline is not None:
        return Dataset([Noted(dataset, "correction_to", potential.baseline.name)])
    return as_labelled(dataset)
