"""train.matmul and eval.matmul: what holds while fitting and evaluating, and what is said where it cannot."""

import io

import pytest
import torch
from rich.console import Console
from toy import load, make_potential, make_structures, quiet

from forgefield.core.errors import ConfigError
from forgefield.models import precision
from forgefield.train.evaluate import evaluate
from forgefield.train.loop import fit


@pytest.fixture
def single():
    """A float32 toy that notes torch's word for the precision whenever it computes."""
    potential = make_potential().float()
    potential.words = []
    potential.register_forward_pre_hook(lambda *_: potential.words.append(torch.get_float32_matmul_precision()))
    return potential


def run(potential, folder, **more):
    structures, lines = make_structures(8), io.StringIO()
    loaders = [load(part, dtype=potential.dtype) for part in (structures[:6], structures[6:])]
    fit(potential, *loaders, quiet(epochs=1, **more), folder=folder, device="cpu", config_fingerprint="",
        data_fingerprint="", console=Console(file=lines, width=200))  # fmt: skip
    return lines.getvalue()


@pytest.mark.parametrize(("matmul", "word"), [("float32", "highest"), ("tf32", "high"), ("bf16", "medium")])
def test_a_fit_multiplies_as_asked_in_every_update_and_validation(matmul, word, single, tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "_takes_effect", lambda matmul, device: True)
    torch.set_float32_matmul_precision("high")
    try:
        text = run(single, tmp_path, matmul=matmul)
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert set(single.words) == {word}
    assert len(single.words) == 3  # two updates, one validation
    assert "matmul" not in text


def test_a_fit_says_that_it_stays_strict(single, tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "_takes_effect", lambda matmul, device: False)
    text = run(single, tmp_path, matmul="bf16")
    assert set(single.words) == {"highest"}
    assert "train.matmul: bf16 is off: it needs a processor with AMX" in text


def test_an_evaluation_multiplies_as_asked_or_says_that_it_does_not(single, monkeypatch):
    loader = load(make_structures(4), dtype=torch.float32)
    monkeypatch.setattr(precision, "_takes_effect", lambda matmul, device: True)
    assert evaluate(single, loader).notes == evaluate(single, loader, matmul="tf32").notes == ()
    monkeypatch.setattr(precision, "_takes_effect", lambda matmul, device: False)
    (note,) = evaluate(single, loader, matmul="tf32").notes
    assert note.startswith("eval.matmul: tf32 is off: it needs an NVIDIA GPU")
    assert single.words == ["highest", "high", "highest"]
    (note,) = evaluate(make_potential(), load(make_structures(4)), matmul="tf32").notes
    assert "this one is float64" in note


def test_what_cannot_go_together_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"train.matmul: tf32 is for products of float32 matrices.*Fix: "):
        run(make_potential(), tmp_path, matmul="tf32")
    with pytest.raises(ValueError, match="has no effect with amp"):
        quiet(amp=True, matmul="tf32")
    with pytest.raises(ValueError, match="float32"):
        quiet(matmul="float16")
