"""mace-torch's side of the benchmark, in its own interpreter.

python mace_torch_side.py make CASE.npz MODEL             a float64 model with random weights
python mace_torch_side.py run CASE.npz DTYPE MODEL THREADS
"""

from __future__ import annotations

import sys
import warnings

from protocol import (
    CLIP,
    ENERGY_WEIGHT,
    FORCE_WEIGHT,
    LEARNING_RATE,
    MODEL,
    Channel,
    load_case,
    malloc_library,
    serve,
)

CHANNEL = Channel()
warnings.filterwarnings("ignore")

import numpy as np  # noqa: E402
import torch  # noqa: E402
from mace import __version__, data, modules, tools  # noqa: E402
from mace.tools import torch_geometric  # noqa: E402

from e3nn import o3  # noqa: E402  # isort: skip (after mace)


def make(case: dict, path: str) -> None:
    """Save a model of the benchmark's shape."""
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    elements = sorted(set(case["numbers"].tolist()))
    block = modules.interaction_classes["RealAgnosticResidualInteractionBlock"]
    model = modules.ScaleShiftMACE(
        r_max=MODEL["r_max"],
        num_bessel=MODEL["num_bessel"],
        num_polynomial_cutoff=MODEL["num_polynomial_cutoff"],
        max_ell=MODEL["max_ell"],
        interaction_cls=block,
        interaction_cls_first=block,
        num_interactions=MODEL["num_interactions"],
        num_elements=len(elements),
        hidden_irreps=o3.Irreps(MODEL["hidden"]),
        MLP_irreps=o3.Irreps(MODEL["readout"]),
        radial_MLP=MODEL["radial"],
        atomic_energies=np.full(len(elements), MODEL["energy_per_atom"]),
        avg_num_neighbors=float(case["avg_num_neighbors"]),
        atomic_numbers=elements,
        correlation=MODEL["correlation"],
        gate=torch.nn.functional.silu,
        atomic_inter_scale=1.0,
        atomic_inter_shift=0.0,
    )
    torch.save(model, path)


def batch_of(case: dict, model: torch.nn.Module) -> object:
    """Upstream's batch of all structures with labels."""
    table = tools.AtomicNumberTable([int(z) for z in model.atomic_numbers])
    graphs = []
    for k, (start, stop) in enumerate(zip(case["ptr"][:-1], case["ptr"][1:], strict=True)):
        configuration = data.Configuration(
            atomic_numbers=case["numbers"][start:stop],
            positions=case["positions"][start:stop],
            properties={"energy": case["energy"][k], "forces": case["forces"][start:stop]},
            property_weights={"energy": 1.0, "forces": 1.0},
            cell=case["cell"][k],
            pbc=tuple(bool(flag) for flag in case["pbc"][k]),
        )
        graphs.append(data.AtomicData.from_config(configuration, table, float(model.r_max)))
    return torch_geometric.Batch.from_data_list(graphs)


def run(case: dict, dtype: torch.dtype, path: str) -> None:
    """Serve training and inference steps."""
    torch.set_default_dtype(dtype)
    model = torch.load(path, weights_only=False).to(dtype)
    batch = batch_of(case, model)
    loss_function = modules.WeightedEnergyForcesLoss(ENERGY_WEIGHT, FORCE_WEIGHT)
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, amsgrad=True)

    def train() -> None:
        optimizer.zero_grad(set_to_none=True)
        out = model(batch.to_dict(), training=True, compute_force=True)
        loss_function(pred=out, ref=batch).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()

    frozen = torch.load(path, weights_only=False).to(dtype).requires_grad_(False).eval()

    def infer() -> None:
        frozen(batch.to_dict(), compute_force=True)

    def predict() -> dict[str, object]:
        return {"forces": frozen(batch.to_dict(), compute_force=True)["forces"].tolist()}

    about = {
        "n_parameters": sum(p.numel() for p in model.parameters()),
        "n_pairs": int(batch.edge_index.shape[1]) // 2,
        "versions": {"mace-torch": __version__, "torch": torch.__version__},
        "allocator": malloc_library(),
    }
    serve(CHANNEL, {"train": train, "infer": infer}, predict, about)


def main() -> None:
    order, case_path, *rest = sys.argv[1:]
    case = load_case(case_path)
    if order == "make":
        make(case, rest[0])
        return
    dtype_name, path, threads = rest
    torch.set_num_threads(int(threads))
    run(case, getattr(torch, dtype_name), path)


if __name__ == "__main__":
    main()
