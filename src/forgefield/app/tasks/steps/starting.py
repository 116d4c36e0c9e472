"""The model that fine-tuning begins with: loaded, widened, its reference energies settled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from forgefield.app.run import RunConfig
from forgefield.app.tasks.steps.correcting import check_trained_part, inventory_of, with_correction
from forgefield.app.tasks.steps.datasets import check_heads
from forgefield.app.tasks.steps.fitting import Ordered
from forgefield.app.tasks.steps.levels import check_dispersion, state_dispersion
from forgefield.app.tasks.steps.models import check_asked_files, load_start, own_references
from forgefield.app.tasks.steps.references import References, Refit, how_references, trained_heads
from forgefield.core.elements import symbol
from forgefield.core.errors import DataError
from forgefield.data.checks import check_elements
from forgefield.data.parts import TrainingData, reference_setting
from forgefield.data.reference import E0
from forgefield.models.potential import Potential
from forgefield.models.widening import Growth, TensorRow, nearest_element, widen


@dataclass(frozen=True)
class Start:
    """What fine-tuning begins with.

    Args:
        potential: the model that is trained.
        before: what is judged before training; where a correction is added, the model without it.
        growth: what was added to the loaded one.
        tensors: where the numbers of each tensor come from.
        references: every reference energy, before and after.
        how: keep, estimate or given.
        heads: those that the new data train.
        e0: reference energies to measure the new data with.
    """

    potential: Potential
    before: Potential
    growth: Growth
    tensors: list[TensorRow]
    references: References
    how: str
    heads: list[str]
    e0: E0

    def to_json(self) -> dict[str, Any]:
        """Return plain values for the record."""
        return {
            "new_elements": {symbol(z): [symbol(s) for s in row] for z, row in self.growth.elements.items()},
            "new_heads": dict(self.growth.heads),
            "dropped_heads": list(self.growth.dropped),
            **({"base": base} if (base := self.potential.context.fidelity.base) is not None else {}),
            "tensors": [{**row._asdict(), "shape": list(row.shape), "group": row.group} for row in self.tensors],
            "reference_energies": self.how,
            "references": [row._asdict() for row in self.references.rows],
            "notes": list(self.references.notes),
        }


def begin(run: Ordered, data: TrainingData) -> Start:
    """Load the model, give it the elements and the head that the settings add, and settle its reference energies.

    Raises:
        ForgeError: model, data and settings do not fit together.
    """
    loaded = load_start(run.config, run.device)
    check_asked_files(run.config, loaded)
    growth = growth_for(run.config, loaded, data)
    potential = before = widen(loaded, growth)
    state_dispersion(potential, run.config.data)
    check_dispersion(potential)
    check_heads(data.train, potential.heads, "train.head_key")
    if data.replay is not None:
        check_elements(data.replay.train, loaded.elements, "the loaded model")
        check_elements(data.replay.val, loaded.elements, "the loaded model")
        named = data.replay.train.heads()
        if named:
            check_heads(data.replay.train, potential.heads, "finetune.replay.head")
    references = Refit(run, potential, data, list(growth.elements)).settle()
    heads, how = trained_heads(potential, data), how_references(run)
    e0 = reference_setting(run.config.data) if how == "given" else _own(potential, data, heads)
    if run.config.finetune.correction:
        potential = with_correction(run, before, data, growth)
    check_trained_part(run.config, potential, data)
    tensors = inventory_of(loaded, potential, growth)
    return Start(potential, before, growth, tensors, references, how, heads, e0)


def growth_for(config: RunConfig, loaded: Potential, data: TrainingData) -> Growth:
    """Return what the settings and the data ask to add.

    Raises:
        DataError: the data have elements that the model does not know, and they are not to be added.
    """
    block = config.finetune
    new = [z for z in data.train.elements() if z not in loaded.elements]
    if new and block.new_elements == "refuse":
        _refuse(data, loaded)
    known = loaded.elements
    starts = {z: known if block.new_element_start == "mean" else [nearest_element(z, known)] for z in new}
    heads = {block.head: block.copy_head or loaded.heads[0]} if block.head is not None else {}
    return Growth(starts, heads, block.drop_heads)


def _refuse(data: TrainingData, loaded: Potential) -> None:
    try:
        check_elements(data.train, loaded.elements, "the model")
    except DataError as error:
        fix = f"{error.fix}; or give the model further elements with finetune.new_elements: add"
        raise DataError(error.what, error.where, fix) from None


def _own(potential: Potential, data: TrainingData, heads: list[str]) -> E0:
    table = own_references(potential, data.train.elements())
    return {head: table[head] for head in heads}
