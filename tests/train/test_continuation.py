"""Checkpoints of earlier formats, changed settings and data: named, refused or accepted; what a checkpoint holds."""

import io
import json
import shutil
from pathlib import Path

import pytest
import torch
from rich.console import Console
from test_resume import TRAIN, VAL, record, run, tensors
from toy import load, make_potential, quiet, same

from forgefield.core.errors import ConfigError, DataError, ModelError
from forgefield.data.settings import DataSettings
from forgefield.train import upgrades
from forgefield.train.checkpoint import load_checkpoint, save_checkpoint
from forgefield.train.continuation import Stamp, accepts, check_stamp, described_changes, refused, settle
from forgefield.train.loop import fit, prepare
from forgefield.train.loss import build_loss
from forgefield.train.recorder import read_history
from forgefield.train.state import Progress
from forgefield.train.step import take_update

FIXTURES = Path(__file__).parent / "checkpoints"
OLD = {"plateau_patience": 0, "lr_factor": 0.5, "batch_size": 2, "cycle_steps": 4}  # of the fixture, after 2 epochs


def events(folder):
    path = folder / "events.jsonl"
    return [json.loads(line)["event"] for line in path.read_text().splitlines()] if path.is_file() else []


def settings_of(folder):
    return json.loads((folder / "checkpoints" / "last" / "state.json").read_text())["stamp"]["settings"]


# ------------------------------------------------------------------------------------------------ formats


def test_every_earlier_format_has_an_upgrade_and_a_fixture():
    for name in upgrades.UPGRADES:
        assert (FIXTURES / f"format-{name.rsplit('-', 1)[1]}" / "state.json").is_file(), name
    reached, name = set(), next(iter(upgrades.UPGRADES))
    while name != upgrades.FORMAT:
        assert name not in reached
        reached.add(name)
        name = upgrades.UPGRADES[name][0]
    assert reached == set(upgrades.UPGRADES)


@pytest.mark.parametrize("name", ["format-1", "format-2"])
def test_an_earlier_format_goes_on(tmp_path, name):
    """The fixture was made elsewhere, so its first half is rounded as there; the second half is ours."""
    run(tmp_path / "a", quiet(epochs=2, **OLD))
    run(tmp_path / "a", quiet(epochs=4, **OLD), resume=True)
    shutil.copytree(FIXTURES / name, tmp_path / "b" / "checkpoints" / "last")
    shutil.copytree(FIXTURES / name, tmp_path / "b" / "checkpoints" / "best")
    run(tmp_path / "b", quiet(epochs=4, **OLD), resume=True)
    straight, continued = tensors(tmp_path / "a"), tensors(tmp_path / "b")
    assert straight.keys() == continued.keys()
    for key, value in straight.items():
        assert torch.allclose(value.double(), continued[key].double(), rtol=1e-9, atol=1e-12), key
    assert record(tmp_path / "b")["format"] == upgrades.FORMAT
    assert record(tmp_path / "a")["random"] == record(tmp_path / "b")["random"]
    assert events(tmp_path / "b") == [
        f"checkpoint: read as forgefield-checkpoint-{name[-1]}, continued as {upgrades.FORMAT}"
    ]


def test_a_run_of_format_2_with_usual_data_keys_goes_on_with_todays(tmp_path):
    for name in ("last", "best"):
        shutil.copytree(FIXTURES / "format-2", tmp_path / "checkpoints" / name)
    today = {f"data.{key}": value for key, value in DataSettings().model_dump(mode="json").items()}
    known = json.loads((FIXTURES / "format-2" / "state.json").read_text())["stamp"]["described"]
    left_out = {"train", "val", "test", "test_indices", "lmdb", "batch_size", "format"}  # free to change
    today = {key: value for key, value in today.items() if key.removeprefix("data.") not in left_out}
    assert known.keys() < today.keys()
    with pytest.raises(ConfigError, match=r"data\.energy_unit was 'auto', is 'Ha'"):
        run(tmp_path, quiet(epochs=4, **OLD), resume=True, described={**today, "data.energy_unit": "Ha"})
    run(tmp_path, quiet(epochs=4, **OLD), resume=True, described=today)
    assert record(tmp_path)["format"] == upgrades.FORMAT


def test_an_accepted_rate_keeps_what_the_schedule_of_an_earlier_format_has_done(tmp_path):
    """Its schedule had halved the rate of 0.02, so 0.2 goes on as 0.1."""
    for name in ("last", "best"):
        folder = tmp_path / "checkpoints" / name
        shutil.copytree(FIXTURES / "format-1", folder)
        state = json.loads((folder / "state.json").read_text())
        for group in state["optimizer"]["groups"]:
            group["lr"] = 0.01
        (folder / "state.json").write_text(json.dumps(state))
    run(tmp_path, quiet(epochs=4, **{**OLD, "lr": 0.2}), resume=True, accept=["train.lr"])
    assert read_history(tmp_path / "history.jsonl")[0]["lr"] == pytest.approx(0.1, rel=1e-12)


def test_a_later_format_is_refused():
    with pytest.raises(ModelError, match=r"checkpoint-99.*forgefield-checkpoint-1.*Fix: continue it with the version"):
        upgrades.upgrade({"format": "forgefield-checkpoint-99"}, {}, Path("there"))


# ------------------------------------------------------------------------------------------------ what changed


def test_names_blocks_and_all_accept():
    assert accepts(["all"], "train.lr")
    assert accepts(["train"], "train.lr")
    assert accepts(["train.lr"], "train.lr")
    assert not accepts(["train.l"], "train.lr")
    assert not accepts(["data"], "train.lr")
    assert not accepts([], "train.lr")


def test_what_belongs_to_the_model_is_never_accepted():
    changes = described_changes({"model.r_max": 5.0, "kernels": "auto"}, {"model.r_max": 6.0, "kernels": "plain"})
    assert [change.key for change in refused(changes, ["all"])] == ["model.r_max"]
    assert [change.key for change in refused(changes, ["model"])] == ["kernels", "model.r_max"]


def test_other_keys_are_named_too(tmp_path):
    was = {"model.r_max": 5.0, "data.energy_key": "E", "kernels": "auto"}
    run(tmp_path, quiet(epochs=1), described=was)
    now = {**was, "model.r_max": 6.0, "data.energy_key": "F"}
    with pytest.raises(ConfigError, match=r"data\.energy_key was 'E', is 'F', model\.r_max was 5\.0, is 6\.0"):
        run(tmp_path, quiet(), resume=True, described=now)
    with pytest.raises(ConfigError, match=r"model\.r_max was 5\.0.*Fix: restore what belongs to the model"):
        run(tmp_path, quiet(), resume=True, described=now, accept=["all"])
    with pytest.raises(ConfigError, match=r"--accept kernels"):
        run(tmp_path, quiet(), resume=True, described={**was, "kernels": "plain"})
    run(tmp_path, quiet(), resume=True, described={**was, "kernels": "plain"}, accept=["kernels"])
    assert events(tmp_path) == ["resume: kernels was 'auto', is 'plain'; accepted"]


def test_a_key_that_the_checkpoint_does_not_know_had_its_default(tmp_path):
    run(tmp_path, quiet(epochs=1))
    path = tmp_path / "checkpoints" / "last" / "state.json"
    found = json.loads(path.read_text())
    del found["stamp"]["settings"]["max_grad_norm"]
    path.write_text(json.dumps(found))
    with pytest.raises(ConfigError, match=r"train\.max_grad_norm was 10\.0, is 3\.0"):
        run(tmp_path, quiet(max_grad_norm=3.0), resume=True)
    run(tmp_path, quiet(), resume=True)


def test_an_accepted_rate_acts_and_is_kept(tmp_path):
    """Half the rate from epoch 2 on is the same as a schedule that halves it there."""
    plain = {"scheduler": None}
    run(tmp_path / "a", quiet(epochs=1, **plain))
    run(tmp_path / "a", quiet(epochs=3, lr=0.01, **plain), resume=True, accept=["train.lr"])
    run(tmp_path / "b", quiet(epochs=3, scheduler="step", step_size=1, gamma=0.5))
    one, two = (read_history(tmp_path / name / "history.jsonl") for name in "ab")
    assert [row["lr"] for row in one] == [0.02, 0.01, 0.01]
    assert [row["val_loss"] for row in one[:2]] == [row["val_loss"] for row in two[:2]]
    assert events(tmp_path / "a") == ["resume: train.lr was 0.02, is 0.01; accepted"]
    assert settings_of(tmp_path / "a")["lr"] == 0.01
    run(tmp_path / "a", quiet(epochs=4, lr=0.01, **plain), resume=True)  # accepted once is enough


def test_an_accepted_rate_keeps_what_the_schedule_has_done(tmp_path):
    keys = {"scheduler": "step", "step_size": 1, "gamma": 0.5}
    run(tmp_path, quiet(epochs=2, **keys))
    run(tmp_path, quiet(epochs=4, lr=0.2, **keys), resume=True, accept=["train.lr"])
    rates = [row["lr"] for row in read_history(tmp_path / "history.jsonl")]
    assert rates == pytest.approx([0.02, 0.01, 0.05, 0.025], rel=1e-12)


def test_accepting_what_concerns_the_optimizer_but_changes_nothing_changes_no_digit(tmp_path):
    """`max_grad_norm` is so large that it never acts: the way of accepted changes gives the straight run."""
    run(tmp_path / "a", quiet(epochs=4, max_grad_norm=None))
    run(tmp_path / "b", quiet(epochs=2, max_grad_norm=None))
    run(tmp_path / "b", quiet(epochs=4, max_grad_norm=1e30), resume=True, accept=["all"])
    assert same(tensors(tmp_path / "a"), tensors(tmp_path / "b"))


@pytest.mark.parametrize(
    "change",
    [
        {"optimizer": "adamw"},
        {"amsgrad": False},
        {"scheduler": "step", "step_size": 1},
        {"weight_decay": 0.1},
        {"ema_decay": None},
        {"ema_decay": 0.5},
        {"force_weight": 1.0},
        {"loss_energy": "mae"},
        {"batch_size": 2},
        {"accum_steps": 2},
        {"cycle_steps": 2},
        {"drop_last": True},
        {"seed": 5},
        {"max_grad_norm": 1e-3},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_accepted_change_goes_on_and_acts(tmp_path, change):
    run(tmp_path / "a", quiet(epochs=1))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    _, plain = run(tmp_path / "a", quiet(epochs=3), resume=True)
    key = next(iter(change))
    _, changed = run(tmp_path / "b", quiet(epochs=3, **change), resume=True, accept=[f"train.{k}" for k in change] + [
        "train.drop_last"])  # fmt: skip
    assert changed.epochs_done == plain.epochs_done == 3
    assert any(f"train.{key} was" in text for text in events(tmp_path / "b"))
    if key != "seed":  # the order is the loader's, which this test makes with a seed of its own
        rows = [read_history(tmp_path / name / "history.jsonl")[-1] for name in "ab"]
        assert rows[0]["val_loss"] != rows[1]["val_loss"]


def test_an_average_that_begins_later_begins_at_the_weights(tmp_path):
    run(tmp_path, quiet(epochs=1, ema_decay=None))
    potential = make_potential(noise=0.05)
    state = prepare(potential, quiet(ema_decay=0.5), torch.device("cpu"))
    stamp = Stamp("c", "d", quiet(ema_decay=0.5), 3)
    load_checkpoint(tmp_path / "checkpoints" / "last", state, stamp, ["train.ema_decay"])
    assert same(state.average.values, {name: p.detach() for name, p in potential.named_parameters()})


def test_other_data_are_accepted_by_name(tmp_path):
    run(tmp_path, quiet(epochs=1))
    with pytest.raises(DataError, match=r"training data.*--accept data\.contents"):
        run(tmp_path, quiet(), resume=True, data_fingerprint="other")
    with pytest.raises(DataError, match="training data"):
        run(tmp_path, quiet(), resume=True, data_fingerprint="other", accept=["train"])
    run(tmp_path, quiet(), resume=True, data_fingerprint="other", accept=["data"])
    first, second = events(tmp_path)
    assert first == "resume: data.contents had fingerprint d, has other; accepted"
    assert "the best is chosen anew" in second
    assert [row["best"] for row in read_history(tmp_path / "history.jsonl")][:2] == [True, True]


def test_the_middle_of_an_epoch_is_carried_over_to_other_batches(tmp_path):
    keys = {"epochs": 2, "max_minutes": 1e-9}
    run(tmp_path, quiet(batch_size=2, **keys))  # one update: two structures
    run(tmp_path, quiet(batch_size=2, **keys), resume=True)
    run(tmp_path, quiet(batch_size=4, epochs=2), resume=True, accept=["train.batch_size"])
    assert "resume: epoch 1 goes on at batch 2 of the other size" in events(tmp_path)
    assert record(tmp_path)["progress"]["update"] == 2 + 2 + 3


def test_nothing_left_to_train_is_said(tmp_path):
    run(tmp_path, quiet(epochs=1))
    with pytest.raises(ConfigError, match=r"train\.epochs: all 1 epochs are done.*Fix: give more epochs"):
        run(tmp_path, quiet(epochs=1, force_weight=1.0), resume=True, accept=["all"])


# ------------------------------------------------------------------------------------------------ what is held


def test_the_gradient_scaler_comes_back(tmp_path):
    """Its state is that of CUDA fits; a scaler for the CPU keeps the same numbers."""
    settings, stamp = quiet(), Stamp("c", "d", quiet(), 3)

    def new():
        state = prepare(make_potential(), settings, torch.device("cpu"))
        state.scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=2)
        return state

    state = new()
    losses = build_loss(settings)
    for batch in load(TRAIN).batches(0):
        take_update(state, [batch], losses)
    save_checkpoint(tmp_path / "last", state, stamp)
    other = new()
    assert other.scaler.state_dict() != state.scaler.state_dict()
    load_checkpoint(tmp_path / "last", other, stamp)
    assert other.scaler.state_dict() == state.scaler.state_dict()
    assert state.scaler.get_scale() == 16.0


def test_the_place_in_the_epoch_comes_back(tmp_path):
    """The batches after a stop in the middle of an epoch are those that the straight run takes there."""
    seen = []

    def watched(folder, settings, resume=False):
        loader = load(TRAIN, settings.batch_size, shuffle=True, seed=3)
        batches = loader.batches

        def taken(epoch=0, start=0):
            for batch in batches(epoch, start):
                seen.append(batch.index.tolist())
                yield batch

        loader.batches = taken
        fit(
            make_potential(noise=0.05), loader, load(VAL), settings, folder=folder, device="cpu", resume=resume,
            config_fingerprint="c", data_fingerprint="d", console=Console(file=io.StringIO()),
        )  # fmt: skip

    watched(tmp_path / "a", quiet(epochs=2, batch_size=2))
    straight, places = list(seen), []
    for attempt in range(10):
        seen.clear()
        watched(tmp_path / "b", quiet(epochs=2, batch_size=2, max_minutes=1e-9), resume=attempt > 0)
        assert len(seen) == 1
        places += seen
    assert places == straight


def test_another_budget_goes_on_at_the_same_part_of_the_epoch():
    old, new = quiet(batch_size=4), quiet(max_atoms=20, batch_size=None)
    stored = Stamp("c", "d", old, 12).to_json()
    own = Stamp("c", "d", new, 30)
    found = check_stamp(stored, own.to_json(), "here", ["train.max_atoms", "train.batch_size"])
    assert found == {"train.max_atoms", "train.batch_size"}
    progress = Progress(batch=6)
    told = settle(progress, found, stored, own)
    assert progress.batch == 15
    assert "goes on at batch 16" in told[0]
