"""A bundle is written whole or not at all."""

import errno
import os

import pytest

from forgefield.core.errors import DeviceError
from forgefield.models.bundle import save_bundle
from forgefield.models.potential import ARCHITECTURES, build_potential


@pytest.mark.parametrize("name", ARCHITECTURES.names())
def test_a_full_disk_leaves_nothing_half_written(name, tmp_path, monkeypatch):
    settings = ARCHITECTURES.entry(name).settings()
    potential = build_potential(
        name, settings, elements=[1], reference_energies={"default": {1: 0.0}}, avg_num_neighbors=1.0
    )

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DeviceError, match="the disk is full"):
        save_bundle(potential, tmp_path, provenance={})
    assert list(tmp_path.iterdir()) == []
