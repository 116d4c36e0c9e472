"""Stopping and continuing is the same as never having stopped; wrong checkpoints are refused."""

import errno
import io
import json
import os
import random

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from toy import load, make_potential, make_structures, quiet, same

from forgefield.core.errors import ConfigError, DataError, DeviceError, ForgeError, ModelError
from forgefield.train import checkpoint, randomness
from forgefield.train.loop import fit
from forgefield.train.recorder import read_history

TRAIN, VAL = make_structures(10), make_structures(4, seed=7)


def run(folder, settings, potential=None, **more):
    """One fit with a noisy potential, so that also the random numbers must continue."""
    potential = potential or make_potential(noise=0.05)
    train = load(TRAIN, settings.batch_size, shuffle=True, seed=3, drop_last=settings.drop_last)
    more = {"config_fingerprint": "c", "data_fingerprint": "d", "device": "cpu", **more}
    result = fit(potential, train, load(VAL), settings, folder=folder, console=Console(file=io.StringIO()), **more)
    return potential, result


def tensors(folder):
    return load_file(folder / "checkpoints" / "last" / "training.safetensors")


def record(folder):
    found = json.loads((folder / "checkpoints" / "last" / "state.json").read_text())
    for clock in ("seconds", "cpu_seconds"):
        found["progress"].pop(clock)
    found["progress"]["running"].pop("seconds")
    return found


def histories(folder):
    return [read_history(folder / name / "history.jsonl") for name in "ab"]


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"optimizer": "sgd", "ema_decay": None, "scheduler": "step", "step_size": 2},
        {"optimizer": "adamw", "amsgrad": False, "scheduler": None, "accum_steps": 2},
        {"plateau_patience": 0, "lr_factor": 0.5, "batch_size": 2, "cycle_steps": 4},
    ],
    ids=["default", "sgd", "accumulated", "cycles"],
)
def test_three_epochs_and_three_more_are_six(tmp_path, keys):
    straight, _ = run(tmp_path / "a", quiet(epochs=6, **keys))
    run(tmp_path / "b", quiet(epochs=3, **keys))
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    stopped, result = run(tmp_path / "b", quiet(epochs=6, **keys), potential=make_potential(8, noise=0.05), resume=True)
    assert (result.epochs_done, result.epochs_here) == (6, 3)
    assert same(tensors(tmp_path / "a"), tensors(tmp_path / "b"))
    one, two = record(tmp_path / "a"), record(tmp_path / "b")
    for key in ("optimizer", "schedule", "average_updates", "random"):
        assert one[key] == two[key], key
    assert one["progress"]["update"] == two["progress"]["update"]
    if "cycle_steps" not in keys:
        assert one["progress"] == two["progress"]
        assert same(dict(straight.state_dict()), dict(stopped.state_dict()))
        rows = [[[row[k] for k in ("epoch", "val_loss", "train_loss", "lr")] for row in h] for h in histories(tmp_path)]
        assert rows[0] == rows[1]


@pytest.mark.parametrize("keys", [{}, {"accum_steps": 2}, {"cycle_steps": 3}], ids=["epochs", "accumulated", "cycles"])
def test_stopping_after_every_single_update(tmp_path, keys):
    """A time limit of nothing ends each attempt after one update, in the middle of epochs and cycles."""
    keys = {"epochs": 2, "batch_size": 2, "plateau_patience": 0, **keys}
    run(tmp_path / "a", quiet(**keys))
    resume, attempts, reason = False, 0, ""
    while reason != "epochs":
        _, result = run(tmp_path / "b", quiet(max_minutes=1e-9, **keys), resume=resume)
        resume, attempts, reason = True, attempts + 1, result.reason
    assert attempts == (6 if "accum_steps" in keys else 10)
    assert same(tensors(tmp_path / "a"), tensors(tmp_path / "b"))
    one, two = record(tmp_path / "a"), record(tmp_path / "b")
    assert one["schedule"] == two["schedule"]
    whole = [[row["train_loss"] for row in rows if not row["partial"]] for rows in histories(tmp_path)]
    assert whole[0] == whole[1]


def test_a_finished_run_has_nothing_to_continue(tmp_path):
    first, _ = run(tmp_path, quiet())
    before = (tmp_path / "checkpoints" / "last" / "state.json").read_bytes()
    again, result = run(tmp_path, quiet(), potential=make_potential(9), resume=True)
    assert (result.reason, result.epochs_here) == ("epochs", 0)
    assert same(dict(first.state_dict()), dict(again.state_dict()))
    assert (tmp_path / "checkpoints" / "last" / "state.json").read_bytes() == before
    assert len(read_history(tmp_path / "history.jsonl")) == 3


def test_rows_later_than_the_checkpoint_are_taken_out(tmp_path):
    run(tmp_path, quiet())
    history = tmp_path / "history.jsonl"
    rows = read_history(history)
    with open(history, "a") as file:
        file.write(json.dumps({**rows[-1], "epoch": 4, "update": 12}) + "\n" + '{"cut o')
    run(tmp_path, quiet(epochs=4), resume=True)
    assert [row["update"] for row in read_history(history)] == [3, 6, 9, 12]
    assert (tmp_path / "history.csv").read_text().count("\n") == 5
    assert read_history(history)[-1]["val_loss"] != rows[-1]["val_loss"]


def test_random_number_states_come_back():
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    np.random.normal()  # leaves a cached number behind
    random.gauss(0, 1)
    plain, states = randomness.capture()
    plain = json.loads(json.dumps(plain))
    draw = lambda: (random.gauss(0, 1), np.random.normal(), np.random.normal(), torch.rand(3).tolist())  # noqa: E731
    first = draw()
    assert draw() != first
    randomness.restore(plain, states)
    assert draw() == first


def damage(path, how):
    data = bytearray(path.read_bytes())
    if how == "flip":
        data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data[: len(data) // 2] if how == "cut" else data))


@pytest.mark.parametrize("name", ["training.safetensors", "state.json"])
@pytest.mark.parametrize("how", ["cut", "flip", "gone"])
def test_damage_is_one_clear_error(tmp_path, name, how):
    run(tmp_path, quiet(epochs=1))
    path = tmp_path / "checkpoints" / "last" / name
    if how == "gone":
        path.unlink()
    elif name == "state.json" and how == "flip":
        path.write_text(path.read_text().replace('"sha256"', '"sha25"'))
    else:
        damage(path, how)
    with pytest.raises(ModelError, match=r"damaged|no checkpoint") as caught:
        run(tmp_path, quiet(), resume=True)
    assert str(tmp_path) in str(caught.value)


def test_no_checkpoint(tmp_path):
    with pytest.raises(ModelError, match=r"no checkpoint.*Fix: train first"):
        run(tmp_path, quiet(), resume=True)


def test_another_format_is_refused(tmp_path):
    run(tmp_path, quiet(epochs=1))
    path = tmp_path / "checkpoints" / "last" / "state.json"
    path.write_text(path.read_text().replace(checkpoint.FORMAT, "forgefield-checkpoint-99"))
    with pytest.raises(ModelError, match="checkpoint-99"):
        run(tmp_path, quiet(), resume=True)


def test_another_model_is_refused(tmp_path):
    run(tmp_path, quiet(epochs=1))
    other = make_potential()
    other.architecture.linear = torch.nn.Linear(4, 5, dtype=torch.float64)
    other.architecture.readouts[0] = torch.nn.Linear(5, 1, bias=False, dtype=torch.float64)
    with pytest.raises(ModelError, match=r"another model.*linear\.bias.*\(3,\) there, \(5,\) here"):
        run(tmp_path, quiet(), potential=other, resume=True)


def test_other_settings_data_and_configuration_are_refused(tmp_path):
    run(tmp_path, quiet(epochs=1))
    with pytest.raises(ConfigError, match=r"train\.lr was 0\.02, is 0\.1"):
        run(tmp_path, quiet(lr=0.1), resume=True)
    with pytest.raises(DataError, match="training data"):
        run(tmp_path, quiet(), resume=True, data_fingerprint="other")
    with pytest.raises(ConfigError, match="configuration"):
        run(tmp_path, quiet(), resume=True, config_fingerprint="other")
    run(tmp_path, quiet(epochs=2, save_every=2, log_every=5, early_stop_factor=3, max_minutes=9), resume=True)


def test_only_best_is_there(tmp_path):
    """The run ended before its first `last`: it goes on from `best`."""
    run(tmp_path / "a", quiet(epochs=3))
    run(tmp_path / "b", quiet(epochs=1))
    for path in (tmp_path / "b" / "checkpoints" / "last").iterdir():
        path.unlink()
    (tmp_path / "b" / "checkpoints" / "last").rmdir()
    run(tmp_path / "b", quiet(epochs=3), resume=True)
    assert same(tensors(tmp_path / "a"), tensors(tmp_path / "b"))


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("call", ["fsync", "write", "rename"])
def test_a_full_disk_leaves_the_previous_checkpoint(tmp_path, monkeypatch, call):
    run(tmp_path, quiet(epochs=1))
    last = tmp_path / "checkpoints" / "last"
    before = files(last)

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        if call == "fsync":
            patch.setattr(os, "fsync", full)
        elif call == "write":
            patch.setattr(checkpoint, "write_atomic", full)
        else:
            patch.setattr(checkpoint, "_replace", full)
        with pytest.raises(DeviceError, match="disk is full"):
            run(tmp_path, quiet(epochs=2), resume=True)
    assert files(last) == before
    assert sorted(p.name for p in last.parent.iterdir()) == ["best", "last"]
    _, result = run(tmp_path, quiet(epochs=2), resume=True)
    assert result.epochs_here == 1


def test_an_end_between_the_two_renames_is_recovered(tmp_path):
    run(tmp_path, quiet(epochs=1))
    last = tmp_path / "checkpoints" / "last"
    last.rename(last.with_name(".last.old"))
    _, result = run(tmp_path, quiet(epochs=2), resume=True)
    assert result.epochs_here == 1
    assert sorted(p.name for p in last.parent.iterdir()) == ["best", "last"]


def test_an_end_while_writing_leaves_rubbish_that_does_no_harm(tmp_path):
    run(tmp_path, quiet(epochs=1))
    rubbish = tmp_path / "checkpoints" / ".last.new"
    rubbish.mkdir()
    (rubbish / "state.json").write_text("{")
    run(tmp_path, quiet(epochs=2), resume=True)
    assert not rubbish.exists()


def test_errors_are_of_one_family():
    assert issubclass(DeviceError, ForgeError)
