"""A user of alignn moves in: settings of its examples are translated, checked and run, models judged and asked."""

import csv
import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from forgefield.app.cli import app

SAMPLES = Path(__file__).parents[1] / "data" / "alignn"
SMALL = ("model.hidden_features=8", "model.embedding_features=8", "model.alignn_layers=1", "model.gcn_layers=1",
         "cutoff=4.0", "epochs=2", "n_train=4", "n_val=2", "n_test=2")  # fmt: skip
VASP = ("--set", "data.stress_sign=vasp", "--set", "data.stress_unit=kbar", "--set", "data.energy_per=structure")
ALWAYS = {"ids_train_val_test.json", "history_train.json", "history_val.json", "Train_results.json",
          "Val_results.json", "Test_results.json"}  # fmt: skip


def call(*words):
    result = CliRunner(env={"COLUMNS": "200", "TERM": "dumb", "NO_COLOR": "1"}).invoke(app, [str(w) for w in words])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, " ".join((result.stdout + result.stderr).split())


def right(*words):
    code, text = call(*words)
    assert code == 0, text
    return text


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def settle(folder, config, data):
    """Put settings and data where a user has them; eight structures, so that each kind is in every part."""
    shutil.copytree(SAMPLES / data, folder, dirs_exist_ok=True)
    shutil.copy(SAMPLES / "configs" / f"{config}.json", folder / "config.json")
    if (folder / "id_prop.csv").exists():
        lines = (folder / "id_prop.csv").read_text().splitlines()
        (folder / "id_prop.csv").write_text("\n".join([*lines, *lines[::-1]]) + "\n")
        return
    entries = json.loads((folder / "id_prop.json").read_text())
    entries = [entries[k] for k in (0, 2, 1, 3, 0, 2, 1, 3)]
    if config == "additional":
        entries = [{**one, "dos": [0.1 * k, 1.0 - 0.1 * k, 0.5]} for k, one in enumerate(entries)]
    (folder / "id_prop.json").write_text(json.dumps(entries))


CASES = {
    "property": (("property", "table", ()), (), {"mad", "prediction_results_test_set.csv",
                                                 "prediction_results_train_set.csv"}),
    "several": (("property", "vectors", ()), (), {"multi_out_predictions.json"}),
    "classes": (("property", "table", ("classification_threshold=0.01",)), (), {"prediction_results_test_set.csv"}),
    "forces": (("forces", "forces", ()), VASP, {"mad"}),
    "features": (("features", "forces", ("model.graphwise_weight=1", "model.gradwise_weight=1")),
                 ("--set", "data.energy_per=structure"), {"mad"}),
    "additional": (("additional", "forces", ("additional_output_key=dos", "model.additional_output_features=3")),
                   VASP, {"mad"}),
}  # fmt: skip
TARGET = {
    "classes": "{target: {key: target, per: structure, threshold: 0.01}}",
    "additional": "{additional: {key: dos, per: structure, components: 3}}",
}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if c[0][1] == "forces" else ()) for n, c in CASES.items()]
)
def test_an_example_runs_as_translated(folder, name):
    (config, data, words), repair, own = CASES[name]
    settle(folder, config, data)
    right("translate", "--from", "alignn", "config.json", *SMALL, *words)
    accept = ("--set", "data.accept=[leaked_duplicates, leaked_near_duplicates]")
    assert "ready" in right("check", "run.yaml", *repair, *accept)
    right("run", "run.yaml", "--set", "run_dir=run", *repair, *accept)
    run = folder / "run"
    assert (run / "report.html").is_file()
    assert {file.name for file in (run / "alignn").iterdir()} == ALWAYS | own
    if name == "property":
        rows = list(csv.reader((run / "alignn" / "prediction_results_test_set.csv").read_text().splitlines()))
        assert [row[0] for row in rows] == ["id", "POSCAR-JVASP-86097.vasp", "POSCAR-JVASP-90856.vasp"]
        assert len((run / "alignn" / "prediction_results_train_set.csv").read_text().splitlines()) == 5
    targets = ("--set", f"data.targets={TARGET[name]}") if name in TARGET else ()
    table = folder / ("id_prop.csv" if data != "forces" else "id_prop.json")
    right("evaluate", "--model", run / "artifacts", "--data", table, "--out", "judged", *targets)
    right("infer", "--model", run / "artifacts", "--data", table, "--out", "asked")
    assert len((folder / "asked" / "predictions.csv").read_text().splitlines()) == 9


def test_settings_that_train_nothing_say_what_to_do(folder):
    settle(folder, "features", "forces")
    code, text = call("translate", "--from", "alignn", "config.json")
    assert code == 2
    assert "all weights are 0, so that alignn trains nothing. Give model.graphwise_weight=1 beside the file" in text
    assert not (folder / "run.yaml").exists()


def test_a_bare_run_says_that_settings_beside_the_data_are_not_read(folder):
    settle(folder, "features", "forces")
    for data in (".", "id_prop.json"):
        code, text = call("train", "--backend", "alignn", "--data", data, "--out", "run", "--energy-key", "nope")
        assert code == 2
        assert "config.json holds settings of alignn, which are not read here" in text


def test_a_table_of_a_property_is_not_taken_for_energies(folder):
    settle(folder, "property", "table")
    code, text = call("train", "--backend", "alignn", "--data", ".", "--out", "run")
    assert code == 2
    assert "or learn target alone: train.energy_weight 0, train.force_weight 0, train.targets {target:" in text
