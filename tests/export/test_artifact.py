"""The artifact folder: complete, verified, and written whole or not at all."""

import errno
import hashlib
import json
import shutil

import pytest
import torch

from forgefield.core.errors import ConfigError, ForgeError, ModelError
from forgefield.export import artifact as module
from forgefield.export.artifact import export_artifacts, read_artifact
from forgefield.export.calculator import ForgeField
from forgefield.export.targets.torchscript import TorchScriptTarget
from forgefield.kernels.choice import describe


def files_of(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_folder_and_manifest(artifact):
    manifest = json.loads((artifact.folder / "manifest.json").read_text(encoding="utf-8"))
    assert manifest == artifact.manifest
    assert set(files_of(artifact.folder)) == {"weights.safetensors", "manifest.json", "model.torchscript.pt"}
    assert set(manifest["files"]) == {"weights", "torchscript"}
    for file in manifest["files"].values():
        data = (artifact.folder / file["path"]).read_bytes()
        assert "/" not in file["path"]
        assert file["sha256"] == hashlib.sha256(data).hexdigest()
    assert manifest["files"]["torchscript"]["format"] == "torchscript"
    assert manifest["provenance"] == {"run": "test"}
    assert str(artifact.folder.parent) not in json.dumps(manifest)


def test_certificate(artifact):
    block = artifact.manifest["certificate"]
    assert block["passed"] is True
    assert block["torch"] == torch.__version__
    assert block["dtype"] == "float64"
    assert set(block["agreement"]) == {"weights", "torchscript"}
    for name, certificate in artifact.certificates.items():
        ran = describe(torch.device("cpu")) if name == "weights" else "plain PyTorch"
        assert (certificate.target, certificate.kernels) == (name, ran)
        assert certificate.n_structures == block["n_structures"] == 2 + 5
        assert certificate.max_energy_error < 1e-10
        assert certificate.max_forces_error < 1e-10
        assert certificate.max_stress_error < 1e-10
    assert 0 < artifact.physics.forces_finite_difference < 1e-7
    assert artifact.physics.stress_finite_difference < 1e-7


def test_reads_back_from_another_place(artifact, tmp_path):
    moved = shutil.copytree(artifact.folder, tmp_path / "elsewhere")
    found = read_artifact(moved)
    assert found.folder == moved
    assert found.certificates == artifact.certificates
    assert found.physics == artifact.physics
    assert found.path("torchscript") == moved / "model.torchscript.pt"
    with pytest.raises(ModelError, match="no 'lammps'"):
        found.path("lammps")


def test_a_changed_or_missing_file_is_noticed(artifact, tmp_path):
    folder = shutil.copytree(artifact.folder, tmp_path / "copy")
    script = folder / "model.torchscript.pt"
    script.write_bytes(script.read_bytes() + b"x")
    with pytest.raises(ModelError, match="sha256"):
        read_artifact(folder)
    script.unlink()
    with pytest.raises(ModelError, match="torchscript is missing"):
        read_artifact(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["certificate"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ModelError, match="without a certificate"):
        read_artifact(folder)


def test_without_targets_and_in_float32(make_potential, sample, tmp_path):
    potential = make_potential(torch.float32)
    found = export_artifacts(potential, tmp_path / "a", targets=(), provenance={}, sample=sample)
    assert set(files_of(found.folder)) == {"weights.safetensors", "manifest.json"}
    assert found.certificates["weights"].dtype == "float32"
    assert next(potential.parameters()).requires_grad


class Lie(TorchScriptTarget):
    """A target whose file is a little off."""

    def read(self, path):
        honest = super().read(path)
        return lambda s: honest(s)._replace(forces=honest(s).forces * (1 + 1e-6))


def test_refused_unless_it_agrees_and_the_old_one_stays(potential, sample, artifact, tmp_path, monkeypatch):
    folder = shutil.copytree(artifact.folder, tmp_path / "artifacts")
    before = files_of(folder)
    monkeypatch.setattr(module, "_build_target", lambda name: Lie())
    with pytest.raises(ModelError, match="forces: deviates"):
        export_artifacts(potential, folder, provenance={"new": 1}, sample=sample)
    assert files_of(folder) == before
    assert [p.name for p in tmp_path.iterdir()] == ["artifacts"]
    with pytest.raises(ModelError):
        export_artifacts(potential, tmp_path / "fresh", provenance={}, sample=sample)
    assert [p.name for p in tmp_path.iterdir()] == ["artifacts"]


def test_replaces_an_older_artifact(make_potential, sample, artifact, tmp_path, make_atoms):
    folder = shutil.copytree(artifact.folder, tmp_path / "artifacts")
    other = make_potential(scale=5.0)
    export_artifacts(other, folder, targets=(), provenance={"new": 1}, sample=sample)
    assert read_artifact(folder).manifest["provenance"] == {"new": 1}
    assert set(files_of(folder)) == {"weights.safetensors", "manifest.json"}
    assert [p.name for p in tmp_path.iterdir()] == ["artifacts"]
    energies = []
    for place in (folder, artifact.folder):
        atoms = make_atoms("ethanol")
        atoms.calc = ForgeField.load(place, device="cpu")
        energies.append(atoms.get_potential_energy())
    assert abs(energies[0] - energies[1]) > 1e-3


def test_never_deletes_other_things(potential, sample, artifact, tmp_path):
    folder = shutil.copytree(artifact.folder, tmp_path / "artifacts")
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(ModelError, match=r"notes\.txt"):
        export_artifacts(potential, folder, targets=(), provenance={}, sample=sample)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "manifest.json").write_text("{}")
    with pytest.raises(ModelError, match="not of an artifact"):
        export_artifacts(potential, tmp_path / "data", targets=(), provenance={}, sample=sample)
    with pytest.raises(ModelError, match="is a file"):
        export_artifacts(potential, folder / "notes.txt", targets=(), provenance={}, sample=sample)
    assert (folder / "notes.txt").read_text() == "mine"


def test_a_sample_with_isolated_atoms_first(potential, sample, tmp_path, make_atoms, as_structure):
    lone = as_structure(make_atoms("lone"))
    found = export_artifacts(potential, tmp_path / "a", provenance={}, sample=[lone, lone, *sample])
    assert found.certificates["torchscript"].n_structures == 4 + 5
    assert found.physics.n_structures == 2 + 2
    only = export_artifacts(potential, tmp_path / "b", targets=(), provenance={}, sample=[lone])
    assert only.physics.n_structures == 2


def test_no_space_left(potential, sample, tmp_path, monkeypatch):
    def full(self, *args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(TorchScriptTarget, "write", full)
    with pytest.raises(ForgeError, match="No space left"):
        export_artifacts(potential, tmp_path / "artifacts", provenance={}, sample=sample)
    assert not list(tmp_path.iterdir())


def test_wrong_requests(potential, sample, tmp_path, make_atoms, as_structure):
    with pytest.raises(ConfigError, match="did you mean 'torchscript'"):
        export_artifacts(potential, tmp_path / "a", targets=["torchscrip"], provenance={}, sample=sample)
    with pytest.raises(ModelError, match="no structure"):
        export_artifacts(potential, tmp_path / "a", provenance={}, sample=[])
    gold = as_structure(make_atoms("water"))
    gold.numbers[0] = 79
    with pytest.raises(ForgeError, match="Au"):
        export_artifacts(potential, tmp_path / "a", provenance={}, sample=[gold])
    assert not list(tmp_path.iterdir())
