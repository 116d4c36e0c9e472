"""Same weights, same numbers as mace-torch: energies, forces, stress and atom energies in float64."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from forgefield.core.errors import ModelError
from forgefield.core.structure import Structure
from forgefield.engines.backends.exported import read_export
from forgefield.engines.backends.mace_torch import convert
from forgefield.graph.build import build_graph

GOLDEN = Path(__file__).parent.parent / "golden" / "mace"
REFUSED = {"late_cutoff": "apply_cutoff", "edge_irreps": "keep_last_layer_irreps"}
CASES = sorted(p.name for p in GOLDEN.iterdir() if p.is_dir() and p.name not in REFUSED)


def structures(case, heads):
    with np.load(GOLDEN / case / "structures.npz", allow_pickle=False) as file:
        data = {k: file[k] for k in file.files}
    ptr = data["ptr"]
    return [
        Structure(
            data["numbers"][a:b], data["positions"][a:b], data["cell"][k], data["pbc"][k], head=heads[data["head"][k]]
        )
        for k, (a, b) in enumerate(itertools.pairwise(ptr))
    ]


def relative(found, wanted):
    return float(np.abs(found - wanted).max() / max(np.abs(wanted).max(), 1e-12))


@pytest.mark.parametrize("case", CASES)
def test_same_as_mace_torch(case):
    model, arrays = read_export(GOLDEN / case)
    potential = convert(model, arrays)
    graph = build_graph(structures(case, potential.heads), potential.needs, heads=potential.heads, dtype=torch.float64)
    with torch.no_grad():
        out = potential(graph)
    with np.load(GOLDEN / case / "expected.npz", allow_pickle=False) as wanted:
        assert relative(out.energy.numpy(), wanted["energy"]) < 1e-10
        assert relative(out.forces.numpy(), wanted["forces"]) < 1e-10
        assert relative(out.stress.numpy(), wanted["stress"]) < 1e-10
        assert relative(out.atom_energies.numpy(), wanted["node_energies"]) < 1e-10


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_what_we_lack_is_refused(case):
    with pytest.raises(ModelError, match=REFUSED[case]):
        convert(*read_export(GOLDEN / case))
