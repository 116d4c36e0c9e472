"""Charges that a traced architecture predicts: trained on, and used by physics terms through their response."""

import pytest
import torch
from energy_toy import BATCHES, EnergyToy, apart, assert_same, batch, make_potential, molecule
from torch import nn

from forgefield.core.errors import ModelError
from forgefield.core.quantities import QUANTITIES
from forgefield.graph.segment import sum_by
from forgefield.models.traced.gradient import Predictions, differentiate, state_of


class Charged(EnergyToy):
    """Charges of each structure sum to its total charge."""

    def __init__(self, settings, context):
        super().__init__(settings, context)
        self.electronegativity = nn.Linear(settings.channels, 1)

    def extra_quantities(self):
        return {"charges": QUANTITIES["charges"]}

    def predictions(self, graph, vectors, species, counts):
        charges = self.electronegativity(self.features(graph, vectors, species)).squeeze(1)
        ones, n = torch.ones_like(charges), graph.n_structures
        excess = (sum_by(charges, graph.structure, n) - graph.charge) / sum_by(ones, graph.structure, n)
        charges = charges - excess.index_select(0, graph.structure)
        energies = self.atom_energies(graph, vectors, species, counts)
        return Predictions(energies + 0.3 * charges**2, {"charges": charges})


def physics(charges):
    """An energy of the charges."""
    rows = torch.arange(charges.shape[0], dtype=charges.dtype)
    return (torch.sin(rows) * charges**2 + torch.cos(rows) * charges).sum()


def respond(charges):
    rows = torch.arange(charges.shape[0], dtype=charges.dtype)
    return 2 * torch.sin(rows) * charges + torch.cos(rows)


def loss_gradients(potential, term):
    loss = (term.vector_gradients**3).sum() + (term.charge_gradients**2).sum() + (term.extra["charges"] ** 3).sum()
    named = dict(potential.architecture.named_parameters())
    return torch.autograd.grad(loss + (term.energies**2).sum(), list(named.values()), materialize_grads=True)


def plain(potential, inputs):
    architecture = potential.architecture
    return differentiate(architecture, state_of(architecture), inputs, differentiable=True, respond=respond)


@pytest.mark.parametrize("structures", [*BATCHES[:3], [molecule(1)], [apart(3)]])
def test_predictions_and_response_are_those_of_autograd(structures):
    potential = make_potential(Charged)
    inputs = batch(potential, *structures)
    found, wanted = potential.architecture(*inputs, respond), plain(potential, inputs)
    assert found.charge_gradients is not None
    assert_same(found, wanted)
    assert_same(loss_gradients(potential, found), loss_gradients(potential, wanted), 1e-9)
    assert all(note.startswith("traced") for note in potential.architecture.traces.notes)


def test_both_parts_together_are_the_gradient_of_the_whole_energy():
    """Each pair vector is moved: energies plus physics of the charges, by central differences."""
    potential = make_potential(Charged)
    inputs = batch(potential, molecule(5), molecule(4))
    with torch.no_grad():
        term = potential.architecture(*inputs, respond)
        for pair, axis in ((0, 0), (3, 2), (7, 1)):
            totals = []
            for step in (1e-5, -1e-5):
                moved = inputs.vectors.clone()
                moved[pair, axis] += step
                there = potential.architecture(*inputs._replace(vectors=moved))
                totals.append(float(there.energies.sum() + physics(there.extra["charges"])))
            slope = (totals[0] - totals[1]) / 2e-5
            assert abs(float(term.vector_gradients[pair, axis] + term.charge_gradients[pair, axis]) - slope) < 1e-8


def test_response_is_asked_for_once_and_not_kept():
    """Another function at each call: the trace holds none."""
    potential = make_potential(Charged)
    inputs = batch(potential, molecule(6), molecule(4))
    asked = []

    def count(factor):
        def answer(charges):
            asked.append(factor)
            return factor * torch.ones_like(charges)

        return answer

    with torch.no_grad():
        potential.architecture(*inputs, count(1.0))
        asked.clear()
        one, two = (potential.architecture(*inputs, count(f)).charge_gradients for f in (1.0, 2.0))
    assert asked == [1.0, 2.0]
    assert_same([2 * one], [two])
    assert potential.architecture(*inputs).charge_gradients is None


def test_predictions_go_through_the_potential_in_the_order_of_the_atoms():
    potential = make_potential(Charged)
    inputs = batch(potential, molecule(6), molecule(4))
    out = potential(inputs.graph)
    totals = torch.stack([part.sum() for part in out.extra["charges"].split([6, 4])])
    assert_same([totals], [torch.zeros(2, dtype=torch.float64)])


def test_charges_that_are_not_predicted_are_missed():
    potential = make_potential(EnergyToy)
    with pytest.raises(ModelError, match="predicts no charges"):
        potential.architecture(*batch(potential, molecule(6), molecule(4)), respond)
