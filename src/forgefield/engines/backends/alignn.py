"""A model of the alignn package as one of ours, from its weights and its settings; the package is not needed."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from forgefield.core.errors import ModelError
from forgefield.engines.backends.weights_file import read_weights
from forgefield.models.architectures.alignn.elements import element_features
from forgefield.models.architectures.alignn.package import load_package_weights
from forgefield.models.architectures.alignn.settings import AlignnSettings
from forgefield.models.bundle import save_bundle
from forgefield.models.potential import Potential, build_potential
from forgefield.models.targets import Aims

TABLE = "_species_table"
"""Features of the elements by atomic number, which alignn fills in for files of other programs; else zeros."""
CENTRES = {"edge_embedding.0.centers": (0.0, 8.0), "angle_embedding.0.centers": (-1.0, 1.0)}
"""Gaussians of distances, Å, and cosines: the first and the last centre."""


class _Read(UserDict[str, Tensor]):
    """Weights that keep account of which were asked for."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__(weights)
        self.names: set[str] = set()

    def __getitem__(self, name: str) -> Tensor:
        self.names.add(name)
        return self.data[name]


def import_model(
    path: Path, settings: AlignnSettings, aims: Aims, elements: Sequence[int], out: Path, notes: Sequence[str] = ()
) -> Potential:
    """Turn weights of alignn into a bundle.

    Args:
        path: best_model.pt, or another file of weights.
        settings: what the model is, in our words.
        aims: what it predicts.
        elements: atomic numbers of the structures it was trained on.
        out: folder of the new bundle.
        notes: why its predictions may be others than alignn's, for the manifest.

    Raises:
        ModelError: the weights do not fit, or some have no place; nothing is written.
    """
    potential = convert(read_weights(path), settings, aims, elements, str(path))
    origin = {"engine": "alignn", "notes": list(notes)}
    save_bundle(potential, out, provenance={"source": path.name, "imported_from": origin})
    return potential


def convert(
    weights: Mapping[str, Tensor], settings: AlignnSettings, aims: Aims, elements: Sequence[int], where: str
) -> Potential:
    """Build our potential with the weights of the package; see `import_model`."""
    potential = build_potential(
        "alignn",
        settings,
        elements=sorted(set(elements)),
        reference_energies={"default": dict.fromkeys(sorted(set(elements)), 0.0)},
        avg_num_neighbors=1.0,  # this architecture has no use for it
        aims=aims,
        dtype=torch.float64 if any(w.dtype == torch.float64 for w in weights.values()) else torch.float32,
    )
    read = _Read(weights)
    load_package_weights(potential.architecture, read)  # type: ignore[arg-type]
    for name, value in weights.items():
        if name in CENTRES:
            _check_centres(name, value, where)
        elif name == TABLE:
            _check_table(value, settings, potential.elements, where)
        elif name not in read.names and not _unread(name, settings):
            what = f"holds {name} {tuple(value.shape)}, which the model that config.json describes has no place for"
            raise ModelError(what, where, "give the config.json of the same training")
    return potential


def _check_table(table: Tensor, settings: AlignnSettings, elements: Sequence[int], where: str) -> None:
    ours = torch.as_tensor(element_features(settings.atom_features, tuple(elements)), dtype=table.dtype)
    theirs = table[elements]
    if bool(table.any()) and (theirs.shape != ours.shape or float((theirs - ours).abs().max()) > 1e-4):
        what = f"{TABLE} holds other features of the elements than {settings.atom_features}"
        raise ModelError(what, where, "give the config.json of the same training")


def _unread(name: str, settings: AlignnSettings) -> bool:
    """Whether weights make features of bonds or angles that no layer reads: after the last layer, or without angles."""
    if name.startswith("angle_embedding."):
        return not settings.alignn_layers
    last = f"alignn_layers.{settings.alignn_layers - 1}.edge_update."
    return ".bn_edges." in name or (not settings.gcn_layers and name.startswith(last))


def _check_centres(name: str, value: Tensor, where: str) -> None:
    expected = torch.linspace(*CENTRES[name], len(value))
    if float((value.float() - expected).abs().max()) > 1e-4:
        raise ModelError(f"{name} are other Gaussians than those of alignn_atomwise", where, "retrain it here")
