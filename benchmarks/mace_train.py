"""Time ForgeField's MACE beside mace-torch: the same weights, structures and steps, in turns.

    python benchmarks/mace_train.py --backend-python .oracle/mace/bin/python
    python benchmarks/mace_train.py --quick

benchmarks/README.md says what is measured.
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

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "workers"))

from geometry import CASES, write_case  # noqa: E402
from protocol import MODEL  # noqa: E402

from forgefield.app.launch import library_to_preload  # noqa: E402
from forgefield.core import allocator  # noqa: E402
from forgefield.core.errors import ForgeError  # noqa: E402
from forgefield.engines.backends.mace_torch import import_model  # noqa: E402

KINDS = ("train", "infer")
TOLERANCE = {"float32": 2e-3, "float64": 1e-9}  # of the largest force: beyond, the two are not the same model


class Side:
    """One worker process.

    Args:
        command: what to run.
        environment: its variables.
    """

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self.about = self._receive()

    def _receive(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            assert self.process.stderr is not None
            raise SystemExit("a worker ended early:\n" + self.process.stderr.read()[-2000:])
        return json.loads(line)

    def do(self, kind: str, steps: int = 1) -> dict[str, Any]:
        """Give one order and wait for the answer."""
        assert self.process.stdin is not None
        print(json.dumps({"do": kind, "steps": steps}), file=self.process.stdin, flush=True)
        return self._receive()

    def close(self) -> None:
        """End the worker."""
        self.process.communicate()


def worker_environment(choice: str, threads: int, *, ours: bool) -> dict[str, str]:
    """Variables of a worker.

    Args:
        choice: `default` and `tcmalloc` are the same for both sides; with `users` ours starts as the command line
            starts, and mace-torch's as it comes: with glibc's allocator.
        threads: OpenMP threads.
        ours: which side it is.
    """
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "LD_PRELOAD")}
    environment |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    if choice == "default":
        return environment | {allocator.VARIABLE: allocator.SYSTEM}
    if choice == "users" and not ours:
        return environment
    library = library_to_preload()
    if choice == "tcmalloc" and (library is None or "tcmalloc" not in library.name):
        raise SystemExit("no tcmalloc library found; install it (Debian: libtcmalloc-minimal4) or drop --allocator")
    return environment | ({"LD_PRELOAD": str(library)} if library else {})


def compare_predictions(sides: dict[str, Side], dtype: str) -> float:
    """Largest difference of the forces over the largest force; stops if the two are different models."""
    ours, theirs = sides["ours"], sides["mace-torch"]
    pairs = [side.about["n_pairs"] for side in (ours, theirs)]
    if pairs[0] != pairs[1]:
        raise SystemExit(f"ours has {pairs[0]} pairs, mace-torch {pairs[1]}: not the same graph")
    a, b = (np.array(side.do("predict")["forces"]) for side in (ours, theirs))
    error = float(np.abs(a - b).max() / np.abs(b).max())
    if not error < TOLERANCE[dtype]:
        raise SystemExit(f"the two sides predict different forces ({error:.1e}): nothing to compare")
    return error


def measure(sides: dict[str, Side], rounds: int, steps: dict[str, int]) -> dict[str, Any]:
    """Medians over all rounds; in each round the two sides take turns."""
    seconds: dict[tuple[str, str], list[float]] = {}
    peaks: dict[tuple[str, str], float] = {}
    for kind in reversed(KINDS):  # inference first: its peak would drown in that of training
        for who, side in sides.items():
            side.do(kind, 2)  # warm-up, among it the compilation of TorchScript
            seconds[who, kind] = []
        for turn in range(rounds):
            order = list(sides) if turn % 2 == 0 else list(sides)[::-1]
            for who in order:
                answer = sides[who].do(kind, steps[kind])
                seconds[who, kind] += answer["seconds"]
                peaks[who, kind] = max(peaks.get((who, kind), 0.0), answer["peak_mib"])
    return {
        kind: {who: {"seconds": float(np.median(seconds[who, kind])), "peak_mib": peaks[who, kind]} for who in sides}
        | {"spread": {who: [min(seconds[who, kind]), max(seconds[who, kind])] for who in sides}}
        for kind in KINDS
    }


def run_case(name: str, dtype: str, options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Measure one case and print its lines."""
    case, model, bundle = scratch / f"{name}.npz", scratch / f"{name}.model", scratch / name
    environment = worker_environment(options.allocator, options.threads, ours=False)
    theirs = [str(options.backend_python), str(HERE / "workers" / "mace_torch_side.py")]
    if not case.exists():
        np.savez(case, **write_case(name, MODEL["r_max"], MODEL["energy_per_atom"]))
        subprocess.run([*theirs, "make", str(case), str(model)], env=environment, check=True, capture_output=True)
        import_model(model, options.backend_python, bundle)
    ours = [sys.executable, str(HERE / "workers" / "ours.py")]
    ours_environment = worker_environment(options.allocator, options.threads, ours=True)
    ours_environment |= {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    compiling = "compile" if options.compile else "eager"
    sides = {
        "ours": Side([*ours, str(case), dtype, str(bundle), str(options.threads), compiling], ours_environment),
        "mace-torch": Side([*theirs, "run", str(case), dtype, str(model), str(options.threads)], environment),
    }
    error = compare_predictions(sides, dtype)
    steps = {"train": 1, "infer": 1} if options.quick else {"train": 3, "infer": 5}
    result = measure(sides, 2 if options.quick else options.rounds, steps)
    for side in sides.values():
        side.close()
    n_structures = len(CASES[name])
    print_lines(name, dtype, result, n_structures)
    of_sides = {
        key: {who: side.about[key] for who, side in sides.items()}
        for key in ("n_parameters", "n_pairs", "versions", "allocator")
    }
    head = {"case": name, "dtype": dtype, "n_structures": n_structures, "force_difference": error}
    if compiled := sides["ours"].about["compiled"]:
        text = f"compiled in {compiled['seconds']:.0f} s, within {compiled['largest_deviation']:.0e} of eager"
        print(f"{name} {dtype}: {text}", flush=True)
        head["compiled"] = compiled
    return head | of_sides | {"results": result}


def print_lines(name: str, dtype: str, result: dict[str, Any], n_structures: int) -> None:
    """Speed and memory of one case, a line each."""
    for kind in KINDS:
        ours, theirs = result[kind]["ours"], result[kind]["mace-torch"]
        rates = [n_structures / side["seconds"] for side in (ours, theirs)]
        text = f"{name} {dtype} {kind}: ours {rates[0]:.2f} structures/s, mace-torch {rates[1]:.2f} structures/s"
        print(f"{text}, ratio: {rates[0] / rates[1]:.2f}", flush=True)
        peaks = [max(side["peak_mib"], 0.1) for side in (ours, theirs)]
        text = f"{name} {dtype} {kind} memory: ours {peaks[0]:.0f} MiB, mace-torch {peaks[1]:.0f} MiB"
        print(f"{text}, ratio: {peaks[1] / peaks[0]:.2f}", flush=True)


def describe_machine(options: argparse.Namespace) -> dict[str, Any]:
    """Where, when and with what the numbers were taken."""
    cpu = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        cpu = names[0] if names else cpu
    git = ["git", "-C", str(HERE)]
    commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True).stdout.strip()
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "threads": options.threads,
        "load_before": os.getloadavg()[0],
        "system": platform.platform(),
        "python": platform.python_version(),
        "allocator": options.allocator,
        "commit": commit + (" with changes" if changed else ""),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "quick": options.quick,
        "compile": options.compile,
    }


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    default = os.environ.get("FORGEFIELD_MACE_PYTHON") or HERE.parent / ".oracle" / "mace" / "bin" / "python"
    parser.add_argument("--backend-python", type=Path, default=Path(default), help="interpreter with mace-torch")
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--dtypes", nargs="+", choices=list(TOLERANCE), default=list(TOLERANCE))
    parser.add_argument("--allocator", choices=("default", "tcmalloc", "users"), default="default", help="see README")
    parser.add_argument("--hidden", default=MODEL["hidden"], help="features of an atom")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=7, help="turns of each side")
    parser.add_argument("--compile", action="store_true", help="train ours through torch.compile")
    parser.add_argument("--quick", action="store_true", help="a smoke test: two rounds of one step")
    parser.add_argument("--json", type=Path, help="default: results/mace_train.json, with --compile ..._compiled.json")
    options = parser.parse_args()
    options.json = options.json or HERE / "results" / f"mace_train{'_compiled' if options.compile else ''}.json"
    if not options.backend_python.exists():
        parser.error(
            f"no interpreter at {options.backend_python}; make one with "
            "'python scripts/oracle mace --only environment' or give --backend-python"
        )
    return options


def main() -> None:
    options = parse_options()
    os.environ["BENCHMARK_HIDDEN"] = MODEL["hidden"] = options.hidden  # the workers read it too
    machine = describe_machine(options)
    print(f"{machine['cpu']}, {options.threads} threads, allocator {machine['allocator']}", flush=True)
    if machine["load_before"] > 0.5:
        print(f"warning: the machine is busy (load {machine['load_before']:.1f}): no fair figures", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        try:
            results = [
                run_case(name, dtype, options, Path(folder)) for name in options.cases for dtype in options.dtypes
            ]
        except ForgeError as error:
            raise SystemExit(str(error)) from error
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps({"machine": machine, "model": MODEL, "cases": results}, indent=1) + "\n")
    print(f"written: {options.json}")


if __name__ == "__main__":
    main()
