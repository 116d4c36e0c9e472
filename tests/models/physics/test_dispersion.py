"""D3 and D4 beside the Fortran programs, names of functionals, settings."""

import itertools
import json
import tomllib
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from physics_sums import crystal, evaluate, make, molecule
from pydantic import ValidationError

from forgefield.core.errors import ConfigError, ModelError
from forgefield.core.structure import Structure
from forgefield.core.units import BOHR, HARTREE

pytest.importorskip("tad_dftd3")
from forgefield.models.physics.d3.tables import damping_of, functionals

GOLDEN = Path(__file__).parents[2] / "golden" / "dispersion"
with np.load(GOLDEN / "structures.npz", allow_pickle=False) as _file:
    GIVEN = {k: _file[k] for k in _file.files}
with np.load(GOLDEN / "expected.npz", allow_pickle=False) as _file:
    EXPECTED = {k: _file[k] for k in _file.files}
NAMES = sorted({key.split("/")[0] for key in GIVEN})
CRYSTALS = [name for name in NAMES if GIVEN[f"{name}/cell"].any()]
METHODS = sorted({key.split("/")[1] for key in EXPECTED if key.startswith("d3/")})
AS_S_DFTD3 = {"cutoff": 60 * BOHR, "cutoff_width": 0, "cn_cutoff": 40 * BOHR, "cn_cutoff_width": 0}
AS_DFTD4 = {"cutoff": 60 * BOHR, "three_body_cutoff": 40 * BOHR, "cn_cutoff": 30 * BOHR, "cutoff_width": 0}
SLOW = {"copper", "silicon", "graphite"}  # a second or more each with the three-body cutoff of dftd4


def structure(name):
    numbers, positions, cell = (GIVEN[f"{name}/{key}"] for key in ("numbers", "positions", "cell"))
    return Structure(numbers, positions * BOHR, cell * BOHR, np.full(3, bool(cell.any())))


def errors(term, name, key):
    """Largest differences from the program in Hartree and Bohr: energy, gradient, virial."""
    out = evaluate(term, structure(name))
    energy = abs(float(out.energy[0]) / HARTREE - float(EXPECTED[f"{key}/energy"]))
    gradient = np.abs(-out.forces.numpy() * BOHR / HARTREE - EXPECTED[f"{key}/gradient"]).max()
    virial = np.abs(out.stress[0].numpy() / HARTREE - EXPECTED[f"{key}/virial"]).max()
    return energy, gradient, virial


D3_CASES = [(m, n) for m, n in itertools.product(METHODS, NAMES) if m == "pbe" or n not in CRYSTALS]


@pytest.mark.parametrize(("method", "name"), D3_CASES)
def test_d3_is_that_of_s_dftd3(method, name):
    elements = sorted(set(GIVEN[f"{name}/numbers"].tolist()))
    term = make("d3", {"functional": method, **AS_S_DFTD3}, elements=elements)
    for error in errors(term, name, f"d3/{method}/{name}"):
        assert error < 1e-8  # Hartree; of virials up to 0.5


@pytest.mark.parametrize("method", ["pbe", "b3lyp", "tpss"])
@pytest.mark.parametrize("name", [n for n in NAMES if n not in SLOW | {"gold_complex"}])
def test_d4_is_that_of_dftd4(method, name):
    pytest.importorskip("dftd4")
    term = make("d4", {"functional": method, **AS_DFTD4})
    for error in errors(term, name, f"d4/{method}/{name}"):
        assert error < 1e-12


def test_default_cutoffs_change_little():
    """Of molecules nothing; energies and forces of crystals to what docs/physics.md says."""
    short = make("d3", {"functional": "pbe"}, elements=(1, 6))
    whole = make("d3", {"functional": "pbe", **AS_S_DFTD3}, elements=(1, 6))
    benzene = structure("C6H6")
    assert abs(float((evaluate(short, benzene).energy - evaluate(whole, benzene).energy)[0])) < 1e-8
    for name, elements in (("silicon", (14,)), ("copper", (29,)), ("graphite", (6,)), ("salt", (11, 17))):
        short, whole = (make("d3", {"functional": "pbe", **m}, elements=elements) for m in ({}, AS_S_DFTD3))
        a, b = evaluate(short, structure(name)), evaluate(whole, structure(name))
        n = len(structure(name))
        assert abs(float(a.energy - b.energy)) / n < 1e-5, name
        assert float((a.forces - b.forces).abs().max()) < 2e-5, name


def test_the_golden_file_says_who_made_it():
    versions = json.loads((GOLDEN / "meta.json").read_text())["versions"]
    assert versions["dftd3"] == "1.7.0"
    assert versions["dftd4"] == "4.3.1"


def test_published_parameters():
    """Values of the papers, where they are easily got wrong."""
    assert damping_of("pbe") == (1.0, 0.7875, 0.4289, 4.4407)
    assert damping_of("wb97x") == (1.0, 0.2641, 0.0, 5.4959)  # s8 is 0 in the table of AIMNet2's fork
    assert damping_of("wB97M") == (1.0, 0.3908, 0.5660, 3.1280)
    assert damping_of("b2-plyp") == (0.64, 0.9147, 0.3065, 5.0570)
    assert damping_of("PBEh") == damping_of("pbe0")


def test_all_published_functionals_are_there():
    table = tomllib.loads((resources.files("tad_dftd3.param") / "parameters.toml").read_text())["parameter"]
    own = {name for name, entry in table.items() if "bj" in entry.get("d3", {})}
    assert own <= set(functionals())
    for name in functionals():
        assert damping_of(name).a2 > 0


@pytest.mark.parametrize("name", ["b97", "pb", "xyz", "", "wb97"])
def test_names_are_matched_whole(name):
    with pytest.raises(ConfigError, match=r"physics\.d3\.functional"):
        make("d3", {"functional": name})


def test_near_names_are_offered():
    with pytest.raises(ConfigError, match="did you mean b3lyp"):
        make("d3", {"functional": "b3lip"})
    with pytest.raises(ConfigError, match="no published D3\\(BJ\\) parameters, only zero"):
        make("d3", {"functional": "m062x"})


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({}, "name a functional"),
        ({"functional": "pbe", "s8": 1.0}, "either a functional or"),
        ({"s8": 1.0, "a1": 0.4}, "name a functional"),
        ({"functional": "pbe", "cutoff": 2.0, "cutoff_width": 2.0}, "must be smaller"),
    ],
)
def test_bad_settings(settings, word):
    with pytest.raises(ValidationError, match=word):
        make("d3", settings)


def test_a_functional_for_each_head():
    heads = ("low", "high", "none")
    term = make("d3", {"functional": {"low": "pbe", "high": "b3lyp", "none": None}}, heads=heads)
    s = crystal()
    given = [Structure(s.numbers, s.positions, s.cell, s.pbc, head=h) for h in heads]
    out = evaluate(term, *given, heads=heads)
    for k, name in enumerate(("pbe", "b3lyp")):
        alone = evaluate(make("d3", {"functional": name}), s)
        assert float((out.energy[k] - alone.energy[0]).abs()) < 1e-12
        assert float((out.stress[k] - alone.stress[0]).abs().max()) < 1e-12
    assert float(out.energy[2].abs()) == 0.0
    assert float(out.forces[-len(s) :].abs().max()) == 0.0


@pytest.mark.parametrize("name", ["d3", "d4"])
def test_every_head_is_named(name):
    if name == "d4":
        pytest.importorskip("dftd4")
    with pytest.raises(ConfigError, match="no functional for the head 'high'"):
        make(name, {"functional": {"low": "pbe"}}, heads=("low", "high"))
    both = {"functional": {"low": "pbe", "high": "b3lyp"}}
    alone = evaluate(make(name, both, heads=("high",)), molecule())
    assert torch.equal(alone.energy, evaluate(make(name, {"functional": "b3lyp"}), molecule()).energy)


def test_too_heavy_elements():
    with pytest.raises(ModelError, match="no reference data for Rf"):
        make("d3", {"functional": "pbe"}, elements=(1, 104))


def test_a_model_of_many_elements_gives_the_same():
    few, many = (make("d3", {"functional": "pbe"}, elements=e) for e in ((1, 6, 8), range(1, 90)))
    a, b = evaluate(few, molecule()), evaluate(many, molecule())
    assert float((a.energy - b.energy).abs()) < 1e-13
    assert float((a.forces - b.forces).abs().max()) < 1e-13


def test_d4_keeps_results_in_training_only():
    pytest.importorskip("dftd4")
    from forgefield.models.physics import d4

    term, s = make("d4", {"functional": "pbe"}), molecule(31)
    before = len(d4._kept.found)
    quiet = evaluate(term.eval(), s)
    assert len(d4._kept.found) == before
    first, second = evaluate(term.train(), s), evaluate(term, s)
    assert len(d4._kept.found) == before + 1
    for out in (first, second):
        assert torch.equal(out.forces, quiet.forces)
    small = d4.Kept(1000)
    for k in range(9):
        small.put(bytes([k]), d4.Found(0.0, np.zeros((2, 3)), np.zeros((3, 3))))
    assert small.size <= 1000
    assert small.get(bytes([8])) is not None
    assert small.get(bytes([0])) is None


def test_d4_feels_the_total_charge():
    pytest.importorskip("dftd4")
    s = molecule()
    charged = Structure(s.numbers, s.positions, charge=1.0)
    term = make("d4", {"functional": "pbe"})
    assert abs(float((evaluate(term, s).energy - evaluate(term, charged).energy)[0])) > 1e-4


def test_d4_names():
    pytest.importorskip("dftd4")
    with pytest.raises(ConfigError, match="did you mean pbe"):
        make("d4", {"functional": "pbee"})
