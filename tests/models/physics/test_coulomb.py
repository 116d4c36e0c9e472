"""Coulomb sums beside closed forms and other codes; settings; what is refused."""

import numpy as np
import pytest
import torch
from physics_sums import crystal, evaluate, make, molecule
from pydantic import ValidationError

from forgefield.core.errors import ConfigError, DataError, ModelError
from forgefield.core.structure import Structure
from forgefield.models.physics.coulomb.model import COULOMB

FCC = np.array([[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
MADELUNG = {  # energy of an ion pair is -M q^2 / nearest distance; Kittel, more digits from OEIS
    "NaCl": (FCC, (11, 17), 0.5, 1.0, 0.5, 1.7475645946331821906362),
    "CsCl": (np.eye(3), (55, 17), 0.5, 1.0, 3**0.5 / 2, 1.7626747730709883979357),
    "ZnS": (FCC, (30, 16), 0.25, 2.0, 3**0.5 / 4, 1.6380550533887894237503),
}


def ionic(name, side):
    cell, numbers, place, charge, near, constant = MADELUNG[name]
    positions = np.array([[0, 0, 0], [place] * 3]) @ cell * side
    from forgefield.core.elements import symbol

    charges = {symbol(numbers[0]): charge, symbol(numbers[1]): -charge}
    expected = -constant * COULOMB * charge**2 / (near * side)
    return Structure(np.array(numbers), positions, cell * side, np.ones(3, bool)), charges, expected


@pytest.mark.parametrize("name", MADELUNG)
@pytest.mark.parametrize("side", [3.1, 5.6])
def test_madelung_constants(name, side):
    s, charges, expected = ionic(name, side)
    settings = {"method": "ewald", "charges": charges, "short_range": "kept", "accuracy": 1e-12, "cutoff": 12.0}
    out = evaluate(make("coulomb", settings, elements=sorted(s.numbers.tolist())), s)
    assert float(out.energy[0]) == pytest.approx(expected, rel=1e-11)
    pressure = torch.eye(3, dtype=torch.float64) * expected / 3  # E goes as 1 / side
    assert float((out.stress[0] + pressure).abs().max()) < 1e-9
    assert float(out.forces.abs().max()) < 1e-10


def test_the_default_accuracy_is_what_it_says():
    s, charges, expected = ionic("NaCl", 5.6)
    settings = {"method": "ewald", "charges": charges, "short_range": "kept"}
    out = evaluate(make("coulomb", settings, elements=(11, 17)), s)
    assert float(out.energy[0]) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("method", "tolerance"), [("ewald", 1e-9), ("pme", 2e-6)])
def test_where_the_sum_is_cut_does_not_matter(method, tolerance):
    s, q = crystal(), np.array([0.8, -0.5, 0.1])  # charged in all: the background too
    base = {"method": "ewald", "short_range": "kept", "accuracy": 1e-12, "cutoff": 12.0}
    whole = evaluate(make("coulomb", base), s, charges=q)
    more = {"accuracy": 1e-12} if method == "ewald" else {"accuracy": 1e-6}
    for cutoff in (8.0, 10.0):
        out = evaluate(make("coulomb", {**base, "method": method, "cutoff": cutoff, **more}), s, charges=q)
        for name in ("energy", "forces", "stress", "charges"):
            assert float((getattr(out, name) - getattr(whole, name)).abs().max()) < tolerance * COULOMB


def test_a_wide_box_is_a_molecule():
    """Ewald in a large box comes near to all pairs; a dipole leaves a difference that falls with the volume."""
    s, q = molecule(), np.random.default_rng(3).normal(size=7) * 0.3
    q -= q.mean()
    free = evaluate(make("coulomb", {"method": "simple"}), s, charges=q).energy
    found = []
    for side in (30.0, 60.0):
        boxed = Structure(s.numbers, s.positions, np.eye(3) * side, np.ones(3, bool))
        found.append(float((evaluate(make("coulomb", {"method": "ewald"}), boxed, charges=q).energy - free)[0]))
    dipole = (q[:, None] * s.positions).sum(0)
    expected = -COULOMB * 2 * np.pi / 3 * (dipole @ dipole) / 30.0**3  # Makov and Payne, conducting surroundings
    assert found[0] == pytest.approx(expected, rel=0.02)
    assert found[1] == pytest.approx(expected / 8, rel=0.02)


def test_a_charged_cell_has_the_energy_of_its_background():
    """One charge in a cube: -2.837297 k q^2 / (2 L)."""
    s = Structure(np.array([11]), np.zeros((1, 3)), np.eye(3) * 7.0, np.ones(3, bool))
    settings = {"method": "ewald", "charges": {"Na": 1.5}, "short_range": "kept", "accuracy": 1e-12}
    out = evaluate(make("coulomb", settings, elements=(11,)), s)
    assert float(out.energy[0]) == pytest.approx(-2.8372974794806 * COULOMB * 1.5**2 / 14.0, rel=1e-10)


def test_dsf_becomes_coulomb():
    s, q = molecule(), np.random.default_rng(3).normal(size=7) * 0.3
    q -= q.mean()
    plain = evaluate(make("coulomb", {"method": "simple"}), s, charges=q)
    last = np.inf
    for cutoff in (30.0, 60.0, 120.0):
        settings = {"method": "dsf", "dsf_alpha": 1e-6, "cutoff": cutoff, "dsf_self_energy": "lammps"}
        out = evaluate(make("coulomb", settings), s, charges=q)
        error = abs(float((out.energy - plain.energy)[0]))
        assert error < last / 3  # goes as 1 / cutoff^2 or faster
        last = error
        assert float((out.forces - plain.forces).abs().max()) < 10.0 / cutoff**2
    assert last < 2e-3


def test_dsf_comes_near_to_the_lattice_sum():
    s, charges, expected = ionic("NaCl", 5.6)
    errors = []
    for cutoff in (12.0, 18.0, 24.0):
        settings = {"method": "dsf", "charges": charges, "short_range": "kept", "cutoff": cutoff}
        out = evaluate(make("coulomb", {**settings, "dsf_self_energy": "lammps"}, elements=(11, 17)), s)
        errors.append(abs(float(out.energy[0]) / expected - 1))
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-5


def test_dsf_by_hand():
    s = Structure(np.array([1, 1]), np.array([[0.0, 0, 0], [5.0, 0, 0]]))
    out = evaluate(make("coulomb", {"method": "dsf"}), s, charges=[0.3, -0.4])
    from math import erfc, exp, pi, sqrt

    a, c, r = 0.2, 15.0, 5.0
    end = erfc(a * c) / c
    value = erfc(a * r) / r - end + (r - c) * (end / c + 2 * a * exp(-((a * c) ** 2)) / (sqrt(pi) * c))
    assert float(out.energy[0]) == pytest.approx(14.399645478 * 0.3 * -0.4 * value, rel=1e-8)


@pytest.mark.parametrize("r", [1.0, 3.0, 4.5, 4.7])
def test_the_short_range_is_removed(r):
    s = Structure(np.array([1, 1]), np.array([[0.0, 0, 0], [r, 0, 0]]))
    out = evaluate(make("coulomb", {"method": "simple"}), s, charges=[0.3, -0.4])
    kept = evaluate(make("coulomb", {"method": "simple", "short_range": "kept"}), s, charges=[0.3, -0.4])
    f = np.exp(1 - 1 / (1 - (r / 4.6) ** 2)) if r < 4.6 else 0.0
    assert float(kept.energy[0]) == pytest.approx(-0.12 * COULOMB / r, rel=1e-12)
    assert float(out.energy[0]) == pytest.approx(-0.12 * COULOMB / r * (1 - f), rel=1e-10)


def test_ewald_is_that_of_torch_pme():
    torchpme = pytest.importorskip("torchpme")
    s, q = crystal(), np.array([0.8, -0.5, 0.1])
    term = make("coulomb", {"method": "ewald", "short_range": "kept", "accuracy": 1e-10})
    ours = evaluate(term, s, charges=q)
    calculator = torchpme.EwaldCalculator(
        torchpme.CoulombPotential(smearing=term.width),
        lr_wavelength=0.5 * np.pi / term.longest,  # half as many waves as its documentation says
    ).double()
    from forgefield.graph.pairs import find_pairs

    pairs = find_pairs(s, term.far_cutoff)
    x, cell = (torch.tensor(a, requires_grad=True) for a in (s.positions, s.cell))
    vectors = x[pairs.second] - x[pairs.first] + torch.tensor(pairs.shift, dtype=torch.float64) @ cell
    index = torch.tensor(np.stack([pairs.first, pairs.second], 1)).long()
    charges = torch.tensor(q, requires_grad=True)
    felt = calculator(charges.unsqueeze(1), cell, x, index, vectors.norm(dim=1))
    energy = COULOMB * (charges * felt.squeeze(1)).sum()
    energy.backward()
    energy = energy.detach()
    assert float((ours.energy[0] - energy).abs()) < 1e-8
    assert float((ours.forces + x.grad).abs().max()) < 1e-8
    assert float((ours.charges - charges.grad).abs().max()) < 1e-8
    strain = x.detach().T @ x.grad + cell.detach().T @ cell.grad
    assert float((ours.stress[0] - 0.5 * (strain + strain.T)).abs().max()) < 1e-7


def test_pieces_add_up(monkeypatch):
    """Without gradients waves are summed piece by piece."""
    from forgefield.models.physics.coulomb import ewald

    term, q = make("coulomb", {"method": "ewald"}), np.array([0.8, -0.5, 0.1])
    whole = evaluate(term, crystal(), charges=q)
    monkeypatch.setattr(ewald, "LARGEST", 100)
    parts = evaluate(term, crystal(), charges=q)
    for name in ("energy", "forces", "stress", "charges"):
        assert float((getattr(whole, name) - getattr(parts, name)).abs().max()) < 1e-10


@pytest.mark.parametrize("method", ["ewald", "pme"])
def test_lattice_sums_need_a_lattice(method):
    if method == "pme":
        pytest.importorskip("torchpme")
    slab = Structure(
        np.array([11, 17]), np.array([[0.0, 0, 0], [2, 0, 0]]), np.eye(3) * 5, np.array([True, True, False])
    )
    for s in (molecule(), slab):
        with pytest.raises(DataError, match=r"periodic in three directions.*use `method: dsf`"):
            evaluate(make("coulomb", {"method": method}), s, charges=np.zeros(len(s)))


def test_all_pairs_of_a_crystal_are_refused():
    with pytest.raises(DataError, match="periodic"):
        evaluate(make("coulomb", {"method": "simple"}), crystal(), charges=np.zeros(3))


def test_a_mesh_too_fine_is_refused():
    pytest.importorskip("torchpme")
    with pytest.raises(DataError, match="mesh"):
        evaluate(make("coulomb", {"method": "pme", "accuracy": 1e-30}), crystal(), charges=np.zeros(3))


def test_missing_charges():
    with pytest.raises(ModelError, match="predicts no charges"):
        evaluate(make("coulomb", {"method": "simple"}), molecule())
    with pytest.raises(ConfigError, match="no charge for C"):
        make("coulomb", {"method": "dsf", "charges": {"H": 0.1}}, elements=(1, 6))


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"method": "direct"}, "Input should be"),
        ({"charges": {"Xx": 1.0}}, "is no element"),
        ({"charges": "guessed"}, "Input should be"),
        ({"method": "ewald", "dsf_alpha": 0.3}, "dsf_alpha belongs to"),
        ({"method": "dsf", "accuracy": 1e-5}, "accuracy belongs to"),
        ({"method": "simple", "cutoff": 10.0}, "cutoff belongs to"),
        ({"short_range": "kept", "short_range_cutoff": 4.0}, "no effect"),
        ({"method": "dsf", "cutoff": 4.0}, "larger than cutoff"),
    ],
)
def test_bad_settings(settings, word):
    with pytest.raises(ValidationError, match=word):
        make("coulomb", settings)
