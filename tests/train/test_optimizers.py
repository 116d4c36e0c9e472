"""Optimizers beyond Adam: against PyTorch's own steps, on the whole training set, and over a restart."""

import io

import pytest
import torch
from rich.console import Console
from toy import load, make_potential, make_structures, quiet, same, weights

from forgefield.core.catalog import Catalog
from forgefield.core.errors import ForgeError
from forgefield.train import full_batch
from forgefield.train.catalogs import OPTIMIZERS
from forgefield.train.full_batch import take_full_update
from forgefield.train.loop import fit, prepare
from forgefield.train.loss import build_loss
from forgefield.train.optimizer_state import pack_optimizer, unpack_optimizer
from forgefield.train.recorder import read_history
from forgefield.train.settings import TrainSettings, plugin_settings

TRAIN, VAL = make_structures(10), make_structures(4, seed=7)
CPU = torch.device("cpu")


def run(folder, settings, potential=None, structures=TRAIN, **more):
    potential = potential or make_potential(noise=0.05)
    more = {"config_fingerprint": "c", "data_fingerprint": "d", "device": "cpu", **more}
    train = load(structures, settings.batch_size, shuffle=True, seed=3)
    result = fit(potential, train, load(VAL), settings, folder=folder, console=Console(file=io.StringIO()), **more)
    return potential, result


def build(name, groups, settings):
    return Catalog(OPTIMIZERS).entry(name).build(groups, plugin_settings(OPTIMIZERS, name, settings))


@pytest.mark.parametrize(
    ("name", "keys", "kind", "wanted"),
    [
        ("nadam", {"momentum_decay": 0.01, "betas": (0.8, 0.9)}, torch.optim.NAdam, {"momentum_decay": 0.01}),
        ("nadam", {"decoupled_decay": True}, torch.optim.NAdam, {"decoupled_weight_decay": True}),
        ("radam", {"eps": 1e-6}, torch.optim.RAdam, {"eps": 1e-6, "decoupled_weight_decay": False}),
        ("lbfgs", {"lbfgs_history": 7, "lbfgs_iterations": 3}, torch.optim.LBFGS, {"history_size": 7, "max_iter": 3}),
    ],
)
def test_what_is_built(name, keys, kind, wanted):
    parameter = torch.nn.Parameter(torch.ones(2, 2))
    group = {"params": [parameter], "names": ["w"], "name": "decay", "weight_decay": 0.3}
    optimizer = build(name, [group], TrainSettings.model_validate({"optimizer": name, "lr": 0.07, **keys}))
    assert type(optimizer) is kind
    for key, value in {**wanted, "lr": 0.07}.items():
        assert optimizer.param_groups[0][key] == value, key
    assert name == "lbfgs" or optimizer.param_groups[0]["weight_decay"] == 0.3


def test_defaults_of_lbfgs():
    settings = TrainSettings(optimizer="lbfgs")
    assert (settings.lr, settings.max_grad_norm) == (1.0, None)
    assert TrainSettings.model_validate(settings.model_dump()) == settings
    assert TrainSettings(optimizer="lbfgs", lr=0.5).lr == 0.5


def test_lbfgs_is_pytorchs_on_the_whole_set():
    """Three updates in batches equal three of PyTorch's on one batch of all structures, with the decay in the loss."""
    settings = quiet(optimizer="lbfgs", lr=1.0, weight_decay=0.01, batch_size=3, ema_decay=None, force_weight=1.0)
    ours = make_potential()
    state, losses = prepare(ours, settings, CPU), build_loss(settings)
    batches = list(load(TRAIN, 3).batches(0))
    assert len(batches) == 4
    reference = make_potential()
    matrix = reference.architecture.linear.weight
    theirs = torch.optim.LBFGS(reference.parameters(), lr=1.0, max_iter=1, max_eval=26, line_search_fn="strong_wolfe")
    theirs.param_groups[0].update(tolerance_grad=0.0, tolerance_change=0.0)
    (everything,) = load(TRAIN, 10).batches(0)

    def closure():
        theirs.zero_grad()
        labels = everything.labels
        loss = losses.combine(losses.sums(reference(everything.graph), labels), losses.counts(labels)).total
        loss = loss + 0.005 * (matrix * matrix).sum()
        loss.backward()
        return loss

    for _ in range(3):
        take_full_update(state, batches, losses)
        theirs.step(closure)
    for name, value in weights(ours).items():
        assert torch.allclose(value, weights(reference)[name], rtol=1e-7, atol=1e-9), name
    assert not same(weights(ours), weights(make_potential()))


def test_lbfgs_falls_fast_and_counts_an_update_as_an_epoch(tmp_path):
    settings = quiet(optimizer="lbfgs", epochs=15, ema_decay=None)
    settings = TrainSettings.model_validate({**settings.model_dump(), "lr": 1.0})
    run(tmp_path, settings, make_potential())
    rows = read_history(tmp_path / "history.jsonl")
    assert [row["update"] for row in rows] == list(range(1, 16))
    losses = [row["train_loss"] for row in rows]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.05 * losses[0]
    run(tmp_path / "adam", quiet(epochs=15, ema_decay=None), make_potential())
    assert losses[-1] < read_history(tmp_path / "adam" / "history.jsonl")[-1]["train_loss"]


def tensors(folder):
    from safetensors.torch import load_file

    return load_file(folder / "checkpoints" / "last" / "training.safetensors")


@pytest.mark.parametrize("name", ["nadam", "radam", "lbfgs"])
def test_a_cut_changes_nothing(tmp_path, name):
    keys = {"optimizer": name, "lr": 0.5 if name == "lbfgs" else 0.02}
    straight, _ = run(tmp_path / "a", quiet(epochs=7, **keys))
    run(tmp_path / "b", quiet(epochs=4, **keys))
    torch.manual_seed(5)
    resumed, _ = run(tmp_path / "b", quiet(epochs=7, **keys), make_potential(8, noise=0.05), resume=True)
    assert same(tensors(tmp_path / "a"), tensors(tmp_path / "b"))
    assert same(weights(straight), weights(resumed))
    again, _ = run(tmp_path / "c", quiet(epochs=7, **keys))
    assert same(weights(straight), weights(again))


def test_lists_of_an_optimizer_come_back():
    settings = quiet(optimizer="lbfgs", lr=1.0)
    batches = list(load(TRAIN, 4).batches(0))
    state, losses = prepare(make_potential(), settings, CPU), build_loss(settings)
    for _ in range(4):
        take_full_update(state, batches, losses)
    record, values = pack_optimizer(state.optimizer)
    assert any("old_dirs#2" in name for name in values)
    other = prepare(make_potential(), settings, CPU)
    unpack_optimizer(other.optimizer, record, values)
    record_again, values_again = pack_optimizer(other.optimizer)
    assert (record_again, same(values, values_again)) == (record, True)


def test_a_trial_step_that_is_no_number_is_shortened(monkeypatch):
    """Beyond a wall the loss is not a number; the line search stays in front of it and still goes down."""
    settings = quiet(optimizer="lbfgs", lr=50.0, ema_decay=None)
    potential = make_potential()
    state, losses = prepare(potential, settings, CPU), build_loss(settings)
    start, met = potential.architecture.readouts[0].weight.detach().clone(), []
    real = full_batch.add_gradients

    def walled(*args):
        sums, total = real(*args)
        beyond = (potential.architecture.readouts[0].weight - start).abs().max() > 0.5
        met.append(bool(beyond))
        factor = torch.nan if beyond else 1.0
        return {name: value * factor for name, value in sums.items()}, total * factor

    monkeypatch.setattr(full_batch, "add_gradients", walled)
    batches = list(load(TRAIN, 5).batches(0))
    first = take_full_update(state, batches, losses).loss
    second = take_full_update(state, batches, losses).loss
    assert any(met)
    assert second < first
    assert all(torch.isfinite(value).all() for value in weights(potential).values())


def test_a_start_that_is_no_number_is_explained():
    settings = quiet(optimizer="lbfgs", lr=1.0)
    potential = make_potential()
    state = prepare(potential, settings, CPU)
    with torch.no_grad():
        potential.architecture.linear.bias.fill_(torch.nan)
    with pytest.raises(ForgeError, match=r"loss is not finite.*structures 0, 1.*gradient norms: all nan"):
        take_full_update(state, list(load(TRAIN, 5).batches(0)), build_loss(settings))


def test_noise_is_the_same_in_all_passes_of_an_update():
    """Otherwise the line search would compare different functions."""
    settings = quiet(optimizer="lbfgs", lr=1.0, ema_decay=None)
    potential = make_potential(noise=0.3)
    state, losses = prepare(potential, settings, CPU), build_loss(settings)
    objective = full_batch._Objective(state, list(load(TRAIN, 4).batches(0)), losses)
    potential.train()
    values = [float(objective()) for _ in range(3)]
    assert values[0] == values[1] == values[2]
    torch.rand(1)
    assert float(full_batch._Objective(state, objective.batches, losses)()) != values[0]
