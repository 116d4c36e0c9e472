"""evaluate, infer and export from end to end."""

import csv
import json

import numpy as np
import pytest
import torch
from ase.io import read

import forgefield


def rows(path) -> list[dict]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def ask(task, start, data, out, **changes) -> dict:
    """Return an evaluate or infer run as the keys of run.yaml."""
    found = {"task": task, "model_in": str(start), "data": {"test": str(data)}, "output": {"dir": str(out)}}
    return {**found, "device": "cpu", **changes}


def test_evaluating_the_artifacts_repeats_the_errors_of_the_run(shared_run, data, tmp_path):
    root, trained = shared_run
    result = forgefield.run(ask("evaluate", root / "artifacts", data / "test.xyz", tmp_path / "out"), quiet=True)
    expected = {k: v for k, v in trained.metrics["test"]["all"].items() if v is not None}
    found = {k: v for k, v in result.metrics["all"].items() if v is not None}
    assert found == pytest.approx(expected, rel=1e-9)
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert names == {
        "metrics.json", "metrics.csv", "predictions.csv", "predictions.xyz", "predictions.npz",
        "report.html", "run.json", "run.resolved.yaml",
    }  # fmt: skip
    assert "Prediction against reference" in (tmp_path / "out" / "report.html").read_text()


def test_file_names_can_be_chosen_or_left_out(shared_run, data, tmp_path):
    names = {"metrics_json": "errors.json", "metrics_csv": None, "predictions_csv": "p.csv", "predictions_xyz": None}
    config = ask("evaluate", shared_run[0], data / "test.xyz", tmp_path, output={"dir": str(tmp_path / "out"), **names})
    forgefield.run(config, quiet=True)
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"errors.json", "p.csv", "predictions.npz"}


def test_energy_only_leaves_forces_out(shared_run, data, tmp_path):
    config = ask("evaluate", shared_run[0], data / "test.xyz", tmp_path / "out", eval={"energy_only": True})
    found = forgefield.run(config, quiet=True).metrics["all"]
    assert found["energy_rmse"] > 0
    assert found["forces_rmse"] is None
    assert "max_force" not in rows(tmp_path / "out" / "predictions.csv")[0]
    atoms = read(tmp_path / "out" / "predictions.xyz", 0)
    assert set(atoms.calc.results) == {"energy"}


def test_an_evaluation_inside_the_run_brings_its_report_up_to_date(own_run, data):
    text = (own_run / "report.html").read_text()
    assert "<td>bare</td>" not in text
    copy = data / "test.xyz"
    forgefield.run(ask("evaluate", own_run / "artifacts", copy, own_run / "evaluation" / "again"), quiet=True)
    assert "<td>again</td>" in (own_run / "report.html").read_text()
    record = json.loads((own_run / "run.json").read_text())
    assert (record["task"], record["judged"]) == ("train", "test")


def test_evaluating_into_a_run_dir(shared_run, own_run, data, tmp_path):
    asked = {"task": "evaluate", "device": "cpu", "data": {"test": str(data / "test.xyz")}}
    new = tmp_path / "new"
    forgefield.run({**asked, "model_in": str(shared_run[0]), "run_dir": str(new)}, quiet=True)
    assert (new / "evaluation" / "test" / "metrics.json").is_file()
    assert {p.name for p in new.iterdir()} == {"evaluation", "report.html", "run.json", "run.resolved.yaml"}
    asked["data"] = {"test": str(data / "train.xyz")}
    resolved = (own_run / "run.resolved.yaml").read_bytes()
    forgefield.run({**asked, "model_in": str(own_run / "checkpoints" / "last"), "run_dir": str(own_run)}, quiet=True)
    assert "<td>train</td>" in (own_run / "report.html").read_text()
    assert (own_run / "run.resolved.yaml").read_bytes() == resolved
    with pytest.raises(forgefield.ForgeError, match="another model"):
        forgefield.run({**asked, "model_in": str(shared_run[0]), "run_dir": str(own_run)}, quiet=True)


def test_the_evaluation_of_another_model_stays_out_of_a_run(own_run, shared_run, data, contents_of):
    before = contents_of(own_run)
    config = ask("evaluate", shared_run[0] / "artifacts", data / "test.xyz", own_run / "evaluation" / "other")
    with pytest.raises(forgefield.ForgeError, match="another model"):
        forgefield.run(config, quiet=True)
    assert contents_of(own_run) == before


def test_evaluating_needs_labels_and_says_what_does_not(shared_run, data, tmp_path):
    with pytest.raises(forgefield.ForgeError, match="task infer, which needs no labels"):
        forgefield.run(ask("evaluate", shared_run[0], data / "bare.xyz", tmp_path / "out"), quiet=True)
    assert not (tmp_path / "out").exists()


def test_evaluating_leaves_free_atoms_out(shared_run, data, tmp_path, capsys):
    result = forgefield.run(ask("evaluate", shared_run[0], data / "train.xyz", tmp_path / "out"))
    assert result.metrics["all"]["n_structures"] == 20
    assert "4 frames of one free atom are left out" in capsys.readouterr().out


def test_chosen_indices_are_evaluated(shared_run, data, tmp_path):
    config = ask("evaluate", shared_run[0], data / "test.xyz", tmp_path / "out")
    config["data"]["indices"] = [4, 1]
    forgefield.run(config, quiet=True)
    found = [row["origin"].rsplit(" ", 1)[1] for row in rows(tmp_path / "out" / "predictions.csv")]
    assert found == ["4", "1"]


def test_inferring_gives_energies_and_forces_without_labels(shared_run, data, tmp_path):
    root, _ = shared_run
    forgefield.run(ask("infer", root / "artifacts", data / "bare.xyz", tmp_path / "out"), quiet=True)
    labelled = rows(root / "evaluation" / "test" / "predictions.csv")
    found = rows(tmp_path / "out" / "predictions.csv")
    assert "energy_label" not in found[0]
    for row, known in zip(found, labelled, strict=False):
        assert float(row["energy"]) == pytest.approx(float(known["energy"]), abs=1e-6)
    frames = read(tmp_path / "out" / "predictions.xyz", ":")
    assert [len(a) for a in frames] == [27, 27, 27]
    assert not any("ref_energy" in a.info for a in frames)
    forces = np.array(
        [[float(r[f"force_{x}"]) for x in "xyz"] for r in rows(tmp_path / "out" / "predictions.forces.csv")]
    )
    assert forces.shape == (81, 3)
    np.testing.assert_allclose(forces, np.concatenate([a.get_forces() for a in frames]), atol=1e-7)
    np.testing.assert_allclose(forces.reshape(3, 27, 3).sum(axis=1), 0, atol=1e-8)


def test_inferring_energies_only(shared_run, data, tmp_path):
    config = ask("infer", shared_run[0], data / "bare.xyz", tmp_path / "out", eval={"energy_only": True})
    forgefield.run(config, quiet=True)
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"predictions.csv", "predictions.xyz"}
    assert set(read(tmp_path / "out" / "predictions.xyz", 0).calc.results) == {"energy"}


def test_the_precision_is_the_model_s_unless_another_is_asked_for(shared_run, data, tmp_path, capsys):
    forgefield.run(ask("infer", shared_run[0], data / "bare.xyz", tmp_path / "a"))
    assert "float64" in capsys.readouterr().out
    forgefield.run(ask("infer", shared_run[0], data / "bare.xyz", tmp_path / "b", dtype="float32"))
    assert "float32" in capsys.readouterr().out
    one, other = (float(rows(tmp_path / name / "predictions.csv")[0]["energy"]) for name in "ab")
    assert one != other
    assert one == pytest.approx(other, abs=1e-2)


def test_the_loaded_model_can_be_saved_beside(shared_run, data, tmp_path):
    config = ask(
        "infer", shared_run[0], data / "bare.xyz", tmp_path / "out", model={"export": {"dir": str(tmp_path / "m")}}
    )
    forgefield.run(config, quiet=True)
    forgefield.run(ask("infer", tmp_path / "m", data / "bare.xyz", tmp_path / "again"), quiet=True)
    assert rows(tmp_path / "again" / "predictions.csv") == rows(tmp_path / "out" / "predictions.csv")


def test_the_device_is_said(shared_run, data, tmp_path, capsys):
    forgefield.run(ask("infer", shared_run[0], data / "bare.xyz", tmp_path / "out", device="auto"))
    assert "device: " in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_exporting_a_checkpoint(shared_run, data, tmp_path):
    root, _ = shared_run
    best = root / "checkpoints" / "best"
    config = {"task": "export", "model_in": str(best), "run_dir": str(tmp_path / "out"), "device": "cpu"}
    result = forgefield.run(config, quiet=True)
    folder = tmp_path / "out" / "artifacts"
    assert {p.name for p in folder.iterdir()} == {"weights.safetensors", "manifest.json", "model.torchscript.pt"}
    assert all(path.is_file() for path in result.files)
    atoms = read(data / "test.xyz", 0)
    atoms.calc = forgefield.ForgeField.load(folder, device="cpu")
    known = float(rows(root / "evaluation" / "test" / "predictions.csv")[0]["energy"])
    assert atoms.get_potential_energy() == pytest.approx(known, abs=1e-8)
    assert torch.jit.load(folder / "model.torchscript.pt") is not None


def test_exporting_without_data_checks_on_made_up_structures(shared_run):
    from forgefield.app.tasks.steps.specimen import specimens
    from forgefield.export.prediction import predict

    potential = forgefield.load(shared_run[0], device="cpu")
    cluster, cell = specimens(potential)
    assert set(cluster.numbers.tolist()) == {1, 6, 7, 8}
    distances = np.linalg.norm(cluster.positions[:, None] - cluster.positions[None], axis=2)
    assert 0.8 < distances[distances > 0].min() < potential.cutoff
    assert cell.pbc.all()
    assert all(np.abs(p.forces).max() > 0 for p in predict(potential, [cluster, cell]))
