"""Who predicts multiplies as it was asked to: strictly unless told otherwise, and nothing is left behind."""

import numpy as np
import pytest
import torch

from forgefield.app import notebook
from forgefield.core.errors import ConfigError
from forgefield.export.calculator import ForgeField
from forgefield.export.prediction import predict
from forgefield.models import precision


@pytest.fixture
def coarse_outside():
    """Another library in the process asked for the coarsest products."""
    torch.set_float32_matmul_precision("medium")
    yield
    assert torch.get_float32_matmul_precision() == "medium"
    torch.set_float32_matmul_precision("highest")
    for backend in (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul):
        backend.fp32_precision = "none"


@pytest.fixture
def able(monkeypatch):
    """As on a machine that can do TF32."""
    monkeypatch.setattr(precision, "_takes_effect", lambda matmul, device: True)


@pytest.fixture
def single(make_potential):
    """A float32 model that notes torch's word for the precision whenever it computes."""
    potential = make_potential(dtype=torch.float32)
    potential.words = []
    potential.register_forward_pre_hook(lambda *_: potential.words.append(torch.get_float32_matmul_precision()))
    return potential


def test_predictions_are_strict_unless_told(single, sample, coarse_outside, able):
    predict(single, sample)
    predict(single, sample, matmul="tf32")
    assert single.words == ["highest", "high"]


def test_the_calculator_is_strict_unless_told(single, make_atoms, coarse_outside, able):
    for more in ({}, {"matmul": "tf32"}):
        atoms = make_atoms("water")
        atoms.calc = ForgeField(single, **more)
        assert np.isfinite(atoms.get_potential_energy())
    assert single.words == ["highest", "high"]


def test_the_notebook_is_strict_unless_told(single, make_atoms, coarse_outside, able):
    notebook.predict(single, make_atoms("water"))
    notebook.predict(single, make_atoms("water"), matmul="bf16")
    assert single.words == ["highest", "medium"]


def test_a_machine_that_cannot_is_not_passed_over(single, make_potential, make_atoms, monkeypatch):
    monkeypatch.setattr(precision, "_takes_effect", lambda matmul, device: False)
    with pytest.raises(ConfigError, match="matmul: tf32 is off"):
        ForgeField(single, matmul="tf32")
    with pytest.raises(ConfigError, match="matmul: bf16 is off"):
        notebook.predict(single, make_atoms("water"), matmul="bf16")
    with pytest.raises(ConfigError, match="this one is float64"):
        ForgeField(make_potential(), matmul="tf32")
    assert single.words == []
