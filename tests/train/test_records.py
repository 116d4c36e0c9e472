"""Sinks of records: what each writes, what a continued fit takes back, and the numbers by head, element and group."""

import csv
import http.server
import io
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from rich.console import Console
from test_fit import TRAIN, VAL, run
from toy import load, make_potential, make_structures, quiet

from forgefield.core.catalog import Catalog
from forgefield.core.structure import Structure
from forgefield.train.catalogs import RECORDS
from forgefield.train.evaluate import gather
from forgefield.train.keys import records as keys
from forgefield.train.loop import fit
from forgefield.train.metrics import measure_errors
from forgefield.train.recorder import read_history
from forgefield.train.settings import TrainSettings
from forgefield.train.sink import COLUMNS, PART_COLUMNS, numbers_of_parts

FILES = {
    "csv": {"history.csv", "breakdown.csv"},
    "jsonl": {"history.jsonl", "breakdown.jsonl"},
    "tensorboard": {"tensorboard"},
}


@pytest.mark.parametrize("chosen", [(), ("csv",), ("jsonl",), ("tensorboard",), ("csv", "jsonl", "tensorboard")])
def test_each_sink_writes_its_own_files_and_no_other(tmp_path, chosen):
    run(tmp_path, quiet(epochs=1, loggers=chosen))
    wanted = set().union(*(FILES[name] for name in chosen)) | {"checkpoints", "trained.json"}
    assert {path.name for path in tmp_path.iterdir()} == wanted


def test_the_default_is_all_that_needs_no_package():
    assert TrainSettings().loggers == tuple(FILES)
    assert set(Catalog(RECORDS).names()) == {*FILES, "wandb", "mlflow"}


def heads_run(folder, **more):
    """Two heads, in turn, with their own loaders."""
    mark = lambda structures: [  # noqa: E731
        Structure(s.numbers, s.positions, s.cell, s.pbc, labels=s.labels, head=("a", "b")[k % 2], origin=s.origin)
        for k, s in enumerate(structures)
    ]
    potential, settings = make_potential(heads=("a", "b")), quiet(stress_weight=1.0, **more)
    train, val = (load(mark(part), 4, heads=("a", "b")) for part in (TRAIN, VAL))
    console = Console(file=io.StringIO(), width=200)
    common = {"config_fingerprint": "c", "data_fingerprint": "d", "device": "cpu", "console": console}
    fit(potential, train, val, settings, folder=folder, **common)
    return potential, train, val


def test_the_breakdown_says_what_the_predictions_say(tmp_path):
    """One update with a rate too small to move a weight: training errors are those of an evaluation of the same."""
    potential, train, val = heads_run(tmp_path, epochs=1, lr=1e-300, ema_decay=None, batch_size=4)
    rows = read_history(tmp_path / "breakdown.jsonl")
    assert all(tuple(row) == PART_COLUMNS for row in rows)
    assert {(row["cycle"], row["epoch"], row["update"]) for row in rows} == {(1, 1, 3)}
    for part, loader in (("train", train), ("val", val)):
        heads = np.array([s.head for s in (loader.dataset[k] for k in range(len(loader.dataset)))], dtype=object)
        wanted = measure_errors(gather(potential, loader), {"head": heads})
        found = {(row["group"], row["name"]): row for row in rows if row["set"] == part}
        assert {key for key in found if key[0] != "parameters"} == {
            ("head", "a"), ("head", "b"), ("element", "H"), ("element", "C"),
        }  # fmt: skip
        for group in ("head", "element"):
            for name, errors in wanted[f"by_{group}"].items():
                for key in PART_COLUMNS[PART_COLUMNS.index("lr") + 1 :]:
                    value = errors.get(key)
                    assert found[group, name][key] == (None if value is None else pytest.approx(value, rel=1e-10)), key


def test_the_rate_of_each_group_is_kept(tmp_path):
    run(tmp_path, quiet(epochs=4, scheduler="step", step_size=2, gamma=0.5))
    rows = [row for row in read_history(tmp_path / "breakdown.jsonl") if row["group"] == "parameters"]
    assert [(row["name"], row["lr"]) for row in rows if row["name"] == "decay"] == [
        ("decay", 0.02), ("decay", 0.02), ("decay", 0.01), ("decay", 0.01),
    ]  # fmt: skip
    assert {row["name"] for row in rows} == {"decay", "no_decay"}
    assert [row["lr"] for row in read_history(tmp_path / "history.jsonl")] == [0.02, 0.02, 0.01, 0.01]


def test_tables_and_lines_say_the_same(tmp_path):
    heads_run(tmp_path, epochs=2)
    for name, columns in (("history", COLUMNS), ("breakdown", PART_COLUMNS)):
        rows = read_history(tmp_path / f"{name}.jsonl")
        with open(tmp_path / f"{name}.csv", newline="") as file:
            table = list(csv.DictReader(file))
        assert len(rows) == len(table) > 0
        for row, cells in zip(rows, table, strict=True):
            assert tuple(cells) == columns
            for key, value in row.items():
                assert cells[key] == (
                    "" if value is None else str(int(value)) if value in (True, False) else f"{value}"
                )


WITHOUT_CLOCK = [name for name in COLUMNS if "second" not in name and name != "peak_memory_mib"]


@pytest.mark.parametrize("more", [
    {"validate_every": 2}, {"cycle_steps": 2, "validate_every": 3}, {"accum_steps": 2},
    {"validate_every": "3 updates", "save_every": 2}, {"cycle_steps": 3, "validate_every": "1 epoch"},
])  # fmt: skip
def test_a_continued_fit_has_the_records_of_a_straight_one(tmp_path, more):
    """The second attempt begins within the sums of an epoch; rows that it computes again stand once."""
    settings = quiet(batch_size=2, epochs=4, **more)
    run(tmp_path / "straight", settings)
    run(tmp_path / "cut", settings.model_copy(update={"max_minutes": 1e-9}))
    for _ in range(3):
        run(tmp_path / "cut", settings.model_copy(update={"max_minutes": 1e-9}), resume=True)
    run(tmp_path / "cut", settings, resume=True)
    straight, cut = (
        [{k: row[k] for k in WITHOUT_CLOCK} for row in read_history(tmp_path / name / "history.jsonl")]
        for name in ("straight", "cut")
    )
    assert straight == [row for row in cut if not row["partial"] or row["update"] == straight[-1]["update"]]
    wanted = {row["update"] for row in straight}
    first, second = (
        [row for row in read_history(tmp_path / name / "breakdown.jsonl") if row["update"] in wanted]
        for name in ("straight", "cut")
    )
    assert first == second


def test_rows_after_the_checkpoint_are_taken_out(tmp_path):
    run(tmp_path, quiet(epochs=2))
    kept = {name: (tmp_path / name).read_text() for names in (FILES["csv"], FILES["jsonl"]) for name in names}
    for name, text in kept.items():
        last = text.splitlines()[-1]
        later = last.replace('"update": 6', '"update": 9').replace(",6,", ",9,", 1)
        assert later != last
        (tmp_path / name).write_text(text + later + "\n" + later[:20])
    run(tmp_path, quiet(epochs=2), resume=True)
    assert {name: (tmp_path / name).read_text() for name in kept} == kept


def test_validation_saving_and_schedule_are_independent(tmp_path):
    """Five updates an epoch: validation every 2 epochs, schedule every epoch, checkpoints every 3."""
    settings = quiet(
        batch_size=2, epochs=5, validate_every=2, save_every=3, scheduler="step", step_size=1, gamma=0.5, log_every=7
    )
    text = io.StringIO()
    run(tmp_path, settings, console=Console(file=text, width=200))
    rows = read_history(tmp_path / "history.jsonl")
    assert [(row["update"], row["cycle"], row["lr"], row["partial"]) for row in rows] == [
        (10, 2, 0.01, False), (20, 4, 0.0025, False), (25, 5, 0.00125, True),
    ]  # fmt: skip
    lines = [line.split()[1].split("/")[0] for line in text.getvalue().splitlines() if line.startswith("update")]
    assert lines == ["7", "14", "21"]


@pytest.mark.parametrize(
    ("keys", "wanted"),
    [
        ({"validate_every": "4 updates"}, [(4, 0), (8, 1), (12, 2), (15, 3)]),
        ({"validate_every": "2 epochs"}, [(10, 2), (15, 3)]),
        ({"validate_every": "1 epoch", "cycle_steps": 3, "drop_last": True}, [(5, 1), (10, 3), (15, 5)]),
        ({"validate_every": "2 cycles", "cycle_steps": 3, "drop_last": True}, [(6, 2), (12, 4), (15, 5)]),
    ],
)
def test_validation_has_an_interval_of_its_own(tmp_path, keys, wanted):
    """Five updates an epoch; rows are (updates, cycles). Schedule, checkpoints and log lines go their own ways."""
    own = {"scheduler": "step", "step_size": 1, "gamma": 0.5, "log_every": 7, "ema_decay": None}
    text = io.StringIO()
    run(tmp_path, quiet(batch_size=2, epochs=3, **own, **keys), console=Console(file=text, width=200))
    rows = read_history(tmp_path / "history.jsonl")
    assert [(row["update"], row["cycle"]) for row in rows] == wanted
    for row in rows:  # the rate is that of the last update, halved after each epoch
        assert row["lr"] == 0.02 * 0.5 ** ((row["update"] - 1) // 5)
    lines = [line.split()[1].split("/")[0] for line in text.getvalue().splitlines() if line.startswith("update")]
    assert lines == ["7", "14"]
    run(tmp_path / "every", quiet(batch_size=2, epochs=3, **own))
    every = {row["update"]: row["val_loss"] for row in read_history(tmp_path / "every" / "history.jsonl")}
    common = [row for row in rows if row["update"] in every]
    assert [row["val_loss"] for row in common] == [every[row["update"]] for row in common]
    assert common


def test_early_stops_and_plateau_count_validations_within_an_epoch(tmp_path):
    from test_fit import at_rest

    keys = {"lr_factor": 0.5, "plateau_patience": 0, "ema_decay": None, "validate_every": "2 updates", "batch_size": 2}
    stop = ({"metric": "loss", "patience": 3},)
    _, result = run(tmp_path, quiet(**keys, epochs=8, early_stops=stop), potential=at_rest())
    rows = read_history(tmp_path / "history.jsonl")
    assert [(row["update"], row["lr"]) for row in rows] == [(2, 0.02), (4, 0.02), (6, 0.01), (8, 0.005)]
    assert (result.reason, rows[-1]["partial"]) == ("early_stops", False)


@pytest.mark.parametrize("value", [0, -1, "0 updates", "5 steps", "often", "1.5 epochs"])
def test_what_is_no_interval_is_refused(value):
    refuse("is no interval|valid", "validate_every", validate_every=value)


def test_plateau_steps_after_each_validation_only(tmp_path):
    from test_fit import at_rest

    keys = {"epochs": 8, "lr_factor": 0.5, "plateau_patience": 0, "ema_decay": None, "validate_every": 2}
    run(tmp_path, quiet(**keys), potential=at_rest())
    assert [row["lr"] for row in read_history(tmp_path / "history.jsonl")] == [0.02, 0.02, 0.01, 0.005]


def test_curves_leave_out_what_there_is_only_one_of():
    empty = dict.fromkeys(PART_COLUMNS)
    rows = [
        {**empty, "set": "val", "group": "head", "name": "default", "forces_rmse": 1.0},
        {**empty, "set": "val", "group": "element", "name": "H", "forces_rmse": 2.0},
        {**empty, "set": "val", "group": "element", "name": "C", "forces_rmse": 3.0},
        {**empty, "set": "train", "group": "parameters", "name": "decay", "lr": 0.5},
    ]
    assert numbers_of_parts(rows) == {
        "validation/element/H/forces_rmse": 2.0,
        "validation/element/C/forces_rmse": 3.0,
        "train/parameters/decay/lr": 0.5,
    }


def test_updates_reach_the_sinks_behind_a_progress_bar(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(tmp_path, quiet(log_every=2, progress_bar=True))
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [e.step for e in board.Scalars("update/loss")] == [2, 4, 6, 8]
    tags = set(board.Tags()["scalars"])
    assert {"update/lr/decay", "update/grad_norm", "update/structures_per_second", "run/peak_memory_mib"} <= tags
    assert "validation/element/H/forces_rmse" in tags


# ------------------------------------------------------------------------------------------- refusals, at the key


def refuse(match, place, **given):
    with pytest.raises(ValidationError, match=match) as caught:
        TrainSettings.model_validate(given)
    assert caught.value.errors()[0]["loc"][0] == place


def test_what_cannot_be_had_is_refused_at_the_key(monkeypatch):
    refuse("did you mean 'jsonl'", "loggers", loggers=["json"])
    refuse("stands twice", "loggers", loggers=["csv", "csv"])
    refuse("no effect: wandb is not among the loggers", "wandb", wandb={"project": "p"})
    refuse("no effect: mlflow is not among the loggers", "mlflow", mlflow={"experiment": "p"})
    monkeypatch.setattr(keys, "_installed", lambda package: False)
    refuse(r"needs the package wandb, .*pip install 'forgefield\[wandb\]'", "loggers", loggers=["wandb"])
    refuse("needs the package mlflow", "loggers", loggers=["mlflow"])


def test_a_folder_of_that_name_is_no_package(tmp_path, monkeypatch):
    (tmp_path / "some_tracker").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert not keys._installed("some_tracker")
    assert keys._installed("json")


def test_a_sink_that_fails_closes_those_before_it(tmp_path, monkeypatch):
    from forgefield.train.records.csv import Csv
    from forgefield.train.records.jsonl import Jsonl

    closed = []
    monkeypatch.setattr(Jsonl, "close", lambda self: closed.append("jsonl"))
    monkeypatch.setattr(Csv, "__init__", lambda self, settings, origin: (_ for _ in ()).throw(ZeroDivisionError))
    with pytest.raises(ZeroDivisionError):
        run(tmp_path, quiet(loggers=("jsonl", "csv")))
    assert closed == ["jsonl"]


# ------------------------------------------------------------------------------ packages that may not be installed

SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_fit import run
from toy import quiet
folder, resume = Path(sys.argv[1]), sys.argv[2] == "resume"
run(folder, quiet(epochs=4 if resume else 2, log_every=2, loggers=("jsonl", {name!r}), **{more!r}), resume=resume)
"""


class Trap(http.server.BaseHTTPRequestHandler):
    """Counts whatever asks for something, also through a proxy."""

    seen: ClassVar[list[str]] = []

    def do_GET(self):
        self.seen.append(self.path)
        self.send_error(503)

    do_POST = do_CONNECT = do_PUT = do_HEAD = do_GET

    def log_message(self, *args):
        pass


@pytest.fixture
def trap():
    """An address at which every call of the network would be seen."""
    Trap.seen.clear()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Trap)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def attempts(folder, name, trap, more=()):
    """Fit, and continue the fit, in processes of their own whose network leads into the trap."""
    script = SCRIPT.format(tests=str(Path(__file__).parent), name=name, more=dict(more))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    environment |= {key: trap for key in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "WANDB_BASE_URL")}
    environment |= {"NO_PROXY": "", "no_proxy": "", "WANDB_MODE": "online"}
    for word in ("new", "resume"):
        done = subprocess.run(
            [sys.executable, "-c", script, str(folder), word], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-2000:]


def wandb_records(data):
    """Split a .wandb file, which is a LevelDB log behind a header of 7 bytes, into its records."""
    position, parts = 7, []
    while len(data) - position >= 7:
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        length, kind = int.from_bytes(data[position + 4 : position + 6], "little"), data[position + 6]
        parts.append(data[position + 7 : position + 7 + length])
        position += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield b"".join(parts)
            parts = []


def wandb_values(folder):
    """What offline runs hold: step by step, the values by name; from wandb's own files."""
    from wandb.proto import wandb_internal_pb2

    found = []
    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        for data in wandb_records(path.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            if record.WhichOneof("record_type") == "history":
                items = record.history.item
                found.append({"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in items})
    return found


def test_wandb_offline(tmp_path, trap):
    pytest.importorskip("wandb")
    attempts(tmp_path, "wandb", trap, {"wandb": {"project": "water", "tags": ["t"]}})
    assert Trap.seen == []
    values = wandb_values(tmp_path)
    rows = read_history(tmp_path / "history.jsonl")
    by_update = {v["update"]: v for v in values if "validation/loss" in v}
    assert sorted(by_update) == [row["update"] for row in rows] == [3, 6, 9, 12]
    for row in rows:
        assert by_update[row["update"]]["validation/forces_rmse"] == row["val_forces_rmse"]
        assert by_update[row["update"]]["train/loss"] == row["train_loss"]
    assert [v["update"] for v in values if "update/loss" in v] == [2, 4, 6, 8, 10, 12]
    runs = list(tmp_path.glob("wandb/offline-run-*"))
    assert len({path.name.rsplit("-", 1)[1] for path in runs}) == 1  # one identity over both attempts
    assert (tmp_path / "wandb" / "identity.txt").read_text().strip() == runs[0].name.rsplit("-", 1)[1]


def test_mlflow_in_files(tmp_path, trap):
    pytest.importorskip("mlflow")
    attempts(tmp_path, "mlflow", trap, {"mlflow": {"experiment": "water", "name": "first"}})
    assert Trap.seen == []
    rows = read_history(tmp_path / "history.jsonl")
    (run_folder,) = [path.parent for path in tmp_path.glob("mlruns/*/*/params")]
    values = lambda name: [line.split() for line in (run_folder / "metrics" / name).read_text().splitlines()]  # noqa: E731
    assert [(int(step), float(value)) for _, value, step in values("validation/loss")] == [
        (row["update"], row["val_loss"]) for row in rows
    ]
    assert [int(step) for _, _, step in values("update/loss")] == [2, 4, 6, 8, 10, 12]
    assert (run_folder / "params" / "lr").read_text() == "0.02"
    assert "status: 3" in (run_folder / "meta.yaml").read_text()  # finished
    assert "run_name: first" in (run_folder / "meta.yaml").read_text()


def test_the_tally_does_not_touch_gradients():
    from forgefield.train.loss import build_loss
    from forgefield.train.tally import Tally

    losses, batch = build_loss(quiet()), next(iter(load(make_structures(4)).batches()))
    gradients = []
    for with_tally in (False, True):
        potential = make_potential()
        outputs = potential(batch.graph)
        if with_tally:
            tally = Tally.of(potential)
            tally.add(outputs, batch)
            tally.end_update({})
            tally.flush({})
        losses(outputs, batch.labels).total.backward()
        gradients.append([p.grad for p in potential.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
