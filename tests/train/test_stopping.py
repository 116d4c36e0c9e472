"""When a fit ends, which checkpoints are kept, and what is said of a loss that is no number."""

import json
import math

import pytest
import torch
from pydantic import ValidationError
from test_fit import TRAIN, VAL, at_rest, run
from test_resume import record, tensors
from toy import load, make_potential, make_structures, quiet, same, weights

from forgefield.core.errors import ConfigError, DataError, ForgeError
from forgefield.train.checkpoint import load_weights
from forgefield.train.evaluate import gather
from forgefield.train.loop import prepare
from forgefield.train.metrics import measure_errors
from forgefield.train.recorder import read_history
from forgefield.train.settings import TrainSettings
from forgefield.train.stopping import Stopping, validation_values
from forgefield.train.validation_names import VALIDATION_NAMES


def stopping(*conditions, mode="all", **more):
    settings = quiet(epochs=100, early_stops=conditions, early_stop_mode=mode, **more)
    return Stopping(prepare(make_potential(), settings, torch.device("cpu")), settings)


def judged(stop, **series):
    """Reason after each validation."""
    found = []
    for values in zip(*series.values(), strict=True):
        stop.judge(dict(zip(series, values, strict=True)))
        found.append(stop.reason())
    return found


def test_names_are_those_that_are_measured():
    errors = measure_errors(gather(make_potential(), load(VAL)))["all"]
    measured = {name for name in errors if not name.startswith("n_") and name != "forces_rms_label"}
    assert set(VALIDATION_NAMES) == measured | {"loss"}
    assert validation_values(2.5, {"all": errors}) == {"loss": 2.5} | {name: errors[name] for name in measured}


def test_patience_and_threshold():
    stop = stopping({"metric": "forces_mae", "patience": 2, "threshold": 0.1})
    assert judged(stop, forces_mae=[1.0, 0.95, 0.85, 0.8, 0.76]) == [None, None, None, None, "early_stops"]
    stop = stopping({"metric": "forces_mae", "patience": 2})
    assert judged(stop, forces_mae=[1.0, 0.95, 0.85, 0.8, 0.76]) == [None] * 5


def test_lower_bound():
    stop = stopping({"metric": "energy_rmse", "lower_bound": 0.5})
    assert judged(stop, energy_rmse=[1.0, 0.5, 0.6]) == [None, "early_stops", None]


@pytest.mark.parametrize(("mode", "when"), [("any", 1), ("all", 3)])
def test_conditions_are_joined(mode, when):
    stop = stopping({"metric": "loss", "patience": 1}, {"metric": "forces_mae", "lower_bound": 0.1}, mode=mode)
    found = judged(stop, loss=[1.0, 1.0, 0.5, 0.5], forces_mae=[0.4, 0.3, 0.05, 0.05])
    assert next(k for k, reason in enumerate(found) if reason) == when


def test_labels_that_are_not_there():
    stop = stopping({"metric": "stress_mae", "lower_bound": 0.1})
    with pytest.raises(DataError, match=r"train\.early_stops\.0\.metric: .*labels of stress_mae"):
        stop.judge({"stress_mae": None})


def refuse(match, place, **keys):
    with pytest.raises(ValidationError, match=match) as caught:
        TrainSettings.model_validate(keys)
    assert caught.value.errors()[0]["loc"][: len(place)] == place


def test_wrong_keys_are_refused_where_they_stand():
    refuse(
        "did you mean 'forces_mae'",
        ("early_stops", 1, "metric"),
        early_stops=[{"metric": "loss", "patience": 1}, {"metric": "force_mae", "patience": 1}],
    )
    refuse("give patience or lower_bound", ("early_stops", 0, "lower_bound"), early_stops=[{"metric": "loss"}])
    refuse(
        "no effect",
        ("early_stops", 0, "threshold"),
        early_stops=[{"metric": "loss", "threshold": 1.0, "lower_bound": 1.0}],
    )
    refuse("several", ("early_stops",), early_stops=[{"metric": "loss", "patience": 1}] * 2)
    refuse("fewer than two", ("early_stop_mode",), early_stop_mode="any")
    refuse("did you mean 'forces_rmse'", ("best_metric",), best_metric="val_force_rmse")
    refuse("scheduler: null", ("terminate_on_low_lr",), scheduler=None, terminate_on_low_lr=1e-4)
    refuse("above min_lr", ("terminate_on_low_lr",), min_lr=1e-3, terminate_on_low_lr=1e-4)
    refuse("less than lr", ("min_lr",), lr=0.01, min_lr=0.01)
    refuse("no effect with scheduler one_cycle", ("min_lr",), scheduler="one_cycle", min_lr=1e-4)
    refuse("must be given with scheduler: exponential", ("gamma",), scheduler="exponential")
    refuse("must be given with warmup: linear", ("warmup_steps",), warmup="linear")
    refuse("no effect with warmup: radam", ("warmup_steps",), warmup="radam", warmup_steps=3)
    refuse("no effect with warmup: null", ("warmup_steps",), warmup_steps=3)
    refuse("follows from Adam's betas", ("warmup",), optimizer="sgd", warmup="radam")
    refuse("above 0.6", ("warmup",), betas=(0.5, 0.5), warmup="radam")
    refuse("plateau steps after each validation", ("scheduler_step_unit",), scheduler_step_unit="update")
    refuse("max_grad_norm clips already", ("max_grad_value",), max_grad_norm=1.0, max_grad_value=1.0)
    refuse("line search needs", ("max_grad_norm",), optimizer="lbfgs", max_grad_norm=1.0)
    refuse("accum_steps must go", ("optimizer",), optimizer="lbfgs", accum_steps=2)
    refuse("cycle_steps must go", ("optimizer",), optimizer="lbfgs", cycle_steps=2)
    refuse("drop_last must go", ("optimizer",), optimizer="lbfgs", drop_last=True)
    refuse("cannot be had with lbfgs", ("amp",), optimizer="lbfgs", amp=True)
    refuse("one step length", ("param_groups",), optimizer="lbfgs", param_groups=[{"match": ".", "lr": 0.1}])
    refuse(
        "keep one of the two",
        ("param_groups", 0, "lr_factor"),
        param_groups=[{"match": ".", "lr": 0.1, "lr_factor": 2}],
    )
    refuse("not a regular expression", ("param_groups", 0, "match"), param_groups=[{"match": "("}])
    refuse("not a regular expression", ("force_train",), force_train=["("])
    refuse("keep one of the two", ("finetune_modules",), freeze="head_only", finetune_modules=["a"])
    refuse("no effect with optimizer adam", ("lbfgs_history",), lbfgs_history=5)
    refuse("no effect with optimizer radam", ("momentum_decay",), optimizer="radam", momentum_decay=0.1)
    refuse("no effect with scheduler cosine", ("T_0",), scheduler="cosine", T_0=5)


def test_clipping_by_value_takes_the_place_of_clipping_by_norm():
    assert TrainSettings(max_grad_value=0.1).max_grad_norm is None
    assert TrainSettings().max_grad_norm == 10.0
    settings = TrainSettings(max_grad_value=0.1)
    assert TrainSettings.model_validate(settings.model_dump()) == settings


def test_value_clipping_cuts_elements(tmp_path):
    """One step of plain descent moves no weight by more than lr x limit, and some by exactly that."""
    before = weights(make_potential())
    keys = {"optimizer": "sgd", "momentum": 0.0, "lr": 0.5, "weight_decay": 0.0, "ema_decay": None, "batch_size": 10}
    potential, _ = run(tmp_path, quiet(epochs=1, max_grad_value=1e-3, **keys))
    moved = torch.cat([(value - before[name]).abs().flatten() for name, value in weights(potential).items()])
    assert float(moved.max()) == pytest.approx(5e-4, rel=1e-9)
    assert (moved < 4.9e-4).any() or (moved > 0).all()


def test_limits_by_updates_and_continuing(tmp_path):
    run(tmp_path / "a", quiet(epochs=4))
    _, result = run(tmp_path / "b", quiet(epochs=4, max_updates=5))
    assert (result.reason, result.epochs_done) == ("max_updates", 1)
    assert [row["update"] for row in read_history(tmp_path / "b" / "history.jsonl")] == [3, 5]
    _, result = run(tmp_path / "b", quiet(epochs=4), make_potential(4), resume=True)
    assert result.reason == "epochs"
    assert same(tensors(tmp_path / "a"), tensors(tmp_path / "b"))


def test_plateau_ends_the_fit_at_its_floor(tmp_path):
    keys = {"lr": 1e-3, "lr_factor": 0.1, "plateau_patience": 0, "min_lr": 5e-5, "ema_decay": None}
    _, result = run(tmp_path, quiet(epochs=50, **keys), potential=at_rest())
    rates = [row["lr"] for row in read_history(tmp_path / "history.jsonl")]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-4, 5e-5])
    assert result.reason == "min_lr"
    _, again = run(tmp_path, quiet(epochs=50, **keys), potential=at_rest(), resume=True)
    assert (again.reason, again.epochs_here) == ("min_lr", 0)


def test_a_low_rate_ends_the_fit_but_not_a_warm_up(tmp_path):
    keys = {"scheduler": "exponential", "gamma": 0.5, "lr": 0.02, "terminate_on_low_lr": 0.006}
    _, result = run(tmp_path, quiet(epochs=50, warmup="linear", warmup_steps=100, **keys))
    assert (result.reason, result.epochs_done) == ("low_lr", 2)


CUT = {"early_stops": [{"metric": "forces_mae", "patience": 2}, {"metric": "loss", "lower_bound": 1e9}], "best_k": 3}


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_early_stops_and_ranking_survive_a_cut(tmp_path, cut):
    """A potential at rest never improves, so the fit ends after the third validation, whenever it was cut."""
    keys = {"lr": 1e-12, "ema_decay": None, "scheduler": None, **CUT}
    _, straight = run(tmp_path / "a", quiet(epochs=50, **keys), potential=at_rest())
    assert (straight.reason, straight.epochs_done) == ("early_stops", 3)
    run(tmp_path / "b", quiet(epochs=cut, **keys), potential=at_rest())
    _, resumed = run(tmp_path / "b", quiet(epochs=50, **keys), potential=at_rest(), resume=True)
    assert (resumed.reason, resumed.epochs_done) == ("early_stops", 3)
    assert record(tmp_path / "a")["progress"] == record(tmp_path / "b")["progress"]


def folders(place):
    return sorted(p.name for p in (place / "checkpoints").iterdir())


def test_the_k_best_are_kept_and_ranked(tmp_path):
    _, result = run(tmp_path, quiet(epochs=9, best_k=3, best_metric="energy_mae", lr=0.1, ema_decay=None))
    rows = read_history(tmp_path / "history.jsonl")
    assert len({row["val_loss"] for row in rows}) == 9
    assert len(result.ranked) == 3
    assert [entry["energy_mae"] for entry in result.ranked] == sorted(entry["energy_mae"] for entry in result.ranked)
    assert folders(tmp_path) == sorted(["best", "last", *(entry["checkpoint"] for entry in result.ranked)])
    seen = {}
    for entry in result.ranked:
        potential = make_potential(3)
        load_weights(tmp_path / "checkpoints" / entry["checkpoint"], potential)
        errors = measure_errors(gather(potential, load(VAL)))["all"]
        assert errors["energy_mae"] == pytest.approx(entry["energy_mae"], rel=1e-12)
        seen[entry["checkpoint"]] = weights(potential)
    best = make_potential(4)
    load_weights(tmp_path / "checkpoints" / "best", best)
    assert same(weights(best), seen[result.ranked[0]["checkpoint"]])
    assert result.best_metric == result.ranked[0]["energy_mae"]


def test_the_ranking_is_of_all_validations(tmp_path, monkeypatch):
    """Metrics in a known order: of 5, 3, 4, 1, 6, 2 the three best are 1, 2, 3."""
    from forgefield.train import cycles

    order = iter([5.0, 3.0, 4.0, 1.0, 6.0, 2.0, 2.0])
    monkeypatch.setattr(cycles, "metric_of", lambda values, name: next(order))
    _, result = run(tmp_path, quiet(epochs=7, best_k=3))
    assert [(entry["loss"], entry["epoch"]) for entry in result.ranked] == [(1.0, 4), (2.0, 6), (2.0, 7)]
    assert folders(tmp_path) == ["best", "best-12", "best-18", "best-21", "last"]
    assert result.best_epoch == 4


def test_what_a_killed_fit_counts_on_is_not_taken_away(tmp_path):
    """With a `last` every fourth cycle only, checkpoints that it lists stay until the next one."""
    run(tmp_path / "a", quiet(epochs=8, best_k=2, save_every=4))
    run(tmp_path / "b", quiet(epochs=4, best_k=2, save_every=4))
    rubbish = tmp_path / "b" / "checkpoints" / "best-99"
    rubbish.mkdir()
    run(tmp_path / "b", quiet(epochs=8, best_k=2, save_every=4), resume=True)
    assert folders(tmp_path / "a") == folders(tmp_path / "b")
    assert record(tmp_path / "a")["progress"] == record(tmp_path / "b")["progress"]


def test_another_best_metric_cannot_be_continued_with(tmp_path):
    run(tmp_path, quiet(epochs=1))
    with pytest.raises(ConfigError, match=r"train\.best_metric was 'loss', is 'forces_mae'"):
        run(tmp_path, quiet(epochs=2, best_metric="forces_mae"), resume=True)


def test_a_best_metric_without_labels(tmp_path):
    bare = make_structures(5, seed=7, stress=False)
    from forgefield.train.loop import fit

    with pytest.raises(DataError, match=r"train\.best_metric: .*labels of stress_rmse"):
        fit(
            make_potential(), load(TRAIN), load(bare), quiet(best_metric="stress_rmse"), folder=tmp_path, device="cpu",
            config_fingerprint="c", data_fingerprint="d",
        )  # fmt: skip


def test_the_diagnosis_names_the_group_whose_gradient_is_no_number(tmp_path):
    potential, calls = make_potential(), []

    def spoil(gradient):
        calls.append(1)
        return gradient * (math.nan if len(calls) == 5 else 1.0)

    potential.architecture.linear.weight.register_hook(spoil)
    with pytest.raises(ForgeError, match=r"gradient norms: decay nan, no_decay \d") as caught:
        run(tmp_path, quiet(epochs=5), potential=potential)
    message = str(caught.value)
    assert message.startswith("epoch 2, update 5: the gradient is not finite")
    assert "toy.xyz: frame" in message
    assert "last good checkpoint is kept in" in message
    assert json.loads((tmp_path / "checkpoints" / "last" / "state.json").read_text())["progress"]["update"] == 3
