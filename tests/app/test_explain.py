import pytest
from typer.testing import CliRunner

from forgefield.app.cli import app
from forgefield.app.reference import all_keys, look_up
from forgefield.app.settings_help import nearest
from forgefield.core.errors import ConfigError


def explain(*words):
    return CliRunner(env={"COLUMNS": "160", "TERM": "dumb", "NO_COLOR": "1"}).invoke(app, ["explain", *words])


def test_one_key():
    out = explain("train.lr").stdout
    assert "train.lr" in out
    assert "initial learning rate" in out.lower()
    assert "a number > 0" in out
    assert "0.01" in out


def test_every_key_can_be_explained():
    for path, help in all_keys().items():
        assert look_up(path) == [help]
        assert help.description
        assert help.expects != "a value", path


@pytest.mark.parametrize(
    ("key", "found"),
    [
        ("e0", ["data.e0"]),
        ("patience", ["train.plateau_patience"]),
        ("train.patience", ["train.plateau_patience"]),
        ("model.r_max", ["model.mace.r_max"]),
        ("batch_size", ["data.batch_size", "train.batch_size"]),
        ("model.path", ["model.weights"]),
        ("mode", ["task"]),
        (".data.", ["data"]),
    ],
)
def test_aliases_and_last_words(key, found):
    assert [help.path for help in look_up(key)] == found


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("train.lrr", "train.lr"),
        ("learning_rate", "train.lr"),
        ("leraning_rate", "train.lr"),
        ("model.r_mxa", "model.mace.r_max"),
        ("tarin.lr", "train"),
        ("dta", "data"),
    ],
)
def test_an_unknown_key_is_met_by_the_nearest(key, near):
    with pytest.raises(ConfigError, match=f"no key '{key}'. Did you mean '{near}"):
        look_up(key)


def test_an_unknown_key_ends_with_two():
    result = explain("xyzzy")
    assert result.exit_code == 2
    assert "no key 'xyzzy'" in result.stderr


@pytest.mark.parametrize("block", ["", "train", "data", "model", "model.mace", "output"])
def test_blocks_list_their_keys(block):
    result = explain(*([block] if block else []))
    assert result.exit_code == 0
    assert {"": "run_dir", "model": "model.manifest", "model.mace": "model.r_max"}.get(
        block, block + "."
    ) in result.stdout


@pytest.mark.parametrize(
    ("word", "names", "found"),
    [
        ("modle", ["mode", "model"], "model"),
        ("LR", ["lr"], "lr"),
        ("batch-size", ["batch_size"], "batch_size"),
        ("max_epochs", ["epochs", "lr"], "epochs"),
        ("cutoff", ["r_max"], "r_max"),
        ("qqq", ["epochs", "lr"], None),
    ],
)
def test_nearest(word, names, found):
    assert nearest(word, names) == found
