"""Defaults of the train block that follow from other blocks, for example an architecture's learning rate."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from forgefield.app.run_rules import replaced
from forgefield.app.yaml_source import Node, Place
from forgefield.core.catalog import Catalog
from forgefield.core.errors import ForgeError

ARCHITECTURES = "forgefield.models.architectures"


def training_defaults(backend: str) -> Mapping[str, Any]:
    """Return what suits an architecture better than the general defaults; empty if there is none of this name."""
    catalog = Catalog(ARCHITECTURES)
    return catalog.entry(backend).training if backend in catalog.names() else {}


def fill_training(tree: Node) -> Node:
    """Put defaults where a run that begins to train says nothing.

    Those of an architecture are for the default optimizer: a run that names another one gets the general defaults.
    """
    tree = _fill_freeze(tree)
    backend = _backend(tree)
    optimizer = tree.find("train", "optimizer")
    if backend is None or optimizer is not None:
        return tree
    for key, value in training_defaults(backend).items():
        if tree.find("train", key) is None:
            tree = replaced(tree, ("train", key), Node(value, Place(f"default of {backend}")))
    return tree


def _fill_freeze(tree: Node) -> Node:
    """With `finetune.correction` the loaded network stays as it is, unless the run says something else."""
    asked = tree.find("finetune", "correction")
    if asked is None or asked.value is not True or tree.find("train", "freeze") is not None:
        return tree
    return replaced(tree, ("train", "freeze"), Node("base", Place("default with finetune.correction")))


def _backend(tree: Node) -> str | None:
    """The architecture that a run trains, fine-tunes or goes on with; None where none can be told."""
    task = tree.child("task")
    if task is None or task.value not in ("train", "finetune", "resume"):
        return None
    named = tree.child("backend")
    if named is not None or task.value == "train":
        return str(named.value) if named is not None else None
    start = tree.child("model_in")
    return None if start is None else _of_bundle(Path(str(start.value)))


def _of_bundle(path: Path) -> str | None:
    from forgefield.app.tasks.steps.models import find_bundle  # needs torch, which not every command does
    from forgefield.models.bundle import read_manifest

    try:
        return str(read_manifest(find_bundle(path))[0].get("backend"))
    except (ForgeError, OSError):
        return None  # loading it says what is wrong
