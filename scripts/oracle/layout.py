"""Prove, with upstream's own modules, that the exported tables say how its flat weights are meant."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

# isort: off
import mace  # noqa: F401  (before e3nn: it lets e3nn 0.4 read its tables)
from e3nn import o3

# isort: on

TOLERANCE = 1e-12


def blocks_of(irreps: o3.Irreps, values: np.ndarray) -> list[np.ndarray]:
    """Values (N, irreps.dim) cut into (N, multiplicity, 2l+1)."""
    cut = [values[:, s].reshape(len(values), mul, ir.dim) for s, (mul, ir) in zip(irreps.slices(), irreps, strict=True)]
    return cut


def join(irreps: o3.Irreps, found: dict[int, np.ndarray], n: int) -> np.ndarray:
    """The reverse of `blocks_of`; blocks that are not there are zero."""
    zeros = [np.zeros((n, mul, ir.dim)) for mul, ir in irreps]
    return np.concatenate([found.get(k, z).reshape(n, -1) for k, z in enumerate(zeros)], axis=1)


def compare(what: str, ours: np.ndarray, theirs: torch.Tensor) -> None:
    """Stop unless the two agree to TOLERANCE of the largest value."""
    theirs_array = theirs.detach().numpy()
    error = np.abs(ours - theirs_array).max() / max(np.abs(theirs_array).max(), 1e-300)
    if not error < TOLERANCE:
        raise SystemExit(f"{what}: the exported table is not what the module does ({error:.1e})")


def check_layout(model: torch.nn.Module, folder: Path) -> None:
    """Recompute every linear map and convolution of the model from the exported arrays alone."""
    with np.load(folder / "arrays.npz", allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    generator = np.random.default_rng(5)
    for path, module in model.named_modules():
        if isinstance(module, o3.Linear | o3.FullyConnectedTensorProduct):
            check_linear(path, module, arrays, generator)
    for layer, block in enumerate(model.interactions):
        check_convolution(layer, block.conv_tp, arrays, generator)


def check_linear(
    path: str, module: torch.nn.Module, arrays: dict[str, np.ndarray], generator: np.random.Generator
) -> None:
    """Recompute one linear map, plain or by element."""
    by_element = isinstance(module, o3.FullyConnectedTensorProduct)
    irreps_in = module.irreps_in1 if by_element else module.irreps_in
    x = generator.normal(size=(4, irreps_in.dim))
    inputs, weight = blocks_of(irreps_in, x), arrays[f"{path}.weight"]
    n_elements = module.irreps_in2.dim if by_element else 1
    elements = generator.integers(0, n_elements, 4)
    found: dict[int, np.ndarray] = {}
    table = zip(arrays[f"linear/{path}"], arrays[f"linear_scale/{path}"], strict=True)
    for (i_in, i_out, _, mul_in, mul_out, offset), scale in table:
        size = mul_in * n_elements * mul_out
        block = weight[offset : offset + size].reshape(mul_in, n_elements, mul_out)[
            :, elements if by_element else [0] * 4
        ]
        part = scale * np.einsum("num,unv->nvm", inputs[i_in], block)
        found[int(i_out)] = found.get(int(i_out), 0.0) + part
    one_hot = torch.eye(n_elements)[torch.from_numpy(elements)]
    theirs = module(torch.from_numpy(x), one_hot) if by_element else module(torch.from_numpy(x))
    compare(path, join(module.irreps_out, found, 4), theirs)


def check_convolution(
    layer: int, product: o3.TensorProduct, arrays: dict[str, np.ndarray], generator: np.random.Generator
) -> None:
    """Recompute the product of features, harmonics and radial weights of one layer."""
    x = generator.normal(size=(4, product.irreps_in1.dim))
    y = generator.normal(size=(4, product.irreps_in2.dim))
    weights = generator.normal(size=(4, product.weight_numel))
    features = {
        ir.l: block for (_, ir), block in zip(product.irreps_in1, blocks_of(product.irreps_in1, x), strict=True)
    }
    parts = []
    table = zip(arrays[f"instructions/{layer}"], arrays[f"path_weight/{layer}"], strict=True)
    for (l1, l2, l3, offset, count), scale in table:
        coupling = arrays[f"w3j/{l1}_{l2}_{l3}"]
        harmonics = y[:, l2 * l2 : (l2 + 1) ** 2]
        radial = weights[:, offset : offset + count]
        part = scale * np.einsum("nu,nua,nb,abc->nuc", radial, features[l1], harmonics, coupling)
        parts.append(part.reshape(4, -1))
    theirs = product(torch.from_numpy(x), torch.from_numpy(y), torch.from_numpy(weights))
    compare(f"convolution {layer}", np.concatenate(parts, axis=1), theirs)
