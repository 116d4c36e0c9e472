"""A whole comparison: check that it is fair, train each run in turn, write table and page."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forgefield.app.compare.candidates import Budget, Trial, trials_of
from forgefield.app.compare.page import page
from forgefield.app.compare.pictures import as_file, pictures
from forgefield.app.compare.sets import Identity, examine
from forgefield.app.compare.summary import (
    csv_text,
    lines_of,
    markdown,
    remarks,
    table_of,
)
from forgefield.app.compare.training import Row, Workshop
from forgefield.app.folder import read_json, write_json
from forgefield.app.run import RunConfig
from forgefield.core.disk import disk_errors, write_atomic
from forgefield.core.errors import ConfigError, DataError

FILE = "comparison.json"


@dataclass(frozen=True)
class Request:
    """What shall be compared.

    Args:
        configs: the candidates.
        budget: how long each run trains.
        seeds: runs of each candidate.
        tests: test files beside those of the runs.
        out: folder of all that is written.
        threads: of each process; None leaves it to the environment.
        keep_epochs: no run trains beyond the epochs of its file.
    """

    configs: Sequence[RunConfig]
    budget: Budget
    seeds: int
    tests: Sequence[Path]
    out: Path
    threads: int | None = None
    keep_epochs: bool = False


@dataclass(frozen=True)
class Comparison:
    """What came of it: rows of the runs, table, remarks, files."""

    rows: list[Row]
    heads: list[str]
    body: list[list[str]]
    notes: list[str]
    files: list[Path]

    @property
    def failed(self) -> list[str]:
        """Runs that failed, each with its message."""
        found = {
            f"{row['candidate']}, seed {row['seed']}": row["message"] for row in self.rows if row["status"] != "done"
        }
        return [f"{who}: {message}" for who, message in found.items()]


def compare(request: Request, say: Callable[[str], None]) -> Comparison:
    """Carry out a comparison, or go on with it: what is done is kept, what failed is tried again.

    Raises:
        ForgeError: the candidates cannot be compared, or the folder holds another comparison.
        Stopped: a signal ended it; the same command goes on.
    """
    trials = trials_of(request.configs, request.seeds, request.budget, request.out, request.keep_epochs)
    shop = Workshop(request.out, request.budget, request.tests, request.threads)
    check_devices(trials, request.budget)
    data = examine(trials, request.tests)
    if not any(name.startswith("test ") for name in data) and "validation" not in data:
        raise DataError("there is nothing to compare errors on", "data", "give --test, data.test or validation data")
    with disk_errors(request.out):
        request.out.mkdir(parents=True, exist_ok=True)
        check_folder(request, data)
        for trial in trials:
            shop.check(trial)
        write_json(request.out / FILE, _content(request, data, []))
        say(f"{len(trials)} runs, one after the other, with {_threads(request.threads)}")
        rows: list[Row] = []
        for trial in trials:
            rows += shop.rows(trial, say)
            write(request, trials, data, rows)
    return write(request, trials, data, rows)


def check_devices(trials: Sequence[Trial], budget: Budget) -> None:
    """Refuse CPU minutes as the measure of work that a GPU does.

    Raises:
        ConfigError: a run computes on CUDA.
    """
    if budget.wall:
        return
    import torch

    for trial in trials:
        device = trial.config.device
        if device.startswith("cuda") or (device == "auto" and torch.cuda.is_available()):
            raise ConfigError("CPU minutes do not measure what a GPU does", "--minutes", "add --wall, or --device cpu")


def check_folder(request: Request, data: Identity) -> None:
    """Refuse to go on in the folder of a comparison on other data or by another clock.

    Raises:
        ForgeError: it holds one.
    """
    file = request.out / FILE
    if not file.is_file():
        if any(request.out.iterdir()):
            raise ConfigError("the folder holds other files", str(request.out), "choose another --out")
        return
    there = read_json(file)
    if there["data"] != data:
        what = "the data are not those of the comparison there"
        raise DataError(what, str(request.out), "choose another --out, or restore the data")
    if there["budget"]["wall"] != request.budget.wall:
        raise ConfigError("the comparison there counts another time (--wall)", str(request.out), "choose another --out")


def write(request: Request, trials: Sequence[Trial], data: Identity, rows: list[Row]) -> Comparison:
    """Write table and page of the rows that there are."""
    out, lines = request.out, lines_of(rows)
    heads, body = table_of(lines, rows)
    heads[1] = f"limit, {request.budget.words}"
    notes = [*remarks(lines, rows), *_about_epochs(trials)]
    folders = {trial.label: trial.config.run_dir or Path() for trial in trials}
    charts = pictures(lines, rows, folders)
    about = {"facts": _facts(request, data, rows), "command": _command(), "lead": _lead(request, trials)}
    files = [
        write_atomic(out / "comparison.html", page(out.name, heads, body, notes, charts, about)),
        write_atomic(out / "comparison.md", markdown(heads, body, notes)),
        write_atomic(out / "comparison.csv", csv_text(rows)),
        write_json(out / FILE, _content(request, data, rows)),
        *(write_atomic(out / "charts" / f"{one.name}.svg", as_file(one)) for one in charts),
    ]
    return Comparison(rows, heads, body, notes, files)


def _content(request: Request, data: Identity, rows: list[Row]) -> dict[str, Any]:
    budget = {"minutes": list(request.budget.minutes), "wall": request.budget.wall}
    return {
        "schema_version": "forgefield-comparison-1", "budget": budget, "seeds": request.seeds,
        "tests": list(request.tests), "command": _command(), "data": data, "rows": rows,
    }  # fmt: skip


def _facts(request: Request, data: Identity, rows: Sequence[Row]) -> dict[str, str]:
    minutes = ", ".join(f"{m:g}" for m in request.budget.minutes)
    found = {
        "budget": f"{minutes} {request.budget.words} of training for each run, validation included; reading data, "
        "evaluation and export are not counted",
        **{name: f"{one['n_structures']:,} structures, SHA-256 {one['structures'][:12]}" for name, one in data.items()},
        "weights": "those of the best validation",
        "batch": "prediction of the first structures of the first test set (64 or 2,000 atoms), with neighbour search",
        "MD step": "the largest of them in the ASE calculator, atoms displaced by 0.01 Å between calls",
        "times": "median of warm calls in a process of its own",
    }
    for name in ("device", "threads", "allocator", "kernels", "dtype", "forgefield"):
        seen = dict.fromkeys(str(row[name]) for row in rows if row["status"] == "done")
        found |= {name: "; ".join(seen)} if seen else {}
    return found


def _lead(request: Request, trials: Sequence[Trial]) -> str:
    names = list(dict.fromkeys(trial.name for trial in trials))
    minutes = ", ".join(f"{m:g}" for m in request.budget.minutes)
    seeds = f", {request.seeds} seeds each" if request.seeds > 1 else ""
    return f"{', '.join(names)}: {minutes} {request.budget.words} of training{seeds}, on the same data"


def _about_epochs(trials: Sequence[Trial]) -> list[str]:
    names = list(dict.fromkeys(trial.name for trial in trials if trial.epochs_kept))
    return [f"epochs as in the file, since the training is laid out over them: {', '.join(names)}"] if names else []


def _threads(given: int | None) -> str:
    if given is not None:
        return f"{given} thread{'s' if given > 1 else ''} each"
    set_ = os.environ.get("OMP_NUM_THREADS")
    return f"{set_} threads each (OMP_NUM_THREADS)" if set_ else f"as many threads as PyTorch takes of {os.cpu_count()}"


def _command() -> str:
    return shlex.join(["forgefield", *sys.argv[1:]])
