"""From data sets to findings."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from forgefield.core.catalog import Catalog
from forgefield.data.dataset import Dataset
from forgefield.data.doctor.finding import Finding, by_level
from forgefield.data.doctor.survey import Survey, survey

CHECKS = "forgefield.data.doctor.checks"


def examine(
    parts: Mapping[str, Dataset], cutoff: float = 5.0, advance: Callable[[int], object] | None = None
) -> list[Finding]:
    """Carry out all checks.

    Args:
        parts: data sets by the name of the part: train, and val and test where there are any.
        cutoff: of the model, Å.
        advance: told 1 after each structure that was looked at.

    Raises:
        DataError: not one structure can be read.
    """
    return examine_survey(survey(parts, cutoff, advance))


def examine_survey(found: Survey) -> list[Finding]:
    """Return the findings of all checks, severe ones first."""
    catalog = Catalog(CHECKS)
    findings = [f for name in catalog.names() for f in catalog.entry(name).build(found)]
    return by_level(findings)
