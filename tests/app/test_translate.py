"""forgefield translate: every key of the other program is translated, remarked upon or refused, and the result runs."""

import json

import pytest
from typer.testing import CliRunner
from water import write_water

from forgefield.app.cli import app
from forgefield.app.run import load_run
from forgefield.app.translate.mace.keys import ALIASES, KEYS
from forgefield.app.translated_text import render
from forgefield.app.translation import open_dialect, read_given, translate
from forgefield.core.errors import ConfigError

BASE = {"name": "water", "train_file": "train.xyz", "energy_key": "energy", "forces_key": "forces"}
SMALL = {"num_channels": 4, "max_L": 1, "max_ell": 1, "correlation": 2, "radial_MLP": "[8]", "r_max": 3.0}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_water(tmp_path / "train.xyz", 24, atoms=True)
    return tmp_path


def call(*words):
    result = CliRunner(env={"COLUMNS": "150", "TERM": "dumb", "NO_COLOR": "1"}).invoke(app, [str(w) for w in words])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def write(folder, **keys):
    (folder / "config.yaml").write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in keys.items()))
    return folder / "config.yaml"


def translated(folder, *flags, **keys):
    write(folder, **BASE, **keys)
    result = call("translate", "--from", "mace", "config.yaml", "--force", *flags)
    assert result.exit_code == 0, result.stderr
    return load_run("run.yaml")[0], (folder / "run.yaml").read_text()


def test_the_result_passes_check(folder):
    _, text = translated(folder, **SMALL)
    assert "HAVE NO COUNTERPART" not in text
    done = call("check", "run.yaml")
    assert done.exit_code == 0, done.stdout
    assert "error" not in done.stdout


def test_defaults_of_mace_torch_are_written_out(folder):
    """A file that says nothing but names: what mace-torch would do where ForgeField does something else."""
    run, text = translated(folder)
    assert (run.dtype, run.device, run.train.seed, run.train.epochs) == ("float64", "cpu", 123, 2048)
    assert (run.train.ema_decay, run.train.drop_last, run.data.batch_size) == (None, True, 10)
    assert run.model.settings.hidden_irreps == "128x0e + 128x1o"
    assert run.model.settings.interaction_first == "plain"  # model: MACE
    assert run.data.e0 == "isolated"
    for line in ("dtype: float64", "epochs: 2048", "ema_decay: null", "drop_last: true", "seed: 123"):
        assert any(part.strip().startswith(line) for part in text.splitlines()), line
    assert "lr:" not in text  # the same there and here


def test_what_means_something_else_is_said(folder):
    _, text = translated(folder, model="MACE", interaction_first="RealAgnosticResidualInteractionBlock", E0s="average")
    lines = [line.strip() for line in text.splitlines()]
    place = lines.index("interaction_first: plain")
    said = " ".join(line.lstrip("# ") for line in lines[place - 3 : place])
    assert "interaction_first: RealAgnosticResidualInteractionBlock is not used there: model: MACE" in said
    assert lines[lines.index("e0: least_squares") - 1].startswith("# mace-torch takes frames with config_type Isolated")
    assert next(x for x in lines if x.startswith("split_seed: 123")).endswith("than mace-torch does")


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"model": "ScaleShiftMACE", "interaction_first": "RealAgnosticDensityInteractionBlock"},
         {"model.interaction_first": "density"}),
        ({"hidden_irreps": "16x0e + 16x1o"}, {"model.hidden_irreps": "16x0e + 16x1o"}),
        ({"hidden_irreps": "16x0e", "num_channels": 8, "max_L": 2}, {"model.hidden_irreps": "8x0e + 8x1o + 8x2e"}),
        ({"max_L": 0}, {"model.hidden_irreps": "128x0e"}),
        ({"radial_type": "chebyshev", "distance_transform": "Agnesi"}, {"model.distance_transform": "agnesi"}),
        ({"loss": "weighted", "stress_weight": 7.0}, {"train.stress_weight": 0.0, "train.force_weight": 100.0}),
        ({"loss": "stress", "stress_weight": 7.0}, {"train.stress_weight": 7.0, "data.stress_key": "REF_stress"}),
        ({"loss": "ef", "forces_weight": 7.0}, {"train.energy_weight": 1.0, "train.force_weight": 1.0}),
        ({"loss": "forces_only"}, {"train.energy_weight": 0.0, "train.force_weight": 100.0}),
        ({"loss": "l1l2energyforces"}, {"train.loss_energy": "mae", "train.loss_force": "l2mae"}),
        ({"ema": True}, {"train.ema_decay": 0.99}),
        ({"ema": True, "ema_decay": 0.999}, {"train.ema_decay": 0.999}),
        ({"beta": 0.95}, {"train.betas": (0.95, 0.999)}),
        ({"clip_grad": "None"}, {"train.max_grad_norm": None}),
        ({"E0s": "{1: -13.6, 8: -2040.0}"}, {"data.e0": {"H": -13.6, "O": -2040.0}}),
        ({"valid_file": "train.xyz"}, {"data.val_fraction": 0.1}),
        ({"max_num_epochs": 300, "patience": 20}, {"train.early_stop_factor": 0.4}),
        ({"eval_interval": 5, "scheduler_patience": 50, "max_num_epochs": 300, "patience": 20},
         {"train.validate_every": 5, "train.plateau_patience": 10, "train.early_stop_factor": 10.0}),
        ({"weight_decay": 0.0}, {"train.no_decay_keywords": ()}),
        ({"batch_size": 4, "valid_batch_size": 6}, {"train.batch_size": 4, "data.batch_size": 6}),
        ({"device": "cuda"}, {"device": "cuda"}),
    ],
)  # fmt: skip
def test_keys(folder, given, wanted):
    run, _ = translated(folder, **given)
    for path, value in wanted.items():
        found = run
        for part in path.split("."):
            found = getattr(found.settings if part != "settings" and path.startswith("model.") and found is run.model
                            else found, part)  # fmt: skip
        assert found == value, path


def test_early_stopping_waits_as_long_as_there(folder):
    import math

    for patience in range(1, 60):
        run, _ = translated(folder, max_num_epochs=3000, patience=patience, scheduler_patience=49)
        assert math.ceil(run.train.plateau_patience * run.train.early_stop_factor) == patience


def test_the_weights_that_decay_are_those_of_mace_torch(folder):
    """There: `linear` of the interactions, and all of the products; nothing else."""
    from forgefield.models.potential import build_potential
    from forgefield.train.groups import parameter_groups

    run, _ = translated(folder, interaction="RealAgnosticDensityInteractionBlock", **SMALL)
    potential = build_potential(
        "mace", run.model.settings, elements=[1, 8], heads=["a"], reference_energies={"a": {1: 0.0, 8: 0.0}},
        avg_num_neighbors=2.0, scale=1.0, shift=0.0,
    )  # fmt: skip
    groups = {g["name"]: g["names"] for g in parameter_groups(potential, 1e-3, run.train.no_decay_keywords)}
    parts = {name.split(".", 3)[3].split(".")[0] for name in groups["decay"]}
    assert parts == {"linear", "product", "mix"}
    assert not any(word in name for name in groups["no_decay"] for word in (".linear", ".product", ".mix"))


# ------------------------------------------------------------------------------------------- nothing silently dropped

OTHER = {
    "text": "other", "whole": 7, "number": 0.123, "number or none": 0.5, "list": ["lr"],
}  # fmt: skip
SPECIAL = {
    "device": "mps", "default_dtype": "float32", "model": "BOTNet", "radial_type": "gaussian", "loss": "universal",
    "distance_transform": "Agnesi", "hidden_irreps": "8x0e", "MLP_irreps": "8x0e", "radial_MLP": "[32]", "freeze": 3,
    "E0s": "average", "optimizer": "adamw", "correlation": 2, "max_ell": 2, "max_L": 0, "num_interactions": 1,
    "train_file": "other.h5", "scaling": "no_scaling", "lr_params_factors": '{"embedding_lr_factor": 0.5}',
    "config_type_weights": '{"Default": 2.0}', "heads": "{}", "start_swa": 50, "scheduler": "ExponentialLR",
    "gate": "tanh", "foundation_model": "small", "valid_file": "train.xyz", "test_file": "train.xyz",
}  # fmt: skip


def other_value(name):
    key = KEYS[name]
    if name in SPECIAL:
        return SPECIAL[name]
    return not key.default if key.kind in ("truth", "flag") else OTHER[key.kind]


@pytest.mark.parametrize("name", sorted(KEYS))
def test_no_key_is_silently_dropped(folder, name):
    """Each key alone: the run differs, or the file names the key in a comment."""
    dialect = open_dialect("mace")
    texts = []
    for keys in (BASE, BASE | {name: other_value(name)}):
        given = read_given(dialect, write(folder, **keys))
        texts.append(render(dialect, given, translate(dialect, given, folder)))
    assert texts[0] != texts[1]
    if name not in texts[1]:
        settings = [[line.partition("  #")[0] for line in t.splitlines() if not line.startswith("#")] for t in texts]
        assert settings[0] != settings[1]


def test_keys_without_counterpart_are_refused_together(folder):
    write(folder, **BASE, edge_irreps="8x0e", loss="universal", plot=False)
    result = call("translate", "--from", "mace", "config.yaml")
    assert result.exit_code == 2
    assert "config.yaml:5:1: edge_irreps:" in result.stderr
    assert "config.yaml:6:1: loss:" in result.stderr
    assert "--force" in result.stderr
    assert "plot" not in result.stderr
    assert not (folder / "run.yaml").exists()
    _, text = translated(folder, edge_irreps="8x0e", loss="universal", plot=False)
    lost = text.split("HAVE NO COUNTERPART")[1]
    assert "edge_irreps: 8x0e" in lost
    assert "loss: universal" in lost
    assert "plot: false (report.html" in text.split("HAVE NO COUNTERPART")[0]


def test_a_table_that_forgets_a_key_is_caught(folder, monkeypatch):
    dialect = open_dialect("mace")
    monkeypatch.setattr(type(dialect), "translate", lambda self, given, sheet: given["lr"])
    with pytest.raises(AssertionError, match="says nothing of name, patience"):
        translate(dialect, read_given(dialect, write(folder, name="x", lr=0.1, patience=3)), folder)


# --------------------------------------------------------------------------------------------------- reading the file

SHELL = """\
#!/bin/bash
# train a model
mace_run_train \\
    --name="water" --train_file=train.xyz \\
    --energy_key energy --forces_key=forces \\
    --E0s='{1: -13.6, 8: -2040.0}' \\
    --ema --stage_two_lr=0.001 \\
    --wandb_log_hypers lr seed \\
    --clip_grad None
"""


def test_arguments_are_read_as_a_shell_would(folder):
    (folder / "train.sh").write_text(SHELL)
    assert call("translate", "--from", "mace", "train.sh").exit_code == 0
    run = load_run("run.yaml")[0]
    assert run.data.e0 == {"H": -13.6, "O": -2040.0}
    assert (run.train.ema_decay, run.train.max_grad_norm) == (0.99, None)
    text = (folder / "run.yaml").read_text()
    assert "wandb_log_hypers: [lr, seed]" in text
    assert "swa_lr: 0.001 (stage two is not asked for)" in text


def test_arguments_stand_over_their_config_file(folder):
    write(folder, **BASE, lr=0.5, seed=7)
    (folder / "args.txt").write_text("--config config.yaml\n--lr=0.25\n")
    assert call("translate", "--from", "mace", "args.txt").exit_code == 0
    run = load_run("run.yaml")[0]
    assert (run.train.lr, run.train.seed) == (0.25, 7)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("name: x\nlearning_rat: 3\n", r"in.file:2:1: learning_rat: mace-torch has no such key"),
        ("name: x\nmax_num_epoch: 3\n", "Did you mean 'max_num_epochs'"),
        ("name: x\nbatch_size: many\n", r"in.file:2:1: batch_size: got 'many', expected a whole number"),
        ("name: x\nema: maybe\n", "ema: got 'maybe', expected true or false"),
        ("name: x\nswa: true\nstage_two: true\n", "stage_two: the same as swa, which stands there too"),
        ("name: x\n", "train_file: is not given"),
        ("name: x\ntrain_file: a.xyz\nE0s: '{1: -13.6'\n", "E0s: .*neither a number nor a list nor a mapping"),
        ("name: x\ntrain_file: a.xyz\nE0s: '{Xx: -13.6}'\n", "E0s: "),
        ("- a\n", "holds no settings of mace-torch"),
        ("--name x y.xyz --lr=3 stray", "batch|stray"),
        ("--name=x stray", r"in.file:1: .*|'stray' belongs to no argument"),
        ("--name=x --name=y", "--name stands twice"),
        ("--name='x", "cannot be read as arguments"),
    ],
)
def test_bad_files_are_one_message(folder, text, match):
    (folder / "in.file").write_text(text)
    dialect = open_dialect("mace")
    with pytest.raises(ConfigError, match=match):
        translate(dialect, read_given(dialect, folder / "in.file"), folder)


def test_an_unknown_dialect_lists_those_there_are(folder):
    write(folder, **BASE)
    result = call("translate", "--from", "maze", "config.yaml")
    assert result.exit_code == 2
    assert "no dialect 'maze'" in result.stderr
    assert "'mace'" in result.stderr
    assert "There are: aimnet2mult, alignn, mace, xequinet" in result.stderr
    assert call("translate", "--from", "mace", "config.yaml").exit_code == 0
    assert "is there already" in call("translate", "--from", "mace", "config.yaml").stderr


def test_a_file_is_found_from_the_current_folder_too(folder):
    (folder / "configs").mkdir()
    (folder / "config.yaml").write_text("")
    write(folder, **BASE).rename(folder / "configs" / "config.yaml")
    assert call("translate", "--from", "mace", "configs/config.yaml", "--out", "runs.yaml").exit_code == 0
    assert load_run("runs.yaml")[0].data.train == (folder / "train.xyz",)
    (folder / "train.xyz").rename(folder / "elsewhere.xyz")
    assert call("translate", "--from", "mace", "configs/config.yaml", "--out", "b.yaml").exit_code == 0
    assert "train: configs/train.xyz" in (folder / "b.yaml").read_text()
    assert "not found from here" in (folder / "b.yaml").read_text()


@pytest.mark.engine
def test_the_table_is_that_of_mace_torch():
    """Names, defaults and kinds of all keys, asked of mace-torch itself."""
    import os
    import subprocess

    script = (
        "import argparse, json\n"
        "from mace.tools.arg_parser import build_default_arg_parser\n"
        "flag = (argparse._StoreTrueAction, argparse._StoreFalseAction)\n"
        "print(json.dumps([(a.dest, isinstance(a, flag), a.default, a.option_strings)\n"
        "    for a in build_default_arg_parser()._actions if a.dest not in ('help', 'config')]))\n"
    )
    python = os.environ.get("FORGEFIELD_MACE_PYTHON")
    if not python:
        pytest.skip("FORGEFIELD_MACE_PYTHON names no interpreter with mace-torch")
    out = subprocess.run([python, "-c", script], capture_output=True, text=True, check=True).stdout
    theirs = json.loads(out.splitlines()[-1])
    assert {name for name, *_ in theirs} == set(KEYS)
    for name, flag, default, spelled in theirs:
        assert (KEYS[name].kind == "flag") == flag, name
        if name not in ("plot_frequency", "wandb_log_hypers"):
            assert KEYS[name].default == default, name
        for other in spelled:
            assert other == f"--{name}" or ALIASES[other[2:]] == name
