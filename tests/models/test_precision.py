"""Products of float32 matrices: as asked while we compute, as they were afterwards."""

import contextlib
import os
import subprocess
import sys

import pytest
import torch

from forgefield.core.errors import ConfigError
from forgefield.models import precision
from forgefield.models.precision import matmul_precision, missing, relative_error, require

CPU = torch.device("cpu")


def set_nothing():
    pass


def set_old_way():
    torch.set_float32_matmul_precision("high")


def set_coarsest():
    torch.set_float32_matmul_precision("medium")


def set_for_one_backend():
    torch.backends.cuda.matmul.fp32_precision = "tf32"


def set_for_all():
    torch.backends.fp32_precision = "tf32"


def state():
    """All that torch tells of it; reading the sum of mixed settings raises, which is an answer too."""
    found = []
    for read in (torch.get_float32_matmul_precision, lambda: torch.backends.cuda.matmul.allow_tf32):
        try:
            found.append(read())
        except RuntimeError:
            found.append("mixed")
    places = (torch.backends, torch.backends.cuda.matmul, torch.backends.mkldnn, torch.backends.mkldnn.matmul)
    return [*found, *(place.fp32_precision for place in places)]


@pytest.fixture(autouse=True)
def untouched():
    before = state()
    yield
    torch.set_float32_matmul_precision("highest")
    for place in (torch.backends, torch.backends.cuda.matmul, torch.backends.mkldnn.matmul):
        place.fp32_precision = "none"
    assert state() == before


@pytest.mark.parametrize("setting", [set_nothing, set_old_way, set_coarsest, set_for_one_backend, set_for_all])
def test_float32_is_strict_whatever_was_set_and_that_is_put_back(setting):
    setting()
    before = state()
    with contextlib.suppress(ZeroDivisionError), matmul_precision("float32", CPU):
        assert torch.get_float32_matmul_precision() == "highest"
        assert torch.backends.cuda.matmul.fp32_precision == "ieee"
        assert torch.backends.mkldnn.matmul.fp32_precision == "ieee"
        assert relative_error(CPU) < 2e-6
        raise ZeroDivisionError
    assert state() == before


def test_a_broader_setting_still_reaches_what_was_never_set_by_itself():
    with matmul_precision("float32", CPU):
        pass
    torch.backends.fp32_precision = "tf32"
    assert torch.backends.cuda.matmul.fp32_precision == "tf32"


def test_the_environment_cannot_make_it_coarser():
    code = (
        "import torch\n"
        "from forgefield.models.precision import matmul_precision\n"
        "print(torch.get_float32_matmul_precision())\n"
        "with matmul_precision('float32', torch.device('cpu')):\n"
        "    print(torch.get_float32_matmul_precision(), torch.backends.cuda.matmul.fp32_precision)\n"
        "print(torch.get_float32_matmul_precision())\n"
    )
    environment = os.environ | {"TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["high", "highest", "ieee", "high"]


@pytest.mark.parametrize(("matmul", "word"), [("tf32", "high"), ("bf16", "medium")])
def test_what_is_asked_for_is_set_if_the_machine_can_do_it(matmul, word, monkeypatch):
    monkeypatch.setattr(precision, "_takes_effect", lambda matmul, device: True)
    with matmul_precision(matmul, CPU):
        assert torch.get_float32_matmul_precision() == word
    monkeypatch.setattr(precision, "_takes_effect", lambda matmul, device: False)
    with matmul_precision(matmul, CPU):
        assert torch.get_float32_matmul_precision() == "highest"


def test_whether_the_machine_can_do_it_is_tried():
    """A product that comes out coarse is told from an exact one, and trying leaves no trace."""
    generator_before = torch.random.get_rng_state()
    for matmul in ("tf32", "bf16"):
        with precision._set(matmul):
            coarse = relative_error(CPU)
        assert (missing(matmul, CPU) is None) == (coarse > 2e-5)
    assert torch.equal(torch.random.get_rng_state(), generator_before)
    product = torch.Tensor.__matmul__
    rounded = lambda a, b: product(a.bfloat16().to(a.dtype), b) if a.dtype == torch.float32 else product(a, b)  # noqa: E731
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "__matmul__", rounded)
        assert relative_error(CPU) > 1e-4


def test_reasons():
    assert missing("float32", CPU, torch.float64) is None
    assert "this one is float64" in str(missing("tf32", CPU, torch.float64))
    assert "no bfloat16 products" in str(missing("bf16", torch.device("cuda")))


def test_what_has_no_effect_is_refused_where_nobody_reads_notes(monkeypatch):
    monkeypatch.setattr(precision, "_takes_effect", lambda matmul, device: False)
    with pytest.raises(ConfigError, match=r"matmul: tf32 is off: it needs an NVIDIA GPU.*Fix: use float32"):
        require("tf32", CPU, torch.float32, "matmul")
    with pytest.raises(ConfigError, match=r"'half' is no precision.*float32, tf32, bf16"):
        require("half", CPU, torch.float32, "matmul")
    require("float32", CPU, torch.float64, "matmul")
