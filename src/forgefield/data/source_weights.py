"""The settings that say how often each source is drawn, carried out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from forgefield.core.errors import DataError
from forgefield.data.dataset import Dataset
from forgefield.data.drawing import WeightedDraws
from forgefield.data.sources import Source

SourceWeights = Literal["balanced"] | dict[str, float]


def weighted_draws(
    train: Dataset,
    sources: Sequence[Path | Source],
    weights: SourceWeights | None,
    n_drawn: int | None,
    *,
    replacement: bool,
    seed: int = 0,
) -> WeightedDraws | None:
    """Return how training structures are drawn; None where each is taken once in an epoch.

    Args:
        train: training structures, whose parts are the sources.
        sources: as the settings name them.
        weights: balanced (each source as often as any other), or a number for each source by name.
        n_drawn: draws of an epoch; None = as many as there are structures.
        replacement: whether draws are independent of each other.
        seed: of the draws.

    Raises:
        DataError: a name or weight is missing, unknown or given twice, or a source has no structure.
    """
    by_level = _members_by_level(train, weights)
    found = None if by_level else source_shares(sources, weights)
    if by_level:
        members, shares = by_level
    elif found is None:
        if n_drawn is None and not replacement:
            return None
        members: tuple[np.ndarray, ...] = (np.arange(len(train)),)
        shares: tuple[float, ...] = (1.0,)
    else:
        numbers = train.part_numbers()
        members = tuple(np.flatnonzero(numbers == k) for k in range(len(sources)))
        shares = found
        for source, places in zip(sources, members, strict=True):
            if not len(places):
                raise DataError("no training structure is left of this source, but it has a share of the draws",
                                str(source), "take it out of data.sampling and data.train")  # fmt: skip
    return WeightedDraws(members, shares, n_drawn or len(train), seed, replacement)


def _members_by_level(
    train: Dataset, weights: SourceWeights | None
) -> tuple[tuple[np.ndarray, ...], tuple[float, ...]] | None:
    """Return the structures and the share of each fidelity, if the weights name fidelities; else None.

    Raises:
        DataError: one of them has no weight.
    """
    levels = train.heads()
    if not isinstance(weights, dict) or not levels or not set(weights) <= set(levels):
        return None
    if missing := [name for name in levels if name not in weights]:
        what = f"gives no weight for the fidelity {missing[0]}, which the training data have"
        raise DataError(what, "data.sampling", f"give one: {missing[0]}: 1")
    survey = train.survey
    members = tuple(np.flatnonzero(survey.where(kind.head == name for kind in survey.kinds)) for name in weights)
    return members, tuple(weight / sum(weights.values()) for weight in weights.values())


def source_shares(sources: Sequence[Path | Source], weights: SourceWeights | None) -> tuple[float, ...] | None:
    """Return the share of each source in the draws; None where nothing is asked for.

    Raises:
        DataError: a name or weight is missing, unknown or given twice.
    """
    own = [source.sampling_weight if isinstance(source, Source) else None for source in sources]
    if weights is None:
        if all(weight is None for weight in own):
            return None
        chosen = [1.0 if weight is None else weight for weight in own]
    elif any(weight is not None for weight in own):
        raise DataError("sources have a sampling_weight of their own", "data.sampling", "keep one of the two")
    elif weights == "balanced":
        chosen = [1.0] * len(sources)
    else:
        chosen = _by_name(sources, weights)
    return tuple(weight / sum(chosen) for weight in chosen)


def source_names(source: Path | Source) -> list[str]:
    """Return what a source may be called: its fidelity, its path, the file's name with and without its ending."""
    path = Path(source)
    mark = [source.fidelity] if isinstance(source, Source) and source.fidelity else []
    return [*mark, path.name.split(".")[0], path.name, str(path)]


def _by_name(sources: Sequence[Path | Source], weights: Mapping[str, float]) -> list[float]:
    found: list[float] = []
    used: set[str] = set()
    for source in sources:
        named = [name for name in dict.fromkeys(source_names(source)) if name in weights]
        if len(named) != 1:
            what = f"names {Path(source).name} {'twice' if named else 'not at all'}"
            fix = f"give one weight for it, as {source_names(source)[0]}: 1"
            raise DataError(what, "data.sampling", fix)
        found.append(weights[named[0]])
        used.add(named[0])
    if unknown := [name for name in weights if name not in used]:
        known = ", ".join(source_names(source)[0] for source in sources)
        raise DataError(f"names {unknown[0]!r}, which is no source of data.train", "data.sampling", f"sources: {known}")
    return found
