"""Rules that no block can know alone: aliases, refused keys, paths, the task, what the blocks demand of each other."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from forgefield.app import finetune_rules, resume_rules
from forgefield.app.baseline import rules as baseline_rules
from forgefield.app.manifests import read_manifest as manifest_at
from forgefield.app.settings_help import block_of, nearest, spellings, yaml_text
from forgefield.app.validation import problem
from forgefield.app.yaml_source import Node
from forgefield.core.catalog import Catalog
from forgefield.data.settings import PATH_KEYS
from forgefield.models.architecture import Fidelity

if TYPE_CHECKING:
    from forgefield.app.run import RunConfig

_OTHER_INTERPRETER = (
    "is reserved for backends that train in their own interpreter (GemNet-OC and EquiformerV2, not in this version); "
    "this one trains in its own process. Remove it"
)
_ONE_TRAINER = "there is only one trainer here, and it is always used. Remove it"
_FIXED_NAMES = "the files of a bundle have fixed names (weights.safetensors, manifest.json). Remove it; `dir` is free"
REFUSED = {
    ("backend_python",): _OTHER_INTERPRETER, ("python",): _OTHER_INTERPRETER, ("backend_env",): _OTHER_INTERPRETER,
    ("backend_args",): _OTHER_INTERPRETER, ("backend_extra",): _OTHER_INTERPRETER,
    ("backend_command",): _OTHER_INTERPRETER, ("backend_script",): _OTHER_INTERPRETER,
    ("backend_cwd",): _OTHER_INTERPRETER, ("train", "config_yml"): _OTHER_INTERPRETER,
    ("train", "identifier"): _OTHER_INTERPRETER, ("train", "use_core"): _ONE_TRAINER,
    ("train", "force_core"): _ONE_TRAINER, ("model", "export", "weights_name"): _FIXED_NAMES,
    ("model", "export", "manifest_name"): _FIXED_NAMES,
}  # fmt: skip

PATHS = (
    ("run_dir",), ("model_in",), ("model_in", "manifest"), ("model_in", "weights"), ("model_in", "path"),
    ("model_in", "source"), ("model", "manifest"), ("model", "weights"), ("model", "export", "dir"),
    ("train", "input_json"), ("output", "dir"), *finetune_rules.PATHS,
    *(("data", *key.split(".")) for key in PATH_KEYS),
)  # fmt: skip
TRAINING = ("train", "finetune", "resume")
PREDICTING = ("evaluate", "infer")


# ------------------------------------------------------------------------------------- the tree, before validation


def prepare(tree: Node, block: type[BaseModel], problems: list[str]) -> Node:
    """Replace aliases by real names and take out the keys that are refused, with the reason."""
    tree = rename_aliases(tree, block, problems)
    for path, reason in REFUSED.items():
        if tree.find(*path) is not None:
            problems.append(problem(tree, path, reason))
            tree = _without(tree, path)
    task = tree.child("task")
    if task is not None and task.value == "backend":
        problems.append(problem(tree, ("task",), f"'backend' {_OTHER_INTERPRETER}"))
        tree = tree.with_child("task", None)
    return tree


def rename_aliases(tree: Node, block: type[BaseModel], problems: list[str] | None, path: tuple[Any, ...] = ()) -> Node:
    """Return the tree with every alias under its real name; its key as written is kept for messages.

    Where both are given that is a problem; with None for `problems` both stay.
    """
    if not tree.is_mapping:
        return tree
    names, items = spellings(block), {}
    for key, node in tree.value.items():
        name = names.get(key, key) if isinstance(key, str) else key
        field = block.model_fields.get(name) if isinstance(name, str) else None
        inner = block_of(field.annotation) if field is not None else None
        child = rename_aliases(node, inner, problems, (*path, name)) if inner is not None else node
        if name != key and (name in tree.value or name in items):
            if problems is None:
                items[key] = child
                continue
            where = ".".join(map(str, (*path, key)))
            problems.append(f"{node.place}: {where}: this is another name of {name!r}, which is given too. Keep one")
        else:
            items[name] = child if name == key else Node(child.value, child.place, key)
    return Node(items, tree.place, tree.key)


def resolve_paths(tree: Node, folder: Path) -> Node:
    """Make every path absolute: relative ones are taken from `folder`, `~` is the home folder."""
    for path in PATHS:
        node = tree.find(*path)
        # data.e0 and data.split are words, values or files: only a text with a suffix or a folder can be a file.
        word = path in (("data", "e0"), ("data", "split")) and _is_word(node)
        if node is not None and not word:
            tree = replaced(tree, path, _absolute(node, folder))
    return tree


def _is_word(node: Node | None) -> bool:
    return node is not None and isinstance(node.value, str) and not re.search(r"[./\\]", node.value)


def _absolute(node: Node, folder: Path) -> Node:
    if isinstance(node.value, list):
        return Node([_absolute(item, folder) for item in node.value], node.place, node.key)
    if node.is_mapping and node.child("path") is not None:  # a source of data with settings of its own
        return node.with_child("path", _absolute(node.child("path"), folder))
    if not isinstance(node.value, str) or not node.value.strip():
        return node
    return Node(os.path.normpath(folder / os.path.expanduser(node.value)), node.place, node.key)


def spread_model_in(tree: Node, problems: list[str]) -> Node:
    """Turn `model_in: {manifest | path | source, weights}` into a path and `model.weights`."""
    node = tree.child("model_in")
    if node is None or not node.is_mapping:
        return tree
    places = ("manifest", "path", "source")
    for key in node.value:
        if key not in (*places, "weights"):
            near = nearest(key, (*places, "weights"))
            hint = f" Did you mean {near!r}?" if near else ""
            problems.append(
                problem(tree, ("model_in", key), f"unknown key.{hint} Known here: {', '.join(places)}, weights")
            )
    starts = [node.value[key] for key in places if key in node.value]
    tree = tree.with_child("model_in", None)
    if len(starts) != 1:
        problems.append(f"{node.place}: model_in: give one of manifest, path and source; got {len(starts)}")
        return tree
    tree = tree.with_child("model_in", starts[0])
    weights = node.value.get("weights")
    if weights is not None:
        if tree.find("model", "weights") is not None:
            problems.append(problem(tree, ("model", "weights"), "model_in.weights is given too. Keep one"))
        tree = replaced(tree, ("model", "weights"), weights)
    return tree


def fill_task(tree: Node, problems: list[str]) -> Node:
    """Fill in the task, and the checkpoint that `resume` starts from.

    Without a task a run trains if it has training data and no model to start from; otherwise it evaluates.
    Where both could be meant the user must say which.
    """
    task = tree.child("task")
    starts = _given(tree, "model_in") or _given(tree, "model", "manifest")
    if task is None or task.value is None:
        trains = _given(tree, "data", "train")
        if trains and starts:
            problems.append(problem(tree, ("task",), "required here: finetune, resume, evaluate, infer or export?"))
        tree = tree.with_child("task", Node("train" if trains and not starts else "evaluate", tree.place))
    elif task.value == "resume" and not starts and _given(tree, "run_dir"):
        run_dir = tree.find("run_dir")
        assert run_dir is not None
        last = os.path.join(str(run_dir.value), "checkpoints", "last")
        tree = tree.with_child("model_in", Node(last, run_dir.place, "run_dir"))
    return tree


def _given(tree: Node, *path: str) -> bool:
    node = tree.find(*path)
    return node is not None and node.value is not None


def replaced(tree: Node, path: tuple[str, ...], node: Node | None) -> Node:
    """Return the tree with the node at `path` replaced."""
    if len(path) == 1:
        return tree.with_child(path[0], node)
    inner = tree.child(path[0])
    inner = inner if inner is not None and inner.is_mapping else Node({}, tree.place)
    return tree.with_child(path[0], replaced(inner, path[1:], node))


def _without(tree: Node, path: tuple[str, ...]) -> Node:
    return replaced(tree, path, None)


# ------------------------------------------------------------------------------------- the run, after validation


def cross_block_problems(config: RunConfig, tree: Node) -> list[str]:
    """Return what the blocks of a valid run demand of each other, one line each."""
    rules = (
        one_model_to_start_from, task_has_its_model, training_has_its_data, run_has_its_folder, predicting_has_its_data,
        resume_rules.accepting_is_for_resume, sampling_is_not_replay, targets_exist, weights_have_their_manifest,
        given_settings_are_the_bundles, *finetune_rules.RULES, *baseline_rules.RULES,
    )  # fmt: skip
    return [line for rule in rules for line in rule(config, tree)]


def one_model_to_start_from(config: RunConfig, tree: Node) -> Iterator[str]:
    """`model.manifest` and `model_in` name the same thing."""
    if config.model.manifest is not None and config.model_in is not None:
        yield problem(tree, ("model_in",), "model.manifest is given too, and only one model can be loaded. Keep one")
    elif config.task == "train" and config.start is not None:
        path = ("model_in",) if config.model_in is not None else ("model", "manifest")
        yield problem(tree, path, "task train begins with new weights. Use task finetune to start from these")


def task_has_its_model(config: RunConfig, tree: Node) -> Iterator[str]:
    """Every task but train loads a model."""
    if config.task != "train" and config.start is None:
        hint = " Write `task: train` to train a new one." if config.data.train and config.task == "evaluate" else ""
        text = f"required by task {config.task}: the bundle to load (or model.manifest, its manifest.json).{hint}"
        yield problem(tree, ("model_in",), text)


def training_has_its_data(config: RunConfig, tree: Node) -> Iterator[str]:
    """Training needs structures."""
    if config.task in TRAINING and not config.data.train:
        yield problem(tree, ("data", "train"), f"required by task {config.task}: the structures to train on")


def run_has_its_folder(config: RunConfig, tree: Node) -> Iterator[str]:
    """Whatever writes needs to know where."""
    if config.task in (*TRAINING, "export") and config.run_dir is None:
        yield problem(tree, ("run_dir",), f"required by task {config.task}: the folder to write to, e.g. runs/first")
    if config.task in PREDICTING and config.run_dir is None and config.output.dir is None:
        yield problem(
            tree, ("output", "dir"), f"required by task {config.task} without run_dir: the folder to write to"
        )


def predicting_has_its_data(config: RunConfig, tree: Node) -> Iterator[str]:
    """Evaluation needs structures."""
    if config.task in PREDICTING and not (config.data.lmdb or config.data.test):
        yield problem(tree, ("data", "test"), f"required by task {config.task}: the structures (or data.lmdb)")


def sampling_is_not_replay(config: RunConfig, tree: Node) -> Iterator[str]:
    """Replay draws old and new structures in a share of its own."""
    data = config.data
    for key, given in (("sampling", data.sampling), ("draws_per_epoch", data.draws_per_epoch)):
        if given is not None and config.finetune.replay.data:
            yield problem(tree, ("data", key), "finetune.replay decides what is drawn. Keep one of the two")


def targets_exist(config: RunConfig, tree: Node) -> Iterator[str]:
    """Export formats are plug-ins."""
    known = Catalog("forgefield.export.targets").names()
    for index, name in enumerate(config.export.targets):
        if name not in known:
            near = nearest(name, known)
            hint = f" Did you mean {near!r}?" if near else ""
            text = f"no {name!r} in targets.{hint} There are: {', '.join(known)}"
            yield problem(tree, ("export", "targets", index), text)


def weights_have_their_manifest(config: RunConfig, tree: Node) -> Iterator[str]:
    """Weights alone do not say what model they belong to."""
    if config.model.weights is not None and config.start is None:
        yield problem(tree, ("model", "weights"), "weights alone do not describe a model. Give model.manifest as well")


def given_settings_are_the_bundles(config: RunConfig, tree: Node) -> Iterator[str]:
    """Architecture settings beside a bundle must say what the bundle says; it decides."""
    manifest = read_manifest(config)
    if manifest is None:
        return
    backend = manifest.get("backend")
    if config.backend is not None and backend is not None and config.backend != backend:
        yield problem(
            tree, ("backend",), f"{config.backend!r}, but {config.start} holds a {backend!r}. Remove the line"
        )
        return
    yield from _added_terms_are_the_bundles(config, tree, manifest)
    theirs = manifest.get("settings")
    if config.model.settings is None or not isinstance(theirs, dict):
        return
    ours = config.model.settings.model_dump(mode="json")
    for key in sorted(config.model.settings.model_fields_set):
        if key in theirs and theirs[key] != ours[key]:
            text = (
                f"{yaml_text(ours[key])} here, but {yaml_text(theirs[key])} in {config.start}, which decides. Remove it"
            )
            yield problem(tree, ("model", key), text)


def _added_terms_are_the_bundles(config: RunConfig, tree: Node, manifest: dict[str, Any]) -> Iterator[str]:
    ours = config.model.model_dump(mode="json")
    defaults = {"physics": {}, "fidelity": Fidelity().model_dump(mode="json"), "baseline": None}
    for key, default in defaults.items():
        theirs = manifest.get(key, default)
        if key in config.model.model_fields_set and ours[key] != theirs:
            text = f"not as in {config.start}, which decides ({yaml_text(theirs)}). Remove it"
            yield problem(tree, ("model", key), text)


def read_manifest(config: RunConfig) -> dict[str, Any] | None:
    """Return the manifest of the model a run starts from, if it is there and readable; loading reports the rest."""
    return None if config.start is None else manifest_at(config.start)


def clashes_between_runs(configs: list[RunConfig], source: str) -> list[str]:
    """Refuse two new runs in one folder."""
    seen: dict[Path, str] = {}
    problems = []
    for config in configs:
        if config.task not in ("train", "finetune") or config.run_dir is None:
            continue
        if config.run_dir in seen:
            text = f"runs {seen[config.run_dir]!r} and {config.name!r} have the same run_dir {config.run_dir}"
            problems.append(f"{source}: {text}. Give each its own")
        seen[config.run_dir] = config.name
    return problems
