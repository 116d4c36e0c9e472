"""Forces of architectures that write the energy only: traced, and equal to automatic differentiation."""

import copy
import pickle

import numpy as np
import pytest
import torch
from energy_toy import (
    BATCHES,
    apart,
    assert_same,
    assert_trains_as_autograd,
    batch,
    by_autograd,
    crystal,
    make_potential,
    molecule,
    weight_gradients,
)
from torch import nn

from forgefield.export.targets.torchscript import TorchScriptTarget
from forgefield.graph.build import build_graph
from forgefield.graph.graph import Graph
from forgefield.graph.needs import Needs
from forgefield.models.traced.sizes import sizes_for


def test_one_trace_serves_all_sizes():
    potential = make_potential()
    for structures in BATCHES:
        assert_trains_as_autograd(potential, batch(potential, *structures))
    assert len(potential.architecture.traces.made()) == 1
    assert len(potential.architecture.traces.notes) == 1


@pytest.mark.parametrize("structures", [[molecule(1)], [apart(3)], [molecule(1), molecule(1)], [molecule(2)]])
def test_smallest_batches(structures):
    """A lone atom, no pair at all, one pair and one slot."""
    potential = make_potential()
    inputs = batch(potential, *structures)
    found, wanted = potential.architecture(*inputs), by_autograd(potential, inputs)
    assert_same(found, wanted)
    energy = lambda term: torch.autograd.grad((term.energies**2).sum(), potential.architecture.embedding)  # noqa: E731
    assert_same(energy(found), energy(wanted))
    out = potential(inputs.graph)
    assert bool(torch.isfinite(out.energy).all())
    assert len(potential.architecture.traces.made()) <= 2


def test_forces_and_stress_are_those_of_positions_and_strain():
    """The potential's forces and stress equal autograd's by positions and strain, through the whole potential."""
    potential = make_potential()
    graph = build_graph([molecule(6), crystal()], potential.needs, dtype=torch.float64)
    positions, strain = graph.positions.clone().requires_grad_(), torch.zeros(2, 3, 3).double().requires_grad_()
    matrix = torch.eye(3).double() + 0.5 * (strain + strain.transpose(1, 2))
    moved = torch.einsum("ni,nij->nj", positions, matrix[graph.structure])
    shift = torch.einsum("ni,nij->nj", graph.pair_shift, matrix[graph.structure[graph.pair_first]])
    energy = potential(graph._replace(positions=moved, pair_shift=shift)).energy.sum()
    by_position, by_strain = torch.autograd.grad(energy, (positions, strain))
    out = potential(graph)
    assert_same([out.forces], [-by_position[graph.inverse]])
    assert_same([out.stress[1]], [by_strain[1] / torch.linalg.det(graph.cell[1]).abs()])


def test_parameter_gradients_of_a_force_loss_are_finite_differences():
    potential = make_potential()
    graph = build_graph([molecule(7), crystal()], potential.needs, dtype=torch.float64)
    loss = lambda: (potential(graph).forces ** 2).sum()  # noqa: E731
    loss().backward()
    for name, parameter in potential.named_parameters():
        index, step = int(parameter.grad.abs().argmax()), 1e-5
        values = []
        with torch.no_grad():
            for k in (-2, -1, 1, 2):
                parameter.view(-1)[index] += k * step
                values.append(float(loss()))
                parameter.view(-1)[index] -= k * step
        slope = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * step)
        wanted = float(parameter.grad.view(-1)[index])
        assert abs(slope - wanted) < 1e-7 * max(1.0, abs(wanted)), name


def test_no_autograd_inside_after_the_first_use(monkeypatch):
    """Training is one ordinary backward; inference records nothing."""
    potential = make_potential()
    inputs = batch(potential, molecule(6), molecule(4))
    potential.architecture(*inputs)
    with torch.no_grad():
        potential.architecture(*inputs)
    monkeypatch.setattr(torch.autograd, "grad", lambda *_, **__: pytest.fail("autograd.grad was called"))
    sum((t**2).sum() for t in potential.architecture(*inputs)[:2]).backward()
    assert potential.architecture.embedding.grad.abs().sum() > 0
    with torch.no_grad():
        assert not any(t.requires_grad for t in potential.architecture(*inputs)[:2])


def test_inference_mode_before_anything_else():
    potential = make_potential()
    with torch.inference_mode():
        inputs = batch(potential, molecule(6), molecule(4))
        found = potential.architecture(*inputs)
    assert_same(found, by_autograd(potential, batch(potential, molecule(6), molecule(4)), differentiable=False))
    assert len(potential.architecture.traces.made()) == 1


def test_single_precision_has_its_own_trace():
    double = make_potential()
    single = make_potential(dtype=torch.float32)
    inputs = batch(single, molecule(9), crystal())
    found = single.architecture(*inputs)
    assert found.vector_gradients.dtype == torch.float32
    assert_same(found, by_autograd(single, inputs), 1e-5)
    both = double.float()
    both.architecture(*inputs)
    both.double().architecture(*batch(both, molecule(9)))
    assert len(both.architecture.traces.made()) == 2


def test_autocast_is_part_of_the_trace():
    potential = make_potential(dtype=torch.float32)
    inputs = batch(potential, molecule(9), crystal())
    exact = potential.architecture(*inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, wanted = potential.architecture(*inputs), by_autograd(potential, inputs)
    assert_same([t.float() for t in found[:2]], [t.float() for t in wanted[:2]], 0.02)
    assert 1e-4 < float((found.energies - exact.energies).detach().abs().max()) < 0.1
    assert potential.architecture.traces.made()[1].module.code.count("_to_copy") > 3


@pytest.mark.parametrize("structures", [BATCHES[0][:1], [molecule(2)]])
def test_export(structures, tmp_path):
    """A file traced on one structure serves all others."""
    potential = make_potential()
    target = TorchScriptTarget()
    target.write(potential, tmp_path / "model.pt", structures[0])
    candidate = target.read(tmp_path / "model.pt")
    for s in [molecule(1), molecule(2), molecule(3), molecule(12), crystal(), apart(2)]:
        with torch.no_grad():
            out = potential(build_graph([s], potential.needs, dtype=torch.float64))
        found = candidate(s)
        assert abs(found.energy - float(out.energy)) < 1e-11
        assert np.abs(found.forces - out.forces.numpy()).max() < 1e-12
        assert np.abs(found.stress - out.stress[0].numpy()).max() < 1e-12


@pytest.mark.slow
def test_compiled_whole():
    """torch.compile takes the trace as it is, without a graph break, for varying sizes."""
    potential = make_potential()
    first, second = (batch(potential, *structures) for structures in BATCHES[:2])
    potential.architecture(*first)
    torch._dynamo.reset()
    compiled = torch.compile(potential.architecture, backend="aot_eager", dynamic=True, fullgraph=True)
    for inputs in (first, second):
        assert_same(compiled(*inputs), by_autograd(potential, inputs))
    wanted = weight_gradients(potential, by_autograd(potential, second))
    assert_same(weight_gradients(potential, compiled(*second)).values(), wanted.values(), 1e-9)


def test_copies_begin_without_traces():
    potential = make_potential()
    inputs = batch(potential, molecule(6), molecule(4))
    wanted = potential.architecture(*inputs)
    for other in (copy.deepcopy(potential), pickle.loads(pickle.dumps(potential))):
        assert other.architecture.traces.made() == []
        assert_same(other.architecture(*inputs), wanted, 0.0)


def test_a_replaced_part_is_noticed():
    """The weights are looked up at every call: a part that is exchanged later is the one that is used."""
    potential = make_potential()
    inputs = batch(potential, molecule(6), molecule(4))
    before = potential.architecture(*inputs)
    potential.architecture.mix = nn.Linear(8, 8).double()
    assert not torch.allclose(before.energies, potential.architecture(*inputs).energies)
    assert_trains_as_autograd(potential, inputs)


def test_every_size_that_varies_has_a_name():
    layout = sizes_for(Needs(4.0))
    atoms, pairs, slots, structures = "positions_0", "pair_first_0", "table_sender_1", "cell_0"
    assert list(layout.typical) == [atoms, structures, pairs, slots, "reverse_0"]
    graph_shapes = dict(zip([*Graph._fields, "vectors", "species"], layout.shapes, strict=True))
    assert graph_shapes["table_sign"] == (atoms, slots)
    assert graph_shapes["vectors"] == (pairs, 3)
    assert graph_shapes["cell"] == (structures, 3, 3)
    assert min(layout.typical.values()) > 1
    assert len(set(layout.typical.values())) == len(layout.typical)


@pytest.mark.parametrize("nearest", [1, 2, 3, 12])
def test_a_few_nearest_neighbours_are_no_fixed_size(nearest):
    """Two small batches may have as many neighbours at most by chance."""
    layout = sizes_for(Needs(4.0, nearest=nearest, smooth=False))
    shape = layout.shapes[Graph._fields.index("table_sign")]
    assert shape == ("positions_0", "table_sender_1")
