"""No dead keys: each key of the `train` block changes something that is computed, written or shown.

The keys of optimizer, groups, schedule and stopping stand in test_no_dead_keys.py.

Every key needs a case here; a key without one fails. The toy is trained twice, with a base and with one key changed,
and the two are compared: records, weights, optimizer, files, what is shown, which checkpoints are written when.
"""

import dataclasses
import io
import json
import sys
import types
from typing import Any, get_args

import numpy as np
import pytest
import test_no_dead_keys
import torch
from pydantic import BaseModel, ValidationError
from rich.console import Console
from toy import make_potential, make_structures

from forgefield.app.run import RunConfig, config_of
from forgefield.app.tasks.steps.fitting import checking_loader, training_loader
from forgefield.core.errors import ForgeError
from forgefield.core.structure import Structure
from forgefield.data import loader
from forgefield.data.dataset import Dataset
from forgefield.train import compilation, cycles, recorder
from forgefield.train.keys import records as record_keys
from forgefield.train.loop import fit
from forgefield.train.records.jsonl import read_history
from forgefield.train.settings import TrainSettings

TRAIN, VAL = make_structures(11), make_structures(4, seed=7)
BASE = {"epochs": 2, "batch_size": 4, "progress_bar": False, "log_every": 2, "lr": 0.02, "ema_decay": 0.9}
CLOCKS = ("second", "memory")


@dataclasses.dataclass(frozen=True)
class Case:
    """The value that a key is changed to, what else both runs need, and where the key is put if not at its name."""

    value: Any
    beside: dict[str, Any] = dataclasses.field(default_factory=dict)
    dtype: torch.dtype = torch.float64
    place: str = ""


class Refused:
    """A key whose other values are all refused, with a message at the key."""

    def __init__(self, value):
        self.value = value


class Read:
    """A key that is read before the trainer: `config_of` must behave differently."""

    def __init__(self, value):
        self.value = value


VIRIAL = {"targets": {"virial": {"weight": 1.0}}}
TWO_STAGES = {"stage_two": {"start": 1}}
CASES = {
    # order
    "input_json": Read("missing.json"),
    "head_key": Case("other"),
    "transform.mode": Refused("standard"),
    "epochs": Case(3),
    "batch_size": Case(3),
    "max_atoms": Case(12, {"batch_size": None, "max_edges": 10_000}),
    "max_edges": Case(160, {"batch_size": None, "max_atoms": 10_000}),
    "same_size": Case(True),
    "same_fidelity": Case(True),
    "oversize": Case("refuse", {"batch_size": None, "max_atoms": 4, "oversize": "alone"}),
    "num_workers": Case(2),
    "seed": Case(1),
    "cycle_steps": Case(3, {"drop_last": True}),
    "accum_steps": Case(2),
    "drop_last": Case(True),
    "save_every": Case(2),
    "max_minutes": Case(1e-9),
    "max_cpu_minutes": Case(1e-9),
    # loss
    "energy_weight": Case(2.0),
    "force_weight": Case(2.0),
    "stress_weight": Case(2.0),
    "loss_energy": Case("mae"),
    "loss_force": Case("l2mae"),
    "loss_stress": Case("mae", {"stress_weight": 1.0}),
    "targets.weight": Case(2.0, VIRIAL, place="targets.virial.weight"),
    "targets.loss": Case("mae", VIRIAL, place="targets.virial.loss"),
    "targets.normalization": Case("total", VIRIAL, place="targets.virial.normalization"),
    "energy_normalization": Case("total"),
    "force_normalization": Case("per_structure"),
    "stress_normalization": Case("sqrt_atoms", {"stress_weight": 1.0}),
    "huber_delta": Case(0.5, {"loss_energy": "huber"}),
    "smooth_l1_beta": Case(0.5, {"loss_energy": "smooth_l1"}),
    "train_on_free_atoms": Case(True),
    "tag_weights": Case({1: 0.0}),
    "missing_labels": Case("mask"),
    # second stage
    "stage_two.start": Case(2, TWO_STAGES | {"epochs": 3}),
    "stage_two.energy_weight": Case(5.0, TWO_STAGES),
    "stage_two.force_weight": Case(5.0, TWO_STAGES),
    "stage_two.stress_weight": Case(5.0, TWO_STAGES),
    "stage_two.target_weights": Case({"virial": 5.0}, TWO_STAGES | VIRIAL),
    "stage_two.lr": Case(0.002, TWO_STAGES),
    "stage_two.average": Case("equal", TWO_STAGES),
    # precision
    "amp": Case(True, dtype=torch.float32),
    "matmul": Case("tf32", dtype=torch.float32),
    "compile": Case(True),
    # records
    "log_every": Case(3),
    "progress_bar": Case(True),
    "progress_mininterval": Case(0.1, {"progress_bar": True}),
    "validate_every": Case("4 updates"),
    "loggers": Case(("csv",)),
    "wandb.mode": Case("online", {"loggers": ("wandb",)}),
    "wandb.project": Case("other", {"loggers": ("wandb",)}),
    "wandb.entity": Case("other", {"loggers": ("wandb",)}),
    "wandb.name": Case("other", {"loggers": ("wandb",)}),
    "wandb.tags": Case(("other",), {"loggers": ("wandb",)}),
    "mlflow.tracking_uri": Case("sqlite:///x.db", {"loggers": ("mlflow",)}),
    "mlflow.experiment": Case("other", {"loggers": ("mlflow",)}),
    "mlflow.name": Case("other", {"loggers": ("mlflow",)}),
}


def inner_block(annotation):
    """The Settings class inside an annotation, also in a list, tuple or mapping of them."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = [block for part in get_args(annotation) if (block := inner_block(part)) is not None]
    return found[0] if found else None


def keys_of(block, prefix=""):
    for name, field in block.model_fields.items():
        inner = inner_block(field.annotation)
        if inner is None:
            yield prefix + name
        else:
            yield from keys_of(inner, f"{prefix}{name}.")


@pytest.fixture
def world(monkeypatch):
    """Spies at the places where effects leave no trace in files; two trackers that note what they are told."""
    seen = {"processes": set(), "saved": [], "told": [], "bars": [], "compiled": []}
    real_crew, real_save, real_bar = loader.Crew, cycles.save_checkpoint, recorder._make_bar

    def crew(builder, count):
        seen["processes"].add(count)
        return real_crew(builder, count)

    def save(folder, state, stamp, *rest, **more):
        seen["saved"].append((folder.name, state.progress.update))
        return real_save(folder, state, stamp, *rest, **more)

    def make_bar(console, interval):
        seen["bars"].append(interval)
        return real_bar(console, interval)

    class Compiled:
        def __init__(self, potential, *rest):
            raise ForgeError("compiling was tried")

    monkeypatch.setattr(loader, "Crew", crew)
    monkeypatch.setattr(cycles, "save_checkpoint", save)
    monkeypatch.setattr(recorder, "_make_bar", make_bar)
    monkeypatch.setattr(compilation, "CompiledPotential", Compiled)
    monkeypatch.setattr(record_keys, "_installed", lambda package: True)
    for name, module in trackers(seen["told"]).items():
        monkeypatch.setitem(sys.modules, name, module)
    return seen


class Note:
    """Answers to any call, and notes its arguments."""

    def __init__(self, told, name):
        self.told, self.name = told, name

    def __call__(self, *args, **kwargs):
        if self.name.rsplit(".")[-1] not in ("log", "log_batch", "log_param"):
            kwargs = {key: value for key, value in kwargs.items() if key not in ("config", "id", "settings", "dir")}
            self.told.append((self.name, str(args), str(sorted(kwargs.items()))))
        return self

    def __getattr__(self, name):
        return Note(self.told, f"{self.name}.{name}")

    def __str__(self):
        return "identity"

    __repr__ = __str__


def trackers(told):
    wandb = types.ModuleType("wandb")
    wandb.init, wandb.Settings, wandb.Error = Note(told, "init"), dict, type("Error", (Exception,), {})
    mlflow, entities, problems, tracking = (
        types.ModuleType(name) for name in ("mlflow", "mlflow.entities", "mlflow.exceptions", "mlflow.tracking")
    )
    entities.Metric = lambda *args: "metric"
    problems.MlflowException = type("MlflowException", (Exception,), {})
    tracking.MlflowClient = Note(told, "client")
    tracking.MlflowClient.get_experiment_by_name = lambda name: told.append(("experiment", name))
    return {m.__name__: m for m in (wandb, mlflow, entities, problems, tracking)}


def outcome(folder, keys, seen, dtype):
    """Everything that a fit leaves or shows, without clocks and without the settings themselves."""
    for value in seen.values():
        value.clear()
    settings, text = TrainSettings.model_validate(keys), io.StringIO()
    potential = make_potential(noise=0.1, heads=("default", "other")).to(dtype)
    run = types.SimpleNamespace(config=RunConfig(task="evaluate", train=settings), device=torch.device("cpu"))
    mark = [
        Structure(
            s.numbers,
            s.positions,
            s.cell,
            s.pbc,
            labels=s.labels,
            head=settings.head_key or ("default", "other")[k % 2],
            origin=s.origin,
            fixed=np.arange(len(s)) == 0,
            tags=np.arange(len(s)) % 2,
        )
        for k, s in enumerate((*TRAIN, *VAL))
    ]
    common = {"config_fingerprint": "c", "data_fingerprint": "d", "device": "cpu"}
    found = {"refused": None}
    try:
        train = training_loader(run, potential, Dataset.of(mark[: len(TRAIN)]))
        val = checking_loader(run, potential, Dataset.of(mark[len(TRAIN) :]))
        result = fit(potential, train, val, settings, folder=folder, console=Console(file=text, width=200), **common)
        found["ended"] = (result.reason, result.best_epoch, result.epochs_done, result.loss)
    except ForgeError as error:
        found["refused"] = str(error).replace(str(folder), "")
    found["shown"] = [line.split("lr ")[0] for line in text.getvalue().replace(str(folder), "").splitlines()]
    found["weights"] = {name: value.tolist() for name, value in potential.state_dict().items()}
    found["files"] = sorted(str(path.relative_to(folder)) for path in folder.glob("*") if path.is_file())
    for name in ("history", "breakdown"):
        rows = read_history(folder / f"{name}.jsonl")
        found[name] = [{k: v for k, v in row.items() if not any(word in k for word in CLOCKS)} for row in rows]
    last = folder / "checkpoints" / "last" / "state.json"
    found["optimizer"] = json.loads(last.read_text())["optimizer"] if last.is_file() else None
    return found | {key: sorted(map(str, value)) for key, value in seen.items()}


def changed(keys, path, value):
    """The keys with one of them changed, at any depth."""
    first, _, rest = path.partition(".")
    return keys | {first: changed(keys.get(first, {}), rest, value) if rest else value}


ELSEWHERE = {*test_no_dead_keys.CASES, "param_groups", "early_stops", "constant_physics"}  # cases in other files


def test_every_key_has_a_case():
    missing = [path for path in keys_of(TrainSettings) if path not in CASES and path.split(".")[0] not in ELSEWHERE]
    assert not missing, f"train keys without a case: say here which change of each shows where: {missing}"


@pytest.mark.parametrize("path", list(CASES))
def test_every_key_has_an_effect(path, tmp_path, world, monkeypatch):
    case = CASES[path]
    if isinstance(case, Refused):
        with pytest.raises(ValidationError) as caught:
            TrainSettings.model_validate(changed({}, path, case.value))
        assert ".".join(map(str, caught.value.errors()[0]["loc"])) == path
        return
    if isinstance(case, Read):
        values = {"task": "train", "backend": "mace", "run_dir": "r", "data": {"train": "t.xyz"}}
        assert config_of(values).model.settings is not None
        with pytest.raises(ForgeError, match=case.value):
            config_of(values | {"train": changed({}, path, case.value)})
        return
    base = BASE | case.beside
    first = outcome(tmp_path / "run", base, world, case.dtype)
    (tmp_path / "run").rename(tmp_path / "base")
    second = outcome(tmp_path / "run", changed(base, case.place or path, case.value), world, case.dtype)
    assert first != second
    assert first["refused"] is None, "the base must run"


def test_nothing_but_the_key_makes_the_difference(tmp_path, world):
    """The same keys twice leave the same: what the test above compares has no clock and no chance in it."""
    for loggers in (("csv", "jsonl"), ("wandb",), ("mlflow",)):
        outcomes = []
        for _ in range(2):
            outcomes.append(outcome(tmp_path / "run", BASE | {"loggers": loggers}, world, torch.float64))
            (tmp_path / "run").rename(tmp_path / f"{len(outcomes)}{loggers[0]}")
        assert outcomes[0] == outcomes[1]
        assert outcomes[0]["refused"] is None


def test_cases_are_of_keys_that_there_are():
    assert sorted(set(CASES) - set(keys_of(TrainSettings))) == []
