"""Hold `forgefield check --dry-run` against the run that follows: memory, time and disk.

    python benchmarks/forecast.py --data FOLDER

FOLDER holds mlearn_Si/train.xyz, mlearn_Si/test.xyz and bo2_oxides_multixc/PBE.xyz; 3BPA is in examples. The cases
are carried out one after the other, each as its own process: dry run, then run. benchmarks/README.md says more.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
UNDISTURBED = 0.9  # share of the cores that dry run and run must both have had, with one thread
TABLE = "{:<10} {:<24} {:>10} {:>10} {:>9}  {}"


def cases(data: Path) -> dict[str, tuple[Path, dict[str, object]]]:
    """The configuration of each case, and what is changed in it."""
    silicon, oxides = data / "mlearn_Si", data / "bo2_oxides_multixc" / "PBE.xyz"
    bulk = ROOT / "configs" / "mace_bulk_stress.yaml"
    small = {"model.hidden_irreps": "16x0e + 16x1o", "model.r_max": 5.0}
    return {
        "demo": (ROOT / "examples" / "demo.yaml", {"train.epochs": 6, "train.max_minutes": "null"}),
        "3bpa": (ROOT / "configs" / "mace_3bpa.yaml", {"train.epochs": 3, "train.max_minutes": "null"}),
        "silicon": (
            bulk,
            {"data.train": silicon / "train.xyz", "data.test": silicon / "test.xyz", "train.epochs": 4, **small},
        ),
        "oxides": (
            bulk,
            {"data.train": oxides, "train.epochs": 3, "train.batch_size": 8, **small},
        ),
    }


def forgefield(*words: object) -> tuple[str, float, float]:
    """Carry out a command; returns its output, and the seconds on the wall and of computing."""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    start = time.perf_counter()
    command = [sys.executable, "-m", "forgefield", *map(str, words)]
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as complaint:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=complaint)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0), complaint.seek(0)
        text = output.read().decode()
        if process.returncode:
            raise SystemExit(text + complaint.read().decode())
    return text, time.perf_counter() - start, used.ru_utime + used.ru_stime


def folder_size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def compare(config: Path, changes: dict[str, object], run_dir: Path) -> dict[str, Any]:
    """Dry run, then run; returns forecast and outcome of each figure."""
    settings = [f"--set={key}={value}" for key, value in {**changes, "run_dir": run_dir}.items()]
    text, dry_wall, _ = forgefield("check", config, "--dry-run", "--json", *settings)
    forecast = json.loads(text)["runs"][0]["forecast"]
    _, wall, cpu = forgefield("run", config, *settings)
    record = json.loads((run_dir / "run.json").read_text())
    history = [json.loads(line) for line in (run_dir / "history.jsonl").read_text().splitlines()]
    times, memory = forecast["times"], forecast["memory"]
    before = memory["before"] / 2**20
    peak, came = memory["peak"] / 2**20, record["peak_memory"]["process"]
    update = sum(row["seconds"] for row in history) / history[-1]["update"]
    share, came_share = times["cpu_share"], cpu / wall / record["environment"]["threads"]
    figures = {
        "peak memory, MiB": (peak, came),
        "above set-up, MiB": (peak - before, came - before),
        "update, ms": (1e3 * times["update"], 1e3 * update),
        "update x CPU share, ms": (1e3 * times["update"] * share, 1e3 * update * came_share),
        "run, s": (times["run"], record["seconds"]["total"]),
        "run x CPU share, s": (times["run"] * share, record["seconds"]["total"] * came_share),
        "disk, MiB": (forecast["disk"]["total"] / 2**20, folder_size(run_dir) / 2**20),
    }
    return {
        "figures": {k: {"forecast": a, "came": b, "error": a / b - 1} for k, (a, b) in figures.items()},
        "cpu_share": {"dry run": share, "run": came_share},
        "undisturbed": min(share, came_share) >= UNDISTURBED,
        "dry_run_seconds": dry_wall,
        "updates": history[-1]["update"],
        "batches": forecast["batches"],
        "parameters": forecast["parameters"],
        "steps": sum(step["batches"] for step in forecast["steps"]),
        "seconds_of_the_run": record["seconds"],
        "proposal": {k: forecast["proposal"][k] for k in ("batch_size", "atoms", "now", "why")},
        "environment": {k: record["environment"][k] for k in ("torch", "processor", "threads", "allocator", "dtype")},
    }


def show(name: str, figures: dict[str, dict[str, float]], allowed: dict[str, float]) -> None:
    for figure, values in figures.items():
        bound = next((b for key, b in allowed.items() if figure.startswith(key)), None)
        word = "" if bound is None else "within" if abs(values["error"]) <= bound else "OUTSIDE"
        word += "" if bound is None else f" {100 * bound:.0f} %"
        print(TABLE.format(name, figure, f"{values['forecast']:.1f}", f"{values['came']:.1f}",
                           f"{100 * values['error']:+.1f} %", word), flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with mlearn_Si and bo2_oxides_multixc")
    parser.add_argument("--only", nargs="*", default=None, help="cases to carry out")
    parser.add_argument("--tries", type=int, default=1, help="attempts at a case until nothing disturbs it")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "forecast.json")
    options = parser.parse_args()
    report: dict[str, Any] = json.loads(options.out.read_text()) if options.out.is_file() else {"cases": {}}
    report |= {"python": platform.python_version(), "undisturbed": UNDISTURBED}
    print(TABLE.format("case", "figure", "forecast", "came", "error", "wanted"))
    for name, (config, changes) in cases(options.data.resolve()).items():
        if options.only and name not in options.only:
            continue
        attempts = report["cases"][name] = []
        while len(attempts) < options.tries and not any(found["undisturbed"] for found in attempts):
            with tempfile.TemporaryDirectory() as folder:
                found = compare(config, changes, Path(folder) / "run")
            attempts.append(found)
            show(name, found["figures"], {"peak": 0.2, "update": 0.25, "run": 0.25})
            if not found["undisturbed"]:
                shares = ", ".join(f"{kind} {100 * share:.0f} %" for kind, share in found["cpu_share"].items())
                print(f"{name}: disturbed by other programs, share of the cores: {shares}", flush=True)
            options.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
