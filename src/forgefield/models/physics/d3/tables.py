"""Reference data and damping parameters of D3(BJ), taken from the package tad-dftd3."""

from __future__ import annotations

import difflib
import functools
import tomllib
from importlib import resources
from typing import Any, NamedTuple

import torch
from torch import Tensor

from forgefield.core.elements import symbol
from forgefield.core.errors import ConfigError, ModelError

HEAVIEST = 103
"""The last element with D3 reference systems."""


class Damping(NamedTuple):
    """Parameters of the rational damping; a2 in Bohr."""

    s6: float
    s8: float
    a1: float
    a2: float


class References(NamedTuple):
    """Data of some elements, in atomic units; R reference systems each, absent ones have weight 0."""

    radii: Tensor  # (Z,), covalent radii times 4/3, Bohr
    r4r2: Tensor  # (Z,), sqrt of half of sqrt(Z) <r4>/<r2>
    numbers: Tensor  # (Z, R), coordination numbers of the reference systems
    there: Tensor  # (Z, R), bool
    c6: Tensor  # (Z, Z, R, R), Hartree Bohr^6


def references(elements: tuple[int, ...]) -> References:
    """Read the reference data of `elements` (atomic numbers).

    Raises:
        ModelError: an element is too heavy for D3, or the package is not installed.
    """
    missing = [symbol(z) for z in elements if z > HEAVIEST]
    if missing:
        raise ModelError(f"D3 has no reference data for {', '.join(missing)}", "physics.d3", "leave d3 out")
    try:
        from tad_dftd3.data import R4R2
        from tad_dftd3.reference import Reference
        from tad_mctc.data.radii import COV_D3
    except ImportError as error:
        raise ModelError(f"D3 needs a package: {error}", "physics.d3", "pip install tad-dftd3") from error
    index = torch.tensor(elements)
    whole = Reference(dtype=torch.float64)
    cn = whole.cn[index]
    return References(
        COV_D3(dtype=torch.float64)[index],
        R4R2(dtype=torch.float64)[index],
        cn,
        cn >= 0,
        whole.c6[index][:, index].contiguous(),
    )


@functools.cache
def _published() -> tuple[dict[str, Any], dict[str, str]]:
    """Parameters by functional, and second names of functionals, as tad-dftd3 carries them from s-dftd3."""
    folder = resources.files("tad_dftd3.param")
    read = lambda name: tomllib.loads((folder / name).read_text(encoding="utf-8"))  # noqa: E731
    return read("parameters.toml")["parameter"], read("aliases.toml")["alias"]


def functionals() -> list[str]:
    """Names of all functionals with published BJ parameters, second names included."""
    table, aliases = _published()
    own = {name for name, entry in table.items() if "bj" in entry.get("d3", {})}
    return sorted(own | {alias for alias, name in aliases.items() if name in own})


def damping_of(functional: str) -> Damping:
    """Return the published parameters of a functional; upper case and hyphens do not matter, all else does.

    Raises:
        ConfigError: there are none under this name; near names are given.
    """
    table, aliases = _published()
    plain = functional.strip().lower()
    for name in (plain, plain.replace("-", "")):
        name = aliases.get(name, name)
        entry = table.get(name, {}).get("d3", {})
        if "bj" in entry:
            values = entry["bj"]
            return Damping(values.get("s6", 1.0), values["s8"], values["a1"], values["a2"])
        if entry:
            raise ConfigError(
                f"{functional!r} has no published D3(BJ) parameters, only {', '.join(sorted(entry))}",
                "physics.d3.functional",
                "give s8, a1 and a2 instead, or take another functional",
            )
    near = difflib.get_close_matches(plain.replace("-", ""), functionals(), n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(near)}? " if near else ""
    raise ConfigError(
        f"no D3(BJ) parameters for the functional {functional!r}",
        "physics.d3.functional",
        hint + "docs/physics.md says where the names are listed; s8, a1 and a2 may be given instead",
    )
