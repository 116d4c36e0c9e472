"""What is predicted beside energies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from forgefield.core.elements import masses
from forgefield.core.errors import ModelError
from forgefield.core.quantities import QUANTITIES, Quantity
from forgefield.graph.graph import Graph
from forgefield.graph.segment import sum_by
from forgefield.models.architecture import ArchitectureContext
from forgefield.models.architectures.xpainn.dense import Network
from forgefield.models.architectures.xpainn.irreps import Irreps, parse_irreps
from forgefield.models.architectures.xpainn.settings import Mode, XpainnSettings
from forgefield.models.architectures.xpainn.tensors import HIGHEST_RANK, TURNING, TensorHead, TurnHead, degrees_of

SPATIAL = "spatial_extent"
LENGTH, THIRD = "dipole_magnitude", "isotropic_polarizability"
MODES: dict[str, Mode] = {
    "charges": "charges",
    "spin_charges": "charges",
    "dipole": "dipole",
    "polarizability": "polar",
    SPATIAL: "spatial",
    LENGTH: "dipole",
    THIRD: "polar",
}
BETWEEN = {"dipole": "32x1o", "polar": "64x0e + 16x2e"}
DERIVED = {
    LENGTH: Quantity(LENGTH, "e*Å", "structure", (), "length of the dipole", "total"),
    THIRD: Quantity(THIRD, "Å^3", "structure", (), "a third of the polarizability's trace", "total"),
}


class Atoms(NamedTuple):
    """What heads are given."""

    graph: Graph
    s: Tensor  # (N, C)
    parts: list[Tensor]  # (N, 2l+1, C) of each degree
    masses: Tensor  # (N,)

    def about_centre(self) -> tuple[Tensor, Tensor, Tensor]:
        """Positions from the centre of mass (N, 3), the centre (S, 3), and 1 for molecules, 0 for crystals (S, 1)."""
        n, x = self.graph.n_structures, self.graph.positions.to(self.s.dtype)
        weighed = torch.cat([x * self.masses.unsqueeze(1), self.masses.unsqueeze(1)], 1)
        sums = sum_by(weighed, self.graph.structure, n)
        centre = sums[:, :3] / sums[:, 3:]
        alone = (~self.graph.pbc.any(1)).to(self.s.dtype).unsqueeze(1)
        return x - centre.index_select(0, self.graph.structure), centre, alone

    def summed(self, values: Tensor) -> Tensor:
        """Sums over structures, (S, ...)."""
        return sum_by(values, self.graph.structure, self.graph.n_structures)


class ScalarHead(nn.Module):
    """Numbers of each atom, or summed over a structure."""

    def __init__(self, settings: XpainnSettings, quantity: Quantity) -> None:
        super().__init__()
        self.quantity = quantity
        width = [settings.node_dim, settings.hidden_dim, quantity.width]
        self.network = Network(width, settings.activation)

    def forward(self, atoms: Atoms) -> Tensor:
        """(N, *shape) or (S, *shape)."""
        values = self.network(atoms.s)
        values = values if self.quantity.per == "atom" else atoms.summed(values)
        return values.reshape(-1, *self.quantity.shape)


class ChargeHead(nn.Module):
    """Charges, or unpaired electrons, that sum to what the structure states if `conservation` is set."""

    def __init__(self, settings: XpainnSettings, spin: bool) -> None:
        super().__init__()
        self.conservation, self.spin = settings.conservation, spin
        self.network = Network([settings.node_dim, settings.hidden_dim, 1], settings.activation)

    def forward(self, atoms: Atoms) -> Tensor:
        """(N,), e."""
        raw, graph = self.network(atoms.s), atoms.graph
        if not self.conservation:
            return raw.squeeze(1)
        stated = (graph.multiplicity - 1.0 if self.spin else graph.charge).to(raw.dtype).unsqueeze(1)
        sums = atoms.summed(torch.cat([raw, torch.ones_like(raw)], 1))
        share = (stated - sums[:, :1]) / sums[:, 1:]
        return (raw + share.index_select(0, graph.structure)).squeeze(1)


class SpatialHead(nn.Module):
    """Sum of learned numbers times squared distances from the centre of mass; 0 for periodic structures."""

    def __init__(self, settings: XpainnSettings) -> None:
        super().__init__()
        self.network = Network([settings.node_dim, settings.hidden_dim, 1], settings.activation)

    def forward(self, atoms: Atoms) -> Tensor:
        """(S,)."""
        away, _, alone = atoms.about_centre()
        values = self.network(atoms.s) * away.square().sum(1, keepdim=True)
        return (atoms.summed(values) * alone).squeeze(1)


class CartesianHead(nn.Module):
    """A vector or tensor of each atom or of the structure; dipoles of ions turn about the origin.

    Args:
        settings: the shape of the model.
        quantity: what is predicted.
        between: channels between the mixtures.
    """

    def __init__(self, settings: XpainnSettings, quantity: Quantity, between: Irreps) -> None:
        super().__init__()
        self.per_atom, self.is_dipole = quantity.per == "atom", quantity.name == "dipole"
        width, hidden, rank = settings.node_dim, settings.hidden_dim, len(quantity.shape)
        more = (settings.activation, settings.softness)
        self.tensors = TensorHead(width, settings.irreps, rank, hidden, between.only(degrees_of(rank)), *more)
        turning = between.only(TURNING)
        self.turns = None if quantity.symmetric else TurnHead(width, settings.irreps, hidden, turning, *more)

    def forward(self, atoms: Atoms) -> Tensor:
        """(N, 3, ...) or (S, 3, ...)."""
        values = self.tensors(atoms.s, atoms.parts)
        if self.turns is not None:
            values = values + self.turns(atoms.s, atoms.parts)
        if self.per_atom:
            return values
        total = atoms.summed(values)
        if self.is_dipole:  # the moment of a total charge, which moves with the molecule
            _, centre, alone = atoms.about_centre()
            total = total + centre * alone * atoms.graph.charge.to(total.dtype).unsqueeze(1)
        return total


class Heads(nn.Module):
    """All outputs beside the energy.

    Args:
        settings: the shape of the model.
        context: targets.

    Raises:
        ModelError: a target cannot be predicted, or `output_modes` names others than the targets.
    """

    masses: Tensor

    def __init__(self, settings: XpainnSettings, context: ArchitectureContext) -> None:
        super().__init__()
        self.quantities = {q.name: q for q in context.targets}
        modes = {name: mode_of(q) for name, q in self.quantities.items()}
        wanted = check_modes(settings, modes, context)
        if "charges" in wanted and "charges" not in self.quantities:  # for physics terms that use them
            self.quantities["charges"] = QUANTITIES["charges"]
        self._derive(settings)
        _refuse_idle(settings, self.quantities)
        self.made = nn.ModuleDict(
            {name: _make(settings, q) for name, q in self.quantities.items() if name not in self.derived}
        )
        n = context.n_kinds // len(context.elements)
        of_kinds = [masses[z] for z in context.elements for _ in range(n)]
        self.register_buffer("masses", torch.tensor(of_kinds, dtype=torch.float64), persistent=False)

    def _derive(self, settings: XpainnSettings) -> None:
        """Find out what follows from another prediction: name -> that one."""
        self.derived: dict[str, str] = {}
        for asked, key, name, whole in (
            (settings.magnitude, "magnitude", LENGTH, "dipole"),
            (settings.isotropic, "isotropic", THIRD, "polarizability"),
        ):
            if asked and whole not in self.quantities:
                what = f"{key} needs the {whole}, which is not predicted"
                raise ModelError(what, f"model.{key}", f"add train.targets.{whole}, or take {key} out")
            if name in self.quantities and whole in self.quantities:
                what = f"{name} follows from the {whole}, which is a target too"
                raise ModelError(what, f"train.targets.{name}", f"take it out; model.{key}: true predicts it")
            if asked:
                self.quantities[name], self.derived[name] = DERIVED[name], whole

    @property
    def needs_features(self) -> bool:
        """Whether a head reads the equivariant features."""
        return any(isinstance(head, CartesianHead | LengthHead) for head in self.made.values())

    @property
    def stated(self) -> list[str]:
        """What structures must state of their electrons."""
        conserved = {name for name, head in self.made.items() if isinstance(head, ChargeHead) and head.conservation}
        return ["charge"] * ("charges" in conserved) + ["multiplicity"] * ("spin_charges" in conserved)

    def forward(self, graph: Graph, s: Tensor, parts: list[Tensor], species: Tensor) -> dict[str, Tensor]:
        """Predictions by name from scalars (N, C) and features (N, 2l+1, C) of each degree."""
        if not self.quantities:
            return {}
        atoms = Atoms(graph, s, parts, self.masses.index_select(0, species))
        found = {name: head(atoms) for name, head in self.made.items()}
        for name, whole in self.derived.items():
            value = found[whole]
            found[name] = third(value) if name == THIRD else torch.linalg.vector_norm(value, dim=1)
        return found


class LengthHead(nn.Module):
    """The length of a vector, or a third of the trace of a tensor, where only that is a target."""

    def __init__(self, settings: XpainnSettings, name: str) -> None:
        super().__init__()
        whole = QUANTITIES["dipole" if name == LENGTH else "polarizability"]
        self.softness, self.head = settings.softness, _make(settings, whole)

    def forward(self, atoms: Atoms) -> Tensor:
        """(S,)."""
        value = self.head(atoms)
        if value.dim() == 3:
            return third(value)
        return torch.sqrt(value.square().sum(1) + self.softness**2) - self.softness


def third(tensor: Tensor) -> Tensor:
    """A third of the trace of (S, 3, 3)."""
    return tensor.diagonal(dim1=1, dim2=2).sum(1) / 3.0


def mode_of(quantity: Quantity) -> Mode:
    """Return the mode that predicts a target."""
    if quantity.name in MODES:
        return MODES[quantity.name]
    return "scalar" if quantity.rotates == "not" else "cartesian"


def check_modes(settings: XpainnSettings, modes: Mapping[str, Mode], context: ArchitectureContext) -> set[str]:
    """Return the modes, compared with what the targets ask for.

    Raises:
        ModelError: they differ.
    """
    asked = set(modes.values()) | ({"energy"} if context.energy else set())
    if settings.output_modes is None:
        return asked
    given = set(settings.output_modes)
    for mode in sorted(asked - given):
        names = ", ".join(name for name, m in modes.items() if m == mode) or "energies"
        what = f"output_modes does not name {mode}, by which {names} would be predicted"
        raise ModelError(what, "model.output_modes", "add it, or leave output_modes out")
    for mode in sorted(given - asked - {"charges"}):
        what = f"nothing trains the output mode {mode}"
        raise ModelError(what, "model.output_modes", "add its target under train.targets, or take the mode out")
    return given


def _refuse_idle(settings: XpainnSettings, quantities: Mapping[str, Quantity]) -> None:
    """Refuse settings of outputs that are not predicted.

    Raises:
        ModelError: there is one.
    """
    modes = [mode_of(q) for q in quantities.values()]
    if not settings.conservation and "charges" not in modes:
        what = "conservation has an effect on charges, which are not predicted"
        raise ModelError(what, "model.conservation", "add train.targets.charges, or take conservation out")
    if settings.hidden_irreps is not None and not {"dipole", "polar", "cartesian"}.intersection(modes):
        what = "hidden_irreps has an effect on vectors and tensors, which are not predicted"
        raise ModelError(what, "model.hidden_irreps", "add such a target, or take hidden_irreps out")


def _make(settings: XpainnSettings, quantity: Quantity) -> nn.Module:
    mode = mode_of(quantity)
    if quantity.name in (LENGTH, THIRD):
        return LengthHead(settings, quantity.name)
    if mode == "charges":
        return ChargeHead(settings, spin=quantity.name == "spin_charges")
    if mode == "spatial":
        return SpatialHead(settings)
    if mode == "scalar":
        return ScalarHead(settings, quantity)
    return CartesianHead(settings, quantity, _between(settings, quantity, mode))


def _between(settings: XpainnSettings, quantity: Quantity, mode: Mode) -> Irreps:
    """Channels between the mixtures of a tensor's head.

    Raises:
        ModelError: degrees that the tensor is made of are missing.
    """
    rank, where = len(quantity.shape), f"train.targets.{quantity.name}"
    if rank > HIGHEST_RANK or any(n != 3 for n in quantity.shape):
        what = f"{quantity.name} has shape {quantity.shape}"
        raise ModelError(what, where, f"tensors have 3 numbers along each of at most {HIGHEST_RANK} axes")
    if not quantity.symmetric and rank != 2:
        what = f"{quantity.name} is a tensor of rank {rank} that is not symmetric"
        raise ModelError(what, where, "of rank 2 it can be learned; of others the symmetric part alone")
    degrees = degrees_of(rank)
    wanted = degrees if quantity.symmetric else tuple(sorted({*degrees, *TURNING} & {*settings.irreps.degrees}))
    text = settings.hidden_irreps or BETWEEN.get(mode) or " + ".join(f"16x{l}{'eo'[l % 2]}" for l in wanted)
    between = parse_irreps(text).only(wanted)
    for key, irreps in (("node_irreps", settings.irreps), ("hidden_irreps", between)):
        missing = [f"{l}{'eo'[l % 2]}" for l in degrees if l not in irreps.degrees]
        if missing:
            what = f"{quantity.name} needs {' and '.join(missing)} among {key}"
            raise ModelError(what, f"model.{key}", "add channels of it")
    return between
