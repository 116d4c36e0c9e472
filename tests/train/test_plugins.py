"""Optimizers, schedules and the weight average against PyTorch and by hand."""

import contextlib

import numpy as np
import pytest
import torch

from forgefield.core.catalog import Catalog
from forgefield.train.catalogs import OPTIMIZERS, SCHEDULES
from forgefield.train.ema import WeightAverage
from forgefield.train.settings import TrainSettings, plugin_settings


def build(package, name, first, settings):
    return Catalog(package).entry(name).build(first, plugin_settings(package, name, settings))


@pytest.mark.parametrize(
    ("name", "keys", "kind", "wanted"),
    [
        (
            "adam",
            {"betas": (0.8, 0.9), "eps": 1e-6},
            torch.optim.Adam,
            {"betas": (0.8, 0.9), "eps": 1e-6, "amsgrad": True},
        ),
        ("adamw", {"amsgrad": False}, torch.optim.AdamW, {"amsgrad": False}),
        ("sgd", {"momentum": 0.5}, torch.optim.SGD, {"momentum": 0.5}),
    ],
)
def test_optimizers(name, keys, kind, wanted):
    group = {"params": [torch.nn.Parameter(torch.ones(2, 2))], "weight_decay": 0.3}
    optimizer = build(OPTIMIZERS, name, [group], TrainSettings(optimizer=name, lr=0.07, **keys))
    assert type(optimizer) is kind
    for key, value in {**wanted, "lr": 0.07, "weight_decay": 0.3}.items():
        assert optimizer.param_groups[0][key] == value, key


def rates(schedule, optimizer, metrics):
    found = []
    for metric in metrics:
        schedule(metric)
        found.append(optimizer.param_groups[0]["lr"])
    return found


def pair():
    return [torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1) for _ in range(2)]


def test_plateau_is_pytorchs():
    rng = np.random.default_rng(0)
    metrics = (np.exp(-np.arange(300) / 40) + 0.05 * rng.random(300)).tolist()
    ours, theirs = pair()
    schedule = build(SCHEDULES, "plateau", ours, TrainSettings(lr_factor=0.5, plateau_patience=4))
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(theirs, factor=0.5, patience=4)
    found = rates(schedule.step, ours, metrics)
    assert found == rates(reference.step, theirs, metrics)
    assert found[-1] < 0.01
    again = build(SCHEDULES, "plateau", ours, TrainSettings(lr_factor=0.5, plateau_patience=4))
    again.load(schedule.state())
    assert again.state() == schedule.state() != {"best": None, "bad": 0}


def test_step_is_pytorchs():
    ours, theirs = pair()
    schedule = build(SCHEDULES, "step", ours, TrainSettings(scheduler="step", step_size=3, gamma=0.5))
    reference = torch.optim.lr_scheduler.StepLR(theirs, step_size=3, gamma=0.5)
    theirs.step()
    assert rates(schedule.step, ours, range(10)) == rates(lambda _: reference.step(), theirs, range(10))
    assert schedule.state() == {"count": 10}


def test_average_by_hand():
    model = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        model.weight.fill_(0.0)
    average = WeightAverage(model, 0.3)
    value = 0.0
    for n in range(1, 8):
        with torch.no_grad():
            model.weight.fill_(float(n))
        average.update()
        decay = min(0.3, (1 + n) / (10 + n))
        value = decay * value + (1 - decay) * n
        assert average.values["weight"].item() == pytest.approx(value, rel=1e-14)
    with contextlib.suppress(ZeroDivisionError), average.in_place():
        assert model.weight.item() == pytest.approx(value)
        raise ZeroDivisionError  # the weights come back all the same
    assert model.weight.item() == 7.0
    assert average.values["weight"].item() == pytest.approx(value)
