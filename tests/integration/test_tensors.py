"""A target of nine numbers of each atom that are no symmetric tensor: trained, judged, asked, fine-tuned."""

import json

import numpy as np
import pytest
from ase import Atoms
from ase.io import read, write

import forgefield
from forgefield.app.checkup import Checkup
from forgefield.core.errors import ForgeError
from forgefield.export.calculator import ForgeField

SMALL = {"node_dim": 8, "node_irreps": "8x0e + 6x1o + 4x2e", "hidden_dim": 8, "num_basis": 6, "action_blocks": 2}
BORN = {"key": "born", "per": "atom", "components": 9, "rotates": "tensor", "unit": "e"}
FREE = {**BORN, "symmetric": False}


def molecules(n, seed, general=True):
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(n):
        x = np.array([[0, 0, 0], [1.2, 0, 0], [0, 1.3, 0], [0, 0, 1.4]]) + rng.normal(0, 0.1, (4, 3))
        born = (x[:, :, None] - x.mean(0)[:, None]) * (x - x[0])[:, None, :]
        atoms = Atoms("COCH", x)
        atoms.arrays["born"] = (born if general else born + born.transpose(0, 2, 1)).reshape(4, 9)
        found.append(atoms)
    return found


def task(folder, name, born, **more):
    return {
        "task": "train", "backend": "xpainn", "run_dir": str(folder / name), "model": SMALL, "device": "cpu",
        "data": {"train": str(folder / "train.xyz"), "val": str(folder / "val.xyz"), "targets": {"born": born}},
        "train": {"energy_weight": 0, "force_weight": 0, "epochs": 1, "batch_size": 4,
                  "targets": {"born": {"weight": 1.0}}}, **more,
    }  # fmt: skip


def tune(folder, name, start, born):
    found = task(folder, name, born, task="finetune", model_in=str(folder / start))
    return {key: value for key, value in found.items() if key not in ("backend", "model")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("tensors")
    write(made / "train.xyz", molecules(8, 0))
    write(made / "val.xyz", molecules(3, 1))
    forgefield.run(task(made, "general", FREE), quiet=True)
    return made


def test_they_are_learned_judged_and_given(folder):
    errors = json.loads((folder / "general" / "evaluation" / "val" / "metrics.json").read_text())["all"]
    assert errors["n_born"] == 12
    statistics = json.loads((folder / "general" / "statistics.json").read_text())["targets"]["born"]
    assert (statistics["mean"], len(set(statistics["std"]))) == ([0.0] * 9, 1)
    atoms = read(folder / "general" / "evaluation" / "val" / "predictions.xyz", "0")
    found = ForgeField.load(folder / "general" / "artifacts", device="cpu").get_property("born", atoms)
    assert found.shape == (4, 3, 3)
    np.testing.assert_allclose(found.reshape(4, 9), atoms.arrays["born"], atol=1e-5)
    assert np.abs(found - found.transpose(0, 2, 1)).max() > 1e-4


def test_a_symmetric_target_refuses_them(folder):
    with pytest.raises(ForgeError, match=r"frame 0: born is not symmetric: .* of atom 3\. Fix: set data"):
        forgefield.run(task(folder, "symmetric", BORN), quiet=True)


def test_a_symmetric_model_refuses_them(folder, tmp_path):
    for name, seed in (("train", 2), ("val", 3)):
        write(tmp_path / f"{name}.xyz", molecules(6, seed, general=False))
    forgefield.run(task(tmp_path, "symmetric", BORN), quiet=True)
    for name in ("train", "val"):
        (tmp_path / f"{name}.xyz").write_text((folder / f"{name}.xyz").read_text())
    (tmp_path / "run.yaml").write_text(json.dumps(tune(tmp_path, "tuned", "symmetric", FREE)))
    found = Checkup(forgefield.load_run(tmp_path / "run.yaml")[0]).examine()
    assert any("born is not symmetric" in row.text for row in found if row.state == "error")
    with pytest.raises(ForgeError, match=r"born is not symmetric: (.|\n)*which xpainn can learn in a new model"):
        forgefield.run(tune(tmp_path, "tuned", "symmetric", FREE), quiet=True)
