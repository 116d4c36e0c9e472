"""A run folder made of invented numbers, for tests of the report."""

import json
from pathlib import Path

import numpy as np

NUMBERS = np.array([6] * 12 + [1] * 12 + [7, 7, 8])
E0 = {"1": -13.587222780835477, "6": -1029.4889999855063, "7": -1484.9814568572233, "8": -2041.9816003861047}
ELEMENTS = {1: "H", 6: "C", 7: "N", 8: "O"}


def rms(values) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def errors(predicted, label, counts=None) -> dict:
    found = {"forces_mae": float(np.abs(predicted - label).mean()), "forces_rmse": rms(predicted - label)}
    return found | {"forces_rms_label": rms(label)}


def write_evaluation(folder: Path, n: int, noise: float, seed: int, stress: bool = False) -> dict:
    """Write metrics.json and predictions.npz of `n` invented molecules and return the metrics."""
    random = np.random.default_rng(seed)
    numbers, counts = np.tile(NUMBERS, n), np.full(n, len(NUMBERS))
    baseline = np.full(n, sum(E0[str(z)] for z in NUMBERS))
    energy_label = baseline - 120 + 0.4 * random.normal(size=n)
    energy = energy_label + 27 * noise * 0.05 * random.normal(size=n)
    forces_label = random.normal(size=(len(numbers), 3)) * (0.6 + 0.05 * numbers[:, None])
    forces = forces_label + noise * (1 + 0.08 * numbers[:, None]) * random.normal(size=forces_label.shape)
    config_type = np.array(["300K", "600K", "dihedral"])[random.integers(0, 3, n)]
    stress_label = 0.02 * random.normal(size=(n, 3, 3)) if stress else np.full((n, 3, 3), np.nan)
    predicted_stress = stress_label + 0.001 * random.normal(size=(n, 3, 3)) if stress else np.zeros((n, 3, 3))
    per_atom = (energy - energy_label) / counts
    metrics = {
        "all": errors(forces, forces_label)
        | {
            "energy_mae": float(np.abs(energy - energy_label).mean()),
            "energy_rmse": rms(energy - energy_label),
            "energy_mae_per_atom": float(np.abs(per_atom).mean()),
            "energy_rmse_per_atom": rms(per_atom),
            "stress_rmse": rms(predicted_stress - stress_label) if stress else None,
            "n_structures": n,
        },
        "by_element": {s: errors(forces[numbers == z], forces_label[numbers == z]) for z, s in ELEMENTS.items()},
        "by_component": {c: errors(forces[:, k], forces_label[:, k]) for k, c in enumerate("xyz")},
        "by_config_type": {
            name: errors(forces[np.repeat(config_type == name, 27)], forces_label[np.repeat(config_type == name, 27)])
            | {"energy_rmse_per_atom": rms(per_atom[config_type == name])}
            for name in np.unique(config_type)
        },
        "by_head": {},
    }
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps(metrics))
    np.savez_compressed(
        folder / "predictions.npz",
        n_atoms=counts, numbers=numbers, energy=energy, energy_label=energy_label, baseline=baseline,
        forces=forces, forces_label=forces_label, stress=predicted_stress, stress_label=stress_label,
        index=np.arange(n), config_type=config_type, origin=np.array([f"test_300K.xyz: frame {k}" for k in range(n)]),
    )  # fmt: skip
    return metrics


def write_history(path: Path, epochs: int) -> None:
    random = np.random.default_rng(3)
    lines = []
    for epoch in range(1, epochs + 1):
        level = 30 / (1 + epoch**1.4) + 0.6
        lines.append(
            {
                "epoch": epoch,
                "train_loss": level * (1 + 0.03 * random.normal()),
                "val_loss": 1.2 * level * (1 + 0.1 * random.normal()),
                "val_forces_rmse": 0.1 * level**0.5,
                "val_forces_mae": 0.07 * level**0.5,
                "val_energy_rmse_per_atom": 0.004 * level**0.5,
                "val_energy_mae_per_atom": 0.003 * level**0.5,
                "val_stress_rmse": None,
                "lr": 0.01 * 0.8 ** (epoch // 10),
                "structures_per_second": 85.0 + epoch,
                "best": epoch == epochs - 1,
            }
        )
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def write_fake_run(root: Path, n: int = 120, epochs: int = 40, stress: bool = False) -> dict:
    """Write a whole run folder and return the metrics of its test set."""
    metrics = write_evaluation(root / "evaluation" / "test_300K", n, 0.04, 1, stress)
    write_evaluation(root / "evaluation" / "val", 40, 0.02, 2, stress)
    write_history(root / "history.jsonl", epochs)
    (root / "statistics.json").write_text(
        json.dumps({"reference_energies": {"default": E0}, "reference_source": "isolated atoms in iso_atoms.xyz",
                    "avg_num_neighbors": 17.31, "force_rms": 0.9631})
    )  # fmt: skip
    (root / "run.resolved.yaml").write_text(
        "name: demo\nbackend: mace\ntrain:\n  epochs: 40\n  batch_size: 10\n  optimizer: adam\n  lr: 0.01\n"
        "  energy_weight: 1\n"
        "  force_weight: 100\n  stress_weight: 0\n  loss_energy: mse\n  loss_force: mse\n  scheduler: plateau\n"
        "  ema_decay: 0.99\n  seed: 0\n  max_grad_norm: 10\n  weight_decay: 5.0e-07\n"
    )
    (root / "artifacts").mkdir()
    for name, size in (("weights.safetensors", 900_000), ("model.torchscript.pt", 1_400_000)):
        (root / "artifacts" / name).write_bytes(b"0" * size)
    (root / "artifacts" / "manifest.json").write_text(json.dumps({"reference_energies": {"default": E0}}))
    record = {
        "name": "demo <3BPA>", "task": "train", "backend": "mace", "status": "finished",
        "command": "forgefield run examples/demo.yaml", "started": "2025-03-01T10:11:12",
        "reproduce": "forgefield run runs/demo/run.resolved.yaml --set run_dir=runs/demo-again",
        "seconds": {"reading": 1.2, "training": 94.0, "evaluation": 6.3, "export": 8.8, "total": 111.4},
        "peak_memory": {"process": 812.0},
        "environment": {"forgefield": "0.1.0", "python": "3.11.7", "torch": "2.13.0", "processor": "x86_64",
                        "threads": 2, "device": "cpu", "dtype": "float32"},
        "data": {"train": {"path": "examples/3bpa/train.xyz", "n_structures": 200, "n_atoms": 5400,
                           "elements": [1, 6, 7, 8], "fingerprint": "ab" * 32}},
        "split": {"train": 180, "val": 20, "hash": "cd" * 32, "how": "10 % of the training data, seed 0"},
        "model": {"backend": "mace", "parameters": 83264, "elements": [1, 6, 7, 8], "heads": ["default"], "cutoff": 5.0,
                  "settings": {"hidden_irreps": "16x0e+16x1o", "max_ell": 2, "correlation": 3}},
        "fit": {"best_epoch": 39, "best_metric": 1.2, "epochs_done": 40, "seconds": 94.0, "reason": "all epochs done"},
    }  # fmt: skip
    (root / "run.json").write_text(json.dumps(record))
    return metrics
