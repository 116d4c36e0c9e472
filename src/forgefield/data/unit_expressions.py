"""Units as files write them ("kcal/(mol*Ang)", "a0^3", "Ha/Bohr") -> the names of core/units.py."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping

from forgefield.core.errors import DataError
from forgefield.core.units import BOHR, DEBYE, GPA, HARTREE, KCAL_PER_MOL, KJ_PER_MOL, UNITS

MOL = 6.02214076e23
JOULE = 1.0 / 1.602176634e-19  # eV
METRE = 1e10  # Å
ATOMIC_UNITS = {
    **{"energy": HARTREE, "length": BOHR, "forces": HARTREE / BOHR, "stress": HARTREE / BOHR**3},
    **{"dipole": BOHR, "quadrupole": BOHR**2, "polarizability": BOHR**3},
}
SIZES = {
    **dict.fromkeys(("ev",), 1.0),
    "mev": 1e-3,
    **dict.fromkeys(("ha", "eh", "hartree", "hartrees"), HARTREE),
    "kcal": KCAL_PER_MOL * MOL,
    "cal": KCAL_PER_MOL * MOL / 1000.0,
    "kj": KJ_PER_MOL * MOL,
    "j": JOULE,
    "mol": MOL,
    **dict.fromkeys(("ang", "angstrom", "angstroms", "å", "a"), 1.0),
    **dict.fromkeys(("bohr", "a0"), BOHR),
    "nm": 10.0,
    "cm": 1e8,
    "m": METRE,
    "e": 1.0,
    "c": 1.0 / 1.602176634e-19,
    **dict.fromkeys(("d", "debye"), DEBYE),
    "gpa": GPA,
    "pa": GPA / 1e9,
    "bar": GPA / 1e4,
    "kbar": GPA / 10.0,
}
CASE_MATTERS = {"m": "m", "C": "c", "D": "d", "J": "j", "A": "a", "e": "e"}
OPERATIONS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
LONGEST, LARGEST_POWER, CLOSE = 60, 6, 2e-6


def named_unit(quantity: str, text: str, where: str) -> str:
    """Return the name in `UNITS[quantity]` of a unit that a file declares.

    Args:
        quantity: energy, length, forces, stress, dipole, ...
        text: for example "kcal/mol/Ang" or "AU" (the atomic unit).
        where: file, for messages.

    Raises:
        DataError: it is no unit of this quantity.
    """
    found = find_unit(quantity, text)
    if found is None:
        raise DataError(
            f"declares the unit {text[:LONGEST]!r} for {quantity}, which is not known",
            where,
            f"set data.{quantity}_unit to one of {', '.join(UNITS[quantity])}",
        )
    return found


def find_unit(quantity: str, text: str) -> str | None:
    """Return the name in `UNITS[quantity]` of a unit; None if it is no unit of this quantity."""
    table = UNITS[quantity]
    if text in table:
        return text
    size = ATOMIC_UNITS.get(quantity) if text.strip().lower() in ("au", "a.u.") else _size(text)
    if size is not None:
        for name, factor in table.items():
            if abs(size - factor) <= CLOSE * factor:
                return name
    return None


def declared_units(found: Mapping[str, str]) -> tuple[str, ...]:
    """Return a note on the units that a file declares; none where it declares none."""
    listing = ", ".join(f"{quantity.replace('_', ' ')} {unit}" for quantity, unit in found.items())
    return (f"the file declares its units: {listing}",) if found else ()


def _size(text: str) -> float | None:
    """Size of a unit in eV, Å, e and products of them; None if it cannot be understood."""
    if len(text) > LONGEST:
        return None
    try:
        return _value(ast.parse(text.strip().replace("^", "**"), mode="eval").body)
    except (SyntaxError, ValueError, ArithmeticError, RecursionError, MemoryError, TypeError):
        return None


def _value(node: ast.expr) -> float:
    if isinstance(node, ast.Name):
        name = node.id if node.id in CASE_MATTERS else node.id.lower()
        return SIZES[_known(CASE_MATTERS.get(name, name))]
    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        return float(node.value)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand)
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATIONS:
        one, other = _value(node.left), _value(node.right)
        if isinstance(node.op, ast.Pow) and abs(other) > LARGEST_POWER:
            raise ValueError("power")
        return float(OPERATIONS[type(node.op)](one, other))
    raise ValueError("not a unit")


def _known(name: str) -> str:
    if name not in SIZES:
        raise ValueError(name)
    return name
