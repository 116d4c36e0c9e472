"""Mean and spread of labels of the user's own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from forgefield.core.errors import DataError
from forgefield.core.plausible import check_symmetric
from forgefield.core.quantities import Quantity
from forgefield.data.dataset import Dataset

Moments = dict[str, dict[str, list[float]]]
"""Target -> `mean` and `std`, one number per component."""


def measure_targets(dataset: Dataset, targets: Sequence[Quantity]) -> Moments:
    """Pass over the structures and measure the labels of some targets, atoms or structures alike.

    Components that do not rotate have each their own mean and standard deviation; what rotates has mean 0 and, for all
    of its components, one root mean square. Where all labels are equal the spread is 1.

    Args:
        dataset: the training structures.
        targets: what is measured.

    Raises:
        DataError: a class has structures on one side of its threshold only, or a label is not symmetric where the
            target is: sources may say otherwise than the model.
    """
    if not targets:
        return {}
    sums = {q.name: np.zeros((3, q.width)) for q in targets}  # count, sum, sum of squares
    for structure in dataset:
        for q in targets:
            if q.name in structure.labels:
                check_symmetric(q.name, q, structure.labels[q.name], structure.origin)
                rows = structure.labels[q.name].reshape(-1, q.width)
                sums[q.name] += [np.full(q.width, len(rows)), rows.sum(0), np.square(rows).sum(0)]
    return {q.name: _moments(q, sums[q.name], dataset.name) for q in targets}


def _moments(quantity: Quantity, sums: np.ndarray, where: str) -> dict[str, list[float]]:
    count, total, squares = sums
    if not count[0]:
        return {"mean": [0.0] * quantity.width, "std": [1.0] * quantity.width}
    if quantity.rotates != "not":
        spread = float(np.sqrt(squares.sum() / count.sum()))
        return {"mean": [0.0] * quantity.width, "std": [spread or 1.0] * quantity.width}
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0.0))
    std = np.where(std > 1e-9 * np.maximum(np.abs(mean), 1e-300), std, 1.0)
    if quantity.kind == "class" and mean[0] in (0.0, 1.0):
        what = f"all training structures have {quantity.name} {'above' if mean[0] else 'below'} its threshold"
        raise DataError(what, where, f"choose another data.targets.{quantity.name}.threshold")
    return {"mean": mean.tolist(), "std": std.tolist()}
