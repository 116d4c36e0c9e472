"""What a trace cannot hold is noticed: told, refused, or left to automatic differentiation."""

import warnings

import pytest
import torch
from energy_toy import (
    BATCHES,
    EnergyToy,
    assert_same,
    assert_trains_as_autograd,
    batch,
    by_autograd,
    make_potential,
    molecule,
)
from torch import nn

from forgefield.core.errors import ModelError
from forgefield.export.targets.torchscript import TorchScriptTarget
from forgefield.models.traced.sizes import Inputs
from forgefield.models.traced.traces import TracingWarning


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
