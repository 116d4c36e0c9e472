"""Weights of the alignn package as weights of ours."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from forgefield.core.errors import ModelError
from forgefield.models.architectures.alignn.model import Alignn

MIXING = {"embed": "extra_feature_embedding", "first": "fc1", "second": "fc2"}
Weights = Mapping[str, Tensor]


def load_package_weights(architecture: Alignn, weights: Weights) -> None:
    """Give a model the weights of alignn's `alignn_atomwise` or `alignn_atomwise_pure` of the same shape.

    Args:
        architecture: of one level of theory; with `compat: alignn` it then computes what the package does.
        weights: by their names in the package. Those of results that nobody reads (edges after the last layer) are
            left out.

    Raises:
        ModelError: the weights are of another shape, or some are missing.
    """
    context = architecture.context
    if len(context.heads) > 1:
        raise ModelError("alignn's weights are of one level of theory", "model", "give the data one head")
    try:
        found = _layer("atoms", "atom_embedding", weights)
        for name, count in (("bonds", 2), ("angles", 2 if len(architecture.angle_layers) else 0)):
            for k in range(count):
                theirs = {"bonds": "edge", "angles": "angle"}[name] + f"_embedding.{k + 1}"
                found |= _layer(f"{name}.{k}", theirs, weights)
        n_angles = architecture.settings.alignn_layers
        for k, layer in enumerate(architecture.atom_layers):
            theirs = f"alignn_layers.{k}.node_update" if k < n_angles else f"gcn_layers.{k - n_angles}"
            found |= _gated(f"atom_layers.{k}", theirs, weights, layer.edge_norm is None)
        for k, layer in enumerate(architecture.angle_layers):
            theirs = f"alignn_layers.{k}.edge_update"
            found |= _gated(f"angle_layers.{k}", theirs, weights, layer.edge_norm is None)
        found |= _readout(architecture, weights)
        architecture.load_state_dict(found, strict=True)
    except KeyError as error:
        raise ModelError(f"there is no {error.args[0]} among the weights", "model", "look at the settings") from None
    except RuntimeError as error:
        line = str(error).splitlines()[-1].strip()
        raise ModelError(f"the weights do not fit: {line}", "model", "look at the settings") from None


def _linear(ours: str, theirs: str, weights: Weights) -> dict[str, Tensor]:
    weight, bias = (weights[f"{theirs}.{part}"] for part in ("weight", "bias"))
    return {f"{ours}.weight": weight, f"{ours}.bias": bias.expand(weight.shape[:1])}  # one number where link is log


def _layer(ours: str, theirs: str, weights: Weights) -> dict[str, Tensor]:
    linear = _linear(f"{ours}.linear", f"{theirs}.layer.0", weights)
    return linear | _linear(f"{ours}.norm", f"{theirs}.layer.1", weights)


def _gated(ours: str, theirs: str, weights: Weights, last: bool) -> dict[str, Tensor]:
    names = ("src_gate", "dst_gate", "dst_update", "src_update")
    bias = {n: weights[f"{theirs}.{n}.bias"] for n in (*names, "edge_gate")}
    found = {
        f"{ours}.nodes": torch.cat([weights[f"{theirs}.{n}.weight"] for n in names]),
        f"{ours}.node_bias": torch.cat([bias["dst_update"], bias["src_update"]]),
        f"{ours}.gate": weights[f"{theirs}.edge_gate.weight"],
        f"{ours}.gate_bias": bias["src_gate"] + bias["dst_gate"] + bias["edge_gate"],
    }
    found |= _linear(f"{ours}.node_norm", f"{theirs}.bn_nodes", weights)
    return found if last else found | _linear(f"{ours}.edge_norm", f"{theirs}.bn_edges", weights)


def _readout(architecture: Alignn, weights: Weights) -> dict[str, Tensor]:
    """Readouts: the energy or the first target of structures, the others together, those of atoms together."""
    context, readout = architecture.context, architecture.readout
    found: dict[str, Tensor] = {}
    if readout.mixing is not None:
        for ours, theirs in MIXING.items():
            found |= _layer(f"readout.mixing.{ours}", theirs, weights)
    first = "fc3" if readout.mixing is not None else "fc"
    if context.energy:
        found |= _linear("readout.energy", first, weights)
    begun = {first: int(context.energy), "fc_additional_output": 0, "fc_atomwise": 0}
    for k, quantity in enumerate(context.targets):
        theirs = "fc_atomwise" if quantity.per == "atom" else "fc_additional_output" if begun[first] else first
        if quantity.kind == "class":  # two logits there, their difference here
            theirs = first
            rows = {part: weights[f"{theirs}.{part}"] for part in ("weight", "bias")}
            found |= {f"readout.targets.{k}.{part}": (row[1] - row[0]).unsqueeze(0) for part, row in rows.items()}
        else:
            rows = slice(begun[theirs], begun[theirs] + quantity.width)
            found |= {n: w[rows] for n, w in _linear(f"readout.targets.{k}", theirs, weights).items()}
        begun[theirs] += quantity.width
    return found
