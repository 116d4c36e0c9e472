"""The aimnet package's side of the benchmark, in its own interpreter.

python aimnet_side.py make CASE.npz MODEL             weights of its default model, random
python aimnet_side.py run CASE.npz DTYPE MODEL THREADS
"""

from __future__ import annotations

import sys
import warnings
from importlib.metadata import version
from pathlib import Path

from protocol import Channel, load_case, malloc_library, serve

CHANNEL = Channel()
warnings.filterwarnings("ignore")

import numpy as np  # noqa: E402
import torch  # noqa: E402

if len(sys.argv) > 3 and sys.argv[3] == "float64":
    torch.set_default_dtype(torch.float64)  # before the package: its inputs are cast to what it finds here

import aimnet  # noqa: E402
import yaml  # noqa: E402
from aimnet.config import build_module  # noqa: E402
from aimnet.modules import Forces  # noqa: E402
from aimnet.train.loss import MTLoss  # noqa: E402
from aimnet.train.utils import default_trainer  # noqa: E402

LOSS = "aimnet.train.loss."


def build() -> torch.nn.Module:
    """The package's default model without its Coulomb term, which ours would do elsewhere."""
    settings = yaml.safe_load((Path(aimnet.__file__).parent / "models" / "aimnet2.yaml").read_text())
    settings["kwargs"]["outputs"].pop("lrcoulomb")
    return build_module(settings)


def make(path: str) -> None:
    """Save random weights."""
    torch.manual_seed(0)
    model = build()
    torch.nn.init.zeros_(model.outputs.atomic_shift.shifts.weight)
    torch.save(model.state_dict(), path)


def batch_of(case: dict, dtype: torch.dtype) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Inputs and labels as its loader gives them: dense, all molecules of one size."""
    s = len(case["ptr"]) - 1
    rows = lambda name: torch.tensor(case[name].reshape(s, -1, *case[name].shape[1:]))  # noqa: E731
    x = {"coord": rows("positions").to(dtype), "numbers": rows("numbers"), "charge": torch.zeros(s, dtype=dtype)}
    y = {"energy": torch.tensor(case["energy"]).to(dtype), "forces": rows("forces").to(dtype)}
    return x, y | {"charges": rows("charges").to(dtype)}


def main() -> None:
    """Carry out one of the two orders."""
    if sys.argv[1] == "make":
        make(sys.argv[3])
        return
    case_path, dtype_name, path, threads = sys.argv[2:]
    torch.set_num_threads(int(threads))
    dtype = getattr(torch, dtype_name)
    core = build()
    core.load_state_dict(torch.load(path, weights_only=True))
    model = Forces(core).to(dtype)
    x, y = batch_of(load_case(case_path), dtype)
    part = lambda name, weight: {  # noqa: E731
        "fn": LOSS + "peratom_loss_fn",
        "weight": weight,
        "kwargs": {"key_true": name, "key_pred": name},
    }
    energy = {"fn": LOSS + "energy_loss_fn", "weight": 1.0}
    loss = MTLoss({"energy": energy, "forces": part("forces", 0.2), "charges": part("charges", 0.05)})
    engine = default_trainer(model, torch.optim.RAdam(model.parameters(), lr=1e-4, weight_decay=1e-8), loss, "cpu")

    def train() -> None:
        engine._process_function(engine, (x, y))

    def infer() -> None:
        model.eval()
        model(dict(x))

    def predict() -> dict[str, object]:
        model.eval()
        return {"forces": model(dict(x))["forces"].detach().double().reshape(-1, 3).tolist()}

    about = {
        "n_parameters": sum(p.numel() for p in core.parameters() if p.requires_grad),
        "versions": {"aimnet": version("aimnet"), "torch": torch.__version__, "numpy": np.__version__},
        "allocator": malloc_library(),
    }
    serve(CHANNEL, {"train": train, "infer": infer}, predict, about)


if __name__ == "__main__":
    main()
