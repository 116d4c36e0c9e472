"""Structures of a store whose labels are read by other names or units than it declares."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from forgefield.core.quantities import QUANTITIES
from forgefield.core.structure import Structure
from forgefield.data.label_names import LabelKeys
from forgefield.data.label_units import LabelUnits
from forgefield.data.labelling import choose_keys, label_structure
from forgefield.data.looked_at import frames_looked_at
from forgefield.data.raw_frame import RawFrame
from forgefield.data.reader import Frames
from forgefield.data.store.frames import StoreFrames

LOOKED_AT = 32  # records that decide which names there are
BASE = "base "
MARKS = ("charge", "multiplicity", "fidelity")
USUAL = {name: (name,) for name in (*QUANTITIES, *MARKS, *(BASE + name for name in QUANTITIES))}


class RenamedFrames(Frames):
    """Goes through the one place where names, units and signs are settled, as every other format does.

    Args:
        frames: the store.
        keys: names that the user gave.
        units: units that the user gave.
        skip: pass over records that cannot be read where names are recognised by them.
    """

    def __init__(self, frames: StoreFrames, keys: LabelKeys, units: LabelUnits, *, skip: bool = False) -> None:
        self._frames, self._keys, self._units = frames, keys, units
        places = np.unique(np.linspace(0, len(frames) - 1, LOOKED_AT).astype(int))
        sample = frames_looked_at(lambda i: as_raw(frames[i]), places, len(frames), skip)
        chosen = choose_keys(sample, keys, units, frames.source, USUAL)
        super().__init__(frames.source, chosen, frames.others, frames.notes)
        self.n_left_out = frames.n_left_out

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> Structure:
        kept = self._frames[index]
        made = label_structure(as_raw(kept), self.chosen, self._keys, self._units)
        own = {name: kept.labels[name] for name in kept.declared if name in kept.labels and name not in made.labels}
        return dataclasses.replace(
            made,
            labels={**own, **made.labels},
            declared={**kept.declared, **made.declared},
            features={**kept.features, **made.features},
            head=made.head if made.head is not None else kept.head,
            force_mask=made.force_mask if made.force_mask is not None else kept.force_mask,
            info={name: kept.info[name] for name in kept.info if name in made.info},
        )


def as_raw(structure: Structure) -> RawFrame:
    """Return a structure as a frame whose names are our own."""
    values: dict[str, Any] = dict(structure.info)
    arrays: dict[str, np.ndarray] = {}
    for prefix, table in (("", structure.labels), (BASE, structure.base)):
        for name, value in table.items():
            quantity = QUANTITIES.get(name) or structure.declared[name]
            (arrays if quantity.per == "atom" else values)[prefix + name] = value
    for name in (*MARKS, "head"):
        if getattr(structure, name) is not None:
            values[name] = getattr(structure, name)
    values |= {"config_type": structure.config_type, "config_weight": structure.weight}
    return RawFrame(
        structure.numbers, structure.positions, structure.cell, structure.pbc, values, arrays, structure.origin,
        structure.fixed, structure.tags,
    )  # fmt: skip
