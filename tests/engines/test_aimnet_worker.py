"""The aimnet worker in the interpreter that FORGEFIELD_AIMNET_PYTHON names."""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from forgefield.core.errors import ModelError
from forgefield.core.structure import Structure
from forgefield.engines.backends.aimnet import import_model
from forgefield.engines.interpreter import WORKERS
from forgefield.graph.build import build_graph
from forgefield.models.bundle import load_bundle

SCRIPTS = Path(__file__).parents[2] / "scripts" / "oracle"
GOLDEN = Path(__file__).parents[1] / "golden" / "aimnet" / "closed"
MODELS = """
import sys, yaml
sys.path.insert(0, sys.argv[1])
import torch
from aimnet_forward import CASES, SMALL, build
folder = sys.argv[2] + "/"
model = build({}, 0).eval()
state = {n: v for n, v in model.state_dict().items()}
torch.save(state, folder + "plain.pt")
torch.save({"model": state}, folder + "checkpoint.pt")
torch.save({"state_dict": state, "format_version": 2, "implemented_species": [1, 6, 7, 8]}, folder + "two.pt")

class Shell(torch.nn.Module):  # the package's newer classes can no longer be scripted; its older files hold these names
    def __init__(self):
        super().__init__()
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x

def place(root, name, value):
    *parts, last = name.split(".")
    for part in parts:
        if part not in dict(root.named_children()):
            root.add_module(part, Shell())
        root = getattr(root, part)
    root.register_buffer(last, value.clone())

root = Shell()
root.mlps = model.mlps
for name, value in state.items():
    if not name.startswith("mlps."):
        place(root, name, value) if "energy_mlp" not in name else None
root.outputs.add_module("energy_mlp", Shell())
root.outputs.energy_mlp.mlp = model.outputs.energy_mlp.mlp
torch.jit.script(root).save(folder + "script.jpt")
torch.save([1, 2], folder + "list.pt")
torch.save({**state, "outputs.d3ts.weight": torch.ones(1)}, folder + "other.pt")
(torch.save(model, folder + "pickle.pt"))
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    python = os.environ.get("FORGEFIELD_AIMNET_PYTHON")
    if not python:
        pytest.skip("FORGEFIELD_AIMNET_PYTHON does not name an interpreter with aimnet")
    folder = tmp_path_factory.mktemp("models")
    script = folder / "make.py"  # TorchScript reads the source of classes from their file
    script.write_text(MODELS)
    done = subprocess.run([python, str(script), str(SCRIPTS), str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-1500:]
    return Path(python), folder


def test_the_worker_imports_nothing_of_ours():
    assert "import forgefield" not in (WORKERS / "aimnet.py").read_text()


@pytest.mark.parametrize("name", ["plain.pt", "checkpoint.pt", "two.pt", "script.jpt"])
def test_every_kind_of_file_predicts_as_the_package(models, tmp_path, name):
    python, folder = models
    import_model(folder / name, python, tmp_path / "bundle")
    potential = load_bundle(tmp_path / "bundle")
    assert len(potential.elements) == (4 if name == "two.pt" else 63)
    with np.load(GOLDEN / "structures.npz") as s, np.load(GOLDEN / "expected.npz") as expected:
        stop = s["ptr"][1]
        structure = Structure(s["numbers"][:stop], s["positions"][:stop], charge=0.0)
        with torch.no_grad():
            out = potential(build_graph([structure], potential.needs, dtype=torch.float64))
        assert abs(float(out.energy[0]) - expected["energy"][0]) < 1e-9
        assert np.abs(out.forces.numpy() - expected["forces"][:stop]).max() < 1e-9


@pytest.mark.parametrize(("name", "why"), [("list.pt", "no weights"), ("other.pt", "d3ts"), ("pickle.pt", "neither")])
def test_what_is_no_such_model_is_refused(models, tmp_path, name, why):
    python, folder = models
    with pytest.raises(ModelError, match=why):
        import_model(folder / name, python, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
