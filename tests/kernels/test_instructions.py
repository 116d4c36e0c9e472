"""The operators built for every set of vector instructions that this processor has, each in a process of its own."""

import os
import subprocess
import sys

import pytest
import torch

from forgefield.kernels import library

FOUND = torch.backends.cpu.get_cpu_capability()
KNOWN = [*library.VECTOR_FLAGS, "baseline"]
HERE = KNOWN[KNOWN.index(FOUND if FOUND in KNOWN else "baseline") :]
PROGRAM = """
import numpy as np, torch
from forgefield.core.structure import Structure
from forgefield.graph.build import build_graph
from forgefield.kernels.choice import compiled, kernels
from forgefield.kernels.library import load
from forgefield.models.potential import ARCHITECTURES, build_potential

print(load().words)
settings = ARCHITECTURES.entry("mace").settings.model_validate({"hidden_irreps": "20x0e+20x1o", "r_max": 3.5})
generator = np.random.default_rng(0)
structure = Structure(generator.choice([1, 8], 12), generator.uniform(0, 6, (12, 3)), np.eye(3) * 6.5, np.ones(3, bool))
for dtype in (torch.float32, torch.float64):
    model = build_potential("mace", settings, elements=[1, 8], reference_energies={"default": {1: -1.0, 8: -2.0}},
                            avg_num_neighbors=8.0, dtype=dtype)
    graph, found = build_graph([structure], model.needs, dtype=dtype), []
    for choice in ("plain", "auto"):
        with kernels(choice):
            assert compiled(graph.table_sign) is (choice == "auto")
            out = model(graph)
            gradients = torch.autograd.grad(out.forces.sin().sum(), [p for p in model.parameters()], allow_unused=True)
            found.append([out.energy.detach(), out.forces.detach(), *(g for g in gradients if g is not None)])
    print(max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(*found, strict=True)))
"""


@pytest.mark.slow
@pytest.mark.skipif(library.compiler() is None, reason="no C++ compiler")
@pytest.mark.parametrize("instructions", HERE)
def test_each_set_gives_what_plain_pytorch_gives(instructions):
    """Energies, forces and the forces' gradients by the weights; building takes up to two minutes once."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "FORGEFIELD_INSTRUCTIONS": instructions, "FORGEFIELD_KERNELS": ""},
    )
    assert done.returncode == 0, done.stderr
    words, single, double = done.stdout.splitlines()
    assert words == f"C++ ({instructions})"
    assert float(single) < 2e-5
    assert float(double) < 1e-11
