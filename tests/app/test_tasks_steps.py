"""The steps that tasks are made of, one by one."""

import io
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from rich.console import Console

from forgefield.app.run import config_of
from forgefield.app.tasks.steps import machine
from forgefield.app.tasks.steps.asking import output_folder
from forgefield.app.tasks.steps.datasets import (
    HeadFrames,
    check_heads,
    check_some_label,
    heads_of,
    set_name,
    trained_quantities,
)
from forgefield.app.tasks.steps.evaluating import forces_table, metrics_table, predictions_table
from forgefield.app.tasks.steps.fitting import checking_loader, training_loader
from forgefield.app.tasks.steps.models import find_bundle
from forgefield.app.tasks.steps.outcome import TaskResult, show
from forgefield.app.tasks.steps.record import command_line
from forgefield.app.tasks.steps.sameness import comparable
from forgefield.core import allocator
from forgefield.core.errors import DataError, DeviceError, ForgeError, ModelError
from forgefield.core.structure import Structure
from forgefield.data.dataset import Dataset
from forgefield.graph.needs import Needs
from forgefield.train.evaluate import Prediction
from forgefield.train.settings import TrainSettings


def molecule(head: str | None = None, **labels) -> Structure:
    return Structure(
        np.array([8, 1]), np.array([[0.0, 0, 0], [1, 0, 0]]), labels=labels, head=head, origin="file.xyz: frame 7"
    )


@pytest.mark.parametrize(
    ("paths", "name"),
    [
        (["a/test_300K.xyz"], "test_300K"),
        (["test.extxyz.xz"], "test"),
        (["shards.lmdb"], "shards"),
        (["a.xyz", "b.xyz"], "test"),
        (["my file (2).xyz"], "my_file_2"),
        (["val.xyz"], "test_val"),
    ],
)
def test_a_set_is_named_after_its_file(paths, name):
    assert set_name([Path(p) for p in paths]) == name


def test_heads_of_a_new_model():
    assert heads_of(Dataset.of([molecule(), molecule()])) == ["default"]
    assert heads_of(Dataset.of([molecule("b"), molecule("a")])) == ["a", "b"]
    with pytest.raises(DataError, match=r"file\.xyz: frame 7: names no head, but other frames do \(a\)"):
        heads_of(Dataset.of([molecule("a"), molecule()]))


def test_structures_must_say_which_of_several_heads_they_mean():
    check_heads(Dataset.of([molecule()]), ["only"], "model.head")
    check_heads(Dataset.of([molecule("a")]), ["a", "b"], "model.head")
    with pytest.raises(ModelError, match=r"set model\.head to one of them"):
        check_heads(Dataset.of([molecule()]), ["a", "b"], "model.head")
    with pytest.raises(ModelError, match="'c', which the model does not have"):
        check_heads(Dataset.of([molecule("c")]), ["a", "b"], "model.head")


def test_a_head_is_filled_in_or_replaced():
    dataset = Dataset.of([molecule(), molecule("a")])
    filled, replaced = (Dataset([HeadFrames(dataset, "b", always=always)]) for always in (False, True))
    assert [s.head for s in filled] == ["b", "a"]
    assert [s.head for s in replaced] == ["b", "b"]
    assert filled[0].origin == "file.xyz: frame 7"


def test_only_what_is_weighed_must_be_labelled():
    assert trained_quantities(TrainSettings()) == {"energy", "forces"}
    assert trained_quantities(TrainSettings(force_weight=0, stress_weight=1)) == {"energy", "stress"}


def test_some_label_is_needed_to_evaluate():
    check_some_label(Dataset.of([molecule(), molecule(energy=np.array(1.0))]))
    with pytest.raises(DataError, match="no frame has an energy, forces or a stress"):
        check_some_label(Dataset.of([molecule()]))


def test_a_device_that_is_not_there_names_what_is(monkeypatch):
    quiet = Console(quiet=True)
    assert machine.choose_device("cpu", quiet) == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert machine.choose_device("auto", quiet) == torch.device("cpu")
    with pytest.raises(DeviceError, match=r"cuda is not there.*one of: cpu$"):
        machine.choose_device("cuda", quiet)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Big GPU")
    with pytest.raises(DeviceError, match=r"cuda:2 is not there.*cpu; cuda:0 \(Big GPU\); cuda:1 \(Big GPU\)"):
        machine.choose_device("cuda:2", quiet)
    assert machine.choose_device("auto", quiet) == torch.device("cuda:0")
    assert machine.choose_device("cuda", quiet) == torch.device("cuda:0")


def test_the_environment_names_versions_and_machine(monkeypatch):
    monkeypatch.setattr(allocator, "provider", lambda: "libtcmalloc.so.4")
    found = machine.environment(torch.device("cpu"), torch.float64)
    assert found["torch"] == torch.__version__
    assert found["allocator"] == "tcmalloc (libtcmalloc.so.4)"
    assert found["dtype"] == "float64"
    assert {"python", "e3nn", "ase", "numpy", "forgefield", "system", "processor", "threads"} <= set(found)
    assert machine.peak_memory(torch.device("cpu"))["process"] > 10


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        (["/bin/forgefield", "run", "a b.yaml"], "forgefield run 'a b.yaml'"),
        (["/src/forgefield/__main__.py", "train"], "forgefield train"),
        (["notebook.py"], "python notebook.py"),
        ([""], "interactive Python"),
    ],
)
def test_the_command_is_told_as_it_was_typed(argv, command, monkeypatch):
    monkeypatch.setattr(sys, "argv", argv)
    assert command_line() == command


def test_a_bundle_is_found_in_a_run_folder(tmp_path):
    with pytest.raises(ModelError, match="does not exist"):
        find_bundle(tmp_path / "nowhere")
    with pytest.raises(ModelError, match=r"holds no manifest\.json \(it holds nothing\)"):
        find_bundle(tmp_path)
    for inside in ("checkpoints/best", "artifacts", "."):
        (tmp_path / inside).mkdir(parents=True, exist_ok=True)
        (tmp_path / inside / "manifest.json").write_text("{}")
        assert find_bundle(tmp_path) == tmp_path / inside
    (tmp_path / "weights.safetensors").write_bytes(b"")
    assert find_bundle(tmp_path / "weights.safetensors") == tmp_path
    (tmp_path / "other.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match="weights alone"):
        find_bundle(tmp_path / "other.safetensors")
    (tmp_path / "model.pt").write_bytes(b"")
    with pytest.raises(ModelError, match="forgefield import"):
        find_bundle(tmp_path / "model.pt")


def test_what_may_change_on_resuming_is_not_compared(tmp_path):
    def made(**changes):
        base = {"task": "train", "backend": "mace", "run_dir": str(tmp_path), "data": {"train": "a.xyz"}}
        return comparable(config_of({**base, **changes}))

    same = made()
    assert made(device="cpu", train={"epochs": 7, "max_minutes": 3}, export={"dir": "x"}) == same
    assert made(data={"train": "b.xyz", "batch_size": 3, "test": "c.xyz"}) == same
    for changes in ({"train": {"lr": 1}}, {"model": {"r_max": 3}}, {"data": {"train": "a.xyz", "energy_unit": "Ha"}}):
        assert made(**changes) != same, changes


def test_where_evaluate_and_infer_write(tmp_path):
    base = {"model_in": str(tmp_path), "data": {"test": "a.xyz"}}
    in_run = config_of({**base, "task": "evaluate", "run_dir": str(tmp_path / "r")})
    assert output_folder(in_run, "a") == tmp_path / "r" / "evaluation" / "a"
    in_run = config_of({**base, "task": "infer", "run_dir": str(tmp_path / "r")})
    assert output_folder(in_run, "a") == tmp_path / "r" / "inference" / "a"
    own = config_of({**base, "task": "infer", "output": {"dir": str(tmp_path / "o")}})
    assert output_folder(own, "a") == tmp_path / "o"
    with pytest.raises(ForgeError, match=r"output\.dir"):
        config_of({**base, "task": "infer"})


def test_tables_hold_every_number():
    dataset = Dataset.of([molecule(energy=np.array(-3.0), forces=np.zeros((2, 3)))])
    forces = np.array([[0.3, 0.0, 0.4], [0.0, 0.0, 0.0]])
    predictions = [Prediction(0, -2.5, forces, np.zeros((3, 3)))]
    head, row = predictions_table(predictions, dataset).splitlines()
    found = dict(zip(head.split(","), row.split(","), strict=True))
    assert found["energy_error_per_atom"] == "0.25"
    assert found["max_force"] == "0.5"
    assert float(found["forces_rmse"]) == pytest.approx(np.sqrt(0.25 / 6))
    assert "stress_xx" not in found
    assert forces_table(predictions, dataset).splitlines()[1] == "0,0,O,0.3,0.0,0.4"
    metrics = {"about": {}, "all": {"a": 1.5, "b": None}, "by_element": {"H": {"a": 2.0, "c": 3}}}
    assert metrics_table(metrics) == "group,name,a,b,c\nall,,1.5,,\nelement,H,2.0,,3\n"


def test_the_summary_shows_all(tmp_path):
    out = io.StringIO()
    result = TaskResult("demo: train", [("force error", "[42] meV/Å")], [tmp_path / "x.txt"], [("look", "cat x.txt")])
    assert show(result, Console(file=out, width=60)) is result
    text = out.getvalue()
    for part in ("demo: train", "[42] meV/Å", str(tmp_path / "x.txt"), "cat x.txt", "look"):
        assert part in text


def test_batch_sizes_of_training_and_of_checking_are_their_own():
    config = config_of(
        {"backend": "mace", "run_dir": "r", "data": {"train": "a.xyz", "batch_size": 3}, "train": {"batch_size": 2}}
    )
    run = SimpleNamespace(config=config, device="cpu")
    potential = SimpleNamespace(needs=Needs(cutoff=2.0), heads=["default"], dtype=torch.float64)
    dataset = Dataset.of([molecule()] * 6)
    assert len(training_loader(run, potential, dataset)) == 3
    assert len(checking_loader(run, potential, dataset)) == 2
    assert training_loader(run, potential, dataset).order(0).tolist() != list(range(6))
    assert checking_loader(run, potential, dataset).order(1).tolist() == list(range(6))
