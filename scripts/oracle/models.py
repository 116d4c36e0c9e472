"""mace-torch models with chosen settings and random weights."""

from __future__ import annotations

import numpy as np
import torch

# isort: off
from mace import modules  # before e3nn: it lets e3nn 0.4 read its tables
from e3nn import o3

# isort: on

PLAIN = "RealAgnosticInteractionBlock"
RESIDUAL = "RealAgnosticResidualInteractionBlock"
DENSITY = "RealAgnosticDensityInteractionBlock"
DENSITY_RESIDUAL = "RealAgnosticDensityResidualInteractionBlock"

DEFAULTS: dict[str, object] = {
    "class": "ScaleShiftMACE",
    "first": RESIDUAL,
    "later": RESIDUAL,
    "r_max": 4.5,
    "num_bessel": 6,
    "num_polynomial_cutoff": 5,
    "max_ell": 2,
    "num_interactions": 2,
    "hidden_irreps": "6x0e+6x1o",
    "MLP_irreps": "8x0e",
    "correlation": 3,
    "radial_MLP": [12, 12, 12],
    "gate": "silu",
    "avg_num_neighbors": 9.7,
    "heads": ["Default"],
    "scale": [0.83],
    "shift": [0.21],
}
OWN_NAMES = (
    "class",
    "first",
    "later",
    "hidden_irreps",
    "MLP_irreps",
    "gate",
    "scale",
    "shift",
    "edge_irreps",
)


def build_model(choices: dict[str, object], elements: tuple[int, ...]) -> torch.nn.Module:
    """A model of DEFAULTS overridden by `choices`; the weights are still upstream's own random ones."""
    torch.set_default_dtype(torch.float64)
    settings = DEFAULTS | choices
    heads = settings["heads"]
    energies = np.array([[-1.5 * z - 0.37 * k for z in elements] for k in range(len(heads))])
    arguments = {key: value for key, value in settings.items() if key not in OWN_NAMES}
    arguments |= {
        "hidden_irreps": o3.Irreps(settings["hidden_irreps"]),
        "MLP_irreps": o3.Irreps(settings["MLP_irreps"]),
        "interaction_cls_first": modules.interaction_classes[settings["first"]],
        "interaction_cls": modules.interaction_classes[settings["later"]],
        "gate": modules.gate_dict[settings["gate"]],
        "num_elements": len(elements),
        "atomic_numbers": list(elements),
        "atomic_energies": energies,
    }
    if "edge_irreps" in settings:
        arguments["edge_irreps"] = o3.Irreps(settings["edge_irreps"])
    if settings["class"] == "ScaleShiftMACE":
        arguments |= {"atomic_inter_scale": settings["scale"], "atomic_inter_shift": settings["shift"]}
        return modules.ScaleShiftMACE(**arguments)
    return modules.MACE(**arguments)


def randomise(model: torch.nn.Module, seed: int) -> None:
    """Draw every parameter anew from a NumPy generator, those that upstream leaves at zero too.

    Same spread as upstream: standard normal, and one over the number of paths for contraction weights.
    Rounded to multiples of 1/16384, which makes the files a third of the size.
    """
    generator = np.random.default_rng(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            spread = 1.0 / parameter.shape[1] if "symmetric_contractions" in name else 1.0
            drawn = generator.normal(0.0, spread, tuple(parameter.shape))
            parameter.copy_(torch.from_numpy(np.round(drawn * 16384) / 16384))
