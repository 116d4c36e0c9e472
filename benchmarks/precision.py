"""What the precision of matrix products does to the forces of a trained model.

    python benchmarks/precision.py                       # trains the demo's model first, some minutes
    python benchmarks/precision.py --model runs/demo     # a model that is there

benchmarks/README.md says what is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from forgefield import load, run
from forgefield.app.run import load_run
from forgefield.core.structure import Structure
from forgefield.data.dataset import open_dataset
from forgefield.graph.build import build_graph
from forgefield.models.potential import Potential
from forgefield.models.precision import matmul_precision, missing

HERE = Path(__file__).resolve().parent
DEMO = HERE.parent / "examples" / "demo.yaml"
TEST = HERE.parent / "examples" / "3bpa" / "test_300K.xyz"
LOST_BITS = {"tf32": 13, "bf16": 16}  # of the 23 of float32's fraction
PRODUCTS = {  # operation -> which of its arguments are factors
    torch.ops.aten.mm.default: (0, 1),
    torch.ops.aten.bmm.default: (0, 1),
    torch.ops.aten.addmm.default: (1, 2),
    torch.ops.aten.baddbmm.default: (1, 2),
    torch.ops.aten.mv.default: (0, 1),
    torch.ops.aten.dot.default: (0, 1),
}


def rounded(values: Tensor, bits: int) -> Tensor:
    """Round float32 numbers to the nearest with `bits` fewer bits in the fraction, ties to even."""
    if values.dtype != torch.float32:
        return values
    whole = values.contiguous().view(torch.int32)
    up = (1 << (bits - 1)) - 1 + ((whole >> bits) & 1)
    return (((whole + up) >> bits) << bits).view(torch.float32)


class RoundedProducts(TorchDispatchMode):
    """Rounds both factors of every matrix product before it is computed: TF32 or bfloat16 without such hardware."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits, self.count = bits, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # noqa: ANN001, ANN204
        if func in PRODUCTS:
            self.count += 1
            places = PRODUCTS[func]
            args = [rounded(a, self.bits) if k in places else a for k, a in enumerate(args)]
        return func(*args, **(kwargs or {}))


@contextmanager
def emulated(name: str) -> Iterator[None]:
    """Round the factors of matrix products as `name` does; stops if there were none to round."""
    with RoundedProducts(LOST_BITS[name]) as mode:
        yield
    if not mode.count:
        raise SystemExit("no matrix product went through torch: nothing was emulated")


def predict(potential: Potential, structures: list[Structure], context: Callable[[], Any]) -> dict[str, np.ndarray]:
    """Energies and forces of all structures, in batches of 20, in the model's precision."""
    energies, forces = [], []
    device = next(potential.parameters()).device
    for k in range(0, len(structures), 20):
        part = structures[k : k + 20]
        graph = build_graph(part, potential.needs, heads=potential.heads, dtype=potential.dtype, device=device)
        with torch.no_grad(), context():
            out = potential(graph)
        energies.append(out.energy.double().cpu().numpy() / [len(s) for s in part])
        forces.append(out.forces.double().cpu().numpy())
    return {"energy": np.concatenate(energies), "forces": np.concatenate(forces)}


def compare(potential: Potential, structures: list[Structure], device: torch.device) -> dict[str, dict[str, float]]:
    """Differences from float64 and errors against the labels, for each precision; a line each."""
    exact = predict(potential.to(torch.float64), structures, lambda: matmul_precision("float32", device))
    single = potential.to(torch.float32)
    ways: dict[str, Callable[[], Any]] = {"float32": lambda: matmul_precision("float32", device)}
    for name in LOST_BITS:
        if missing(name, device) is None:
            ways[name] = lambda name=name: matmul_precision(name, device)
        else:
            ways[f"{name} (emulated)"] = lambda name=name: emulated(name)
    found = {"float64": exact} | {way: predict(single, structures, context) for way, context in ways.items()}
    labels = np.concatenate([s.labels["forces"] for s in structures])
    rms = lambda x: 1000 * float(np.sqrt(np.mean(np.square(x))))  # noqa: E731
    table = {}
    for way, got in found.items():
        off = got["forces"] - exact["forces"]
        table[way] = {
            "forces_rmse_from_float64": rms(off),
            "forces_max_from_float64": 1000 * float(np.abs(off).max()),
            "energy_rmse_per_atom_from_float64": rms(got["energy"] - exact["energy"]),
            "forces_rmse": rms(got["forces"] - labels),
        }
        row = table[way]
        forces = f"{row['forces_rmse_from_float64']:.2e} meV/Å (largest {row['forces_max_from_float64']:.2e})"
        energies = f"{row['energy_rmse_per_atom_from_float64']:.2e} meV/atom"
        print(
            f"{way}: differs from float64 by {forces}, {energies}; error of the forces {row['forces_rmse']:.2f} meV/Å"
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, help="run folder or artifacts; by default the demo's model is trained")
    parser.add_argument("--data", type=Path, default=TEST, help="labelled structures")
    parser.add_argument("--json", type=Path, default=HERE / "results" / "precision.json")
    options = parser.parse_args()
    structures = [s for s in open_dataset(options.data) if "forces" in s.labels]
    with tempfile.TemporaryDirectory() as folder:
        if options.model is None:
            options.model = Path(folder) / "demo"
            run(load_run(DEMO, overrides=[f"run_dir={options.model}"])[0])
        potential = load(options.model)
    device = next(potential.parameters()).device
    table = compare(potential, structures, device)
    about = {
        "unit": "meV",
        "n_structures": len(structures),
        "n_atoms": sum(len(s) for s in structures),
        "parameters": sum(p.numel() for p in potential.parameters()),
        "device": str(device),
        "torch": torch.__version__,
        "cores": os.cpu_count(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps({"about": about, "results": table}, indent=1) + "\n")
    print(f"written: {options.json}")


if __name__ == "__main__":
    main()
