"""Mixed precision: bfloat16 where there is no float16, and what is refused."""

import io
import json

import pytest
import torch
from rich.console import Console
from toy import load, make_potential, make_structures, quiet

from forgefield.core.errors import ConfigError
from forgefield.kernels.choice import compiled
from forgefield.models.precision import autocast
from forgefield.train.loop import fit, prepare
from forgefield.train.mixed import lacking, usable_type
from forgefield.train.settings import TrainSettings

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def single():
    """The toy in float32."""
    potential = make_potential()
    potential.architecture.float()
    return potential


def test_the_words_and_what_they_stand_for():
    assert usable_type(False, CPU) is None
    assert usable_type("bfloat16", CPU) is torch.bfloat16
    assert usable_type(True, CPU) is None
    assert usable_type(True, CUDA) is usable_type("float16", CUDA) is torch.float16
    assert "CUDA devices only" in lacking("float16", CPU)
    assert TrainSettings(amp=True).amp is True


@pytest.mark.parametrize("amp", [True, "float16", "bfloat16"])
def test_double_precision_is_refused(amp):
    with pytest.raises(ConfigError, match="the model is float64"):
        prepare(make_potential(), quiet(amp=amp), CPU)


def test_nothing_half_means_nothing_changed():
    x = torch.randn(5, 5)
    with autocast(CPU, None):
        assert (x @ x).dtype == torch.float32
    with autocast(CPU, torch.bfloat16):
        assert (x @ x).dtype == torch.bfloat16
        assert not compiled(x)


def test_bfloat16_trains_on_a_cpu(tmp_path):
    """Losses fall, no scaling is needed, and the rounding shows: it is not the float32 fit."""
    found = {}
    for amp in (False, "bfloat16"):
        potential, folder = single(), tmp_path / str(amp)
        more = {"config_fingerprint": "c", "data_fingerprint": "d", "console": Console(file=io.StringIO())}
        loaders = [load(make_structures(12), 4, dtype=torch.float32) for _ in range(2)]
        fit(potential, *loaders, quiet(epochs=6, amp=amp), folder=folder, device="cpu", **more)
        found[amp] = [json.loads(line)["val_loss"] for line in (folder / "history.jsonl").read_text().splitlines()]
    assert found["bfloat16"][-1] < 0.7 * found["bfloat16"][0]
    assert found["bfloat16"] != found[False]
    assert found["bfloat16"][0] == pytest.approx(found[False][0], rel=0.05)
