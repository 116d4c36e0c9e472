"""What the disk refuses is one plain error, and nothing half-written stays."""

import errno

import pytest
from safetensors import SafetensorError

from forgefield.core.disk import disk_errors, write_atomic
from forgefield.core.errors import DataError, DeviceError, ForgeError


def test_a_full_disk_is_told_by_number_or_by_text(tmp_path):
    with pytest.raises(DeviceError, match=r"the disk is full.*free some space"), disk_errors(tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(DeviceError, match="the disk is full"), disk_errors(tmp_path):
        raise SafetensorError("I/O error: No space left on device (os error 28)")
    with pytest.raises(DeviceError, match="the disk is full"), disk_errors(tmp_path):
        raise RuntimeError("PytorchStreamWriter failed writing file: No space left on device")


def test_a_forbidden_folder_is_named(tmp_path):
    with pytest.raises(DeviceError, match=r"not allowed.*choose a folder"), disk_errors(tmp_path):
        raise PermissionError(errno.EACCES, "Permission denied")


@pytest.mark.parametrize("error", [DataError("wrong frame"), ValueError("a fault of ours")])
def test_other_errors_pass_unchanged(tmp_path, error):
    with pytest.raises(type(error)) as caught, disk_errors(tmp_path):
        raise error
    assert caught.value is error


def test_a_file_that_was_there_survives(tmp_path, monkeypatch):
    path = write_atomic(tmp_path / "a.json", "old")
    monkeypatch.setattr("os.replace", lambda *names: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    with pytest.raises(DeviceError, match="the disk is full"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_path_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ForgeError, match="cannot write here"):
        write_atomic(tmp_path / "file" / "below.txt", "y")
