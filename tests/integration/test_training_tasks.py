"""train, finetune and resume from end to end."""

import csv
import json

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write

import forgefield
from forgefield.app.folder import RunFolder
from forgefield.app.reports.markup import milli

E0 = {"H": -13.0, "C": -1029.0, "N": -1484.0, "O": -2041.0}


def history(root) -> list[dict]:
    return [json.loads(line) for line in (root / "history.jsonl").read_text().splitlines()]


def losses(root) -> list[tuple[float, float]]:
    return [(row["train_loss"], row["val_loss"]) for row in history(root)]


def load(path) -> dict:
    return json.loads(path.read_text())


def test_a_run_leaves_the_whole_layout(shared_run):
    root, result = shared_run
    folder = RunFolder(root)
    for path in (folder.resolved, folder.record, folder.statistics, folder.split, folder.history, folder.history_csv,
                 folder.report, folder.best / "manifest.json", folder.last / "manifest.json",
                 folder.artifacts / "weights.safetensors", folder.artifacts / "manifest.json",
                 folder.artifacts / "model.torchscript.pt"):  # fmt: skip
        assert path.is_file(), path
    assert any(folder.tensorboard.iterdir())
    for name in ("test", "val"):
        files = {p.name for p in folder.evaluation(name).iterdir()}
        assert files == {"metrics.json", "metrics.csv", "predictions.csv", "predictions.xyz", "predictions.npz"}
    assert all(path.exists() for path in result.files)
    assert len(result.next_commands) == 3
    assert not [p for p in root.rglob("*") if ".part" in p.name or ".new" in p.name]


def test_the_record_tells_where_all_came_from(shared_run, data):
    record = load(shared_run[0] / "run.json")
    assert record["status"] == "finished"
    assert (record["split"]["train"], record["split"]["val"]) == (18, 2)
    assert (
        record["data"]["train"]["fingerprint"]
        == forgefield.open_dataset(data / "train.xyz")
        .subset([*load(shared_run[0] / "split.json")["train"]])
        .fingerprint
    )
    assert record["fit"]["epochs_done"] == 2
    assert record["seconds"]["total"] >= record["seconds"]["training"] > 0
    assert record["environment"]["forgefield"] == forgefield.__version__
    assert record["peak_memory"]["process"] > 50


def test_metrics_are_those_of_the_written_predictions(shared_run):
    root, result = shared_run
    metrics = load(root / "evaluation" / "test" / "metrics.json")
    frames = read(root / "evaluation" / "test" / "predictions.xyz", ":")
    errors = np.concatenate([(a.get_forces() - a.arrays["ref_forces"]).ravel() for a in frames])
    assert metrics["all"]["forces_rmse"] == pytest.approx(np.sqrt(np.mean(errors**2)), rel=1e-6)
    per_atom = [(a.get_potential_energy() - a.info["ref_energy"]) / len(a) for a in frames]
    assert metrics["all"]["energy_mae_per_atom"] == pytest.approx(np.mean(np.abs(per_atom)), rel=1e-9)
    assert result.metrics["test"]["all"] == metrics["all"]
    with open(root / "evaluation" / "test" / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[0]["forces_rmse"]) == metrics["all"]["forces_rmse"]
    assert {row["name"] for row in rows if row["group"] == "element"} == {"H", "C", "N", "O"}


def test_the_report_says_what_the_metrics_say(shared_run):
    root, _ = shared_run
    page = (root / "report.html").read_text()
    for name in ("test", "val"):
        found = load(root / "evaluation" / name / "metrics.json")["all"]
        assert milli(found["forces_rmse"]) in page
        assert milli(found["energy_rmse_per_atom"]) in page
    assert load(root / "run.json")["data"]["test"]["fingerprint"] in page
    assert "forgefield run " in page


def test_the_artifacts_predict_in_ase_what_was_evaluated(shared_run, data):
    root, _ = shared_run
    atoms = read(data / "test.xyz", index=2)
    reference = atoms.copy()
    reference.calc = forgefield.ForgeField.load(root / "artifacts", device="cpu")
    with open(root / "evaluation" / "test" / "predictions.csv", newline="") as file:
        row = list(csv.DictReader(file))[2]
    assert reference.get_potential_energy() == pytest.approx(float(row["energy"]), abs=1e-8)
    assert float(row["energy_label"]) == atoms.get_potential_energy()


def test_the_best_model_is_what_is_handed_out(shared_run):
    root, _ = shared_run
    best = min(history(root), key=lambda row: row["val_loss"])["epoch"]
    assert load(root / "run.json")["fit"]["best_epoch"] == best
    manifest = load(root / "artifacts" / "manifest.json")
    assert manifest["weights"]["sha256"] == load(root / "checkpoints" / "best" / "manifest.json")["weights"]["sha256"]
    assert manifest["provenance"]["fit"]["best_epoch"] == best
    assert str(root) not in json.dumps(manifest)


def test_free_atoms_give_the_reference_energies_and_are_not_trained_on(shared_run):
    found = load(shared_run[0] / "statistics.json")
    assert found["reference_source"] == "isolated atoms"
    assert found["reference_energies"]["default"]["1"] == -13.587222780835477
    assert found["n_isolated"] == 4


def test_the_same_run_again_gives_the_same_numbers(shared_run, tmp_path):
    root, _ = shared_run
    again = forgefield.load_run(root / "run.resolved.yaml", overrides=[f"run_dir={tmp_path / 'again'}"])[0]
    forgefield.run(again, quiet=True)
    assert losses(tmp_path / "again") == losses(root)


def test_the_seed_fixes_the_weights_and_the_order(shared_run, settings, tmp_path):
    def first_loss(name: str, **changes) -> float:
        changes |= {"train__epochs": 1, "data__test": [], "export__standard_artifacts": False}
        forgefield.run(settings(tmp_path / name, **changes), quiet=True)
        return losses(tmp_path / name)[0][1]

    whole = {"train__batch_size": 18}  # one batch: the order does not matter
    assert first_loss("a", train__seed=0, **whole) != first_loss("b", train__seed=1, **whole)
    same = {"task": "finetune", "model_in": str(shared_run[0])}  # the same weights
    assert first_loss("c", train__seed=0, **same) != first_loss("d", train__seed=1, **same)


def test_resuming_equals_never_having_stopped(settings, tmp_path):
    forgefield.run(settings(tmp_path / "whole", train__epochs=4), quiet=True)
    forgefield.run(settings(tmp_path / "parts", train__epochs=2), quiet=True)
    more = settings(tmp_path / "parts", task="resume", train__epochs=4)
    result = forgefield.run(more, quiet=True)
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    one, other = (load(tmp_path / name / "artifacts" / "manifest.json") for name in ("whole", "parts"))
    assert one["weights"]["sha256"] == other["weights"]["sha256"]
    assert result.metrics == {
        name: {k: v for k, v in load(tmp_path / "whole" / "evaluation" / name / "metrics.json").items() if k != "about"}
        for name in ("test", "val")
    }
    resolved = forgefield.load_run(tmp_path / "parts" / "run.resolved.yaml")[0]
    assert (resolved.task, resolved.train.epochs) == ("train", 4)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train__lr": 0.5}, r"train\.lr was 0\.01, is 0\.5"),
        ({"train__batch_size": 2}, r"train\.batch_size was 5, is 2"),
        ({"data__split_seed": 9}, r"data\.split_seed was 0, is 9"),
        ({"dtype": "float32"}, r"dtype was 'float64', is 'float32'"),
    ],
)
def test_resuming_with_other_settings_is_refused(own_run, settings, contents_of, changes, words):
    before = contents_of(own_run)
    with pytest.raises(forgefield.ForgeError, match=words):
        forgefield.run(settings(own_run, task="resume", **changes), quiet=True)
    assert contents_of(own_run) == before


def test_resuming_with_other_data_is_refused(own_run, settings, data, contents_of, tmp_path):
    text = (data / "train.xyz").read_text()
    (tmp_path / "train.xyz").write_text(text.replace("0.32656990", "0.32656991"))
    before = contents_of(own_run)
    changed = settings(own_run, task="resume", data__train=str(tmp_path / "train.xyz"), train__epochs=3)
    with pytest.raises(forgefield.ForgeError, match="not those that the run was started with"):
        forgefield.run(changed, quiet=True)
    assert contents_of(own_run) == before


def test_resuming_another_checkpoint_is_refused(own_run, shared_run, settings, contents_of):
    before = contents_of(own_run)
    other = str(shared_run[0] / "checkpoints" / "last")
    with pytest.raises(forgefield.ForgeError, match="resume continues"):
        forgefield.run(settings(own_run, task="resume", model_in=other), quiet=True)
    assert contents_of(own_run) == before


def test_finetuning_begins_with_the_loaded_model(shared_run, settings, tmp_path, capsys):
    root, result = shared_run
    start = str(root / "artifacts")
    config = settings(tmp_path / "fine", task="finetune", model_in=start, train__epochs=1, train__lr=1e-4)
    forgefield.run(config)
    record = load(tmp_path / "fine" / "run.json")
    before = record["start"]["errors_before"]
    assert before["forces_rmse"] == pytest.approx(result.metrics["val"]["all"]["forces_rmse"], rel=1e-9)
    weights = load(root / "artifacts" / "manifest.json")["weights"]["sha256"]
    assert record["start"]["weights_sha256"] == weights
    manifest = load(tmp_path / "fine" / "artifacts" / "manifest.json")
    assert manifest["provenance"]["start"]["weights_sha256"] == weights
    assert manifest["reference_energies"] == load(root / "artifacts" / "manifest.json")["reference_energies"]
    said = capsys.readouterr().out
    assert f"loaded: {start}" in said
    assert "reference energies: of the model" in said
    assert "before training" in said
    page = (tmp_path / "fine" / "report.html").read_text()
    assert weights in page
    assert f"{milli(before['forces_rmse'])} meV/Å with the loaded model" in page


def test_finetuning_with_other_reference_energies_uses_them(shared_run, settings, tmp_path):
    config = settings(
        tmp_path / "fine", task="finetune", model_in=str(shared_run[0]), train__epochs=1, data__e0=E0,
        export__standard_artifacts=False,
    )  # fmt: skip
    forgefield.run(config, quiet=True)
    manifest = load(tmp_path / "fine" / "checkpoints" / "best" / "manifest.json")
    assert manifest["reference_energies"]["default"] == E0
    assert not (tmp_path / "fine" / "artifacts").exists()


def test_finetuning_only_the_head_changes_nothing_else(shared_run, settings, tmp_path):
    from safetensors.numpy import load_file

    config = settings(
        tmp_path / "fine", task="finetune", model_in=str(shared_run[0]), train__epochs=1, train__freeze="head_only",
        export__standard_artifacts=False,
    )  # fmt: skip
    forgefield.run(config, quiet=True)
    old = load_file(shared_run[0] / "artifacts" / "weights.safetensors")
    new = load_file(tmp_path / "fine" / "checkpoints" / "best" / "weights.safetensors")
    changed = {name for name in old if not np.array_equal(old[name], new[name])}
    assert changed
    assert all(name.startswith("readouts.") for name in changed)


def test_finetuning_on_unknown_elements_is_refused(shared_run, settings, data, tmp_path, contents_of):
    text = (data / "train.xyz").read_text().replace("\nO  ", "\nS  ")
    (tmp_path / "sulphur.xyz").write_text(text)
    config = settings(
        tmp_path / "fine", task="finetune", model_in=str(shared_run[0]), data__train=str(tmp_path / "sulphur.xyz")
    )
    with pytest.raises(forgefield.ForgeError, match="has S, which the model does not have"):
        forgefield.run(config, quiet=True)
    assert not (tmp_path / "fine").exists()


def copper(n: int, seed: int) -> list[Atoms]:
    """Strained and shaken copper cells with energy, forces and stress."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(n):
        atoms = bulk("Cu", cubic=True)
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.03 * random.normal(size=(3, 3))), scale_atoms=True)
        atoms.rattle(0.1, rng=random)
        atoms.calc = EMT()
        found.append(atoms)
    for atoms in found:
        results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces(), "stress": atoms.get_stress()}
        atoms.calc = SinglePointCalculator(atoms, **results)
    return found


def test_stress_is_trained_evaluated_and_reported(settings, tmp_path):
    write(tmp_path / "copper.xyz", copper(12, 1))
    config = settings(
        tmp_path / "run", data__train=str(tmp_path / "copper.xyz"), data__test=str(tmp_path / "copper.xyz"),
        train__stress_weight=10.0, train__epochs=1,
    )  # fmt: skip
    result = forgefield.run(config, quiet=True)
    found = result.metrics["copper"]["all"]
    assert found["stress_rmse"] > 0
    assert history(tmp_path / "run")[-1]["train_stress"] > 0
    frames = read(tmp_path / "run" / "evaluation" / "copper" / "predictions.xyz", ":")
    errors = np.array([a.get_stress(voigt=False) - np.array(a.info["ref_stress"]) for a in frames])
    assert np.sqrt(np.mean(errors**2)) == pytest.approx(found["stress_rmse"], rel=1e-4)
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Stress components" in page
    assert "mean over stress components" in page


def test_heads_come_from_the_data(settings, data, tmp_path):
    lines = (data / "train.xyz").read_text().splitlines(keepends=True)
    count, text = 0, []
    for line in lines:
        if line.startswith(("Lattice", "Properties")):
            heads = ["low", "high"] if "IsolatedAtom" in line else [["low", "high"][count % 2]]
            count += 1
            line = line.rstrip("\n") + f" head={heads[0]}\n"
        text.append(line)
    (tmp_path / "heads.xyz").write_text("".join(text))
    config = settings(
        tmp_path / "run", data__train=str(tmp_path / "heads.xyz"), data__e0=E0, train__epochs=1, train__head_key="high"
    )
    forgefield.run(config, quiet=True)
    manifest = load(tmp_path / "run" / "artifacts" / "manifest.json")
    assert manifest["heads"] == ["high", "low"]
    asked = {"task": "evaluate", "model_in": str(tmp_path / "run"), "data": {"test": str(data / "test.xyz")}}
    with pytest.raises(forgefield.ForgeError, match=r"set model\.head to one of them"):
        forgefield.run({**asked, "output": {"dir": str(tmp_path / "none")}}, quiet=True)
    assert not (tmp_path / "none").exists()
    energies = {}
    for head in ("high", "low"):
        out = tmp_path / head
        forgefield.run({**asked, "model": {"head": head}, "output": {"dir": str(out)}}, quiet=True)
        energies[head] = read(out / "predictions.xyz", 0).get_potential_energy()
    assert energies["high"] != energies["low"]


def test_a_model_json_takes_the_place_of_measurements(settings, tmp_path):
    block = {
        "model_type": "ScaleShiftMACE", "z_table": [1, 6, 7, 8, 16], "cutoff": 4.0, "num_interactions": 2,
        "num_radial_basis": 4, "hidden_irreps": "4x0e + 4x1o", "max_ell": 1, "correlation": 2,
        "e0_values": [-13.0, -1029.0, -1484.0, -2041.0, -10800.0], "avg_num_neighbors": 11.5,
        "scale_shift": {"scale": 0.7, "shift": -1.25},
    }  # fmt: skip
    (tmp_path / "model.json").write_text(json.dumps(block))
    config = settings(tmp_path / "run", train__input_json=str(tmp_path / "model.json"), train__epochs=1)
    forgefield.run({**config, "model": {}}, quiet=True)
    manifest = load(tmp_path / "run" / "artifacts" / "manifest.json")
    assert manifest["elements"] == ["H", "C", "N", "O", "S"]
    assert manifest["reference_energies"]["default"] == {**E0, "S": -10800.0}
    assert (manifest["avg_num_neighbors"], manifest["scale"], manifest["shift"]) == (11.5, [0.7], [-1.25])
    assert manifest["cutoff"] == 4.0


def test_a_time_limit_ends_a_run_that_resume_continues(settings, tmp_path, capsys):
    config = settings(tmp_path / "run", train__epochs=200, train__max_minutes=0.01)
    forgefield.run(config)
    assert "stopped by train.max_minutes" in " ".join(capsys.readouterr().out.split())
    done = history(tmp_path / "run")[-1]["epoch"]
    assert done < 200
    resumed = settings(tmp_path / "run", task="resume", train__epochs=200, train__max_minutes=0.02)
    forgefield.run(resumed, quiet=True)
    assert history(tmp_path / "run")[-1]["epoch"] > done


def test_without_validation_data_the_training_data_are_used_and_it_is_said(settings, tmp_path, capsys):
    config = settings(tmp_path / "run", data__val_fraction=0.0, data__test=[], train__epochs=1)
    result = forgefield.run(config)
    assert list(result.metrics) == ["train"]
    assert "no validation data" in capsys.readouterr().out


def test_an_interrupted_run_is_kept_from_its_first_checkpoint_on(settings, tmp_path, monkeypatch):
    from forgefield.app.tasks.steps import concluding

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(concluding, "evaluate", stop)
    with pytest.raises(KeyboardInterrupt):
        forgefield.run(settings(tmp_path / "run"), quiet=True)
    assert load(tmp_path / "run" / "run.json")["status"] == "stopped by the user"
    monkeypatch.undo()
    forgefield.run(settings(tmp_path / "run", task="resume"), quiet=True)
    assert load(tmp_path / "run" / "run.json")["status"] == "finished"
