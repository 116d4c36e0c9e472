"""Write the golden training runs. Runs in the interpreter that has mace-torch.

Model, loss functions and batches are upstream's; the step is the one of its training loop: zero the gradients,
forward with training=True, loss, backward, clip the global gradient norm, Adam.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from datetime import date
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from ase.io import read
from mace import data, modules, tools
from mace.tools import torch_geometric
from models import build_model, randomise
from worker import load_worker

worker = load_worker()
STEPS = 50
LR, CLIP = 0.01, 10.0
ENERGY, FORCES, STRESS = 1.0, 100.0, 10.0
SMALL_MODEL = {"hidden_irreps": "16x0e+16x1o", "MLP_irreps": "16x0e", "radial_MLP": [16, 16, 16]}


class Run(NamedTuple):
    """Frames of one data set, a model for them and the loss."""

    source: str
    licence: str
    frames: list[int]
    batch_size: int
    choices: dict[str, object]
    stress: bool
    energies: dict[int, float] | None


RUNS = {
    "energy_forces": Run(
        source="3bpa/train_300K.xyz",
        licence="MIT, Kovacs et al., https://github.com/davkovacs/BOTNet-datasets",
        frames=list(range(0, 500, 25)),
        batch_size=5,
        choices=SMALL_MODEL | {"r_max": 5.0, "num_bessel": 8},
        stress=False,
        energies={
            1: -13.587222780835477,
            6: -1029.4889999855063,
            7: -1484.9814568572233,
            8: -2041.9816003861047,
        },
    ),
    "energy_forces_stress": Run(
        source="mlearn_Si/train.xyz",
        licence="BSD-3-Clause, Zuo et al., https://github.com/materialsvirtuallab/mlearn",
        frames=[57, 58, 59, 60, 62, 63, 64, 65, 66, 67, 68, 0],
        batch_size=4,
        choices=SMALL_MODEL | {"r_max": 4.2, "num_bessel": 8, "correlation": 2},
        stress=True,
        energies=None,
    ),
}


def read_frames(run: Run, place: Path) -> dict[str, np.ndarray]:
    """The chosen frames as flat arrays: energy eV, forces eV/Å, stress eV/Å^3 with + = tensile."""
    frames = [read(place / run.source, index) for index in run.frames]
    arrays = {
        "ptr": np.cumsum([0] + [len(atoms) for atoms in frames]),
        "numbers": np.concatenate([atoms.numbers for atoms in frames]).astype(np.int64),
        "positions": np.concatenate([atoms.positions for atoms in frames]),
        "cell": np.stack([atoms.cell.array for atoms in frames]),
        "pbc": np.stack([atoms.pbc for atoms in frames]),
        "head": np.zeros(len(frames), dtype=np.int64),
        "energy": np.array([atoms.get_potential_energy() for atoms in frames]),
        "forces": np.concatenate([atoms.get_forces() for atoms in frames]),
        "frame": np.array(run.frames),
    }
    if run.stress:
        arrays["stress"] = np.stack([atoms.get_stress(voigt=False) for atoms in frames])
    return arrays


def graphs_of(frames: dict[str, np.ndarray], model: torch.nn.Module) -> list[object]:
    """One upstream graph with labels for each frame."""
    table = tools.AtomicNumberTable([int(z) for z in model.atomic_numbers])
    graphs = []
    for k, (start, stop) in enumerate(zip(frames["ptr"][:-1], frames["ptr"][1:], strict=True)):
        labels = {"energy": frames["energy"][k], "forces": frames["forces"][start:stop]}
        if "stress" in frames:
            labels["stress"] = frames["stress"][k]
        configuration = data.Configuration(
            atomic_numbers=frames["numbers"][start:stop],
            positions=frames["positions"][start:stop],
            properties=labels,
            property_weights={name: 1.0 for name in labels},
            cell=frames["cell"][k],
            pbc=tuple(bool(flag) for flag in frames["pbc"][k]),
        )
        graphs.append(data.AtomicData.from_config(configuration, table, float(model.r_max)))
    return graphs


def choose_batches(n_frames: int, batch_size: int) -> np.ndarray:
    """STEPS rows of frame indices: one new permutation of all frames after the other."""
    generator = np.random.default_rng(11)
    per_epoch = n_frames // batch_size
    rows: list[np.ndarray] = []
    while len(rows) < STEPS:
        order = generator.permutation(n_frames)
        rows += [order[k * batch_size : (k + 1) * batch_size] for k in range(per_epoch)]
    return np.stack(rows[:STEPS])


def train(model: torch.nn.Module, graphs: list[object], batches: np.ndarray, stress: bool) -> dict[str, np.ndarray]:
    """Losses before every step, their terms, and the gradient norms before clipping."""
    if stress:
        loss_function = modules.WeightedEnergyForcesStressLoss(ENERGY, FORCES, STRESS)
    else:
        loss_function = modules.WeightedEnergyForcesLoss(ENERGY, FORCES)
    model.train().requires_grad_(True)
    optimizer = torch.optim.Adam(model.parameters(), lr=LR, amsgrad=True, weight_decay=0.0)
    record: dict[str, list[float]] = {name: [] for name in ("loss", "energy", "forces", "stress", "norm")}
    for indices in batches:
        batch = torch_geometric.Batch.from_data_list([graphs[k] for k in indices])
        optimizer.zero_grad(set_to_none=True)
        out = model(batch.to_dict(), training=True, compute_force=True, compute_stress=stress)
        loss = loss_function(pred=out, ref=batch)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=CLIP)
        optimizer.step()
        terms = (
            modules.loss.weighted_mean_squared_error_energy(batch, out),
            modules.loss.mean_squared_error_forces(batch, out),
            modules.loss.weighted_mean_squared_stress(batch, out) if stress else torch.zeros(()),
        )
        for name, value in zip(record, (loss, *terms, norm), strict=True):
            record[name].append(float(value))
    return {name: np.array(values) for name, values in record.items()}


def initial_model(run: Run, frames: dict[str, np.ndarray]) -> torch.nn.Module:
    """Random weights; reference energies, scale and neighbour count measured on the frames."""
    elements = tuple(sorted(set(frames["numbers"].tolist())))
    scale = float(np.sqrt((frames["forces"] ** 2).mean()))
    model = build_model(run.choices | {"scale": scale, "shift": 0.0}, elements)
    edges = sum(graph.edge_index.shape[1] for graph in graphs_of(frames, model))
    neighbours = edges / len(frames["numbers"])
    model = build_model(run.choices | {"scale": scale, "shift": 0.0, "avg_num_neighbors": neighbours}, elements)
    mean = frames["energy"].sum() / len(frames["numbers"])
    energies = [run.energies[z] if run.energies else mean for z in elements]
    model.atomic_energies_fn.atomic_energies.copy_(torch.tensor([energies]))
    randomise(model, seed=7)
    return model


def take_frames(run: Run, folder: Path, place: Path | None) -> dict[str, np.ndarray]:
    """The frames that lie in the folder, or the same ones read anew from the data set at `place`."""
    if place is None:
        with np.load(folder / "frames.npz", allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    folder.mkdir(parents=True, exist_ok=True)
    frames = read_frames(run, place)
    np.savez_compressed(folder / "frames.npz", **frames)
    shutil.copyfile(place / Path(run.source).parent / "LICENSE", folder / "LICENSE")
    return frames


def write_run(name: str, run: Run, target: Path, place: Path | None) -> str:
    """One folder: frames, initial model, batches, losses, end and origin."""
    folder = target / name
    frames = take_frames(run, folder, place)
    model = initial_model(run, frames)
    batches = choose_batches(len(run.frames), run.batch_size)
    with tempfile.TemporaryDirectory() as scratch:
        path = f"{scratch}/initial.model"
        torch.save(model, path)
        worker.main(["export", path, str(folder / "initial")])
        graphs = graphs_of(frames, model)
        record = train(model, graphs, batches, run.stress)
        torch.save(model, path)
        worker.main(["evaluate", path, str(folder / "frames.npz"), f"{scratch}/final.npz"])
        with np.load(f"{scratch}/final.npz") as file:
            final = {f"final_{key}": file[key] for key in ("energy", "forces", "stress")}
    disturbed = initial_model(run, frames)
    disturb(disturbed)
    other = train(disturbed, graphs, batches, run.stress)
    sensitivity = float(np.abs(other["loss"] / record["loss"] - 1).max())
    np.savez_compressed(folder / "training.npz", batches=batches, **record, **final)
    (folder / "meta.json").write_text(json.dumps(origin(run, sensitivity), indent=1) + "\n")
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return (
        f"{name:22s} {size / 1e3:6.1f} kB  loss {record['loss'][0]:.4g} -> {record['loss'][-1]:.4g}, "
        f"a 1e-14 disturbance of the weights grows to {sensitivity:.1e}"
    )


def disturb(model: torch.nn.Module) -> None:
    """Multiply every weight by one plus 1e-14 times a normal number."""
    generator = np.random.default_rng(13)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.from_numpy(generator.normal(size=tuple(parameter.shape)))
            parameter.mul_(1 + 1e-14 * noise)


def origin(run: Run, sensitivity: float) -> dict[str, object]:
    """How the numbers came to be, in words and values."""
    total = "1 * energy + 100 * forces" + (" + 10 * stress" if run.stress else "")
    return {
        "command": "python scripts/oracle mace --only training",
        "date": date.today().isoformat(),
        "versions": worker.versions(),
        "source": run.source,
        "licence": run.licence,
        "loss": f"{total}; recorded before the update of its step",
        "energy": "mean over structures of ((E - E_label) / n_atoms)^2",
        "forces": "mean over all components of all atoms of the batch of (F - F_label)^2",
        "stress": "mean over structures and nine components of (S - S_label)^2" if run.stress else None,
        "optimizer": f"Adam, amsgrad, lr {LR}, betas 0.9 0.999, eps 1e-8, no weight decay, one parameter group",
        "clip": f"global gradient norm at most {CLIP} (all parameters), before the update; norm: before clipping",
        "schedule": "none; no EMA; float64",
        "order": "row k of batches holds the frames of step k, in the order in which they stand in the batch",
        "sensitivity": sensitivity,
        "end": "final_*: predictions for all frames after the last step",
    }


def main() -> None:
    """Write all runs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("target", type=Path)
    parser.add_argument("--data", type=Path)
    options = parser.parse_args()
    for name, run in RUNS.items():
        print(write_run(name, run, options.target, options.data), flush=True)


if __name__ == "__main__":
    main()
