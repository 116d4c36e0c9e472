"""Forces of architectures that write the energy only: traced, and equal to automatic differentiation."""

import copy
import pickle
import warnings

import numpy as np
import pytest
import torch
from energy_toy import EnergyToy, make_potential
from torch import nn

from forgefield.core.errors import ModelError
from forgefield.core.structure import Structure
from forgefield.export.targets.torchscript import TorchScriptTarget
from forgefield.graph.build import build_graph
from forgefield.graph.graph import Graph
from forgefield.graph.needs import Needs
from forgefield.models.traced.gradient import differentiate, state_of
from forgefield.models.traced.sizes import Inputs, sizes_for
from forgefield.models.traced.traces import TracingWarning

EXACT = 1e-11


def molecule(n, seed=0):
    rng = np.random.default_rng(seed + n)
    grid = np.array([[i, j, k] for i in range(3) for j in range(3) for k in range(3)])[:n] * 1.4
    return Structure(rng.choice([1, 6, 8], n), grid + rng.normal(0, 0.15, (n, 3)))


def crystal():
    cell = np.array([[2.9, 0.0, 0.0], [0.7, 3.1, 0.0], [-0.4, 0.5, 3.3]])
    return Structure(np.array([14, 8]), np.array([[0.1, 0.0, 0.2], [1.6, 1.4, 1.8]]), cell, np.ones(3, bool))


def apart(n):
    """Atoms out of each other's reach."""
    return Structure(np.full(n, 6), np.arange(n)[:, None] * np.array([[9.0, 0.0, 0.0]]))


def batch(potential, *structures):
    graph = build_graph(structures, potential.needs, dtype=potential.dtype)
    species = torch.searchsorted(potential.numbers, graph.numbers)
    return Inputs(graph, graph.pair_vectors(), species, torch.bincount(species, minlength=len(potential.numbers)))


def by_autograd(potential, inputs, differentiable=True):
    architecture = potential.architecture
    return differentiate(architecture, state_of(architecture), inputs, differentiable=differentiable)


def weight_gradients(potential, term):
    """Of a loss of energies and vector gradients, by name."""
    loss = (term.energies**2).sum() + (term.vector_gradients**3).sum() + term.vector_gradients[:, 0].sum()
    named = dict(potential.architecture.named_parameters())
    return dict(zip(named, torch.autograd.grad(loss, list(named.values()), materialize_grads=True), strict=True))


def assert_same(found, wanted, tolerance=EXACT):
    for a, b in zip(found, wanted, strict=True):
        assert a.shape == b.shape
        difference, scale = ((t.detach().abs().max() if t.numel() else 0.0) for t in (a - b, b))
        assert float(difference) <= tolerance * max(1.0, float(scale))


def assert_trains_as_autograd(potential, inputs):
    found, wanted = potential.architecture(*inputs), by_autograd(potential, inputs)
    assert_same(found, wanted)
    assert_same(weight_gradients(potential, found).values(), weight_gradients(potential, wanted).values(), 1e-9)


BATCHES = [
    [molecule(5), molecule(9), crystal()],
    [molecule(14), molecule(3)],
    [crystal()],
    [molecule(1), molecule(2, 7), molecule(6), molecule(2)],
    [molecule(20)],
]


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
    sum((t**2).sum() for t in potential.architecture(*inputs)).backward()
    assert potential.architecture.embedding.grad.abs().sum() > 0
    with torch.no_grad():
        assert not any(t.requires_grad for t in potential.architecture(*inputs))


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
    assert_same([t.float() for t in found], [t.float() for t in wanted], 0.02)
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


class Detached(EnergyToy):
    """Means its detach: the traced graph cannot know."""

    def atom_energies(self, graph, vectors, species, counts):
        e = super().atom_energies(graph, vectors, species, counts)
        return e + e.detach() * e


class Moody(EnergyToy):
    """Adds a constant factor that is another one at each call from Python."""

    calls = 0

    def atom_energies(self, graph, vectors, species, counts):
        self.calls += 1
        return super().atom_energies(graph, vectors, species, counts) * (1.0 + 0.001 * (self.calls == 1))


class ByValue(EnergyToy):
    def atom_energies(self, graph, vectors, species, counts):
        e = super().atom_energies(graph, vectors, species, counts)
        return e * 2 if bool(vectors.abs().max() > 1.0) else e


class BySize(EnergyToy):
    def atom_energies(self, graph, vectors, species, counts):
        e = super().atom_energies(graph, vectors, species, counts)
        return e * 2 if graph.n_atoms < 10 else e


class ByNumber(EnergyToy):
    def atom_energies(self, graph, vectors, species, counts):
        return super().atom_energies(graph, vectors, species, counts) / int(graph.n_atoms)


class Running(EnergyToy):
    def __init__(self, settings, context):
        super().__init__(settings, context)
        self.batch_norm = nn.BatchNorm1d(settings.channels)

    def features(self, *inputs):
        return self.batch_norm(super().features(*inputs))


class Noisy(EnergyToy):
    def features(self, *inputs):
        return nn.functional.dropout(super().features(*inputs), 0.3, self.training)


@torch.library.custom_op("forgefield_tests::triple", mutates_args=())
def triple(x: torch.Tensor) -> torch.Tensor:
    return 3 * x


triple.register_fake(torch.empty_like)
triple.register_autograd(lambda _, g: triple(g))


class Kernel(EnergyToy):
    """With an operator of its own, which another program would not know."""

    def features(self, *inputs):
        return triple(super().features(*inputs))


class Column(EnergyToy):
    def atom_energies(self, *inputs):
        return super().atom_energies(*inputs).unsqueeze(1)


@pytest.mark.parametrize(
    ("architecture", "reason"), [(Moody, "energies differ by"), (ByValue, "tracing failed"), (Detached, "gradient by")]
)
def test_a_trace_that_is_wrong_is_not_used(architecture, reason):
    potential = make_potential(architecture)
    inputs = batch(potential, molecule(6), molecule(8))
    with pytest.warns(TracingWarning, match=reason):
        potential.architecture(*inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # said once
        assert_trains_as_autograd(potential, inputs)
    assert reason in potential.architecture.traces.notes[-1]


def test_what_cannot_be_traced_is_not_exported(tmp_path):
    for architecture in (ByValue, Moody):
        with pytest.raises(ModelError, match="cannot be exported"):
            TorchScriptTarget().write(make_potential(architecture), tmp_path / "model.pt", molecule(5))
    assert not list(tmp_path.iterdir())


def test_custom_operators_are_traced_but_not_exported(tmp_path):
    potential = make_potential(Kernel)
    assert_trains_as_autograd(potential, batch(potential, molecule(6), molecule(8)))
    assert "forgefield_tests.triple" in potential.architecture.traces.made()[0].module.code
    with pytest.raises(ModelError, match=r"cannot be exported.*triple.* is not an operation of PyTorch"):
        TorchScriptTarget().write(potential, tmp_path / "model.pt", molecule(5))


def test_a_detach_that_is_meant_is_harmless_without_training(tmp_path):
    potential = make_potential(Detached)
    inputs = batch(potential, molecule(6), molecule(8))
    with torch.no_grad():
        assert_same(potential.architecture(*inputs), by_autograd(potential, inputs, differentiable=False))
    assert len(potential.architecture.traces.made()) == 1
    TorchScriptTarget().write(potential, tmp_path / "model.pt", molecule(5))


def test_branches_on_sizes_are_traced_again():
    potential = make_potential(BySize)
    for structures in BATCHES + BATCHES:
        assert_trains_as_autograd(potential, batch(potential, *structures))
    notes = potential.architecture.traces.notes
    assert len(notes) == len(potential.architecture.traces.made()) == 2
    assert {"positions_0 < 10" in notes[0], "positions_0 < 10" in notes[1]} == {True, False}


def test_number_of_traces_is_bounded(monkeypatch):
    monkeypatch.setattr("forgefield.models.traced.traces.MOST_TRACES", 3)
    potential = make_potential(ByNumber)
    for n in (4, 5):
        assert_same(potential.architecture(*(inputs := batch(potential, molecule(n)))), by_autograd(potential, inputs))
    inputs = batch(potential, molecule(12))
    with pytest.warns(TracingWarning, match="3 traces do not fit"):
        potential.architecture(*inputs)
    assert_trains_as_autograd(potential, inputs)
    assert len(potential.architecture.traces.made()) == 3


def test_running_statistics_are_refused():
    """Bundles hold parameters only: a buffer that training changes would be lost."""
    potential = make_potential(Running)
    before = potential.architecture.batch_norm.running_mean.clone()
    with pytest.raises(ModelError, match=r"changes buffers: batch_norm\.running_mean"):
        potential.architecture(*batch(potential, molecule(6), molecule(8)))
    assert torch.equal(before, potential.architecture.batch_norm.running_mean)
    assert_trains_as_autograd(potential.eval(), batch(potential, molecule(6), molecule(8)))


def test_dropout_is_drawn_anew_and_shared_by_energy_and_forces():
    potential = make_potential(Noisy)
    inputs = batch(potential, molecule(6), molecule(8))
    found = []
    for function in (potential.architecture, lambda *i: by_autograd(potential, Inputs(*i)), potential.architecture):
        torch.manual_seed(1)
        found += [function(*inputs), function(*inputs)]
    assert_same(found[0], found[2])
    assert_same(found[4], found[2])
    assert_same(found[1], found[3])
    assert not torch.allclose(found[0].energies, found[1].energies)


def test_wrong_shapes_are_named():
    potential = make_potential(Column)
    with pytest.raises(ModelError, match=r"atom_energies: returned .*, 1\).*one energy per atom"):
        potential.architecture(*batch(potential, molecule(6)))
    good = make_potential()
    inputs = batch(good, molecule(6), molecule(4))
    with pytest.raises(ModelError, match="expected"):
        good.architecture(*inputs._replace(species=inputs.species[:-1]))


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
