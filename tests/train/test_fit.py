"""The whole loop on a toy: what is written, what is handed back, when it stops."""

import csv
import io
import json
import subprocess
import sys
import time

import pytest
import torch
from rich.console import Console
from toy import load, make_potential, make_structures, quiet, same, weights

from forgefield.core.errors import ConfigError, DataError, ForgeError, ModelError
from forgefield.models.bundle import MANIFEST
from forgefield.train.checkpoint import load_weights
from forgefield.train.cpu_time import CpuClock
from forgefield.train.evaluate import validate
from forgefield.train.loop import FitResult, fit
from forgefield.train.loss import build_loss
from forgefield.train.recorder import COLUMNS, read_history

TRAIN, VAL = make_structures(10), make_structures(5, seed=7)


def run(folder, settings, potential=None, train=None, console=None, **more):
    potential = potential or make_potential()
    train = load(TRAIN if train is None else train, settings.batch_size, shuffle=True, drop_last=settings.drop_last)
    more = {"config_fingerprint": "c", "data_fingerprint": "d", "device": "cpu", **more}
    console = console or Console(file=io.StringIO(), width=200)
    return potential, fit(potential, train, load(VAL), settings, folder=folder, console=console, **more)


def test_a_fit_improves_and_hands_back_the_best_weights(tmp_path):
    settings = quiet(epochs=12)
    losses = build_loss(settings)
    before, _ = validate(make_potential(), load(VAL), losses)
    potential, result = run(tmp_path, settings)
    after, _ = validate(potential, load(VAL, 2), losses)
    assert isinstance(result, FitResult)
    assert (result.reason, result.epochs_done, result.epochs_here) == ("epochs", 12, 12)
    assert float(after.total) < 0.2 * float(before.total)
    assert result.best_metric == pytest.approx(float(after.total), rel=1e-12)
    rows = read_history(result.history)
    best = min(rows, key=lambda row: row["val_loss"])
    assert (result.best_epoch, result.best_metric) == (best["epoch"], best["val_loss"])
    assert 0 < result.seconds < 60


def test_history_files_agree(tmp_path):
    _, result = run(tmp_path, quiet(stress_weight=1.0))
    rows = read_history(tmp_path / "history.jsonl")
    assert [row["epoch"] for row in rows] == [row["cycle"] for row in rows] == [1, 2, 3]
    assert [row["update"] for row in rows] == [3, 6, 9]
    assert all(tuple(row) == COLUMNS for row in rows)
    with open(tmp_path / "history.csv") as file:
        table = list(csv.DictReader(file))
    for row, cells in zip(rows, table, strict=True):
        assert {k: float(v) for k, v in cells.items()} == {k: float(v) for k, v in row.items()}
    row = rows[-1]
    for kind in ("train", "val"):
        parts = row[f"{kind}_energy"] + 100 * row[f"{kind}_forces"] + row[f"{kind}_stress"]
        assert row[f"{kind}_loss"] == pytest.approx(parts, rel=1e-12)
    assert row["val_forces_rmse"] ** 2 == pytest.approx(row["val_forces"], rel=1e-12)
    assert row["val_energy_rmse_per_atom"] ** 2 == pytest.approx(row["val_energy"], rel=1e-12)
    assert row["val_stress_rmse"] ** 2 == pytest.approx(row["val_stress"], rel=1e-12)
    assert row["structures_per_second"] > 0
    assert row["peak_memory_mib"] > 10
    assert result.history == tmp_path / "history.jsonl"
    assert list((tmp_path / "tensorboard").iterdir())


def test_tensorboard_holds_the_history(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(tmp_path, quiet(log_every=1))
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    rows = read_history(tmp_path / "history.jsonl")
    events = board.Scalars("validation/loss")
    assert [e.step for e in events] == [3, 6, 9]
    assert [e.value for e in events] == pytest.approx([row["val_loss"] for row in rows], rel=1e-6)
    assert len(board.Scalars("update/loss")) == 9


def test_no_average(tmp_path):
    potential, _ = run(tmp_path, quiet(ema_decay=None, epochs=1))
    again = make_potential(5)
    load_weights(tmp_path / "checkpoints" / "last", again)
    assert same(weights(potential), weights(again))


def test_validation_and_best_use_the_averaged_weights(tmp_path):
    """With a slow average the result after one epoch must differ from the raw weights, which `last` holds as well."""
    averaged, result = run(tmp_path / "a", quiet(ema_decay=0.9999, epochs=1))
    raw, other = run(tmp_path / "b", quiet(ema_decay=None, epochs=1))
    assert not same(weights(averaged), weights(raw))
    assert result.best_metric != other.best_metric


def test_the_bundle_of_a_checkpoint_holds_the_averaged_weights(tmp_path):
    from safetensors.torch import load_file

    potential, _ = run(tmp_path, quiet(epochs=1))
    best = tmp_path / "checkpoints" / "best"
    stored = load_file(best / "weights.safetensors")
    own = dict(potential.architecture.named_parameters())
    assert stored.keys() == own.keys()
    assert all(torch.equal(stored[name], own[name]) for name in own)
    assert json.loads((best / MANIFEST).read_text())["provenance"]["epoch"] == 1


def test_nothing_is_pickled(tmp_path):
    run(tmp_path, quiet(epochs=1))
    files = sorted(p.name for p in (tmp_path / "checkpoints" / "last").iterdir())
    assert files == ["manifest.json", "state.json", "training.safetensors", "weights.safetensors"]


def test_early_stopping_with_every_scheduler(tmp_path):
    for scheduler in ("plateau", "step", None):
        settings = quiet(
            epochs=500, lr=1e-12, ema_decay=None, scheduler=scheduler, plateau_patience=2, early_stop_factor=1.5
        )
        _, result = run(tmp_path / str(scheduler), settings, potential=at_rest())
        assert result.reason == "early_stop", scheduler
        assert result.epochs_done == result.best_epoch + 3


def at_rest():
    """A potential at its optimum: validation never improves by training on it."""
    potential = make_potential()
    potential.architecture.linear.weight.requires_grad_(False)
    potential.architecture.linear.bias.requires_grad_(False)
    with torch.no_grad():
        potential.architecture.linear.bias.fill_(40.0)  # tanh is 1 to the last digit: the readout has no gradient
        potential.architecture.linear.weight.zero_()
    potential.architecture.readouts[0].weight.register_hook(torch.zeros_like)
    return potential


def test_plateau_steps_after_validations_and_step_after_epochs(tmp_path):
    run(tmp_path / "p", quiet(epochs=5, lr_factor=0.5, plateau_patience=0, ema_decay=None), potential=at_rest())
    rates = [row["lr"] for row in read_history(tmp_path / "p" / "history.jsonl")]
    assert rates == [0.02, 0.02, 0.01, 0.005, 0.0025]
    run(tmp_path / "s", quiet(epochs=5, scheduler="step", step_size=2, gamma=0.5))
    rates = [row["lr"] for row in read_history(tmp_path / "s" / "history.jsonl")]
    assert rates == [0.02, 0.02, 0.01, 0.01, 0.005]


def test_cycles_count_updates_and_may_end_inside_an_epoch(tmp_path):
    """Ten structures by 2 make 5 batches; 3 epochs are 15 updates: cycles of 4 end at 4, 8, 12 and the rest at 15."""
    settings = quiet(batch_size=2, cycle_steps=4, scheduler="step", scheduler_step_unit="cycle", step_size=1, gamma=0.5)
    _, result = run(tmp_path, settings)
    rows = read_history(tmp_path / "history.jsonl")
    assert [row["update"] for row in rows] == [4, 8, 12, 15]
    assert [row["epoch"] for row in rows] == [1, 2, 3, 3]
    assert [row["cycle"] for row in rows] == [1, 2, 3, 3]
    assert [row["partial"] for row in rows] == [False, False, False, True]
    assert [row["lr"] for row in rows] == [0.02, 0.01, 0.005, 0.0025]
    assert result.epochs_done == 3
    assert running(tmp_path / "checkpoints" / "last") == 3  # the cycle goes on when the fit is continued
    run(tmp_path / "epochs", quiet())
    assert running(tmp_path / "epochs" / "checkpoints" / "last") == 0


def running(checkpoint):
    return json.loads((checkpoint / "state.json").read_text())["progress"]["running"]["updates"]


def test_drop_last_leaves_out_incomplete_updates(tmp_path):
    for drop, updates in ((False, [2, 4]), (True, [1, 2])):
        settings = quiet(epochs=2, batch_size=3, accum_steps=3, drop_last=drop)
        run(tmp_path / str(drop), settings)
        assert [row["update"] for row in read_history(tmp_path / str(drop) / "history.jsonl")] == updates
    with pytest.raises(ConfigError, match="too few for one update"):
        run(tmp_path / "none", quiet(batch_size=5, accum_steps=4, drop_last=True))


def test_accumulation_is_a_larger_batch(tmp_path):
    """Also for the last update of each epoch, which has fewer structures."""
    plain = {"epochs": 3, "optimizer": "sgd", "momentum": 0.9, "lr": 1e-3, "ema_decay": 0.9}
    order = {"config_fingerprint": "c", "data_fingerprint": "d", "device": "cpu"}
    results = []
    for size, steps in ((6, 1), (2, 3)):
        potential = make_potential()
        loader = load(TRAIN, size)
        settings = quiet(batch_size=size, accum_steps=steps, **plain)
        fit(
            potential,
            loader,
            load(VAL),
            settings,
            folder=tmp_path / str(size),
            console=Console(file=io.StringIO()),
            **order,
        )
        results.append(weights(potential))
    for name, value in results[0].items():
        assert torch.allclose(value, results[1][name], rtol=1e-10, atol=1e-13), name


def test_time_limit(tmp_path):
    _, result = run(tmp_path, quiet(epochs=1000, max_minutes=1e-9))
    assert (result.reason, result.epochs_done) == ("max_minutes", 0)
    rows = read_history(tmp_path / "history.jsonl")
    assert [(row["update"], row["partial"]) for row in rows] == [(1, True)]
    assert (tmp_path / "checkpoints" / "last" / "state.json").is_file()


def test_limit_of_computing_time(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(
        "forgefield.train.cycles.CpuClock.seconds", lambda self: clock.__setitem__(0, clock[0] + 1.0) or clock[0]
    )
    _, result = run(tmp_path, quiet(epochs=1000, max_cpu_minutes=0.1))
    assert result.reason == "max_cpu_minutes"
    state = json.loads((tmp_path / "checkpoints" / "last" / "state.json").read_text())
    first = state["progress"]["cpu_seconds"]
    assert 4.0 <= first <= clock[0] < 12.0  # a second for each look at the clock, and 6 of them to spend
    clock[0] = 0.0
    _, again = run(tmp_path, quiet(epochs=1000, max_cpu_minutes=0.1), resume=True)
    rows = read_history(tmp_path / "history.jsonl")
    assert again.reason == "max_cpu_minutes"
    assert rows[-1]["cpu_seconds"] > first + 2.0  # over both calls


def test_the_clock_counts_computing_only_and_other_processes_too():
    clock = CpuClock()
    time.sleep(0.05)
    idle = clock.seconds()
    code = "import time\nwhile time.process_time() < 0.4: pass"
    subprocess.run([sys.executable, "-c", code], check=True)
    clock._looked -= 2.0  # as if it had been long ago
    assert idle < 0.04
    assert clock.seconds() >= 0.4


def test_save_every(tmp_path, monkeypatch):
    from forgefield.train import cycles

    saved = []
    real = cycles.save_checkpoint
    monkeypatch.setattr(
        cycles,
        "save_checkpoint",
        lambda folder, state, stamp: (saved.append((folder.name, state.progress.epoch)), real(folder, state, stamp)),
    )
    run(tmp_path, quiet(epochs=5, save_every=3))
    assert [epoch for name, epoch in saved if name == "last"] == [3, 5]


def test_head_only_leaves_the_rest_alone(tmp_path):
    before = weights(make_potential())
    potential, _ = run(tmp_path, quiet(freeze="head_only", epochs=1))
    after = weights(potential)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"architecture.readouts.0.weight"}


def test_an_unknown_head_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"no head 'omat_pbe'.*default"):
        run(tmp_path, quiet(head_key="omat_pbe"))
    run(tmp_path, quiet(head_key="default", epochs=1))


def test_amp_off_cuda_is_said(tmp_path):
    text = io.StringIO()
    potential = make_potential().to(torch.float32)
    train = load(TRAIN, dtype=torch.float32)
    with pytest.raises(ConfigError, match="float64"):
        run(tmp_path / "double", quiet(amp=True))
    fit(
        potential, train, load(VAL, dtype=torch.float32), quiet(amp=True, epochs=1), folder=tmp_path, device="cpu",
        config_fingerprint="c", data_fingerprint="d", console=Console(file=text, width=200),
    )  # fmt: skip
    assert "train.amp is off" in text.getvalue()


def test_quantities_without_labels_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"train\.stress_weight.*no training structure has stress labels"):
        run(tmp_path, quiet(stress_weight=1.0), train=make_structures(8, stress=False))
    assert not (tmp_path / "checkpoints").exists()


def test_a_validation_structure_without_finite_prediction_is_named(tmp_path):
    potential = make_potential()
    far = potential.architecture.centres
    potential.eval = lambda: far.fill_(torch.nan)  # validation, and nothing else, sees nonsense
    with pytest.raises(DataError, match=r"toy\.xyz: frame 1: the prediction is not finite \(5 structures"):
        run(tmp_path, quiet(), potential=potential)


def test_validation_data_must_be_there(tmp_path):
    class Nothing:
        def __len__(self):
            return 0

    with pytest.raises(DataError, match="no validation structures"):
        fit(
            make_potential(), load(TRAIN), Nothing(), quiet(), folder=tmp_path, device="cpu",
            config_fingerprint="c", data_fingerprint="d",
        )  # fmt: skip


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_checkpoint(tmp_path):
    potential = make_potential()
    calls = []

    def spoil(gradient):
        calls.append(1)
        return gradient * (torch.nan if len(calls) == 8 else 1.0)

    potential.architecture.linear.weight.register_hook(spoil)
    with pytest.raises(ForgeError) as caught:
        run(tmp_path, quiet(epochs=5), potential=potential)
    message = str(caught.value)
    assert message.startswith("epoch 3, update 8: the gradient is not finite")
    assert "toy.xyz: frame" in message
    assert "last good checkpoint is kept" in message
    _, result = run(tmp_path, quiet(epochs=5), resume=True)
    assert (result.epochs_done, result.epochs_here) == (5, 3)
    assert [row["epoch"] for row in read_history(tmp_path / "history.jsonl")] == [1, 2, 3, 4, 5]


def test_a_run_is_not_written_over(tmp_path):
    run(tmp_path, quiet(epochs=1))
    with pytest.raises(ConfigError, match="checkpoints already"):
        run(tmp_path, quiet(epochs=1))


def test_log_lines_where_there_is_no_terminal(tmp_path):
    text = io.StringIO()
    run(tmp_path, quiet(log_every=2, progress_bar="auto"), console=Console(file=text, width=200))
    lines = text.getvalue().splitlines()
    assert [line.split()[1] for line in lines if line.startswith("update")] == ["2/9", "4/9", "6/9", "8/9"]
    assert sum(line.startswith("epoch") for line in lines) == 3
    assert "meV/Å" in lines[-1]


def test_a_progress_bar_where_there_is_a_terminal(tmp_path):
    text = io.StringIO()
    settings = quiet(log_every=1, progress_bar="auto", progress_mininterval=0.05)
    run(tmp_path, settings, console=Console(file=text, force_terminal=True, width=120))
    shown = text.getvalue()
    assert "updates" in shown
    assert "update 2/9" not in shown
    assert "\x1b[" in shown


def test_progress_bar_can_be_forced_and_forbidden(tmp_path):
    for bar in (True, False):
        text = io.StringIO()
        console = Console(file=text, force_terminal=not bar, width=120)
        run(tmp_path / str(bar), quiet(log_every=1, progress_bar=bar), console=console)
        assert ("update 2/9" in text.getvalue()) is not bar


def test_automatic_log_lines_are_about_twenty(tmp_path):
    text = io.StringIO()
    run(tmp_path, quiet(epochs=9, log_every="auto", batch_size=2), console=Console(file=text, width=200))
    assert sum(line.startswith("update") for line in text.getvalue().splitlines()) == 22
