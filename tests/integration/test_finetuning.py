"""Fine-tuning from end to end: what is loaded, new elements, reference energies, heads, replay."""

import json
from pathlib import Path

import pytest
from ase.io import read
from safetensors.numpy import load_file

import forgefield
from forgefield.app.run import config_of
from forgefield.models.bundle import load_bundle, save_bundle, with_physics
from forgefield.models.potential import PHYSICS

EXAMPLE = Path(__file__).parents[2] / "examples" / "3bpa" / "train.xyz"
QUICK = {"train__epochs": 1, "train__lr": 1e-3, "data__test": [], "export__standard_artifacts": False}


def load(path) -> dict:
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def fluorine(tmp_path_factory):
    """Twenty molecules in which fluorine stands for oxygen; no free atoms."""
    path = tmp_path_factory.mktemp("fluorine") / "new.xyz"
    lines = EXAMPLE.read_text().splitlines(keepends=True)[12:]  # after four free atoms
    path.write_text("".join(lines[30 * 29 : 50 * 29]).replace("\nO  ", "\nF  "))
    return path


@pytest.fixture
def tune(shared_run, settings, tmp_path):
    """Fine-tune the shared model; returns the run's folder."""

    def run(name="fine", quiet=True, **changes):
        block = changes.pop("finetune", {})
        changes = {
            "train__epochs": 1,
            "train__lr": 1e-3,
            "data__test": [],
            "export__standard_artifacts": False,
        } | changes
        start = changes.pop("model_in", str(shared_run[0]))
        config = settings(tmp_path / name, task="finetune", model_in=start, **changes)
        forgefield.run({**config, "finetune": block}, quiet=quiet)
        return tmp_path / name

    return run


FULL = {"new_elements": "add", "head": "mine", "reference_energies": "estimate"}


def test_every_tensor_is_listed(tune, shared_run, data, capsys):
    root = tune(quiet=False, data__train=str(data / "train.xyz"))
    start = load(root / "run.json")["start"]
    stored = load_file(shared_run[0] / "artifacts" / "weights.safetensors")
    listed = {row["name"]: row for row in start["tensors"]}
    assert set(listed) == {*stored, "self_energies", "scale", "shift"}
    assert all(listed[name]["loaded"] == array.size for name, array in stored.items())
    assert all(row["new"] == row["left"] == 0 for row in start["tensors"])
    said = " ".join(capsys.readouterr().out.split())
    assert f"weights: {len(listed)} tensors, every one accounted for" in said
    page = (root / "report.html").read_text()
    assert "What it started from" in page
    assert all(f"<code>{name}</code>" in page for name in listed)


def test_a_checkpoint_folder_is_a_start_too(tune, shared_run, data):
    last = shared_run[0] / "checkpoints" / "last"
    root = tune(data__train=str(data / "train.xyz"), model_in=str(last))
    start = load(root / "run.json")["start"]
    assert start["kind"].startswith("a checkpoint")
    assert start["weights_sha256"] == load(last / "manifest.json")["weights"]["sha256"]


def test_new_elements_are_added_and_old_ones_kept(tune, shared_run, fluorine, data, tmp_path):
    root = tune(data__train=str(fluorine), finetune={"new_elements": "add"}, train__lr=1e-12, dtype="float64")
    manifest = load(root / "checkpoints" / "best" / "manifest.json")
    assert manifest["elements"] == ["H", "C", "N", "O", "F"]
    base = load(shared_run[0] / "artifacts" / "manifest.json")["reference_energies"]["default"]
    found = manifest["reference_energies"]["default"]
    assert {k: v for k, v in found.items() if k != "F"} == base
    start = load(root / "run.json")["start"]
    assert start["new_elements"] == {"F": ["O"]}
    # F begins as O with an E0 that fits: the new data are met as well as if they were of oxygen
    assert found["F"] == pytest.approx(base["O"], abs=10.0)
    for model, name in ((shared_run[0], "before"), (root / "checkpoints" / "best", "after")):
        asked = {"task": "evaluate", "model_in": str(model), "data": {"test": str(data / "test.xyz")}}
        forgefield.run({**asked, "output": {"dir": str(tmp_path / name)}}, quiet=True)
    one, other = (read(tmp_path / name / "predictions.xyz", ":") for name in ("before", "after"))
    for a, b in zip(one, other, strict=True):  # the learning rate is nothing
        assert b.get_potential_energy() == pytest.approx(a.get_potential_energy(), abs=1e-6)


def test_estimating_reference_energies_removes_a_shift(tune, data, tmp_path):
    text = (data / "train.xyz").read_text()
    for line in {line for line in text.splitlines() if "energy=" in line}:
        value = line.split("energy=")[1].split()[0]
        n = 1 if "IsolatedAtom" in line else 27
        text = text.replace(line, line.replace(f"energy={value}", f"energy={float(value) + 5.0 * n!r}"))
    (tmp_path / "shifted.xyz").write_text(text)
    errors = {}
    for how in ("keep", "estimate"):
        root = tune(how, data__train=str(tmp_path / "shifted.xyz"), finetune={"reference_energies": how})
        start = load(root / "run.json")["start"]
        errors[how] = start["errors_before"]["energy_rmse_per_atom"]
        moved = [row["after"] - row["before"] for row in start["references"]]
        assert any(abs(step) > 0.1 for step in moved) == (how == "estimate")
    fitted = tune("fitted", data__train=str(tmp_path / "shifted.xyz"), data__e0="least_squares")
    assert [note for note in load(fitted / "run.json")["start"]["notes"] if "whole label energies" in note]
    assert errors["keep"] > 4.0
    assert errors["estimate"] < 0.05
    assert any("determine only 1 of 4 values" in note for note in start["notes"])
    rows = {row["element"]: row["after"] - row["before"] for row in start["references"]}
    symbols = read(data / "test.xyz", 0).get_chemical_symbols()
    counts = {z: symbols.count(z) for z in rows}
    assert sum(counts[z] * rows[z] for z in rows) == pytest.approx(5.0 * 27, abs=5.0)


def test_a_new_head_with_replay_keeps_the_old_one(tune, shared_run, fluorine, data):
    replay = {"data": str(data / "train.xyz"), "fraction": 0.25, "weight": 2.0}
    root = tune(data__train=str(fluorine), finetune={**FULL, "replay": replay}, export__standard_artifacts=True)
    record = load(root / "run.json")
    assert record["replay"]["old_per_epoch"] == 6
    assert record["replay"]["new_per_epoch"] == 18
    assert record["replay"]["share"] == 0.25
    assert record["replay"]["weight"] == 2.0
    manifest = load(root / "artifacts" / "manifest.json")
    assert manifest["heads"] == ["default", "mine"]
    base = load(shared_run[0] / "artifacts" / "manifest.json")["reference_energies"]["default"]
    assert {k: v for k, v in manifest["reference_energies"]["default"].items() if k != "F"} == base
    by_head = load(root / "evaluation" / "val" / "metrics.json")["by_head"]
    assert {name: errors["n_structures"] for name, errors in by_head.items()} == {"default": 1, "mine": 2}
    atoms = read(data / "test.xyz", 0)
    energies = {}
    for head in ("default", "mine"):
        atoms.calc = forgefield.ForgeField.load(root / "artifacts", device="cpu", head=head)
        energies[head] = atoms.get_potential_energy()
    assert energies["default"] != energies["mine"]
    page = (root / "report.html").read_text()
    assert "Validation, before → after" in page
    assert "head=&quot;mine&quot;" in page


def test_resuming_a_mixture_equals_never_having_stopped(tune, settings, fluorine, data):
    block = {**FULL, "replay": {"data": str(data / "train.xyz"), "fraction": 0.4}}
    whole = tune("whole", data__train=str(fluorine), finetune=block, train__epochs=3)
    parts = tune("parts", data__train=str(fluorine), finetune=block, train__epochs=2)
    more = settings(parts, task="resume", data__train=str(fluorine), data__test=[], train__epochs=3, train__lr=1e-3,
                    export__standard_artifacts=False)  # fmt: skip
    forgefield.run({**more, "finetune": block}, quiet=True)
    for name in ("best", "last"):
        one, other = (load(root / "checkpoints" / name / "manifest.json") for root in (whole, parts))
        assert one["weights"]["sha256"] == other["weights"]["sha256"]
    other = {**FULL, "replay": {"data": str(data / "train.xyz"), "fraction": 0.3}}
    with pytest.raises(forgefield.ForgeError, match=r"finetune\.replay was"):
        forgefield.run({**more, "finetune": other}, quiet=True)


def test_dropped_heads_are_left_and_counted(tune, fluorine):
    block = {**FULL, "drop_heads": ["default"]}
    root = tune(data__train=str(fluorine), finetune=block)
    start = load(root / "run.json")["start"]
    assert load(root / "checkpoints" / "best" / "manifest.json")["heads"] == ["mine"]
    assert {row["name"]: row["left"] for row in start["tensors"]}["scale"] == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"finetune": {"head": "default"}}, "has a head 'default' already"),
        ({"finetune": {"head": "mine", "copy_head": "other"}}, "has no head 'other'"),
        ({"finetune": {"replay": {"data": "FLUORINE"}}}, "has F, which the loaded model does not have"),
        ({"finetune": {"replay": {"data": "TRAIN", "fraction": 0.9}}}, "needs 162 old structures"),
        ({"finetune": {"head": "mine", "replay": {"data": "TRAIN", "head": "other"}}}, "head 'other'"),
        ({"data__train": "FLUORINE"}, "finetune.new_elements: add"),
    ],
)
def test_what_does_not_fit_is_refused(tune, fluorine, data, tmp_path, changes, words):
    names = {"FLUORINE": str(fluorine), "TRAIN": str(data / "train.xyz")}
    text = json.dumps({"data__train": "TRAIN", **changes})
    for name, path in names.items():
        text = text.replace(name, path)
    with pytest.raises(forgefield.ForgeError, match=words):
        tune(**json.loads(text))
    assert not (tmp_path / "fine").exists()


RUN = {"task": "finetune", "model_in": "base", "run_dir": "out", "data": {"train": "new.xyz"}}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"finetune": {"new_element_start": "mean"}}, "no effect with new_elements: refuse"),
        ({"finetune": {"copy_head": "a"}}, "no effect without finetune.head"),
        ({"finetune": {"reference_energies": "given"}}, "data.e0 is not set"),
        (
            {"finetune": {"reference_energies": "estimate"}, "data": {"train": "a.xyz", "e0": {"H": 1.0}}},
            "Remove data.e0",
        ),
        ({"finetune": {"head": "a"}, "train": {"head_key": "b"}}, "train.head_key says 'b'"),
        ({"finetune": {"replay": {"weight": 2.0}}}, "weight has no effect without data"),
        ({"finetune": {"replay": {"data": "a.xyz", "fraction": 1.5}}}, "finetune.replay.fraction"),
        ({"finetune": {"replays": 1}}, "replay"),
        (
            {"task": "train", "backend": "mace", "model_in": None, "finetune": {"head": "a"}},
            "no effect with task train",
        ),
    ],
)
def test_settings_that_contradict_are_named(changes, words):
    with pytest.raises(forgefield.ForgeError) as caught:
        config_of({**RUN, **changes})
    assert words in str(caught.value)
    assert "finetune." in str(caught.value)


CORRECTION = {"head": "good", "correction": True}


def test_a_level_as_a_correction_leaves_the_old_one_as_it_was(tune, settings, shared_run, data, capsys):
    """To the bit; a run in parts equals one in one go; the new level is better than the old one where it is trained."""
    path, block = str(data / "train.xyz"), {**CORRECTION, "reference_energies": "estimate"}
    given = {"data__train": path, "export__standard_artifacts": True}
    root = tune("whole", quiet=False, finetune=block, train__epochs=3, **given)
    said = " ".join(capsys.readouterr().out.split())
    assert "head good is head default plus a correction by a second network" in said
    assert "the shared network has changed" not in said
    parts = tune("parts", finetune=block, train__epochs=2, **given)
    more = settings(parts, task="resume", data__test=[], train__epochs=3, train__lr=1e-3, **given)
    forgefield.run({**more, "finetune": block}, quiet=True)
    weights = [load_file(r / "checkpoints" / "best" / "weights.safetensors") for r in (root, parts)]
    assert all((weights[1][name] == array).all() for name, array in weights[0].items())
    old = load_file(shared_run[0] / "artifacts" / "weights.safetensors")
    assert all((weights[0][f"base.{name}"] == array).all() for name, array in old.items())
    start = load(root / "run.json")["start"]
    assert start["base"] == "default"
    before, after = start["errors_before"], load(root / "evaluation" / "val" / "metrics.json")["all"]
    assert after["forces_rmse"] < before["forces_rmse"]
    atoms = read(data / "train.xyz", 5)
    found = []
    for folder, head in ((shared_run[0] / "artifacts", None), (root / "artifacts", "default")):
        atoms.calc = forgefield.ForgeField.load(str(folder), head=head, device="cpu")
        found.append((atoms.get_potential_energy(), atoms.get_forces()))
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-9)
    assert (found[0][1] == found[1][1]).all()


def test_a_level_can_be_added_to_a_correction(tune, data):
    """The base stays, the network of the corrections is shared, and a third level copies the second."""
    root = tune("two", data__train=str(data / "train.xyz"), finetune=CORRECTION)
    third = {"head": "best", "copy_head": "good"}
    best = root / "checkpoints" / "best"
    wide = tune("three", data__train=str(data / "train.xyz"), model_in=str(best), finetune=third, train__freeze="base")
    before, after = (load_file(r / "checkpoints" / "best" / "weights.safetensors") for r in (root, wide))
    assert all((after[name] == array).all() for name, array in before.items() if name.startswith("base."))
    assert any(
        after[n].shape != a.shape or (after[n] != a).any() for n, a in before.items() if n.startswith("correction.")
    )
    assert load(wide / "checkpoints" / "best" / "manifest.json")["heads"] == ["default", "good", "best"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"finetune": {"correction": True}}, "has no effect without finetune.head"),
        ({"finetune": CORRECTION, "train__freeze": "head_only"}, "trains a network of its own"),
        ({"finetune": {**CORRECTION, "replay": {"data": "TRAIN"}}}, "forgets nothing"),
        ({"finetune": {}, "train__freeze": "base"}, "no level of the model is a base"),
        ({"finetune": CORRECTION, "data__train": [{"path": "TRAIN", "fidelity": "default"}]}, "would train nothing"),
    ],
)
def test_what_cannot_be_trained_of_a_correction_is_refused(tune, data, changes, words):
    path = str(data / "train.xyz")
    filled = json.loads(json.dumps({"data__train": path, **changes}).replace("TRAIN", path))
    with pytest.raises(forgefield.ForgeError, match=words):
        tune(**filled)


def test_files_that_cannot_hold_the_model_are_refused_before_training(tune, shared_run, data, tmp_path):
    pytest.importorskip("dftd4")
    d4 = PHYSICS.entry("d4").settings.model_validate({"functional": "pbe"})
    model = with_physics(load_bundle(shared_run[0] / "artifacts"), {"d4": d4})
    save_bundle(model, tmp_path / "model", provenance={})
    with pytest.raises(forgefield.ForgeError, match="d4 cannot be in a file of torchscript"):
        tune(model_in=str(tmp_path / "model"), data__train=str(data / "train.xyz"), export__standard_artifacts=True)
    assert not (tmp_path / "fine" / "checkpoints").exists()
