"""What a check says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from forgefield.data.doctor.rules import LEVELS, RULES, Level

SHOWN = 10


class Place(NamedTuple):
    """A structure: the part it belongs to, its place there, and where it was read."""

    part: str
    index: int
    origin: str


@dataclass(frozen=True)
class Finding:
    """Something about the data that the user should know.

    Args:
        name: of `RULES`; what `data.accept` takes.
        level: info, warning or severe.
        text: what is the matter, in one or two sentences.
        places: the structures it is about; empty = the set as a whole.
        mend: a command, or a key of run.yaml with its value.
        groups: structures that belong together, such as copies, where the finding is about such.
    """

    name: str
    level: Level
    text: str
    places: tuple[Place, ...] = ()
    mend: str = ""
    groups: tuple[tuple[Place, ...], ...] = ()

    def __post_init__(self) -> None:
        assert self.name in RULES, self.name
        assert self.level in LEVELS, self.level

    def where(self) -> str:
        """The first structures, by part: train 3, 17, ... (23 in all)."""
        parts = dict.fromkeys(p.part for p in self.places)
        texts = []
        for part in parts:
            found = [p.index for p in self.places if p.part == part]
            more = f", ... ({len(found)} in all)" if len(found) > SHOWN else ""
            texts.append(f"{part} {', '.join(map(str, found[:SHOWN]))}{more}")
        return "; ".join(texts)

    def to_json(self) -> dict[str, Any]:
        """Return plain values; all places, not only the first."""
        plain: dict[str, Any] = {
            "name": self.name,
            "level": self.level,
            "text": self.text,
            "count": len(self.places),
            "places": [{"part": p.part, "index": p.index, "origin": p.origin} for p in self.places],
            "mend": self.mend,
        }
        if self.groups:
            plain["groups"] = [[{"part": p.part, "index": p.index} for p in group] for group in self.groups]
        return plain


def by_level(findings: Sequence[Finding]) -> list[Finding]:
    """Return the findings, severe ones first."""
    return sorted(findings, key=lambda f: LEVELS.index(f.level))
