"""Same weights, batches and optimizer as mace-torch: the first 50 losses and the model after them."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from forgefield.core.structure import Structure
from forgefield.data.labels import join_labels
from forgefield.data.loader import Batch
from forgefield.engines.backends.exported import read_export
from forgefield.engines.backends.mace_torch import convert
from forgefield.graph.build import build_graph
from forgefield.train.loop import prepare
from forgefield.train.loss import build_loss
from forgefield.train.settings import TrainSettings
from forgefield.train.step import take_update

GOLDEN = Path(__file__).parent.parent / "golden" / "training"
WEIGHTS = {"energy_forces": (1, 100, 0), "energy_forces_stress": (1, 100, 10)}


def load(path):
    with np.load(path, allow_pickle=False) as file:
        return {k: file[k] for k in file.files}


def structures(data):
    ptr = data["ptr"]
    return [
        Structure(
            data["numbers"][a:b],
            data["positions"][a:b],
            data["cell"][k],
            data["pbc"][k],
            labels={
                "energy": data["energy"][k],
                "forces": data["forces"][a:b],
                **({"stress": data["stress"][k]} if "stress" in data else {}),
            },
        )
        for k, (a, b) in enumerate(itertools.pairwise(ptr))
    ]


def batch_of(structures, index, potential):
    chosen = [structures[k] for k in index]
    graph = build_graph(chosen, potential.needs, dtype=torch.float64)
    return Batch(graph, join_labels(chosen, dtype=torch.float64), torch.as_tensor(index))


@pytest.mark.parametrize("case", sorted(WEIGHTS))
def test_first_fifty_losses_are_those_of_mace_torch(case):
    energy, force, stress = WEIGHTS[case]
    settings = TrainSettings(
        lr=0.01,
        optimizer="adam",
        amsgrad=True,
        weight_decay=0.0,
        scheduler=None,
        ema_decay=None,
        max_grad_norm=10.0,
        energy_weight=energy,
        force_weight=force,
        stress_weight=stress,
    )
    wanted, frames = load(GOLDEN / case / "training.npz"), structures(load(GOLDEN / case / "frames.npz"))
    potential = convert(*read_export(GOLDEN / case / "initial"))
    state, losses = prepare(potential, settings, torch.device("cpu")), build_loss(settings)
    found, norms = [], []
    for index in wanted["batches"]:
        report = take_update(state, [batch_of(frames, index, potential)], losses, max_grad_norm=10.0)
        found.append(report.loss)
        norms.append(report.grad_norm)
    assert np.abs(np.array(found) / wanted["loss"] - 1).max() < 1e-6
    assert np.abs(np.array(norms) / wanted["norm"] - 1).max() < 1e-6
    with torch.no_grad():
        out = potential(batch_of(frames, range(len(frames)), potential).graph)
    assert np.abs(out.energy.numpy() - wanted["final_energy"]).max() < 1e-6
    assert np.abs(out.forces.numpy() - wanted["final_forces"]).max() < 1e-6
