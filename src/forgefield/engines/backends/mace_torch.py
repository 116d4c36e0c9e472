"""Weights of mace-torch: read by a worker in its own interpreter, mapped here to ours."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from forgefield.core.errors import ModelError
from forgefield.engines.backends.exported import Arrays, Program, import_checkpoint
from forgefield.models.architectures.mace.settings import MaceSettings, parse_irreps
from forgefield.models.blocks.coupling import clebsch_gordan, monomials, symmetric_paths
from forgefield.models.blocks.edge_product import Path as CouplingPath
from forgefield.models.blocks.edge_product import coupling_paths
from forgefield.models.potential import Potential, build_potential

WORKER = Path(__file__).parent.parent / "workers" / "mace_torch.py"
PROGRAM = Program("mace-torch", WORKER, "a MACE or ScaleShiftMACE model that mace-torch saved")
KINDS = {
    "RealAgnosticInteractionBlock": "plain",
    "RealAgnosticResidualInteractionBlock": "residual",
    "RealAgnosticDensityInteractionBlock": "density",
    "RealAgnosticDensityResidualInteractionBlock": "density_residual",
}


def import_model(path: Path, python: Path, out: Path) -> Potential:
    """Turn a mace-torch checkpoint into a bundle.

    Args:
        path: file written by mace-torch (a pickled model); opened only by the other interpreter.
        python: an interpreter that has mace-torch.
        out: folder of the new bundle.

    Raises:
        ModelError: the model uses something we do not have; nothing is written.
    """
    return import_checkpoint(PROGRAM, path, python, out, convert)


def convert(model: Mapping[str, Any], arrays: Arrays) -> Potential:
    """Build our potential with the weights of an exported mace-torch model."""
    settings = mace_settings(model)
    order = np.argsort(model["atomic_numbers"])
    elements = [int(model["atomic_numbers"][k]) for k in order]
    energies = {h: {z: row[k] for z, k in zip(elements, order, strict=True)} for h, row in _energies(model)}
    neighbors = set(model["avg_num_neighbors"])
    if len(neighbors) != 1:
        raise _unsupported("different avg_num_neighbors per layer")
    scaled = model["class"] == "ScaleShiftMACE"
    scale = _per_head(model, "scale") if scaled else 1.0
    potential = build_potential(
        "mace",
        settings,
        elements=elements,
        heads=model["heads"],
        reference_energies=energies,
        avg_num_neighbors=neighbors.pop(),
        scale=scale,
        shift=_per_head(model, "shift") if scaled else 0.0,
        physics_scale={"zbl": scale} if scaled and settings.pair_repulsion else None,
        dtype=getattr(torch, model["dtype"]),
    )
    weights = _weights(settings, len(elements), arrays, order)
    _load(potential, weights)
    return potential


def mace_settings(model: Mapping[str, Any]) -> MaceSettings:
    """Translate the settings; refuse what has no counterpart."""
    refused = {
        "apply_cutoff": (False, "apply_cutoff: false"),
        "use_so3": (True, "use_so3"),
        "keep_last_layer_irreps": (True, "keep_last_layer_irreps"),
    }
    for key, (value, text) in refused.items():
        if model.get(key) == value:
            raise _unsupported(text)
    hidden = parse_irreps(model["hidden_irreps"])
    edges = [model["hidden_irreps"].split("+")[0], *[model["hidden_irreps"]] * (model["num_interactions"] - 1)]
    if [parse_irreps(e) for e in model["layer_edge_irreps"]] != [parse_irreps(e) for e in edges]:
        raise _unsupported("edge_irreps other than the hidden irreps")
    if model.get("gate", "silu") not in ("silu", None):
        raise _unsupported(f"gate {model['gate']}")
    kinds = [KINDS.get(name) for name in model["interactions"]]
    if None in kinds or len(set(kinds[1:])) > 1:
        raise _unsupported("interactions " + ", ".join(model["interactions"]))
    return MaceSettings(
        r_max=model["r_max"],
        hidden_irreps=" + ".join(f"{mul}x{l}{'eo'[l % 2]}" for mul, l in hidden),
        max_ell=model["max_ell"],
        correlation=list(model["correlation"]),
        num_interactions=model["num_interactions"],
        interaction_first=kinds[0],
        interaction=kinds[-1],
        radial_type=model["radial_type"],
        num_radial_basis=model["num_bessel"],
        num_polynomial_cutoff=model["num_polynomial_cutoff"],
        distance_transform=(model["distance_transform"] or "none").lower(),
        radial_mlp=list(model["radial_MLP"]),
        mlp_irreps=model.get("MLP_irreps") or "16x0e",
        pair_repulsion=model["pair_repulsion"],
        use_agnostic_product=model["use_agnostic_product"],
        use_last_readout_only=model["use_last_readout_only"],
    )


def _unsupported(what: str) -> ModelError:
    return ModelError(f"the checkpoint uses {what}, which ForgeField's MACE does not have", fix="retrain it here")


def _energies(model: Mapping[str, Any]) -> list[tuple[str, list[float]]]:
    rows = model["atomic_energies"]
    return list(zip(model["heads"], rows * len(model["heads"]) if len(rows) == 1 else rows, strict=True))


def _per_head(model: Mapping[str, Any], key: str) -> list[float]:
    values = list(np.atleast_1d(model[key]))
    return values * len(model["heads"]) if len(values) == 1 else values


def _load(potential: Potential, weights: Mapping[str, np.ndarray]) -> None:
    """Copy weights in; every parameter must be given, with its shape."""
    own = dict(potential.architecture.named_parameters())
    missing, extra = sorted(set(own) - set(weights)), sorted(set(weights) - set(own))
    if missing or extra:
        raise ModelError(f"weights do not match the model: missing {missing}, left over {extra}")
    with torch.no_grad():
        for name, parameter in own.items():
            value = np.ascontiguousarray(weights[name])
            if value.shape != tuple(parameter.shape):
                raise ModelError(f"{name} has shape {value.shape}, expected {tuple(parameter.shape)}")
            parameter.copy_(torch.as_tensor(value))


def _weights(settings: MaceSettings, n_elements: int, arrays: Arrays, order: np.ndarray) -> dict[str, np.ndarray]:
    """All parameters under our names."""
    c = settings.channels
    out = {"embedding": arrays["node_embedding.linear.weight"].reshape(n_elements, c)[order]}
    for k in range(settings.num_interactions):
        first = settings.hidden_degrees if k else [0]
        out.update({f"layers.{k}.{n}": v for n, v in _interaction(settings, k, first, arrays, order).items()})
        last = k == settings.num_interactions - 1
        degrees = [0] if last else settings.hidden_degrees
        product = f"products.{k}."
        out[f"layers.{k}.mix"] = arrays[product + "linear.weight"].reshape(len(degrees), c, c)
        for j, degree in enumerate(degrees):
            found = _contraction(settings, k, j, degree, arrays)
            out.update({f"layers.{k}.product.weights.{degree}_{n}": v for n, v in found.items()})
    if not settings.use_agnostic_product:
        out = {n: v[order] if ".product.weights." in n else v for n, v in out.items()}
    return {**out, **_readouts(settings, arrays)}


def _interaction(
    settings: MaceSettings, k: int, features: list[int], arrays: Arrays, order: np.ndarray
) -> dict[str, np.ndarray]:
    """Weights of one interaction: linear maps, radial network (with the phases of the couplings), skip."""
    c, name = settings.channels, f"interactions.{k}."
    out = {"up": arrays[name + "linear_up.weight"].reshape(len(features), c, c)}
    place = {tuple(row[:3]): (i, row[3]) for i, row in enumerate(arrays[f"instructions/{k}"])}
    paths = coupling_paths(features, settings.max_ell)
    last = len(settings.radial_mlp)
    for j in range(last + 1):
        out[f"radial.weights.{j}"] = arrays[f"{name}conv_tp_weights.layer{j}.weight"]
    columns = [out[f"radial.weights.{last}"][:, place[p][1] : place[p][1] + c] * _phase(p, arrays) for p in paths]
    out[f"radial.weights.{last}"] = np.concatenate(columns, 1)
    blocks = {int(row[0]): row for row in arrays[f"linear/{name}linear"]}
    flat = arrays[name + "linear.weight"]
    for degree in range(settings.max_ell + 1):
        rows = [blocks[place[p][0]] for p in paths if p.message == degree]
        out[f"linear.{degree}"] = np.concatenate([flat[r[5] : r[5] + c * c].reshape(c, c) for r in rows])
    skip = arrays[name + "skip_tp.weight"].reshape(-1, c, len(order), c)
    out["skip"] = skip.transpose(0, 2, 1, 3)[:, order]
    if f"{name}density_fn.layer0.weight" in arrays:
        out["density.weights.0"] = arrays[f"{name}density_fn.layer0.weight"]
    return out


def _phase(path: CouplingPath, arrays: Arrays) -> float:
    """+1 or -1: the foreign coupling tensor over ours."""
    theirs = arrays["w3j/" + "_".join(map(str, path))] * np.sqrt(2 * path.message + 1)
    ours = clebsch_gordan(*path)
    for phase in (1.0, -1.0):
        if np.allclose(theirs, phase * ours, atol=1e-10):
            return phase
    raise ModelError(f"the coupling {tuple(path)} of the checkpoint is not ours up to a sign")


def _contraction(settings: MaceSettings, k: int, j: int, degree: int, arrays: Arrays) -> dict[str, np.ndarray]:
    """Path weights of one output degree, by order."""
    name = f"products.{k}.symmetric_contractions.contractions.{j}."
    highest, out = settings.correlations[k], {}
    for nu in range(1, highest + 1):
        ours = symmetric_paths(settings.max_ell, degree, nu)
        if not len(ours):
            continue
        weights = arrays[name + ("weights_max" if nu == highest else f"weights.{highest - 1 - nu}")]
        theirs = _polynomials(arrays[f"{name}U_matrix_{nu}"], degree, nu)
        out[str(nu)] = np.einsum("zkc,kp->zpc", weights, _match(theirs, ours))
    return out


def _polynomials(u: np.ndarray, degree: int, order: int) -> np.ndarray:
    """Coupling tensors (2L+1, n, .., n, K), or without the first axis for L = 0, as polynomials (K, 2L+1, Q)."""
    u = u if degree else u[None]
    n = u.shape[1]
    place = {m: q for q, m in enumerate(monomials(n, order))}
    index = [place[tuple(sorted(t))] for t in itertools.product(range(n), repeat=order)]
    out = np.zeros((len(place), u.shape[0], u.shape[-1]))
    np.add.at(out, index, np.moveaxis(u, 0, -2).reshape(-1, u.shape[0], u.shape[-1]))
    return out.transpose(2, 1, 0)


def _match(theirs: np.ndarray, ours: np.ndarray) -> np.ndarray:
    """Matrix (K theirs, K ours) that writes each foreign path in our paths: one +-1 per row where they pair up."""
    a, b = theirs.reshape(len(theirs), -1), ours.reshape(len(ours), -1)
    out, free = np.zeros((len(a), len(b))), set(range(len(b)))
    left = []
    for i, row in enumerate(a):
        if np.abs(row).max() < 1e-9:
            continue
        hits = [(p, s) for p in sorted(free) for s in (1.0, -1.0) if np.allclose(row, s * b[p], atol=1e-9)]
        if not hits:
            left.append(i)
            continue
        free.discard(hits[0][0])
        out[i, hits[0][0]] = hits[0][1]
    if left:
        fit = np.linalg.lstsq(b.T, a[left].T, rcond=None)[0].T
        if not np.allclose(fit @ b, a[left], atol=1e-8):
            raise ModelError("the checkpoint's coupling paths do not lie in ours", fix="retrain it here")
        out[left] = fit
    return out


def _readouts(settings: MaceSettings, arrays: Arrays) -> dict[str, np.ndarray]:
    """Weights of the readouts, renumbered."""
    out: dict[str, np.ndarray] = {}
    c, k = settings.channels, 0
    while f"readouts.{k}.linear.weight" in arrays or f"readouts.{k}.linear_1.weight" in arrays:
        name = f"readouts.{k}."
        if f"{name}linear.weight" in arrays:
            out[f"{name}weight"] = arrays[f"{name}linear.weight"].reshape(c, -1)
        else:
            hidden = arrays[f"{name}linear_1.weight"].reshape(c, -1)
            out[f"{name}hidden"] = hidden
            out[f"{name}weight"] = arrays[f"{name}linear_2.weight"].reshape(hidden.shape[1], -1)
        k += 1
    return out
