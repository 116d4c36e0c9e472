"""Targets of the user's own: how raw predictions become values, how they are kept, and what is refused."""

import dataclasses
import warnings

import numpy as np
import pytest
import torch
from energy_toy import ELEMENTS, crystal, molecule
from target_toy import ALL, ENTRY, FIELD, GAP, METAL, MOMENT, SPECTRUM, TENSOR

import forgefield
from forgefield.core.errors import DataError, ModelError
from forgefield.core.structure import Structure
from forgefield.export.calculator import ForgeField
from forgefield.export.physics import check_physics
from forgefield.export.prediction import predict
from forgefield.export.targets.torchscript import TorchScriptTarget
from forgefield.export.verify import verify
from forgefield.models.bundle import load_bundle, save_bundle
from forgefield.models.potential import ARCHITECTURES, build_potential
from forgefield.models.targets import Aims, Spread
from forgefield.models.widening import Growth, widen

FEATURES = (("humidity", 1), ("parts", 2))
SPREADS = {
    "gap": Spread((1.5,), (0.3,)),
    "spectrum": Spread((1.0, 2.0, 3.0, 4.0), (0.1, 0.2, 0.3, 0.4)),
    "field": Spread((0.0,) * 3, (2.0,) * 3),
    "tensor": Spread((0.0,) * 9, (3.0,) * 9),
    "moment": Spread((0.7,), (0.2,)),
}


@pytest.fixture(autouse=True)
def catalog_with_toy(monkeypatch):
    inside = ARCHITECTURES.entry
    monkeypatch.setattr(ARCHITECTURES, "entry", lambda name: ENTRY if name == "target_toy" else inside(name))


def make(backend="target_toy", targets=ALL, energy=True, features=(), spreads=SPREADS, dtype=torch.float64, **more):
    settings = ARCHITECTURES.entry(backend).settings()
    aims = Aims(tuple(targets), energy, features, {q.name: spreads[q.name] for q in targets if q.name in spreads})
    energies = {"default": dict.fromkeys(ELEMENTS, -10.0)}
    known = {"elements": ELEMENTS, "reference_energies": energies, "avg_num_neighbors": 8.0, "aims": aims}
    return build_potential(backend, settings, dtype=dtype, **known, **more)


def featured(structure, seed=0):
    values = np.random.default_rng(seed).normal(size=3)
    return dataclasses.replace(structure, features={"humidity": values[:1], "parts": values[1:]})


def raw_of(potential, structure):
    plain = make(targets=potential.context.targets, spreads={})
    plain.architecture.load_state_dict(potential.architecture.state_dict())
    return predict(plain, [structure])[0].extra


@pytest.mark.parametrize("energy", [True, False])
def test_numbers_are_mean_plus_spread_times_prediction(energy):
    potential, s = make(energy=energy), molecule(6)
    found, raw = predict(potential, [s])[0].extra, raw_of(potential, s)
    for q in (GAP, SPECTRUM, FIELD, TENSOR, MOMENT):
        mean, std = (np.reshape(v, q.shape) for v in SPREADS[q.name])
        np.testing.assert_allclose(found[q.name], mean + std * raw[q.name], rtol=1e-13, atol=1e-13)
    assert found["gap"].shape == ()
    assert found["moment"].shape == (6,)
    assert found["tensor"].shape == (3, 3)


def test_a_class_is_a_probability_in_double_precision():
    potential = make(targets=[METAL], dtype=torch.float32)
    with torch.no_grad():
        potential.architecture.heads["metal"].bias.fill_(25.0)  # 1 - p is below the rounding of float32
    p = float(predict(potential, [molecule(5)])[0].extra["metal"])
    assert 0.999 < p < 1.0


def test_atoms_keep_their_order():
    potential, s = make(), molecule(7)
    order = np.random.default_rng(1).permutation(7)
    turned = Structure(s.numbers[order], s.positions[order])
    here, there = (predict(potential, [x])[0].extra["moment"] for x in (s, turned))
    np.testing.assert_allclose(here[order], there, atol=1e-12)


@pytest.mark.parametrize("energy", [True, False])
def test_a_bundle_keeps_all_of_it(tmp_path, energy):
    potential, s = make(energy=energy, features=FEATURES), featured(molecule(6))
    save_bundle(potential, tmp_path, provenance={})
    again = load_bundle(tmp_path)
    assert again.aims == potential.aims
    assert again.context.energy is energy
    before, after = (predict(p, [s])[0].extra for p in (potential, again))
    for q in ALL:
        np.testing.assert_array_equal(before[q.name], after[q.name])


def test_widening_keeps_all_of_it():
    potential, s = make(), molecule(6)
    wide = widen(potential, Growth(elements={9: [8]}))
    for q in ALL:
        np.testing.assert_array_equal(predict(wide, [s])[0].extra[q.name], predict(potential, [s])[0].extra[q.name])


def test_no_energy_is_given_by_a_model_without(tmp_path):
    potential, s = make(energy=False), molecule(6)
    calculator = ForgeField(potential)
    assert "energy" not in calculator.implemented_properties
    atoms = as_atoms(s)
    atoms.calc = calculator
    assert calculator.get_property("gap", atoms) == pytest.approx(float(predict(potential, [s])[0].extra["gap"]))
    assert set(calculator.results) == {q.name for q in ALL}


def as_atoms(s):
    from ase import Atoms

    return Atoms(numbers=s.numbers, positions=s.positions, cell=s.cell, pbc=s.pbc)


def test_the_calculator_gives_further_predictions_and_reads_features():
    potential, s = make(features=FEATURES), featured(molecule(6))
    atoms = as_atoms(s)
    atoms.calc = ForgeField(potential)
    with pytest.raises(DataError, match=r"needs the feature humidity.*\n*.*atoms.info"):
        atoms.get_potential_energy()
    atoms.info |= {"humidity": float(s.features["humidity"][0]), "parts": s.features["parts"]}
    atoms.get_potential_energy()
    first = predict(potential, [s])[0].extra
    assert atoms.calc.results["gap"] == pytest.approx(float(first["gap"]), abs=1e-12)
    np.testing.assert_allclose(atoms.calc.results["moment"], first["moment"], atol=1e-12)
    (told,) = forgefield.predict(potential, atoms.copy())
    np.testing.assert_allclose(told.further["moment"], first["moment"][:, None], atol=1e-12)
    atoms.info["humidity"] += 1.0
    assert atoms.calc.get_property("gap", atoms) != pytest.approx(float(first["gap"]), abs=1e-6)


@pytest.mark.parametrize("energy", [True, False])
def test_torchscript_gives_all_of_it(tmp_path, energy):
    potential, s = make(energy=energy, features=FEATURES), featured(molecule(6))
    target = TorchScriptTarget()
    target.write(potential, tmp_path / "m.pt", s)
    structures = [s, featured(molecule(9, 3), 1), featured(crystal(), 2)]
    certificate = verify(target.read(tmp_path / "m.pt"), potential, structures)
    assert certificate.max_further_error < 1e-10
    wrong = target.read(tmp_path / "m.pt")
    with torch.no_grad():
        potential.architecture.heads["gap"].bias += 0.1
    with pytest.raises(ModelError, match="further: deviates"):
        verify(wrong, potential, structures)


def test_the_physics_check_turns_vectors_and_tensors():
    report = check_physics(make(energy=False), [molecule(6), crystal()])
    assert report.rotation_further is not None
    assert report.rotation_further < 1e-9
    wrong = make(targets=[FIELD], energy=False)
    wrong.targets.quantities["field"] = dataclasses.replace(FIELD, rotates="not")
    with pytest.raises(ModelError, match="rotation further"):
        check_physics(wrong, [molecule(6)])


def test_features_change_predictions():
    potential, s = make(features=FEATURES), molecule(6)
    gaps = [float(predict(potential, [featured(s, k)])[0].extra["gap"]) for k in range(2)]
    assert abs(gaps[0] - gaps[1]) > 1e-3


def test_a_feature_of_another_length_is_refused():
    wrong = dataclasses.replace(molecule(4), features={"humidity": np.zeros(2), "parts": np.zeros(2)}, origin="f:3")
    with pytest.raises(DataError, match=r"f:3.*humidity has shape \(2,\), the model was made for \(1,\)"):
        predict(make(features=FEATURES), [wrong])


def test_what_an_architecture_cannot_do_is_refused():
    with pytest.raises(ModelError, match=r"train.targets.gap.*mace does not predict gap"):
        make("mace", targets=[GAP])
    with pytest.raises(ModelError, match="mace has no use for the features humidity, parts"):
        make("mace", targets=[], features=FEATURES)
    zbl = {"zbl": __import__("forgefield.models.physics.zbl", fromlist=["ENTRY"]).ENTRY.settings()}
    with pytest.raises(ModelError, match="the term zbl adds to an energy, which this model does not predict"):
        make(energy=False, physics=zbl)


@pytest.mark.parametrize(("settings", "energy", "said"), [({}, True, False), ({"compat": "alignn"}, True, True),
                                                         ({"compat": "alignn"}, False, False)])  # fmt: skip
def test_energies_that_jump_are_spoken_of(settings, energy, said):
    chosen = ARCHITECTURES.entry("alignn").settings(hidden_features=4, embedding_features=4, **settings)
    potential = build_potential(
        "alignn", chosen, elements=ELEMENTS, reference_energies={"default": dict.fromkeys(ELEMENTS, 0.0)},
        avg_num_neighbors=8.0, aims=Aims((GAP,), energy),
    )  # fmt: skip
    assert bool(potential.jumps) is said
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        ForgeField(potential)
    assert any("energies jump" in str(w.message) for w in found) is said
