"""Groups of structures that are the same or nearly so: candidates by descriptors, then a bounded number of comparisons.

Every comparison costs as much as a look at the structure, so of many near copies not every pair is compared: pairs are
taken closest first, those whose ends are known to belong together are passed over, and where comparisons no longer
find anything, or their number is used up, a sample of the rest says what may be there still.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy.spatial import KDTree

from forgefield.data.doctor.sameness import difference
from forgefield.data.doctor.survey import Survey, by_value

SAME = 2e-4  # Å, root mean square of distances: what writing coordinates with few decimals does
NEAR = 5e-3  # Å
RADIUS = 0.025  # of descriptors: what NEAR does to them at most
CLOSEST = 3  # candidates for each structure
ROUND = 2000  # comparisons; then looked whether it goes on
FRUITFUL = 0.01  # of a round
SAMPLE = 200  # of the candidates that are not compared
MOST_WORK = {False: 4e6, True: 6e5}  # atoms compared, of one survey and pass; crystals take longer


class Twins(NamedTuple):
    """What belongs together (S rows of the survey).

    Args:
        same: first row of the group of each row's copies, (S,).
        near: the same for near copies within a part, (S,).
        leaks: rows of validation or test -> smallest difference found to a training structure, Å.
        left: candidate pairs that were not compared.
        likely: how many of them are near copies, by a sample.
    """

    same: np.ndarray
    near: np.ndarray
    leaks: dict[int, float]
    left: int
    likely: int


class _Sets:
    """Rows that belong together; the smallest row stands for its set."""

    def __init__(self, size: int) -> None:
        self._up = list(range(size))

    def of(self, row: int) -> int:
        up = self._up
        while up[row] != row:
            up[row] = up[up[row]]
            row = up[row]
        return row

    def join(self, one: int, other: int) -> None:
        one, other = self.of(one), self.of(other)
        self._up[max(one, other)] = min(one, other)

    def all(self) -> np.ndarray:
        return np.array([self.of(row) for row in range(len(self._up))], dtype=np.int64)


def find_twins(survey: Survey) -> Twins:
    """Compare candidates of every formula; kept for other checks."""
    if "twins" not in survey.memory:
        survey.memory["twins"] = _Search(survey).run()
    return survey.memory["twins"]


class _Search:
    """Sets of copies while they grow."""

    def __init__(self, survey: Survey) -> None:
        self.survey = survey
        self.same, self.near = _Sets(len(survey)), _Sets(len(survey))
        self.leaks: dict[int, float] = {}
        self.train = survey.part == "train"
        self.left, self.likely = 0, 0
        self.work: dict[tuple[bool, bool], float] = {}

    def run(self) -> Twins:
        for members in _groups(_formulas(self.survey)):
            leaders = self._copies(members)
            points = self.survey.cloud[leaders]
            self._compare(self._pairs(leaders, *_across(points, self.train[leaders])), across=True)
            self._compare(self._pairs(leaders, *_within(points)), across=False)
        return Twins(self.same.all(), self.near.all(), self.leaks, self.left, self.likely)

    def _copies(self, members: np.ndarray) -> np.ndarray:
        """Join structures of one descriptor that are the same; return the first row of each kind, ascending."""
        survey = self.survey
        rounded = np.unique(np.round(survey.cloud[members], 9), axis=0, return_inverse=True)[1].reshape(-1)
        leaders: list[int] = []
        for cluster in by_value(rounded):
            kinds: dict[str, int] = {}
            for row in members[cluster].tolist():
                self._place(row, str(survey.prints["geometry"][row]), kinds)
            leaders += sorted(set(kinds.values()))
        return np.array(sorted(leaders), dtype=np.int64)

    def _place(self, row: int, digest: str, kinds: dict[str, int]) -> None:
        """Join a row with what has its digest, or else with one of the first kinds that it is the same as."""
        if digest not in kinds:
            for leader in list(dict.fromkeys(kinds.values()))[:CLOSEST]:
                if self._gap(leader, row) < SAME:
                    kinds[digest] = leader
                    break
            else:
                kinds[digest] = row
                return
        self._join(kinds[digest], row, 0.0)

    def _gap(self, one: int, other: int) -> float:
        return difference(self.survey.structure(one), self.survey.structure(other))

    def _join(self, one: int, other: int, gap: float) -> None:
        if gap < SAME:
            self.same.join(one, other)
        if self.survey.part[one] == self.survey.part[other]:
            self.near.join(one, other)
        elif self.train[one] != self.train[other]:
            held = other if self.train[one] else one
            self.leaks[held] = min(gap, self.leaks.get(held, np.inf))

    def _pairs(self, leaders: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Rows of candidate pairs, (P, 2), closest first, those beyond `RADIUS` left out."""
        if not len(one):
            return np.zeros((0, 2), dtype=np.int64)
        ends = np.unique(np.sort(leaders[np.stack([one, other], axis=1)], axis=1), axis=0)
        gaps = np.linalg.norm(self.survey.descriptor[ends[:, 0]] - self.survey.descriptor[ends[:, 1]], axis=1)
        order = np.argsort(gaps, kind="stable")
        return ends[order[gaps[order] < RADIUS]]

    def _known(self, one: int, other: int, across: bool) -> bool:
        """Whether a comparison would tell nothing new."""
        if across:
            return (other if self.train[one] else one) in self.leaks
        if self.survey.part[one] != self.survey.part[other]:
            return self.same.of(one) == self.same.of(other)
        return self.near.of(one) == self.near.of(other)

    def _compare(self, pairs: np.ndarray, across: bool) -> None:
        """Compare pairs in rounds, as long as rounds find something and work is left."""
        found = compared = 0
        for done, (one, other) in enumerate(pairs.tolist()):
            if self._known(one, other, across):
                continue
            if compared and compared % ROUND == 0:
                if found < FRUITFUL * ROUND or self._spent(one, across):
                    self._sample(pairs[done:], across)
                    return
                found = 0
            compared += 1
            self.work[across, bool(self.survey.periodic[one])] = self._done(one, across) + self._size(one)
            gap = self._gap(one, other)
            if gap < NEAR:
                found += 1
                self._join(one, other, gap)

    def _size(self, row: int) -> float:
        return 10.0 + float(self.survey.atoms[row])

    def _done(self, row: int, across: bool) -> float:
        return self.work.get((across, bool(self.survey.periodic[row])), 0.0)

    def _spent(self, row: int, across: bool) -> bool:
        return self._done(row, across) > MOST_WORK[bool(self.survey.periodic[row])]

    def _sample(self, pairs: np.ndarray, across: bool) -> None:
        """Count what is left, and estimate how much of it is near."""
        rest = np.array([pair for pair in pairs.tolist() if not self._known(pair[0], pair[1], across)]).reshape(-1, 2)
        if not len(rest):
            return
        random = np.random.default_rng(0)
        chosen = random.choice(len(rest), min(SAMPLE, len(rest)), replace=False)
        gaps = [(one, other, self._gap(one, other)) for one, other in rest[chosen].tolist()]
        hits = [entry for entry in gaps if entry[2] < NEAR]
        for one, other, gap in hits:
            self._join(one, other, gap)
        self.left += len(rest) - len(gaps)
        self.likely += round((len(rest) - len(gaps)) * len(hits) / len(gaps))


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
    for members in by_value(codes):
        if codes[members[0]] >= 0 and len(members) > 1:
            yield members


def _within(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places of every point and the closest others within `RADIUS`, two arrays (P,)."""
    return _near(points, np.arange(len(points)), np.arange(len(points)), CLOSEST + 1)


def _across(points: np.ndarray, train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same from what is not training data to training data."""
    return _near(points, np.flatnonzero(train), np.flatnonzero(~train), CLOSEST)


def _near(points: np.ndarray, known: np.ndarray, asked: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    if not len(known) or not len(asked):
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    count = min(count, len(known))
    found = KDTree(points[known]).query(points[asked], k=count, distance_upper_bound=RADIUS)
    gaps, places = (np.asarray(column).reshape(len(asked), count) for column in found)
    one, column = np.nonzero(np.isfinite(gaps))
    first, second = asked[one], known[places[one, column]]
    apart = first != second
    return first[apart], second[apart]
