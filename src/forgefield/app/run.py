"""RunConfig: everything one run needs to know, read from YAML or from flags, frozen and fully resolved.

The stages, in order: split a `runs:` list, take the runs asked for, replace aliases, write `--set` over them, make
paths absolute, fill in the task, read a model.json, validate every block, check the rules between blocks.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import AliasChoices, Field
from ruamel.yaml import YAML

from forgefield.app import run_rules
from forgefield.app.blocks import INTERNAL, EvalSettings, ExportSettings, ModelBlock, OutputSettings
from forgefield.app.finetune_keys import FinetuneSettings
from forgefield.app.folder import RESOLVED
from forgefield.app.model_json import ModelJson, apply_model_json
from forgefield.app.settings_help import nearest
from forgefield.app.training_defaults import fill_training
from forgefield.app.validation import validate, validate_model_block
from forgefield.app.yaml_source import Node, Place, merge, node_of, parse_yaml, read_yaml
from forgefield.core.disk import write_atomic
from forgefield.core.errors import ConfigError
from forgefield.core.settings import Settings
from forgefield.data.settings import DataSettings
from forgefield.train.settings import TrainSettings

ARCHITECTURES = "forgefield.models.architectures"
Task = Literal["train", "finetune", "resume", "evaluate", "infer", "export"]


class RunConfig(Settings):
    """One run of run.yaml."""

    name: str = Field(
        default="run", min_length=1, description="Name of the run, chosen on the command line by --run NAME."
    )
    id: str | None = Field(default=None, description="Second name that --run accepts.")
    backend: str | None = Field(
        default=None, description="Architecture of the model; its settings stand in `model`. A bundle brings its own."
    )
    task: Task = Field(
        default="evaluate",
        validation_alias=AliasChoices("task", "mode"),
        description="What to do. When absent: train if there is data.train and no model to start from, else evaluate.",
    )
    run_dir: Path | None = Field(
        default=None, description="Folder of the run; everything it makes stands there. A new run needs a new folder."
    )
    model_in: Path | None = Field(
        default=None,
        description="Bundle, checkpoint folder or run folder to start from; also {manifest, weights, path, source}. "
        "resume takes run_dir/checkpoints/last when it is absent.",
    )
    model_json: ModelJson | None = Field(
        default=None,
        description="Written by ForgeField: what train.input_json said, with the hash of its canonical text.",
        json_schema_extra=INTERNAL,
    )
    accept: tuple[str, ...] = Field(
        default=(),
        description="Keys that task resume may continue with other values than the run was begun with: dotted keys, "
        "whole blocks, data.contents (other structures) or all. What belongs to the model cannot be changed.",
    )
    device: str = Field(
        default="auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        description="Where to compute: auto (CUDA if there is one), cpu, cuda or cuda:N.",
    )
    dtype: Literal["float32", "float64"] = Field(
        default="float32", description="Precision of the model; energies are always summed in float64."
    )
    kernels: Literal["auto", "plain"] = Field(
        default="auto",
        description="Code of the hot sums: auto (compiled operators, where the machine has a C++ compiler; built once) "
        "or plain (PyTorch alone, slower). The record of the run says which ran.",
    )
    model: ModelBlock = Field(
        default=ModelBlock(), description="The model: reserved keys and the architecture's settings."
    )
    data: DataSettings = Field(
        default_factory=DataSettings, description="Data sets, labels, units and reference energies."
    )
    train: TrainSettings = Field(
        default_factory=TrainSettings, description="Optimisation: loss, optimizer, schedule, records."
    )
    finetune: FinetuneSettings = Field(
        default=FinetuneSettings(), description="What task finetune changes about the loaded model, and old data."
    )
    eval: EvalSettings = Field(default=EvalSettings(), description="How evaluate and infer compute.")
    export: ExportSettings = Field(default=ExportSettings(), description="What is handed out after training.")
    output: OutputSettings = Field(default=OutputSettings(), description="Where evaluate and infer write.")

    @property
    def start(self) -> Path | None:
        """The bundle, manifest or checkpoint this run starts from; None for a new model."""
        return self.model.manifest or self.model_in


def load_run(
    path: str | Path, name: str | Sequence[str] | None = None, overrides: Iterable[str] = ()
) -> list[RunConfig]:
    """Read the runs of a YAML file.

    Args:
        path: the file; relative paths in it are taken from its folder.
        name: names or ids of the runs wanted; None takes all.
        overrides: `key=value` texts written over every run; relative paths in them are taken from the current folder.

    Raises:
        ConfigError: every problem found, one line each.
    """
    names = [name] if isinstance(name, str) else list(name or ())
    tree = read_yaml(path)
    return build_runs(tree, Path(path).absolute().parent, names, [parse_override(text) for text in overrides])


def build_runs(tree: Node, folder: Path, names: Sequence[str] = (), overrides: Sequence[Node] = ()) -> list[RunConfig]:
    """Turn a tree into validated runs; see `load_run`."""
    runs = choose_runs(split_runs(tree), names, tree.place)
    configs, problems = [], []
    for run in runs:
        config, found = build_run(run, folder, overrides)
        problems += [line for line in found if line not in problems]
        configs += [config] if config is not None else []
    if not problems:
        problems = run_rules.clashes_between_runs(configs, str(tree.place.source))
    if problems:
        raise ConfigError("\n".join(problems))
    return configs


def build_run(tree: Node, folder: Path, overrides: Sequence[Node] = ()) -> tuple[RunConfig | None, list[str]]:
    """Validate one run.

    Returns:
        The run, or None, and the problems, one line each.
    """
    problems: list[str] = []
    tree = run_rules.prepare(tree, RunConfig, problems)
    tree = run_rules.resolve_paths(tree, folder)
    for override in overrides:
        # A path typed on the command line means what the shell would mean by it.
        typed = run_rules.resolve_paths(run_rules.prepare(override, RunConfig, problems), Path.cwd())
        tree = merge(tree, typed)
    tree = run_rules.spread_model_in(tree, problems)
    tree = run_rules.fill_task(tree, problems)
    try:
        tree = apply_model_json(tree)
    except ConfigError as error:
        return None, [*problems, *str(error).splitlines()]
    config = _validate(fill_training(tree), problems)
    if config is not None and not problems:
        problems += run_rules.cross_block_problems(config, tree)
    return (None if problems else config), problems


def _validate(tree: Node, problems: list[str]) -> RunConfig | None:
    """Validate all blocks; the free keys of `model` by the architecture's own settings."""
    rest, settings = validate_model_block(tree, ModelBlock, ARCHITECTURES, problems)
    config = validate(RunConfig, rest, (), problems)
    if config is None or settings is None:
        return config
    return config.model_copy(update={"model": config.model.model_copy(update={"settings": settings})})


def split_runs(tree: Node) -> list[Node]:
    """Return one tree per run: the entries of `runs:`, each over the keys that stand beside the list."""
    if tree.value is None:
        raise ConfigError("the file is empty", str(tree.place), "write one with `forgefield init DATA`")
    if not tree.is_mapping:
        raise ConfigError("expected a block of keys such as `task: train`", str(tree.place))
    runs = tree.child("runs")
    if runs is None:
        return [tree]
    if not isinstance(runs.value, list) or not runs.value:
        raise ConfigError("runs: expected a list of runs, each starting with `- name: ...`", str(runs.place))
    for run in runs.value:
        if not run.is_mapping:
            raise ConfigError("runs: each entry must be a block of keys", str(run.place), "start it with `- name: ...`")
        if run.child("runs") is not None:
            raise ConfigError("runs: a run cannot hold a list of runs", str(run.place))
    shared = tree.with_child("runs", None)
    return [
        merge(run_rules.rename_aliases(shared, RunConfig, None), run_rules.rename_aliases(run, RunConfig, None))
        for run in runs.value
    ]


def choose_runs(runs: list[Node], names: Sequence[str], place: Place) -> list[Node]:
    """Return the runs called `names` (by name or id) in the file's order; all when no name is given."""
    labels = [{_text(run.child("name"), "run"), _text(run.child("id"), "")} - {""} for run in runs]
    known = [_text(run.child("name"), "run") for run in runs]
    doubled = sorted({name for name in known if known.count(name) > 1})
    if doubled:
        where = next(run for run, name in zip(reversed(runs), reversed(known), strict=True) if name == doubled[0])
        raise ConfigError(f"two runs are named {doubled[0]!r}", str(where.place), "give each run its own `name:`")
    for name in names:
        if not any(name in label for label in labels):
            near = nearest(name, sorted(set().union(*labels)))
            hint = f"Did you mean {near!r}? " if near else ""
            raise ConfigError(f"--run {name}: no such run. {hint}There are: {', '.join(known)}", place.source)
    return [run for run, label in zip(runs, labels, strict=True) if not names or label & set(names)]


def parse_override(text: str) -> Node:
    """Turn `train.lr=0.01` into a tree; the value is read as YAML."""
    place = Place(f"--set {text}")
    key, equals, value = text.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise ConfigError("expected key=value with a dotted key", str(place), "for example --set train.lr=0.005")
    if parts[0] == "runs":
        raise ConfigError("--set writes over every chosen run; it cannot name the list", str(place), "use --run NAME")
    node = parse_yaml(value, place, positions=False)
    for part in reversed(parts):
        node = Node({part: node}, place)
    return node


def config_of(values: dict[str, Any], folder: Path | None = None, overrides: Iterable[str] = ()) -> RunConfig:
    """Return the run that plain values describe, as the keys of run.yaml would.

    Args:
        values: nested mapping, e.g. `{"task": "train", "data": {"train": "train.xyz"}}`.
        folder: relative paths are taken from here; the current folder when None.
        overrides: `key=value` texts written over it.
    """
    tree = node_of(values, Place("settings"))
    return build_runs(tree, (folder or Path()).absolute(), (), [parse_override(text) for text in overrides])[0]


def resolved(config: RunConfig) -> dict[str, Any]:
    """Return the run as plain YAML values: every key with its value, all paths absolute."""
    plain = config.model_dump(mode="json", exclude={"model": {"settings"}})
    if config.model.settings is not None:
        keep_all = config.task in ("train", "resume")
        plain["model"] |= config.model.settings.model_dump(mode="json", exclude_unset=not keep_all)
    for key in ("model_json", "id"):
        if plain[key] is None:
            del plain[key]
    return plain


def save_resolved(config: RunConfig, folder: str | Path) -> Path:
    """Write run.resolved.yaml, which `load_run` reads back to an equal run.

    Returns:
        The file's path.
    """
    writer = YAML(typ="safe", pure=True)
    writer.default_flow_style = False
    writer.sort_base_mapping_type_on_output = False  # type: ignore[attr-defined]
    text = io.StringIO()
    writer.dump(resolved(config), text)
    head = "# Written by ForgeField: the run with every default filled in. `forgefield run` reads it.\n"
    return write_atomic(Path(folder) / RESOLVED, head + text.getvalue())


def _text(node: Node | None, default: str) -> str:
    """Return a name as text; a number such as `name: 1` is matched by its digits."""
    return default if node is None or node.value is None else str(node.value)
