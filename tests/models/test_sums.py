"""Sums over many atoms are float64, also in a float32 model: energies, stress, losses and errors."""

import numpy as np
import pytest
import torch
from torch import nn

from forgefield.core.settings import Settings
from forgefield.core.structure import Structure
from forgefield.data.dataset import Dataset
from forgefield.data.labels import join_labels
from forgefield.data.loader import make_loader
from forgefield.graph.build import build_graph
from forgefield.graph.needs import Needs
from forgefield.models.architecture import Architecture, ArchitectureContext, AtomTerm
from forgefield.models.potential import Potential
from forgefield.train.evaluate import evaluate
from forgefield.train.loss import build_loss
from forgefield.train.settings import TrainSettings

SIDE, SPACING, E0 = 27, 1.5, -7000.0
N = SIDE**3  # 19,683 atoms


class Springs(Architecture):
    """Neighbours on a grid pull at each other; each atom has 0.1 eV, which float32 cannot hold exactly."""

    def __init__(self):
        super().__init__()
        self.needs = Needs(SPACING * 1.2)
        self.strength = nn.Parameter(torch.tensor(3.0))

    def forward(self, graph, vectors, species, counts):
        energies = vectors.new_full((graph.n_atoms,), 0.1)
        return AtomTerm(energies, self.strength * (vectors - 1.0))


@pytest.fixture(scope="module")
def potential():
    context = ArchitectureContext((14,), ("default",), 6.0)
    return Potential("springs", Settings(), Springs(), context, {"default": {14: E0}}, [1.0], [0.0], {}).float()


@pytest.fixture(scope="module")
def crystal():
    grid = np.stack(np.meshgrid(*[np.arange(SIDE)] * 3, indexing="ij"), -1).reshape(-1, 3) * SPACING
    positions = grid + np.random.default_rng(0).normal(0, 0.02, grid.shape)
    return Structure(np.full(N, 14), positions, np.eye(3) * SIDE * SPACING, np.ones(3, bool))


@pytest.fixture(scope="module")
def outputs(potential, crystal):
    with torch.no_grad():
        return potential(build_graph([crystal], potential.needs))


ENERGY = N * (E0 + float(np.float32(0.1)))


def test_energy_of_many_atoms_with_large_reference_energies(outputs):
    assert outputs.energy.dtype == outputs.atom_energies.dtype == torch.float64
    assert float(outputs.energy) == pytest.approx(ENERGY, abs=1e-3)  # of 1.4e8 eV, where float32 has steps of 8
    assert float(outputs.atom_energies[0] - E0) == pytest.approx(float(np.float32(0.1)), abs=1e-11)


def test_stress_of_many_atoms(potential, crystal, outputs):
    graph = build_graph([crystal], potential.needs)
    vectors = graph.pair_vectors().double().numpy()
    virial = np.einsum("pi,pj->ij", vectors, 3.0 * (vectors - 1.0))
    expected = 0.5 * (virial + virial.T) / crystal.volume
    error = np.abs(outputs.stress[0].double().numpy() - expected).max() / np.abs(expected).max()
    assert error < 3e-7


def test_a_small_energy_error_is_seen_by_loss_and_metrics(potential, crystal):
    """0.2 eV of 1.4e8."""
    labelled = Structure(crystal.numbers, crystal.positions, crystal.cell, crystal.pbc,
                         labels={"energy": np.array(ENERGY - 0.2)})  # fmt: skip
    dataset = Dataset.of([labelled])
    loader = make_loader(dataset, potential.needs, batch_size=1)
    found = evaluate(potential, loader).metrics["all"]
    assert found["energy_mae"] == pytest.approx(0.2, abs=1e-3)
    losses = build_loss(TrainSettings(energy_weight=1, force_weight=0))
    (batch,) = loader.batches(0)
    report = losses(potential(batch.graph), batch.labels)
    assert report.total.dtype == torch.float64
    assert float(report.total) == pytest.approx((0.2 / N) ** 2, rel=1e-2)


@pytest.mark.parametrize("name", ["mse", "mae", "l2mae"])
def test_a_force_loss_over_many_rows_is_summed_in_float64(name, crystal, outputs):
    """All rows contribute the same, so that the exact sum is known; float32 sums differ in the seventh digit."""
    labels = join_labels([crystal])._replace(has_forces=torch.ones(N, dtype=torch.bool))
    losses = build_loss(TrainSettings(energy_weight=0, force_weight=1, loss_force=name))
    force = torch.tensor([0.1, 0.0, 0.0])
    row = float((force.square().sum(), force.abs().sum(), force.norm())[["mse", "mae", "l2mae"].index(name)])
    sums = losses.sums(outputs._replace(forces=force.repeat(N, 1)), labels)
    assert sums["forces"].dtype == torch.float64
    assert float(sums["forces"]) == pytest.approx(N * row, rel=1e-12)
