"""What a model forgets when it is trained further, and what replaying old data saves of it.

    python benchmarks/forgetting.py --out runs/forgetting            # about 2 minutes on one quiet core
    python benchmarks/forgetting.py --out runs/forgetting --model BUNDLE   # start from a model of 3BPA that is there

A small MACE is trained on 3BPA (wB97X/6-31G(d), 300 K) and trained further on 100 frames of ethanol (PBE/def2-SVP) in
four ways. Every model is tested on both molecules: 279 frames of 3BPA, 100 of ethanol, none of them trained on.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import forgefield

HERE = Path(__file__).resolve().parent
OLD, NEW = (HERE.parent / "examples" / name for name in ("3bpa", "ethanol"))
MODEL = {"hidden_irreps": "16x0e + 16x1o", "r_max": 4.5, "max_ell": 2, "correlation": 2, "radial_mlp": [32, 32]}
TRAIN = {"batch_size": 5, "force_weight": 100.0, "energy_weight": 1.0, "scheduler": None}
ESTIMATE = {"reference_energies": "estimate"}
REPLAY = {"data": str(OLD / "train.xyz"), "fraction": 0.5}
WAYS: dict[str, dict[str, Any]] = {
    "same head": ESTIMATE,
    "new head": {**ESTIMATE, "head": "ethanol"},
    "new head, readouts only": {**ESTIMATE, "head": "ethanol"},
    "new head, replay 50 %": {**ESTIMATE, "head": "ethanol", "replay": REPLAY},
}


def train_base(folder: Path, epochs: int) -> Path:
    """Train the model that knows 3BPA; return its artifacts."""
    data = {"train": str(OLD / "train.xyz"), "val_fraction": 0.1}
    train = {
        **TRAIN,
        "epochs": epochs,
        "lr": 0.02,
        "scheduler": "step",
        "step_size": max(1, epochs * 3 // 4),
        "gamma": 0.2,
    }
    forgefield.run({"task": "train", "backend": "mace", "device": "cpu", "run_dir": str(folder), "model": MODEL,
                    "data": data, "train": train}, quiet=True)  # fmt: skip
    return folder / "artifacts"


def train_further(model: Path, folder: Path, block: dict[str, Any], epochs: int, *, head_only: bool) -> Path:
    """Train it further on ethanol; return its artifacts."""
    train = {**TRAIN, "epochs": epochs, "lr": 0.005, "freeze": "head_only" if head_only else None}
    forgefield.run({"task": "finetune", "model_in": str(model), "device": "cpu", "run_dir": str(folder),
                    "data": {"train": str(NEW / "train.xyz"), "val_fraction": 0.1}, "train": train,
                    "finetune": block}, quiet=True)  # fmt: skip
    return folder / "artifacts"


def errors(model: Path, folder: Path, data: Path, head: str | None) -> dict[str, float]:
    """Test a model; RMSE of forces, meV/Å, and of the energy per atom, meV."""
    block = {"head": head} if head else {}
    result = forgefield.run({"task": "evaluate", "model_in": str(model), "device": "cpu", "model": block,
                             "output": {"dir": str(folder)}, "data": {"test": str(data)}}, quiet=True)  # fmt: skip
    found = result.metrics["all"]
    return {"forces": 1000 * found["forces_rmse"], "energy_per_atom": 1000 * found["energy_rmse_per_atom"]}


def judge(model: Path, folder: Path) -> dict[str, dict[str, float]]:
    """Test a model on both molecules, each with its own head where there are two."""
    heads = json.loads((model / "manifest.json").read_text())["heads"]
    old, new = (heads[0], heads[-1]) if len(heads) > 1 else (None, None)
    return {
        "3bpa": errors(model, folder / "3bpa", OLD / "test_300K.xyz", old),
        "ethanol": errors(model, folder / "ethanol", NEW / "test.xyz", new),
    }


def main() -> None:
    """Train, train further in four ways, test, and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="new folder for the runs")
    parser.add_argument("--model", type=Path, help="artifacts to start from; trained here by default")
    parser.add_argument("--base-epochs", type=int, default=15)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--json", type=Path, help="also write the figures there")
    asked = parser.parse_args()
    begun = time.perf_counter()
    model = asked.model or train_base(asked.out / "base", asked.base_epochs)
    found: dict[str, Any] = {"base": judge(model, asked.out / "tests" / "base")}
    for k, (name, block) in enumerate(WAYS.items()):
        folder = asked.out / f"way_{k}"
        tuned = train_further(model, folder, block, asked.epochs, head_only="only" in name)
        found[name] = judge(tuned, asked.out / "tests" / f"way_{k}")
    print(f"{'RMSE, meV/Å and meV/atom':<26} {'3BPA F':>8} {'3BPA E':>8} {'ethanol F':>10} {'ethanol E':>10}")
    for name, of in found.items():
        row = [of[s][q] for s in ("3bpa", "ethanol") for q in ("forces", "energy_per_atom")]
        print(f"{name:<26} {row[0]:8.1f} {row[1]:8.2f} {row[2]:10.1f} {row[3]:10.2f}")
    print(f"{time.perf_counter() - begun:.0f} s in all")
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
