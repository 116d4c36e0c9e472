"""Commands build the right run, and every end is one message and an exit code."""

import errno
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner
from water import GOOD, write_run

from forgefield.app.cli import COMMANDS, app, main
from forgefield.app.run import load_run, save_resolved
from forgefield.core.errors import ForgeError

SOURCE = str(Path(__file__).parent.parent.parent / "src")
ALL = [name for name, _, _ in COMMANDS]


@pytest.fixture
def cli(tmp_path, monkeypatch):
    """Return a function that calls the command line in an empty folder: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    runner = CliRunner(env={"COLUMNS": "120", "TERM": "dumb", "NO_COLOR": "1"})

    def call(*words):
        result = runner.invoke(app, [str(word) for word in words])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return SimpleNamespace(code=result.exit_code, out=result.stdout, err=result.stderr)

    return call


@pytest.fixture
def carried(monkeypatch):
    """Replace all tasks by one that notes the runs it is given."""
    seen = []
    for task in ("train", "finetune", "resume", "evaluate", "infer", "export"):
        fake = SimpleNamespace(run_task=lambda config, console: seen.append(config))
        monkeypatch.setitem(sys.modules, f"forgefield.app.tasks.{task}", fake)
    return seen


@pytest.fixture
def failing(monkeypatch):
    """Return a function that makes `train` end with an exception."""

    def fail(error):
        def run_task(config, console):
            raise error

        monkeypatch.setitem(sys.modules, "forgefield.app.tasks.train", SimpleNamespace(run_task=run_task))

    return fail


@pytest.mark.parametrize("name", ALL)
def test_help_teaches_by_examples(cli, name):
    result = cli(name, "--help")
    assert result.code == 0
    assert "Examples" in result.out
    assert f"forgefield {name}" in result.out


def test_the_first_help_shows_every_command(cli):
    result = cli("--help")
    assert all(f" {name} " in result.out for name in ALL)
    assert "Exit codes" in result.out


def test_version(cli):
    assert cli("--version").out.startswith("forgefield ")


def test_an_unknown_command_or_flag_ends_with_two(cli):
    assert cli("trian").code == 2
    assert cli("train", "--dat", "x").code == 2


def test_as_a_module(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "forgefield", "run", "nope.yaml"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": SOURCE}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert (
        done.stderr == "error: nope.yaml: no such file. Fix: check the path, or write one with `forgefield init DATA`\n"
    )
    assert done.stdout == ""


def test_run_carries_out_the_file(cli, carried, tmp_path):
    write_run(tmp_path)
    assert cli("run", "run.yaml", "--set", "train.lr=0.5").code == 0
    assert (carried[0].name, carried[0].train.lr) == ("first", 0.5)


def test_run_takes_the_named_runs_in_turn(cli, carried, tmp_path):
    run = "{name: %s, task: train, backend: mace, run_dir: %s, data: {train: a}}"
    write_run(tmp_path, f"runs: [{run % ('a', 'ra')}, {run % ('b', 'rb')}, {run % ('c', 'rc')}]")
    assert cli("run", "run.yaml", "--run", "c", "--run", "a").code == 0
    assert [config.name for config in carried] == ["a", "c"]


def test_train_by_flags(cli, carried, tmp_path):
    flags = ["--data", "a.xyz", "--data", "b.xyz", "--val", "v.xyz", "--test", "t.xyz", "--epochs", 7, "--lr", 0.02]
    flags += ["--out", "runs/x", "--batch-size", 3, "--stress-weight", 5, "--e0", "{H: -13.6}", "--device", "cpu"]
    flags += ["--dtype", "float64", "--seed", 0, "--forces-key", "dft_forces", "--set", "model.r_max=4.5"]
    assert cli("train", *flags).code == 0
    (config,) = carried
    assert (config.task, config.backend, config.run_dir, config.name) == ("train", "mace", tmp_path / "runs/x", "x")
    assert config.data.train == (tmp_path / "a.xyz", tmp_path / "b.xyz")
    assert (config.data.val, config.data.test) == ((tmp_path / "v.xyz",), (tmp_path / "t.xyz",))
    assert (config.data.e0, config.data.forces_key) == ({"H": -13.6}, "dft_forces")
    assert (config.train.epochs, config.train.lr, config.train.batch_size) == (7, 0.02, 3)
    assert (config.train.stress_weight, config.train.seed) == (5, 0)
    assert (config.device, config.dtype, config.model.settings.r_max) == ("cpu", "float64", 4.5)


def test_train_finds_a_free_folder(cli, carried, tmp_path):
    (tmp_path / "runs/water").mkdir(parents=True)
    cli("train", "--data", "water.xyz.xz")
    assert carried[0].run_dir == tmp_path / "runs/water-2"


def test_finetune_by_flags(cli, carried, tmp_path):
    result = cli("finetune", "-m", "m", "-d", "a.xyz", "-o", "r", "--freeze", "head_only", "--head", "dft")
    assert result.code == 0, result.err
    (config,) = carried
    assert (config.task, config.start, config.train.freeze) == ("finetune", tmp_path / "m", "head_only")
    assert (config.train.head_key, config.model.settings) == ("dft", None)


@pytest.mark.parametrize("task", ["evaluate", "infer"])
def test_predicting_by_flags(cli, carried, tmp_path, task):
    flags = [
        "--model",
        "m",
        "--data",
        "t.xyz",
        "--out",
        "o",
        "--head",
        "dft",
        "--batch-size",
        4,
        "--energy-only",
        "--amp",
    ]
    assert cli(task, *flags).code == 0
    (config,) = carried
    assert (config.task, config.start, config.output.dir) == (task, tmp_path / "m", tmp_path / "o")
    assert (config.data.lmdb, config.data.batch_size) == ((tmp_path / "t.xyz",), 4)
    assert (config.model.head, config.eval.energy_only, config.eval.amp) == ("dft", True, True)


def test_export_by_flags(cli, carried, tmp_path):
    assert cli("export", "--model", "m", "--out", "o", "--target", "torchscript").code == 0
    (config,) = carried
    assert (config.run_dir / config.export.dir, config.export.targets) == (tmp_path / "o", ("torchscript",))


@pytest.mark.parametrize("words", [["runs/first"], ["--run-dir", "runs/first"]])
def test_resume_takes_the_settings_of_the_folder(cli, carried, tmp_path, words):
    (config,) = load_run(write_run(tmp_path))
    save_resolved(config.model_copy(update={"run_dir": tmp_path / "moved"}), tmp_path / "runs/first")
    assert cli("resume", *words, "--epochs", 50).code == 0
    (resumed,) = carried
    assert (resumed.task, resumed.run_dir, resumed.train.epochs) == ("resume", tmp_path / "runs/first", 50)
    assert resumed.start == tmp_path / "runs/first/checkpoints/last"
    assert resumed.model.settings == config.model.settings


def test_resume_of_a_finetuned_run_forgets_where_it_began(cli, carried, tmp_path):
    text = "task: finetune\nmodel: {manifest: m, weights: w}\nrun_dir: r\ndata: {train: a}\n"
    save_resolved(load_run(write_run(tmp_path, text))[0], tmp_path / "r")
    assert cli("resume", "r").code == 0
    assert (carried[0].start, carried[0].model.weights) == (tmp_path / "r/checkpoints/last", None)


def test_resume_without_a_run(cli, tmp_path):
    assert "run_dir does not exist" in cli("resume", "nope").err
    assert "give the folder of the run to continue, once" in cli("resume", "--epochs", 3).err
    assert "once" in cli("resume", "a", "--run-dir", "b").err


def test_import_calls_the_other_interpreter(cli, monkeypatch, tmp_path):
    seen = []
    fake = SimpleNamespace(import_model=lambda *words: seen.append(words))
    monkeypatch.setitem(sys.modules, "forgefield.engines.backends.mace_torch", fake)
    assert "nope.model: no such file" in cli("import", "nope.model", "--backend-python", "p", "--out", "o").err
    assert seen == []
    (tmp_path / "m.model").touch()
    result = cli("import", "m.model", "--backend-python", "/usr/bin/python3", "--out", "imported")
    assert result.code == 0
    assert [str(word) for word in seen[0]] == ["m.model", "/usr/bin/python3", "imported"]
    assert "forgefield infer --model imported" in result.out
    monkeypatch.setitem(sys.modules, "forgefield.engines.backends.aimnet", fake)
    monkeypatch.delitem(sys.modules, "forgefield.engines.backends.mace_torch")
    words = ("--backend-python", "/usr/bin/python3", "--out", "imported")
    assert cli("import", "m.model", "--program", "aimnet", *words).code == 0
    assert len(seen) == 2


def test_a_wrong_flag_is_named_as_it_was_typed(cli):
    result = cli("train", "--data", "a.xyz", "--lr", "-1", "--dtype", "half")
    assert result.code == 2
    assert "error: --lr: train.lr: got -1.0, expected a number > 0 (initial learning rate)." in result.err
    assert "error: --dtype: dtype: got the text 'half'" in result.err
    assert result.out == ""


def test_mistakes_in_a_file_are_one_line_each(cli, tmp_path):
    write_run(tmp_path, GOOD.replace("epochs: 3", "epochs: 0\n  lrr: 3"))
    result = cli("run", "run.yaml")
    assert result.code == 2
    lines = result.err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("error: run.yaml:1") for line in lines)


def test_a_users_error_is_one_message(cli, failing, tmp_path):
    write_run(tmp_path)
    failing(ForgeError("no energy", "train.xyz: frame 3", "label it"))
    result = cli("run", "run.yaml")
    assert (result.code, result.err) == (2, "error: train.xyz: frame 3: no energy. Fix: label it\n")


def test_a_long_message_has_one_label(cli, failing, tmp_path):
    write_run(tmp_path)
    failing(ForgeError("the worker failed:\n  line 2"))
    assert cli("run", "run.yaml").err == "error: the worker failed:\n  line 2\n"


def test_ctrl_c_says_how_to_go_on(cli, failing, tmp_path):
    write_run(tmp_path)
    failing(KeyboardInterrupt())
    assert (cli("run", "run.yaml").code, cli("run", "run.yaml").err) == (130, "interrupted: stopped by Ctrl-C\n")
    (tmp_path / "runs/first/checkpoints/last").mkdir(parents=True)
    result = cli("run", "run.yaml")
    assert result.code == 130
    assert result.err == f"stopped: continue with: forgefield resume {tmp_path}/runs/first\n"


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (MemoryError(), 2, "out of memory. Fix: a smaller train.batch_size"),
        (OSError(errno.ENOSPC, "No space left on device", "x.pt"), 2, "the disk is full: x.pt"),
        (ZeroDivisionError("division\nby zero"), 1, "internal error: ZeroDivisionError: division by zero."),
    ],
)
def test_what_no_check_foresaw(cli, failing, tmp_path, error, code, text):
    write_run(tmp_path)
    failing(error)
    result = cli("run", "run.yaml")
    assert result.code == code
    assert text in result.err
    assert "Traceback" not in result.err


def test_debug_may_stand_anywhere_and_shows_the_traceback(failing, tmp_path, monkeypatch, capsys):
    write_run(tmp_path)
    monkeypatch.chdir(tmp_path)
    failing(ZeroDivisionError("oh"))
    with pytest.raises(SystemExit) as end:
        main(["run", "run.yaml", "--debug"])
    assert end.value.code == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_bundle_of_an_earlier_run_is_compared_when_it_is_there(cli, carried, monkeypatch, tmp_path):
    text = (
        "runs:\n- {name: a, task: train, backend: mace, run_dir: r, data: {train: a}}\n"
        "- {name: b, task: evaluate, model_in: r, backend: mace, model: {r_max: 4}, data: {test: t},\n"
        "   output: {dir: o}}\n"
    )
    write_run(tmp_path, text)

    def train(config, console):
        (tmp_path / "r/artifacts").mkdir(parents=True)
        (tmp_path / "r/artifacts/manifest.json").write_text('{"backend": "mace", "settings": {"r_max": 5.0}}')

    monkeypatch.setitem(sys.modules, "forgefield.app.tasks.train", SimpleNamespace(run_task=train))
    result = cli("run", "run.yaml")
    assert result.code == 2
    assert "run b: model.r_max: 4.0 here, but 5.0 in" in result.err
    assert carried == []
