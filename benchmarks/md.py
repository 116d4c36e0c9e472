"""Time a step of molecular dynamics in ASE: ForgeField's calculator beside mace-torch's, the same weights, in turns.

    python benchmarks/md.py --allocator tcmalloc
    python benchmarks/md.py --quick

A step is neighbour list, model and integrator, as a user runs it; benchmarks/README.md says more.
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
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE / "workers"))

from geometry import CASES, write_case  # noqa: E402
from mace_train import TOLERANCE, Side, describe_machine, worker_environment  # noqa: E402
from protocol import MODEL  # noqa: E402

from forgefield.engines.backends.mace_torch import import_model  # noqa: E402


def start_sides(name: str, dtype: str, options: argparse.Namespace, scratch: Path) -> dict[str, Side]:
    """Make the model and start both workers on the first structure of a case."""
    case, model, bundle = scratch / f"{name}.npz", scratch / f"{name}.model", scratch / name
    theirs, ours = (worker_environment(options.allocator, options.threads, ours=own) for own in (False, True))
    if not case.exists():
        np.savez(case, **write_case(name, MODEL["r_max"], MODEL["energy_per_atom"]))
        make = [
            str(options.backend_python),
            str(HERE / "workers" / "mace_torch_side.py"),
            "make",
            str(case),
            str(model),
        ]
        subprocess.run(make, env=theirs, check=True, capture_output=True)
        import_model(model, options.backend_python, bundle)
    ours |= {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    last = [dtype, str(options.threads)]
    commands = {
        "ours": [sys.executable, str(HERE / "workers" / "md_ours.py"), str(case), last[0], str(bundle), last[1]],
        "mace-torch": [
            *(str(options.backend_python), str(HERE / "workers" / "md_mace_torch.py")),
            *(str(case), last[0], str(model), last[1]),
        ],
    }
    return {"ours": Side(commands["ours"], ours), "mace-torch": Side(commands["mace-torch"], theirs)}


def run_case(name: str, dtype: str, options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Measure one case and print its line."""
    sides = start_sides(name, dtype, options, scratch)
    a, b = (np.array(side.do("predict")["forces"]) for side in sides.values())
    error = float(np.abs(a - b).max() / np.abs(b).max())
    if not error < TOLERANCE[dtype]:
        raise SystemExit(f"the two sides predict different forces ({error:.1e}): nothing to compare")
    seconds: dict[str, list[float]] = {who: [] for who in sides}
    for side in sides.values():
        side.do("md", 3)  # warm-up
    for turn in range(2 if options.quick else options.rounds):
        for who in list(sides) if turn % 2 == 0 else list(sides)[::-1]:
            seconds[who] += sides[who].do("md", 1 if options.quick else 10)["seconds"]
    for side in sides.values():
        side.close()
    medians = {who: float(np.median(times)) for who, times in seconds.items()}
    ours, theirs = medians["ours"], medians["mace-torch"]
    text = f"{name} {dtype}: ours {1e3 * ours:.2f} ms a step, mace-torch {1e3 * theirs:.1f} ms a step"
    print(f"{text}, ratio: {theirs / ours:.2f}", flush=True)
    spread = {who: [min(times), max(times)] for who, times in seconds.items()}
    versions = {who: side.about["versions"] for who, side in sides.items()}
    return {
        **{"case": name, "n_atoms": len(CASES[name][0]), "dtype": dtype, "force_difference": error},
        **{"seconds": medians, "spread": spread, "versions": versions, "ratio": theirs / ours},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    default = os.environ.get("FORGEFIELD_MACE_PYTHON") or HERE.parent / ".oracle" / "mace" / "bin" / "python"
    parser.add_argument("--backend-python", type=Path, default=Path(default), help="interpreter with mace-torch")
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--dtypes", nargs="+", choices=list(TOLERANCE), default=list(TOLERANCE))
    parser.add_argument("--allocator", choices=("default", "tcmalloc", "users"), default="default", help="see README")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=7, help="turns of each side, ten steps each")
    parser.add_argument("--quick", action="store_true", help="a smoke test: two rounds of one step")
    parser.add_argument("--json", type=Path, default=HERE / "results" / "md.json")
    options = parser.parse_args()
    options.compile = False
    machine = describe_machine(options)
    print(f"{machine['cpu']}, {options.threads} threads, allocator {machine['allocator']}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        found = [run_case(name, dtype, options, Path(folder)) for name in options.cases for dtype in options.dtypes]
    options.json.write_text(json.dumps({"machine": machine, "model": MODEL, "cases": found}, indent=1) + "\n")
    print(f"written: {options.json}")


if __name__ == "__main__":
    main()
