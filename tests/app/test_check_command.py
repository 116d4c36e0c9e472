"""check finds before training what would stop it, and writes nothing."""

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner
from water import GOOD, write_run, write_water

from forgefield.app import machine_check
from forgefield.app.checkup import Checkup
from forgefield.app.cli import app
from forgefield.app.run import load_run


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_water("train.xyz", 20, atoms=True)
    write_water("test.xyz", 5, seed=1)
    return tmp_path


def examine(text=GOOD, *overrides):
    """Return the findings as {topic: [(state, text)]}."""
    found = {}
    for finding in Checkup(load_run(write_run(".", text), overrides=overrides)[0]).examine():
        found.setdefault(finding.topic, []).append((finding.state, finding.text))
    return found


def states(found):
    return {state for rows in found.values() for state, _ in rows}


def test_a_good_run_is_ready_and_nothing_is_written(data):
    write_run(data, GOOD)
    before = sorted(os.walk(data))
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["check", "run.yaml", "--set", "data.test=test.xyz"])
    assert result.exit_code == 0, result.stdout
    assert "ready. Next: forgefield run run.yaml" in result.stdout
    for topic in ("settings", "device", "data.train", "data.val", "data.test", "E0s", "neighbours", "model", "disk"):
        assert topic in result.stdout
    assert sorted(os.walk(data)) == before


def test_it_says_what_it_measured(data):
    found = examine()
    assert found["data.train"][0][1].startswith("18 structures of 3 atoms; H O; labels: energy, forces; forces RMS")
    assert "isolated atoms: H -13.600, O -2040.000 eV" in found["E0s"][0][1]
    assert found["neighbours"][0][1].startswith("2.0 on average within 3 Å")
    assert "weights, cutoff 3 Å; elements: H O" in found["model"][0][1]


@pytest.mark.parametrize(
    ("override", "topic", "expected"),
    [
        ("data.train=nope.xyz", "data.train", "does not exist"),
        ("data.train=empty.xyz", "data.train", "is empty"),
        ("data.val=nope.xyz", "data.train", "does not exist"),
        ("data.test=nope.xyz", "data.test", "does not exist"),
        ("data.test=other.xyz", "data.test", "which the training data does not have"),
        ("data.val=other.xyz", "elements", "which the training data does not have"),
        ("train.stress_weight=1", "data.train", "no frame has stress"),
        ("data.energy_key=none", "data.train", "energy"),
        ("model.r_max=0.3", "statistics", "no atom has a neighbour"),
        ("data.e0={H: -13.6}", "statistics", "O"),
        ("device=cuda:77", "device", "cuda:77 is not there"),
        ("run_dir=taken", "run_dir", "holds a run already"),
        ("run_dir=train.xyz", "run_dir", "is a file"),
    ],
)
def test_what_would_stop_the_run(data, override, topic, expected):
    Path("empty.xyz").touch()
    Path("taken/checkpoints").mkdir(parents=True)
    write_water("other.xyz", 3)
    Path("other.xyz").write_text(Path("other.xyz").read_text().replace("O ", "S "))
    found = examine(GOOD, override)
    errors = [text for state, text in found[topic] if state == "error"]
    assert any(expected in text for text in errors), found


def test_elements_of_the_test_part_are_looked_at(data):
    lines = Path("train.xyz").read_text().splitlines()
    last = [line.replace("O ", "S ", 1) if line.startswith("O ") else line for line in lines[-5:]]
    Path("train.xyz").write_text("\n".join([*lines, *last]) + "\n")
    found = examine(GOOD, "data.split={method: random, val: 4, test: [22]}")
    (error,) = [text for state, text in found["data.split.test"] if state == "error"]
    assert "has S, which the training data does not have" in error
    assert "(data.split draws other parts)" in error
    assert any("taken from data.train, indices" in text for _, text in found["data.val"]), found["data.val"]


def test_a_file_that_cannot_hold_the_model_is_no_surprise_after_training(data):
    nearest = "model={neighbor_strategy: k-nearest, cutoff: 3.0, hidden_features: 8}"
    found = examine(GOOD.split("model:")[0].replace("mace", "alignn"), nearest)
    assert "a file of torchscript is given all neighbours within the cutoff" in found["export"][0][1]
    assert "export" not in examine(GOOD.split("model:")[0].replace("mace", "alignn"), nearest, "export.targets=[]")


def test_errors_end_with_two_and_the_rest_is_still_examined(data):
    write_run(data, GOOD)
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["check", "run.yaml", "--set", "data.test=nope.xyz"])
    assert result.exit_code == 2
    assert "1 error. Nothing was written." in result.stdout
    assert "weights, cutoff" in result.stdout


def test_a_bad_file_ends_with_two(data):
    write_run(data, GOOD + "  lrr: 1\n")
    result = CliRunner().invoke(app, ["check", "run.yaml"])
    assert result.exit_code == 2
    assert "Did you mean 'lr'?" in result.stderr


@pytest.mark.parametrize(
    ("override", "topic", "expected"),
    [
        ("data.test=train.xyz", "data.test", "structures are in the training data too"),
        ("data.val_fraction=0", "data.val", "no validation data"),
        ("data.length_unit=bohr", "data.train", "apart as covalent radii say"),
    ],
)
def test_what_should_be_looked_at(data, override, topic, expected):
    found = examine(GOOD, override)
    assert any(state == "warn" and expected in text for state, text in found[topic]), found
    assert "error" not in states({name: rows for name, rows in found.items() if name != "doctor"})
    doctor = "error" if "length_unit" in override else "ok"
    assert [state for state, _ in found["doctor"]] == [doctor]


def test_little_room_on_the_disk(data, monkeypatch):
    class Usage:
        free = 10 * 2**20

    monkeypatch.setattr(machine_check.shutil, "disk_usage", lambda place: Usage)
    assert examine()["disk"][0][0] == "error"
    monkeypatch.setattr(Usage, "free", 150 * 2**20)
    assert examine()["disk"][0][0] == "warn"


def test_a_folder_that_may_not_be_written(data, monkeypatch):
    monkeypatch.setattr(machine_check.os, "access", lambda place, mode: False)
    assert "not allowed to write" in examine()["run_dir"][0][1]


EVALUATE = "task: evaluate\nmodel_in: m\ndata: {test: test.xyz}\noutput: {dir: o}\n"


def test_evaluating_needs_a_model(data):
    found = examine(EVALUATE)
    assert found["model"][0][0] == "error"
    assert found["data.test"][0][0] == "ok"


def test_a_model_that_an_earlier_run_makes_is_no_error(data):
    write_run(
        data, "runs:\n- " + GOOD.replace("\n", "\n  ") + "\n- {name: judge, " + EVALUATE.replace("\n", ", ")[:-2] + "}"
    )
    text = Path("run.yaml").read_text().replace("model_in: m", "model_in: runs/first")
    Path("run.yaml").write_text(text)
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["check", "run.yaml"])
    assert result.exit_code == 0, result.stdout
    assert "will be made by an earlier run of this file" in result.stdout


def test_resume_needs_a_run(data):
    found = examine(GOOD.replace("task: train", "task: resume"))
    assert found["run_dir"][0][0] == "error"


def test_a_trained_model_is_loaded_and_compared(data):
    import torch

    from forgefield.models.bundle import save_bundle
    from forgefield.models.potential import build_potential

    (config,) = load_run(write_run(".", GOOD))
    potential = build_potential(
        "mace", config.model.settings, elements=[1, 8], reference_energies={"default": {1: -13.6, 8: -2040.0}},
        avg_num_neighbors=2.0, dtype=torch.float32,
    )  # fmt: skip
    save_bundle(potential, Path("m"), provenance={})
    assert json.loads(Path("m/manifest.json").read_text())["backend"] == "mace"
    found = examine(EVALUATE)
    assert "error" not in states(found)
    assert "mace" in found["model"][0][1]
    assert found["elements"][0][1] == "the model knows all of them"
    Path("test.xyz").write_text(Path("test.xyz").read_text().replace("O ", "S "))
    assert "which the model does not have" in examine(EVALUATE)["data.test"][-1][1]
    text = GOOD.replace("task: train", "task: finetune\nmodel_in: m")
    assert "error" not in states(examine(text))
    assert "no head 'dft'" in examine(EVALUATE, "model.head=dft")["model"][0][1]


def test_what_the_doctor_finds_stops_unless_it_is_accepted(data):
    found = examine(GOOD, "data.val=train.xyz")
    state, text = found["doctor"][-1]
    assert state == "error"
    assert "leaked_duplicates" in text
    assert "data.accept: [leaked_duplicates]" in text
    found = examine(GOOD, "data.val=train.xyz", "data.accept=[leaked_duplicates, net_force]")
    assert "error" not in states(found)
    texts = [text for state, text in found["doctor"] if state == "note"]
    assert any(text.startswith("accepted: leaked_duplicates") for text in texts)
    assert any("net_force, which was not found" in text for text in texts)
    assert [state for state, _ in examine()["doctor"]] == ["ok"]
