"""What is compared: runs of run.yaml files, or architectures with their defaults, and what is made equal."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forgefield.app.run import ARCHITECTURES, RunConfig, build_run, load_run, parse_override, resolved
from forgefield.app.settings_help import nearest
from forgefield.app.yaml_source import Node
from forgefield.core.catalog import Catalog
from forgefield.core.errors import ConfigError
from forgefield.train.catalogs import SCHEDULES

ENDLESS = 1_000_000
"""Epochs of a run that its budget ends."""


@dataclass(frozen=True)
class Budget:
    """How long each run trains.

    Args:
        minutes: one limit, or several in rising order, at each of which the run is evaluated.
        wall: minutes of the clock; else of computing, summed over all cores.
    """

    minutes: tuple[float, ...]
    wall: bool = False

    @property
    def key(self) -> str:
        """The key of `train` that sets the limit."""
        return "max_minutes" if self.wall else "max_cpu_minutes"

    @property
    def words(self) -> str:
        """What the minutes are of."""
        return "minutes" if self.wall else "CPU minutes"

    @classmethod
    def read(cls, text: str, wall: bool) -> Budget:
        """Read `10` or `2,5,10`.

        Raises:
            ConfigError: a part is no positive number.
        """
        try:
            minutes = sorted({float(part) for part in text.split(",")})
        except ValueError:
            minutes = [0.0]
        if not minutes[0] > 0 or not minutes[-1] < float("inf"):
            raise ConfigError(f"got {text!r}, expected minutes", "--minutes", "for example 10, or 2,5,10")
        return cls(tuple(minutes), wall)


@dataclass(frozen=True)
class Trial:
    """One run of the comparison.

    Args:
        name: of the candidate.
        seed: of weights and order.
        config: the run, in its own folder of the comparison.
        epochs_kept: the file's epochs stand, since its schedule is laid over them.
    """

    name: str
    seed: int
    config: RunConfig
    epochs_kept: bool

    @property
    def label(self) -> str:
        """Candidate and seed, for messages and file names."""
        return f"{self.name}-seed-{self.seed}"


def from_files(paths: Sequence[Path], overrides: Sequence[str]) -> list[RunConfig]:
    """Return the training runs of run.yaml files, each under a name of its own.

    Raises:
        ConfigError: a file has no training run, or two runs have one name.
    """
    found: list[RunConfig] = []
    for path in paths:
        runs = [run for run in load_run(path, overrides=overrides) if run.task in ("train", "finetune")]
        if not runs:
            raise ConfigError("holds no run that trains", str(path), "give files of task train or finetune")
        alone = len(runs) == 1 and runs[0].name == "run"
        found += [run.model_copy(update={"name": path.stem}) if alone else run for run in runs]
    names = [folder_name(run.name) for run in found]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"two candidates are named {doubled[0]!r}", "name", "give each run its own `name:`")
    return found


def from_backends(names: Sequence[str], tree: Node, overrides: Sequence[str]) -> list[RunConfig]:
    """Return one run for each architecture, with its defaults, on the data that flags describe.

    Raises:
        ConfigError: there is no such architecture, or a flag is wrong.
    """
    known = Catalog(ARCHITECTURES).names()
    found = []
    for name in names:
        if name not in known:
            near = nearest(name, known)
            hint = f"Did you mean {near!r}? " if near else ""
            raise ConfigError(f"no architecture {name!r}. {hint}There are: {', '.join(known)}", "--backends")
        own = tree.with_child("backend", Node(name, tree.place)).with_child("name", Node(name, tree.place))
        config, problems = build_run(own, Path.cwd(), [parse_override(text) for text in overrides])
        if config is None:
            raise ConfigError("\n".join(dict.fromkeys(problems)))
        found.append(config)
    if len(set(names)) < len(names):
        raise ConfigError("an architecture is named twice", "--backends", "name each once; files may differ in more")
    return found


def trials_of(configs: Sequence[RunConfig], seeds: int, budget: Budget, out: Path, keep_epochs: bool) -> list[Trial]:
    """Return the runs of a comparison: every candidate with every seed, each in its own folder."""
    return [_trial(config, config.train.seed + k, budget, out, keep_epochs) for config in configs for k in range(seeds)]


def _trial(config: RunConfig, seed: int, budget: Budget, out: Path, keep_epochs: bool) -> Trial:
    name = folder_name(config.name)
    kept = keep_epochs or _laid_over_epochs(config)
    limits = {"max_minutes": None, "max_cpu_minutes": None, budget.key: budget.minutes[-1]}
    epochs = config.train.epochs if kept else ENDLESS
    train = config.train.model_copy(update={"seed": seed, "epochs": epochs, **limits})
    place = {"run_dir": out / "runs" / f"{name}-seed-{seed}", "train": train, "name": name, "id": None}
    return Trial(name, seed, config.model_copy(update=place), kept)


def _laid_over_epochs(config: RunConfig) -> bool:
    """Say whether another number of epochs would change how the run trains."""
    train = config.train
    if train.stage_two is not None or train.max_updates is not None:
        return True
    if train.scheduler is None or "T_max" not in Catalog(SCHEDULES).entry(train.scheduler).settings.model_fields:
        return False
    return train.T_max is None


def folder_name(name: str) -> str:
    """Return a name as it can stand in a path."""
    return re.sub(r"[^\w.+-]+", "_", name).strip("._") or "run"


def differences(old: Mapping[str, Any], new: RunConfig, budget: Budget) -> list[str]:
    """Return the keys in which a run differs from the one in its folder, apart from the budget and the folder."""
    free = {"run_dir", "id", f"train.{budget.key}"}
    before, after = _flat(old), _flat(resolved(new))
    return sorted(key for key in before.keys() | after.keys() if key not in free and before.get(key) != after.get(key))


def _flat(tree: Mapping[str, Any], start: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= _flat(value, f"{start}{key}.") if isinstance(value, Mapping) and value else {f"{start}{key}": value}
    return found
