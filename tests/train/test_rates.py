"""Schedules and warm-ups equal their formulas at every step, alone and composed, and after a cut."""

import json
import math

import pytest
import torch

from forgefield.core.errors import ConfigError
from forgefield.train.rates import make_rates
from forgefield.train.settings import TrainSettings

PER_EPOCH, EPOCHS = 7, 12
RATES = (0.1, 0.004)  # of two groups
FLOOR = 0.003
CURVES = {
    "step": ({"step_size": 3, "gamma": 0.4}, lambda t, T: 0.4 ** (t // 3)),
    "exponential": ({"gamma": 0.9}, lambda t, T: 0.9**t),
    "linear": ({}, lambda t, T: 1 - (1 - FLOOR / 0.1) * min(t / T, 1)),
    "cosine": ({}, lambda t, T: FLOOR / 0.1 + (1 - FLOOR / 0.1) * (1 + math.cos(math.pi * min(t / T, 1))) / 2),
    "cosine_restarts": ({"T_0": 2, "T_mult": 2}, None),
    "one_cycle": ({"pct_start": 0.25, "div_factor": 10.0, "final_div_factor": 50.0}, None),
}
UNITS = {"epoch": PER_EPOCH, "update": 1, "cycle": 4}


def optimizer(kind=torch.optim.Adam):
    groups = [{"params": [torch.nn.Parameter(torch.ones(1))], "lr": rate, "name": str(rate)} for rate in RATES]
    return kind(groups)


def settings(name, unit="epoch", **more):
    keys = dict(CURVES.get(name, ({},))[0])
    if name not in ("one_cycle", None, "plateau"):
        keys["min_lr"] = FLOOR
    base = {"scheduler": name, "scheduler_step_unit": unit, "lr": 0.1, "epochs": EPOCHS, "optimizer": "adam"}
    return TrainSettings.model_validate({**base, **keys, **({"cycle_steps": 4} if unit == "cycle" else {}), **more})


def moments(updates):
    """What is over after each update, as the trainer tells it."""
    for n in range(1, updates + 1):
        yield ["update"] + ["epoch"] * (n % PER_EPOCH == 0) + ["cycle"] * (n % 4 == 0)


def walk(rates, first, last):
    """Rates of all groups in the updates from first to last."""
    found = []
    for n, over in enumerate(moments(last), 1):
        if n <= first:
            continue
        found.append([group["lr"] for group in rates.optimizer.param_groups])
        for moment in over:
            rates.reach(moment)
    return found


def sgdr(t, first):
    """Cosine with restarts after periods of first, 2 first, 4 first ... steps."""
    period = first
    while t >= period:
        t, period = t - period, 2 * period
    return FLOOR / 0.1 + (1 - FLOOR / 0.1) * (1 + math.cos(math.pi * t / period)) / 2


def cycle_once(t, total):
    top, end = 0.25 * total - 1, total - 1
    if t <= top:
        return 1 + (0.1 - 1) * (1 + math.cos(math.pi * t / top)) / 2
    last = 0.1 / 50
    return last + (1 - last) * (1 + math.cos(math.pi * min((t - top) / (end - top), 1))) / 2


def expected(name, t, unit):
    total = EPOCHS * PER_EPOCH / UNITS[unit]
    if name == "cosine_restarts":
        return sgdr(t, 2 * PER_EPOCH / UNITS[unit])
    if name == "one_cycle":
        return cycle_once(t, total)
    return max(CURVES[name][1](t, total), FLOOR / 0.1)


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("name", CURVES)
def test_every_schedule_is_its_formula_at_every_update(name, unit):
    rates = make_rates(optimizer(), settings(name, unit), PER_EPOCH)
    seen = walk(rates, 0, EPOCHS * PER_EPOCH)
    assert len({first for first, _ in seen}) > 3
    for n, (first, second) in enumerate(seen):
        wanted = 0.1 * expected(name, n // UNITS[unit], unit)
        assert first == pytest.approx(wanted, rel=1e-12), n
        assert second / first == pytest.approx(RATES[1] / RATES[0], rel=1e-12), n


def theirs(name, reference):
    """PyTorch's scheduler of the same name, stepped per update."""
    kinds = torch.optim.lr_scheduler
    total = EPOCHS * PER_EPOCH
    return {
        "step": lambda: kinds.StepLR(reference, 3, 0.4),
        "exponential": lambda: kinds.ExponentialLR(reference, 0.9),
        "linear": lambda: kinds.LinearLR(reference, 1.0, FLOOR / 0.1, total),
        "cosine": lambda: kinds.CosineAnnealingLR(reference, total, FLOOR),
        "cosine_restarts": lambda: kinds.CosineAnnealingWarmRestarts(reference, 2 * PER_EPOCH, 2, FLOOR),
        "one_cycle": lambda: kinds.OneCycleLR(
            reference, 0.1, total, pct_start=0.25, div_factor=10.0, final_div_factor=50.0, cycle_momentum=False
        ),
    }[name]()


@pytest.mark.parametrize("name", CURVES)
def test_every_schedule_is_pytorchs(name):
    reference = torch.optim.Adam([torch.nn.Parameter(torch.ones(1))], lr=0.1)
    scheduler = theirs(name, reference)
    wanted = []
    for _ in range(EPOCHS * PER_EPOCH):
        wanted.append(max(reference.param_groups[0]["lr"], FLOOR if name in ("step", "exponential") else 0))
        reference.step()
        scheduler.step()
    seen = walk(make_rates(optimizer(), settings(name, "update"), PER_EPOCH), 0, EPOCHS * PER_EPOCH)
    assert [first for first, _ in seen] == pytest.approx(wanted, rel=1e-9)


def radam(n, beta):
    limit = 2 / (1 - beta) - 1
    rho = lambda t: limit - 2 * t * beta**t / (1 - beta**t)  # noqa: E731
    offset = next(t for t in range(1, 100) if rho(t) > 4)
    r = rho(n + offset - 1)
    return math.sqrt((r - 4) * (r - 2) * limit / ((limit - 4) * (limit - 2) * r))


WARMUPS = {
    "linear": ({"warmup_steps": 20}, lambda n: min(1, n / 20)),
    "exponential": ({"warmup_steps": 20}, lambda n: 1 - math.exp(-n / 20)),
    "untuned_linear": ({"betas": (0.9, 0.95)}, lambda n: min(1, n / int(2 / (1 - 0.95)))),
    "untuned_exponential": ({"betas": (0.9, 0.95)}, lambda n: 1 - math.exp(-n / int(1 / (1 - 0.95)))),
    "radam": ({"betas": (0.9, 0.95)}, lambda n: radam(n, 0.95)),
}


@pytest.mark.parametrize("name", [None, *CURVES])
@pytest.mark.parametrize("kind", WARMUPS)
def test_a_warm_up_lies_over_every_schedule(kind, name):
    keys, factor = WARMUPS[kind]
    chosen = settings(name, "epoch", warmup=kind, **keys)
    adam = optimizer()
    for group in adam.param_groups:
        group["betas"] = chosen.betas
    seen = walk(make_rates(adam, chosen, PER_EPOCH), 0, EPOCHS * PER_EPOCH)
    for n, (first, second) in enumerate(seen):
        share = 1.0 if name is None else expected(name, n // PER_EPOCH, "epoch")
        assert first == pytest.approx(0.1 * share * factor(n + 1), rel=1e-12), n
        assert second / first == pytest.approx(RATES[1] / RATES[0], rel=1e-12), n
    assert seen[0][0] < 0.5 * 0.1


@pytest.mark.parametrize("name", [None, *CURVES])
@pytest.mark.parametrize("cut", [1, 13, 14, 40])
def test_a_cut_changes_no_rate(name, cut):
    chosen = settings(name, "epoch", warmup="linear", warmup_steps=20)
    straight = make_rates(optimizer(), chosen, PER_EPOCH)
    before = walk(straight, 0, cut)
    stored = json.loads(json.dumps(straight.state()))
    again = make_rates(optimizer(), chosen, PER_EPOCH)
    again.load(stored, cut)
    after = walk(again, cut, 60)
    assert before + after == walk(make_rates(optimizer(), chosen, PER_EPOCH), 0, 60)
    assert again.state() != stored


def test_plateau_with_groups_warm_up_and_floor():
    """Two bad validations lower the rate, never below the floor; when patience runs out there, it is exhausted."""
    chosen = settings("plateau", lr_factor=0.5, plateau_patience=1, min_lr=0.03, warmup="linear", warmup_steps=4)
    rates = make_rates(optimizer(), chosen, PER_EPOCH)
    seen, ended = [], []
    for _ in range(10):
        rates.reach("update")
        rates.reach("validation", 1.0)
        seen.append(rates.rates[0])
        ended.append(rates.exhausted)
        assert rates.rates[1] / rates.rates[0] == pytest.approx(0.04, rel=1e-12)
        factor = min(1, (rates.updates + 1) / 4)
        assert rates.optimizer.param_groups[0]["lr"] == pytest.approx(rates.rates[0] * factor, rel=1e-12)
    assert seen == pytest.approx([0.1, 0.1, 0.05, 0.05, 0.03, 0.03, 0.03, 0.03, 0.03, 0.03])
    assert ended == [False] * 6 + [True] * 4
    stored = json.loads(json.dumps(rates.state()))
    again = make_rates(optimizer(), chosen, PER_EPOCH)
    again.load(stored, 10)
    assert (again.exhausted, again.rates) == (rates.exhausted, rates.rates)


def test_T_max_is_in_epochs_whatever_the_unit():
    for unit in UNITS:
        rates = make_rates(optimizer(), settings("cosine", unit, T_max=4, min_lr=0.0), PER_EPOCH)
        seen = [first for first, _ in walk(rates, 0, 6 * PER_EPOCH)]
        for n, rate in enumerate(seen):
            epochs = n // UNITS[unit] * UNITS[unit] / PER_EPOCH
            assert rate == pytest.approx(0.05 * (1 + math.cos(math.pi * min(epochs / 4, 1))), abs=1e-15)


def test_a_curve_over_the_whole_run_cannot_be_prolonged():
    stored = make_rates(optimizer(), settings("cosine"), PER_EPOCH).state()
    longer = make_rates(optimizer(), settings("cosine", epochs=20), PER_EPOCH)
    with pytest.raises(ConfigError, match=r"train\.T_max.*12 steps before and 20 now"):
        longer.load(stored, 0)
    stored = make_rates(optimizer(), settings("cosine", T_max=9), PER_EPOCH).state()
    make_rates(optimizer(), settings("cosine", T_max=9, epochs=20), PER_EPOCH).load(stored, 0)
    shorter = make_rates(optimizer(), settings("cosine", "update", max_updates=30), PER_EPOCH)
    assert walk(shorter, 0, 31)[30][0] == pytest.approx(FLOOR)


def test_states_of_before_there_were_warm_ups():
    adam = optimizer()
    rates = make_rates(adam, settings("step"), PER_EPOCH)
    adam.param_groups[0]["lr"], adam.param_groups[1]["lr"] = 0.04, 0.0016
    rates.load({"count": 3}, 21)
    assert (rates.rates, rates.updates, rates.schedule.count) == ([0.04, 0.0016], 21, 3)


def test_the_second_stage_outlasts_a_restart_and_accepted_changes():
    """Resting at a tenth of the first rates; then other first rates, then another schedule, are accepted."""
    rates = make_rates(optimizer(), settings("cosine", warmup="linear", warmup_steps=500), PER_EPOCH)
    for over in moments(20):
        for moment in over:
            rates.reach(moment)
    rates.rest(0.1)
    state = json.loads(json.dumps(rates.state()))
    for name, more in (("cosine", {}), ("step", {"own_schedule": True}), ("cosine", {"own_rates": True})):
        again = make_rates(optimizer(), settings(name), PER_EPOCH)
        factor = 3.0 if more.get("own_rates") else 1.0
        again._first = [factor * rate for rate in again._first]
        again.load(state, 20, **more)
        again.reach("update")
        again.reach("epoch")
        assert again.rates == pytest.approx([0.1 * factor * rate for rate in RATES], rel=1e-12)
        assert [group["lr"] for group in again.optimizer.param_groups] == again.rates


def test_another_schedule_begins_at_its_beginning_within_the_warm_up():
    rates = make_rates(optimizer(), settings("exponential", warmup="linear", warmup_steps=100), PER_EPOCH)
    for over in moments(20):
        for moment in over:
            rates.reach(moment)
    again = make_rates(optimizer(), settings("linear", warmup="linear", warmup_steps=100), PER_EPOCH)
    again.load(rates.state(), 20, own_schedule=True)
    assert again.rates == pytest.approx(RATES, rel=1e-12)
    assert [group["lr"] for group in again.optimizer.param_groups] == pytest.approx(
        [0.21 * r for r in RATES], rel=1e-12
    )
