"""What `forgefield check` says of a baseline, without computing more than a few structures."""

from __future__ import annotations

import time
from typing import Literal

from forgefield.app.baseline.applying import differences, labels_of
from forgefield.app.baseline.computing import verify
from forgefield.app.baseline.rules import settled
from forgefield.app.run import RunConfig
from forgefield.data.differences import missing_base
from forgefield.data.parts import TrainingData
from forgefield.models.baseline.xtb import version

State = Literal["ok", "note", "warn", "error"]


def look_at_baseline(config: RunConfig, data: TrainingData) -> list[tuple[State, str]]:
    """Compute one structure and compare a few base labels of the data; returns states and texts.

    Raises:
        ForgeError: base labels are missing or wrong, or the program is not there.
    """
    settings = settled(config)
    if settings is None:
        return []
    labels, structures = labels_of(settings), data.measured
    if not settings.computed:
        for structure in structures:
            missing = [n for n in settings.learned if n in structure.labels and n not in structure.base]
            if missing:
                raise missing_base(structure, missing[0])
        return [("ok", f"{settings.name}: base labels of all {len(structures)} training structures are there")]
    compared = verify(labels, [structures])
    largest = structures[int(structures.survey.n_atoms.argmax())]
    start = time.perf_counter()
    labels.program.compute(largest)
    seconds = time.perf_counter() - start
    agree = f"; {compared} base labels of the data agree" if compared else ""
    what = f"{settings.name} by tblite {version()}: {1000 * seconds:.0f} ms for the largest structure{agree}"
    without = sum(not labels.stated(s) for s in structures)
    return [("ok", f"{what}; {without} of {len(structures)} structures are computed before training")]


def lazily(data: TrainingData, config: RunConfig) -> TrainingData:
    """Return data as the model learns them; base labels are computed where a structure is looked at.

    Raises:
        DataError: when read, a structure has none.
    """
    settings = settled(config)
    if settings is None:
        return data
    labels = labels_of(settings)
    val = None if data.val is None else differences(data.val, labels)
    return data._replace(measured=differences(data.measured, labels), train=differences(data.train, labels), val=val)
