"""Forms of the loss through a whole run: what is masked, left out, refused, and said in the records."""

import json

import pytest

import forgefield
from forgefield.core.errors import ForgeError


def without_some_forces(text):
    """Rename the forces of five molecules, more than go into the validation part."""
    frames = text.split("27\nLattice")
    return "27\nLattice".join(f.replace(":forces:R:3", ":arrows:R:3") if 0 < k < 6 else f for k, f in enumerate(frames))


def test_missing_labels_are_masked_on_request(data, settings, tmp_path):
    (tmp_path / "some.xyz").write_text(without_some_forces((data / "train.xyz").read_text()))
    asked = {"data__train": str(tmp_path / "some.xyz"), "train__epochs": 1}
    with pytest.raises(ForgeError, match=r"have no forces.*train\.missing_labels: mask"):
        forgefield.run(settings(tmp_path / "refused", **asked), quiet=True)
    two = {"start": 1, "energy_weight": 50.0}
    asked |= {"train__missing_labels": "mask", "train__epochs": 2, "train__stage_two": two}
    forgefield.run(settings(tmp_path / "run", **asked), quiet=True)
    said = json.loads((tmp_path / "run" / "run.json").read_text())["fit"]["loss"]
    assert said[:2] == ["1 · mean over structures of (ΔE/n)²", "100 · mean over force components of (ΔF)²"]
    assert any("labels present" in line for line in said)
    assert any(line.startswith("stage two, after 1 epochs at most: 50 ·") for line in said)
    assert "mean over force components of (ΔF)²" in (tmp_path / "run" / "report.html").read_text()
    assert (tmp_path / "run" / "checkpoints" / "best_stage_one" / "manifest.json").is_file()


def test_what_the_data_or_the_model_lack_is_refused(settings, tmp_path):
    for key, value, words in (
        ("train_on_free_atoms", True, "no atom is held fixed"),
        ("tag_weights", {1: 0.0}, "no atom has tag 1"),
        ("targets", {"dipole": {}}, r"no frame has dipole.*data\.dipole_key"),
        ("targets", {"gap": {"weight": 0.0}, "virial": {}}, "no frame has stress"),
    ):
        with pytest.raises(ForgeError, match=words):
            forgefield.run(settings(tmp_path / "run", **{f"train__{key}": value}), quiet=True)
        assert not (tmp_path / "run").exists()


def test_a_label_that_mace_does_not_predict(data, settings, tmp_path):
    text = (data / "train.xyz").read_text().replace("energy=", 'mu="0.0 0.0 1.0" energy=')
    (tmp_path / "dipoles.xyz").write_text(text)
    keys = {"data__train": str(tmp_path / "dipoles.xyz"), "data__dipole_key": "mu", "data__test": []}
    with pytest.raises(ForgeError, match=r"train.targets.dipole: mace does not predict dipole"):
        forgefield.run(settings(tmp_path / "run", **keys, train__targets={"dipole": {}}), quiet=True)
