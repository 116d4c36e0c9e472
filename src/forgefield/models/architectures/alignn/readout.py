"""What is read from the features of atoms, or from their mean and the structure's own features."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from forgefield.core.errors import ModelError
from forgefield.core.quantities import Quantity
from forgefield.graph.graph import Graph
from forgefield.graph.segment import sum_by
from forgefield.models.architecture import ArchitectureContext
from forgefield.models.architectures.alignn.layers import Layer
from forgefield.models.architectures.alignn.settings import AlignnSettings

START = math.log(0.7)  # of the readouts' constants before an exponential


class Heads(nn.Module):
    """One linear map for each level of theory.

    Args:
        inputs: width of the features.
        outputs: numbers read from them.
        n_heads: maps.
    """

    def __init__(self, inputs: int, outputs: int, n_heads: int) -> None:
        super().__init__()
        bound = inputs**-0.5
        self.weight = nn.Parameter(torch.empty(n_heads * outputs, inputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(n_heads * outputs).uniform_(-bound, bound))
        self.shape = (n_heads, outputs)

    def forward(self, x: Tensor, head: Tensor) -> Tensor:
        """Map rows (R, in) of heads (R,) to (R, out)."""
        found = nn.functional.linear(x, self.weight, self.bias)
        if self.shape[0] == 1:
            return found
        rows = torch.arange(x.shape[0], device=x.device)
        return found.unflatten(1, self.shape)[rows, head]


class Mixing(nn.Module):
    """Joins the mean over the atoms with features of the structure.

    The published layer norm of the features alone leaves nothing of a single one, and the sign of a difference of two.

    Args:
        width: features of an atom.
        extra: features of a structure.
        published: as alignn does it; else without that norm, and `width` numbers are made of the features.
    """

    def __init__(self, width: int, extra: int, published: bool) -> None:
        super().__init__()
        self.embed = Layer(extra, extra) if published else nn.Sequential(nn.Linear(extra, width), nn.SiLU())
        self.width = width + (extra if published else width)
        self.first, self.second = Layer(self.width, self.width), Layer(self.width, self.width)

    def forward(self, pooled: Tensor, extra: Tensor) -> Tensor:
        """Map rows (S, C) and (S, F) to (S, `self.width`)."""
        return self.second(self.first(torch.cat([pooled, self.embed(extra)], 1)))


class Readout(nn.Module):
    """Energies of atoms, and targets.

    Args:
        settings: of the model.
        context: heads, targets, features.

    Raises:
        ModelError: a target turns with the structure, or a length that was given is not the right one.
    """

    def __init__(self, settings: AlignnSettings, context: ArchitectureContext) -> None:
        super().__init__()
        _check(settings, context)
        self.settings, self.context = settings, context
        width, extra = settings.hidden_features, sum(length for _, length in context.features)
        self.mixing = Mixing(width, extra, settings.compat == "alignn") if extra else None
        pooled = self.mixing.width if self.mixing else width
        heads = lambda inputs, outputs: Heads(inputs, outputs, context.n_readouts)  # noqa: E731
        self.energy = heads(pooled, 1) if context.energy else None
        self.targets = nn.ModuleList(heads(width if q.per == "atom" else pooled, q.width) for q in context.targets)
        if settings.link == "log":
            linked = [self.energy, *(t for t, q in zip(self.targets, context.targets, strict=True) if self.links(q))]
            for one in linked:
                if one is not None:
                    nn.init.constant_(one.bias, START)

    def links(self, quantity: Quantity) -> bool:
        """Whether the link function follows the readout of a target."""
        return quantity.per == "structure" and quantity.kind == "number"

    def forward(self, graph: Graph, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Read energies (N,) and targets, by name, (S, ...) or (N, ...), from the features of the atoms (N, C)."""
        settings, targets = self.settings, self.context.targets
        sizes = sum_by(x.new_ones(x.shape[0]), graph.structure, graph.n_structures)
        of_atoms = graph.head.index_select(0, graph.structure)
        pooled = sum_by(x, graph.structure, graph.n_structures) / sizes.unsqueeze(1)
        if self.mixing is not None:
            pooled = self.mixing(pooled, graph.features)
        energies = x.new_zeros(x.shape[0])
        if self.energy is not None and (self.mixing is not None or settings.link != "identity"):
            energies = self._link(self.energy(pooled, graph.head)).squeeze(1).index_select(0, graph.structure)
        elif self.energy is not None:
            energies = self.energy(x, of_atoms).squeeze(1)
        if not settings.energy_mult_natoms:
            energies = energies / sizes.index_select(0, graph.structure)
        found = {}
        for quantity, target in zip(targets, self.targets, strict=True):
            raw = target(x, of_atoms) if quantity.per == "atom" else target(pooled, graph.head)
            raw = self._link(raw) if self.links(quantity) else raw
            found[quantity.name] = raw.squeeze(1) if quantity.shape == () else raw
        return energies, found

    def _link(self, x: Tensor) -> Tensor:
        maps: Mapping[str, object] = {"identity": None, "log": torch.exp, "logit": torch.sigmoid}
        function = maps[self.settings.link]
        return x if function is None else function(x)  # type: ignore[operator]


def check_length(key: str, given: int | None, wanted: int) -> None:
    """Look whether a length that was given is the right one.

    Raises:
        ModelError: it is not.
    """
    if given is not None and given != wanted:
        raise ModelError(f"{given} given, but there are {wanted}", f"model.{key}", f"set {wanted}, or leave it out")


def _check(settings: AlignnSettings, context: ArchitectureContext) -> None:
    turning = [q.name for q in context.targets if q.rotates != "not"]
    if turning:
        what = f"alignn cannot predict {turning[0]}: it turns with the structure"
        raise ModelError(what, f"train.targets.{turning[0]}", "take it out, or take xpainn")
    widths = [q.width for q in context.targets if q.per == "structure"]
    if context.energy:
        widths.insert(0, 1)
    atoms = [q.width for q in context.targets if q.per == "atom"]
    check_length("output_features", settings.output_features, widths[0] if widths else 0)
    check_length("additional_output_features", settings.additional_output_features, sum(widths[1:]))
    check_length("atomwise_output_features", settings.atomwise_output_features, sum(atoms))
    check_length("extra_features", settings.extra_features, sum(length for _, length in context.features))
    if settings.link != "identity" and not widths:
        raise ModelError("there is no number of structures that it could follow", "model.link", "set identity")
