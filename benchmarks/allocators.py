"""Time ForgeField's MACE with each memory allocator: the same steps, in turns.

    python benchmarks/allocators.py
    python benchmarks/allocators.py --cases demo --rounds 3

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

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "workers"))

from geometry import write_case  # noqa: E402
from mace_train import Side  # noqa: E402
from protocol import MODEL  # noqa: E402

from forgefield.app.launch import LIBRARIES, library_folders  # noqa: E402
from forgefield.core import allocator  # noqa: E402
from forgefield.models.bundle import save_bundle  # noqa: E402
from forgefield.models.potential import ARCHITECTURES, build_potential  # noqa: E402

LARGE = {"r_max": 5.0, "hidden_irreps": MODEL["hidden"], "max_ell": 3, "correlation": 3, "radial_mlp": (64, 64, 64)}
SMALL = {"r_max": 4.5, "hidden_irreps": "16x0e + 16x1o", "max_ell": 2, "correlation": 2, "radial_mlp": (32, 32)}
MODELS = {"demo": ("molecules", 5, SMALL), "silicon": ("silicon", 1, LARGE), "molecules": ("molecules", 10, LARGE)}
STEPS = {"demo": 10, "silicon": 3, "molecules": 3}
KEPT = "glibc.malloc.mmap_threshold=33554432:glibc.malloc.trim_threshold=2147483647"
GLIBC = {
    "plain": {allocator.VARIABLE: allocator.SYSTEM},
    "tuned": {allocator.VARIABLE: allocator.TUNED},
    "padded 64 MiB": {"GLIBC_TUNABLES": f"{KEPT}:glibc.malloc.top_pad=67108864"},
    "trim 256 MiB": {"GLIBC_TUNABLES": KEPT.replace("2147483647", "268435456")},
    "no mmap": {"GLIBC_TUNABLES": "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=2147483647"},
}


def variants() -> dict[str, dict[str, str]]:
    """Variables of every allocator that is here."""
    found = {name: next((f / name for f in library_folders() if (f / name).is_file()), None) for name in LIBRARIES}
    return GLIBC | {name: {"LD_PRELOAD": str(path)} for name, path in found.items() if path}


def write_inputs(name: str, scratch: Path) -> None:
    """Save the structures and a model with random weights."""
    source, n_structures, settings = MODELS[name]
    case = write_case(source, settings["r_max"], MODEL["energy_per_atom"])
    n = int(case["ptr"][n_structures])
    case |= {"ptr": case["ptr"][: n_structures + 1]} | {k: case[k][:n] for k in ("numbers", "positions", "forces")}
    case |= {key: case[key][:n_structures] for key in ("cell", "pbc", "energy")}
    np.savez(scratch / f"{name}.npz", **case)
    elements = sorted(set(case["numbers"].tolist()))
    potential = build_potential(
        "mace",
        ARCHITECTURES.entry("mace").settings(**settings),
        elements=elements,
        reference_energies={"default": dict.fromkeys(elements, MODEL["energy_per_atom"])},
        avg_num_neighbors=float(case["avg_num_neighbors"]),
    )
    save_bundle(potential, scratch / name, provenance={})


def run_case(name: str, options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Measure one case with all allocators in turns, and print its lines."""
    write_inputs(name, scratch)
    threads = str(options.threads)
    command = [sys.executable, str(HERE / "workers" / "ours.py"), str(scratch / f"{name}.npz"), "float32"]
    clean = {k: v for k, v in os.environ.items() if k not in ("LD_PRELOAD", "GLIBC_TUNABLES", allocator.VARIABLE)}
    clean |= {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    sides = {who: Side([*command, str(scratch / name), threads], clean | more) for who, more in variants().items()}
    result: dict[str, Any] = {who: {"allocator": side.about["allocator"]} for who, side in sides.items()}
    for kind in ("infer", "train"):
        seconds: dict[str, list[float]] = {who: [] for who in sides}
        faults: dict[str, list[float]] = {who: [] for who in sides}
        for side in sides.values():
            side.do(kind, 3)
        for turn in range(options.rounds):
            for who in list(sides) if turn % 2 == 0 else list(sides)[::-1]:
                answer = sides[who].do(kind, STEPS[name])
                seconds[who] += answer["seconds"]
                faults[who].append(answer["faults"])
                result[who][f"{kind}_peak_mib"] = max(result[who].get(f"{kind}_peak_mib", 0.0), answer["peak_mib"])
        for who in sides:
            found = result[who]
            found[kind], found[f"{kind}_faults"] = float(np.median(seconds[who])), float(np.median(faults[who]))
            gain = float(np.median(seconds["plain"])) / found[kind]
            memory = f"peak {found[f'{kind}_peak_mib']:.0f} MiB, {found[f'{kind}_faults']:.0f} pages a step"
            print(f"{name} {kind} {who}: {1000 * found[kind]:.1f} ms, {memory}, ratio: {gain:.2f}", flush=True)
    for side in sides.values():
        side.close()
    return {"case": name, "n_structures": MODELS[name][1], "results": result}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=7, help="turns of each allocator")
    parser.add_argument("--json", type=Path, default=HERE / "results" / "allocators.json")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"warning: the machine is busy (load {load:.1f}): no fair figures", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        cases = [run_case(name, options, Path(folder)) for name in options.cases]
    about = {"threads": options.threads, "rounds": options.rounds, "load_before": load, "cores": os.cpu_count()}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps({"machine": about, "cases": cases}, indent=1) + "\n")
    print(f"written: {options.json}")


if __name__ == "__main__":
    main()
