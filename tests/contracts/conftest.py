"""Makes what these tests share importable, and adds the toy of the models' tests to the architectures."""

import sys
from pathlib import Path

import pytest

from forgefield.models.potential import ARCHITECTURES

sys.path[:0] = [str(Path(__file__).parent.parent / "models"), str(Path(__file__).parent)]

from energy_toy import ENTRY as ENERGY_TOY  # noqa: E402


@pytest.fixture(scope="module", autouse=True)
def catalog_with_toy():
    inside = ARCHITECTURES.entry
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ARCHITECTURES, "entry", lambda name: ENERGY_TOY if name == "energy_toy" else inside(name))
        yield
