"""The public names: few, lazy, and as the docs say."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from ase.io import read

import forgefield as ff

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python-api.md").read_text(), re.DOTALL)


def fresh(code: str) -> str:
    """Run code in a fresh interpreter and return what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()


def test_importing_is_light_and_has_no_side_effects():
    heavy = fresh(
        "import sys, forgefield; print([m for m in ('torch', 'numpy', 'ase', 'pydantic', 'rich') if m in sys.modules])"
    )
    assert heavy == "[]"


def test_names_survive_the_import_of_every_room():
    names = fresh(
        "import importlib, forgefield as ff\n"
        "for room in 'core graph data models train export engines app'.split():\n"
        "    importlib.import_module(f'forgefield.{room}')\n"
        "for name in ff.__all__:\n"
        "    assert type(getattr(ff, name)).__name__ != 'module', name\n"
        "print(len(ff.__all__))"
    )
    assert int(names) <= 15


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nothing"):
        ff.nothing  # noqa: B018


def test_the_version_is_that_of_the_package():
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == ff.__version__


def test_the_docs_list_the_public_names():
    text = (ROOT / "docs" / "python-api.md").read_text()
    for name in ff.__all__:
        assert f"`{name}" in text, name


def test_the_example_of_the_docs_runs(tmp_path, monkeypatch, capsys):
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(BLOCKS[0], names)
    exec(BLOCKS[2], names)
    said = capsys.readouterr().out
    assert "504 frames" in said
    assert "does not exist -> give the artifacts" in said
    assert (tmp_path / "runs" / "notebook" / "report.html").is_file()
    assert names["atoms"].get_potential_energy() == pytest.approx(names["first"].energy, abs=2e-2)


def test_predicting_takes_whatever_holds_structures(shared_run, data):
    model = ff.load(shared_run[0], device="cpu")
    dataset = ff.open_dataset(data / "test.xyz")
    expected = [p.energy for p in ff.predict(model, dataset)]
    images = read(data / "test.xyz", ":")
    assert [p.energy for p in ff.predict(model, images)] == expected
    assert [p.energy for p in ff.predict(model, [dataset[k] for k in range(5)])] == expected
    assert [p.energy for p in ff.predict(shared_run[0] / "artifacts", str(data / "test.xyz"))] == expected
    assert ff.predict(model, images[3])[0].energy == pytest.approx(expected[3], abs=1e-9)
    assert ff.predict(model, images[3], energy_only=True)[0].forces is None


def test_evaluating_atoms_uses_the_results_of_their_calculator(shared_run, data):
    model = ff.load(shared_run[0], device="cpu")
    images = read(data / "test.xyz", ":")
    found = ff.evaluate(model, images)["all"]
    assert found == ff.evaluate(model, data / "test.xyz")["all"]
    for atoms in images:
        atoms.calc.results["energy"] += 1.0
    shifted = ff.evaluate(model, images)["all"]
    assert shifted["forces_rmse"] == found["forces_rmse"]
    assert shifted["energy_rmse"] != found["energy_rmse"]


def test_saving_and_loading(shared_run, data, tmp_path):
    model = ff.load(shared_run[0], device="cpu")
    artifact = ff.save(model, tmp_path / "out", data / "test.xyz")
    assert artifact.certificates.keys() == {"weights", "torchscript"}
    again = ff.load(tmp_path / "out", device="cpu")
    one, other = (ff.predict(m, data / "test.xyz")[0] for m in (model, again))
    np.testing.assert_array_equal(one.forces, other.forces)


def test_a_run_from_a_file_by_name(shared_run, data, tmp_path):
    (tmp_path / "run.yaml").write_text(
        f"model_in: {shared_run[0]}\ndevice: cpu\ndata: {{test: {data / 'bare.xyz'}}}\ntask: infer\n"
        "runs:\n- {name: a, output: {dir: a}}\n- {name: b, output: {dir: b}}\n"
    )
    with pytest.raises(ff.ForgeError, match=r"holds 2 runs.*a, b"):
        ff.run(tmp_path / "run.yaml", quiet=True)
    ff.run(tmp_path / "run.yaml", "b", quiet=True)
    assert (tmp_path / "b" / "predictions.xyz").is_file()
    assert not (tmp_path / "a").exists()


def test_an_argument_given_twice_is_refused(data, tmp_path):
    with pytest.raises(ff.ForgeError, match="'train', which has an argument of its own"):
        ff.fit(data / "train.xyz", tmp_path / "run", settings={"train": {"epochs": 1}})


def test_a_report_can_be_written_again(own_run):
    (own_run / "report.html").unlink()
    assert ff.write_report(own_run) == own_run / "report.html"
    shutil.rmtree(own_run / "evaluation")
    assert "Learning" in ff.write_report(own_run).read_text()
