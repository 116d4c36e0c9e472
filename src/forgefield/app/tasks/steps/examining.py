"""The data doctor before training: severe findings stop it unless the user accepts them by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from forgefield.app.tasks.steps.run import Run
from forgefield.core.errors import DataError
from forgefield.data.dataset import Dataset
from forgefield.data.doctor.examine import examine
from forgefield.data.doctor.finding import Finding
from forgefield.data.parts import TrainingData

MOST = 10_000  # structures that are looked at before training; about ten seconds for molecules of 30 atoms
OWN_SPLIT = ("leaked_duplicates", "leaked_near_duplicates")


@dataclass(frozen=True)
class Examined:
    """What the doctor found in the data of a run.

    Args:
        found: all findings, severe ones first.
        looked_at: structures that were looked at.
        total: structures of training and validation data.
        accepted: names of `data.accept`.
    """

    found: Sequence[Finding]
    looked_at: int
    total: int
    accepted: Sequence[str]

    @property
    def unused(self) -> list[str]:
        """Accepted names that were not found."""
        return sorted(set(self.accepted) - {f.name for f in self.found if f.level == "severe"})

    @property
    def stopping(self) -> list[Finding]:
        """Severe findings that were not accepted."""
        return [f for f in self.found if f.level == "severe" and f.name not in self.accepted]

    @property
    def warnings(self) -> list[str]:
        """What the user should know, though it stops nothing."""
        return [f"{f.name}: {f.text}" for f in self.found if f.level == "warning"]

    @property
    def remarks(self) -> list[str]:
        """How much was looked at, what was accepted, and what was accepted in vain."""
        few = f"looked at {self.looked_at:,} of {self.total:,} structures; all: forgefield data doctor"
        known = [f for f in self.found if f.level == "severe" and f.name in self.accepted]
        lines = [few] if self.looked_at < self.total else []
        lines += [f"accepted: {f.name}: {f.text}" for f in known]
        return [*lines, *(f"data.accept names {name}, which was not found" for name in self.unused)]

    def check(self) -> None:
        """Refuse data that would spoil the model.

        Raises:
            DataError: something severe was found that was not accepted.
        """
        if self.stopping:
            raise _refusal(self.stopping)


def look_at_training_data(data: TrainingData, accepted: Sequence[str]) -> Examined:
    """Look for what would poison the model, in at most `MOST` structures."""
    parts, total = _parts(data)
    found = [_of_own_split(f) if data.split is not None else f for f in examine(parts)]
    return Examined(found, sum(map(len, parts.values())), total, tuple(accepted))


def examine_training_data(run: Run, data: TrainingData) -> None:
    """Look for what would poison the model, tell and record it.

    Raises:
        DataError: something severe was found that `data.accept` does not name.
    """
    accepted = run.config.data.accept
    with run.record.stage("doctor"):
        result = look_at_training_data(data, accepted)
    run.record.note(
        doctor={
            "structures": result.total,
            "looked_at": result.looked_at,
            "accepted": [name for name in accepted if name not in result.unused],
            "accepted_but_not_found": result.unused,
            "findings": [_record(f, accepted) for f in result.found],
        }
    )
    for line in (*result.remarks, *result.warnings):
        run.say(f"doctor: {line}")
    result.check()


def _parts(data: TrainingData) -> tuple[dict[str, Dataset], int]:
    """Training and validation data, at most `MOST` structures of both, spread evenly; and how many there are."""
    whole = {"train": data.measured, **({"val": data.val} if data.val is not None else {})}
    total = sum(map(len, whole.values()))
    if total <= MOST:
        return whole, total
    share = MOST / total
    chosen = {
        k: np.unique(np.linspace(0, len(d) - 1, max(1, int(len(d) * share))).astype(int)) for k, d in whole.items()
    }
    return {name: whole[name].subset(places) for name, places in chosen.items()}, total


def _of_own_split(finding: Finding) -> Finding:
    """Copies that our own random split put on both sides are no fault of the data."""
    if finding.name not in OWN_SPLIT or finding.level != "severe":
        return finding
    return dataclasses.replace(finding, level="warning")


def _record(finding: Finding, accepted: Collection[str]) -> dict[str, object]:
    plain = finding.to_json()
    plain["places"] = plain["places"][:10]
    plain.pop("groups", None)
    return {**plain, "accepted": finding.level == "severe" and finding.name in accepted}


def _refusal(findings: list[Finding]) -> DataError:
    texts = [f"{f.name}: {f.text}{f' ({f.where()})' if f.places else ''}. Mend: {f.mend}" for f in findings]
    names = ", ".join(dict.fromkeys(f.name for f in findings))
    what = "the data would spoil the model. " + " | ".join(texts)
    return DataError(what, "data.train", f"mend it, or accept it by name: data.accept: [{names}]")
