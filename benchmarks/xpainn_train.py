"""Time XPaiNN beside our MACE at equal channels, in turns, and beside what the arithmetic alone would take.

    python benchmarks/xpainn_train.py --allocator tcmalloc
    python benchmarks/xpainn_train.py --quick

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

from forgefield.models.architectures.xpainn.settings import XpainnSettings  # noqa: E402

KINDS, CUTOFF, CHANNELS = ("train", "infer"), 5.0, 64
MACE = {"r_max": CUTOFF, "max_ell": 3, "correlation": 3, "radial_mlp": [64, 64, 64]}
SIZES = {"l1": "64x0e + 64x1o", "l2": "64x0e + 64x1o + 64x2e"}
PASSES = {"train": 6, "infer": 2}  # products: forward, its adjoint, and the backward of both by inputs and weights
SUMS = {"train": 8, "infer": 3}  # the same of sums over neighbours, with those by harmonics


def operations(settings: XpainnSettings, n_atoms: int, n_pairs: int, kind: str) -> dict[str, float]:
    """Floating-point operations of a step: matrix products, and sums over neighbours."""
    d, irreps = settings.node_dim, settings.irreps
    count, size, products, sums = irreps.count, sum(irreps.sizes), 0.0, 0.0
    for k in range(settings.action_blocks):
        weights = d + count * (1 if k == 0 else 2)
        products += n_pairs * settings.num_basis * weights + n_atoms * d * (d + weights)
        products += n_atoms * sum(2 * (2 * l + 1) * c * c for l, c in irreps.parts)
        products += n_atoms * (d * (d + count) + d * (2 * d + count) + d * count)
        sums += 2 * n_pairs * (d + size * (1 if k == 0 else 2))
    return {"products": 2 * products * PASSES[kind], "sums": 3 * sums * SUMS[kind]}


def floor(settings: XpainnSettings, about: dict[str, Any], kind: str, options: argparse.Namespace) -> float:
    """Seconds that the arithmetic would take at the rates of the machine."""
    found = operations(settings, about["n_atoms"], about["n_pairs"], kind)
    rates = {"products": options.gflops, "sums": options.gflops / 4}
    return sum(found[key] / (1e9 * rates[key] * options.threads) for key in found)


def run_case(name: str, dtype: str, options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Measure one case and print its lines."""
    path = scratch / f"{name}.npz"
    if not path.exists():
        np.savez(path, **write_case(name, CUTOFF, -5.0))
    environment = worker_environment(options.allocator, options.threads, ours=True)
    environment["PYTHONPATH"] = os.environ.get("PYTHONPATH", "")
    worker = [sys.executable, str(HERE / "workers" / "architectures.py"), str(path), dtype]
    shapes = {size: {"node_dim": CHANNELS, "node_irreps": text, "cutoff": CUTOFF} for size, text in SIZES.items()}
    models = {f"mace {size}": ("mace", {**MACE, "hidden_irreps": SIZES[size]}) for size in options.sizes}
    models |= {f"xpainn {size}": ("xpainn", shapes[size]) for size in options.sizes}
    sides = {
        who: Side([*worker, backend, json.dumps(settings), str(options.threads)], environment)
        for who, (backend, settings) in models.items()
    }
    steps = {"train": 1, "infer": 1} if options.quick else {"train": 5, "infer": 5}
    result = measure(sides, 2 if options.quick else options.rounds, steps)
    about = {who: side.about for who, side in sides.items()}
    for side in sides.values():
        side.close()
    floors = {}
    for kind in KINDS:
        for size in options.sizes:
            mace = result[kind][f"mace {size}"]["seconds"]
            who, settings = f"xpainn {size}", XpainnSettings.model_validate(shapes[size])
            own, least = result[kind][who]["seconds"], floor(settings, about[who], kind, options)
            floors[f"{kind} {size}"] = least
            per_atom = [1e6 * t / about[who]["n_atoms"] for t in (own, mace)]
            beside = f"mace {size} {1e3 * mace:.1f} ms ({per_atom[1]:.0f})"
            times = f"{1e3 * own:.1f} ms ({per_atom[0]:.0f} µs an atom), {beside}"
            gap = f"floor {1e3 * least:.1f} ms, {own / least:.1f} times that"
            print(f"{name} {dtype} {kind} {who}: {times}, {gap}, ratio: {mace / own:.2f}", flush=True)
    return {"case": name, "dtype": dtype, "about": about, "floors": floors, "results": result}


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--dtypes", nargs="+", choices=("float32", "float64"), default=["float32"])
    parser.add_argument("--allocator", choices=("default", "tcmalloc"), default="default")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument(
        "--gflops", type=float, default=100.0, help="rate of matrix products of one core, for the floor"
    )
    parser.add_argument("--rounds", type=int, default=7, help="turns of each side")
    parser.add_argument("--quick", action="store_true", help="a smoke test: two rounds of one step")
    parser.add_argument("--json", type=Path, default=HERE / "results" / "xpainn_train.json")
    options = parser.parse_args()
    options.compile = False
    return options


def main() -> None:
    """Measure and write the figures."""
    options = parse_options()
    machine = describe_machine(options)
    print(f"{machine['cpu']}, {options.threads} threads, allocator {machine['allocator']}", flush=True)
    if machine["load_before"] > 0.5:
        print(f"warning: the machine is busy (load {machine['load_before']:.1f}): no fair figures", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        results = [run_case(c, d, options, Path(folder)) for c in options.cases for d in options.dtypes]
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps({"machine": machine, "cases": results}, indent=1) + "\n")
    print(f"written: {options.json}")


if __name__ == "__main__":
    main()
