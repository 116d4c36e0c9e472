"""Every finding there can be: one line each."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Level = Literal["info", "warning", "severe"]
LEVELS: tuple[Level, ...] = ("severe", "warning", "info")


@dataclass(frozen=True)
class Rule:
    """What a finding means.

    Args:
        level: its usual level; a check may say less or more.
        meaning: one line, for the page of documentation.
    """

    level: Level
    meaning: str


RULES: dict[str, Rule] = {
    "unreadable": Rule("severe", "structures that cannot be read"),
    "duplicates": Rule("warning", "the same structure twice in one part"),
    "near_duplicates": Rule("info", "distances that differ by less than 0.005 Å, in one part"),
    "leaked_duplicates": Rule("severe", "the same structure in training and in validation or test"),
    "leaked_near_duplicates": Rule("warning", "nearly the same structure in training and in validation or test"),
    "contradicting_labels": Rule("severe", "the same structure with different labels at one level of theory"),
    "correlated_split": Rule("warning", "neighbouring frames of one trajectory in training and in validation or test"),
    "energy_unit": Rule("severe", "energies are not in eV"),
    "energy_per_atom": Rule("severe", "energies are per atom, not of the structure"),
    "forces_sign": Rule("severe", "forces are gradients: their sign is wrong"),
    "forces_unit": Rule("severe", "forces are not in eV/Å, or do not belong to the energies"),
    "energy_force_mismatch": Rule("warning", "energy differences of close frames are not those of the forces"),
    "length_unit": Rule("severe", "positions are not in Å"),
    "stress_sign": Rule("severe", "the stress has the opposite sign"),
    "stress_unit": Rule("severe", "the stress is not in eV/Å^3"),
    "stress_is_virial": Rule("severe", "the stress is a virial"),
    "stress_order": Rule("severe", "the six components of the stress are in another order"),
    "outlier_energies": Rule("warning", "energies far from what composition and distances explain"),
    "outlier_forces": Rule("warning", "forces far larger than those of all other structures"),
    "net_force": Rule("warning", "forces that do not sum to zero"),
    "net_torque": Rule("warning", "forces that turn a free molecule"),
    "mixed_theory": Rule("severe", "two levels of theory in one source: energies in two groups, a constant apart"),
    "e0_rank": Rule("info", "elements whose reference energies the compositions do not separate"),
    "label_coverage": Rule("info", "labels that only a part of the structures has"),
    "rounded_energies": Rule("warning", "total energies rounded to float32, or to few decimals"),
    "overlapping_atoms": Rule("severe", "atoms far too close to each other"),
    "cell_too_small": Rule("severe", "atoms that overlap with periodic images: the cell does not fit"),
    "lone_atoms": Rule("warning", "atoms without any neighbour within the cutoff"),
    "zero_forces": Rule("warning", "forces of exactly zero where symmetry does not ask for them"),
    "placeholder_values": Rule("severe", "labels that stand for a missing value: 0, 9999, 1e10"),
    "constant_labels": Rule("severe", "one label has the same value everywhere"),
    "repeated_labels": Rule("warning", "different structures with exactly the same label"),
    "impossible_spin": Rule("severe", "charge and multiplicity do not fit the number of electrons"),
}


def check_names(names: Iterable[str]) -> None:
    """Refuse names of findings that there are not.

    Raises:
        ValueError: names the first wrong one and the nearest right one.
    """
    for name in names:
        if name not in RULES:
            near = difflib.get_close_matches(name, RULES, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"{name!r} is no finding of `forgefield data doctor`{hint} There are: {', '.join(RULES)}")
