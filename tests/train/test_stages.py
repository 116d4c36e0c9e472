"""Stage two: other weights, another learning rate, an average of its own; cut and resumed it is the same fit."""

import json

import pytest
import torch
from test_resume import TRAIN, VAL, record, run, tensors
from toy import load, make_potential, quiet, same, weights

from forgefield.train.averaging import EqualAverage
from forgefield.train.checkpoint import load_weights
from forgefield.train.loop import prepare
from forgefield.train.loss import build_loss
from forgefield.train.recorder import read_history
from forgefield.train.stages import Stages
from forgefield.train.step import take_update

TWO = {"start": 2, "energy_weight": 1000.0, "force_weight": 10.0, "lr": 0.001}
KEYS = {"epochs": 5, "batch_size": 4, "plateau_patience": 0, "lr_factor": 0.5}


def rows(folder):
    return read_history(folder / "history.jsonl")


def events(folder):
    return [json.loads(line)["event"] for line in (folder / "events.jsonl").read_text().splitlines()]


def test_the_second_stage_by_hand(tmp_path):
    """The same updates written out: first loss and rate for two epochs, then the second's; the schedule rests."""
    keys = {"epochs": 5, "scheduler": "step", "step_size": 1, "gamma": 0.5}
    settings = quiet(**keys, stage_two={**TWO, "average": "equal"})
    potential, result = run(tmp_path, settings)
    by_hand, _ = _by_hand(settings)
    assert result.epochs_done == 5
    found = rows(tmp_path)
    assert [row["lr"] for row in found] == [0.02, 0.01, 0.001, 0.001, 0.001]
    last = tensors(tmp_path)
    for name, value in weights(by_hand.potential).items():
        assert torch.equal(value, last[f"weights.{name}"]), name
    for name, value in by_hand.equal.values.items():
        assert torch.equal(value, last[f"equal.{name}"]), name
    assert any("begins after epoch 2" in text and "energy 1000" in text for text in events(tmp_path))
    best = max((row for row in found if row["best"]), key=lambda row: row["epoch"])
    assert best["epoch"] == result.best_epoch >= 3
    losses = build_loss(settings, potential, stage=2)
    batch = next(load(VAL, 10).batches())
    with torch.no_grad():
        assert float(losses(potential.eval()(batch.graph), batch.labels).total) == pytest.approx(best["val_loss"])


def _by_hand(settings):
    """Carry out the fit of `run` update by update, without the loop."""
    from forgefield.train import randomness

    potential = make_potential(noise=0.05)
    state = prepare(potential, settings, torch.device("cpu"))
    randomness.seed_all(settings.seed)
    loader, mean = load(TRAIN, settings.batch_size, shuffle=True, seed=3), []
    for epoch in range(settings.epochs):
        stage = 1 if epoch < 2 else 2
        rate = {0: 0.02, 1: 0.01}.get(epoch, 0.001)
        if epoch == 2:
            state.equal = EqualAverage(potential)
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        for batch in loader.batches(epoch):
            take_update(state, [batch], build_loss(settings, stage=stage), max_grad_norm=settings.max_grad_norm)
            mean += [weights(potential)] if stage == 2 else []
    for name, value in state.equal.values.items():
        assert torch.allclose(value, torch.stack([w[name] for w in mean]).mean(0), rtol=1e-12), name
    return state, mean


def test_each_stage_keeps_its_best(tmp_path):
    run(tmp_path / "one", quiet(**{**KEYS, "epochs": 2}))
    run(tmp_path / "two", quiet(**KEYS, stage_two=TWO))
    first, second, alone = make_potential(1), make_potential(2), make_potential(3)
    load_weights(tmp_path / "two" / "checkpoints" / "best_stage_one", first)
    load_weights(tmp_path / "two" / "checkpoints" / "best", second)
    load_weights(tmp_path / "one" / "checkpoints" / "best", alone)
    assert same(weights(first), weights(alone))
    assert not same(weights(first), weights(second))


@pytest.mark.parametrize("average", ["ema", "equal"])
@pytest.mark.parametrize(
    "keys",
    [{}, {"cycle_steps": 3, "batch_size": 2}, {"accum_steps": 2, "ema_decay": None}],
    ids=["epochs", "cycles", "accumulated"],
)
def test_stopping_after_every_single_update(tmp_path, keys, average):
    keys = {**KEYS, "epochs": 4, "stage_two": {**TWO, "average": average}, **keys}
    run(tmp_path / "a", quiet(**keys))
    resume, reason = False, ""
    while reason != "epochs":
        _, result = run(tmp_path / "b", quiet(max_minutes=1e-9, **keys), resume=resume)
        resume, reason = True, result.reason
    assert same(tensors(tmp_path / "a"), tensors(tmp_path / "b"))
    one, two = record(tmp_path / "a"), record(tmp_path / "b")
    for key in ("optimizer", "schedule", "average_updates", "equal_updates", "random"):
        assert one[key] == two[key], key
    assert (two["progress"]["stage"], two["progress"]["stage_epoch"]) == (2, 2)
    whole = [[row["train_loss"] for row in rows(tmp_path / name) if not row["partial"]] for name in "ab"]
    assert whole[0] == whole[1]


def test_a_fit_killed_before_its_first_checkpoint_of_stage_two(tmp_path):
    """`best` is of stage two, `last` still of stage one: continuing keeps the best of stage one."""
    import shutil

    run(tmp_path / "a", quiet(**{**KEYS, "epochs": 4}, stage_two=TWO))
    run(tmp_path / "b", quiet(**{**KEYS, "epochs": 3}, stage_two=TWO, max_minutes=None))
    run(tmp_path / "c", quiet(**{**KEYS, "epochs": 3}, stage_two=TWO, save_every=2))
    shutil.rmtree(tmp_path / "b" / "checkpoints" / "last")
    run(tmp_path / "d", quiet(**{**KEYS, "epochs": 4}, stage_two=TWO, max_minutes=1e-9))
    resumed = True
    for _ in range(5):
        run(tmp_path / "d", quiet(**{**KEYS, "epochs": 4}, stage_two=TWO, max_minutes=1e-9), resume=resumed)
    shutil.rmtree(tmp_path / "d" / "checkpoints" / "best")
    shutil.copytree(tmp_path / "b" / "checkpoints" / "best", tmp_path / "d" / "checkpoints" / "best")
    run(tmp_path / "d", quiet(**{**KEYS, "epochs": 4}, stage_two=TWO), resume=True)
    for name in ("best", "best_stage_one"):
        one, two = make_potential(1), make_potential(2)
        load_weights(tmp_path / "a" / "checkpoints" / name, one)
        load_weights(tmp_path / "d" / "checkpoints" / name, two)
        assert same(weights(one), weights(two)), name


def test_early_stopping_begins_stage_two_which_is_as_long_as_planned(tmp_path):
    keys = {"epochs": 40, "batch_size": 10, "lr": 0.9, "plateau_patience": 2, "early_stop_factor": 1.0}
    settings = quiet(**keys, stage_two={"start": 37, "lr": 1e-5, "energy_weight": 1.0, "force_weight": 1.0})
    _, result = run(tmp_path, settings)
    begun = next(row["epoch"] for row in rows(tmp_path) if row["lr"] == 1e-5) - 1
    assert 2 < begun < 37
    assert result.epochs_done <= begun + 3
    assert result.reason in ("epochs", "early_stop")


def test_groups_keep_their_ratio():
    groups = [{"match": "bias", "lr_factor": 0.1}, {"match": "."}]
    settings = quiet(**KEYS, stage_two=TWO, param_groups=groups, warmup="linear", warmup_steps=50)
    state = prepare(make_potential(), settings, torch.device("cpu"))
    state.progress.epoch = 2
    stages = Stages(state, settings)
    assert stages.due(None)
    stages.begin()
    assert [group["lr"] for group in state.optimizer.param_groups] == pytest.approx([0.0001, 0.001, 0.001])
    assert not stages.due(None)
