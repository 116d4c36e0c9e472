"""What ForgeField's workers do in a turn: a training step, an inference, a prediction to compare."""

from __future__ import annotations

from collections.abc import Callable

import torch
from protocol import CLIP

from forgefield.data.labels import Labels
from forgefield.graph.graph import Graph
from forgefield.models.potential import Outputs, Potential
from forgefield.train.loss import WeightedLoss

Turns = tuple[Callable[[], None], Callable[[], None], Callable[[], dict[str, object]]]


def turns(
    potential: Potential,
    forward: Callable[[Graph], Outputs],
    graph: Graph,
    labels: Labels,
    losses: WeightedLoss,
    optimizer: torch.optim.Optimizer,
) -> Turns:
    """Return train, infer and predict; `forward` is what is trained through, the potential or its compiled form."""

    def train() -> None:
        optimizer.zero_grad(set_to_none=True)
        losses(forward(graph), labels).total.backward()
        torch.nn.utils.clip_grad_norm_(potential.parameters(), CLIP)
        optimizer.step()

    def infer() -> None:
        with torch.no_grad():
            potential(graph)

    def predict() -> dict[str, object]:
        with torch.no_grad():
            return {"forces": potential(graph).forces.double().tolist()}

    return train, infer, predict
