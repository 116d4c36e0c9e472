"""TorchScript: one file that `torch.jit.load` runs without this package."""

from __future__ import annotations

import copy
import io
import json
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from forgefield.core.catalog import Entry
from forgefield.core.settings import Settings
from forgefield.core.structure import Structure
from forgefield.export.prediction import Candidate, Prediction
from forgefield.export.scriptable import ScriptablePotential
from forgefield.export.target import METADATA, Target, describe, directed_edges, lattice
from forgefield.graph.build import build_graph, head_index
from forgefield.graph.electrons import join_charges
from forgefield.graph.features import join_features
from forgefield.graph.graph import Graph
from forgefield.graph.needs import Needs
from forgefield.models.potential import Potential


class TorchScriptSettings(Settings):
    """Settings of the TorchScript file: there are none yet."""


class FlatPotential(nn.Module):
    """The potential as a function of plain tensors, in the order of `Graph`; what is traced."""

    def __init__(self, potential: Potential) -> None:
        super().__init__()
        self.potential = potential

    def forward(self, *tensors: Tensor) -> dict[str, Tensor]:
        """Return energy (S,), forces (N, 3), stress (S, 3, 3), atom_energies (N,), and what else is predicted."""
        found = self.potential(Graph(*tensors))
        if not self.potential.context.energy:
            return dict(found.extra)
        four = {"energy": found.energy, "forces": found.forces, "stress": found.stress}
        return {**four, "atom_energies": found.atom_energies, **found.extra}


class TorchScriptTarget(Target):
    """Writes and reads the TorchScript file.

    Args:
        settings: of the file.
    """

    filename = "model.torchscript.pt"
    format = "torchscript"

    def __init__(self, settings: TorchScriptSettings | None = None) -> None:
        self.settings = settings or TorchScriptSettings()

    def write(self, potential: Potential, path: Path, sample: Structure) -> None:
        """Trace the model on the sample, wrap it in the script that builds its graph, and save it on the CPU."""
        core = copy.deepcopy(potential).cpu().eval().requires_grad_(False)
        with quiet():
            traced = trace(core, sample)
            module = torch.jit.script(scriptable(core, traced))
            buffer = io.BytesIO()
            torch.jit.save(module, buffer, _extra_files={METADATA: json.dumps(metadata(core, traced))})
        path.write_bytes(buffer.getbuffer())

    def read(self, path: Path) -> Candidate:
        """Load the file; the function returned finds the neighbours and calls it."""
        extra = {METADATA: ""}
        with quiet():
            module = torch.jit.load(str(path), map_location="cpu", _extra_files=extra)
        features = json.loads(extra[METADATA])["features"]
        needs = Needs(module.cutoff, features=tuple((name, length) for name, length in features))

        def candidate(structure: Structure) -> Prediction:
            index, shifts = directed_edges(structure, module.cutoff)
            head = head_index(structure, module.heads)
            electrons = structure.charge or 0.0, float(structure.multiplicity or 1)
            more = {"features": torch.from_numpy(join_features([structure], needs)[0])} if needs.features else {}
            if module.asks_charges:
                more["charges"] = torch.from_numpy(np.array(join_charges([structure])))
            tensors = (
                torch.from_numpy(np.array(a)) for a in (structure.positions, structure.numbers, lattice(structure))
            )
            with torch.no_grad():
                found = module(*tensors, torch.from_numpy(index), torch.from_numpy(shifts), head, *electrons, **more)
            array = {k: v.double().numpy() for k, v in found.items()}
            n = len(structure)
            nothing = {
                "energy": 0.0,
                "forces": np.zeros((n, 3)),
                "stress": np.zeros((3, 3)),
                "atom_energies": np.zeros(n),
            }
            energy, *rest = (array.pop(name, zero) for name, zero in nothing.items())
            return Prediction(float(energy), *rest, array)

        return candidate


def trace(potential: Potential, sample: Structure) -> torch.jit.ScriptModule:
    """Record the model on a structure, as a function of the tensors of `Graph` that returns predictions by name."""
    graph = build_graph([sample], potential.needs, heads=potential.heads, dtype=potential.dtype)
    return torch.jit.trace(FlatPotential(potential), tuple(graph), check_trace=False, strict=False)


def scriptable(potential: Potential, traced: torch.jit.ScriptModule) -> ScriptablePotential:
    """Return the script around a traced model."""
    whole = [n for n, q in potential.architecture.extra_quantities().items() if q.per == "structure"]
    takes = potential.takes([False] * 3), potential.takes([True] * 3)
    needs, dtype = potential.needs, potential.dtype
    return ScriptablePotential(traced, potential.elements, potential.heads, needs, dtype, whole, takes)


def metadata(potential: Potential, traced: torch.jit.ScriptModule) -> dict[str, object]:
    """Return what a program needs to know to use the file; stored inside it."""
    device = "cpu" if bound_to_cpu(traced) else "any"
    standard = ("energy ()", "forces (N,3)", "stress (3,3)", "atom_energies (N)") if potential.context.energy else ()
    further = [
        f"{name} ({','.join(map(str, ('N',) * (q.per == 'atom') + q.shape))})"
        for name, q in potential.targets.quantities.items()
    ]
    return describe(potential) | {
        "inputs": "positions (N,3), numbers (N), cell (3,3), edge_index (2,E), shifts (E,3), head=0, "
        "charge=0.0, multiplicity=1.0, features=None (X), charges=None (N)",
        "edges_up_to": max(potential.cutoff, potential.needs.far_cutoff),
        "needs": [*potential.needs.electrons, *(["charges"] if potential.needs.atom_charges else [])],
        "features": [list(row) for row in potential.needs.features],
        "device": device,
        "outputs": ", ".join((*standard, *further)),
    }


def bound_to_cpu(traced: torch.jit.ScriptModule) -> bool:
    """Whether the trace makes tensors on the CPU by name: `map_location` cannot move those.

    Moving a tensor to the CPU on purpose (`aten::to`) is no hindrance.
    """
    graph = traced.inlined_graph  # keeps the nodes alive
    devices = [n.output() for n in graph.findAllNodes("prim::Constant") if str(n.output().type()) == "Device"]
    return any(use.user.kind() != "aten::to" for value in devices for use in value.uses())


@contextmanager
def quiet() -> Generator[None]:
    """Silence the notices that TorchScript is frozen, and the tracer's about sizes, which verification covers."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.*", category=DeprecationWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        yield


ENTRY = Entry(settings=TorchScriptSettings, build=TorchScriptTarget, summary="one file for torch.jit.load")
