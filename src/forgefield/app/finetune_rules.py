"""What the `finetune` block and the others demand of each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from forgefield.app.finetune_keys import FinetuneSettings
from forgefield.app.validation import problem
from forgefield.app.yaml_source import Node

if TYPE_CHECKING:
    from forgefield.app.run import RunConfig

BLOCK = "finetune"
PATHS = ((BLOCK, "replay", "data"), (BLOCK, "replay", "val"))


def only_for_finetuning(config: RunConfig, tree: Node) -> Iterator[str]:
    """Keys of the block change nothing in other tasks."""
    if config.task in ("finetune", "resume"):
        return
    default = FinetuneSettings()
    for key in FinetuneSettings.model_fields:
        if getattr(config.finetune, key) != getattr(default, key):
            yield problem(tree, (BLOCK, key), f"has no effect with task {config.task}. Remove it, or use task finetune")


def one_source_of_reference_energies(config: RunConfig, tree: Node) -> Iterator[str]:
    """`data.e0` gives energies; the block says what is done with them."""
    how, given = config.finetune.reference_energies, config.data.e0 != "auto"
    if how in ("keep", "estimate") and given:
        text = f"{how!r}, but data.e0 gives reference energies. Remove data.e0, or write given"
        yield problem(tree, (BLOCK, "reference_energies"), text)
    if how == "given" and not given:
        text = "'given', but data.e0 is not set. Set it to values, a file, isolated or least_squares"
        yield problem(tree, (BLOCK, "reference_energies"), text)


def one_head_for_the_new_data(config: RunConfig, tree: Node) -> Iterator[str]:
    """`finetune.head` makes a head, `train.head_key` chooses one."""
    new, chosen = config.finetune.head, config.train.head_key
    if new is not None and chosen is not None and new != chosen:
        text = f"{new!r} is the new head of the new data, but train.head_key says {chosen!r}. Keep one of them"
        yield problem(tree, (BLOCK, "head"), text)


def a_correction_to_what_stays(config: RunConfig, tree: Node) -> Iterator[str]:
    """A correction is learned to a model that does not change, or both are trained."""
    if config.finetune.correction and config.train.freeze == "head_only":
        text = "'head_only', but finetune.correction trains a network of its own. Remove it"
        yield problem(tree, ("train", "freeze"), text)
    if config.task == "train" and config.train.freeze == "base":
        yield problem(tree, ("train", "freeze"), "'base', but task train begins with random weights. Remove it")


RULES = (
    only_for_finetuning, one_source_of_reference_energies, one_head_for_the_new_data, a_correction_to_what_stays,
)  # fmt: skip
