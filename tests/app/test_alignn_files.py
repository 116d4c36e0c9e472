"""export.files_of: alignn: files that scripts for alignn read, every record with the id of its own structure."""

import json
from dataclasses import replace

import numpy as np
import pytest
from water import GOOD, write_run, write_water

import forgefield
from forgefield.app.folder import RunFolder
from forgefield.app.reports.contents import Predictions, Property
from forgefield.app.tasks.steps.alignn_files import identifier, records, write_alignn_files
from forgefield.data.dataset import open_dataset
from forgefield.data.parts import TrainingData

GPA = 160.21766339999996


def structures(folder, count=6):
    """Write id_prop.json with so many dimers named a0, a1, ..., and open it."""
    atoms = {"lattice_mat": (5 * np.eye(3)).tolist(), "elements": ["Si", "Si"], "cartesian": True}
    found = [
        {"jid": f"a{k}", "atoms": {**atoms, "coords": [[0, 0, 0], [0, 0, 2 + 0.1 * k]]}, "total_energy": -5.0 - k}
        for k in range(count)
    ]
    (folder / "id_prop.json").write_text(json.dumps(found))
    return open_dataset(folder / "id_prop.json")


def predicted(dataset, further=None):
    n = len(dataset)
    return Predictions(
        n_atoms=np.full(n, 2), numbers=np.full(2 * n, 14), energy=np.arange(n) + 0.5, energy_label=np.arange(n) + 0.0,
        baseline=np.zeros(n), forces=np.arange(6 * n).reshape(2 * n, 3) + 0.25,
        forces_label=np.arange(6.0 * n).reshape(-1, 3),
        stress=np.full((n, 3, 3), 0.5), stress_label=np.full((n, 3, 3), 0.25), index=np.arange(n),
        config_type=np.array(["x"] * n), origin=np.array([s.origin for s in dataset]), further=further or {},
    )  # fmt: skip


def property_of(dataset, further):
    """Return predictions of a model of properties."""
    return replace(predicted(dataset, further), energy=np.full(len(dataset), np.nan), forces=np.zeros((0, 3)))


def save(folder, name, found):
    folder.evaluation(name).mkdir(parents=True)
    np.savez(folder.evaluation(name) / "predictions.npz", **found.arrays())


def load(path):
    return json.loads(path.read_text())


def test_ids_are_those_of_the_structures(tmp_path):
    dataset = structures(tmp_path)
    folder = RunFolder(tmp_path / "run")
    train, val, test = dataset.subset([3, 1]), dataset.subset([4]), dataset.subset([5, 0])
    save(folder, "val", predicted(val))
    save(folder, "test", predicted(test))
    data = TrainingData(train, train, val, None, test=test)
    write_alignn_files(folder, data, {"test": test}, predicted(train), {"energy": 1.0})
    place = tmp_path / "run" / "alignn"
    assert load(place / "ids_train_val_test.json") == {
        "id_train": ["a3", "a1"],
        "id_val": ["a4"],
        "id_test": ["a5", "a0"],
    }
    assert [one["id"] for one in load(place / "Test_results.json")] == ["a5", "a0"]
    assert [one["id"] for one in load(place / "Val_results.json")] == ["a4"]
    assert [one["id"] for one in load(place / "Train_results.json")] == ["a3", "a1"]
    assert (place / "mad").read_text() == "MAX val:0.5\nMIN val:0.0\nMAD val:0.24\n"  # labels 0 0.5 0 0 0.5, per atom
    assert not (place / "prediction_results_test_set.csv").exists()  # there are energies and forces, no property


def test_records_are_in_the_units_of_alignn(tmp_path):
    second = list(records(predicted(structures(tmp_path))))[1]
    assert second["pred_out"] == [0.75]  # 1.5 eV of two atoms
    assert second["target_out"] == [0.5]
    assert second["pred_grad"] == [[6.25, 7.25, 8.25], [9.25, 10.25, 11.25]]
    assert second["target_stress"][0][0][0] == pytest.approx(0.25 * GPA)


def test_records_have_the_keys_and_shapes_of_alignn(tmp_path):
    """Of alignn 2026.8.11, whose validation and training records have all keys, those of the test the filled ones."""
    dataset = structures(tmp_path, 1)
    plain = predicted(dataset)
    names = ["out", "atomwise_pred", "grad", "stress"]
    (row,) = records(plain, names)
    assert list(row) == ["id", *(f"{side}_{name}" for name in names for side in ("target", "pred"))]
    assert (row["target_atomwise_pred"], row["pred_atomwise_pred"]) == ([], [])
    assert [np.shape(row[f"pred_{name}"]) for name in names] == [(1,), (0,), (2, 3), (1, 3, 3)]
    assert "pred_atomwise_pred" not in next(records(plain))
    nothing = {"energy": np.full(1, np.nan), "forces": np.zeros((0, 3))}
    for kind, value, shape in (
        ("number", [[0.5]], (1,)),
        ("number", [[0.5, 2.0]], (1, 2)),
        ("class", [[0.25]], (1, 2)),
    ):
        one = Property(np.array(value), np.ones_like(value), "structure", kind)
        (row,) = records(replace(plain, further={"target": one}, **nothing))
        assert np.shape(row["pred_out"]) == shape
        assert np.shape(row["target_out"]) == shape[:1] + shape[1:] * (kind == "number")
    assert np.exp(row["pred_out"]) == pytest.approx(np.array([[0.75, 0.25]]))
    both = replace(plain, further={"gap": Property(np.ones((1, 1)), np.ones((1, 1)), "structure", "number")})
    (row,) = records(both)
    assert (row["pred_out"], row["pred_gap"]) == ([0.25], [[1.0]])  # the energy stays what alignn calls the target


def test_tables_of_properties(tmp_path):
    dataset = structures(tmp_path, 3)
    value, label = np.array([[0.125], [1.5], [2.0]]), np.array([[0.0], [1.0], [np.nan]])
    for name, kind, last in (("number", "number", "a1, 1.000000, 1.500000"), ("class", "class", "a1, 1, 1")):
        folder = RunFolder(tmp_path / name)
        found = property_of(dataset, {"target": Property(value, label, "structure", kind)})
        save(folder, "test", found)
        write_alignn_files(
            folder, TrainingData(dataset, dataset, None, None), {"test": dataset}, found, {"target": 1.0}
        )
        place = folder.root / "alignn"
        lines = (place / "prediction_results_test_set.csv").read_text().splitlines()
        assert (lines[0], lines[-1], len(lines)) == ("id,target,prediction", last, 3)
        assert (place / "mad").exists() == (kind == "number")
        if kind == "number":
            table = (place / "prediction_results_train_set.csv").read_text()
            assert table == "target,prediction\n0.000000, 0.125000\n1.000000, 1.500000\n"
    folder = RunFolder(tmp_path / "several")
    wide = Property(np.ones((3, 2)), np.zeros((3, 2)), "structure", "number")
    charges = Property(np.ones((6, 1)), np.zeros((6, 1)), "atom", "number")
    found = property_of(dataset, {"atomwise": charges, "target": wide})
    save(folder, "test", found)
    write_alignn_files(folder, TrainingData(dataset, dataset, None, None), {"test": dataset}, found, {"target": 1.0})
    assert load(folder.root / "alignn" / "multi_out_predictions.json")[1] == {
        "id": "a1", "target": [0.0, 0.0], "predictions": [[1.0, 1.0]],
    }  # fmt: skip
    assert load(folder.root / "alignn" / "Test_results.json")[0]["pred_atomwise_pred"] == [[1.0], [1.0]]


def test_other_data_are_named_by_their_place():
    assert identifier("id_prop.csv: line 41 (POSCAR-JVASP (2).vasp)") == "POSCAR-JVASP (2).vasp"
    assert identifier("train.xyz: frame 3 (of 5)") == "train.xyz: frame 3 (of 5)"


def test_a_run_writes_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_water("train.xyz", 12, atoms=True)
    write_water("test.xyz", 4, seed=3)
    text = GOOD.replace("  train: train.xyz", "  train: train.xyz\n  test: test.xyz")
    write_run(tmp_path, text + "export: {standard_artifacts: false, files_of: alignn}\ndevice: cpu\n")
    from forgefield.app.run import load_run

    (config,) = load_run("run.yaml")
    from forgefield.app.run import resolved

    forgefield.run(resolved(config), quiet=True)
    place = tmp_path / "runs" / "first" / "alignn"
    history = load(place / "history_train.json")
    assert (len(history), len(history[0])) == (3, 6)
    assert history[0][0] > history[-1][0] > 0
    assert history[0][3] > 0  # forces
    for row in (*history, *load(place / "history_val.json")):
        assert sum(row[1:]) == pytest.approx(row[0], rel=1e-6)
    assert len(load(place / "Train_results.json")) == len(load(place / "ids_train_val_test.json")["id_train"])
    assert len(load(place / "ids_train_val_test.json")["id_test"]) == 4
    assert len(load(place / "Test_results.json")[0]["pred_grad"]) == 3
