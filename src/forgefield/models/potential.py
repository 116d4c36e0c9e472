"""The potential: architecture plus physics terms plus self-atomic energies, with forces and stress."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from forgefield.core.catalog import Catalog
from forgefield.core.elements import symbol
from forgefield.core.errors import ModelError
from forgefield.core.settings import Settings
from forgefield.graph.graph import Graph
from forgefield.graph.needs import Needs
from forgefield.graph.segment import sum_by
from forgefield.kernels.choice import compiled
from forgefield.models.architecture import (
    NOTHING,
    Architecture,
    ArchitectureContext,
    Fidelity,
    Geometry,
    PhysicsContext,
    PhysicsTerm,
)
from forgefield.models.baseline.settings import BaselineSettings
from forgefield.models.corrected import Corrected
from forgefield.models.dispersion import Dispersion
from forgefield.models.gradients import Electrostatics, Gradients
from forgefield.models.targets import Aims, Spread, Targets, check_aims

ARCHITECTURES = Catalog("forgefield.models.architectures")
PHYSICS = Catalog("forgefield.models.physics")


class Outputs(NamedTuple):
    """Predictions in the original order of the atoms."""

    energy: Tensor  # (S,), eV, float64
    forces: Tensor  # (N, 3), eV/Å
    stress: Tensor  # (S, 3, 3), eV/Å^3, positive = tensile; zero where the cell has no volume
    atom_energies: Tensor  # (N,), eV, float64, self-atomic energies included
    extra: Mapping[str, Tensor] = NOTHING  # what the architecture predicts besides, (N, ...) or (S, ...)


class Potential(nn.Module):
    """E = sum over atoms of E0(element) + shift + scale x architecture + physics terms.

    Forces and stress come out as plain tensor operations from the terms' written gradients, so a training step is
    one ordinary backward and inference needs no autograd.

    Args:
        backend: name of the architecture.
        settings: its settings.
        architecture: the module.
        context: elements, heads, mean number of neighbours.
        reference_energies: E0 by head and atomic number, eV.
        scale: of the architecture's energies, per head.
        shift: added to every atom's energy, per head, eV.
        physics: terms to add.
        added: settings of those that the architecture did not ask for by itself.
        dispersion: whether the labels of each head include it, where that is stated.
        spreads: mean and spread of the labels of targets of the user's own, which are predicted in their units.
    """

    baseline: BaselineSettings | None = None  # the level of theory to which the model gives the correction
    left_out: tuple[str, ...] = ()  # physics terms that are not computed here, see `without`

    def __init__(
        self,
        backend: str,
        settings: Settings,
        architecture: Architecture,
        context: ArchitectureContext,
        reference_energies: Mapping[str, Mapping[int, float]],
        scale: Sequence[float],
        shift: Sequence[float],
        physics: Mapping[str, PhysicsTerm],
        added: Mapping[str, Settings] | None = None,
        dispersion: Mapping[str, Dispersion] | None = None,
        spreads: Mapping[str, Spread] | None = None,
    ) -> None:
        super().__init__()
        self.backend, self.settings, self.context = backend, settings, context
        self.added_physics, self.dispersion = dict(added or {}), dict(dispersion or {})
        self.architecture = architecture
        self.physics = nn.ModuleDict(dict(physics))
        self.own_far_cutoff = architecture.needs.far_cutoff
        reach = max((term.far_cutoff for term in physics.values()), default=0.0)
        by_head = context.fidelity.embedding == "elements" and len(context.heads) > 1
        given = any(term.given_charges for term in physics.values())
        more = {"by_head": by_head, "features": context.features, "atom_charges": given}
        architecture.needs = dataclasses.replace(architecture.needs.reaching(reach), **more)
        self.targets = Targets(architecture.extra_quantities(), spreads or {})
        rows = [[_reference(reference_energies, h, z) for z in context.elements] for h in context.heads]
        self.register_buffer("self_energies", torch.tensor(rows, dtype=torch.float64))
        self.register_buffer("scale", torch.tensor(list(scale), dtype=torch.float64))
        self.register_buffer("shift", torch.tensor(list(shift), dtype=torch.float64))
        self.register_buffer("numbers", torch.tensor(context.elements), persistent=False)
        self.register_buffer("no_atoms", torch.zeros(context.n_kinds, dtype=torch.long), persistent=False)

    @property
    def kinds_per_element(self) -> int:
        """Kinds of atoms there are of each element: one, or one for each head."""
        return self.context.n_kinds // len(self.context.elements)

    @property
    def elements(self) -> list[int]:
        """Atomic numbers the model knows, ascending."""
        return list(self.context.elements)

    @property
    def heads(self) -> list[str]:
        """Names of the heads."""
        return list(self.context.heads)

    @property
    def aims(self) -> Aims:
        """What it predicts beside forces and stress, and from which further inputs."""
        known = self.context
        return Aims(known.targets, known.energy, known.features, self.targets.spreads)

    @property
    def needs(self) -> Needs:
        """The graph the model is fed."""
        return self.architecture.needs

    @property
    def jumps(self) -> str:
        """In words, that energies are no smooth function of positions; empty where they are, or are not predicted."""
        if self.needs.smooth or not self.context.energy:
            return ""
        return "energies jump where a neighbour enters or leaves: relaxations and molecular dynamics lose energy there"

    @property
    def unexportable(self) -> list[str]:
        """Names of the physics terms that no exported file can hold."""
        return [name for name, term in self.physics.items() if not term.exportable]

    def takes(self, pbc: Sequence[bool]) -> bool:
        """Whether all physics terms are meant for structures that are periodic along these directions, (3,)."""
        asked = {term.periodic for term in self.physics.values()}
        return (True not in asked or all(pbc)) and (False not in asked or not any(pbc))

    @property
    def cutoff(self) -> float:
        """Cutoff radius, Å."""
        return self.needs.cutoff

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        return next(self.parameters()).dtype

    def in_kernels(self) -> bool:
        """Whether the architecture's hot sums run in compiled operators on this machine, as things are chosen now."""
        return self.architecture.has_kernels and compiled(next(self.parameters()))

    def _apply(self, fn, recurse: bool = True):  # noqa: ANN001, ANN202
        """Keep reference energies in float64 whatever the weights are cast to."""
        kept = {k: getattr(self, k) for k in ("self_energies", "scale", "shift")}
        super()._apply(fn, recurse)
        for name, value in kept.items():
            setattr(self, name, value.to(getattr(self, name).device))
        return self

    @contextmanager
    def without(self, names: Collection[str]) -> Generator[None]:
        """Leave physics terms, and the far pairs that they alone ask for, out of predictions inside a `with` block.

        For training: what follows from the structure alone is added by who has computed it before.
        """
        before, needs = self.left_out, self.needs
        rest = [term.far_cutoff for name, term in self.physics.items() if name not in names]
        self.left_out = tuple(names)
        self.architecture.needs = dataclasses.replace(needs, far_cutoff=max(self.own_far_cutoff, *rest, 0.0))
        try:
            yield
        finally:
            self.left_out, self.architecture.needs = before, needs

    def hold_weights(self) -> Potential:
        """Freeze the weights for good and keep what follows from them alone; for calculators. Returns itself."""
        self.requires_grad_(False)
        for module in self.modules():
            if hasattr(module, "hold"):
                module.hold()
        return self

    def forward(self, graph: Graph) -> Outputs:
        """Predict energy, forces and stress of a batch."""
        return self.predict(graph, *self.count_elements(graph))

    def count_elements(self, graph: Graph) -> tuple[Tensor, Tensor]:
        """Kind of each atom, (N,), and atoms of each kind, (Z,), on the CPU: all that looks at values.

        Raises:
            ModelError: the model does not know an element.
        """
        species = self._species(graph)
        return species, self.no_atoms.index_add(0, species, torch.ones_like(species)).cpu()

    def predict(self, graph: Graph, species: Tensor, counts: Tensor) -> Outputs:
        """Predict from what `count_elements` gave: tensor operations alone, fit to be compiled as a whole."""
        geometry = Geometry(graph, graph.pair_vectors(), self._far_vectors(graph))
        if not self.context.energy:
            return self._properties(graph, geometry.vectors, species, counts)
        head = graph.head.index_select(0, graph.structure)
        element = species if self.kinds_per_element == 1 else species // self.kinds_per_element
        physics = [t for name, t in self.physics.items() if name not in self.left_out]
        electrostatics = Electrostatics(geometry, [t for t in physics if t.uses_charges])
        asked = (electrostatics.respond,) if electrostatics.terms else ()
        term = self.architecture(graph, geometry.vectors, species, counts, *asked)
        scale = self.scale.index_select(0, head)
        energies = scale * term.energies.double() + self.shift.index_select(0, head)
        pair_scale = scale.index_select(0, graph.pair_first).to(geometry.vectors.dtype).unsqueeze(1)
        by_positions = None if term.positions is None else term.positions * scale.unsqueeze(1)
        by_strain = None if term.strain is None else term.strain * self.scale[graph.head].reshape(-1, 1, 1)
        by_vectors = term.vector_gradients * pair_scale
        gradients = Gradients(by_vectors, None, by_positions, by_strain).plus(term.charge_gradients)
        shares = [t(geometry, None) for t in physics if not t.uses_charges]
        for share in (*shares, *electrostatics.shares(term.extra)):
            energies, gradients = energies + share.energies.double(), gradients.add(share)
        energies = energies + self.self_energies[head, element]
        return Outputs(
            sum_by(energies, graph.structure, graph.n_structures),
            gradients.forces(graph).index_select(0, graph.inverse),
            gradients.stress(geometry),
            energies.index_select(0, graph.inverse),
            self._in_order(graph, term.extra),
        )

    def _properties(self, graph: Graph, vectors: Tensor, species: Tensor, counts: Tensor) -> Outputs:
        """Predictions of a model without energy: zeros in its place."""
        term = self.architecture(graph, vectors, species, counts)
        energies = vectors.new_zeros(graph.n_atoms, dtype=torch.float64)
        energy = energies.new_zeros(graph.n_structures)
        forces, stress = vectors.new_zeros(graph.n_atoms, 3), vectors.new_zeros(graph.n_structures, 3, 3)
        return Outputs(energy, forces, stress, energies, self._in_order(graph, term.extra))

    def _far_vectors(self, graph: Graph) -> Tensor:
        """Vectors of the far pairs, (F, 3), Å; without any work where no term asks for them."""
        return graph.far_vectors() if self.needs.far_cutoff else graph.far_shift

    def _in_order(self, graph: Graph, extra: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Turn raw predictions into values, those of atoms in their original order."""
        per = {name: quantity.per for name, quantity in self.targets.quantities.items()}
        values = self.targets(extra)
        return {n: v.index_select(0, graph.inverse) if per[n] == "atom" else v for n, v in values.items()}

    def _species(self, graph: Graph) -> Tensor:
        """Kind of each atom, (N,): its element, or element and head where the model keeps them apart."""
        species = torch.searchsorted(self.numbers, graph.numbers).clamp(max=len(self.numbers) - 1)
        if not (torch.jit.is_tracing() or torch.compiler.is_exporting()):
            unknown = self.numbers[species] != graph.numbers
            if bool(unknown.any()):
                missing = sorted({symbol(int(z)) for z in graph.numbers[unknown]})
                known = ", ".join(symbol(z) for z in self.elements)
                raise ModelError(f"the model does not know {', '.join(missing)}", fix=f"it was trained on: {known}")
        if self.kinds_per_element == 1:
            return species
        return species * self.kinds_per_element + graph.head.index_select(0, graph.structure)


def _reference(table: Mapping[str, Mapping[int, float]], head: str, number: int) -> float:
    if head not in table or number not in table[head]:
        raise ModelError(
            f"no reference energy for {symbol(number)} in head {head!r}", fix="give it under data.e0, in eV"
        )
    return float(table[head][number])


def build_potential(
    backend: str,
    settings: Settings,
    *,
    elements: Sequence[int],
    heads: Sequence[str] = ("default",),
    reference_energies: Mapping[str, Mapping[int, float]],
    avg_num_neighbors: float,
    scale: Sequence[float] | float = 1.0,
    shift: Sequence[float] | float = 0.0,
    physics: Mapping[str, Settings] | None = None,
    physics_scale: Mapping[str, Sequence[float]] | None = None,
    fidelity: Fidelity | None = None,
    dispersion: Mapping[str, Dispersion] | None = None,
    aims: Aims | None = None,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    first: tuple[int, int] = (0, 0),
) -> Potential:
    """Make a potential with random weights.

    Args:
        backend: name of the architecture.
        settings: its settings.
        elements: atomic numbers it shall know.
        heads: names of the heads.
        reference_energies: E0 by head and atomic number, eV.
        avg_num_neighbors: mean number of neighbours on the training set.
        scale: of the architecture's energies, one or one per head.
        shift: per atom, eV, one or one per head.
        physics: settings of physics terms to add, by name, beside those that the architecture asks for.
        physics_scale: factor per head of physics terms by name; default 1.
        fidelity: how the heads differ.
        dispersion: whether the labels of each head include it, where that is stated.
        aims: what it shall predict, and from which further inputs; None: energy, forces and stress.
        dtype: of the weights.
        seed: of the random weights; torch's global generator is left as it was.
        first: numbers of elements and heads that a widened model was first made for, see `ArchitectureContext`.

    Raises:
        ModelError: an element has no reference energy, a physics term cannot be added to this architecture, or it
            cannot predict a target.
    """
    numbers, names, aims = tuple(sorted(elements)), tuple(heads), aims or Aims()
    more = {"targets": aims.targets, "energy": aims.energy, "features": aims.features}
    context = ArchitectureContext(numbers, names, float(avg_num_neighbors), *first, fidelity or Fidelity(), **more)
    per_head = lambda v: [float(v)] * len(heads) if isinstance(v, int | float) else list(v)  # noqa: E731
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        build = partial(ARCHITECTURES.entry(backend).build, settings)
        architecture = Corrected(build, context) if context.fidelity.base else build(context)
    given = physics_scale or {}
    terms: dict[str, PhysicsTerm] = {}
    for name, term_settings in _physics_asked(architecture, physics or {}).items():
        factors = PhysicsContext(numbers, names, tuple(per_head(given.get(name, 1.0))))
        terms[name] = PHYSICS.entry(name).build(term_settings, factors)
        if terms[name].uses_charges and "charges" not in architecture.extra_quantities():
            what = f"the term {name} needs charges, which {backend} does not predict"
            raise ModelError(what, f"model.physics.{name}", "give charges by element, or take aimnet2")
        near = architecture.needs.cutoff
        if terms[name].near_cutoff > near:
            what = f"the term {name} reaches to {terms[name].near_cutoff:g} Å, the architecture to {near:g} Å"
            raise ModelError(what, f"model.physics.{name}", "end it earlier, or raise the architecture's cutoff")
    check_aims(backend, aims, architecture, terms)
    potential = Potential(
        backend,
        settings,
        architecture,
        context,
        reference_energies,
        per_head(scale),
        per_head(shift),
        terms,
        physics,
        dispersion,
        aims.spreads,
    )
    return potential.to(dtype)


def _physics_asked(architecture: Architecture, given: Mapping[str, Settings]) -> dict[str, Settings]:
    """Return the settings of all physics terms: the architecture's own, then those given."""
    own = {n: PHYSICS.entry(n).settings.model_validate(dict(v)) for n, v in architecture.physics().items()}
    both = sorted(set(own) & set(given))
    if both:
        what = f"the term {both[0]} is asked for by the architecture's own settings too"
        raise ModelError(what, f"model.physics.{both[0]}", "remove one of the two")
    return {**own, **given}
