"""Delta-learning in ASE: the base level that a calculator adds to the correction of its model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator, PropertyNotImplementedError
from ase.stress import full_3x3_to_voigt_6_stress

from forgefield.core.errors import ModelError
from forgefield.core.structure import Structure
from forgefield.models.baseline.xtb import Xtb
from forgefield.models.potential import Potential

WHERE = "baseline"


class Base(NamedTuple):
    """What the base level says of a structure; None where it does not say it."""

    energy: float  # eV
    forces: np.ndarray  # (N, 3), eV/Å
    stress: np.ndarray | None  # (6,), eV/Å^3, Voigt
    atom_energies: np.ndarray | None  # (N,), eV
    further: Mapping[str, np.ndarray]  # charges (N,), e; dipole (3,), e Å


class XtbBase:
    """GFN-xTB by tblite.

    Args:
        program: computes it.
    """

    electrons = ("charge", "multiplicity")

    def __init__(self, program: Xtb) -> None:
        self.program = program

    def compute(self, structure: Structure, atoms: Atoms, *, stress: bool) -> Base:
        """Compute a structure."""
        del atoms, stress
        found = self.program.compute(structure)
        tensor = full_3x3_to_voigt_6_stress(found["stress"]) if "stress" in found else None
        further = {name: found[name] for name in self.program.settings.targets if name in found}
        return Base(float(found["energy"]), found["forces"], tensor, found["atom_energies"], further)


class GivenBase:
    """Any ASE calculator.

    Args:
        calculator: computes the level that the base labels of the training data are of.
        targets: what it is asked for beside energy, forces and stress.
    """

    electrons = ()

    def __init__(self, calculator: Any, targets: Sequence[str] = ()) -> None:
        self.calculator, self.targets = calculator, targets

    def compute(self, structure: Structure, atoms: Atoms, *, stress: bool) -> Base:
        """Compute the atoms, with all that their `info` says."""
        del structure
        own = atoms.copy()
        own.calc = self.calculator
        further = {name: self._asked(own, name) for name in (*(("stress",) if stress else ()), *self.targets)}
        known = {name: value for name, value in further.items() if value is not None}
        return Base(float(own.get_potential_energy()), own.get_forces(), known.pop("stress", None), None, known)

    def _asked(self, atoms: Atoms, name: str) -> np.ndarray | None:
        """A property of atoms; None if the calculator does not know it."""
        try:
            return np.asarray(self.calculator.get_property(name, atoms))
        except PropertyNotImplementedError:
            return None


def together(correction: Mapping[str, Any], base: Base, targets: Sequence[str]) -> dict[str, Any]:
    """Return ASE results of the whole; what would be a correction alone is left out.

    Args:
        correction: ASE results of the model.
        base: the base level.
        targets: further quantities that the model learned as differences.
    """
    parts: dict[str, Any] = {"energy": base.energy, "free_energy": base.energy, "energies": base.atom_energies}
    parts |= {"forces": base.forces, "stress": base.stress, **{n: base.further.get(n) for n in targets}}
    if "charges" in targets:  # moments that follow from charges are differences too
        parts = {"dipole": None, "quadrupole": None, **parts}
    whole = {name: value if name not in parts else None for name, value in correction.items()}
    whole |= {n: correction[n] + part for n, part in parts.items() if n in correction and part is not None}
    return {name: value for name, value in whole.items() if value is not None}


def choose_base(
    potential: Potential, given: BaseCalculator | Literal["correction"] | None
) -> XtbBase | GivenBase | None:
    """Return what adds the base level to a model's correction; None where nothing is added.

    Args:
        potential: the model.
        given: an ASE calculator of the base level; "correction" leaves it out; None takes what the model names.

    Raises:
        ModelError: the model is whole, its level is not known here, or another one is given than it corrects.
    """
    settings = potential.baseline
    if settings is None:
        if given is not None:
            raise ModelError("the model corrects no baseline: it is whole", WHERE, "leave it out")
        return None
    if isinstance(given, str):
        if given != "correction":
            fix = 'give an ASE calculator, or "correction" for the correction alone'
            raise ModelError(f"{given!r} is no baseline", WHERE, fix)
        return None
    if settings.computed:
        if given is not None:
            what = f"the model corrects {settings.name}, which is computed by tblite"
            raise ModelError(what, WHERE, "leave it out")
        return XtbBase(Xtb(settings))
    if given is None:
        what = f"the model gives a correction to {settings.name}, which cannot be computed here"
        fix = 'hand in an ASE calculator of that level, baseline=..., or baseline="correction" for the correction alone'
        raise ModelError(what, WHERE, fix)
    return GivenBase(given, settings.targets)
