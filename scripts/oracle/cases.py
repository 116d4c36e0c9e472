"""The golden forward cases: model settings by name, and what each is for."""

from __future__ import annotations

from typing import NamedTuple

from models import DENSITY, DENSITY_RESIDUAL, PLAIN, RESIDUAL

ALL = ["acetamide", "silicon", "triclinic", "lone_atom", "slab"]
SMALL = ["acetamide", "triclinic", "lone_atom"]


class Case(NamedTuple):
    """One model and the structures that it is evaluated on."""

    purpose: str
    choices: dict[str, object]
    structures: list[str] = ALL
    heads: list[int] | None = None


CASES: dict[str, Case] = {
    "residual": Case(
        "default blocks, scalars and vectors, max_ell 3, correlation 3",
        {"max_ell": 3, "num_bessel": 8},
    ),
    "plain_scalar": Case(
        "class MACE, element-dependent first block, scalars only, correlation 2, cutoff polynomial 6",
        {
            "class": "MACE",
            "first": PLAIN,
            "hidden_irreps": "8x0e",
            "correlation": 2,
            "num_polynomial_cutoff": 6,
        },
    ),
    "density": Case(
        "density blocks, Agnesi distances, pair repulsion",
        {
            "first": DENSITY,
            "later": DENSITY_RESIDUAL,
            "hidden_irreps": "4x0e+4x1o",
            "distance_transform": "Agnesi",
            "pair_repulsion": True,
        },
    ),
    "density_residual": Case(
        "class MACE, density-residual first block, Soft distances, gaussian basis, three layers, pair repulsion",
        {
            "class": "MACE",
            "first": DENSITY_RESIDUAL,
            "later": DENSITY_RESIDUAL,
            "hidden_irreps": "4x0e+4x1o",
            "num_interactions": 3,
            "correlation": 2,
            "radial_type": "gaussian",
            "distance_transform": "Soft",
            "pair_repulsion": True,
            "num_polynomial_cutoff": 6,
        },
    ),
    "tensors": Case(
        "hidden scalars, vectors and l = 2; max_ell 3; correlation 2",
        {"hidden_irreps": "4x0e+4x1o+4x2e", "max_ell": 3, "correlation": 2},
    ),
    "tensors_cubic": Case(
        "hidden l up to 2 with correlation 3, element-dependent first block",
        {"first": PLAIN, "hidden_irreps": "4x0e+4x1o+4x2e"},
        SMALL,
    ),
    "correlation_four": Case(
        "correlation 4 on max_ell 1",
        {"max_ell": 1, "correlation": 4, "hidden_irreps": "4x0e+4x1o"},
    ),
    "beyond_ell": Case(
        "hidden l = 2 with max_ell 1: some orders of the contraction have no path",
        {"max_ell": 1, "hidden_irreps": "4x0e+4x1o+4x2e"},
        SMALL,
    ),
    "one_layer": Case(
        "one interaction (linear readout only), correlation 1, max_ell 1, default radial network [64, 64, 64]",
        {"num_interactions": 1, "correlation": 1, "max_ell": 1, "hidden_irreps": "8x0e", "radial_MLP": None},
    ),
    "plain_layers": Case(
        "element-dependent blocks in all of three layers, another correlation in each",
        {
            "first": PLAIN,
            "later": PLAIN,
            "num_interactions": 3,
            "correlation": [3, 2, 1],
            "hidden_irreps": "4x0e+4x1o",
        },
    ),
    "density_layers": Case(
        "density blocks without self-connection in both layers, gaussian basis, cutoff polynomial 6",
        {
            "first": DENSITY,
            "later": DENSITY,
            "correlation": 2,
            "hidden_irreps": "4x0e+4x1o",
            "radial_type": "gaussian",
            "num_polynomial_cutoff": 6,
        },
    ),
    "chebyshev": Case(
        "chebyshev basis on Agnesi distances, radial network [16, 24], other readout width",
        {
            "radial_type": "chebyshev",
            "distance_transform": "Agnesi",
            "radial_MLP": [16, 24],
            "MLP_irreps": "5x0e",
            "correlation": 2,
            "hidden_irreps": "4x0e+4x1o",
        },
    ),
    "soft_bessel": Case(
        "bessel basis on Soft distances, radial network [20], element-dependent first block",
        {
            "first": PLAIN,
            "later": RESIDUAL,
            "distance_transform": "Soft",
            "radial_MLP": [20],
            "correlation": 2,
            "hidden_irreps": "5x0e+5x1o",
        },
    ),
    "heads": Case(
        "three heads with scales, shifts and reference energies of their own",
        {
            "heads": ["dft", "low", "cc"],
            "scale": [0.9, 1.4, 0.6],
            "shift": [0.1, -0.3, 0.25],
            "correlation": 2,
            "hidden_irreps": "4x0e+4x1o",
        },
        [*SMALL, *SMALL, *SMALL],
        [0, 0, 0, 1, 1, 1, 2, 2, 2],
    ),
    "heads_plain": Case(
        "class MACE with two heads and pair repulsion",
        {
            "class": "MACE",
            "heads": ["first", "second"],
            "pair_repulsion": True,
            "correlation": 2,
            "hidden_irreps": "4x0e",
        },
        [*SMALL, *SMALL],
        [0, 1, 0, 1, 0, 1],
    ),
    "agnostic_product": Case(
        "contraction weights shared by all elements, last readout only",
        {
            "use_agnostic_product": True,
            "use_last_readout_only": True,
            "hidden_irreps": "4x0e+4x1o",
        },
        SMALL,
    ),
    "late_cutoff": Case(
        "apply_cutoff false: the envelope multiplies convolution weights and density, not the basis",
        {
            "first": DENSITY,
            "later": DENSITY_RESIDUAL,
            "apply_cutoff": False,
            "correlation": 2,
            "hidden_irreps": "4x0e+4x1o",
        },
        SMALL,
    ),
    "edge_irreps": Case(
        "edge_irreps narrower than the hidden ones, last layer keeps its vectors, tanh gate",
        {
            "edge_irreps": "4x0e+4x1o",
            "keep_last_layer_irreps": True,
            "gate": "tanh",
            "correlation": 2,
        },
        SMALL,
    ),
}
