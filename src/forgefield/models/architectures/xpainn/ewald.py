"""Messages between all atoms of a crystal, by way of waves that have its period.

Source:
    Kosmala et al., Ewald-based long-range message passing (2023).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from forgefield.graph.graph import Graph
from forgefield.graph.segment import sum_by
from forgefield.models.architectures.xpainn.dense import ACTIVATIONS, Dense
from forgefield.models.architectures.xpainn.settings import XpainnSettings

FIRST_SHARE = 0.01  # of the filters' usual size, with which they begin


def half_box(sizes: Sequence[int]) -> Tensor:
    """Indices of reciprocal vectors, (K, 3): all of a box but 0, of each pair n and -n the one that comes last."""
    box = list(itertools.product(*[range(-n, n + 1) for n in sizes]))
    return torch.tensor(box[len(box) // 2 + 1 :], dtype=torch.float64)


def fractional(graph: Graph) -> tuple[Tensor, Tensor]:
    """Coordinates along the lattice vectors (N, 3), float64, and 1 for crystals, 0 for all that is not (N, 1)."""
    a, b, c = graph.cell.double().unbind(1)
    planes = torch.stack([torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b)], 1)
    volume = (a * planes[:, 0]).sum(1).reshape(-1, 1, 1)
    crystal = graph.pbc.all(1).reshape(-1, 1, 1) & (volume != 0)
    safe = torch.where(crystal, volume, torch.ones_like(volume))
    inverse = torch.where(crystal, planes / safe, torch.zeros_like(planes))
    of_atoms = inverse.index_select(0, graph.structure)
    along = (of_atoms * graph.positions.unsqueeze(1)).sum(2)
    return along, crystal.reshape(-1, 1).double().index_select(0, graph.structure)


class EwaldBlock(nn.Module):
    """s += sum over waves of their filter times (cos C + sin S), C and S the sums of norm(s + network(s)) cos, sin.

    Args:
        settings: the shape of the model.
        projection: width of what all blocks' filters are made of.
    """

    def __init__(self, settings: XpainnSettings, projection: int) -> None:
        super().__init__()
        width, self.activation = settings.node_dim, settings.activation
        self.before = nn.ModuleList(Dense(width, width, bias=False) for _ in range(2))
        self.norm = nn.LayerNorm(width) if settings.layer_norm else nn.Identity()
        self.filter = Dense(projection, width, bias=False)
        with torch.no_grad():
            self.filter.weight *= FIRST_SHARE
        self.after = nn.ModuleList(Dense(width, width, bias=False) for _ in range(2))

    def _network(self, x: Tensor, layers: nn.ModuleList) -> Tensor:
        for layer in layers:
            x = ACTIVATIONS[self.activation](layer(x))
        return x

    def forward(self, s: Tensor, waves: tuple[Tensor, Tensor], projected: Tensor, graph: Graph) -> Tensor:
        """Return the scalars (N, C) with messages added.

        Args:
            s: (N, C).
            waves: cos and sin of each atom, (N, K), 0 where there is no crystal.
            projected: of each wave, (K, projection).
            graph: the batch.
        """
        x = self.norm(s + self._network(s, self.before))
        filters, n = self.filter(projected), graph.n_structures
        for wave in waves:
            factor = sum_by(wave.unsqueeze(2) * x.unsqueeze(1), graph.structure, n) * filters
            s = s + (factor.index_select(0, graph.structure) * wave.unsqueeze(2)).sum(1)
        return s + self._network(s, self.after)


class Ewald(nn.Module):
    """All Ewald blocks, and what they share.

    Args:
        settings: the shape of the model, with `ewald`.
    """

    indices: Tensor

    def __init__(self, settings: XpainnSettings) -> None:
        super().__init__()
        assert settings.ewald is not None
        about = settings.ewald
        self.register_buffer("indices", half_box(about.num_k_points), persistent=False)
        bound = math.sqrt(6.0 / (self.indices.shape[0] + about.projection_dim))
        self.projected = nn.Parameter(torch.empty(self.indices.shape[0], about.projection_dim).uniform_(-bound, bound))
        self.blocks = nn.ModuleList(EwaldBlock(settings, about.projection_dim) for _ in range(about.ewald_blocks))

    def forward(self, s: Tensor, graph: Graph) -> Tensor:
        """Return the scalars (N, C) with messages added."""
        along, crystal = fractional(graph)
        phase = 2.0 * math.pi * (along @ self.indices.double().T)
        waves = ((torch.cos(phase) * crystal).to(s.dtype), (torch.sin(phase) * crystal).to(s.dtype))
        for block in self.blocks:
            s = block(s, waves, self.projected, graph)
        return s
