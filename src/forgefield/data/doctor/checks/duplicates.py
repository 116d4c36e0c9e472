"""The same structure twice: in one part, across parts, with other labels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy.spatial import KDTree

from forgefield.core.catalog import Entry
from forgefield.core.settings import Settings
from forgefield.data.doctor.finding import Finding
from forgefield.data.doctor.rules import Level
from forgefield.data.doctor.sameness import difference
from forgefield.data.doctor.survey import Survey

SAME = 2e-4  # Å, root mean square of distances: what writing coordinates with few decimals does
NEAR = 5e-3  # Å
RADIUS = 0.025  # of descriptors: what NEAR does to them at most
CLOSEST = 3  # candidates for each structure
LEAK = 0.01  # of validation or test structures: more stops training
LABEL_TOLERANCE = 5e-3  # eV/atom


class Twin(NamedTuple):
    """Two rows, the earlier one first, and how much their distances differ, Å."""

    first: int
    second: int
    gap: float


def examine(survey: Survey) -> Iterator[Finding]:
    """Find pairs by descriptors, compare them atom by atom."""
    twins = _twins(survey)
    fate = np.zeros(len(survey), dtype=np.int8)  # 1 near, 2 same, of an earlier one in its part
    leaks: dict[str, dict[int, float]] = {}
    for twin in twins:
        one, other = str(survey.part[twin.first]), str(survey.part[twin.second])
        if one == other:
            fate[twin.second] = max(fate[twin.second], 2 if twin.gap < SAME else 1)
        elif one == "train":
            held = leaks.setdefault(other, {})
            held[twin.second] = min(twin.gap, held.get(twin.second, np.inf))
    yield from _within(survey, fate)
    for part, held in leaks.items():
        yield from _across(survey, part, held)
    yield from _contradictions(survey, [t for t in twins if t.gap < SAME])


def _within(survey: Survey, fate: np.ndarray) -> Iterator[Finding]:
    for part in survey.parts:
        own = survey.part == part
        again = "forgefield data doctor FILE --fix clean.xyz (keeps the first of each)"
        if (same := np.flatnonzero(own & (fate == 2))).size:
            text = f"{len(same)} structures of the {part} data are there before, up to rotation and order of atoms"
            yield Finding("duplicates", "warning", text, survey.places(same), again)
        if (near := np.flatnonzero(own & (fate == 1))).size:
            text = f"{len(near)} structures of the {part} data differ from another by less than {NEAR} Å in distances"
            yield Finding("near_duplicates", "info", text, survey.places(near), "they add little; thin them out")


def _across(survey: Survey, part: str, held: dict[int, float]) -> Iterator[Finding]:
    total = int((survey.part == part).sum())
    for name, chosen in (
        ("leaked_duplicates", sorted(k for k, gap in held.items() if gap < SAME)),
        ("leaked_near_duplicates", sorted(k for k, gap in held.items() if gap >= SAME)),
    ):
        if not chosen:
            continue
        how = "also in" if name == "leaked_duplicates" else "nearly (within 0.005 Å) also in"
        level: Level = "severe" if name == "leaked_duplicates" and len(chosen) > LEAK * total else "warning"
        text = f"{len(chosen)} of {total} {part} structures are {how} the training data: errors come out too small"
        mend = f"remove them from data.{part}, or split anew so that copies stay together"
        yield Finding(name, level, text, survey.places(chosen), mend)


def _contradictions(survey: Survey, twins: list[Twin]) -> Iterator[Finding]:
    wrong = []
    for twin in twins:
        a, b = twin.first, twin.second
        if survey.level[a] != survey.level[b]:
            continue
        energies = abs(survey.energy[a] / survey.atoms[a] - survey.energy[b] / survey.atoms[b])
        strengths = survey.numbers["force_rms"][[a, b]]
        forces = abs(strengths[0] - strengths[1]) / max(strengths.max(), 0.1)
        if energies > LABEL_TOLERANCE or forces > 0.1:
            wrong += [a, b]
    if wrong:
        rows = sorted(set(wrong))
        text = f"{len(wrong) // 2} pairs of the same structure have different energies or forces at one level of theory"
        mend = "keep one of each, or tell the levels apart with data.head_key"
        yield Finding("contradicting_labels", "severe", text, survey.places(rows), mend)


def _twins(survey: Survey) -> list[Twin]:
    """All pairs that are the same or nearly so, at most `CLOSEST` for each structure; kept for other checks."""
    if "twins" in survey.memory:
        return survey.memory["twins"]
    found = []
    formulas = _formulas(survey)
    for members in _groups(formulas):
        for one, other in _candidates(survey.cloud[members]):
            a, b = sorted((int(members[one]), int(members[other])))
            gap = difference(survey.structure(a), survey.structure(b))
            if gap < NEAR:
                found.append(Twin(a, b, gap))
    survey.memory["twins"] = found
    return found


def _formulas(survey: Survey) -> np.ndarray:
    """Number of each structure's reduced formula and periodicity at its level; single free atoms have none, -1."""
    counts = survey.composition // np.gcd.reduce(survey.composition, axis=1)[:, None]
    free = ~survey.periodic
    counts = np.where(free[:, None], survey.composition, counts)
    levels = np.unique(survey.level, return_inverse=True)[1].reshape(-1)
    table = np.concatenate([counts, free[:, None], levels[:, None]], axis=1)
    codes = np.unique(table, axis=0, return_inverse=True)[1].reshape(-1)
    return np.where(free & (survey.atoms == 1), -1, codes)


def _groups(codes: np.ndarray) -> Iterator[np.ndarray]:
    order = np.argsort(codes, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(codes[order])) + 1):
        if codes[members[0]] >= 0 and len(members) > 1:
            yield members


def _candidates(points: np.ndarray) -> Iterator[tuple[int, int]]:
    """Pairs of places that lie within `RADIUS`: copies of one point as a chain, others by a tree."""
    rounded, back = np.unique(np.round(points, 9), axis=0, return_inverse=True)
    back = back.reshape(-1)
    order = np.argsort(back, kind="stable")
    copies = np.flatnonzero(np.diff(back[order]) == 0)
    leaders = order[np.r_[0, np.flatnonzero(np.diff(back[order])) + 1]]
    for k in copies.tolist():
        yield int(leaders[back[order[k]]]), int(order[k + 1])
    if len(rounded) < 2:
        return
    count = min(CLOSEST + 1, len(rounded))
    gaps, near = map(np.asarray, KDTree(rounded).query(rounded, k=count, distance_upper_bound=RADIUS))
    seen: set[tuple[int, int]] = set()
    for one, other in zip(*np.nonzero(np.isfinite(gaps)), strict=True):
        ends = sorted((int(one), int(near[one, other])))
        pair = ends[0], ends[1]
        if pair[0] != pair[1] and pair not in seen:
            seen.add(pair)
            yield int(leaders[pair[0]]), int(leaders[pair[1]])


ENTRY = Entry(Settings, examine, "the same structure twice")
