"""The data doctor before training: severe findings stop it unless the user accepts them by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

import numpy as np

from forgefield.app.tasks.steps.run import Run
from forgefield.core.errors import DataError
from forgefield.data.dataset import Dataset
from forgefield.data.doctor.examine import examine
from forgefield.data.doctor.finding import Finding
from forgefield.data.parts import TrainingData

MOST = 10_000  # structures that are looked at before training; about ten seconds for molecules of 30 atoms
OWN_SPLIT = ("leaked_duplicates", "leaked_near_duplicates")


def examine_training_data(run: Run, data: TrainingData) -> None:
    """Look for what would poison the model, tell and record it.

    Raises:
        DataError: something severe was found that `data.accept` does not name.
    """
    with run.record.stage("doctor"):
        parts, total = _parts(data)
        looked_at = sum(map(len, parts.values()))
        found = [_of_own_split(f) if data.split is not None else f for f in examine(parts)]
    accepted = run.config.data.accept
    told = [f for f in found if f.level != "info"]
    unused = sorted(set(accepted) - {f.name for f in found if f.level == "severe"})
    run.record.note(
        doctor={
            "structures": total,
            "looked_at": looked_at,
            "accepted": [name for name in accepted if name not in unused],
            "accepted_but_not_found": unused,
            "findings": [_record(f, accepted) for f in found],
        }
    )
    if looked_at < total:
        run.say(f"doctor: looked at {looked_at:,} of {total:,} structures; all: forgefield data doctor")
    for finding in told:
        if finding.level == "warning" or finding.name in accepted:
            run.say(f"doctor: {'accepted: ' if finding.level == 'severe' else ''}{finding.name}: {finding.text}")
    for name in unused:
        run.say(f"doctor: data.accept names {name}, which was not found")
    stopping = [f for f in told if f.level == "severe" and f.name not in accepted]
    if stopping:
        raise _refusal(stopping)


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
    return {**plain, "accepted": finding.level == "severe" and finding.name in accepted}


def _refusal(findings: list[Finding]) -> DataError:
    texts = [f"{f.name}: {f.text}{f' ({f.where()})' if f.places else ''}. Mend: {f.mend}" for f in findings]
    names = ", ".join(dict.fromkeys(f.name for f in findings))
    what = "the data would spoil the model. " + " | ".join(texts)
    return DataError(what, "data.train", f"mend it, or accept it by name: data.accept: [{names}]")
