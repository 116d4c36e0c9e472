"""Write the golden forward cases. Runs in the interpreter that has mace-torch."""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from datetime import date
from pathlib import Path

import numpy as np
import torch
from cases import CASES, Case
from layout import check_layout
from models import build_model, randomise
from structures import ELEMENTS, pack
from worker import load_worker

worker = load_worker()


def write_case(name: str, case: Case, seed: int, target: Path) -> str:
    """One folder: exported model, structures, expected numbers and their origin."""
    model = build_model(case.choices, ELEMENTS)
    randomise(model, seed)
    folder = target / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    np.savez_compressed(folder / "structures.npz", **pack(case.structures, case.heads or [0] * len(case.structures)))
    with tempfile.TemporaryDirectory() as scratch:
        path = f"{scratch}/{name}.model"
        torch.save(model, path)
        for arguments in (
            ["export", path, str(folder)],
            ["evaluate", path, str(folder / "structures.npz"), str(folder / "expected.npz")],
        ):
            if worker.main(arguments):
                raise SystemExit(f"{name}: {arguments[0]} refused")
    check_layout(model, folder)
    origin = {
        "purpose": case.purpose,
        "command": "python scripts/oracle mace --only forward",
        "date": date.today().isoformat(),
        "seed": seed,
        "versions": worker.versions(),
        "slope": directional_error(model, folder),
    }
    (folder / "meta.json").write_text(json.dumps(origin, indent=1) + "\n")
    size = sum(file.stat().st_size for file in folder.iterdir())
    return f"{name:18s} {size / 1e3:7.1f} kB   forces against finite differences {origin['slope']:.1e}"


def directional_error(model: torch.nn.Module, folder: Path) -> float:
    """How far the forces along one random direction are from central differences of upstream's energy.

    Relative to the root of the summed squares of the terms, which do not cancel.
    """
    heads = list(model.heads)
    structures = worker.read_structures(str(folder / "structures.npz"), heads, None)
    with np.load(folder / "expected.npz") as file:
        forces = file["forces"]
    direction = np.random.default_rng(0).normal(size=forces.shape)
    step, totals = 1e-4, []
    for factor in (2.0, 1.0, -1.0, -2.0):
        start, moved = 0, []
        for entry in structures:
            stop = start + len(entry["numbers"])
            shift = factor * step * direction[start:stop]
            moved.append(entry | {"positions": entry["positions"] + shift})
            start = stop
        batch = worker.make_batch(moved, model, heads)
        totals.append(float(model(batch.to_dict(), compute_force=False)["energy"].sum()))
    slope = (8.0 * (totals[1] - totals[2]) - (totals[0] - totals[3])) / (12.0 * step)
    terms = -forces * direction
    return abs(slope - float(terms.sum())) / float(np.sqrt((terms**2).sum()))


def main() -> None:
    """Write all cases, or those that the command line names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("target", type=Path)
    parser.add_argument("--case", action="append")
    options = parser.parse_args()
    for seed, (name, case) in enumerate(CASES.items()):
        if options.case is None or name in options.case:
            print(write_case(name, case, seed, options.target), flush=True)


if __name__ == "__main__":
    main()
