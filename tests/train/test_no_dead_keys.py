"""Each key of optimization, groups, schedule and stopping changes what is computed or written."""

import json

import pytest
from test_fit import at_rest, run
from toy import make_potential, quiet

from forgefield.train.keys.groups import GroupKeys, ParamGroup
from forgefield.train.keys.optimization import OptimizationKeys
from forgefield.train.keys.schedule import ScheduleKeys
from forgefield.train.keys.stopping import EarlyStop, StoppingKeys
from forgefield.train.recorder import read_history

# What is needed beside a key for it to be allowed, and the two values that must differ.
CURVE = {"scheduler": "cosine", "scheduler_step_unit": "update"}
CYCLE = {"scheduler": "one_cycle", "scheduler_step_unit": "update"}
REST = {"lr": 1e-4, "lr_factor": 0.1, "plateau_patience": 0, "at_rest": True}
ALL = {"match": "."}
STOP = {"metric": "forces_mae", "patience": 2}
CASES = {
    "optimizer": ({}, "adam", "nadam"),
    "lr": ({}, 0.02, 0.03),
    "weight_decay": ({}, 5e-7, 0.1),
    "amsgrad": ({"lr": 0.3}, True, False),
    "betas": ({}, (0.9, 0.999), (0.5, 0.9)),
    "eps": ({}, 1e-8, 1e-2),
    "momentum": ({"optimizer": "sgd", "lr": 1e-3}, 0.9, 0.5),
    "momentum_decay": ({"optimizer": "nadam"}, 0.004, 0.5),
    "decoupled_decay": ({"optimizer": "radam", "weight_decay": 0.1}, False, True),
    "lbfgs_history": ({"optimizer": "lbfgs", "lr": 1.0, "epochs": 5}, 100, 1),
    "lbfgs_iterations": ({"optimizer": "lbfgs", "lr": 1.0}, 1, 2),
    "no_decay_keywords": ({"weight_decay": 0.1}, (), ("linear",)),
    "ema_decay": ({}, 0.99, 0.2),
    "max_grad_norm": ({"optimizer": "sgd", "lr": 1e-3}, 10.0, 0.1),
    "max_grad_value": ({"optimizer": "sgd", "lr": 1e-3}, 10.0, 0.01),
    "freeze": ({}, None, "head_only"),
    "finetune_modules": ({}, (), ("linear",)),
    "force_train": ({"freeze": "head_only"}, (), ("bias",)),
    "force_no_train": ({}, (), ("bias",)),
    "param_groups": ({}, (), ({"match": "bias", "lr_factor": 0.1}, ALL)),
    "scheduler": ({}, "plateau", "cosine"),
    "early_stop_factor": ({**REST, "plateau_patience": 1}, 0.0, 1.0),
    "lr_factor": ({"plateau_patience": 0, "lr": 1.0, "epochs": 5}, 0.8, 0.2),
    "plateau_patience": ({"lr": 1.0, "epochs": 5}, 50, 0),
    "step_size": ({"scheduler": "step"}, 30, 1),
    "gamma": ({"scheduler": "step", "step_size": 1}, 0.1, 0.5),
    "T_max": (CURVE, None, 7),
    "T_0": ({**CURVE, "scheduler": "cosine_restarts"}, 1, 2),
    "T_mult": ({**CURVE, "scheduler": "cosine_restarts", "T_0": 1}, 1, 2),
    "pct_start": (CYCLE, 0.3, 0.6),
    "div_factor": (CYCLE, 25, 5),
    "final_div_factor": (CYCLE, 1e4, 2),
    "min_lr": (CURVE, 0, 0.01),
    "scheduler_step_unit": ({"scheduler": "cosine"}, "epoch", "update"),
    "warmup": ({}, None, "radam"),
    "warmup_steps": ({"warmup": "linear"}, 4, 5),
    "max_updates": ({}, None, 2),
    "early_stops": (REST, (), (STOP,)),
    "early_stop_mode": ({**REST, "early_stops": (STOP, {"metric": "loss", "lower_bound": 0})}, "all", "any"),
    "terminate_on_low_lr": ({**REST, "lr": 1e-3}, None, 5e-4),
    "best_metric": ({"lr": 0.5, "epochs": 6, "ema_decay": None}, "loss", "energy_mae"),
    "best_k": ({}, 1, 2),
}
FAST = {"match": ".", "lr_factor": 2.0}
NESTED = {
    "match": (({"match": "weight"}, FAST), ({"match": "linear"}, FAST)),
    "lr": ((ALL,), ({**ALL, "lr": 0.001},)),
    "lr_factor": ((ALL,), ({**ALL, "lr_factor": 0.1},)),
    "weight_decay": ((ALL,), ({**ALL, "weight_decay": 0.1},)),
}
STOPS = {
    "metric": (STOP, {**STOP, "metric": "energy_mae_per_atom"}),
    "patience": (STOP, {**STOP, "patience": 3}),
    "threshold": ({"metric": "forces_mae", "patience": 1}, {"metric": "forces_mae", "patience": 1, "threshold": 9.0}),
    "lower_bound": ({**STOP, "patience": 3}, {**STOP, "patience": 3, "lower_bound": 1e6}),
}


def outcome(folder, keys):
    """Everything a fit leaves that does not tell the time."""
    keys = dict(keys)
    potential = at_rest() if keys.pop("at_rest", False) else make_potential()
    settings = quiet(**{"epochs": 4, "lr": 0.02, **keys})
    potential, result = run(folder, settings, potential=potential)
    weights = {name: value.tolist() for name, value in potential.state_dict().items()}
    clocks = {"seconds", "total_seconds", "cpu_seconds", "structures_per_second", "peak_memory_mib"}
    rows = [{k: v for k, v in row.items() if k not in clocks} for row in read_history(folder / "history.jsonl")]
    kept = sorted(p.name for p in (folder / "checkpoints").iterdir())
    return json.dumps([weights, rows, kept, result.reason, result.best_metric])


def test_every_key_has_a_case():
    blocks = (OptimizationKeys, GroupKeys, ScheduleKeys, StoppingKeys)
    assert set(CASES) == {name for block in blocks for name in block.model_fields}
    assert (set(NESTED), set(STOPS)) == (set(ParamGroup.model_fields), set(EarlyStop.model_fields))


@pytest.mark.parametrize("key", CASES)
def test_the_key_has_an_effect(tmp_path, key):
    beside, one, other = CASES[key]
    assert outcome(tmp_path / "a", {**beside, key: one}) != outcome(tmp_path / "b", {**beside, key: other})


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
def test_a_fit_repeats_to_the_last_digit(tmp_path, optimizer):
    """So that what differs in the other tests is the key's doing."""
    assert outcome(tmp_path / "a", {"optimizer": optimizer}) == outcome(tmp_path / "b", {"optimizer": optimizer})


@pytest.mark.parametrize("key", NESTED)
def test_the_key_of_a_group_has_an_effect(tmp_path, key):
    first, second = ({"param_groups": groups} for groups in NESTED[key])
    assert outcome(tmp_path / "a", first) != outcome(tmp_path / "b", second)


@pytest.mark.parametrize("key", STOPS)
def test_the_key_of_an_early_stop_has_an_effect(tmp_path, key):
    one, other = STOPS[key]
    beside = {"lr": 0.02, "epochs": 8, "ema_decay": None} if key in ("metric", "threshold") else REST | {"epochs": 8}
    if key == "metric":  # the two metrics stop falling at different validations
        one, other = ({**stop, "patience": 1} for stop in (one, other))
        beside["lr"] = 0.5
    assert outcome(tmp_path / "a", {**beside, "early_stops": (one,)}) != outcome(
        tmp_path / "b", {**beside, "early_stops": (other,)}
    )
