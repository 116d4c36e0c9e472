"""What the potential asks of an architecture and of a physics term."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator
from torch import Tensor, nn

from forgefield.core.quantities import Quantity
from forgefield.core.settings import Settings
from forgefield.graph.graph import Graph
from forgefield.graph.needs import Needs

NOTHING: Mapping[str, Tensor] = {}
"""No predictions beside the energy; a plain dict, which tracers know."""
Axis = Literal["elements", "heads", "kinds"] | None
"""What one axis of a parameter runs over: elements, heads, pairs of them (the element is the slower), or neither."""


class AtomTerm(NamedTuple):
    """Atom energies and the gradient of their sum, and what else an architecture predicts.

    `vector_gradients` is dE/dd for each pair vector d = x[second] + shift - x[first]; the potential turns it into
    forces and stress. Both are plain tensor operations: training needs one ordinary backward.
    """

    energies: Tensor  # (N,), eV
    vector_gradients: Tensor  # (P, 3), eV/Å
    extra: Mapping[str, Tensor] = NOTHING  # (N, ...) in the graph's order, or (S, ...)
    charge_gradients: Tensor | None = None  # (P, 3), eV/Å: by way of the charges, of what `respond` stands for
    positions: Tensor | None = None  # (N, 3), eV/Å, by the positions at fixed pair vectors, see `Share`
    strain: Tensor | None = None  # (S, 3, 3), eV, by a strain of positions and cell at fixed pair vectors


Respond = Callable[[Tensor], Tensor]
"""Charges (N,), e -> derivative of the energy of all physics terms that use charges by each charge, (N,), eV/e."""


class Geometry(NamedTuple):
    """What physics terms see of a batch."""

    graph: Graph
    vectors: Tensor  # (P, 3), Å, of the pairs
    far: Tensor  # (F, 3), Å, of the far pairs


class Share(NamedTuple):
    """What a physics term adds: energies and their gradients as plain tensor operations; None is zero.

    `positions` and `strain` are for sums that do not go by pairs (over reciprocal vectors): gradients by the positions
    at fixed strain, and by a strain of positions and cell at fixed fractional coordinates.
    """

    energies: Tensor  # (N,), eV
    vectors: Tensor | None = None  # (P, 3), eV/Å
    far: Tensor | None = None  # (F, 3), eV/Å
    positions: Tensor | None = None  # (N, 3), eV/Å
    strain: Tensor | None = None  # (S, 3, 3), eV
    charges: Tensor | None = None  # (N,), eV/e


class Fidelity(Settings):
    """How the levels of theory (heads) of one model differ, beside their self-atomic energies, shifts and scales."""

    readouts: bool = Field(
        default=True,
        description="A readout of its own for each level; false: one for all (use_fidelity_readouts in AIMNet2mult).",
    )
    embedding: Literal["none", "added", "elements"] = Field(
        default="none",
        description="What the network knows of the level. none: nothing; added: a learned vector per level is added to "
        "the embedding of every atom; elements: each level has elements of its own (fidelity_offset in AIMNet2mult).",
    )
    base: str | None = Field(
        default=None,
        min_length=1,
        description="A level, mostly the cheap one with many labels: every other level is this one plus a correction "
        "by a second network of the same shape. null: one network for all levels.",
    )
    correction_scale: float = Field(
        default=1.0,
        gt=0.0,
        description="Unit of the correction's energies, in units of the base's. finetune.correction measures it.",
    )

    @model_serializer(mode="wrap")
    def _as_before(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out a base that is not there: manifests and checkpoints stay what they were without that key."""
        later = {"base": None, "correction_scale": 1.0}
        return {name: value for name, value in plain(self).items() if name not in later or value != later[name]}

    @model_validator(mode="after")
    def _told_once(self) -> Fidelity:
        """With a base, levels are told apart by the correction."""
        if self.base is not None and self.embedding == "elements":
            raise ValueError("embedding: elements makes one network for all levels; with base take none or added")
        if self.base is None and self.correction_scale != 1.0:
            raise ValueError("correction_scale has no effect without base, the level that is corrected")
        return self


@dataclass(frozen=True)
class ArchitectureContext:
    """What a model is built for, as plain numbers.

    Args:
        elements: atomic numbers, ascending.
        heads: names.
        avg_num_neighbors: mean number of neighbours within the cutoff on the training set.
        first_elements: elements the model was made for; sums over elements are normalised by it for good, so that
            elements added later change nothing for the others. 0: as many as there are.
        first_heads: heads it was made for, alike.
        fidelity: how the architecture knows the heads of its atoms.
        targets: what it shall predict beside energy, forces and stress.
        energy: it shall predict an energy; False: only targets, and the energies it returns are not used.
        features: further inputs of the structures, in the order of `Graph.features`, and how many numbers each has.
    """

    elements: tuple[int, ...]
    heads: tuple[str, ...]
    avg_num_neighbors: float
    first_elements: int = 0
    first_heads: int = 0
    fidelity: Fidelity = field(default_factory=Fidelity)
    targets: tuple[Quantity, ...] = ()
    energy: bool = True
    features: tuple[tuple[str, int], ...] = ()

    @property
    def n_kinds(self) -> int:
        """Length of tables by element: one row per element, or per element and head (the element is the slower)."""
        return len(self.elements) * (len(self.heads) if self.fidelity.embedding == "elements" else 1)

    @property
    def kind_axis(self) -> Axis:
        """What tables by element run over."""
        return "kinds" if self.fidelity.embedding == "elements" else "elements"

    @property
    def readout_axis(self) -> Axis:
        """What readouts run over."""
        return "heads" if self.fidelity.readouts else None

    @property
    def n_readouts(self) -> int:
        """Number of readouts: one per head, or one for all."""
        return len(self.heads) if self.fidelity.readouts else 1

    @property
    def n_embedded(self) -> int:
        """Rows of a table of vectors that are added to the embedding of an atom by its head; 0: there is none."""
        return len(self.heads) if self.fidelity.embedding == "added" else 0

    @property
    def n_features(self) -> int:
        """Columns of `Graph.features`."""
        return sum(length for _, length in self.features)

    @property
    def element_norm(self) -> int:
        """Number of elements by which sums over elements are normalised."""
        return self.first_elements or len(self.elements)

    @property
    def head_norm(self) -> int:
        """Number of heads that the model was made for."""
        return self.first_heads or len(self.heads)

    @property
    def readout_norm(self) -> int:
        """Number of readouts by which sums over readouts are normalised."""
        return self.head_norm if self.fidelity.readouts else 1


class Architecture(nn.Module):
    """Base of all architectures: `needs` and `forward(graph, vectors, species, counts, respond) -> AtomTerm`.

    `has_kernels` says that its hot sums are the operators of `forgefield.kernels`, where the machine has them.
    `species` is the kind of each atom, 0 to `context.n_kinds` - 1. `respond` is given to those that predict charges,
    where physics terms use these: it says how their energy changes by each charge, and what follows from that for the
    pair vectors is returned as `charge_gradients`.
    """

    needs: Needs
    context: ArchitectureContext
    has_kernels: ClassVar[bool] = False
    uses_features: ClassVar[bool] = False  # it reads `Graph.features`
    describes_elements: ClassVar[bool] = False  # by tables: it has an idea of elements that no structure trained

    def readout_of(self, graph: Graph) -> Tensor:
        """Index of the readout of each atom, (N,)."""
        head = graph.head.index_select(0, graph.structure)
        return head if self.context.n_readouts > 1 else torch.zeros_like(head)

    def head_parameters(self) -> list[str]:
        """Names of the parameters that `freeze: head_only` leaves trainable."""
        raise NotImplementedError

    def indexed(self) -> Mapping[str, tuple[Axis, ...]]:
        """What the axes of its parameters run over, for those that know elements or heads; the others are not named.

        An axis may be several times as long as there are elements or heads; the element or head is then its slower
        index. Axes that are not told (fewer names than axes) run over neither.
        """
        return {}

    def extra_quantities(self) -> Mapping[str, Quantity]:
        """What it predicts beside energies, by name: quantities of `core/quantities.py` or of `context.targets`.

        A number of the user's own that does not rotate is expected to be of order 1: the potential scales and shifts it
        to the labels' mean and spread. A class is expected as its logit.
        """
        return {}

    def physics(self) -> Mapping[str, Mapping[str, object]]:
        """Physics terms its settings ask for, by name, with the terms' own settings."""
        return {}


@dataclass(frozen=True)
class PhysicsContext:
    """What a physics term is built for.

    Args:
        elements: atomic numbers, ascending.
        heads: names.
        scale: factor of each head; 0 leaves the term out of it.
    """

    elements: tuple[int, ...]
    heads: tuple[str, ...]
    scale: tuple[float, ...]


class PhysicsTerm(nn.Module):
    """Base of the physics terms: `forward(geometry, charges) -> Share`, times `scale` of each head, (H,).

    `far_cutoff` asks for far pairs, Å; `near_cutoff` for an architecture whose pairs reach so far, Å; `uses_charges`
    for the architecture's charges, `given_charges` for those that come with the structures. A term that is not tensor
    operations alone is not `exportable`. `periodic` says that it is for crystals, periodic in three directions (True),
    or for molecules (False) only.
    """

    scale: Tensor
    far_cutoff: float = 0.0
    near_cutoff: float = 0.0
    uses_charges: bool = False
    given_charges: bool = False
    exportable: bool = True
    periodic: bool | None = None
