"""The alignn package's side of the benchmark, in its own interpreter.

python alignn_side.py make CASE.npz WEIGHTS.npz               random weights of its default model
python alignn_side.py run CASE.npz DTYPE WEIGHTS.npz THREADS
"""

from __future__ import annotations

import sys
import warnings
from importlib.metadata import version

from protocol import Channel, load_case, malloc_library, serve

CHANNEL = Channel()
warnings.filterwarnings("ignore")

import numpy as np  # noqa: E402
import torch  # noqa: E402
from alignn.models.alignn_atomwise_pure import ALIGNNAtomWisePure, ALIGNNAtomWisePureConfig  # noqa: E402
from alignn.torch_graph_builder import batch_torch_graph_pairs, build_pure_torch_graph  # noqa: E402
from ase.data import chemical_symbols  # noqa: E402
from jarvis.core.atoms import Atoms  # noqa: E402

WIDE = 60.0  # Å: the package knows crystals only


def build() -> torch.nn.Module:
    """Its default model, without the repulsion that ours would add elsewhere."""
    settings = {"atom_input_features": 92, "use_penalty": False, "use_zbl": False}
    return ALIGNNAtomWisePure(ALIGNNAtomWisePureConfig(name="alignn_atomwise_pure", **settings))


def make(path: str) -> None:
    """Save random weights."""
    torch.manual_seed(0)
    np.savez(path, **{name: p.detach().numpy() for name, p in build().named_parameters()})


def batch_of(case: dict) -> tuple:
    """Its graph and line graph of all molecules, as its loader joins them."""
    cutoff, three_body = (float(x) for x in case["cutoffs"])
    pairs = []
    for start, stop in zip(case["ptr"][:-1], case["ptr"][1:], strict=True):
        names = [chemical_symbols[z] for z in case["numbers"][start:stop]]
        atoms = Atoms(np.eye(3) * WIDE, case["positions"][start:stop], names, cartesian=True)
        more = {"atom_features": "cgcnn", "use_matscipy_topology": False}
        pairs.append(build_pure_torch_graph(atoms=atoms, two_body_cutoff=cutoff, three_body_cutoff=three_body, **more))
    return batch_torch_graph_pairs(pairs)


def main() -> None:
    """Carry out one of the two orders."""
    if sys.argv[1] == "make":
        make(sys.argv[3])
        return
    case_path, dtype_name, path, threads = sys.argv[2:]
    torch.set_num_threads(int(threads))
    dtype = getattr(torch, dtype_name)
    torch.set_default_dtype(dtype)
    case, model = load_case(case_path), build().to(dtype)
    with np.load(path) as file:
        model.load_state_dict({n: torch.tensor(file[n]).to(dtype) for n in file.files}, strict=False)
    g, lg = batch_of(case)
    lattice = torch.eye(3, dtype=dtype).repeat(len(case["ptr"]) - 1, 1, 1) * WIDE
    per_atom = torch.tensor(case["energy"] / np.diff(case["ptr"])).to(dtype)
    forces = torch.tensor(case["forces"]).to(dtype)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    criterion = torch.nn.L1Loss()

    def forward() -> dict[str, torch.Tensor]:
        g.edata["r"] = g.edata["r"].detach()
        return model((g, lg, lattice))

    def train() -> None:
        optimizer.zero_grad()
        out = forward()
        (criterion(out["out"], per_atom) + criterion(out["grad"], forces)).backward()
        optimizer.step()

    def predict() -> dict[str, object]:
        return {"forces": forward()["grad"].detach().double().tolist()}

    about = {
        "n_parameters": sum(p.numel() for p in model.parameters()),
        "triplets": lg.num_edges,
        "versions": {"alignn": version("alignn"), "torch": torch.__version__, "numpy": np.__version__},
        "allocator": malloc_library(),
    }
    serve(CHANNEL, {"train": train, "infer": lambda: predict() and None}, predict, about)


if __name__ == "__main__":
    main()
