"""L-BFGS on the whole training set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pydantic import Field

from forgefield.core.catalog import Entry
from forgefield.core.settings import Settings

PASSES_PER_ITERATION = 26  # at most, of which 25 are for the line search


class LbfgsSettings(Settings):
    """What L-BFGS takes from the `train` block."""

    lr: float = Field(description="step first tried by the line search, in units of the quasi-Newton step")
    lbfgs_history: int = Field(description="pairs of steps and gradient changes that are remembered")
    lbfgs_iterations: int = Field(description="iterations per update")


def build_lbfgs(groups: Sequence[dict[str, Any]], settings: LbfgsSettings) -> torch.optim.Optimizer:
    """Make L-BFGS with a strong Wolfe line search; all groups become one, which keeps the decay of each parameter.

    The decay is part of the function that is minimised, see `full_batch.take_full_update`.

    Source:
        Liu and Nocedal, Math. Program. 45, 503 (1989).
    """
    joined = {
        "name": "all",
        "params": [parameter for group in groups for parameter in group["params"]],
        "names": [name for group in groups for name in group["names"]],
        "decays": [group["weight_decay"] for group in groups for _ in group["params"]],
    }
    return torch.optim.LBFGS(
        [joined],
        lr=settings.lr,
        max_iter=settings.lbfgs_iterations,
        max_eval=settings.lbfgs_iterations * PASSES_PER_ITERATION,
        tolerance_grad=0.0,
        tolerance_change=0.0,
        history_size=settings.lbfgs_history,
        line_search_fn="strong_wolfe",
    )


ENTRY = Entry(LbfgsSettings, build_lbfgs, "quasi-Newton steps on the whole training set, with a line search")
