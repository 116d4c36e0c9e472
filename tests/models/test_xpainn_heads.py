"""What XPaiNN predicts beside energies: rotation, translation, sums, which target picks which head."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from forgefield.core.errors import DataError, ModelError
from forgefield.core.quantities import QUANTITIES, Quantity
from forgefield.core.structure import Structure
from forgefield.graph.build import build_graph
from forgefield.models.architectures.xpainn.settings import XpainnSettings
from forgefield.models.bundle import load_bundle, save_bundle
from forgefield.models.potential import build_potential
from forgefield.models.targets import Aims

ELEMENTS = [6, 8, 14]
SMALL = {"node_dim": 8, "node_irreps": "6x0e + 5x1o + 3x2e + 2x3o", "num_basis": 6, "cutoff": 3.5, "hidden_dim": 7}
EXACT = 1e-9


def free(name, per="structure", shape=(), **more):
    return Quantity(name, "", per, shape, "for tests", "total", **more)


ARROWS, CUBE = free("arrows", "atom", (3,), rotates="vector"), free("cube", "structure", (3, 3, 3), rotates="tensor")
GAP, PAIR, METAL = free("gap"), free("pair", "atom", (2,)), free("metal", kind="class")
EXTENT, MU = free("spatial_extent"), free("dipole_magnitude")
KNOWN = [QUANTITIES[name] for name in ("charges", "spin_charges", "dipole", "polarizability", "quadrupole")]


def make(targets, energy=False, dtype=torch.float64, **settings):
    return build_potential(
        "xpainn",
        XpainnSettings.model_validate(SMALL | settings),
        elements=ELEMENTS,
        reference_energies={"default": dict.fromkeys(ELEMENTS, -3.0)},
        avg_num_neighbors=5.0,
        aims=Aims(tuple(targets), energy),
        dtype=dtype,
        seed=4,
    )


def molecule(n=6, seed=0, charge=0, multiplicity=1, turn=None, move=0.0):
    rng = np.random.default_rng(seed)
    grid = np.array([[i, j, k] for i in range(3) for j in range(3) for k in range(3)])[:n] * 1.3
    x = grid + rng.normal(0, 0.2, (n, 3)) + move
    x = x if turn is None else x @ turn.T
    return Structure(rng.choice(ELEMENTS, n), x, charge=charge, multiplicity=multiplicity)


def predict(potential, *structures):
    with torch.no_grad():
        return potential(build_graph(structures, potential.needs, dtype=potential.dtype))


def close(a, b, tolerance=EXACT):
    return float((a - b).abs().max()) < tolerance


@pytest.fixture(scope="module")
def potential():
    return make([*KNOWN, ARROWS, CUBE, GAP, PAIR, METAL, EXTENT])


@pytest.mark.parametrize("sign", [1, -1])
def test_vectors_and_tensors_turn(potential, sign):
    turn = sign * np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    a, b = predict(potential, molecule()).extra, predict(potential, molecule(turn=turn)).extra
    m = torch.as_tensor(turn)
    assert all(
        float(a[name].abs().max()) > 1e-4 for name in ("dipole", "polarizability", "quadrupole", "arrows", "cube")
    )
    for name in ("dipole", "arrows"):
        assert close(a[name] @ m.T, b[name])
    for name in ("polarizability", "quadrupole"):
        assert close(m @ a[name] @ m.T, b[name])
        assert close(a[name], a[name].transpose(1, 2))
    assert close(torch.einsum("ai,bj,ck,sijk->sabc", m, m, m, a["cube"]), b["cube"])
    for name in ("charges", "spin_charges", "gap", "pair", "metal", "spatial_extent"):
        assert close(a[name], b[name])


def test_batches_equal_single_structures(potential):
    structures = [molecule(), molecule(4, seed=2, charge=2), molecule(1)]
    batch, singles = predict(potential, *structures).extra, [predict(potential, s).extra for s in structures]
    for name, value in batch.items():
        assert close(value, torch.cat([one[name] for one in singles])), name
    assert batch["metal"].min() > 0
    assert batch["metal"].max() < 1
    assert batch["pair"].shape == (11, 2)


def test_charges_sum_to_what_is_stated(potential):
    structures = [molecule(charge=2, multiplicity=3), molecule(4, charge=-2)]
    found = predict(potential, *structures).extra
    assert close(found["charges"].split([6, 4])[0].sum(), torch.tensor(2.0))
    assert close(found["charges"].split([6, 4])[1].sum(), torch.tensor(-2.0))
    assert close(found["spin_charges"].split([6, 4])[0].sum(), torch.tensor(2.0))
    loose = make([QUANTITIES["charges"]], conservation=False)
    assert abs(float(predict(loose, molecule(charge=2)).extra["charges"].sum()) - 2.0) > 0.1
    assert loose.needs.electrons == ()
    with pytest.raises(DataError, match="needs the total charge"):
        predict(potential, Structure(np.array([6]), np.zeros((1, 3)), multiplicity=1))


def test_dipoles_move_with_the_total_charge(potential):
    for charge in (0, -2):
        here, there = (predict(potential, molecule(charge=charge, move=t)).extra for t in (0.0, 2.5))
        assert close(there["dipole"] - here["dipole"], torch.full((1, 3), 2.5 * charge, dtype=torch.float64))
        for name in ("polarizability", "quadrupole", "spatial_extent", "arrows"):
            assert close(here[name], there[name])


def test_lengths_and_traces():
    potential = make([QUANTITIES["dipole"], QUANTITIES["polarizability"]], magnitude=True, isotropic=True)
    found = predict(potential, molecule(), molecule(3, seed=5)).extra
    assert close(found["dipole_magnitude"], found["dipole"].norm(dim=1))
    assert close(found["isotropic_polarizability"], found["polarizability"].diagonal(dim1=1, dim2=2).mean(1))
    only = make([MU, free("isotropic_polarizability")])
    a, b = (predict(only, molecule(turn=turn)).extra for turn in (None, -np.eye(3)[[1, 2, 0]]))
    assert list(a) == ["dipole_magnitude", "isotropic_polarizability"]
    assert all(close(a[name], b[name]) for name in a)
    assert float(a["dipole_magnitude"]) > 0


def test_energies_and_targets_are_learned_together():
    """One ordinary backward through a trace reaches every weight; without one there is a warning, which is an error."""
    potential = make([*KNOWN, ARROWS, CUBE, GAP, PAIR, EXTENT], energy=True, charge_embed=True, spin_embed=True)
    structures = [molecule(charge=2, multiplicity=3), molecule(4, seed=3, charge=-2), molecule(5, seed=7)]
    out = potential(build_graph(structures, potential.needs, dtype=torch.float64))
    sum((v**2).sum() for v in (out.energy, out.forces, *out.extra.values())).backward()
    dead = [n for n, p in potential.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)]
    assert dead == []
    assert any(note.startswith("traced") for note in potential.architecture.traces.notes)
    assert "heads.made.dipole.tensors.first.weights.0" in potential.architecture.head_parameters()


def test_disk_keeps_it(potential, tmp_path):
    save_bundle(potential, tmp_path, provenance={})
    again = load_bundle(tmp_path)
    a, b = predict(potential, molecule()).extra, predict(again, molecule()).extra
    assert sorted(a) == sorted(b)
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("settings", [{"charge_embed": True}, {"spin_embed": True, "activation": "softplus"}])
def test_electrons_have_no_effect_where_there_are_none_to_tell(settings):
    told = make([GAP], **settings)
    ignorant = make([GAP], **{k: v for k, v in settings.items() if k == "activation"})
    shared = {n: v for n, v in told.state_dict().items() if n in ignorant.state_dict()}
    ignorant.load_state_dict(shared)
    plain, ion = molecule(), molecule(charge=-2, multiplicity=3)
    assert close(predict(told, plain).extra["gap"], predict(ignorant, plain).extra["gap"], 1e-14)
    assert not close(predict(told, ion).extra["gap"], predict(ignorant, ion).extra["gap"], 1e-3)
    missing = Structure(plain.numbers, plain.positions)
    with pytest.raises(DataError, match="which is not stated"):
        predict(told, missing)


@pytest.mark.parametrize(
    ("targets", "settings", "message"),
    [
        ([QUANTITIES["dipole"]], {"output_modes": ["polar"]}, "does not name dipole"),
        ([], {"output_modes": ["dipole"]}, "nothing trains the output mode dipole"),
        ([QUANTITIES["dipole"]], {"node_irreps": "8x0e + 4x2e"}, "needs 1o among node_irreps"),
        ([QUANTITIES["polarizability"]], {"hidden_irreps": "8x2e"}, "needs 0e among hidden_irreps"),
        ([GAP], {"hidden_irreps": "8x2e"}, "hidden_irreps has an effect on"),
        ([GAP], {"conservation": False}, "conservation has an effect on"),
        ([GAP], {"magnitude": True}, "magnitude needs the dipole"),
        ([GAP], {"isotropic": True}, "isotropic needs the polarizability"),
        ([QUANTITIES["dipole"], MU], {"magnitude": True}, "follows from the dipole"),
        ([free("odd", shape=(3, 2), rotates="tensor")], {}, "3 numbers along each"),
    ],
)
def test_what_cannot_be_is_refused(targets, settings, message):
    with pytest.raises(ModelError, match=message) as caught:
        make(targets, **settings)
    assert caught.value.where
    assert caught.value.fix


def test_output_modes_may_be_one_name_or_the_published_ones():
    assert make([GAP], output_modes="scalar").settings.output_modes == ["scalar"]
    found = make([QUANTITIES["charges"]], energy=True, output_modes=["energy", "atomic_charges"])
    assert list(found.architecture.extra_quantities()) == ["charges"]
    alone = make([], energy=True, output_modes=["energy", "charges"])  # for physics terms that use charges
    assert list(alone.architecture.extra_quantities()) == ["charges"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"node_irreps": "8x1e"}, "write 8x1o"),
        ({"node_irreps": "8x5o"}, "degrees up to 4"),
        ({"node_irreps": "many"}, "cannot read 'many'"),
        ({"activation": "relu"}, "forces would jump"),
        ({"cutoff_fn": "flat"}, "use polynomial"),
        ({"embed_basis": "one-hot", "aux_basis": "aux28"}, "aux_basis has an effect only"),
        ({"output_modes": ["energy", "energy"]}, "each mode once"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValidationError, match=message):
        XpainnSettings.model_validate(settings)


OTHERS = {
    "node_dim": 9,
    "node_irreps": "6x0e + 5x1o + 4x2e",
    "embed_basis": "gfn1-xtb",
    "aux_basis": "aux28",
    "num_basis": 7,
    "rbf_kernel": "gaussian",
    "cutoff": 3.4,
    "cutoff_fn": "cosine",
    "action_blocks": 2,
    "activation": "softplus",
    "layer_norm": False,
    "softness": 0.2,
    "charge_embed": True,
    "spin_embed": True,
    "output_modes": ["charges", "dipole", "polar"],
    "hidden_dim": 8,
    "hidden_irreps": "8x0e + 8x1o + 8x2e",
    "conservation": False,
    "magnitude": True,
    "isotropic": True,
    "ewald": {},
}


@pytest.mark.parametrize("key", sorted(OTHERS))
def test_every_setting_has_an_effect(key):
    assert set(OTHERS) == set(XpainnSettings.model_fields)
    targets, ion = [QUANTITIES[n] for n in ("charges", "dipole", "polarizability")], molecule(charge=2, multiplicity=3)
    usual, other = make(targets), make(targets, **{key: OTHERS[key]})
    if key == "output_modes":
        assert make([], energy=True, output_modes=["energy", "charges"]).architecture.extra_quantities()
        return
    shared = {n: v for n, v in other.state_dict().items() if n in usual.state_dict()}
    if {n: v.shape for n, v in shared.items()} == {n: v.shape for n, v in usual.state_dict().items()}:
        other.load_state_dict(usual.state_dict(), strict=False)
    a, b = predict(usual, ion).extra, predict(other, ion).extra
    assert sorted(a) != sorted(b) or any(not close(a[name], b[name], 1e-6) for name in a)
