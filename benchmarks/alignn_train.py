"""Time ForgeField's ALIGNN beside the alignn package: the same weights, molecules and labels, in turns.

    python benchmarks/alignn_train.py --backend-python .oracle/alignn/bin/python --allocator tcmalloc
    python benchmarks/alignn_train.py --quick

Both compute the published sums (compat: alignn). benchmarks/README.md says what is measured.
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

from aimnet_train import compare  # noqa: E402
from geometry import CASES, write_case  # noqa: E402
from mace_train import KINDS, TOLERANCE, Side, describe_machine, measure, worker_environment  # noqa: E402

NAME, CUTOFF, THREE_BODY = "molecules", 5.0, 3.5


def run_case(dtype: str, options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Measure one dtype and print its lines."""
    case, weights = scratch / "case.npz", scratch / "weights.npz"
    environment = worker_environment(options.allocator, options.threads, ours=False)
    theirs = [str(options.backend_python), str(HERE / "workers" / "alignn_side.py")]
    if not case.exists():
        np.savez(case, **write_case(NAME, CUTOFF, 0.0), cutoffs=np.array([CUTOFF, THREE_BODY]))
        subprocess.run([*theirs, "make", str(case), str(weights)], env=environment, check=True, capture_output=True)
    ours_environment = worker_environment(options.allocator, options.threads, ours=True)
    ours_environment |= {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    ours = [sys.executable, str(HERE / "workers" / "alignn_ours.py"), str(case), dtype, str(weights)]
    compiled = ["compile"] if options.compile else []
    sides = {
        "ours": Side([*ours, str(options.threads), *compiled], ours_environment),
        "alignn": Side([*theirs, "run", str(case), dtype, str(weights), str(options.threads)], environment),
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
    ours, theirs = result["ours"], result["alignn"]
    times = [1e3 * side["seconds"] for side in (ours, theirs)]
    print(f"{what}: ours {times[0]:.1f} ms, alignn {times[1]:.1f} ms, ratio: {times[1] / times[0]:.2f}", flush=True)
    peaks = [max(side["peak_mib"], 0.1) for side in (ours, theirs)]
    words = f"ours {peaks[0]:.0f} MiB, alignn {peaks[1]:.0f} MiB, ratio: {peaks[1] / peaks[0]:.2f}"
    print(f"{what} memory: {words}", flush=True)


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    default = os.environ.get("FORGEFIELD_ALIGNN_PYTHON") or HERE.parent / ".oracle" / "alignn" / "bin" / "python"
    parser.add_argument("--backend-python", type=Path, default=Path(default), help="interpreter with alignn")
    parser.add_argument("--dtypes", nargs="+", choices=list(TOLERANCE), default=["float32"])
    parser.add_argument("--allocator", choices=("default", "tcmalloc"), default="default", help="see README")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=7, help="turns of each side")
    parser.add_argument("--compile", action="store_true", help="train ours through torch.compile")
    parser.add_argument("--quick", action="store_true", help="a smoke test: two rounds of one step")
    parser.add_argument("--json", type=Path, default=HERE / "results" / "alignn_train.json")
    options = parser.parse_args()
    if not options.backend_python.exists():
        parser.error(f"no interpreter at {options.backend_python}; make one with 'python scripts/oracle alignn'")
    return options


def main() -> None:
    """Measure and write the figures."""
    options = parse_options()
    machine = describe_machine(options)
    print(f"{machine['cpu']}, {options.threads} threads, allocator {machine['allocator']}", flush=True)
    if machine["load_before"] > 0.5:
        print(f"warning: the machine is busy (load {machine['load_before']:.1f}): no fair figures", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        results = [run_case(dtype, options, Path(folder)) for dtype in options.dtypes]
    options.json.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"machine": machine, "n_structures": len(CASES[NAME]), "cases": results}, indent=1)
    options.json.write_text(text + "\n")
    print(f"written: {options.json}")


if __name__ == "__main__":
    main()
