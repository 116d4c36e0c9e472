"""What the potential asks of an architecture and of a physics term."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

from torch import Tensor, nn

from forgefield.core.quantities import Quantity
from forgefield.graph.needs import Needs

NOTHING: Mapping[str, Tensor] = {}
"""No predictions beside the energy; a plain dict, which tracers know."""
Axis = Literal["elements", "heads"] | None
"""What one axis of a parameter runs over: elements, heads, or neither."""


class AtomTerm(NamedTuple):
    """Atom energies and the gradient of their sum, and what else an architecture predicts.

    `vector_gradients` is dE/dd for each pair vector d = x[second] + shift - x[first]; the potential turns it into
    forces and stress. Both are plain tensor operations: training needs one ordinary backward.
    """

    energies: Tensor  # (N,), eV
    vector_gradients: Tensor  # (P, 3), eV/Å
    extra: Mapping[str, Tensor] = NOTHING  # (N, ...) in the graph's order, or (S, ...)
    charge_gradients: Tensor | None = None  # (P, 3)


Respond = Callable[[Tensor], Tensor]


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
    """

    elements: tuple[int, ...]
    heads: tuple[str, ...]
    avg_num_neighbors: float
    first_elements: int = 0
    first_heads: int = 0
    by_head: bool = False
    head_embedding: bool = False

    @property
    def n_kinds(self) -> int:
        """Length of tables by element."""
        return len(self.elements) * (len(self.heads) if self.by_head else 1)

    @property
    def element_norm(self) -> int:
        """Number of elements by which sums over elements are normalised."""
        return self.first_elements or len(self.elements)

    @property
    def head_norm(self) -> int:
        """Number of heads by which sums over heads are normalised."""
        return self.first_heads or len(self.heads)


class Architecture(nn.Module):
    """Base of all architectures: `needs` and `forward(graph, vectors, species, counts) -> AtomTerm`.

    `has_kernels` says that its hot sums are the operators of `forgefield.kernels`, where the machine has them.
    """

    needs: Needs
    has_kernels: ClassVar[bool] = False

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
        """What it predicts beside energies, by name: quantities of `core/quantities.py` or targets of its own."""
        return {}

    def physics(self) -> Mapping[str, Mapping[str, object]]:
        """Physics terms its settings ask for, by name, with the terms' own settings."""
        return {}


class PhysicsTerm(nn.Module):
    """Base of the physics terms: `forward(graph, vectors) -> AtomTerm`, times `scale` of each head, (H,)."""

    scale: Tensor
