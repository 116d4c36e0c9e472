"""Units as files write them ("kcal/(mol*Ang)", "a0^3", "Ha/Bohr") -> the names of core/units.py."""

from __future__ import annotations

import ast
from collections.abc import Mapping

from forgefield.core.errors import DataError
from forgefield.core.units import BOHR, DEBYE, GPA, HARTREE, KCAL_PER_MOL, KJ_PER_MOL, UNITS

Size = tuple[float, tuple[int, int, int]]
MOL = 6.02214076e23
JOULE = 1.0 / 1.602176634e-19  # eV
METRE = 1e10  # Å
ATOMIC_UNITS = {
    **{"energy": HARTREE, "length": BOHR, "forces": HARTREE / BOHR, "stress": HARTREE / BOHR**3},
    **{"dipole": BOHR, "quadrupole": BOHR**2, "polarizability": BOHR**3},
}
ENERGY, LENGTH, CHARGE, NUMBER = (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 0)
PRESSURE = (1, -3, 0)
DIMENSIONS = {
    **{"energy": ENERGY, "length": LENGTH, "forces": (1, -1, 0), "stress": PRESSURE, "dipole": (0, 1, 1)},
    **{"quadrupole": (0, 2, 1), "polarizability": (0, 3, 0)},
}
"""Powers of energy, length and charge in each quantity."""
SIZES: dict[str, Size] = {
    "ev": (1.0, ENERGY),
    "mev": (1e-3, ENERGY),
    **dict.fromkeys(("ha", "eh", "hartree", "hartrees"), (HARTREE, ENERGY)),
    "kcal": (KCAL_PER_MOL * MOL, ENERGY),
    "cal": (KCAL_PER_MOL * MOL / 1000.0, ENERGY),
    "kj": (KJ_PER_MOL * MOL, ENERGY),
    "j": (JOULE, ENERGY),
    "mol": (MOL, NUMBER),
    **dict.fromkeys(("ang", "angstrom", "angstroms", "å", "a"), (1.0, LENGTH)),
    **dict.fromkeys(("bohr", "a0"), (BOHR, LENGTH)),
    "nm": (10.0, LENGTH),
    "cm": (1e8, LENGTH),
    "m": (METRE, LENGTH),
    "e": (1.0, CHARGE),
    "c": (1.0 / 1.602176634e-19, CHARGE),
    **dict.fromkeys(("d", "debye"), (DEBYE, (0, 1, 1))),
    "gpa": (GPA, PRESSURE),
    "pa": (GPA / 1e9, PRESSURE),
    "bar": (GPA / 1e4, PRESSURE),
    "kbar": (GPA / 10.0, PRESSURE),
}
CASE_MATTERS = {"m": "m", "C": "c", "D": "d", "J": "j", "A": "a", "e": "e"}
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
    if text.strip().lower() in ("au", "a.u."):
        size = ATOMIC_UNITS[quantity]
    else:
        size, dimensions = _size(text) or (0.0, None)
        if dimensions != DIMENSIONS[quantity]:
            return None
    return next((name for name, known in table.items() if abs(size - known) <= CLOSE * known), None)


def declared_units(found: Mapping[str, str]) -> tuple[str, ...]:
    """Return a note on the units that a file declares; none where it declares none."""
    listing = ", ".join(f"{quantity.replace('_', ' ')} {unit}" for quantity, unit in found.items())
    return (f"the file declares its units: {listing}",) if found else ()


def _size(text: str) -> Size | None:
    """Size of a unit in eV, Å, e, and its dimensions; None if it cannot be understood."""
    if len(text) > LONGEST:
        return None
    try:
        return _value(ast.parse(text.strip().replace("^", "**"), mode="eval").body)
    except (SyntaxError, ValueError, ArithmeticError, LookupError, RecursionError, MemoryError, TypeError):
        return None


def _value(node: ast.expr) -> Size:
    if isinstance(node, ast.Name):
        name = CASE_MATTERS.get(node.id, node.id.lower())
        return SIZES[name]
    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        return float(node.value), NUMBER
    if not isinstance(node, ast.BinOp):
        raise ValueError("not a unit")
    size, (e, x, q) = _value(node.left)
    if isinstance(node.op, ast.Pow):
        power = _power(node.right)
        return size**power, (e * power, x * power, q * power)
    other, (e2, x2, q2) = _value(node.right)
    if isinstance(node.op, ast.Mult):
        return size * other, (e + e2, x + x2, q + q2)
    if isinstance(node.op, ast.Div):
        return size / other, (e - e2, x - x2, q - q2)
    raise ValueError("not a unit")


def _power(node: ast.expr) -> int:
    sign = -1 if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) else 1
    number = node.operand if isinstance(node, ast.UnaryOp) else node
    if not isinstance(number, ast.Constant) or type(number.value) is not int or number.value > LARGEST_POWER:
        raise ValueError("not a power")
    return sign * number.value
