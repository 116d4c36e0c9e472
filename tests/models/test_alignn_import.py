"""`forgefield import --program alignn`: weights and config.json of alignn as a bundle, and what is refused."""

import json
import os
import pickle

import numpy as np
import pytest
import torch
from test_alignn_golden import CASES, GOLDEN, close, structures
from typer.testing import CliRunner

from forgefield.app.cli import app
from forgefield.graph.build import build_graph
from forgefield.models.bundle import load_bundle

WIDTHS = {"cgcnn": 92, "atomic_number": 1, "basic": 11, "cfid": 438}


def cli(*words):
    result = CliRunner(env={"COLUMNS": "250", "TERM": "dumb"}).invoke(app, [str(word) for word in words])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, " ".join(result.stdout.split()), " ".join(result.stderr.split())


def written(case, folder, **more):
    """best_model.pt and config.json as alignn leaves them; returns the weights by name."""
    with np.load(GOLDEN / case / "weights.npz", allow_pickle=False) as file:
        weights = {name: torch.tensor(file[name]) for name in file.files}
    said = json.loads((GOLDEN / case / "model.json").read_text())
    model, graph = said["model"], said["graph"]
    weights["edge_embedding.0.centers"] = torch.linspace(0.0, 8.0, model["edge_input_features"])
    weights["angle_embedding.0.centers"] = torch.linspace(-1.0, 1.0, model["triplet_input_features"])
    weights["_species_table"] = torch.zeros(120, WIDTHS[graph["atom_features"]])
    torch.save(weights, folder / "best_model.pt")
    nearest = graph["nearest"]
    config = {
        "atom_features": graph["atom_features"], "cutoff": graph["cutoff"], "use_canonize": graph["canonize"],
        "neighbor_strategy": "k-nearest" if nearest else "pure_torch", "max_neighbors": nearest,
        "three_body_cutoff": graph["three_body"] or graph["cutoff"],
        "model": {"name": "alignn_atomwise_pure", **model},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config | more))
    return weights


def brought_in(folder, *more):
    return cli("import", folder / "best_model.pt", "--program", "alignn", "--out", folder / "imported", *more)


@pytest.mark.parametrize("case", CASES)
def test_the_bundle_predicts_what_the_package_does(case, tmp_path):
    written(case, tmp_path)
    made = structures(case, boxed=case.startswith("nearest"))
    elements = sorted({int(z) for s in made for z in s.numbers})
    code, out, err = brought_in(tmp_path, "--elements", ",".join(map(str, elements)))
    assert code == 0, err
    assert ("forces are those of the energy per atom" in out) == (case == "atoms_only")
    potential = load_bundle(tmp_path / "imported", dtype=torch.float64)
    assert potential.elements == elements
    with np.load(GOLDEN / case / "expected.npz", allow_pickle=False) as file:
        expected = {n.split("_", 1)[1]: file[n] for n in file.files if n.startswith("float64")}
    with torch.no_grad():
        found = potential(build_graph(made, potential.needs, dtype=torch.float64))
    if potential.context.energy:
        if case != "penalty":  # theirs leaves it out of the energy
            close(found.energy.numpy() / [len(s) for s in made], expected["out"][:, 0], torch.float64)
        if case != "atoms_only":  # theirs are of the energy per atom
            close(found.forces, expected["forces"], torch.float64)
        return
    assert set(found.extra) == {"target" if name == "out" else name for name in expected if name != "edges"}
    for name, value in found.extra.items():
        wanted = expected["out" if name == "target" else name]
        wanted = np.exp(wanted[:, 1]) if case == "classes" else wanted
        close(value.reshape(wanted.shape), wanted, torch.float64)


def test_what_differs_from_alignn_is_told_and_kept(tmp_path):
    written("penalty", tmp_path, max_neighbors=12)
    code, out, err = brought_in(tmp_path, "--elements", "all")
    assert code == 0, err
    assert "warning: alignn kept the 12 nearest neighbours of each atom" in out
    assert "closer than 1.3 Å apart by a force that is in no energy" in out
    notes = json.loads((tmp_path / "imported" / "manifest.json").read_text())["provenance"]["imported_from"]["notes"]
    assert len(notes) == 2
    assert len(load_bundle(tmp_path / "imported").elements) > 80


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target_multiplication_factor": 2.0}, "this model's numbers are multiplied by it"),
        ({"model": {"name": "ealignn_atomwise"}}, "this model is not built here"),
        ({"model": {"name": "alignn_atomwise", "hidden_features": 9, "gcn_layers": 1}}, "the weights do not fit"),
        ({"model": {"name": "alignn_atomwise", "conv_type": "gat"}}, "only edge-gated convolutions"),
        ({"cutof": 3.0}, "cutof"),
        ({"atom_features": "basic"}, "the weights do not fit"),
    ],
)
def test_another_model_is_refused(change, message, tmp_path):
    written("plain", tmp_path, **change)
    code, _, err = brought_in(tmp_path, "--elements", "O")
    assert code == 2
    assert message in err
    assert not (tmp_path / "imported").exists()


def test_weights_that_have_no_place_or_mean_something_else_are_refused(tmp_path):
    weights = written("plain", tmp_path)
    for name, value, message in (
        ("zbl.strength", torch.ones(1), r"holds zbl.strength (1,), which the model that config.json describes"),
        ("edge_embedding.0.centers", torch.linspace(0.0, 6.0, 12), "other Gaussians"),
        ("_species_table", torch.ones(120, 92), "other features of the elements than cgcnn"),
    ):
        torch.save({**weights, name: value}, tmp_path / "best_model.pt")
        code, _, err = brought_in(tmp_path, "--elements", "O")
        assert code == 2
        assert message in err
    assert not (tmp_path / "imported").exists()


class Evil:
    def __reduce__(self):
        return os.system, ("touch " + os.environ["MARK"],)


@pytest.mark.parametrize("kind", ["pickle", "torch", "damaged", "text", "number"])
def test_nothing_in_the_file_is_called(kind, tmp_path, monkeypatch):
    monkeypatch.setenv("MARK", str(tmp_path / "mark"))
    written("plain", tmp_path)
    path = tmp_path / "best_model.pt"
    if kind == "pickle":
        path.write_bytes(pickle.dumps({"fc.weight": Evil()}))
    elif kind == "torch":
        torch.save({"fc.weight": Evil()}, path)
    elif kind == "number":
        torch.save(3, path)
    else:
        path.write_bytes(path.read_bytes()[:900] if kind == "damaged" else b"not weights")
    code, _, err = brought_in(tmp_path, "--elements", "O")
    assert code == 2
    assert ("holds no tensors by name" if kind == "number" else "cannot be read as weights") in err
    assert not (tmp_path / "mark").exists()
    assert not (tmp_path / "imported").exists()


def test_a_checkpoint_of_several_processes_is_read(tmp_path):
    weights = written("plain", tmp_path)
    torch.save({"model": {f"module.{n}": w for n, w in weights.items()}, "epoch": 3}, tmp_path / "best_model.pt")
    assert brought_in(tmp_path, "--elements", "O,H,N")[0] == 0
    assert load_bundle(tmp_path / "imported").elements == [1, 7, 8]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "neither weights nor settings of alignn say which elements it was trained on"),
        (("--elements", "Xx"), "'Xx' is no element"),
        (("--elements", "O", "--backend-python", "python3"), "--backend-python: has no effect with --program alignn"),
    ],
)
def test_what_must_be_said_is_asked_for(words, message, tmp_path):
    written("plain", tmp_path)
    code, _, err = brought_in(tmp_path, *words)
    assert code == 2
    assert message in err


def test_settings_must_stand_beside_the_weights(tmp_path):
    written("plain", tmp_path)
    (tmp_path / "config.json").unlink()
    code, _, err = brought_in(tmp_path, "--elements", "O")
    assert code == 2
    assert "put the config.json of the same training beside best_model.pt" in err


def test_other_programs_open_their_own_checkpoints(tmp_path):
    written("plain", tmp_path)
    words = ("import", tmp_path / "best_model.pt", "--out", tmp_path / "imported")
    assert "--backend-python: a checkpoint of mace-torch is opened by its own program" in cli(*words)[2]
    assert "--elements: has no effect with --program mace-torch" in cli(*words, "--elements", "O")[2]
