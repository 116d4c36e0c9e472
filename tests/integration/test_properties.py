"""Models of properties: trained, judged, asked, handed out and taken up again, without an energy anywhere."""

import csv
import json

import numpy as np
import pytest
from ase import Atoms
from ase.io import read, write

import forgefield
from forgefield.core.errors import ForgeError
from forgefield.export.calculator import ForgeField

MODEL = {"alignn_layers": 1, "gcn_layers": 1, "hidden_features": 8, "embedding_features": 8, "cutoff": 3.0}
NO_ENERGY = {"energy_weight": 0, "force_weight": 0, "epochs": 1, "batch_size": 4}


def chains(n, seed=0, *, last="F"):
    """Chains whose size is a number, whose charges are numbers of atoms, and which are long or short."""
    rng = np.random.default_rng(seed)
    found = []
    for k in range(n):
        count = int(rng.integers(2, 6))
        symbols = [*rng.choice(["C", "O"], count), last if k == n - 1 else "H"]
        x = 1.3 * np.arange(count + 1)[:, None] * np.array([[1.0, 0.0, 0.0]]) + rng.normal(0, 0.05, (count + 1, 3))
        atoms = Atoms(symbols, x)
        atoms.info |= {"gap": 100.0 + 3.0 * count, "bands": [count, -count, 0.5], "wet": [0.1 * k, 1.0]}
        atoms.arrays["moment"] = np.arange(count + 1, dtype=float)
        found.append(atoms)
    return found


TARGETS = {
    "gap": {"key": "gap", "per": "structure", "unit": "eV"},
    "bands": {"key": "bands", "per": "structure", "components": 3},
    "moment": {"key": "moment", "per": "atom"},
    "long": {"key": "gap", "per": "structure", "threshold": 110.0},
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chains")
    write(folder / "train.xyz", chains(16, last="H"))
    write(folder / "val.xyz", chains(6, 1))  # the last one has fluorine, which no training structure has
    return folder


def run_yaml(files, root, **more):
    return {
        "task": "train", "backend": "alignn", "run_dir": str(root), "model": MODEL, "device": "cpu",
        "data": {"train": str(files / "train.xyz"), "val": str(files / "val.xyz"), "targets": TARGETS,
                 "features": {"wet": "wet"}, "accept": ["duplicates", "leaked_duplicates"]},
        "train": {**NO_ENERGY, "targets": {name: {"weight": 1.0} for name in TARGETS}}, **more,
    }  # fmt: skip


@pytest.fixture(scope="module")
def run(files, tmp_path_factory):
    root = tmp_path_factory.mktemp("runs") / "properties"
    forgefield.run(run_yaml(files, root), quiet=True)
    return root


def test_errors_are_those_of_the_targets(run):
    errors = json.loads((run / "evaluation" / "val" / "metrics.json").read_text())["all"]
    assert errors["energy_rmse"] is None
    assert errors["n_gap"] == 6
    assert errors["n_bands"] == 6
    assert errors["n_moment"] > 6
    assert sum(errors[f"long_{a}_{b}"] for a in ("true", "false") for b in ("positive", "negative")) == 6
    assert 0.0 < errors["gap_mae"] < 20.0  # the mean is 110: without it all would be off by a hundred


def test_numbers_come_out_in_the_units_of_the_file(run):
    statistics = json.loads((run / "statistics.json").read_text())
    assert statistics["targets"]["gap"]["mean"][0] == pytest.approx(np.mean([a.info["gap"] for a in chains(16)]))
    assert statistics["reference_source"].startswith("none")


def test_the_report_has_no_energy(run):
    page = (run / "report.html").read_text()
    assert "ALIGNN model of properties" in page
    assert "always answering the mean would be off by" in page
    assert "area under the curve" in page
    assert "get_property(&quot;gap&quot;, atoms)" in page
    assert "Energy per atom" not in page


def test_the_artifact_answers_in_ase_as_the_table_says(run, files, tmp_path):
    forgefield.run(
        {"task": "infer", "model_in": str(run / "artifacts"), "data": {"lmdb": str(files / "val.xyz")},
         "output": {"dir": str(tmp_path)}, "device": "cpu"}, quiet=True,
    )  # fmt: skip
    rows = list(csv.DictReader((tmp_path / "predictions.csv").read_text().splitlines()))
    assert "energy" not in rows[0]
    calculator = ForgeField.load(run / "artifacts", device="cpu")
    for row, atoms in zip(rows, read(files / "val.xyz", ":"), strict=True):
        assert calculator.get_property("gap", atoms) == pytest.approx(float(row["gap"]), abs=1e-3)
        assert calculator.get_property("long", atoms) == pytest.approx(float(row["long"]), abs=1e-4)
    with pytest.raises(Exception, match="energy"):
        calculator.get_potential_energy(read(files / "val.xyz", "0"))


def test_it_can_be_taken_up_again(run, files, tmp_path_factory):
    root = tmp_path_factory.mktemp("again") / "r"
    longer = run_yaml(files, root)
    longer["train"] = {**longer["train"], "epochs": 2}
    forgefield.run(longer, quiet=True)
    other = tmp_path_factory.mktemp("again") / "r"
    forgefield.run(run_yaml(files, other), quiet=True)
    forgefield.run({**run_yaml(files, other), "task": "resume", "train": longer["train"]}, quiet=True)
    first, second = ((place / "checkpoints" / "last" / "weights.safetensors").read_bytes() for place in (root, other))
    assert first == second


def test_energies_in_the_file_do_not_disturb(run, files, tmp_path, capsys):
    """They are no labels of what the model predicts; a target that is not declared is said to be left out."""
    atoms = chains(8)
    for one in atoms:
        one.info["energy"], one.arrays["forces"] = -1.0, np.zeros((len(one), 3))
    write(tmp_path / "labelled.xyz", atoms)
    known = {"gap": TARGETS["gap"]}
    config = {"task": "evaluate", "model_in": str(run / "artifacts"), "device": "cpu",
              "data": {"lmdb": str(tmp_path / "labelled.xyz"), "targets": known},
              "output": {"dir": str(tmp_path / "out")}}  # fmt: skip
    forgefield.run(config)
    text = " ".join(capsys.readouterr().out.split())
    assert "no frame has bands, moment, long, which is not compared" in text
    assert "{bands: {key: NAME_IN_THE_FILE, per: structure, components: 3}}" in text
    assert "{long: {key: NAME_IN_THE_FILE, per: structure, threshold: NUMBER}}" in text
    assert "do not count" not in text
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Energy errors" not in page


def test_a_number_is_not_taken_for_a_class(run, files, tmp_path):
    as_number = {"key": "gap", "per": "structure"}
    config = {"task": "evaluate", "model_in": str(run / "artifacts"), "device": "cpu",
              "data": {"lmdb": str(files / "val.xyz"), "targets": {"long": as_number}},
              "output": {"dir": str(tmp_path)}}  # fmt: skip
    with pytest.raises(ForgeError, match=r"long is a number of each structure there; .*a class.*threshold: NUMBER"):
        forgefield.run(config, quiet=True)


def test_an_evaluation_without_a_label_is_refused(run, files, tmp_path):
    config = {"task": "evaluate", "model_in": str(run / "artifacts"), "data": {"lmdb": str(files / "val.xyz")},
              "output": {"dir": str(tmp_path)}, "device": "cpu"}  # fmt: skip
    with pytest.raises(ForgeError, match="no frame has"):
        forgefield.run(config, quiet=True)


def test_a_target_that_is_not_there_is_named(files, tmp_path):
    config = run_yaml(files, tmp_path / "r")
    config["train"]["targets"] = {"density": {"weight": 1.0}}
    with pytest.raises(ForgeError, match=r"no frame has density"):
        forgefield.run(config, quiet=True)


def test_a_class_with_one_side_only_is_refused(files, tmp_path):
    config = run_yaml(files, tmp_path / "r")
    config["data"]["targets"] = {"long": {"key": "gap", "per": "structure", "threshold": 1.0}}
    config["train"]["targets"] = {"long": {"weight": 1.0}}
    with pytest.raises(ForgeError, match="all training structures have long above its threshold"):
        forgefield.run(config, quiet=True)


def test_mace_says_that_it_cannot(files, tmp_path):
    config = run_yaml(files, tmp_path / "r") | {"backend": "mace", "model": {}}
    config["data"] |= {"features": {}, "val": str(files / "train.xyz")}
    config["train"]["targets"] = {"gap": {"weight": 1.0}}
    with pytest.raises(ForgeError, match="mace does not predict gap"):
        forgefield.run(config, quiet=True)
