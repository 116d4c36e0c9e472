"""One run of a comparison: trained in its own process up to each limit, evaluated, timed, its results kept as a row."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from forgefield.app.compare.candidates import Budget, Trial, differences
from forgefield.app.folder import METRICS, RunFolder, read_json, write_json
from forgefield.app.launch import library_to_preload
from forgefield.app.run import RunConfig, config_of, resolved, save_resolved
from forgefield.app.tasks.steps.datasets import set_name
from forgefield.core.errors import ConfigError, ForgeError
from forgefield.train.checkpoint import STATE, has_checkpoint
from forgefield.train.signals import SAVED, Stopped

Row = dict[str, Any]
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_LEAST = 1e-6  # minutes: one update, where the time was used up before the run could conclude


class Failed(Exception):
    """A run of the comparison failed, with the message of its process."""


class Workshop:
    """Carries out the runs of a comparison and keeps what they come to.

    Args:
        out: folder of the comparison.
        budget: how long each run trains.
        tests: test files beside those of the runs.
        threads: of each process; None leaves it to the environment.
    """

    def __init__(self, out: Path, budget: Budget, tests: Sequence[Path], threads: int | None) -> None:
        self.out, self.budget, self.tests, self.threads = out, budget, tests, threads

    def row_file(self, trial: Trial, minutes: float) -> Path:
        """Return where the results of a run at a limit are kept."""
        return self.out / "results" / f"{trial.label}-{minutes:g}-min.json"

    def log(self, trial: Trial) -> Path:
        """Return where the output of a run's processes goes."""
        return self.out / "logs" / f"{trial.label}.log"

    def check(self, trial: Trial) -> None:
        """Refuse to mix results of other settings, or a run that another process is at work on.

        Raises:
            ForgeError: the folder of the run holds another, or it still runs.
        """
        plan = self._plan(trial)
        if plan.is_file():
            old = YAML(typ="safe", pure=True).load(plan.read_text(encoding="utf-8"))
            if changed := differences(old, trial.config, self.budget):
                what = f"the run {trial.label} there has other settings: {', '.join(changed)}"
                raise ConfigError(what, str(self.out), "choose another --out, or give the settings as they were")
        if (number := _running(self._pid(trial), plan)) is not None:
            raise ForgeError(f"{trial.label} is being trained by process {number}", str(self.out), "wait until it ends")

    def rows(self, trial: Trial, say: Callable[[str], None]) -> list[Row]:
        """Return the results of a run at every limit; those that are there are kept, the others are made.

        Raises:
            Stopped: a signal ended the comparison; what was trained is saved.
        """
        found: list[Row] = []
        for minutes in self.budget.minutes:
            file = self.row_file(trial, minutes)
            if file.is_file():
                found.append(read_json(file))
                say(f"{trial.label}: {minutes:g} {self.budget.words}: kept from before")
                continue
            say(f"{trial.label}: training to {minutes:g} {self.budget.words} ({self.log(trial)})")
            try:
                row = self._one(trial, minutes)
            except (Failed, ForgeError) as error:
                message = " ".join(str(error).split())
                say(f"{trial.label}: failed: {message}")
                found += [self._head(trial, m, "failed", message) for m in self.budget.minutes if m >= minutes]
                break
            write_json(file, row)
            found.append(row)
        return found

    def _one(self, trial: Trial, minutes: float) -> Row:
        self._train(trial, minutes)
        folder = RunFolder(trial.config.run_dir or Path())
        for path in self.tests:
            self._evaluate(trial, path)
        times = folder.root / "inference.json"
        if not times.is_file():  # further training changes nothing about it
            command = [sys.executable, "-m", "forgefield.app.compare.timing", str(self._plan(trial)), str(times)]
            self._call(trial, [*command, *map(str, self.tests)], preload=True)
        return self._head(trial, minutes, "done", "") | results(folder) | {"inference": read_json(times)}

    def _head(self, trial: Trial, minutes: float, status: str, message: str) -> Row:
        return {
            "candidate": trial.name, "seed": trial.seed, "backend": trial.config.backend, "minutes": minutes,
            "minutes_of": self.budget.words, "status": status, "message": message,
        }  # fmt: skip

    def _train(self, trial: Trial, minutes: float) -> None:
        """Train to a limit, from where the run stands; not at all where its last update lasted beyond the limit.

        Raises:
            Failed: it did not come to its end, or has been trained for a longer limit.
        """
        folder = RunFolder(trial.config.run_dir or Path())
        used = time_used(folder, self.budget)
        if used > 1.01 * minutes and self._asked(trial) > minutes:
            what = f"the run has already trained for {used:.3g} {self.budget.words}"
            raise Failed(f"{what}; results at {minutes:g} need a new --out")
        if used >= minutes and _finished(folder):
            return
        plan = save_plan(trial.config, self._plan(trial))
        write_json(self._limit(trial), {"minutes": minutes})
        left = max(minutes - used, _LEAST)
        limit = f"train.{self.budget.key}={left!r}"
        self._call(trial, [sys.executable, "-m", "forgefield", "run", str(plan), "--continue", "--set", limit])

    def _asked(self, trial: Trial) -> float:
        """Return the limit that a run was last trained for, though nothing came of it; infinity if it is not known."""
        file = self._limit(trial)
        return float(read_json(file)["minutes"]) if file.is_file() else math.inf

    def _evaluate(self, trial: Trial, path: Path) -> None:
        root = trial.config.run_dir or Path()
        name = set_name([path])
        data = resolved(trial.config)["data"]
        without = (
            "train",
            "val",
            "test",
            "indices",
            "indices_path",
            "val_fraction",
            "split",
            "split_seed",
            "test_indices",
        )
        kept = {key: value for key, value in data.items() if key not in (*without, "sampling", "draws_per_epoch")}
        config = config_of({
            "task": "evaluate", "name": trial.name, "model_in": str(root / "checkpoints" / "best"),
            "device": trial.config.device, "kernels": trial.config.kernels,
            "data": {**kept, "lmdb": [str(path)]},
            "output": {"dir": str(root / "evaluation" / name)},
        })  # fmt: skip
        plan = save_plan(config, self.out / "plans" / f"{trial.label}-{name}.yaml")
        self._call(trial, [sys.executable, "-m", "forgefield", "run", str(plan)])

    def _call(self, trial: Trial, command: list[str], *, preload: bool = False) -> None:
        """Run a process to its end, its output appended to the log; a signal to us is handed on to it.

        Raises:
            Failed: it ended with an error.
            Stopped: it was told to stop.
        """
        log = self.log(trial)
        log.parent.mkdir(parents=True, exist_ok=True)
        begin = log.stat().st_size if log.is_file() else 0
        with log.open("ab") as output:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                env=self._environment(preload), start_new_session=True,
            )  # fmt: skip
            self._pid(trial).write_text(str(process.pid), encoding="utf-8")
            try:
                code = _wait(process)
            finally:
                self._pid(trial).unlink(missing_ok=True)
        if code == SAVED:
            raise Stopped("a signal", saved=True)
        if code:
            text = log.read_bytes()[begin:].decode("utf-8", "replace")
            raise Failed(_last_words(text) or f"ended with code {code}; see {log}")

    def _environment(self, preload: bool) -> dict[str, str]:
        found = dict(os.environ)
        if self.threads is not None:
            found |= dict.fromkeys(_THREADS, str(self.threads))
        if preload and (library := library_to_preload()) is not None:
            found["LD_PRELOAD"] = str(library)
        return found

    def _plan(self, trial: Trial) -> Path:
        return self.out / "plans" / f"{trial.label}.yaml"

    def _limit(self, trial: Trial) -> Path:
        return self.out / "plans" / f"{trial.label}-limit.json"

    def _pid(self, trial: Trial) -> Path:
        return self.out / "logs" / f"{trial.label}.pid"


def save_plan(config: RunConfig, path: Path) -> Path:
    """Write a run as a file that `forgefield run` reads."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return save_resolved(config, path.parent / f".{path.stem}").replace(path)


def time_used(folder: RunFolder, budget: Budget) -> float:
    """Return the minutes that a run has trained up to its last checkpoint; 0 if it has none."""
    if not has_checkpoint(folder.checkpoints) or not (folder.last / STATE).is_file():
        return 0.0
    progress = read_json(folder.last / STATE)["progress"]
    return float(progress["seconds" if budget.wall else "cpu_seconds"]) / 60


def _finished(folder: RunFolder) -> bool:
    """Say whether a run came to its end, with its evaluation."""
    return folder.record.is_file() and read_json(folder.record).get("status") == "finished"


def results(folder: RunFolder) -> Row:
    """Return what a finished run comes to, from the plain files of its folder."""
    record = read_json(folder.record)
    progress = read_json(folder.last / STATE)["progress"]
    machine, fit = record["environment"], record.get("fit", {})
    return {
        "parameters": record["model"]["parameters"],
        "epochs": progress["epoch"], "updates": progress["update"], "best_epoch": fit.get("best_epoch"),
        "ended": fit.get("reason"),
        "cpu_minutes": progress["cpu_seconds"] / 60, "wall_minutes": progress["seconds"] / 60,
        "training_memory_mib": record.get("peak_memory"),
        "threads": machine["threads"], "device": machine["device"], "dtype": machine["dtype"],
        "kernels": machine["kernels"], "allocator": machine["allocator"], "forgefield": machine["forgefield"],
        "errors": {path.name: _errors(read_json(path / METRICS)["all"]) for path in folder.evaluations()},
        "units": _units(folder),
        "fingerprints": {
            path.name: read_json(path / METRICS)["about"].get("fingerprint") for path in folder.evaluations()
        },
    }  # fmt: skip


def _errors(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {key: float(value) for key, value in metrics.items() if isinstance(value, int | float)}


def _units(folder: RunFolder) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in folder.evaluations():
        found |= read_json(path / METRICS)["about"].get("units", {})
    return found


def _wait(process: subprocess.Popen[bytes]) -> int:
    """Wait for a process; when we are told to stop it is told so too, and at a second time ended."""
    try:
        return process.wait()
    except KeyboardInterrupt as error:
        process.terminate()
        try:
            process.wait()
        except KeyboardInterrupt:
            process.kill()
            process.wait()
        raise Stopped(getattr(error, "name", "SIGINT"), saved=True) from None


def _running(file: Path, plan: Path) -> int | None:
    """Return the number of the process that a file names, if it is alive and at work on the plan."""
    try:
        number = int(file.read_text(encoding="utf-8"))
        os.kill(number, 0)
    except (OSError, ValueError):
        return None
    try:
        words = Path(f"/proc/{number}/cmdline").read_bytes()
    except OSError:
        return number
    return number if str(plan).encode() in words else None


def _last_words(text: str) -> str:
    """Return the message of an error from the output of a process: from its last `error:` line on."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    starts = [k for k, line in enumerate(lines) if line.startswith(("error:", "internal error:"))]
    if starts:
        first = starts[-1]
        while first - 1 in starts:  # several mistakes are several errors
            first -= 1
        return " ".join(line.removeprefix("error: ") for line in lines[first:])[:2000]
    return lines[-1][:500] if lines else ""
