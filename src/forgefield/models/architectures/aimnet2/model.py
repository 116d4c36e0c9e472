"""AIMNet2: passes over the neighbours that carry features and charges."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from forgefield.core.elements import masses
from forgefield.core.quantities import QUANTITIES, Quantity
from forgefield.graph.graph import Graph
from forgefield.graph.needs import Needs
from forgefield.models.architecture import ArchitectureContext, AtomTerm, Axis, Respond
from forgefield.models.architectures.aimnet2.charges import equilibrate, moments, totals
from forgefield.models.architectures.aimnet2.convolution import Convolution, Surroundings, surroundings
from forgefield.models.architectures.aimnet2.perceptron import Perceptron
from forgefield.models.architectures.aimnet2.radial import Gaussians
from forgefield.models.architectures.aimnet2.readout import Readout
from forgefield.models.architectures.aimnet2.settings import Aimnet2Settings
from forgefield.models.blocks.linear import in_kernels
from forgefield.models.traced.architecture import EnergyArchitecture
from forgefield.models.traced.gradient import Predictions
from forgefield.models.traced.sizes import Inputs
from forgefield.models.traced.traces import untraced


class Aimnet2(EnergyArchitecture):
    """Message passing with charges equilibrated in each pass; docs/aimnet2.md has the formulas.

    Args:
        settings: the shape of the model.
        context: elements and heads.

    Source:
        Anstine, Zubatyuk, Isayev, AIMNet2, Chem. Sci. (2025); open shells: AIMNet-NSE, Nat. Commun. 12, 4870 (2021).
    """

    has_kernels = True

    def __init__(self, settings: Aimnet2Settings, context: ArchitectureContext) -> None:
        super().__init__()
        self.settings, self.context, aev = settings, context, settings.aev
        n_channels = settings.num_charge_channels
        stated = ("charge", "multiplicity") if n_channels == 2 else ("charge",)
        self.needs = Needs(cutoff=aev.rc_s, electrons=stated)
        self.kinds_per_element = context.n_kinds // len(context.elements)
        self.scalar = Gaussians(aev.rc_s, aev.nshifts_s, aev.rmin, aev.eta_s, aev.shifts_s)
        self.vector = None
        if aev.rc_v is not None:
            self.vector = Gaussians(aev.rc_v, aev.n_vector, aev.rmin, aev.eta_v, aev.shifts_v)
        repeats = aev.nshifts_s if settings.d2features else 1
        drawn = nn.init.orthogonal_(torch.empty(context.n_kinds, settings.nfeature))
        self.embedding = nn.Parameter(drawn.repeat_interleave(repeats, 1))
        width = self.embedding.shape[1]
        self.levels = nn.Parameter(torch.zeros(context.n_embedded, width)) if context.n_embedded else None
        shape = (aev.nshifts_s, aev.n_vector, settings.ncomb_v)
        self.convolve = Convolution(settings.nfeature, *shape, by_function=settings.d2features)
        self.convolve_charges = Convolution(n_channels, *shape, by_function=False)
        first = width + self.convolve.size
        later = first + n_channels + self.convolve_charges.size
        update = width + 2 * n_channels
        last = len(settings.hidden) - 1
        self.passes = nn.ModuleList(
            Perceptron([later if k else first, *hidden, settings.aim_size if k == last else update], activated=k > 0)
            for k, hidden in enumerate(settings.hidden)
        )
        self.readout = Readout(settings.aim_size, settings.energy_hidden, context.n_readouts, len(context.elements))
        of_kinds = [masses[z] for z in context.elements for _ in range(self.kinds_per_element)]
        self.register_buffer("masses", torch.tensor(of_kinds, dtype=torch.float64), persistent=False)

    def forward(
        self, graph: Graph, vectors: Tensor, species: Tensor, counts: Tensor, respond: Respond | None = None
    ) -> AtomTerm:
        """Energies, gradients and further predictions, as those of `EnergyArchitecture`.

        In the compiled operators, which have their gradients with them, nothing is traced: automatic differentiation
        visits the same operators, and a tracer would take more memory than the model.
        """
        if self.context.energy and in_kernels(vectors) and not torch.compiler.is_compiling():
            return untraced(self, Inputs(graph, vectors, species, counts), respond)
        return super().forward(graph, vectors, species, counts, respond)

    def head_parameters(self) -> list[str]:
        """Names of the parameters that belong to the readouts."""
        return [name for name, _ in self.named_parameters() if name.startswith("readout.")]

    def indexed(self) -> dict[str, tuple[Axis, ...]]:
        """Axes over elements or kinds (embedding), elements (shifts) and heads (readouts, vectors of levels)."""
        axis = self.context.readout_axis
        found: dict[str, tuple[Axis, ...]] = {name: (axis,) for name in self.head_parameters()}
        if self.levels is not None:
            found["levels"] = ("heads",)
        return found | {"embedding": (self.context.kind_axis,), "readout.shifts": (axis, "elements")}

    def extra_quantities(self) -> dict[str, Quantity]:
        """Charges and their moments, of open shells spin charges too."""
        names = ["charges", "dipole", "quadrupole"]
        if self.settings.num_charge_channels == 2:
            names.append("spin_charges")
        return {name: QUANTITIES[name] for name in names}

    def predictions(self, graph: Graph, vectors: Tensor, species: Tensor, counts: Tensor) -> Predictions:
        """Energies, charges and moments.

        Args:
            graph: the batch.
            vectors: pair vectors, (P, 3), Å.
            species: index of each atom's kind, (N,).
            counts: atoms of each kind, on the CPU.
        """
        features = self.embedding.index_select(0, species)
        if self.levels is not None:
            head = graph.head.index_select(0, graph.structure)
            features = features + self.levels.index_select(0, head)
        r = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
        scalar = self.scalar(r)
        near = surroundings(graph, vectors, r, scalar, scalar if self.vector is None else self.vector(r))
        aim, charges = self._run(features, species, near)
        energies = self.readout(aim, self.readout_of(graph), species // self.kinds_per_element)
        total = charges.sum(1)
        about = self.masses.index_select(0, species) if self.settings.moments_about == "mass" else None
        extra = {"charges": total, **moments(total, graph, about)._asdict()}
        if charges.shape[1] == 2:
            extra["spin_charges"] = charges[:, 0] - charges[:, 1]
        return Predictions(energies, extra)

    def _run(self, features: Tensor, species: Tensor, near: Surroundings) -> tuple[Tensor, Tensor]:
        """Features that energies are read from, (N, aim_size), and charges, (N, C)."""
        n_channels = self.settings.num_charge_channels
        wanted = totals(near.graph, n_channels, features.dtype)
        charges: Tensor | None = None
        *updates, last = self.passes
        for network in updates:
            if charges is None and self.levels is None:  # all atoms of a kind begin alike
                found = network(self.convolve(features, near), self.embedding, species)
            else:
                found = network(self._inputs(features, charges, near))
            q, f, change = found.split([n_channels, n_channels, found.shape[1] - 2 * n_channels], 1)
            q = q if charges is None else charges + q
            charges = equilibrate(q, f.pow(2), wanted, near.graph)
            features = features + change
        assert charges is not None
        return last(self._inputs(features, charges, near)), charges

    def _inputs(self, features: Tensor, charges: Tensor | None, near: Surroundings) -> Tensor:
        parts = [features, self.convolve(features, near)]
        if charges is not None:
            parts += [charges, self.convolve_charges(charges, near)]
        return torch.cat(parts, 1)
