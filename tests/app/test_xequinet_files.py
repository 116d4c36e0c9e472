"""export.files_of: xequinet: test results that scripts for XequiNet read, in arrays instead of a pickle."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner
from water import GOOD, write_run, write_water

import forgefield
from forgefield.app.cli import app
from forgefield.app.folder import RunFolder
from forgefield.app.reports.contents import Predictions, Property
from forgefield.app.run import load_run, resolved
from forgefield.app.tasks.steps.xequinet_files import write_xequinet_files
from forgefield.core.errors import ConfigError
from forgefield.core.structure import Structure
from forgefield.data.dataset import Dataset

NAN = float("nan")
CALL = CliRunner(env={"COLUMNS": "200", "TERM": "dumb", "NO_COLOR": "1"}).invoke


def crystals(count, start=0):
    """Cells of 2 x 3 x 4 Å with one or two atoms."""
    return Dataset.of([
        Structure(
            np.full(1 + k % 2, 14), np.arange(3.0 * (1 + k % 2)).reshape(-1, 3), cell=np.diag([2.0, 3.0, 4.0]),
            pbc=np.ones(3, bool), origin=f"t.xyz: frame {start + k + 1}", charge=0, multiplicity=3,
        )
        for k in range(count)
    ])  # fmt: skip


def predicted(dataset, error=0.5, further=None):
    structures = [dataset[k] for k in range(len(dataset))]
    counts = np.array([len(s) for s in structures])
    n, s = counts.sum(), len(counts)
    stress = np.arange(9.0).reshape(3, 3) + np.arange(9.0).reshape(3, 3).T
    return Predictions(
        n_atoms=counts, numbers=np.full(n, 14), energy=np.arange(s) + error, energy_label=np.arange(s) + 0.0,
        baseline=np.zeros(s), forces=np.full((n, 3), error), forces_label=np.zeros((n, 3)),
        stress=np.array([stress] * s), stress_label=np.array([stress - 0.25] * s), index=np.arange(s),
        config_type=np.array(["x"] * s), origin=np.array([one.origin for one in structures]), further=further or {},
    )  # fmt: skip


def save(folder, name, found):
    folder.evaluation(name).mkdir(parents=True)
    np.savez(folder.evaluation(name) / "predictions.npz", **found.arrays())


def written(folder, name, tests):
    log, results = write_xequinet_files(folder, name, tests)
    with np.load(results, allow_pickle=False) as arrays:
        return log, {key: arrays[key] for key in arrays.files}


def test_the_log_is_that_of_xequinet(tmp_path):
    """Energies of one, two and one atoms are wrong by 0.5, so that those per atom are by 0.5, 0.25 and 0.5."""
    folder, dataset = RunFolder(tmp_path / "run"), crystals(3)
    save(folder, "test", predicted(dataset))
    log, _ = written(folder, "first", {"test": dataset})
    assert log == tmp_path / "run" / "xequinet" / "first_test.log"
    assert log.read_text().splitlines() == [
        " --- XequiNet Testing",
        " --- Property: pos --- Unit: Angstrom",
        " --- Property: energy --- Unit: eV",
        " --- Property: forces --- Unit: eV/Angstrom",
        " --- Property: stress --- Unit: eV/Angstrom^3",
        " --- Property: virial --- Unit: eV",
        " --- Test Results",
        "             Energy  Energy/atom    Forces    Stress    Virial",
        "Test MAE   0.500000     0.416667  0.500000  0.250000  6.000000",
        "Test RMSE  0.500000     0.433013  0.500000  0.250000  6.000000",
    ]


def test_the_results_are_batches_of_arrays(tmp_path):
    folder, dataset = RunFolder(tmp_path / "run"), crystals(3)
    save(folder, "test", predicted(dataset))
    _, found = written(folder, "first", {"test": dataset})
    assert found["data/atomic_numbers"].tolist() == [14] * 4
    assert found["data/batch"].tolist() == [0, 1, 1, 2]
    assert found["data/ptr"].tolist() == [0, 1, 3, 4]
    assert found["data/spin"].tolist() == [2, 2, 2]  # unpaired electrons
    assert found["data/pos"].shape == found["results/forces"].shape == (4, 3)
    assert found["data/cell"].shape == found["results/virial"].shape == (3, 3, 3)
    assert found["results/energy"].tolist() == [0.5, 1.5, 2.5]
    assert found["data/energy"].tolist() == [0.0, 1.0, 2.0]
    stress = predicted(dataset).stress[0]
    assert np.allclose(found["results/virial"][0], -24.0 * stress)  # -dE/dstrain
    assert np.allclose(found["results/stress"][0], -stress)
    assert found["data/origin"][2] == "t.xyz: frame 3"


def test_absent_labels_further_targets_and_sets_one_after_the_other(tmp_path):
    folder, first, second = RunFolder(tmp_path / "run"), crystals(2), crystals(2, start=2)
    for name, dataset, error in (("test", first, 0.5), ("more", second, 1.0)):
        charges = Property(np.full((3, 1), error), np.zeros((3, 1)), "atom", "number")
        polar = Property(np.ones((2, 9)), np.full((2, 9), NAN), "structure", "number")
        metal = Property(np.ones((2, 1)), np.zeros((2, 1)), "structure", "class")
        found = predicted(dataset, error, {"charges": charges, "polarizability": polar, "metal": metal})
        if name == "more":
            found.forces_label[0] = NAN  # an atom that does not count
            found.energy_label[:] = NAN
            found.stress_label[:] = NAN
        save(folder, name, found)
    log, found = written(folder, "a/b", {"test": first, "more": second})
    assert log.name == "a_b_test.log"
    head, mae, _ = log.read_text().splitlines()[-3:]
    values = dict(zip(head.split(), map(float, mae.split()[2:]), strict=True))
    assert values == {
        "Atomic_charges": 0.75, "Energy": 0.5, "Energy/atom": 0.375, "Forces": 0.7, "Stress": 0.25, "Virial": 6.0,
    }  # fmt: skip
    assert found["results/atomic_charges"].tolist() == [0.5] * 3 + [1.0] * 3
    assert found["results/polar"].shape == (4, 3, 3)
    assert "data/polar" not in found
    assert np.isnan(found["data/energy"]).tolist() == [False, False, True, True]
    assert found["data/batch"].tolist() == [0, 1, 1, 2, 3, 3]


def test_structures_that_were_left_out_are_not_in_the_results(tmp_path):
    folder, dataset = RunFolder(tmp_path / "run"), crystals(4)
    save(folder, "test", predicted(dataset.subset([1, 3])))
    _, found = written(folder, "first", {"test": dataset})
    assert found["data/origin"].tolist() == ["t.xyz: frame 2", "t.xyz: frame 4"]
    assert found["data/ptr"].tolist() == [0, 2, 4]


def test_molecules_have_no_virial(tmp_path):
    folder = RunFolder(tmp_path / "run")
    bare = [crystals(2)[k] for k in range(2)]
    dataset = Dataset.of([Structure(s.numbers, s.positions, origin=s.origin) for s in bare])
    found = predicted(dataset)
    found.stress_label[:] = NAN
    save(folder, "test", found)
    log, arrays = written(folder, "first", {"test": dataset})
    assert "irial" not in log.read_text()
    assert not {"results/virial", "results/stress", "data/charge", "data/spin"} & arrays.keys()


def water(test=True):
    write_water("train.xyz", 12, atoms=True)
    write_water("test.xyz", 4, seed=3)
    text = GOOD.replace("  train: train.xyz", "  train: train.xyz\n  test: test.xyz") if test else GOOD
    return text + "export: {standard_artifacts: false, files_of: xequinet}\ndevice: cpu\n"


def test_a_run_writes_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path, water())
    (config,) = load_run("run.yaml")
    forgefield.run(resolved(config), quiet=True)
    place = tmp_path / "runs" / "first" / "xequinet"
    assert sorted(path.name for path in place.iterdir()) == ["first_test.log", "first_test_results.npz"]
    head, mae, rmse = (place / "first_test.log").read_text().splitlines()[-3:]
    assert head.split() == ["Energy", "Energy/atom", "Forces"]
    errors = json.loads((tmp_path / "runs/first/evaluation/test/metrics.json").read_text())["all"]
    kinds = ("energy_{}", "energy_{}_per_atom", "forces_{}")
    for line, kind in ((mae, "mae"), (rmse, "rmse")):
        assert [float(x) for x in line.split()[2:]] == [
            pytest.approx(errors[name.format(kind)], abs=1e-6) for name in kinds
        ]
    with np.load(place / "first_test_results.npz") as found:
        assert found["results/forces"].shape == found["data/pos"].shape == (12, 3)


def test_nothing_to_test_on_is_refused_by_the_check_and_by_the_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path, water(test=False))
    (config,) = load_run("run.yaml")
    with pytest.raises(ConfigError, match=r"export.files_of: xequinet: .*there are no test data.*set data.test"):
        forgefield.run(resolved(config), quiet=True)
    assert not (tmp_path / "runs" / "first").exists()
    result = CALL(app, ["check", "run.yaml"])
    assert result.exit_code == 2
    assert "there are no test data" in result.stdout
    write_run(tmp_path, water())
    assert "export.files_of" not in CALL(app, ["check", "run.yaml"]).stdout


def test_other_words_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path, water().replace("xequinet", "xequi"))
    result = CALL(app, ["check", "run.yaml"])
    assert result.exit_code != 0
    assert "files_of" in result.output + result.stderr
