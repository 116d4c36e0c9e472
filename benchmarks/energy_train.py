"""Time the traced gradient of networks that write the energy only, beside the double backward, in turns.

    python benchmarks/energy_train.py
    python benchmarks/energy_train.py --compiled      # the trace by torch.compile too

benchmarks/README.md says what is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from mace_train import Side, describe_machine, measure, worker_environment

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "workers"))

from geometry import CASES, write_case  # noqa: E402
from protocol import MODEL  # noqa: E402

NETWORKS = ("scatter", "table")
KINDS = ("train", "infer")
TOLERANCE = {"float32": 2e-3, "float64": 1e-9}  # of the largest force


def run_case(name: str, network: str, options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Measure one network on one case and print its lines."""
    path = scratch / f"{name}.npz"
    if not path.exists():
        np.savez(path, **write_case(name, MODEL["r_max"], MODEL["energy_per_atom"]))
    environment = worker_environment(options.allocator, options.threads, ours=True)
    environment["PYTHONPATH"] = os.environ.get("PYTHONPATH", "")
    worker = [sys.executable, str(HERE / "workers" / "energy_networks.py"), str(path), options.dtype, network]
    routes = ["traced", "double_backward"] + ["compiled"] * options.compile
    sides = {route: Side([*worker, route, str(options.threads)], environment) for route in routes}
    forces = {route: np.array(side.do("predict")["forces"]) for route, side in sides.items()}
    largest = np.abs(forces["double_backward"]).max()
    errors = {r: float(np.abs(f - forces["double_backward"]).max() / largest) for r, f in forces.items()}
    if not max(errors.values()) < TOLERANCE[options.dtype]:
        raise SystemExit(f"the routes predict different forces: {errors}")
    steps = {"train": 1, "infer": 1} if options.quick else {"train": 5, "infer": 5}
    result = measure(sides, 2 if options.quick else options.rounds, steps)
    about = sides["traced"].about
    for side in sides.values():
        side.close()
    print_lines(f"{name} {network} {options.dtype}", result, routes)
    head = {"case": name, "network": network, "dtype": options.dtype, "force_difference": errors}
    return head | {key: about[key] for key in ("n_parameters", "n_pairs", "versions")} | {"results": result}


def print_lines(name: str, result: dict[str, Any], routes: list[str]) -> None:
    """Time and memory of one case; ratio: double backward's over the route's."""
    for kind in KINDS:
        other = result[kind]["double_backward"]
        for route in routes:
            if route == "double_backward":
                continue
            own = result[kind][route]
            times = f"{route} {1e3 * own['seconds']:.1f} ms, double backward {1e3 * other['seconds']:.1f} ms"
            print(f"{name} {kind}: {times}, ratio: {other['seconds'] / own['seconds']:.2f}", flush=True)
            peaks = [max(side["peak_mib"], 0.1) for side in (own, other)]
            text = f"{name} {kind} memory: {route} {peaks[0]:.0f} MiB, double backward {peaks[1]:.0f} MiB"
            print(f"{text}, ratio: {peaks[1] / peaks[0]:.2f}", flush=True)


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--dtype", choices=list(TOLERANCE), default="float32")
    parser.add_argument("--compile", action="store_true", help="measure torch.compile too; compiling takes minutes")
    parser.add_argument("--allocator", choices=("default", "tcmalloc"), default="default")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=7, help="turns of each side")
    parser.add_argument("--quick", action="store_true", help="a smoke test: two rounds of one step")
    parser.add_argument("--json", type=Path, default=HERE / "results" / "energy_train.json")
    return parser.parse_args()


def main() -> None:
    options = parse_options()
    machine = describe_machine(options)
    print(f"{machine['cpu']}, {options.threads} threads, allocator {machine['allocator']}", flush=True)
    if machine["load_before"] > 0.5:
        print(f"warning: the machine is busy (load {machine['load_before']:.1f}): no fair figures", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        results = [run_case(c, n, options, Path(folder)) for c in options.cases for n in options.networks]
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps({"machine": machine, "cases": results}, indent=1) + "\n")
    print(f"written: {options.json}")


if __name__ == "__main__":
    main()
