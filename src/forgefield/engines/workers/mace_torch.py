"""Read or run a mace-torch checkpoint inside the interpreter that has mace-torch.

Run as a script by that interpreter and never imported by ours; it imports nothing of forgefield.

    python mace_torch.py export MODEL FOLDER
    python mace_torch.py evaluate MODEL STRUCTURES OUT.npz [--head NAME] [--dtype float64]

`export` leaves FOLDER/model.json (settings) and FOLDER/arrays.npz (plain numpy arrays). A model that this
worker does not understand leaves FOLDER/error.json instead and the process ends with exit code 3.
`evaluate` takes extended XYZ or the .npz form of structures that `read_structures` describes.

tests/golden/README.md lists every array.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from pathlib import Path

import numpy as np
import torch

# isort: off
from mace import (
    __version__ as mace_version,
)  # before e3nn: it lets e3nn 0.4 read its tables with torch >= 2.6
from e3nn import __version__ as e3nn_version
from e3nn import o3

# isort: on

FORMAT = "mace-torch-export-1"
UNSUPPORTED = 3
MODEL_CLASSES = ("MACE", "ScaleShiftMACE")
INTERACTIONS = (
    "RealAgnosticInteractionBlock",
    "RealAgnosticResidualInteractionBlock",
    "RealAgnosticDensityInteractionBlock",
    "RealAgnosticDensityResidualInteractionBlock",
)
READOUTS = ("LinearReadoutBlock", "NonLinearReadoutBlock")
RADIAL_TYPES = {"BesselBasis": "bessel", "GaussianBasis": "gaussian", "ChebychevBasis": "chebyshev"}
OUTPUTS = {
    "energy": "energy",
    "forces": "forces",
    "strain_derivative": "virials",  # upstream's virial is minus the derivative
    "node_energies": "node_energy",
    "node_features": "node_feats",
}
CHUNK_ATOMS = 1000
TRANSFORMS = {"AgnesiTransform": "Agnesi", "SoftTransform": "Soft"}


class Unsupported(Exception):
    """The checkpoint is readable but is not a model that can be described by the arrays."""


# ---------------------------------------------------------------------------------------------- loading


def load_model(path: str) -> torch.nn.Module:
    """The whole model object of a checkpoint, on the CPU, gradients off."""
    compiled = "this is a compiled (TorchScript) file; give the plain .model file instead"
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:  # whatever a damaged or foreign pickle raises
        if "TorchScript" in str(error):
            raise Unsupported(compiled) from error
        raise Unsupported(f"it cannot be read as a mace-torch model ({type(error).__name__}: {error})") from error
    if isinstance(loaded, torch.jit.ScriptModule):
        raise Unsupported(compiled)
    if isinstance(loaded, dict):
        keys = ", ".join(sorted(map(str, loaded))[:5])
        raise Unsupported(f"the file holds a dictionary ({keys}) and not a model; give the .model file")
    if not isinstance(loaded, torch.nn.Module):
        raise Unsupported(f"the file holds a {type(loaded).__name__} and not a model")
    return loaded.eval().requires_grad_(False)


def check_supported(model: torch.nn.Module) -> None:
    """Raise `Unsupported` for anything that the exported arrays would not describe completely."""
    name = type(model).__name__
    if name not in MODEL_CLASSES:
        raise Unsupported(f"model class {name} is not supported; supported: {', '.join(MODEL_CLASSES)}")
    for attribute in ("joint_embedding", "embedding_readout", "les"):
        if hasattr(model, attribute):
            raise Unsupported(f"the model has {attribute} (inputs beyond positions and elements)")
    for part, allowed in (("interactions", INTERACTIONS), ("readouts", READOUTS)):
        for block in getattr(model, part):
            if type(block).__name__ not in allowed:
                raise Unsupported(
                    f"{part} of class {type(block).__name__} are not supported; supported: {', '.join(allowed)}"
                )
    for path, module in model.named_modules():
        origin = type(module).__module__.split(".")[0]
        if "lora" in type(module).__name__.lower():
            raise Unsupported(f"{path} is a LoRA layer; merge the LoRA weights first")
        if origin in ("cuequivariance_torch", "openequivariance"):
            raise Unsupported(f"{path} comes from {origin}; convert the model to e3nn form first")
    radial = model.radial_embedding
    if type(radial.bessel_fn).__name__ not in RADIAL_TYPES:
        raise Unsupported(f"radial basis {type(radial.bessel_fn).__name__} is not known")
    transform = getattr(radial, "distance_transform", None)
    if transform is not None and type(transform).__name__ not in TRANSFORMS:
        raise Unsupported(f"distance transform {type(transform).__name__} is not known")


# --------------------------------------------------------------------------------------------- settings


def describe(model: torch.nn.Module) -> dict[str, object]:
    """Every setting of the model, as JSON values."""
    radial = model.radial_embedding
    transform = getattr(radial, "distance_transform", None)
    heads = list(getattr(model, "heads", None) or ["Default"])
    energies = np.atleast_2d(model.atomic_energies_fn.atomic_energies.double().numpy())
    scale_shift = getattr(model, "scale_shift", None)
    edge_irreps = getattr(model, "edge_irreps", None)
    product = model.products[0]
    settings: dict[str, object] = {
        "format": FORMAT,
        "class": type(model).__name__,
        "dtype": dtype_name(model),
        "atomic_numbers": model.atomic_numbers.tolist(),
        "r_max": float(model.r_max),
        "num_bessel": int(radial.out_dim),
        "num_polynomial_cutoff": int(radial.cutoff_fn.p),
        "radial_type": RADIAL_TYPES[type(radial.bessel_fn).__name__],
        "distance_transform": None if transform is None else TRANSFORMS[type(transform).__name__],
        "apply_cutoff": bool(getattr(radial, "apply_cutoff", True)),
        "max_ell": int(max(ir.l for _, ir in model.interactions[0].edge_attrs_irreps)),
        "num_interactions": len(model.interactions),
        "interactions": [type(block).__name__ for block in model.interactions],
        "correlation": [contraction_order(block) for block in model.products],
        "hidden_irreps": str(product.linear.irreps_out),
        "layer_irreps": [str(block.linear.irreps_out) for block in model.products],
        "target_irreps": [str(o3.Irreps(block.target_irreps)) for block in model.interactions],
        "edge_irreps": None if edge_irreps is None else str(o3.Irreps(edge_irreps)),
        "layer_edge_irreps": [str(block.linear_up.irreps_out) for block in model.interactions],
        "use_edge_irreps_first": bool(getattr(model, "use_edge_irreps_first", False)),
        "radial_MLP": radial_widths(model),
        "avg_num_neighbors": [float(block.avg_num_neighbors) for block in model.interactions],
        "heads": heads,
        "atomic_energies": energies.tolist(),
        "scale": None if scale_shift is None else flat(scale_shift.scale),
        "shift": None if scale_shift is None else flat(scale_shift.shift),
        "pair_repulsion": hasattr(model, "pair_repulsion_fn"),
        "use_reduced_cg": bool(getattr(model, "use_reduced_cg", False)),
        "use_agnostic_product": bool(getattr(product, "use_agnostic_product", False)),
        "use_so3": bool(getattr(model, "use_so3", False)),
        "use_last_readout_only": len(model.readouts) < len(model.interactions),
        "keep_last_layer_irreps": len(model.interactions) > 1 and has_vectors(model.products[-1]),
        "versions": versions(),
    }
    return settings | describe_readout(model, len(heads))


def describe_readout(model: torch.nn.Module, n_heads: int) -> dict[str, object]:
    """Readout classes and the hidden layer of the last one (None where it is linear)."""
    readouts = [type(block).__name__ for block in model.readouts]
    last = model.readouts[-1] if len(model.readouts) else None
    gate: str | None = None
    irreps: str | None = None
    if last is not None and readouts[-1] == "NonLinearReadoutBlock":
        hidden = o3.Irreps(last.hidden_irreps)
        irreps = str(o3.Irreps([(mul // n_heads, ir) for mul, ir in hidden]))
        act = last.non_linearity.acts[0]
        gate = None if act is None else getattr(getattr(act, "f", act), "__name__", str(act))
    return {"readouts": readouts, "MLP_irreps": irreps, "gate": gate}


def dtype_name(model: torch.nn.Module) -> str:
    """The dtype of the weights, as float32 or float64."""
    return str(next(model.parameters()).dtype).removeprefix("torch.")


def contraction_order(product: torch.nn.Module) -> int:
    """The correlation of one layer."""
    return int(product.symmetric_contractions.contractions[0].correlation)


def has_vectors(product: torch.nn.Module) -> bool:
    """Whether a layer leaves anything but scalars."""
    return any(ir.l > 0 for _, ir in product.linear.irreps_out)


def radial_widths(model: torch.nn.Module) -> list[int]:
    """Hidden widths of the radial network."""
    return [int(width) for width in model.interactions[0].conv_tp_weights.hs[1:-1]]


def flat(value: torch.Tensor) -> list[float]:
    """A number or a vector as a list."""
    return [float(entry) for entry in torch.atleast_1d(value).double()]


def versions() -> dict[str, str]:
    """What this interpreter runs."""
    return {
        "mace-torch": mace_version,
        "torch": torch.__version__,
        "e3nn": e3nn_version,
        "numpy": np.__version__,
    }


# ----------------------------------------------------------------------------------------------- arrays


def collect_arrays(model: torch.nn.Module) -> dict[str, np.ndarray]:
    """Weights under their own names, and tables that say how each flat weight is cut into blocks."""
    arrays = {name: value.detach().cpu().numpy() for name, value in model.state_dict().items()}
    arrays = {name: value for name, value in arrays.items() if "_compiled_main" not in name}
    triples: set[tuple[int, int, int]] = set()
    for layer, block in enumerate(model.interactions):
        rows, scales = convolution_table(block.conv_tp)
        arrays[f"instructions/{layer}"] = rows
        arrays[f"path_weight/{layer}"] = scales
        triples.update(tuple(int(entry) for entry in row[:3]) for row in rows)
    for l1, l2, l3 in sorted(triples):
        arrays[f"w3j/{l1}_{l2}_{l3}"] = o3.wigner_3j(l1, l2, l3, dtype=torch.float64).numpy()
    for path, module in model.named_modules():
        if isinstance(module, o3.Linear):
            arrays[f"linear/{path}"], arrays[f"linear_scale/{path}"] = linear_table(module)
        elif isinstance(module, o3.FullyConnectedTensorProduct):
            arrays[f"linear/{path}"], arrays[f"linear_scale/{path}"] = element_linear_table(module)
    return arrays | activation_constants(model) | loose_constants(model)


def convolution_table(product: o3.TensorProduct) -> tuple[np.ndarray, np.ndarray]:
    """Rows (l1, l2, l3, weight offset, weight count) in the order of the flat weight, and path factors."""
    rows, scales, offset = [], [], 0
    for instruction in product.instructions:
        count = int(np.prod(instruction.path_shape))
        degrees = (
            product.irreps_in1[instruction.i_in1].ir.l,
            product.irreps_in2[instruction.i_in2].ir.l,
            product.irreps_out[instruction.i_out].ir.l,
        )
        rows.append((*degrees, offset, count))
        scales.append(float(instruction.path_weight))
        offset += count
    return np.array(rows, dtype=np.int64), np.array(scales)


def linear_table(linear: o3.Linear) -> tuple[np.ndarray, np.ndarray]:
    """Rows (input block, output block, l, mul_in, mul_out, weight offset) and the factor of each."""
    rows, scales, offset = [], [], 0
    for instruction in linear.instructions:
        mul_in, mul_out = instruction.path_shape
        degree = linear.irreps_in[instruction.i_in].ir.l
        rows.append((instruction.i_in, instruction.i_out, degree, mul_in, mul_out, offset))
        scales.append(float(instruction.path_weight))
        offset += mul_in * mul_out
    return np.array(rows, dtype=np.int64).reshape(-1, 6), np.array(scales)


def element_linear_table(product: o3.FullyConnectedTensorProduct) -> tuple[np.ndarray, np.ndarray]:
    """As `linear_table`, for weights of shape (mul_in, elements, mul_out)."""
    rows, scales, offset = [], [], 0
    for instruction in product.instructions:
        mul_in, n_elements, mul_out = instruction.path_shape
        degree = product.irreps_in1[instruction.i_in1].ir.l
        rows.append((instruction.i_in1, instruction.i_out, degree, mul_in, mul_out, offset))
        scales.append(float(instruction.path_weight) / np.sqrt(2 * degree + 1))
        offset += mul_in * n_elements * mul_out
    return np.array(rows, dtype=np.int64).reshape(-1, 6), np.array(scales)


def activation_constants(model: torch.nn.Module) -> dict[str, np.ndarray]:
    """Factors by which e3nn multiplies its activations (second moment one for normal input)."""
    constants = {"cst/radial": np.array(model.interactions[0].conv_tp_weights.layer0.act.cst)}
    for block in model.readouts:
        act = block.non_linearity.acts[0] if type(block).__name__ == "NonLinearReadoutBlock" else None
        if act is not None:
            identity = bool(getattr(act, "_is_id", False))
            constants["cst/gate"] = np.array(1.0 if identity else act.cst)
    return constants


def loose_constants(model: torch.nn.Module) -> dict[str, np.ndarray]:
    """Numbers that upstream keeps as plain attributes, outside its state dict."""
    basis = model.radial_embedding.bessel_fn
    if type(basis).__name__ == "GaussianBasis":
        return {"cst/gaussian_coeff": np.array(float(basis.coeff))}
    return {}


def export(model_path: str, folder: Path) -> None:
    """Write model.json and arrays.npz of a checkpoint."""
    model = load_model(model_path)
    check_supported(model)
    settings, arrays = describe(model), collect_arrays(model)
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / "arrays.npz", **arrays)
    (folder / "model.json").write_text(json.dumps(settings, indent=1) + "\n")


# ------------------------------------------------------------------------------------------- evaluation


class DifferentiableChebyshev(torch.nn.Module):
    """The same polynomials by recurrence.

    torch.special.chebyshev_polynomial_t has no derivative in its argument and returns a tensor without a
    graph, so upstream's forces lack the derivative of the radial basis. The energies are unchanged.
    """

    def __init__(self, n_basis: int) -> None:
        super().__init__()
        self.n_basis = n_basis

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """T_1 to T_n of every distance, (E, n)."""
        values = [torch.ones_like(x), x]
        while len(values) <= self.n_basis:
            values.append(2 * x * values[-1] - values[-2])
        return torch.cat(values[1 : self.n_basis + 1], dim=1)


def read_structures(path: str, heads: list[str], head: str | None) -> list[dict[str, object]]:
    """Structures from extended XYZ, or from an .npz with ptr, numbers, positions, cell, pbc and head.

    ptr (S+1) cuts the atoms into structures; head (S) counts the heads of the model from zero.
    """
    if path.endswith(".npz"):
        with np.load(path, allow_pickle=False) as file:
            data = {name: file[name] for name in file.files}
        found = []
        for k, (start, stop) in enumerate(zip(data["ptr"][:-1], data["ptr"][1:], strict=True)):
            entry = {"numbers": data["numbers"][start:stop], "positions": data["positions"][start:stop]}
            entry |= {"cell": data["cell"][k], "pbc": data["pbc"][k]}
            found.append(entry | {"head": head or heads[int(data["head"][k])]})
        return found
    from ase.io import read

    return [
        {
            "numbers": atoms.numbers,
            "positions": atoms.positions,
            "cell": atoms.cell.array,
            "pbc": atoms.pbc,
            "head": head or str(atoms.info.get("head", heads[-1])),
        }
        for atoms in read(path, ":")
    ]


def make_batch(structures: list[dict[str, object]], model: torch.nn.Module, heads: list[str]) -> object:
    """Upstream's own batch of structures (dtype: the default dtype)."""
    from mace import data, tools
    from mace.tools import torch_geometric

    table = tools.AtomicNumberTable([int(z) for z in model.atomic_numbers])
    graphs = []
    for entry in structures:
        if entry["head"] not in heads:
            raise Unsupported(f"head {entry['head']!r} is not one of {heads}")
        configuration = data.Configuration(
            atomic_numbers=entry["numbers"],
            positions=entry["positions"],
            properties={},
            property_weights={},
            cell=entry["cell"],
            pbc=tuple(bool(flag) for flag in entry["pbc"]),
            head=entry["head"],
        )
        graphs.append(data.AtomicData.from_config(configuration, table, float(model.r_max), heads=heads))
    return torch_geometric.Batch.from_data_list(graphs)


def predict(model: torch.nn.Module, structures: list[dict[str, object]]) -> dict[str, np.ndarray]:
    """Energy, forces, stress, strain derivative and atom energies of all structures.

    The stress is the strain derivative over the volume of the cell as given; it is zero where that volume is
    zero (upstream invents a box for directions without periodicity and divides by its volume).
    """
    torch.set_default_dtype(getattr(torch, dtype_name(model)))
    basis = model.radial_embedding.bessel_fn
    if type(basis).__name__ == "ChebychevBasis":
        model.radial_embedding.bessel_fn = DifferentiableChebyshev(basis.num_basis)
    parts = [predict_chunk(model, chunk) for chunk in chunks_of(structures)]
    results = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    volume = np.array([abs(np.linalg.det(entry["cell"])) for entry in structures])
    safe = np.where(volume > 1e-12, volume, np.inf)[:, None, None]
    return results | {"stress": results["strain_derivative"] / safe}


def chunks_of(structures: list[dict[str, object]]) -> list[list[dict[str, object]]]:
    """Consecutive structures with together about CHUNK_ATOMS atoms."""
    chunks: list[list[dict[str, object]]] = []
    held = CHUNK_ATOMS
    for entry in structures:
        if held >= CHUNK_ATOMS:
            chunks.append([])
            held = 0
        chunks[-1].append(entry)
        held += len(entry["numbers"])
    return chunks


def predict_chunk(model: torch.nn.Module, structures: list[dict[str, object]]) -> dict[str, np.ndarray]:
    """What `predict` returns, for one batch and without the stress."""
    heads = list(getattr(model, "heads", None) or ["Default"])
    batch = make_batch(structures, model, heads)
    out = model(batch.to_dict(), compute_stress=True)
    found = {name: out[key].detach().double().numpy() for name, key in OUTPUTS.items()}
    strain = np.broadcast_to(-found["strain_derivative"], (len(structures), 3, 3))
    return found | {"strain_derivative": strain}


def evaluate(model_path: str, structures_path: str, target: Path, head: str | None, dtype: str | None) -> None:
    """Write the predictions of a checkpoint for a file of structures."""
    model = load_model(model_path)
    check_supported(model)
    model = model.to(getattr(torch, dtype)) if dtype else model
    heads = list(getattr(model, "heads", None) or ["Default"])
    results = predict(model, read_structures(structures_path, heads, head))
    target.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(target, **results)


# ---------------------------------------------------------------------------------------------- command


def main(arguments: list[str] | None = None) -> int:
    """Carry out one command; the exit code is UNSUPPORTED for a refused model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    exporting = commands.add_parser("export")
    exporting.add_argument("model")
    exporting.add_argument("folder", type=Path)
    evaluating = commands.add_parser("evaluate")
    evaluating.add_argument("model")
    evaluating.add_argument("structures")
    evaluating.add_argument("out", type=Path)
    evaluating.add_argument("--head")
    evaluating.add_argument("--dtype", choices=("float32", "float64"))
    options = parser.parse_args(arguments)
    folder = options.folder if options.command == "export" else options.out.parent
    warnings.filterwarnings("ignore")
    try:
        if options.command == "export":
            export(options.model, folder)
        else:
            evaluate(options.model, options.structures, options.out, options.head, options.dtype)
    except Unsupported as error:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "error.json").write_text(json.dumps({"error": str(error)}) + "\n")
        print(error, file=sys.stderr)
        return UNSUPPORTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
