"""What `model.baseline` and the other blocks of a run demand of each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pydantic import ValidationError

from forgefield.app.manifests import read_manifest
from forgefield.app.validation import problem
from forgefield.app.yaml_source import Node
from forgefield.models.baseline.settings import BaselineSettings

if TYPE_CHECKING:
    from forgefield.app.run import RunConfig

MAKING = ("train", "finetune", "resume")


def settled(config: RunConfig) -> BaselineSettings | None:
    """Return the baseline of the model that a run starts from, else of the one it makes."""
    if config.start is None:
        return config.model.baseline
    manifest = read_manifest(config.start) or {}
    try:
        return BaselineSettings.model_validate(manifest["baseline"]) if "baseline" in manifest else None
    except ValidationError:
        return None  # loading reports it


def energies_of_differences(config: RunConfig, tree: Node) -> Iterator[str]:
    """Reference energies of labels are none of label minus base."""
    if config.task not in MAKING or (baseline := settled(config)) is None:
        return
    if not isinstance(config.data.e0, str):
        text = (
            f"energies of the labels, but the model learns label minus {baseline.name}. Use least_squares or isolated"
        )
        yield problem(tree, ("data", "e0"), text)
    if config.model_json is not None and config.model_json.reference_energies is not None:
        yield problem(tree, ("train", "input_json"), f"has reference energies, but the model corrects {baseline.name}")


def files_hold_the_correction(config: RunConfig, tree: Node) -> Iterator[str]:
    """Exported files know nothing of the base level."""
    if config.task not in (*MAKING, "export"):
        return
    baseline, alone = settled(config), config.export.correction_alone
    if baseline is None:
        if alone and config.task != "resume":
            text = "has an effect for models with model.baseline only. Remove it"
            yield problem(tree, ("export", "correction_alone"), text)
        return
    if config.export.targets and not alone and (config.export.standard_artifacts or config.task == "export"):
        text = (
            f"a file of {', '.join(config.export.targets)} would hold the correction to {baseline.name} alone. "
            "Set it to []: the weights serve Python and ASE as a whole; or set export.correction_alone: true"
        )
        yield problem(tree, ("export", "targets"), text)


def correction_is_for_infer(config: RunConfig, tree: Node) -> Iterator[str]:
    """Errors of the correction are those of the whole."""
    if config.eval.correction_alone and config.task != "infer":
        text = f"has an effect with task infer only, not {config.task}. Remove it"
        yield problem(tree, ("eval", "correction_alone"), text)


def differences_are_trained(config: RunConfig, tree: Node) -> Iterator[str]:
    """What is learned as a difference must be learned."""
    if config.task != "train" or config.model.baseline is None:
        return
    for name in config.model.baseline.targets:
        if name not in config.train.targets:
            text = f"{name} is not trained. Add it to train.targets, or remove it here"
            yield problem(tree, ("model", "baseline", "targets"), text)


RULES = (energies_of_differences, files_hold_the_correction, correction_is_for_infer, differences_are_trained)
