"""Splits that let nothing leak: trajectories in blocks or whole, groups whole, all else at random."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from forgefield.core.elements import symbol
from forgefield.core.errors import DataError
from forgefield.core.structure import Structure
from forgefield.data.dataset import Dataset
from forgefield.data.isolated import are_isolated
from forgefield.data.split import Split, split_dataset, too_few
from forgefield.data.split_settings import Part, SplitSettings
from forgefield.data.trajectories import Trajectory, TrajectoryFinder

MANY = 10  # trajectories from which whole ones are taken
_BLOCK, _BLOCKS = 50, 5  # frames from which a part is cut into several blocks; most of them
_GAP = 0.05  # of a trajectory that gaps may take
_FIELDS = ("config_type", "fidelity", "head")


class Survey(NamedTuple):
    """What one pass over the structures tells."""

    free: np.ndarray  # (n,), frames of one free atom
    trajectories: list[Trajectory]  # as ranks in `order`
    order: np.ndarray  # (n,), places in the order of the files
    groups: list[str]  # (n,) or empty


def make_split(dataset: Dataset, settings: SplitSettings, fraction: float, seed: int) -> Split:
    """Divide a data set as the settings say.

    Frames of one free atom stay in training, unless they are named by their index.

    Args:
        dataset: all structures.
        settings: how to divide.
        fraction: for validation, where the settings say nothing.
        seed: of the draws.

    Raises:
        DataError: too few structures, groups or indices, or an entry that frames lack.
    """
    val = fraction if settings.val is None else settings.val
    survey = _survey(dataset, settings)
    if isinstance(val, tuple) or isinstance(settings.test, tuple):
        return _explicit(dataset, survey, val, settings.test, seed)
    moving = survey.trajectories if settings.method in ("auto", "groups") else []
    rest = int((~survey.free).sum())
    counts = _count(val, rest), _count(settings.test, rest)
    if sum(counts) >= rest and sum(counts):
        raise too_few(rest, dataset)
    if settings.method == "groups":
        return _by_groups(dataset, survey, counts, settings, seed)
    if settings.method == "blocks":
        moving = [Trajectory(0, len(dataset), max(1, len(dataset) // 50))]
    if not moving and not counts[1] and not isinstance(val, int):
        return split_dataset(dataset, val, seed, survey.free)
    return _by_trajectory(dataset, survey, moving, counts, settings, seed)


def _count(part: Part, n: int) -> int:
    """Return how many structures a part of n is; a part that is asked for has at least one."""
    if isinstance(part, tuple):
        return len(part)
    return part if isinstance(part, int) else max(1, round(n * part)) if part else 0


def _survey(dataset: Dataset, settings: SplitSettings) -> Survey:
    """Pass over the structures once, in the order of the files."""
    order = np.argsort(dataset.indices, kind="stable")
    free = are_isolated(dataset)
    looks = settings.method == "auto" or (settings.method == "groups" and settings.by == "trajectory")
    named = settings.method == "groups" and settings.by not in ("trajectory", "source")
    finder, groups = TrajectoryFinder(), [""] * len(dataset)
    for place in order.tolist():
        structure = dataset[place]
        if looks:
            finder.add(structure)
        if named and not free[place]:
            groups[place] = _group_of(structure, settings.by)
    if settings.method == "groups" and settings.by == "source":
        groups = [f"source {k}" for k in dataset.part_numbers().tolist()]
    return Survey(free, [t for t in finder.found()] if looks else [], order, groups)


def _group_of(structure: Structure, by: str) -> str:
    if by == "composition":
        numbers, counts = np.unique(structure.numbers, return_counts=True)
        return "".join(f"{symbol(z)}{n}" for z, n in zip(numbers.tolist(), counts.tolist(), strict=True))
    if by in _FIELDS:
        return str(getattr(structure, by))
    if by not in structure.info:
        there = ", ".join([*_FIELDS, "composition", "trajectory", "source", *sorted(structure.info)])
        raise DataError(f"has no entry {by!r} to group by", structure.origin, f"data.split.by may be: {there}")
    return str(structure.info[by])


def _explicit(dataset: Dataset, survey: Survey, val: Part, test: Part, seed: int) -> Split:
    """Take indices as they are given; what is asked for as a part is drawn from the rest."""
    random, parts = np.random.default_rng(seed), []
    named = np.array([k for part in (val, test) if isinstance(part, tuple) for k in part], dtype=np.int64)
    if len(named) and named.max() >= len(dataset):
        raise DataError(f"index {named.max()} is out of range: there are {len(dataset)} structures",
                        "data.split", f"use 0 to {len(dataset) - 1}")  # fmt: skip
    if len(np.unique(named)) < len(named):
        raise DataError("an index stands in val and in test", "data.split", "a structure belongs to one part")
    left = random.permutation(np.setdiff1d(np.flatnonzero(~survey.free), named))
    for part in (val, test):
        if isinstance(part, tuple):
            parts.append(np.sort(np.array(part, dtype=np.int64)))
        else:
            count = _count(part, int((~survey.free).sum()))
            parts.append(np.sort(left[:count]))
            left = left[count:]
    train = np.setdiff1d(np.arange(len(dataset)), np.concatenate(parts))
    if not len(train):
        raise too_few(len(dataset), dataset)
    return Split(train, parts[0], len(parts[0]) / len(dataset), seed, parts[1], method="indices")


def _by_groups(dataset: Dataset, survey: Survey, counts: tuple[int, int], settings: SplitSettings, seed: int) -> Split:
    """Give whole groups to each part until it is full."""
    labels = np.array(survey.groups, dtype=object)
    if settings.by == "trajectory":
        labels = np.array([f"structure {k}" for k in range(len(dataset))], dtype=object)
        for number, found in enumerate(survey.trajectories):
            labels[survey.order[found.start : found.stop]] = f"trajectory {number}"
    rest = np.flatnonzero(~survey.free)
    names, inverse = np.unique(labels[rest].astype(str), return_inverse=True)
    groups = (
        [rest[inverse == k] for k in range(len(names))]
        if len(names) < len(rest)
        else [rest[[k]] for k in range(len(rest))]
    )
    chosen, left = _fill(groups, counts, np.random.default_rng(seed))
    if not left or (counts[0] and not chosen[0]):
        what = f"{len(names)} groups by {settings.by} cannot be split into the parts asked for"
        raise DataError(what, dataset.name, "ask for less, or group by something finer: data.split.by")
    val, test = (np.sort(np.concatenate([groups[k] for k in part])) if part else rest[:0] for part in chosen)
    note = (
        f"split by {settings.by}: {len(names)} groups, {len(chosen[0])} of them ({len(val)} structures) for validation"
        + (f", {len(chosen[1])} ({len(test)}) for testing" if len(test) else "")
    )
    train = np.setdiff1d(np.arange(len(dataset)), np.concatenate([val, test]))
    return Split(train, val, counts[0] / len(rest), seed, test, method=f"groups by {settings.by}", note=note)


def _fill(
    groups: Sequence[np.ndarray], counts: tuple[int, int], random: np.random.Generator
) -> tuple[tuple[list[int], list[int]], list[int]]:
    """Take groups in random order for each count, those that come closest to it; return them and what is left."""
    order = random.permutation(len(groups)).tolist()
    parts: tuple[list[int], list[int]] = ([], [])
    for part, count in zip(parts, counts, strict=True):
        have = 0
        for k in list(order):
            size = len(groups[k])
            if have < count and len(order) > 1 and abs(have + size - count) < count - have:
                part.append(k)
                order.remove(k)
                have += size
        if count and not part and len(order) > 1:  # each is larger than twice the part: the smallest
            smallest = min(order, key=lambda k: len(groups[k]))
            part.append(smallest)
            order.remove(smallest)
    return parts, order


def _by_trajectory(
    dataset: Dataset, survey: Survey, moving: list[Trajectory], counts: tuple[int, int], settings: SplitSettings,
    seed: int,
) -> Split:  # fmt: skip
    """Divide trajectories whole or in blocks, and all other structures at random, in about the same proportion."""
    random, n = np.random.default_rng(seed), len(dataset)
    ranks = [np.arange(t.start, t.stop) for t in moving]
    inside = np.zeros(n, dtype=bool)
    for rank in ranks:
        inside[survey.order[rank]] = True
    others = np.flatnonzero(~inside & ~survey.free)
    rest = int((~survey.free).sum())
    shares = [count / rest for count in counts]
    parts: list[list[np.ndarray]] = [[], [], []]  # val, test, left out
    whole = len(moving) >= MANY and max(map(len, ranks)) <= 0.5 * max(counts)
    if whole:
        total = sum(map(len, ranks))
        chosen, _ = _fill(ranks, (round(total * shares[0]), round(total * shares[1])), random)
        for part, numbers in zip(parts, chosen, strict=False):
            part += [survey.order[ranks[k]] for k in numbers]
    else:
        for found in moving:
            cut = _blocks(found, shares, settings, random)
            for part, places in zip(parts, cut, strict=True):
                part.append(survey.order[found.start + places])
    drawn = random.permutation(others)
    first = round(len(others) * shares[0])
    for part, places in zip(
        parts, (drawn[:first], drawn[first : first + round(len(others) * shares[1])]), strict=False
    ):
        part.append(places)
    val, test, left_out = (
        np.setdiff1d(np.concatenate([others[:0], *part]), np.flatnonzero(survey.free)) for part in parts
    )
    if counts[0] and not len(val):
        val = others[:1] if len(others) else survey.order[ranks[0][-1:]]
    train = np.setdiff1d(np.arange(n), np.concatenate([val, test, left_out]))
    if not len(train):
        raise too_few(n, dataset)
    how = "trajectories" if whole else "blocks"
    note = _explain(moving, int(inside.sum()), n, len(left_out), settings, whole=whole) if moving else ""
    return Split(train, val, shares[0], seed, test, left_out, how if moving else "random", note)


def _blocks(
    found: Trajectory, shares: Sequence[float], settings: SplitSettings, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut contiguous blocks out of a trajectory: frames for validation, for testing, and the gaps beside them."""
    length = found.stop - found.start
    sizes = [round(length * share) for share in shares]
    kind = np.zeros(length, dtype=np.int64)
    pieces = [(k, size) for k, size in ((1, sizes[0]), (2, sizes[1])) if size]
    numbers = [(k, part) for k, size in pieces for part in _pieces(size)]
    if not numbers:
        nothing = np.zeros(0, dtype=np.int64)
        return nothing, nothing, nothing
    gap = settings.gap if settings.gap != "auto" else min(found.reach, max(1, int(_GAP * length / 2 / len(numbers))))
    bounds = np.linspace(0, length, len(numbers) + 1).astype(int)
    for place, (k, size) in zip(random.permutation(len(numbers)).tolist(), numbers, strict=True):
        low, high = int(bounds[place]), int(bounds[place + 1])
        start = low + int(random.integers(max(1, high - low - size + 1)))
        for a, b in ((start - gap, start), (start + size, start + size + gap)):
            between = slice(max(a, 0), max(b, 0))
            kind[between] = np.where(kind[between] == 0, 3, kind[between])
        kind[start : min(start + size, length)] = k
    return np.flatnonzero(kind == 1), np.flatnonzero(kind == 2), np.flatnonzero(kind == 3)


def _pieces(size: int) -> list[int]:
    """Return the lengths of the blocks of a part."""
    count = min(_BLOCKS, max(1, size // _BLOCK))
    return [size // count + (1 if k < size % count else 0) for k in range(count)]


def _explain(
    moving: list[Trajectory], inside: int, n: int, left_out: int, settings: SplitSettings, *, whole: bool
) -> str:
    """Return what was done, and how to choose otherwise."""
    many = f"{len(moving)} trajectories" if len(moving) > 1 else "a trajectory"
    what = f"{inside} of {n} frames belong to {many}" if settings.method == "auto" else "the data are one trajectory"
    how = "whole trajectories are" if whole else "contiguous blocks are"
    gaps = f"; {left_out} frames beside the blocks are left out" if left_out else ""
    return (
        f"{what}: {how} kept for validation, since neighbouring frames are almost alike and would make the validation "
        f"error too small{gaps}. data.split: random draws single frames instead; data.split: {{gap: 0}} leaves none out"
    )
