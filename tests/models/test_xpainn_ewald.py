"""Energies that depend on positions and cell beside the pairs' vectors: a small network, and XPaiNN's Ewald blocks."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from forgefield.core.errors import ModelError
from forgefield.core.settings import Settings
from forgefield.core.structure import Structure
from forgefield.graph.build import build_graph
from forgefield.graph.needs import Needs
from forgefield.models.architecture import ArchitectureContext
from forgefield.models.architectures.xpainn.settings import XpainnSettings
from forgefield.models.potential import Potential, build_potential
from forgefield.models.traced.architecture import EnergyArchitecture
from forgefield.models.traced.gradient import Predictions, differentiate, state_of
from forgefield.models.traced.sizes import Inputs

ELEMENTS, EXACT = [6, 8, 14], 1e-9
SMALL = {
    "node_dim": 8,
    "node_irreps": "6x0e + 5x1o",
    "num_basis": 6,
    "cutoff": 3.0,
    "hidden_dim": 7,
    "action_blocks": 2,
}


class Waves(EnergyArchitecture):
    """A structure factor whose waves are weighed by their length, which a strain changes."""

    uses_positions = True

    def __init__(self, context):
        super().__init__()
        self.context, self.needs = context, Needs(3.0)
        self.weights = nn.Parameter(torch.randn(len(context.elements)))
        self.rate = nn.Parameter(torch.tensor([0.1]))

    def head_parameters(self):
        return ["rate"]

    def atom_energies(self, graph, vectors, species, counts):
        a, b, c = graph.cell.double().unbind(1)
        planes = torch.stack([torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b)], 1)
        volume = (a * planes[:, 0]).sum(1).reshape(-1, 1, 1)
        k = (2 * torch.pi * planes / volume).index_select(0, graph.structure)
        phase = (k * graph.positions.unsqueeze(1)).sum(2)
        wave = torch.cos(phase) * torch.exp(-self.rate.double() * k.square().sum(2))
        short = torch.zeros_like(wave[:, 0]).index_add(
            0, graph.pair_first, (vectors.square().sum(1) - 9.0).clamp(max=0) ** 2
        )
        return (wave.sum(1) * self.weights[species] + 1e-3 * short).to(vectors.dtype)


def waves():
    context = ArchitectureContext(tuple(ELEMENTS), ("default",), 5.0)
    torch.manual_seed(3)
    energies = {"default": dict.fromkeys(ELEMENTS, 0.0)}
    return Potential("waves", Settings(), Waves(context), context, energies, [1.7], [0.0], {}).double()


def ewald(**more):
    block = {"num_k_points": [1, 2, 1], "projection_dim": 3} | more
    potential = build_potential(
        "xpainn",
        XpainnSettings.model_validate(SMALL | {"ewald": block}),
        elements=ELEMENTS,
        reference_energies={"default": dict.fromkeys(ELEMENTS, -3.0)},
        avg_num_neighbors=5.0,
        scale=1.3,
        dtype=torch.float64,
        seed=4,
    )
    with torch.no_grad():
        for name, parameter in potential.named_parameters():
            if "ewald" in name and "filter" in name:
                parameter *= 30.0  # they begin small
    return potential


def crystal(turn=None, move=0.0, strain=None):
    cell = np.array([[4.9, 0.0, 0.0], [0.7, 5.1, 0.0], [-0.4, 0.5, 5.3]])
    x = np.array([[0.1, 0.0, 0.2], [1.6, 1.4, 1.8], [3.1, 0.4, 2.6]]) + move
    for matrix in (strain, turn):
        if matrix is not None:
            cell, x = cell @ matrix.T, x @ matrix.T
    return Structure(np.array([14, 8, 6]), x, cell, np.ones(3, bool))


def molecule():
    return Structure(np.array([6, 8, 8, 6]), np.random.default_rng(1).normal(size=(4, 3)) * 1.5)


def predict(potential, *structures):
    with torch.no_grad():
        return potential(build_graph(structures, potential.needs, dtype=potential.dtype))


@pytest.fixture(scope="module", params=[waves, ewald], ids=["waves", "ewald"])
def potential(request):
    return request.param()


def test_forces_and_stress_are_finite_differences(potential):
    s, step = crystal(), 1e-4
    out = predict(potential, s)
    assert float(out.forces.abs().max()) > 1e-3
    for atom, axis in ((0, 0), (2, 1)):
        moved = [s.positions.copy() for _ in range(4)]
        for x, k in zip(moved, (-2, -1, 1, 2), strict=True):
            x[atom, axis] += k * step
        e = predict(potential, *[Structure(s.numbers, x, s.cell, s.pbc) for x in moved]).energy
        slope = float(e[0] - 8 * e[1] + 8 * e[2] - e[3]) / (12 * step)
        assert abs(float(out.forces[atom, axis]) + slope) < 1e-7
    for a, b in ((0, 0), (1, 2)):
        bent = []
        for k in (-2, -1, 1, 2):
            strain = np.eye(3)
            strain[a, b] += k * step / 2
            strain[b, a] += k * step / 2
            bent.append(crystal(strain=strain))
        e = predict(potential, *bent).energy
        slope = float(e[0] - 8 * e[1] + 8 * e[2] - e[3]) / (12 * step)
        assert abs(float(out.stress[0, a, b]) - slope / s.volume) < 1e-8


def test_traces_give_what_automatic_differentiation_gives(potential):
    architecture = potential.architecture
    graph = build_graph([crystal(), crystal(move=0.3)], potential.needs, dtype=torch.float64)
    species = torch.searchsorted(potential.numbers, graph.numbers)
    inputs = Inputs(graph, graph.pair_vectors(), species, torch.bincount(species, minlength=3))
    found = architecture(*inputs)
    wanted = differentiate(architecture, state_of(architecture), inputs, differentiable=True)
    weights = list(architecture.parameters())
    terms = []
    for term in (found, wanted):
        parts = [term.energies, term.vector_gradients, term.positions, term.strain]
        loss = sum((p**3).sum() + p.sum() for p in parts)
        terms.append([*parts, *torch.autograd.grad(loss, weights, materialize_grads=True)])
    for a, b in zip(*terms, strict=True):
        assert float((a - b).detach().abs().max()) < EXACT * max(1.0, float(b.detach().abs().max()))
    assert any(note.startswith("traced") for note in architecture.traces.notes)


def test_ewald_messages_turn_with_the_crystal_and_reach_far():
    potential, s = ewald(), crystal()
    usual = predict(potential, s)
    for turn in (np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0], -np.eye(3)):
        turned = predict(potential, crystal(turn=turn))
        assert float((turned.energy - usual.energy).abs()) < EXACT
        assert float((usual.forces @ torch.as_tensor(turn).T - turned.forces).abs().max()) < EXACT
    images = s.positions + np.array([1.3, -2.0, 0.4])
    images[1] += s.cell[2] - 2 * s.cell[0]
    again = predict(potential, Structure(s.numbers, images, s.cell, s.pbc))
    assert float((again.energy - usual.energy).abs()) < EXACT
    assert float((again.forces - usual.forces).abs().max()) < EXACT
    apart = Structure(
        np.array([6, 8]), np.array([[0.0, 0, 0], [6.0, 1.0, 0]]), np.diag([12.0, 11.0, 13.0]), np.ones(3, bool)
    )
    assert float(predict(potential, apart).forces.abs().max()) > 1e-5


def test_ewald_batches_equal_single_structures():
    potential, structures = ewald(), [molecule(), crystal(), molecule()]
    batch, singles = predict(potential, *structures), [predict(potential, s) for s in structures]
    assert float((batch.energy - torch.cat([o.energy for o in singles])).abs().max()) < EXACT
    assert float((batch.forces - torch.cat([o.forces for o in singles])).abs().max()) < EXACT
    graph = build_graph(structures, potential.needs, dtype=torch.float64)
    out = potential(graph)
    (out.energy.sum() + (out.forces**2).sum()).backward()
    assert [n for n, p in potential.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)] == []


def test_ewald_settings_have_effects_and_limits():
    usual = predict(ewald(), crystal()).energy
    for change in ({"num_k_points": [1, 1, 1]}, {"projection_dim": 4}, {"ewald_blocks": 2}):
        assert float((predict(ewald(**change), crystal()).energy - usual).abs()) > 1e-6
    with pytest.raises(ValidationError, match="how a molecule is turned"):
        XpainnSettings.model_validate({"ewald": {"use_pbc": False}})
    with pytest.raises(ValidationError, match="num_k_points"):
        XpainnSettings.model_validate({"ewald": {"num_k_points": [0, 0, 0]}})


def test_charges_of_such_models_are_not_for_physics_terms():
    potential = ewald()
    graph = build_graph([crystal()], potential.needs, dtype=torch.float64)
    architecture, given = potential.architecture, (graph, graph.pair_vectors(), *potential.count_elements(graph))
    architecture.predictions = lambda *inputs: Predictions(torch.zeros(3), {"charges": torch.zeros(3)})
    with pytest.raises(ModelError, match="charges that depend on positions"):
        architecture(*given, lambda charges: charges)
