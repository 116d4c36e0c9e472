"""Which code runs, and what is said about it."""

import importlib.util

import pytest
import torch

from forgefield.kernels import choice
from forgefield.kernels.triton import load as loading

CUDA = torch.device("cuda")


@pytest.fixture
def fresh():
    loading.load.cache_clear()
    yield
    loading.load.cache_clear()


def test_without_triton_plain_pytorch_runs_and_says_so(fresh, monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "triton" else find(name, *more)
    )
    assert choice.describe(CUDA) == "plain PyTorch (Triton is not installed)"
    assert not loading.load().ready
    assert capsys.readouterr().err.count("Triton kernels not available") == 1


def test_the_environment_can_choose_plain(fresh, monkeypatch):
    monkeypatch.setenv("FORGEFIELD_KERNELS", "plain")
    assert loading.load() == (False, "plain PyTorch (FORGEFIELD_KERNELS=plain)")


def test_with_triton_all_operators_have_code_for_cuda(fresh):
    """In a new process, because operators cannot be registered twice."""
    triton = pytest.importorskip("triton", reason="Triton is not installed")
    import subprocess
    import sys

    code = """if True:
        import torch
        from forgefield.kernels.choice import describe
        from forgefield.kernels.operators import SCHEMAS
        print(describe(torch.device("cuda")))
        print(all(torch._C._dispatch_has_kernel_for_dispatch_key(f"forgefield::{n}", "CUDA") for n in SCHEMAS))
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"Triton {triton.__version__}", "True"]
