"""The mace-torch worker in the interpreter that FORGEFIELD_MACE_PYTHON names; golden files need none."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from forgefield.core.errors import ForgeError
from forgefield.engines.interpreter import WORKERS, Interpreter

GOLDEN = Path(__file__).parents[1] / "golden" / "mace"
CASES = sorted(folder.name for folder in GOLDEN.iterdir() if folder.is_dir())
SCRIPTS = Path(__file__).parents[2] / "scripts" / "oracle"
MODEL = """
import os, sys
sys.path.insert(0, sys.argv[1])
import torch
from cases import CASES
from models import build_model, randomise
from structures import ELEMENTS
name, path = sys.argv[2:]
model = build_model(CASES[name].choices, ELEMENTS)
randomise(model, list(CASES).index(name))
torch.save(model, path)
"""
OTHERS = """
import sys
sys.path.insert(0, sys.argv[1])
import torch
from cases import CASES
from models import build_model
from structures import ELEMENTS
folder = sys.argv[2]
model = build_model(CASES["plain_scalar"].choices, ELEMENTS)
torch.save(model.state_dict(), folder + "/weights.model")
torch.save([1, 2], folder + "/list.model")
model.joint_embedding = torch.nn.Linear(1, 1)
torch.save(model, folder + "/embedding.model")
from mace import modules
plain = {"r_max": 4.0, "num_bessel": 4, "num_polynomial_cutoff": 5, "max_ell": 1, "num_interactions": 2}
from e3nn import o3
block = modules.interaction_classes["RealAgnosticResidualInteractionBlock"]
irreps = {"hidden_irreps": o3.Irreps("4x0e+4x1o"), "MLP_irreps": o3.Irreps("4x0e")}
rest = {"atomic_numbers": [1], "num_elements": 1, "correlation": 1, "gate": None, "avg_num_neighbors": 1.0}
dipoles = modules.AtomicDipolesMACE(
    **plain, **irreps, **rest, interaction_cls=block, interaction_cls_first=block, atomic_energies=None
)
torch.save(dipoles, folder + "/dipole.model")
torch.save(build_model({"first": "RealAgnosticAttResidualInteractionBlock"}, ELEMENTS), folder + "/attention.model")
"""


@pytest.fixture(scope="module")
def interpreter():
    python = os.environ.get("FORGEFIELD_MACE_PYTHON")
    if not python:
        pytest.skip("FORGEFIELD_MACE_PYTHON does not name an interpreter with mace-torch")
    return Interpreter(python)


@pytest.fixture(scope="module")
def checkpoint(interpreter, tmp_path_factory):
    """The model of the golden case `heads` as upstream saves it."""
    folder = tmp_path_factory.mktemp("checkpoint")
    script = folder / "make.py"
    script.write_text(MODEL)
    interpreter.run(script, [SCRIPTS, "heads", folder / "heads.model"])
    return folder / "heads.model"


def load(path):
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def test_worker_imports_nothing_of_ours():
    text = (WORKERS / "mace_torch.py").read_text()
    assert "import forgefield" not in text
    assert "from forgefield" not in text


def test_there_are_enough_golden_cases():
    assert len(CASES) >= 10


@pytest.mark.parametrize("name", CASES)
def test_golden_case_is_complete(name):
    folder = GOLDEN / name
    settings = json.loads((folder / "model.json").read_text())
    meta = json.loads((folder / "meta.json").read_text())
    structures, expected = load(folder / "structures.npz"), load(folder / "expected.npz")
    assert settings["format"] == "mace-torch-export-1"
    assert meta["versions"]["mace-torch"] == "0.3.16"
    assert meta["date"] >= "2026-11"
    assert meta["command"].startswith("python scripts/oracle")
    assert meta["slope"] < 1e-6
    n_atoms = structures["ptr"][-1]
    assert structures["positions"].shape == expected["forces"].shape == (n_atoms, 3)
    assert np.isfinite(expected["energy"]).all()
    totals = np.add.reduceat(expected["node_energies"], structures["ptr"][:-1])
    np.testing.assert_allclose(totals, expected["energy"], rtol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_golden_weights_are_cut_completely(name):
    """Every flat weight is covered by its table, once."""
    arrays = load(GOLDEN / name / "arrays.npz")
    n_elements = len(arrays["atomic_numbers"])
    for key in [key for key in arrays if key.startswith("linear/")]:
        module = key.removeprefix("linear/")
        sizes = arrays[key][:, 3] * arrays[key][:, 4] * (n_elements if module.endswith("skip_tp") else 1)
        assert list(arrays[key][:, 5]) == [0, *np.cumsum(sizes)[:-1]]
        assert arrays[f"{module}.weight"].size == sizes.sum()
    for layer in range(int(arrays["num_interactions"])):
        rows, network = arrays[f"instructions/{layer}"], f"interactions.{layer}.conv_tp_weights.layer"
        last = max(key for key in arrays if key.startswith(network))
        assert arrays[last].shape[1] == rows[:, 4].sum()
        for l1, l2, l3 in rows[:, :3]:
            assert arrays[f"w3j/{l1}_{l2}_{l3}"].shape == (2 * l1 + 1, 2 * l2 + 1, 2 * l3 + 1)


@pytest.mark.engine
def test_export_equals_the_golden_file(interpreter, checkpoint, tmp_path):
    interpreter.run("mace_torch", ["export", checkpoint, tmp_path], tmp_path)
    ours, golden = load(tmp_path / "arrays.npz"), load(GOLDEN / "heads" / "arrays.npz")
    assert ours.keys() == golden.keys()
    for name, value in golden.items():
        np.testing.assert_allclose(ours[name], value, rtol=1e-13, atol=1e-15, err_msg=name)
    settings = json.loads((tmp_path / "model.json").read_text())
    expected = json.loads((GOLDEN / "heads" / "model.json").read_text())
    assert {**settings, "versions": None} == {**expected, "versions": None}


@pytest.mark.engine
def test_evaluate_equals_the_golden_file(interpreter, checkpoint, tmp_path):
    out = tmp_path / "out.npz"
    interpreter.run("mace_torch", ["evaluate", checkpoint, GOLDEN / "heads" / "structures.npz", out])
    golden = load(GOLDEN / "heads" / "expected.npz")
    for name, value in load(out).items():
        np.testing.assert_allclose(value, golden[name], rtol=1e-11, atol=1e-12, err_msg=name)


@pytest.mark.engine
def test_evaluate_extended_xyz_with_head(interpreter, checkpoint, tmp_path):
    from ase import Atoms
    from ase.io import write

    structures, golden = load(GOLDEN / "heads" / "structures.npz"), load(GOLDEN / "heads" / "expected.npz")
    n = structures["ptr"][1]
    atoms = Atoms(numbers=structures["numbers"][:n], positions=structures["positions"][:n])
    write(tmp_path / "one.xyz", atoms)
    out = tmp_path / "out.npz"
    for head, k in (("dft", 0), ("low", 3), ("cc", 6)):
        interpreter.run("mace_torch", ["evaluate", checkpoint, tmp_path / "one.xyz", out, "--head", head])
        np.testing.assert_allclose(load(out)["energy"], golden["energy"][[k]], rtol=1e-12)


@pytest.mark.engine
def test_unknown_head_is_refused(interpreter, checkpoint, tmp_path):
    structures = GOLDEN / "heads" / "structures.npz"
    with pytest.raises(ForgeError, match="head 'nonsense' is not one of"):
        interpreter.run(
            "mace_torch",
            ["evaluate", checkpoint, structures, tmp_path / "o.npz", "--head", "nonsense"],
            tmp_path,
        )


@pytest.mark.engine
def test_unsupported_files_are_refused(interpreter, tmp_path):
    script = tmp_path / "make.py"
    script.write_text(OTHERS)
    interpreter.run(script, [SCRIPTS, tmp_path])
    expected = {
        "weights": "holds a dictionary",
        "list": "holds a list",
        "embedding": "joint_embedding",
        "dipole": "AtomicDipolesMACE is not supported",
        "attention": "RealAgnosticAttResidualInteractionBlock are not supported",
    }
    for name, message in expected.items():
        folder = tmp_path / name
        with pytest.raises(ForgeError, match=message):
            interpreter.run("mace_torch", ["export", tmp_path / f"{name}.model", folder], folder)
        assert not (folder / "arrays.npz").exists()


@pytest.mark.engine
def test_a_file_that_is_no_checkpoint(interpreter, tmp_path):
    (tmp_path / "x.model").write_text("no model")
    with pytest.raises(ForgeError, match=r"mace_torch.py"):
        interpreter.run("mace_torch", ["export", tmp_path / "x.model", tmp_path / "out"], tmp_path / "out")
