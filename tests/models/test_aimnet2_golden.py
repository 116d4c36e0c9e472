"""AIMNet2 with the same weights as the aimnet package, in float64: energies, forces, charges, moments."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from forgefield.app.physics_block import physics_settings
from forgefield.core.errors import ModelError
from forgefield.core.structure import Structure
from forgefield.core.units import BOHR, HARTREE
from forgefield.engines.backends.aimnet import convert
from forgefield.engines.backends.exported import read_export
from forgefield.graph.build import build_graph
from forgefield.kernels.choice import kernels
from forgefield.models.bundle import with_physics

GOLDEN = Path(__file__).parents[1] / "golden" / "aimnet"
CASES = sorted(folder.name for folder in GOLDEN.iterdir())
EXACT = 1e-9
CONSTANT_OF_PACKAGE = (
    27.211386024367243 * 0.5291772105638411
)  # e^2 / (4 pi eps0), eV Å; ours is CODATA 2018, 8e-9 larger
OF_PACKAGE = [(0, 0), (1, 1), (2, 2), (0, 1), (1, 2), (2, 0)]  # components of its quadrupole


def load(case):
    model, arrays = read_export(GOLDEN / case)
    with np.load(GOLDEN / case / "structures.npz", allow_pickle=False) as file:
        s = dict(file)
    cuts = zip(s["ptr"][:-1], s["ptr"][1:], s["charge"], s["multiplicity"], strict=True)
    structures = [
        Structure(s["numbers"][i:j], s["positions"][i:j], charge=q, multiplicity=int(m)) for i, j, q, m in cuts
    ]
    with np.load(GOLDEN / case / "expected.npz", allow_pickle=False) as file:
        return convert(model, arrays), structures, dict(file)


def predict(potential, structures):
    with torch.no_grad():
        return potential(build_graph(structures, potential.needs, dtype=torch.float64))


def values(out):
    found = {"energy": out.energy, "forces": out.forces, **out.extra}
    found["quadrupole"] = torch.stack([out.extra["quadrupole"][:, a, b] for a, b in OF_PACKAGE], 1)
    return {name: value.numpy() for name, value in found.items()}


def assert_agrees(found, expected, prefix=""):
    names = [name for name in found if prefix + name in expected]
    assert {"energy", "forces", "charges", "dipole", "quadrupole"} <= set(names)
    for name in names:
        assert np.abs(found[name] - expected[prefix + name]).max() < EXACT, name


@pytest.mark.parametrize("choice", ["auto", "plain"])
@pytest.mark.parametrize("case", CASES)
def test_agrees_with_the_package(case, choice):
    """All molecules in one batch, neutral and charged, of multiplicity 1 to 4, against the package one by one."""
    potential, structures, expected = load(case)
    assert np.abs(expected["forces"]).max() > 0.1
    with kernels(choice):
        found = values(predict(potential, structures))
    assert_agrees(found, expected)
    assert ("spin_charges" in found) == ("open" in case)
    if "open" in case:
        assert_agrees({name: found[name] for name in found}, expected)
        assert np.abs(found["spin_charges"] - expected["spin_charges"]).max() < EXACT


@pytest.mark.parametrize("case", CASES)
def test_flat_dense_and_single_are_the_same(case):
    """A batch of equal sizes equals the package's dense batch, one of all sizes its flat list, and both ours alone."""
    potential, structures, expected = load(case)
    assert_agrees(values(predict(potential, structures)), expected, "flat_")
    same = [s for s in structures if len(s) == len(structures[0])]
    assert len(same) > 3
    dense = values(predict(potential, same))
    assert_agrees(dense, expected, "dense_")
    singles = [values(predict(potential, [s])) for s in same]
    for name, value in dense.items():
        assert np.abs(value - np.concatenate([one[name] for one in singles])).max() < EXACT, name


def test_moments_about_the_centre_of_mass():
    potential, structures, expected = load("closed")
    settings = potential.settings.model_copy(update={"moments_about": "mass"})
    potential.architecture.settings = settings
    found = predict(potential, structures).extra["dipole"].numpy()
    neutral = [s.charge == 0 for s in structures]
    assert np.abs(found - expected["dipole_mass"]).max() < 1e-3  # the package's masses have fewer digits than ASE's
    assert np.abs(found[neutral] - expected["dipole"][neutral]).max() < 1e-5  # neutral but for the softened division
    assert np.abs(found - expected["dipole"]).max() > 0.01


def test_charges_sum_to_what_is_stated():
    potential, structures, _ = load("open")
    out = predict(potential, structures)
    sizes = [len(s) for s in structures]
    for name, wanted in (
        ("charges", [s.charge for s in structures]),
        ("spin_charges", [s.multiplicity - 1 for s in structures]),
    ):
        sums = torch.stack([part.sum() for part in out.extra[name].split(sizes)]).numpy()
        assert np.abs(sums - wanted).max() < 1e-3  # 1e-6 softens the division


def test_periodic_structures_have_no_moments():
    potential, structures, _ = load("closed")
    s = structures[4]
    boxed = Structure(s.numbers, s.positions, np.eye(3) * 20, np.ones(3, bool), charge=0.0)
    out = predict(potential, [boxed, s])
    assert out.extra["dipole"][0].abs().max() == 0
    assert out.extra["quadrupole"][1].abs().max() > 0
    assert float((out.energy[0] - out.energy[1]).abs()) < EXACT


def test_parts_that_are_not_ours_are_refused():
    model, arrays = read_export(GOLDEN / "closed")
    with pytest.raises(ModelError, match="the term tail"):
        convert({**model, "physics": {"tail": {}}}, arrays)
    with pytest.raises(ModelError, match=r"coulomb|Coulomb"):
        convert({**model, "physics": {"coulomb": {"rc": 4.6, "envelope": "cosine", "method": "simple"}}}, arrays)


def test_golden_files_say_where_they_come_from():
    for case in CASES:
        meta = json.loads((GOLDEN / case / "meta.json").read_text())
        assert meta["command"] == "python scripts/oracle aimnet"
        assert meta["versions"]["aimnet"] == "0.2.5"
        assert meta["dense_against_flat"] < 1e-12


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("method", ["simple", "dsf"])
def test_coulomb_agrees_with_the_package(case, method):
    """The package's long-range Coulomb energy of predicted charges, without the short range, and its forces."""
    potential, structures, expected = load(case)
    own = {"dsf_self_energy": "aimnet"} if method == "dsf" else {}
    terms = physics_settings({"coulomb": {"method": method, **own}})
    found = values(predict(with_physics(potential, terms), structures))
    for name in ("energy", "forces"):
        change = (expected[f"{method}_{name}"] - expected[name]) * HARTREE * BOHR / CONSTANT_OF_PACKAGE
        assert np.abs(change).max() > 1e-3
        assert np.abs(found[name] - (expected[name] + change)).max() < EXACT, name
