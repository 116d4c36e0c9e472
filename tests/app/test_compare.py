"""forgefield compare: one budget, the same data, a row for every run, and going on where it stopped."""

import csv
import json
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from typer.testing import CliRunner
from water import GOOD, write_run, write_water

import forgefield
from forgefield.app.cli import app
from forgefield.app.compare import training
from forgefield.app.compare.candidates import ENDLESS, Budget, differences, from_backends, from_files, trials_of
from forgefield.app.compare.pictures import as_file, pictures
from forgefield.app.compare.sets import check_same, identity, open_sets
from forgefield.app.compare.summary import Value, lines_of, table_of
from forgefield.app.compare.timing import batch_of, write_timing
from forgefield.app.run import load_run, resolved
from forgefield.app.tasks.steps.fitting import WORDS
from forgefield.core.errors import DataError
from forgefield.core.structure import Structure
from forgefield.train.signals import Stopped

QUICK = GOOD.replace("run_dir: runs/first\n", "run_dir: runs/first\ndevice: cpu\n") + (
    "  batch_size: 4\nexport: {standard_artifacts: false}\n"
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with data, two run files, and processes that are played in this one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("forgefield.app.compare.timing.SECONDS", 0.05)
    write_water("train.xyz", 12, atoms=True)
    write_water("test.xyz", 4, seed=3)
    write_water("hot.xyz", 3, seed=5)
    write_run(".", QUICK.replace("name: first", "name: small"), "small.yaml")
    write_run(".", QUICK.replace("name: first", "name: wide").replace("4x0e + 4x1o", "8x0e + 8x1o"), "wide.yaml")
    return tmp_path


@pytest.fixture
def played(folder, monkeypatch):
    """Replace processes by calls; returns the commands. A name in `failing` makes its training fail."""
    commands, failing, stopping = [], set(), set()

    def call(shop, trial, command, *, preload=False):
        commands.append(command)
        if "forgefield.app.compare.timing" in command:
            write_timing(*(p(command[3:]) for p in (lambda w: shop._plan(trial), lambda w: training.Path(w[1]),
                                                     lambda w: [training.Path(x) for x in w[2:]])))  # fmt: skip
            return
        sets = command[command.index("--set") + 1 :] if "--set" in command else []
        if sets and trial.name in failing:
            raise training.Failed("error: no such luck | here")
        (config,) = load_run(command[4], overrides=sets)
        forgefield_run(config, go_on="--continue" in command)
        if sets and trial.name in stopping:
            raise Stopped("SIGTERM", saved=True)

    monkeypatch.setattr(training.Workshop, "_call", call)
    return commands, failing, stopping


def forgefield_run(config, *, go_on):
    from forgefield.app.commands.execution import carry_out

    carry_out([config], go_on=go_on)


def cli(*words):
    result = CliRunner(env={"COLUMNS": "250", "TERM": "dumb", "NO_COLOR": "1"}).invoke(app, [str(w) for w in words])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, " ".join(result.stdout.split()), " ".join(result.stderr.split())


def test_a_comparison_from_beginning_to_end_with_a_candidate_that_fails_first(folder, played):
    commands, failing, _ = played
    failing.add("wide")
    ask = ["compare", "small.yaml", "wide.yaml", "--minutes", "0.01,0.04", "--test", "test.xyz", "--test", "hot.xyz"]
    code, out, err = cli(*ask)
    assert code == 2
    assert "wide, seed 0: error: no such luck | here" in err
    assert "1 of 2 runs failed" in err
    result = json.loads((folder / "comparison" / "comparison.json").read_text())
    rows = {(row["candidate"], row["minutes"]): row for row in result["rows"]}
    assert [rows[key]["status"] for key in sorted(rows)] == ["done", "done", "failed", "failed"]
    early, late = rows["small", 0.01], rows["small", 0.04]
    assert early["ended"] == late["ended"] == WORDS["max_cpu_minutes"]
    assert 0.007 <= early["cpu_minutes"] < late["cpu_minutes"]  # up to the last checkpoint before the limit
    assert late["cpu_minutes"] >= 0.035
    assert early["updates"] < late["updates"]
    assert set(late["errors"]) == {"test", "hot", "val"}
    metrics = json.loads((folder / "comparison/runs/small-seed-0/evaluation/hot/metrics.json").read_text())["all"]
    assert late["errors"]["hot"]["forces_rmse"] == metrics["forces_rmse"]
    assert late["inference"]["batch_structures"] == 4
    table = (folder / "comparison" / "comparison.md").read_text()
    assert "no such luck" in table
    made = len(commands)

    failing.clear()
    code, out, err = cli(*ask)
    assert code == 0, err
    assert "small-seed-0: 0.01 CPU minutes: kept from before" in out
    assert "small, 0.01 min small, 0.04 min wide, 0.01 min wide, 0.04 min" in out
    assert not any("small" in " ".join(map(str, command)) for command in commands[made:])
    rows = list(csv.DictReader((folder / "comparison" / "comparison.csv").read_text().splitlines()))
    assert [row["status"] for row in rows] == ["done"] * 4
    assert float(rows[1]["hot_forces_rmse"]) == metrics["forces_rmse"]
    page = (folder / "comparison" / "comparison.html").read_text()
    assert page.count("<svg") == 9  # two sets, two errors, against two times; and validation
    for path in (folder / "comparison" / "charts").glob("*.svg"):
        ET.fromstring(path.read_text())


def set_time(folder, seconds):
    place = folder / "comparison" / "runs" / "small-seed-0" / "checkpoints" / "last" / "state.json"
    state = json.loads(place.read_text())
    state["progress"]["cpu_seconds"] = seconds
    place.write_text(json.dumps(state))


def test_a_stopped_comparison_goes_on_with_what_is_left_of_the_budget(folder, played):
    commands, _, stopping = played
    stopping.add("small")
    ask = ["compare", "small.yaml", "--minutes", "0.01", "--test", "test.xyz"]
    code, _, err = cli(*ask)
    assert (code, "Go on with the same command" in err) == (75, True)
    set_time(folder, 0.45)  # as if it had been stopped there
    record = folder / "comparison" / "runs" / "small-seed-0" / "run.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "status": "running"}))
    stopping.clear()
    code, _, err = cli(*ask)
    assert code == 0, err
    limits = [float(command[-1].split("=")[1]) for command in commands if "--set" in command]
    assert limits == pytest.approx([0.01, 0.0025])
    row = json.loads((folder / "comparison" / "results" / "small-seed-0-0.01-min.json").read_text())
    assert row["cpu_minutes"] >= 0.0095


def test_a_run_whose_last_update_went_beyond_the_next_limit_is_not_trained_for_it(folder, played):
    commands, *_ = played
    ask = ["compare", "small.yaml", "--test", "test.xyz", "--minutes"]
    assert cli(*ask, "0.001")[0] == 0
    set_time(folder, 3.0)  # as if an update lasted that long
    made = len(commands)
    code, _, err = cli(*ask, "0.001,0.02")
    assert code == 0, err
    assert not any("--set" in command for command in commands[made:])
    (early, late) = json.loads((folder / "comparison" / "comparison.json").read_text())["rows"]
    assert (late["minutes"], late["cpu_minutes"], late["updates"]) == (0.02, 0.05, early["updates"])
    assert cli(*ask, "0.01,0.02")[0] == 0  # between them the same holds
    first = json.loads((folder / "comparison" / "comparison.json").read_text())["rows"][0]
    assert (first["minutes"], first["cpu_minutes"], first["updates"]) == (0.01, 0.05, early["updates"])


def test_a_run_that_was_interrupted_on_its_way_to_a_longer_limit_has_no_results_at_a_shorter_one(folder, played):
    _, _, stopping = played
    stopping.add("small")
    ask = ["compare", "small.yaml", "--test", "test.xyz", "--minutes"]
    assert cli(*ask, "0.02")[0] == 75
    set_time(folder, 0.6)
    stopping.clear()
    code, _, err = cli(*ask, "0.005")
    assert code == 2
    assert "the run has already trained for 0.01 CPU minutes; results at 0.005 need a new --out" in err
    assert cli(*ask, "0.02")[0] == 0


def test_what_failed_after_the_training_is_tried_again_at_the_same_limit(folder, played, monkeypatch):
    commands, *_ = played
    ask = ["compare", "small.yaml", "--test", "test.xyz", "--minutes", "0.001"]
    evaluate = training.Workshop._evaluate

    def fail(shop, trial, path):
        raise training.Failed("no memory left")

    monkeypatch.setattr(training.Workshop, "_evaluate", fail)
    code, _, err = cli(*ask)
    assert (code, "no memory left" in err) == (2, True)
    trained = [command for command in commands if "--set" in command]
    monkeypatch.setattr(training.Workshop, "_evaluate", evaluate)
    set_time(folder, 3.0)  # beyond the limit
    code, _, err = cli(*ask)
    assert code == 0, err
    assert [command for command in commands if "--set" in command] == trained


def test_results_of_other_settings_or_data_are_not_mixed_in(folder, played):
    ask = ["compare", "small.yaml", "--minutes", "0.001", "--test", "test.xyz"]
    assert cli(*ask)[0] == 0
    code, _, err = cli(*ask, "--set", "train.lr=0.5")
    assert code == 2
    assert "the run small-seed-0 there has other settings: train.lr" in err
    write_water("test.xyz", 4, seed=4)
    code, _, err = cli(*ask)
    assert code == 2
    assert "the data are not those of the comparison there" in err
    code, _, err = cli(*ask, "--wall", "--out", "comparison")
    assert code == 2


def test_candidates_must_have_the_same_data(folder, played):
    commands, *_ = played
    (folder / "wide.yaml").write_text((folder / "wide.yaml").read_text().replace("xyz\n", "xyz\n  split_seed: 1\n", 1))
    code, _, err = cli("compare", "small.yaml", "wide.yaml", "--minutes", "0.001", "--test", "test.xyz")
    assert code == 2
    assert "small and wide differ in the training set: other structures, or another order of them" in err
    assert commands == []


def test_labels_that_both_read_must_agree_and_others_may_be_more(folder):
    (config,) = load_run("small.yaml")
    own = identity(open_sets(config, [folder / "test.xyz"]))
    assert set(own) == {"training", "validation", "test test"}
    less = json.loads(json.dumps(own))
    del less["training"]["labels"]["forces"]
    check_same({"a": own, "b": less})
    write_water("other.xyz", 4, seed=3, force_scale=1.1)
    other = identity(open_sets(config, [folder / "other.xyz"]))
    other["test test"] = other.pop("test other")
    with pytest.raises(DataError, match="differ in the test test set: other values of forces"):
        check_same({"a": own, "b": other})
    with pytest.raises(DataError, match="the candidates have other sets"):
        check_same({"a": own, "b": {"training": own["training"]}})


def test_limits_seeds_and_epochs_are_made_equal(folder):
    write_run(".", QUICK + "  scheduler: cosine\n  max_minutes: 3\n", "curve.yaml")
    text = (folder / "curve.yaml").read_text().replace("export:", "#").replace("  scheduler", "  seed: 4\n  scheduler")
    (folder / "curve.yaml").write_text(text.replace("#", "export:"))
    configs = from_files([folder / "small.yaml"], ())
    (first, second) = trials_of(configs, 2, Budget((2.0, 5.0)), folder / "out", False)
    assert (first.seed, second.seed, first.config.train.seed, second.config.train.seed) == (0, 1, 0, 1)
    assert first.config.train.epochs == ENDLESS
    assert (first.config.train.max_cpu_minutes, first.config.train.max_minutes) == (5.0, None)
    assert second.config.run_dir == folder / "out" / "runs" / "small-seed-1"
    (kept,) = trials_of(configs, 1, Budget((2.0,), wall=True), folder / "out", True)
    assert (kept.config.train.epochs, kept.config.train.max_minutes) == (3, 2.0)
    changed = kept.config.model_copy(update={"dtype": "float64"})
    assert differences(resolved(kept.config), changed, Budget((9.0,), wall=True)) == ["dtype"]


@pytest.mark.parametrize("more", ["scheduler: cosine", "stage_two: {start: 2}", "max_updates: 7"])
def test_epochs_over_which_a_training_is_laid_out_are_kept(folder, more):
    write_run(".", QUICK.replace("  epochs: 3\n", f"  epochs: 3\n  {more}\n"), "laid.yaml")
    (trial,) = trials_of(from_files([folder / "laid.yaml"], ()), 1, Budget((1.0,)), folder / "out", False)
    assert (trial.config.train.epochs, trial.epochs_kept) == (3, True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["compare", "small.yaml", "--minutes", "no"], "--minutes: got 'no', expected minutes"),
        (["compare", "small.yaml", "--minutes", "-1"], "--minutes: got '-1', expected minutes"),
        (["compare", "small.yaml", "small.yaml"], "two candidates are named 'small'"),
        (["compare", "small.yaml", "--backends", "mace"], "--backends is for comparisons without files"),
        (["compare", "small.yaml", "--data", "train.xyz"], "--data is for comparisons without files"),
        (["compare", "--backends", "mace"], "nothing to compare"),
        (["compare", "--backends", "mac", "--data", "train.xyz"], "Did you mean 'mace'?"),
        (["compare", "--backends", "mace,mace", "--data", "train.xyz"], "named twice"),
        (["compare", "small.yaml", "--test", "missing.xyz"], "missing.xyz"),
        (["compare", "small.yaml", "--test", "test.xyz", "--test", "./test.xyz"], "two test sets are named 'test'"),
    ],
)
def test_what_cannot_be_compared_is_one_message(folder, words, message):
    code, _, err = cli(*words)
    assert code == 2
    assert message in err
    assert not (folder / "comparison").exists()


def test_a_folder_of_other_things_is_left_alone(folder):
    code, _, err = cli("compare", "small.yaml", "--test", "test.xyz", "--out", folder)
    assert code == 2
    assert "the folder holds other files" in err


def test_backends_take_the_flags(folder):
    from forgefield.app.commands.flags import tree_of

    tree = tree_of([("task", "train", ""), ("run_dir", "x", ""), ("data.train", [folder / "train.xyz"], "--data")])
    (one, two) = from_backends(["mace", "aimnet2"], tree, ["train.batch_size=3"])
    assert [(run.backend, run.name, run.train.batch_size) for run in (one, two)] == [
        ("mace", "mace", 3),
        ("aimnet2", "aimnet2", 3),
    ]


def test_a_gpu_is_not_measured_in_cpu_minutes(folder, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    code, _, err = cli("compare", "small.yaml", "--device", "cuda", "--test", "test.xyz")
    assert code == 2
    assert "CPU minutes do not measure what a GPU does" in err


def row(name, seed=0, minutes=1.0, forces=0.1, micro=10.0, **more):
    times = {
        "batch_seconds_per_atom": micro * 1e-6,
        "step_seconds_per_atom": None,
        "memory_mib": 300.0,
        "crowded": False,
    }
    errors = {"hot": {"forces_rmse": forces, "forces_mae": forces / 2, "gap_rmse": 0.3}, "val": {"forces_rmse": 1.0}}
    return {
        "candidate": name, "seed": seed, "backend": "mace", "minutes": minutes, "minutes_of": "CPU minutes",
        "status": "done", "message": "", "parameters": 1000, "epochs": 5, "updates": 50, "best_epoch": 4,
        "ended": "stopped by train.max_cpu_minutes", "cpu_minutes": minutes, "wall_minutes": 2 * minutes,
        "training_memory_mib": {"process": 400.0}, "threads": 1, "device": "cpu", "dtype": "float32",
        "kernels": "", "allocator": "", "forgefield": "", "inference": times, "errors": errors,
        "units": {"gap": "eV"}, **more,
    }  # fmt: skip


def test_seeds_become_means_with_their_spread():
    rows = [row("a", forces=0.1), row("a", 1, forces=0.2), row("b", ended="all epochs done")]
    rows.append({**row("b", 1), "status": "failed", "message": "boom"})
    lines = lines_of(rows)
    force = lines[0].errors["hot"]["forces_rmse"]
    assert (force.mean, force.count) == (pytest.approx(0.15), 2)
    assert force.spread == pytest.approx(np.std([0.1, 0.2], ddof=1))
    assert lines[1].failed == ["boom"]
    heads, body = table_of(lines, rows)
    assert heads[:5] == ["model", "limit", "seeds", "hot: F RMSE, meV/Å", "hot: gap RMSE, eV"]
    assert body[0][3] == "150 ± 71"
    assert not any(head.startswith("val") for head in heads)
    assert Value.of([None]) is None


def test_charts_stand_at_their_numbers(tmp_path):
    rows = [row("a", forces=0.1, micro=10.0), row("a", 1, forces=0.3, micro=10.0), row("b", forces=0.4, micro=1000.0)]
    shown = {one.name: one for one in pictures(lines_of(rows), rows, {})}
    chart = shown["inference-hot-forces_rmse"].chart
    found = re.findall(r'<circle class="dot ([ab])" cx="([\d.]+)" cy="([\d.]+)" r="5"', chart.svg())
    places = {style: (float(x), float(y)) for style, x, y in found}
    across, down = chart.at(10.0, 200.0)
    assert places["a"] == pytest.approx((float(across), float(down)), abs=0.06)
    assert places["b"][0] > places["a"][0]
    assert places["b"][1] < places["a"][1]  # a larger error stands higher
    tree = ET.fromstring(as_file(shown["inference-hot-forces_rmse"]))
    assert tree.tag.endswith("svg")


def test_a_run_that_is_tried_again_has_no_curve_yet(tmp_path):
    """It left a history, and no result that the table could name."""
    folders = {name: tmp_path / name for name in ("a-seed-0", "b-seed-0")}
    seen = [{"cpu_seconds": 60.0 * k, "val_forces_rmse": 0.1 / k} for k in (1, 2)]
    for place in folders.values():
        place.mkdir()
        (place / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in seen))
    rows = [row("a", forces=0.1, micro=10.0)]
    (curves,) = [one for one in pictures(lines_of(rows), rows, folders) if one.name == "validation"]
    assert curves.chart.svg().count('class="line ') == 1


def test_a_timed_batch_is_limited_by_atoms():
    one = Structure(np.ones(900, dtype=int), np.random.default_rng(0).normal(size=(900, 3)))
    assert len(batch_of([one] * 5)) == 2
    large = Structure(np.ones(3000, dtype=int), np.random.default_rng(0).normal(size=(3000, 3)))
    assert len(batch_of([large, one])) == 1


def test_the_message_of_a_process_is_its_last_error():
    text = "reading\nerror: old\nepoch 1\nerror: one: wrong\nerror: two: wrong\nmore words\n"
    assert training._last_words(text) == "one: wrong two: wrong more words"
    assert training._last_words("Killed\n") == "Killed"


def test_a_run_that_another_process_trains_is_left_alone(folder, monkeypatch):
    (trial,) = trials_of(from_files([folder / "small.yaml"], ()), 1, Budget((1.0,)), folder / "out", False)
    shop = training.Workshop(folder / "out", Budget((1.0,)), (), None)
    (folder / "out" / "logs").mkdir(parents=True)
    shop._pid(trial).write_text(str(training.os.getpid()))
    shop.check(trial)  # the number is that of another program by now
    monkeypatch.setattr(training, "_running", lambda file, plan: 17)
    with pytest.raises(forgefield.core.errors.ForgeError, match="is being trained by process 17"):
        shop.check(trial)


@pytest.mark.slow
def test_real_processes(folder):
    ask = ["compare", "small.yaml", "--minutes", "0.02", "--test", "test.xyz", "--threads", "1"]
    code, _out, err = cli(*ask)
    assert code == 0, err
    row = json.loads((folder / "comparison" / "results" / "small-seed-0-0.02-min.json").read_text())
    assert row["cpu_minutes"] == pytest.approx(0.02, rel=0.2)
    assert row["threads"] == 1


def test_a_process_that_ends_with_an_error_is_a_failed_row(folder):
    (trial,) = trials_of(from_files([folder / "small.yaml"], ()), 1, Budget((1.0,)), folder / "out", False)
    shop = training.Workshop(folder / "out", Budget((1.0,)), (), 1)
    with pytest.raises(training.Failed, match="alas"):
        shop._call(trial, [training.sys.executable, "-c", "import sys; sys.exit(print('error: alas') or 2)"])
    assert "alas" in shop.log(trial).read_text()
    shop._call(trial, [training.sys.executable, "-c", "import os; assert os.environ['OMP_NUM_THREADS'] == '1'"])
