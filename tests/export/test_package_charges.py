"""AOTInductor packages of models with charges and far pairs: inputs, checks, agreement."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from forgefield.core.errors import DataError
from forgefield.core.structure import Structure
from forgefield.export.artifact import TARGETS, export_artifacts
from forgefield.export.exportable import ExportablePotential
from forgefield.export.package_inputs import INPUTS, Asked, pack
from forgefield.export.prediction import predict
from forgefield.export.target import METADATA
from forgefield.models.potential import ARCHITECTURES, PHYSICS, build_potential

ELEMENTS = [1, 6, 8]
SMALL = {
    "aimnet2": {
        "nfeature": 4,
        "ncomb_v": 3,
        "hidden": [[16], [16], [16]],
        "aim_size": 12,
        "energy_hidden": [8, 8],
        "num_charge_channels": 2,
    },
    "mace": {"hidden_irreps": "4x0e", "max_ell": 1, "radial_mlp": [8], "r_max": 4.0, "num_interactions": 1},
}
D3 = {"functional": "wb97m", "cutoff": 8.0, "cn_cutoff": 6.0}
BY_ELEMENT = {"H": 0.3, "C": -0.1, "O": -0.6}
MODELS = {
    "charges and dispersion": ("aimnet2", {"d3": D3, "coulomb": {"method": "dsf", "cutoff": 9.0}}),
    "all pairs": ("aimnet2", {"coulomb": {"method": "simple"}}),
    "given by element": ("mace", {"d3": D3, "coulomb": {"method": "dsf", "cutoff": 9.0, "charges": BY_ELEMENT}}),
    "charges alone": ("aimnet2", {}),
    "lattice sum": ("aimnet2", {"d3": D3, "coulomb": {"method": "ewald", "cutoff": 6.0}}),
    "charges given": ("mace", {"coulomb": {"method": "dsf", "cutoff": 9.0, "charges": "given"}}),
}


def make(name, dtype=torch.float64):
    backend, physics = MODELS[name]
    return build_potential(
        backend,
        ARCHITECTURES.entry(backend).settings.model_validate(SMALL[backend]),
        elements=ELEMENTS,
        reference_energies={"default": {1: -13.6, 6: -1029.0, 8: -2041.0}},
        avg_num_neighbors=8.0,
        physics={term: PHYSICS.entry(term).settings.model_validate(values) for term, values in physics.items()},
        dtype=dtype,
        seed=3,
    )


def molecule(n=7, seed=0, charge=0.0):
    rng = np.random.default_rng(seed)
    grid = np.array([[i, j, k] for i in range(3) for j in range(3) for k in range(3)])[:n] * 1.4
    numbers = rng.choice(ELEMENTS, n)
    odd = int(numbers.sum() - charge) % 2
    positions = grid + rng.normal(0, 0.15, (n, 3))
    return Structure(numbers, positions, charge=charge, multiplicity=1 + odd, origin=f"molecule {n}")


def crystal(factor=1.0, charge=0.0):
    cell = factor * np.array([[3.9, 0.0, 0.0], [0.7, 4.1, 0.0], [-0.4, 0.5, 4.3]])
    positions = np.array([[0.1, 0.0, 0.2], [1.9, 0.2, 2.3], [2.0, 2.4, 0.1]])
    odd = 1 + int(charge) % 2
    return Structure(np.array([6, 8, 8]), positions, cell, np.ones(3, bool), charge=charge, multiplicity=odd)


def lone():
    return Structure(np.array([8]), np.zeros((1, 3)), charge=0.0, multiplicity=3)


def batch_for(potential):
    made = [molecule(), molecule(5, 1, charge=1.0), crystal(), lone(), molecule(9, 2, charge=-2.0), crystal(1.3, -1.0)]
    made = [dataclasses.replace(s, labels={"charges": 0.3 * np.cos(np.arange(len(s)))}) for s in made]
    return [s for s in made if potential.takes(s.pbc.tolist())]


def run(module, structures, asked):
    with torch.no_grad():
        return module(*pack(structures, asked))


@pytest.mark.parametrize("name", MODELS)
def test_what_is_recorded_equals_the_model(name):
    """The part that builds the graph, run as it is; no compilation."""
    potential = make(name)
    module, asked = ExportablePotential(potential), Asked.by(potential.heads, potential.needs)
    names = list(potential.targets.quantities)
    for some in (batch_for(potential), *([s] for s in batch_for(potential))):
        energy, forces, stress, atoms, *more = (t.numpy() for t in run(module, some, asked))
        expected = predict(potential, some)
        assert np.abs(energy - [e.energy for e in expected]).max() < 1e-10
        assert np.abs(forces - np.concatenate([e.forces for e in expected])).max() < 1e-10
        assert np.abs(stress - [e.stress for e in expected]).max() < 1e-10
        assert np.abs(atoms - np.concatenate([e.atom_energies for e in expected])).max() < 1e-10
        assert len(more) == len(names)
        for quantity, value in zip(names, more, strict=True):
            per_atom = potential.targets.quantities[quantity].per == "atom"
            wanted = [e.extra[quantity] for e in expected]
            assert np.abs(value - (np.concatenate(wanted) if per_atom else np.stack(wanted))).max() < 1e-10


def test_inputs_are_those_that_the_model_needs():
    names = {name: Asked.by(["default"], make(name).needs).further for name in MODELS}
    both = ("charge", "multiplicity")
    assert names["charges alone"] == both
    assert names["all pairs"] == (*both, "far_edge_index", "far_shifts")
    assert names["given by element"] == ("far_edge_index", "far_shifts")
    assert names["charges given"] == ("far_edge_index", "far_shifts", "atom_charges")
    for name in MODELS:
        asked = Asked.by(["default"], make(name).needs)
        about = json.loads(json.dumps(asked.to_json() | {"heads": ["default"], "cutoff": asked.cutoff}))
        assert Asked.from_json(about) == asked
    assert Asked.from_json({"heads": ["default"], "cutoff": 4.0}).names == INPUTS  # packages of earlier versions


def test_charges_and_multiplicities_have_effect():
    potential = make("charges and dispersion")
    module, asked = ExportablePotential(potential), Asked.by(potential.heads, potential.needs)
    inputs = dict(zip(asked.names, pack([molecule()], asked), strict=True))
    with torch.no_grad():
        neutral = module(*inputs.values())
        charged = module(*{**inputs, "charge": inputs["charge"] + 1.0}.values())
        triplet = module(*{**inputs, "multiplicity": inputs["multiplicity"] + 2.0}.values())
    total = lambda found: float(found[4].sum())  # noqa: E731
    assert total(charged) - total(neutral) == pytest.approx(1.0, abs=1e-5)
    assert abs(float(charged[0] - neutral[0])) > 1e-6
    assert abs(float(triplet[0] - neutral[0])) > 1e-6


def test_a_charge_that_is_not_stated_is_refused():
    potential = make("charges alone")
    with pytest.raises(DataError, match="total charge, which is not stated"):
        pack([Structure(np.array([8]), np.zeros((1, 3)))], Asked.by(potential.heads, potential.needs))


WRONG = ["one direction", "none at all", "shorter than the near list", "self edge", "between structures"]


@pytest.mark.parametrize("name", ["charges and dispersion", "all pairs"])
@pytest.mark.parametrize("wrong", WRONG)
def test_far_pairs_that_cannot_be_right_give_nan(name, wrong):
    potential = make(name)
    module, asked = ExportablePotential(potential), Asked.by(potential.heads, potential.needs)
    inputs = dict(zip(asked.names, pack([molecule(), molecule(5, 1)], asked), strict=True))
    edges, shifts = inputs["far_edge_index"].clone(), inputs["far_shifts"].clone()
    keep = torch.ones(edges.shape[1], dtype=torch.bool)
    if wrong == "one direction":
        keep = edges[0] < edges[1]
    elif wrong == "none at all":
        keep[:] = False
    elif wrong == "shorter than the near list":
        x = inputs["positions"]
        keep = (x[edges[0]] - x[edges[1]]).norm(dim=1) < 3.0
    elif wrong == "self edge":
        edges[:, 0] = 0
    else:
        edges[1, 0] = 7 if edges[0, 0] < 7 else 0
    changed = {**inputs, "far_edge_index": edges[:, keep], "far_shifts": shifts[keep]}
    with torch.no_grad():
        assert all(bool(torch.isfinite(t).all()) for t in module(*inputs.values()))
        assert all(bool(torch.isnan(t).all()) for t in module(*changed.values()))


def test_a_crystal_given_to_a_model_of_molecules_gives_nan():
    potential = make("all pairs")
    module, asked = ExportablePotential(potential), Asked.by(potential.heads, potential.needs)
    inputs = dict(zip(asked.names, pack([molecule()], asked), strict=True))
    other = {**inputs, "cell": 20.0 * torch.eye(3, dtype=torch.float64).unsqueeze(0)}
    with torch.no_grad():
        assert all(bool(torch.isfinite(t).all()) for t in module(*inputs.values()))
        assert all(bool(torch.isnan(t).all()) for t in module(*other.values()))


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-10), (torch.float32, 2e-4)])
@pytest.mark.parametrize("name", ["charges and dispersion", "all pairs", "lattice sum", "charges given"])
def test_compiled_package_equals_the_model(name, dtype, limit, tmp_path):
    """Energies, forces, charges and moments of single structures and of a batch; the dictionary file beside it."""
    from torch._inductor import aoti_load_package

    potential = make(name, dtype)
    structures = batch_for(potential)
    targets = ["aotinductor", "aimnet_jit" if name in ("charges and dispersion", "all pairs") else "torchscript"]
    made = export_artifacts(potential, tmp_path / "a", targets=targets, provenance={}, sample=structures)
    assert {"aotinductor_batch", *targets} <= set(made.certificates)
    target = TARGETS.entry("aotinductor").build()
    found = target.read_batched(made.path("aotinductor"))(structures)
    for got, expected in zip(found, predict(potential, structures), strict=True):
        assert set(got.extra) == set(expected.extra)
        scale = max(1.0, abs(expected.energy) / 1e4)
        assert abs(got.energy - expected.energy) < limit * scale
        assert np.abs(got.forces - expected.forces).max() < limit
        for quantity, value in expected.extra.items():
            assert np.abs(got.extra[quantity] - value).max() < limit * max(1.0, np.abs(value).max())
    package = aoti_load_package(str(made.path("aotinductor")))
    if name == "lattice sum":
        asked = Asked.by(potential.heads, potential.needs)
        given = dict(zip(asked.names, pack(structures[:1], asked), strict=True))
        given["cell"] = torch.zeros_like(given["cell"])
        assert all(bool(torch.isnan(t).all()) for t in package(*given.values()))
    about = json.loads(package.get_metadata()[METADATA])
    given = name == "charges given"
    assert about["needs"] == ([] if given else ["charge", "multiplicity"])
    last = ", atom_charges (N) float64" if given else ""
    assert about["inputs"].endswith(f"far_edge_index (2,F), far_shifts (F,3) float64{last}; integers are int64")
    further = "" if given else ", charges (N)"
    assert about["outputs"].startswith(f"energy (S), forces (N,3), stress (S,3,3), atom_energies (N){further}")
