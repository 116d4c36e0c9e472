"""GFN1-xTB and GFN2-xTB, computed by tblite, one structure at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from ase.units import Bohr, Hartree, kB

from forgefield.core.elements import place_of, symbol
from forgefield.core.errors import DataError, ModelError
from forgefield.core.structure import Structure
from forgefield.models.baseline.settings import BaselineSettings

NAMES = {"gfn2-xtb": "GFN2-xTB", "gfn1-xtb": "GFN1-xTB"}
LAST_ELEMENT = 86
INSTALL = "pip install 'forgefield[xtb]' (that is tblite and threadpoolctl)"


class Unsolved(DataError):
    """The program could not compute a structure, though it is one that it takes."""


class Xtb:
    """Computes structures by tblite, in one thread, each from the same first guess: results do not depend on the order.

    Args:
        settings: method, accuracy, electronic temperature and number of iterations.

    Raises:
        ModelError: tblite is not installed.
    """

    def __init__(self, settings: BaselineSettings) -> None:
        self.settings = settings
        self._program, self._error, self._threads = _program()

    def __getstate__(self) -> dict[str, Any]:
        return {"settings": self.settings}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["settings"])

    def compute(self, structure: Structure) -> dict[str, np.ndarray]:
        """Compute a structure.

        The charge is 0 where none is stated, the spin the lowest that the number of electrons allows.

        Returns:
            energy (), eV; forces (N, 3), eV/Å; charges (N,), e (Mulliken); atom_energies (N,), eV; for molecules
            dipole (3,), e Å; for crystals stress (3, 3), eV/Å^3, positive = tensile.

        Raises:
            DataError: the method is not made for such a structure.
            Unsolved: the program gave up.
        """
        charge, unpaired = electrons(structure)
        periodic = bool(structure.pbc.all())
        lattice = (structure.cell / Bohr, structure.pbc) if periodic else (None, None)
        method = NAMES[self.settings.method]
        with self._one_thread():
            try:
                program = self._program(
                    method, structure.numbers, structure.positions / Bohr, charge, unpaired, *lattice
                )
                program.set("verbosity", 0)
                program.set("accuracy", self.settings.accuracy)
                program.set("max-iter", self.settings.max_iterations)
                program.set("temperature", self.settings.temperature * kB / Hartree)
                found = program.singlepoint()
            except self._error as error:
                fix = "look at the structure; or leave such structures out by data.on_error: skip"
                raise Unsolved(f"{method} gives no result ({error})", structure.origin, fix) from None
        results = {
            "energy": np.asarray(found["energy"]) * Hartree,
            "forces": -found["gradient"] * Hartree / Bohr,
            "charges": np.asarray(found["charges"]),
            "atom_energies": found["energies"] * Hartree,
        }
        results |= {"stress": found["virial"] * Hartree / structure.volume} if periodic else {}
        results |= {} if periodic else {"dipole": found["dipole"] * Bohr}
        for name, value in results.items():
            if not np.isfinite(value).all():
                raise Unsolved(f"the {name} by {method} is NaN or infinite", structure.origin, "look at it")
        return results

    @contextlib.contextmanager
    def _one_thread(self) -> Iterator[None]:
        """Keep the program to one thread, and give the others back: torch uses the same library of threads."""
        with self._threads.limit(limits=1):
            yield


def version() -> str:
    """Return the version of tblite."""
    from importlib.metadata import version as installed

    return installed("tblite")


def electrons(structure: Structure) -> tuple[float, int]:
    """Return the total charge, e, and the number of unpaired electrons to compute a structure with.

    Raises:
        DataError: the method is not made for such a structure. tblite itself would crash on some, and take crystals
            that are periodic in one or two directions for periodic in three.
    """
    where = structure.origin
    if structure.numbers.max() > LAST_ELEMENT:
        heavy = symbol(int(structure.numbers.max()))
        raise DataError(f"has {heavy}; GFN-xTB ends at {symbol(LAST_ELEMENT)}", where, "leave it out")
    if structure.pbc.any() and not structure.pbc.all():
        what = f"is periodic along {structure.pbc.tolist()}; tblite knows molecules and crystals only"
        raise DataError(what, where, "make it periodic in all three directions, with vacuum")
    charge = structure.charge or 0.0
    if charge != round(charge):
        raise DataError(f"a total charge of {charge:g} is no whole number", where, "repair it")
    count = sum(_valence(int(z)) for z in structure.numbers) - round(charge)
    if count < 1:
        raise DataError(f"a charge of {charge:g} leaves no valence electrons", where, "repair the charge")
    if structure.multiplicity is None:
        return charge, count % 2
    unpaired = structure.multiplicity - 1
    if unpaired > count or (count - unpaired) % 2:
        what = f"{count} valence electrons cannot have multiplicity {unpaired + 1}"
        raise DataError(what, where, "repair charge or multiplicity")
    return charge, unpaired


def _valence(number: int) -> int:
    """Valence electrons of a neutral atom in GFN-xTB."""
    _, group = place_of(number)
    if number == 2:
        return 2
    if 57 <= number <= 71:
        return 3
    return group if group < 12 else group - 10


def _program() -> tuple[Any, type[Exception], Any]:
    """Return tblite's calculator, the error that it raises, and the control of its threads."""
    try:
        from tblite.exceptions import TBLiteRuntimeError
        from tblite.interface import Calculator
        from threadpoolctl import ThreadpoolController
    except (ImportError, OSError) as error:
        what = f"GFN-xTB is computed by tblite, which cannot be used here ({error})"
        raise ModelError(what, "model.baseline", INSTALL) from error
    return Calculator, TBLiteRuntimeError, ThreadpoolController().select(user_api="openmp")
