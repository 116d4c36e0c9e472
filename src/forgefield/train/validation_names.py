"""Names of the validation metrics by which a fit may be judged."""

from __future__ import annotations

from collections.abc import Iterable

VALIDATION_NAMES = (
    "loss",
    "energy_mae", "energy_rmse", "energy_mae_per_atom", "energy_rmse_per_atom",
    "forces_mae", "forces_rmse", "forces_max",
    "stress_mae", "stress_rmse",
)  # fmt: skip
"""`loss` is the weighted sum of the losses; the others are those of `metrics.measure_errors`, in its units."""


def names_with(targets: Iterable[str]) -> tuple[str, ...]:
    """Return the names for a fit with these further targets, which have an error of either kind."""
    return (*VALIDATION_NAMES, *(f"{name}_{error}" for name in targets for error in ("mae", "rmse")))
