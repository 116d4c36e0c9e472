"""The same structure twice: in one part, across parts, with other labels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from forgefield.core.catalog import Entry
from forgefield.core.settings import Settings
from forgefield.data.doctor.finding import Finding, Place
from forgefield.data.doctor.rules import Level
from forgefield.data.doctor.survey import Survey, by_value
from forgefield.data.doctor.twins import NEAR, SAME, Twins, find_twins

LEAK = 0.01  # of validation or test structures: more stops training
LABEL_TOLERANCE = 5e-3  # eV/atom
FORCE_TOLERANCE = 0.1


def examine(survey: Survey) -> Iterator[Finding]:
    """Find groups by descriptors, compare them atom by atom."""
    twins = find_twins(survey)
    yield from _within(survey, twins)
    leaks: dict[str, dict[int, float]] = {}
    for row, gap in sorted(twins.leaks.items()):
        leaks.setdefault(str(survey.part[row]), {})[row] = gap
    for part, held in leaks.items():
        yield from _across(survey, part, held)
    yield from _contradictions(survey, twins.same)


def _within(survey: Survey, twins: Twins) -> Iterator[Finding]:
    for part in survey.parts:
        own = np.flatnonzero(survey.part == part)
        again = "forgefield data doctor FILE --fix clean.xyz (keeps the first of each)"
        groups = _shared(own, twins.same)
        same = sorted(row for group in groups for row in group[1:])
        if same:
            text = (
                f"{len(same)} structures of the {part} data are there before, up to rotation and order of atoms "
                f"({_count(groups)})"
            )
            yield Finding("duplicates", "warning", text, survey.places(same), again, _named(survey, groups))
        groups = _shared(np.setdiff1d(own, same), twins.near)
        near = sorted(row for group in groups for row in group[1:])
        if near:
            text = (
                f"{len(near)} structures of the {part} data differ from another by less than {NEAR} Å in distances "
                f"({_count(groups)}{_rest(twins)})"
            )
            mend = "they add little; thin them out"
            yield Finding("near_duplicates", "info", text, survey.places(near), mend, _named(survey, groups))


def _shared(rows: np.ndarray, sets: np.ndarray) -> list[list[int]]:
    """Rows by set, ascending, sets of two or more."""
    return [rows[group].tolist() for group in by_value(sets[rows]) if len(group) > 1]


def _named(survey: Survey, groups: list[list[int]]) -> tuple[tuple[Place, ...], ...]:
    return tuple(survey.places(group) for group in groups)


def _count(groups: list[list[int]]) -> str:
    return f"{len(groups)} group{'s' if len(groups) > 1 else ''}, the largest of {max(map(len, groups))}"


def _rest(twins: Twins) -> str:
    if not twins.likely:
        return ""
    return f"; of {twins.left:,} more candidate pairs about {twins.likely:,}, by a sample"


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


def _contradictions(survey: Survey, same: np.ndarray) -> Iterator[Finding]:
    wrong, groups = set[int](), []
    for group in _shared(np.arange(len(survey)), same):
        rows = np.array(group)
        energies, forces = survey.energy[rows] / survey.atoms[rows], survey.numbers["force_rms"][rows]
        odd = _apart(energies, LABEL_TOLERANCE) | _apart(forces, FORCE_TOLERANCE * max(_most(forces), 0.1))
        if odd.any():
            wrong |= {group[0], *rows[odd].tolist()}
            groups.append(group)
    if wrong:
        text = (
            f"{len(groups)} structures are there repeatedly, with different energies or forces at one level of theory"
        )
        mend = "keep one of each, or tell the levels apart with data.head_key"
        yield Finding(
            "contradicting_labels", "severe", text, survey.places(sorted(wrong)), mend, _named(survey, groups)
        )


def _most(values: np.ndarray) -> float:
    return float(np.nanmax(values)) if np.isfinite(values).any() else 0.0


def _apart(values: np.ndarray, tolerance: float) -> np.ndarray:
    """Which values differ from the middle one, where their whole range is beyond the tolerance."""
    there = np.isfinite(values)
    if there.sum() < 2 or np.ptp(values[there]) <= tolerance:
        return np.zeros(len(values), dtype=bool)
    return there & (np.abs(values - np.median(values[there])) >= 0.5 * tolerance)


ENTRY = Entry(Settings, examine, "the same structure twice")
