"""Time ForgeField's AIMNet2 beside the aimnet package's own trainer: the same weights, molecules and labels, in turns.

    python benchmarks/aimnet_train.py --backend-python .oracle/aimnet/bin/python --allocator tcmalloc
    python benchmarks/aimnet_train.py --quick

benchmarks/README.md says what is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "workers"))

from geometry import CASES, write_case  # noqa: E402
from mace_train import KINDS, TOLERANCE, Side, describe_machine, measure, worker_environment  # noqa: E402

from forgefield.core.errors import ForgeError  # noqa: E402
from forgefield.engines.backends.aimnet import import_model  # noqa: E402

NAME, CUTOFF = "molecules", 5.0


def compare(sides: dict[str, Side], dtype: str) -> float:
    """Largest difference of the forces over the largest force; stops if the two are different models."""
    a, b = (np.array(side.do("predict")["forces"]) for side in sides.values())
    error = float(np.abs(a - b).max() / np.abs(b).max())
    if not error < TOLERANCE[dtype]:
        raise SystemExit(f"the two sides predict different forces ({error:.1e}): nothing to compare")
    return error


def run_case(dtype: str, options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Measure one dtype and print its lines."""
    case, model, bundle = scratch / "case.npz", scratch / "weights.pt", scratch / "bundle"
    environment = worker_environment(options.allocator, options.threads, ours=False)
    theirs = [str(options.backend_python), str(HERE / "workers" / "aimnet_side.py")]
    if not case.exists():
        arrays = write_case(NAME, CUTOFF, 0.0)
        charges = 0.1 * np.random.default_rng(2).normal(size=len(arrays["numbers"]))
        np.savez(case, **arrays, charges=charges)
        subprocess.run([*theirs, "make", str(case), str(model)], env=environment, check=True, capture_output=True)
        import_model(model, options.backend_python, bundle)
    ours_environment = worker_environment(options.allocator, options.threads, ours=True)
    ours_environment |= {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    ours = [sys.executable, str(HERE / "workers" / "aimnet_ours.py"), str(case), dtype, str(bundle)]
    sides = {
        "ours": Side([*ours, str(options.threads)], ours_environment),
        "aimnet": Side([*theirs, "run", str(case), dtype, str(model), str(options.threads)], environment),
    }
    error = compare(sides, dtype)
    steps = {"train": 1, "infer": 1} if options.quick else {"train": 5, "infer": 5}
    result = measure(sides, 2 if options.quick else options.rounds, steps)
    about = {who: side.about for who, side in sides.items()}
    for side in sides.values():
        side.close()
    for kind in KINDS:
        print_lines(f"{NAME} {dtype} {kind}", result[kind])
    return {"dtype": dtype, "force_difference": error, "about": about, "results": result}


def print_lines(what: str, result: dict[str, Any]) -> None:
    """Speed and memory, a line each."""
    ours, theirs = result["ours"], result["aimnet"]
    times = [1e3 * side["seconds"] for side in (ours, theirs)]
    print(f"{what}: ours {times[0]:.1f} ms, aimnet {times[1]:.1f} ms, ratio: {times[1] / times[0]:.2f}", flush=True)
    peaks = [max(side["peak_mib"], 0.1) for side in (ours, theirs)]
    words = f"ours {peaks[0]:.0f} MiB, aimnet {peaks[1]:.0f} MiB, ratio: {peaks[1] / peaks[0]:.2f}"
    print(f"{what} memory: {words}", flush=True)


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    default = os.environ.get("FORGEFIELD_AIMNET_PYTHON") or HERE.parent / ".oracle" / "aimnet" / "bin" / "python"
    parser.add_argument("--backend-python", type=Path, default=Path(default), help="interpreter with aimnet")
    parser.add_argument("--dtypes", nargs="+", choices=list(TOLERANCE), default=list(TOLERANCE))
    parser.add_argument("--allocator", choices=("default", "tcmalloc"), default="default", help="see README")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=7, help="turns of each side")
    parser.add_argument("--quick", action="store_true", help="a smoke test: two rounds of one step")
    parser.add_argument("--json", type=Path, default=HERE / "results" / "aimnet_train.json")
    options = parser.parse_args()
    options.compile = False
    if not options.backend_python.exists():
        parser.error(f"no interpreter at {options.backend_python}; make one with 'python scripts/oracle aimnet'")
    return options


def main() -> None:
    """Measure and write the figures."""
    options = parse_options()
    machine = describe_machine(options)
    print(f"{machine['cpu']}, {options.threads} threads, allocator {machine['allocator']}", flush=True)
    if machine["load_before"] > 0.5:
        print(f"warning: the machine is busy (load {machine['load_before']:.1f}): no fair figures", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        try:
            results = [run_case(dtype, options, Path(folder)) for dtype in options.dtypes]
        except ForgeError as error:
            raise SystemExit(str(error)) from error
    options.json.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"machine": machine, "n_structures": len(CASES[NAME]), "cases": results}, indent=1)
    options.json.write_text(text + "\n")
    print(f"written: {options.json}")


if __name__ == "__main__":
    main()
