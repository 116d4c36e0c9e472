"""The run folder is guarded, and files appear whole or not at all."""

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest

from forgefield.app.folder import RunFolder, read_json, write_json
from forgefield.core.disk import write_atomic
from forgefield.core.errors import DeviceError, ForgeError


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_new_folder_is_made(tmp_path):
    folder = RunFolder.create(tmp_path / "a" / "b")
    assert folder.root.is_dir()
    assert not folder.holds_a_run


def test_other_files_in_the_folder_are_left_alone(tmp_path):
    (tmp_path / "train.xyz").write_text("mine")
    RunFolder.create(tmp_path)
    assert (tmp_path / "train.xyz").read_text() == "mine"


@pytest.mark.parametrize("sign", ["run.resolved.yaml", "run.json", "history.jsonl", "statistics.json"])
def test_a_folder_with_a_run_is_refused_and_untouched(tmp_path, sign):
    (tmp_path / sign).write_text("precious")
    with pytest.raises(ForgeError, match="already holds a run") as caught:
        RunFolder.create(tmp_path)
    assert "another run_dir" in caught.value.fix
    assert "resume" in caught.value.fix
    assert (tmp_path / sign).read_text() == "precious"
    assert names(tmp_path) == {sign}


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "run").write_text("a file")
    with pytest.raises(ForgeError, match="is a file"):
        RunFolder.create(tmp_path / "run")


def test_opening_needs_a_run(tmp_path):
    with pytest.raises(ForgeError, match="holds no run"):
        RunFolder.open(tmp_path)
    with pytest.raises(ForgeError, match="does not exist"):
        RunFolder.open(tmp_path / "nowhere")
    (tmp_path / "run.resolved.yaml").write_text("name: a\n")
    assert RunFolder.open(tmp_path).root == tmp_path


def fail_after(root: Path, write) -> None:
    """Begin a run, write something, and fail."""
    with RunFolder.claim(root) as folder:
        write(folder)
        raise ValueError("bad data")


def test_a_run_that_fails_early_leaves_no_trace(tmp_path):
    def write(folder):
        write_json(folder.record, {"a": 1})
        (folder.checkpoints / "last").mkdir(parents=True)

    with pytest.raises(ValueError, match="bad data"):
        fail_after(tmp_path / "run", write)
    assert not (tmp_path / "run").exists()


def test_a_run_that_fails_early_keeps_what_was_there(tmp_path):
    (tmp_path / "train.xyz").write_text("mine")
    (tmp_path / "evaluation").mkdir()
    with pytest.raises(ValueError, match="bad data"):
        fail_after(tmp_path, lambda folder: write_json(folder.record, {"a": 1}))
    assert names(tmp_path) == {"train.xyz", "evaluation"}


def test_a_run_that_fails_after_a_checkpoint_is_kept(tmp_path):
    with pytest.raises(ValueError, match="bad data"):
        fail_after(tmp_path / "run", lambda folder: write_atomic(folder.last / "weights.safetensors", b"weights"))
    assert (tmp_path / "run" / "checkpoints" / "last" / "weights.safetensors").read_bytes() == b"weights"


def test_json_round_trip_with_numpy_and_without_nan(tmp_path):
    path = write_json(tmp_path / "x.json", {"a": np.float64(1.5), "b": [np.nan, 2], 3: np.arange(2), "p": Path("q")})
    assert read_json(path) == {"a": 1.5, "b": [None, 2], "3": [0, 1], "p": "q"}


def test_reading_says_what_is_wrong(tmp_path):
    with pytest.raises(ForgeError, match="no such file"):
        read_json(tmp_path / "x.json")
    (tmp_path / "x.json").write_text('{"a": ')
    with pytest.raises(ForgeError, match="not readable as JSON"):
        read_json(tmp_path / "x.json")


def test_a_full_disk_leaves_the_old_file_whole(tmp_path, monkeypatch):
    path = write_json(tmp_path / "x.json", {"old": True})

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DeviceError, match="disk is full") as caught:
        write_json(path, {"new": True})
    assert "MiB are left" in caught.value.fix
    assert json.loads(path.read_text()) == {"old": True}
    assert names(tmp_path) == {"x.json"}
