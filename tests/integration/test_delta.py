"""Delta-learning from end to end: base labels computed, brought along, missing; the whole is the same everywhere."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.lj import LennardJones
from ase.io import read, write

import forgefield
from forgefield.core.errors import ConfigError, DataError, ForgeError, ModelError
from forgefield.core.structure import Structure
from forgefield.export.calculator import ForgeField
from forgefield.export.targets.torchscript import quiet
from forgefield.models.baseline.settings import BaselineSettings
from forgefield.models.baseline.xtb import Xtb

DELTA = {"export__targets": [], "train__epochs": 2}
PROGRAM = Xtb(BaselineSettings(method="gfn2-xtb"))


def with_model(settings, root, baseline, **changes):
    found = settings(root, **{**DELTA, **changes})
    found["model"] = {**found["model"], "baseline": baseline}
    return found


def computed(atoms):
    return PROGRAM.compute(Structure(atoms.numbers, atoms.positions))


def based(source, target, change=lambda atoms, found: found, keep=lambda k: True):
    """Write a copy of a file with base labels by GFN2-xTB."""
    frames = []
    for k, atoms in enumerate(read(source, ":")):
        results = atoms.calc.results
        atoms.calc = None
        atoms.info["energy_dft"] = results["energy"]
        if "forces" in results:  # free atoms have none
            atoms.arrays["forces_dft"] = results["forces"]
        if keep(k):
            found = change(atoms, computed(atoms))
            atoms.info["base_energy"] = float(found["energy"])
            atoms.arrays["base_forces"] = found["forces"]
        frames.append(atoms)
    write(target, frames, format="extxyz")
    return target


NAMES = {"energy_key": "energy_dft", "forces_key": "forces_dft"}
BASE = {"energy": "base_energy", "forces": "base_forces"}


@pytest.fixture(scope="module")
def labelled(data, tmp_path_factory):
    """Training and test data with base labels."""
    folder = tmp_path_factory.mktemp("based")
    for name in ("train.xyz", "test.xyz"):
        based(data / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def delta(settings, tmp_path_factory):
    """A model that corrects GFN2-xTB, whose base labels were computed."""
    root = tmp_path_factory.mktemp("runs") / "delta"
    return root, forgefield.run(with_model(settings, root, "gfn2-xtb"), quiet=True)


def of_set(root, name="test"):
    with np.load(root / "evaluation" / name / "predictions.npz") as arrays:
        return dict(arrays)


def test_errors_speak_of_the_whole_and_the_base_stands_beside_them(delta, data):
    root, result = delta
    metrics, arrays = result.metrics["test"], of_set(root)
    frames = read(data / "test.xyz", ":")
    labels = np.array([a.get_potential_energy() for a in frames])
    assert arrays["energy_label"] == pytest.approx(labels, abs=0)
    sizes = np.array([len(a) for a in frames])
    rmse = np.sqrt(np.square((arrays["energy"] - labels) / sizes).mean())
    assert metrics["all"]["energy_rmse_per_atom"] == pytest.approx(rmse, rel=1e-9)
    base = np.concatenate([computed(a)["forces"] for a in frames])
    true = np.concatenate([a.get_forces() for a in frames])
    assert metrics["baseline"]["forces_rmse"] == pytest.approx(np.sqrt(np.square(base - true).mean()), rel=1e-9)
    assert metrics["all"]["forces_rms_label"] == pytest.approx(np.sqrt(np.square(true).mean()), rel=1e-9)
    manifest = json.loads((root / "artifacts" / "manifest.json").read_text())
    table = manifest["reference_energies"]["default"]
    offset = [sum(table[s] for s in a.symbols) + len(a) * manifest["shift"][0] for a in frames]
    wrong = (np.array([float(computed(a)["energy"]) for a in frames]) + offset - labels) / sizes
    alone = metrics["baseline"]["energy_rmse_per_atom"]
    assert alone == pytest.approx(np.sqrt(np.square(wrong).mean()), rel=1e-8)
    assert "gfn2-xtb" in dict(result.rows)["test: base alone"]
    assert "What the correction is worth" in (root / "report.html").read_text()


def test_reference_energies_and_scale_are_of_the_differences(delta, data):
    root, _ = delta
    statistics = json.loads((root / "statistics.json").read_text())
    free = {a.get_chemical_formula(): a for a in read(data / "train.xyz", ":") if len(a) == 1}
    for number, element in ((1, "H"), (6, "C"), (7, "N"), (8, "O")):
        expected = free[element].get_potential_energy() - float(computed(free[element])["energy"])
        assert statistics["reference_energies"]["default"][str(number)] == pytest.approx(expected, abs=1e-7)
    split = json.loads((root / "split.json").read_text())["train"]
    frames = [read(data / "train.xyz", ":")[k] for k in split]
    wrong = np.concatenate([a.get_forces() - computed(a)["forces"] for a in frames if len(a) > 1])
    assert statistics["force_rms"] == pytest.approx(np.sqrt(np.square(wrong).mean()), rel=1e-8)


def test_calculator_evaluate_infer_and_python_agree(delta, data, tmp_path):
    root, _ = delta
    for task in ("evaluate", "infer"):
        forgefield.run(
            {"task": task, "model_in": str(root), "device": "cpu", "data": {"lmdb": str(data / "test.xyz")},
             "output": {"dir": str(tmp_path / task)}}, quiet=True)  # fmt: skip
    rows = {
        t: list(csv.DictReader((tmp_path / t / "predictions.csv").read_text().splitlines()))
        for t in ("evaluate", "infer")
    }
    with np.load(tmp_path / "evaluate" / "predictions.npz") as arrays:
        evaluated = dict(arrays)
    python = forgefield.predict(root, data / "test.xyz")
    calculator, start = ForgeField.load(root / "artifacts"), 0
    for k, atoms in enumerate(read(data / "test.xyz", ":")):
        atoms.calc = calculator
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
        assert calculator.results["energies"].sum() == pytest.approx(energy, abs=1e-8)
        for task in rows:
            assert float(rows[task][k]["energy"]) == pytest.approx(energy, abs=1e-9)
            assert float(rows[task][k]["base_energy"]) == pytest.approx(float(computed(atoms)["energy"]), abs=1e-9)
        assert python[k].energy == pytest.approx(energy, abs=1e-9)
        assert python[k].forces == pytest.approx(forces, abs=1e-9)
        assert evaluated["forces"][start : start + len(atoms)] == pytest.approx(forces, abs=1e-9)
        start += len(atoms)
        with pytest.raises(PropertyNotImplementedError):
            atoms.get_stress()


def test_forces_of_the_whole_are_derivatives(delta, data):
    root, _ = delta
    atoms, h = read(data / "test.xyz", "0"), 1e-3
    atoms.calc = ForgeField.load(root / "artifacts")
    forces = atoms.get_forces()
    for atom, axis in ((0, 0), (9, 2)):
        energies = []
        for step in (h, -h):
            moved = atoms.copy()
            moved.positions[atom, axis] += step
            moved.calc = atoms.calc
            energies.append(moved.get_potential_energy())
        assert forces[atom, axis] == pytest.approx(-(energies[0] - energies[1]) / (2 * h), abs=2e-4)


def test_charge_and_spin_reach_the_base_in_ase(delta, data):
    root, _ = delta
    atoms = read(data / "test.xyz", "0")
    whole, alone = ForgeField.load(root / "artifacts"), ForgeField.load(root / "artifacts", baseline="correction")
    found = {}
    for charge in (0, 1):
        atoms.info["charge"] = charge
        found[charge] = [float(_energy(atoms, calculator)) for calculator in (whole, alone)]
        base = PROGRAM.compute(Structure(atoms.numbers, atoms.positions, charge=charge))["energy"]
        assert found[charge][0] - found[charge][1] == pytest.approx(float(base), abs=1e-8)
    assert found[1][0] - found[0][0] > 1.0


def _energy(atoms, calculator):
    atoms.calc = calculator
    return atoms.get_potential_energy()


def test_a_run_that_goes_on_computes_nothing_again_and_ends_in_the_same_weights(delta, settings, tmp_path):
    whole, _ = delta
    first = with_model(settings, tmp_path / "parts", "gfn2-xtb", train__epochs=1)
    forgefield.run(first, quiet=True)
    record = json.loads((tmp_path / "parts" / "run.json").read_text())
    assert record["baseline"]["labels"] == {"from_data": 0, "kept": 0, "computed": 29, "failed": 0}
    forgefield.run(with_model(settings, tmp_path / "parts", "gfn2-xtb", task="resume"), quiet=True)
    record = json.loads((tmp_path / "parts" / "run.json").read_text())
    assert record["baseline"]["labels"] == {"from_data": 0, "kept": 29, "computed": 0, "failed": 0}
    for name in ("last/weights.safetensors", "best/weights.safetensors"):
        parts = (tmp_path / "parts" / "checkpoints" / name).read_bytes()
        assert parts == (whole / "checkpoints" / name).read_bytes(), name


def test_a_run_that_fails_keeps_what_was_computed(settings, data, tmp_path):
    shutil.copy(data / "train.xyz", tmp_path / "train.xyz")
    text = (tmp_path / "train.xyz").read_text().replace("energy=", "charge=99 energy=", 6)
    (tmp_path / "train.xyz").write_text(text)
    config = with_model(settings, tmp_path / "run", "gfn2-xtb", data__train=str(tmp_path / "train.xyz"))
    with pytest.raises(DataError, match=r"6 structures have no base labels: .*frame 0: a charge of 99 leaves no val"):
        forgefield.run(config, quiet=True)
    config["data"]["on_error"] = "skip"
    forgefield.run(config, quiet=True)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["baseline"]["labels"] == {"from_data": 0, "kept": 23, "computed": 0, "failed": 6}


def test_base_labels_of_the_data_are_used_and_compared(delta, settings, labelled, tmp_path):
    names = {"data__train": str(labelled / "train.xyz"), "data__test": str(labelled / "test.xyz")}
    config = with_model(settings, tmp_path / "run", "gfn2-xtb", **names)
    config["data"] |= {**NAMES, "base": BASE}
    forgefield.run(config, quiet=True)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["baseline"]["labels"] == {"from_data": 29, "kept": 0, "computed": 0, "failed": 0}
    assert record["baseline"]["compared"] > 5
    assert of_set(tmp_path / "run")["forces"] == pytest.approx(of_set(delta[0])["forces"], abs=1e-5)


def test_base_labels_of_another_level_are_refused(settings, data, tmp_path):
    other = Xtb(BaselineSettings(method="gfn1-xtb"))
    path = based(
        data / "train.xyz", tmp_path / "train.xyz", lambda a, _: other.compute(Structure(a.numbers, a.positions))
    )
    config = with_model(settings, tmp_path / "run", "gfn2-xtb", data__train=str(path), data__test=[])
    config["data"] |= {**NAMES, "base": BASE}
    with pytest.raises(DataError, match=r"train.xyz.*frame.*base label energy differs by up to .* from GFN2-xTB"):
        forgefield.run(config, quiet=True)


def test_a_store_keeps_base_labels(delta, settings, labelled, tmp_path):
    from typer.testing import CliRunner

    from forgefield.app.cli import app

    found = CliRunner().invoke(
        app, ["data", "convert", str(labelled / "train.xyz"), str(tmp_path / "train.store"), "--to", "store",
              "--set", "data.energy_key=energy_dft", "--set", "data.forces_key=forces_dft",
              "--set", "data.base={energy: base_energy, forces: base_forces}"])  # fmt: skip
    assert found.exit_code == 0, found.output
    (store,) = tmp_path.glob("train.store*")
    config = with_model(settings, tmp_path / "run", "gfn2-xtb", data__train=str(store), data__test=[])
    forgefield.run(config, quiet=True)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["baseline"]["labels"]["from_data"] == 24
    ours, theirs = (json.loads((r / "statistics.json").read_text()) for r in (tmp_path / "run", delta[0]))
    assert ours["force_rms"] == pytest.approx(theirs["force_rms"], rel=1e-5)


@pytest.fixture(scope="module")
def of_labels(settings, labelled, tmp_path_factory):
    """A model that corrects a level of which it knows the labels alone."""
    root = tmp_path_factory.mktemp("runs") / "labels"
    names = {"data__train": str(labelled / "train.xyz"), "data__test": str(labelled / "test.xyz")}
    config = with_model(settings, root, {"method": "labels", "level": "tight binding"}, **names)
    config["data"] |= {**NAMES, "base": BASE}
    return root, forgefield.run(config, quiet=True)


def test_with_labels_the_model_is_a_correction_until_a_calculator_is_handed_in(of_labels, delta, data, labelled):
    root, result = of_labels
    assert result.metrics["test"]["baseline"]["forces_rmse"] > 0.1
    with pytest.raises(ModelError, match="gives a correction to tight binding, which cannot be computed here"):
        ForgeField.load(root / "artifacts")
    atoms = read(data / "test.xyz", "0")
    correction = _energy(atoms, ForgeField.load(root / "artifacts", baseline="correction"))
    given = LennardJones()
    whole = ForgeField.load(root / "artifacts", baseline=given)
    assert _energy(atoms, whole) == pytest.approx(correction + _energy(atoms.copy(), LennardJones()), abs=1e-9)
    assert "energies" not in whole.results
    with pytest.raises(ModelError, match="computed by tblite"):
        ForgeField.load(delta[0] / "artifacts", baseline=given)


def test_with_labels_predictions_need_base_labels(of_labels, data, labelled, tmp_path):
    root, _ = of_labels
    ask = {"task": "infer", "model_in": str(root), "device": "cpu", "output": {"dir": str(tmp_path / "out")}}
    with pytest.raises(DataError, match=r"bare.xyz: frame 0.*has no base label energy"):
        forgefield.run({**ask, "data": {"lmdb": str(data / "bare.xyz")}}, quiet=True)
    block = {"lmdb": str(labelled / "test.xyz"), "base": BASE}
    forgefield.run({**ask, "data": block}, quiet=True)
    whole = [
        float(r["energy"]) for r in csv.DictReader((tmp_path / "out" / "predictions.csv").read_text().splitlines())
    ]
    assert whole == pytest.approx(of_set(root)["energy"].tolist(), abs=1e-9)
    alone = {**ask, "data": {"lmdb": str(data / "bare.xyz")}, "eval": {"correction_alone": True}}
    forgefield.run(alone, quiet=True)
    frames = read(tmp_path / "out" / "predictions.xyz", ":")
    assert all(a.info["correction_to"] == "tight binding" for a in frames)
    base = float(computed(frames[0])["energy"])
    assert frames[0].get_potential_energy() == pytest.approx(whole[0] - base, abs=1e-6)


def test_a_missing_base_label_names_the_structure(settings, data, tmp_path):
    path = based(data / "train.xyz", tmp_path / "train.xyz", keep=lambda k: k != 10)
    config = with_model(settings, tmp_path / "run", {"method": "labels"}, data__train=str(path), data__test=[])
    config["data"] |= {**NAMES, "base": BASE}
    with pytest.raises(DataError, match=r"train.xyz: frame 10.*has no base label energy \(its base labels: none\)"):
        forgefield.run(config, quiet=True)


def test_files_hold_the_correction_and_say_so(delta, data, tmp_path):
    ask = {"task": "export", "model_in": str(delta[0]), "run_dir": str(tmp_path / "out"), "device": "cpu",
           "data": {"test": str(data / "test.xyz")}}  # fmt: skip
    with pytest.raises(ConfigError, match=r"torchscript would hold the correction to gfn2-xtb alone"):
        forgefield.run(ask, quiet=True)
    forgefield.run({**ask, "export": {"correction_alone": True}}, quiet=True)
    (folder,) = {p.parent for p in (tmp_path / "out").rglob("manifest.json")}
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["baseline"]["method"] == "gfn2-xtb"
    assert manifest["files"]["torchscript"]["gives"] == "the correction to gfn2-xtb, not the whole"
    about = {"forgefield.json": ""}
    with quiet():
        torch.jit.load(str(folder / manifest["files"]["torchscript"]["path"]), _extra_files=about)
    assert "not the whole" in json.loads(about["forgefield.json"])["gives"]
    with pytest.raises(ModelError, match="would hold the correction"):
        forgefield.save(delta[0], tmp_path / "saved", data / "test.xyz")


def test_fine_tuning_keeps_the_baseline(delta, data, tmp_path):
    block = {"task": "finetune", "model_in": str(delta[0]), "run_dir": str(tmp_path / "fine"), "device": "cpu",
             "data": {"train": str(data / "test.xyz"), "val_fraction": 0.2}, "train": {"epochs": 1, "batch_size": 2},
             "finetune": {"reference_energies": "estimate"}, "export": {"targets": []}}  # fmt: skip
    result = forgefield.run(block, quiet=True)
    start = json.loads((tmp_path / "fine" / "run.json").read_text())["start"]
    assert start["errors_before"]["energy_rmse_per_atom"] < 0.1
    assert all(abs(row["after"] - row["before"]) < 0.2 for row in start["references"])
    assert result.metrics["val"]["baseline"]["forces_rmse"] > 0.1
    manifest = json.loads((tmp_path / "fine" / "artifacts" / "manifest.json").read_text())
    assert manifest["baseline"]["method"] == "gfn2-xtb"
    with pytest.raises(ConfigError, match=r"model.baseline: not as in .*, which decides"):
        forgefield.run({**block, "run_dir": str(tmp_path / "x"), "model": {"baseline": "gfn1-xtb"}}, quiet=True)


@pytest.mark.parametrize(
    ("changes", "baseline", "text"),
    [
        ({"data__e0": {"H": -13.6}}, "gfn2-xtb", r"data.e0: energies of the labels, but the model learns label minus"),
        ({"export__targets": ["torchscript"]}, "gfn2-xtb", r"export.targets: a file of torchscript would hold"),
        ({"eval__correction_alone": True}, "gfn2-xtb", r"eval.correction_alone: has an effect with task infer only"),
        ({"export__correction_alone": True}, None, r"export.correction_alone: has an effect for models with model.bas"),
        ({}, {"method": "gfn2-xtb", "targets": ["charges"]}, r"model.baseline.targets: charges is not trained"),
        ({}, "gfn3-xtb", r"model.baseline.method"),
        ({}, {"high": "gfn2-xtb"}, r"no map of levels"),
    ],
)
def test_what_does_not_go_with_a_baseline(settings, tmp_path, changes, baseline, text):
    with pytest.raises(ConfigError, match=text):
        forgefield.run(with_model(settings, tmp_path / "run", baseline, **changes), quiet=True)


@pytest.mark.parametrize(
    ("baseline", "text"),
    [
        ("gfn2-xtb", "differences from gfn2-xtb, which includes dispersion: it would count twice"),
        ({"method": "labels"}, "nothing says whether the base labels include dispersion"),
        ({"method": "labels", "dispersion": "included"}, "it would count twice"),
    ],
)
def test_dispersion_is_not_added_to_a_difference_that_has_none(settings, labelled, tmp_path, baseline, text):
    config = with_model(
        settings, tmp_path / "run", baseline, data__train=str(labelled / "train.xyz"), data__test=[],
        data__fidelities={"default": {"dispersion": "included"}})  # fmt: skip
    config["data"] |= {**NAMES, "base": BASE}
    config["model"]["physics"] = {"d3": {"functional": "wb97x"}}
    with pytest.raises(ForgeError, match=text):
        forgefield.run(config, quiet=True)


def test_other_architectures_and_charges_as_differences(settings, data, tmp_path):
    frames = read(data / "train.xyz", ":")
    for atoms in frames:
        found = computed(atoms)
        atoms.info |= {"charge": 0, "energy_dft": atoms.get_potential_energy()}
        atoms.arrays |= {"forces_dft": 1.0 * found["forces"], "charges_dft": 1.2 * found["charges"]}
        atoms.calc = None
    write(tmp_path / "train.xyz", frames, format="extxyz")
    config = settings(tmp_path / "run", backend="aimnet2", data__train=str(tmp_path / "train.xyz"), data__test=[],
                      **DELTA)  # fmt: skip
    config["data"] |= {**NAMES, "charges_key": "charges_dft"}
    config["train"] |= {"targets": {"charges": {"weight": 1.0}}, "lr": 0.01}
    small = {"nfeature": 4, "ncomb_v": 2, "hidden": [[8], [8]], "aim_size": 8, "energy_hidden": [8]}
    config["model"] = {**small, "baseline": {"method": "gfn2-xtb", "targets": ["charges"]}}
    config["export"] = {"standard_artifacts": False}
    metrics = forgefield.run(config, quiet=True).metrics["val"]
    validated = [frames[k] for k in json.loads((tmp_path / "run" / "split.json").read_text())["val"]]
    size = np.concatenate([computed(a)["charges"] for a in validated])
    assert metrics["baseline"]["charges_rmse"] == pytest.approx(0.2 * np.sqrt(np.square(size).mean()), rel=1e-5)
    whole = np.concatenate([p.further["charges"][:, 0] for p in forgefield.predict(tmp_path / "run", validated)])
    labels = np.concatenate([a.arrays["charges_dft"] for a in validated])
    assert metrics["all"]["charges_rmse"] == pytest.approx(np.sqrt(np.square(whole - labels).mean()), rel=1e-6)
    assert metrics["all"]["dipole_mae"] is None  # its dipole is that of differences of charges
    atoms = validated[0]
    atoms.calc = ForgeField.load(tmp_path / "run" / "checkpoints" / "best")
    assert atoms.calc.get_charges(atoms) == pytest.approx(whole[: len(atoms)], abs=1e-6)
    assert "dipole" not in atoms.calc.results
    alone = ForgeField.load(tmp_path / "run" / "checkpoints" / "best", baseline="correction")
    correction = alone.get_charges(atoms)
    assert correction + computed(atoms)["charges"] == pytest.approx(whole[: len(atoms)], abs=1e-6)
    assert correction.sum() == pytest.approx(0.0, abs=1e-6)
    config["model"]["physics"] = {"coulomb": {"method": "simple"}}
    config["run_dir"] = str(tmp_path / "again")
    with pytest.raises(ModelError, match="takes the model's charges, which would be differences"):
        forgefield.run(config, quiet=True)


def test_the_check_computes_one_structure(settings, tmp_path):
    from forgefield.app.checkup import Checkup
    from forgefield.app.run import config_of

    found = {f.topic: f for f in Checkup(config_of(with_model(settings, tmp_path / "run", "gfn2-xtb"))).examine()}
    assert found["baseline"].state == "ok"
    assert "22 of 22 structures are computed before training" in found["baseline"].text
    assert "label minus base" in found["E0s"].text
    assert not (tmp_path / "run").exists()
