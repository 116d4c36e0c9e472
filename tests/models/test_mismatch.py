"""Weights that do not fit: the message names the setting."""

import pytest
from safetensors.torch import save_file

from forgefield.core.errors import ModelError
from forgefield.models.bundle import load_bundle, save_bundle
from forgefield.models.mismatch import settings_behind
from forgefield.models.potential import ARCHITECTURES, build_potential


def make(elements=(1, 6, 8), heads=("default",), **changes):
    block = {"hidden_irreps": "4x0e + 4x1o", "max_ell": 2, "correlation": 2, "radial_mlp": [8], **changes}
    settings = ARCHITECTURES.entry("mace").settings.model_validate(block)
    energies = {head: dict.fromkeys(elements, 0.0) for head in heads}
    return build_potential(
        "mace", settings, elements=elements, heads=heads, reference_energies=energies, avg_num_neighbors=5.0
    )


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"hidden_irreps": "8x0e + 8x1o"}, ["hidden_irreps"]),
        ({"max_ell": 1}, ["max_ell"]),
        ({"num_interactions": 3}, ["num_interactions"]),
        ({"mlp_irreps": "8x0e"}, ["mlp_irreps"]),
        ({"radial_mlp": [8, 8]}, ["radial_mlp"]),
        ({"num_radial_basis": 10, "correlation": 1}, ["correlation", "num_radial_basis"]),
        ({"use_agnostic_product": True}, ["use_agnostic_product"]),
        ({"interaction": "density_residual"}, ["interaction"]),
        ({"elements": (1, 6)}, ["the number of elements"]),
        ({"heads": ("a", "b")}, ["the number of heads"]),
        ({}, []),
    ],
)
def test_the_setting_behind_a_difference_is_found(changes, names):
    shapes = {name: tuple(p.shape) for name, p in make(**changes).architecture.named_parameters()}
    found = [text.partition(" (here")[0] for text in settings_behind(make(), shapes)]
    assert sorted(found) == sorted(names)


def test_loading_other_weights_names_it(tmp_path):
    save_bundle(make(), tmp_path / "model", provenance={})
    other = {name: p.detach() for name, p in make(hidden_irreps="8x0e + 8x1o").architecture.named_parameters()}
    save_file(other, tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match=r"set by hidden_irreps \(here 4x0e \+ 4x1o\)"):
        load_bundle(tmp_path / "model", weights=tmp_path / "other.safetensors")
