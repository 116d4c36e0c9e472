"""What of a structure a foreign format has no place for, counted, so that the user is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from forgefield.core.structure import Structure

DEFAULTS = {"config_type": "default", "head": None, "weight": 1.0, "fixed": None, "tags": None, "fidelity": None,
            "charge": None, "multiplicity": None, "force_mask": None}  # fmt: skip


class LeftOut:
    """Counts structures by what of them is not written.

    Args:
        format: name of the format, for the note.
        kept: fields and labels that it holds.
    """

    def __init__(self, format: str, kept: Collection[str]) -> None:
        self._format, self._kept = format, frozenset(kept)
        self._counts: Counter[str] = Counter()

    def look(self, structure: Structure, kept: Collection[str] = ()) -> None:
        """Count what of a structure is lost; `kept` names what is written of this one beside the usual."""
        known = self._kept | frozenset(kept)
        for name, default in DEFAULTS.items():
            value = getattr(structure, name)
            if name not in known and value is not default and (default is None or value != default):
                self._counts[name] += 1
        for name in structure.labels.keys() - known:
            self._counts[name] += 1
        for group in ("base", "features", "info"):
            if getattr(structure, group) and group not in known:
                self._counts[group] += 1

    def notes(self) -> tuple[str, ...]:
        """Return one line, or none where nothing is lost."""
        if not self._counts:
            return ()
        listing = ", ".join(f"{name} ({count} structures)" for name, count in sorted(self._counts.items()))
        return (f"{self._format} has no place for: {listing}",)
