"""Whatever is wrong with the input: exit code 2, one clear message, and nothing left behind or changed."""

import errno
import json
import os
import re
from pathlib import Path

import pytest
import torch

from forgefield.app.cli import main


def edit(old: str, new: str, count: int = -1):
    """Return a change of the text of train.xyz; fails if there is nothing to change."""

    def change(text: str) -> str:
        assert old in text, old
        return text.replace(old, new, count)

    return change


def truncate(text: str) -> str:
    return text[: int(0.7 * len(text))].rstrip("\n")[:-3]


def drop_forces(text: str) -> str:
    """Take the forces out of every frame."""
    lines = []
    for line in text.replace(":forces:R:3", "").splitlines():
        words = line.split()
        lines.append(" ".join(words[:4]) if len(words) == 7 and words[0] in "CHNO" else line)
    return "\n".join(lines) + "\n"


def drop_forces_of_some(text: str) -> str:
    """Take the forces out of five molecules: more than go into the validation part."""
    frames = text.split("27\nLattice")
    frames[1:6] = [drop_forces(frame) for frame in frames[1:6]]
    return "27\nLattice".join(frames)


LABELLED = r"energy=-1\d+\.\d+"
CASES = {
    "missing": (None, [], r"train\.xyz: the file does not exist"),
    "empty": (lambda text: "", [], r"train\.xyz: is empty"),
    "truncated": (truncate, [], r"train\.xyz.*frame \d+"),
    "mixed labels": (drop_forces_of_some, [], r"[3-5] of 18 frames have no forces: .*train\.xyz: frame \d+"),
    "no forces": (drop_forces, [], r"no frame has forces.*train\.xyz|train\.xyz: no frame has forces"),
    "energy is NaN": (lambda t: re.sub(LABELLED, "energy=nan", t), [], r"frame 0: energy holds NaN or infinity"),
    "force is infinite": (edit("0.17092934", "inf"), [], r"frame 4: forces holds? NaN or infinity"),
    "zero volume": (
        lambda t: edit('pbc="F F F"', 'pbc="T T T"')(edit("50.0 0.0 0.0 0.0 50.0", "50.0 0.0 0.0 50.0 0.0")(t)),
        [],
        r"is periodic but its cell has zero volume",
    ),
    "no E0": (lambda t: t[t.index("1\n", 5) :], [], r"no reference energy \(E0\) for H"),
    "no neighbour": (None, ["--set", "model.r_max=0.3"], r"within the cutoff of 0\.3 Å no atom has a neighbour"),
    "no such device": (None, ["--device", "cuda:7"], r"device: cuda:7 is not there.*cpu"),
    "unknown key": (None, ["--set", "train.learning_rate=1"], r"learning_rate"),
}


def call(arguments, capsys) -> tuple[int, str]:
    """Run the command line; return its exit code and what it said on stderr."""
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in arguments])
    return ended.value.code, capsys.readouterr().err


def only_message(error: str) -> str:
    """Return the one message; fails on a traceback or a second message."""
    assert "Traceback" not in error
    messages = [line for line in error.splitlines() if line.startswith("error: ")]
    assert len(messages) == 1, error
    return messages[0]


@pytest.fixture
def bad(data, tmp_path):
    """A function that writes train.xyz changed in one way."""

    def make(change) -> Path:
        path = tmp_path / "train.xyz"
        if change is not None:
            path.write_text(change((data / "train.xyz").read_text()))
        return path

    return make


@pytest.mark.parametrize("case", CASES)
def test_bad_input_of_a_training(case, bad, data, tmp_path, capsys, contents_of):
    change, more, words = CASES[case]
    path = bad(change) if more == [] else data / "train.xyz"
    before = contents_of(tmp_path)
    code, error = call(["train", "--data", path, "--out", tmp_path / "run", "--epochs", "1", *more], capsys)
    assert code == 2
    message = only_message(error)
    assert re.search(words, message), message
    assert "Fix: " in message or case == "unknown key"
    assert contents_of(tmp_path) == before
    assert not (tmp_path / "run").exists()


def test_a_folder_that_holds_a_run_is_refused_and_untouched(shared_run, data, capsys, contents_of):
    root, _ = shared_run
    before = contents_of(root)
    code, error = call(["train", "--data", data / "train.xyz", "--out", root], capsys)
    assert code == 2
    assert "already holds a run" in only_message(error)
    assert contents_of(root) == before


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / "manifest.json").write_text('{"schema_version": "of another program"}'), "version"),
        (lambda folder: (folder / "manifest.json").write_text("not json"), "no JSON manifest"),
        (lambda folder: (folder / "manifest.json").unlink(), r"holds no manifest\.json"),
        (lambda folder: (folder / "weights.safetensors").unlink(), "weights are missing"),
        (lambda folder: (folder / "weights.safetensors").write_bytes(b"other"), "sha256"),
    ],
)
@pytest.mark.parametrize("command", ["infer", "finetune", "export"])
def test_a_wrong_checkpoint(command, damage, words, own_run, data, tmp_path, capsys):
    damage(own_run / "artifacts")
    arguments = [command, "--model", own_run / "artifacts", "--out", tmp_path / "out"]
    arguments += [] if command == "export" else ["--data", data / "train.xyz"]
    code, error = call(arguments, capsys)
    assert code == 2
    assert re.search(words, only_message(error)), error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["model.model", "model.pt"])
def test_a_foreign_checkpoint_is_never_opened(name, data, tmp_path, capsys):
    torch.save({"a": 1}, tmp_path / name)
    arguments = ["infer", "--model", tmp_path / name, "--data", data / "bare.xyz", "--out", tmp_path / "out"]
    code, error = call(arguments, capsys)
    assert code == 2
    assert "forgefield import" in only_message(error)


def test_weights_of_another_model(own_run, shared_run, settings, data, tmp_path, capsys):
    import forgefield

    config = settings(tmp_path / "wide", model__hidden_irreps="4x0e + 4x1o", train__epochs=1, data__test=[])
    forgefield.run(config, quiet=True)
    weights = tmp_path / "wide" / "artifacts" / "weights.safetensors"
    arguments = ["infer", "--model", own_run / "artifacts", "--data", data / "bare.xyz", "--out", tmp_path / "out"]
    code, error = call([*arguments, "--set", f"model.weights={weights}"], capsys)
    assert code == 2
    assert "weights of another model" in only_message(error)
    assert not (tmp_path / "out").exists()


def test_an_element_the_model_does_not_know(shared_run, data, tmp_path, capsys):
    text = (data / "bare.xyz").read_text().replace("\nN ", "\nP ")
    (tmp_path / "new.xyz").write_text(text)
    arguments = ["infer", "--model", shared_run[0], "--data", tmp_path / "new.xyz", "--out", tmp_path / "out"]
    code, error = call(arguments, capsys)
    assert code == 2
    assert "has P, which the model does not have" in only_message(error)
    assert not (tmp_path / "out").exists()


def full_disk(monkeypatch, where: str) -> None:
    """Let every write below a folder whose path ends like this fail as on a full disk."""
    sync = os.fsync

    def fsync(handle):
        if re.search(f"/{where}(/|$)", os.readlink(f"/proc/self/fd/{handle}")):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(handle)

    monkeypatch.setattr(os, "fsync", fsync)


on_linux = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="finds out what is written by /proc")


@on_linux
@pytest.mark.parametrize("where", ["run", r"\.best\.new"])
def test_a_disk_that_is_full_before_the_first_checkpoint(where, data, tmp_path, capsys, monkeypatch):
    full_disk(monkeypatch, where)
    sizes = ["--set", "model.hidden_irreps=4x0e", "--set", "model.max_ell=1", "--set", "model.correlation=1"]
    arguments = ["train", "--data", data / "train.xyz", "--out", tmp_path / "run", "--epochs", "1", *sizes]
    code, error = call(arguments, capsys)
    assert code == 2
    assert "the disk is full" in only_message(error)
    assert not (tmp_path / "run").exists()


@on_linux
@pytest.mark.parametrize("where", ["evaluation/test", r"\.artifacts\.\w+\.partial"])
def test_a_disk_that_is_full_later_keeps_the_checkpoints(where, own_run, capsys, monkeypatch, contents_of):
    kept = [own_run / "checkpoints" / "best", own_run / "artifacts"]
    before = [contents_of(folder) for folder in kept]
    full_disk(monkeypatch, where)
    code, error = call(["resume", own_run], capsys)
    assert code == 2
    assert re.search("disk is full|No space left", only_message(error))
    assert [contents_of(folder) for folder in kept] == before
    assert "stopped by an error" in json.loads((own_run / "run.json").read_text())["status"]
    assert not [p for p in own_run.rglob("*") if ".part" in p.name or p.name.endswith(".new")]


@on_linux
def test_a_disk_that_is_full_while_predicting(shared_run, data, tmp_path, capsys, monkeypatch):
    full_disk(monkeypatch, "out")
    arguments = ["infer", "--model", shared_run[0], "--data", data / "bare.xyz", "--out", tmp_path / "out"]
    code, error = call(arguments, capsys)
    assert code == 2
    assert "the disk is full" in only_message(error)
    assert list((tmp_path / "out").iterdir()) == []
