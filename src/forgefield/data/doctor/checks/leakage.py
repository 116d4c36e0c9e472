"""Neighbouring frames of one trajectory on both sides of a split."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

import numpy as np
from scipy.spatial import KDTree

from forgefield.core.catalog import Entry
from forgefield.core.settings import Settings
from forgefield.data.doctor.finding import Finding
from forgefield.data.doctor.survey import Survey, by_value

CORRELATED = 0.5  # of the usual distance of two frames: frames that follow each other are closer in a trajectory
LIKE = 0.05  # of the usual distance: such a training frame foretells the held one
FEWEST = 10
TOUCHED = 0.2  # of the held frames, where trajectories are known
NEARLY_ALL = 0.5  # of the held frames, where only distances are
MEND = "split by trajectory: give whole trajectories to data.val and data.test, or cut each into blocks of frames"


def examine(survey: Survey) -> Iterator[Finding]:
    """Compare every held part with the training data, by names of trajectories, by places in files, by distances."""
    train = np.flatnonzero(survey.part == "train")
    for part in survey.parts:
        held = np.flatnonzero((survey.part == part) & (survey.atoms > 1))
        if part == "train" or len(held) < FEWEST or len(train) < FEWEST:
            continue
        touched, why = (
            _by_frames(survey, train, held),
            "come right before or after a training frame of their trajectory",
        )
        least = TOUCHED * len(held)
        if len(touched) < least:
            touched, why = _by_names(survey, train, held), "belong to a trajectory that has frames in the training data"
        if len(touched) < least:
            least = NEARLY_ALL * len(held)
            touched, why = (
                _by_distances(survey, train, held),
                "are far closer to a training frame than frames usually are",
            )
        if len(touched) >= max(least, 3):
            text = (
                f"{len(touched)} of {len(held)} {part} structures {why}: errors on them say little about new structures"
            )
            yield Finding("correlated_split", "warning", text, survey.places(touched), MEND)


def _by_frames(survey: Survey, train: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Held frames next to a training frame, in trajectories whose successive frames are alike."""
    tracks: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for row in (*train.tolist(), *held.tolist()):
        name, frame = survey.trajectory[row]
        tracks[name].append((frame, row))
    inside = set(train.tolist())
    touched: list[int] = []
    for frames in tracks.values():
        frames.sort()
        rows = np.array([row for _, row in frames])
        if len(rows) < FEWEST or not _is_trajectory(survey, rows):
            continue
        numbers = np.array([number for number, _ in frames])
        step = np.median(np.diff(numbers))
        if step <= 0:
            continue
        near = np.diff(numbers) <= 1.5 * step
        for k in np.flatnonzero(near).tolist():
            one, other = int(rows[k]), int(rows[k + 1])
            if (one in inside) != (other in inside) and survey.kind[one] == survey.kind[other]:
                touched.append(other if one in inside else one)
    return np.unique(np.array(touched, dtype=np.int64))


def _is_trajectory(survey: Survey, rows: np.ndarray) -> bool:
    """Whether frames that follow each other are clearly more alike than frames drawn at random."""
    same = survey.kind[rows[1:]] == survey.kind[rows[:-1]]
    if same.sum() < 0.5 * FEWEST:
        return False
    steps = np.linalg.norm(survey.descriptor[rows[1:]] - survey.descriptor[rows[:-1]], axis=1)[same]
    usual = _usual(survey, rows)
    return bool(usual > 1e-6 and np.median(steps) < CORRELATED * usual)


def _usual(survey: Survey, rows: np.ndarray) -> float:
    """Median distance of two rows of one composition drawn at random."""
    random = np.random.default_rng(0)
    one, other = random.choice(rows, 2000), random.choice(rows, 2000)
    good = (one != other) & (survey.kind[one] == survey.kind[other])
    if not good.any():
        return 0.0
    return float(np.median(np.linalg.norm(survey.descriptor[one[good]] - survey.descriptor[other[good]], axis=1)))


def _by_names(survey: Survey, train: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Held frames of trajectories that the file names, where training has at least `FEWEST` frames of them."""
    known = Counter(survey.trajectory[row][0] for row in train[survey.hinted[train]].tolist())
    return held[[known[survey.trajectory[row][0]] >= FEWEST and bool(survey.hinted[row]) for row in held.tolist()]]


def _by_distances(survey: Survey, train: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Held structures that lie much closer to a training structure than usual, in compositions that vary enough."""
    touched: list[int] = []
    both = np.concatenate([train, held])
    for places in by_value(survey.kind[both]):
        known, asked = both[places[places < len(train)]], both[places[places >= len(train)]]
        if len(known) < FEWEST or not len(asked):
            continue
        usual = _usual(survey, known)
        gaps, _ = KDTree(survey.descriptor[known]).query(survey.descriptor[asked])
        touched += asked[gaps < LIKE * usual].tolist()
    return np.array(sorted(touched), dtype=np.int64)


ENTRY = Entry(Settings, examine, "one trajectory on both sides of a split")
