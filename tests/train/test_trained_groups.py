"""Which parameters are trained, in which groups, and the table that tells it."""

import io
import json

import pytest
import torch
from rich.console import Console
from test_fit import run
from toy import make_potential, quiet, weights

from forgefield.core.errors import ModelError
from forgefield.train.groups import parameter_groups
from forgefield.train.keys.groups import ParamGroup
from forgefield.train.loop import prepare

HEAD, MATRIX, BIAS = "architecture.readouts.0.weight", "architecture.linear.weight", "architecture.linear.bias"
CPU = torch.device("cpu")


def groups(*rules, keywords=()):
    return parameter_groups(make_potential(), 0.1, keywords, [ParamGroup(**rule) for rule in rules], 0.02)


def test_a_parameter_belongs_to_the_first_group_that_matches():
    found = groups({"match": "readout", "lr_factor": 0.5}, {"match": r"\.", "lr": 0.003, "weight_decay": 0.7})
    rows = [(g["name"], g["names"], g["lr"], g["weight_decay"]) for g in found]
    assert rows == [
        ("readout (no decay)", [HEAD], 0.01, 0.0),
        (r"\.", [MATRIX], 0.003, 0.7),
        (r"\. (no decay)", [BIAS], 0.003, 0.0),
    ]


def test_a_group_inherits_what_it_does_not_say():
    decay, rest = groups({"match": r"linear\.weight"}, {"match": "."})
    assert (decay["lr"], decay["weight_decay"]) == (0.02, 0.1)
    assert (rest["lr"], rest["weight_decay"], rest["names"]) == (0.02, 0.0, [BIAS, HEAD])


@pytest.mark.parametrize(
    ("rules", "match"),
    [
        ([{"match": "readout"}], r"train\.param_groups: 2 trained parameters belong to no group: .*linear\.weight"),
        ([{"match": "."}, {"match": "nothing"}], r"param_groups\.1\.match: 'nothing' matches no trained parameter"),
        ([{"match": "."}, {"match": "linear"}], r"param_groups\.1\.match.*that earlier groups have"),
        ([{"match": "readout", "weight_decay": 1}, {"match": "."}], r"groups\.0\.weight_decay: .*has no effect"),
    ],
)
def test_groups_that_cannot_be_meant(rules, match):
    with pytest.raises(ModelError, match=match):
        groups(*rules)


def test_a_no_decay_keyword_that_matches_nothing():
    with pytest.raises(ModelError, match=r"no_decay_keywords\.1: 'typo' matches no parameter.*linear\.bias"):
        groups(keywords=["linear", "typo"])


def trained(**keys):
    potential = make_potential()
    prepare(potential, quiet(**keys), CPU)
    return [name for name, parameter in potential.named_parameters() if parameter.requires_grad]


def test_what_is_trained():
    assert trained() == [MATRIX, BIAS, HEAD]
    assert trained(freeze="head_only") == [HEAD]
    assert trained(finetune_modules=["linear", "nothing_else|readouts"]) == [MATRIX, BIAS, HEAD]
    assert trained(finetune_modules=["linear"]) == [MATRIX, BIAS]
    assert trained(force_no_train=["bias$"]) == [MATRIX, HEAD]
    assert trained(force_no_train=["."], force_train=["bias"]) == [BIAS]
    assert trained(freeze="head_only", force_train=["bias"]) == [BIAS, HEAD]


@pytest.mark.parametrize("key", ["finetune_modules", "force_train", "force_no_train"])
def test_patterns_that_match_nothing(key):
    with pytest.raises(ModelError, match=rf"train\.{key}\.1: 'typo' matches no parameter"):
        trained(**{key: ["linear", "typo"]})


def test_nothing_left_to_train():
    with pytest.raises(ModelError, match="no trainable parameter"):
        trained(force_no_train=["."])


def test_rates_of_groups_act(tmp_path):
    """With a thousandth of the rate a layer hardly moves, and a frozen one not at all."""
    before = weights(make_potential())
    keys = {"param_groups": [{"match": "linear.weight", "lr_factor": 1e-3}, {"match": "."}], "force_no_train": ["bias"]}
    potential, result = run(tmp_path, quiet(epochs=2, ema_decay=None, **keys))
    moved = {name: float((value - before[name]).abs().max()) for name, value in weights(potential).items()}
    assert moved[BIAS] == 0.0
    assert 0 < moved[MATRIX] < 0.01 * moved[HEAD]
    assert [row["group"] for row in result.trained] == ["linear.weight", ". (no decay)", "frozen"]


def test_the_table_is_shown_and_kept(tmp_path):
    text = io.StringIO()
    keys = {"param_groups": [{"match": "readout", "lr": 0.5}, {"match": "."}], "force_no_train": ["bias"]}
    run(tmp_path, quiet(epochs=1, weight_decay=0.25, **keys), console=Console(file=text, width=160))
    lines = [line.split() for line in text.getvalue().splitlines()]
    assert lines[0] == ["what", "is", "trained"]
    assert ["readout", "(no", "decay)", "1", "3", "0.5", "0", "readouts.0.weight"] in lines
    assert [".", "1", "12", "0.02", "0.25", "linear.weight"] in lines
    assert ["frozen", "1", "3", "linear.bias"] in lines
    rows = json.loads((tmp_path / "trained.json").read_text())
    assert [(row["group"], row["numbers"], row["lr"], row["weight_decay"], row["parameters"]) for row in rows] == [
        ("readout (no decay)", 3, 0.5, 0.0, [HEAD]),
        (".", 12, 0.02, 0.25, [MATRIX]),
        ("frozen", 3, None, None, [BIAS]),
    ]
