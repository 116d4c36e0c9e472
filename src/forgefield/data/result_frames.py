"""Frames with the results of ASE's calculators: an energy and a free energy may stand side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from forgefield.data.ase_frames import without_free_energy
from forgefield.data.label_names import AUTO
from forgefield.data.label_units import LabelUnits
from forgefield.data.labelling import Chosen
from forgefield.data.lazy_frames import LazyFrames
from forgefield.data.raw_frame import RawFrame
from forgefield.data.reader import ReaderSettings

BOTH = (
    "there are energies and free energies that differ: the energy (smearing extrapolated to zero) is read; "
    "forces belong to the free energy (data.energy_key: free_energy)"
)
MASK = "there is a force_mask, which is not used: set data.force_mask_key to force_mask"


class ResultFrames(LazyFrames):
    """Of two energies that differ, the one without "free" in its name is read, unless the settings name one."""

    def __init__(
        self,
        path: Path,
        count: int,
        notes: Sequence[str],
        settings: ReaderSettings,
        usual: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self._both = False
        found: list[str] = []
        declare = lambda chosen, sample: self.settled_units(chosen, sample, found)  # noqa: E731
        super().__init__(path, count, settings, notes, declare, usual)
        self.notes = (*self.notes, *found)

    def settled(self, raw: RawFrame) -> RawFrame:
        """Return a frame with one energy, unless the settings name one."""
        if self._settings.keys.energy != AUTO:
            return raw
        plain = without_free_energy(raw)
        self._both |= plain is not raw and raw.values["free_energy"] != raw.values["energy"]
        return plain

    def settled_units(self, chosen: Chosen, sample: Sequence[RawFrame], notes: list[str]) -> LabelUnits:
        """Return the units of the frames; what the user should know is added to the notes."""
        if self._both:
            notes.append(BOTH)
        if any("force_mask" in raw.arrays for raw in sample) and self._settings.keys.force_mask is None:
            notes.append(MASK)
        return self._settings.units
