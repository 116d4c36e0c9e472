"""The losses' formulas, by hand."""

import pytest
import torch
from toy import load, make_potential, make_structures

from forgefield.core.errors import ConfigError
from forgefield.train.loss import build_loss, build_term
from forgefield.train.settings import TrainSettings


@pytest.fixture(scope="module")
def case():
    batch = next(load(make_structures(6), 6).batches())
    with torch.no_grad():
        return make_potential()(batch.graph), batch.labels._replace(
            weight=torch.tensor([1.0, 2, 1, 0.5, 1, 3]).double()
        )


def test_mean_squares_as_in_mace_torch(case):
    out, labels = case
    loss = build_loss(TrainSettings(energy_weight=2, force_weight=30, stress_weight=5))
    report = loss(out, labels)
    c, n = labels.weight, labels.n_atoms.double()
    energy = (c * ((out.energy - labels.energy) / n) ** 2).mean()
    forces = (c[labels.structure].unsqueeze(1) * (out.forces - labels.forces) ** 2).mean()
    boxes = labels.has_stress
    stress = (c[boxes].reshape(-1, 1, 1) * (out.stress - labels.stress)[boxes] ** 2).mean()
    assert boxes.sum() == 2
    for name, wanted in (("energy", energy), ("forces", forces), ("stress", stress)):
        assert torch.allclose(report.terms[name], wanted, rtol=1e-13), name
    assert torch.allclose(report.total, 2 * energy + 30 * forces + 5 * stress, rtol=1e-13)


def test_other_losses(case):
    out, labels = case
    c, n = labels.weight, labels.n_atoms.double()
    settings = {"loss_energy": "mae", "loss_force": "l2mae", "energy_weight": 1, "force_weight": 1}
    terms = build_loss(TrainSettings(**settings))(out, labels).terms
    assert torch.allclose(terms["energy"], (c * ((out.energy - labels.energy) / n).abs()).mean(), rtol=1e-13)
    length = (out.forces - labels.forces).norm(dim=1)
    of_atom = labels.structure
    assert torch.allclose(terms["forces"], (c[of_atom] * length).mean(), rtol=1e-13)
    terms = build_loss(TrainSettings(loss_force="atomwisel2"))(out, labels).terms
    assert torch.allclose(terms["forces"], (c[of_atom] * n[of_atom] * length).sum() / 6, rtol=1e-13)
    terms = build_loss(TrainSettings(loss_force="mae"))(out, labels).terms
    assert torch.allclose(terms["forces"], (c[of_atom, None] * (out.forces - labels.forces).abs()).mean(), rtol=1e-13)


def test_a_weight_of_zero_leaves_the_term_out():
    assert set(build_loss(TrainSettings(energy_weight=0)).terms) == {"forces"}


def test_single_precision_is_summed_in_double(case):
    out, labels = case
    single = out._replace(forces=out.forces.float())
    report = build_loss(TrainSettings())(single, labels._replace(forces=labels.forces.float()))
    assert report.total.dtype == torch.float64


def test_a_loss_that_is_not_defined_for_a_quantity_is_refused():
    with pytest.raises(ConfigError, match=r"l2mae.*not defined for energy"):
        build_term("energy", "l2mae")
