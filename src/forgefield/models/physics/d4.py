"""D4 dispersion by the program dftd4: an operator that is called once per structure."""

from __future__ import annotations

import difflib
import hashlib
import json
import tomllib
from collections import OrderedDict
from collections.abc import Mapping
from importlib import resources
from typing import Any, NamedTuple

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from forgefield.core.catalog import Entry
from forgefield.core.errors import ConfigError, DataError, ModelError
from forgefield.core.settings import Settings
from forgefield.core.units import BOHR, HARTREE
from forgefield.models.architecture import Geometry, PhysicsContext, PhysicsTerm, Share

KEPT = 2**28
"""Bytes of results that are kept in training, where the same structures come again in every epoch."""


class D4Settings(Settings):
    """Settings of the D4 dispersion."""

    functional: str | dict[str, str | None] = Field(
        description="Functional whose published parameters are used (pbe, b3lyp, tpss, ...), or a map from head to "
        "functional (null: no dispersion for this head). Names are matched whole."
    )
    three_body: bool = Field(True, description="With the three-body term, as published.")
    cutoff: float = Field(20.0, gt=0, le=60, description="Pairs up to this distance have dispersion energy, Å.")
    three_body_cutoff: float = Field(12.0, gt=0, le=60, description="Triples up to this distance, Å.")
    cn_cutoff: float = Field(12.0, gt=0, le=60, description="Neighbours up to this distance are counted, Å.")
    cutoff_width: float = Field(1.0, ge=0, description="Energies fade over this last stretch, Å; 0 cuts.")

    @model_validator(mode="after")
    def _fits(self) -> D4Settings:
        """The width lies within the cutoffs."""
        if self.cutoff_width >= min(self.cutoff, self.three_body_cutoff):
            raise ValueError("cutoff_width must be smaller than cutoff and three_body_cutoff")
        return self


class Found(NamedTuple):
    """Result of one structure in eV and Å."""

    energy: float
    gradient: np.ndarray  # (n, 3), by the positions at fixed cell
    strain: np.ndarray  # (3, 3), what the virial has beyond the positions' part


class D4(PhysicsTerm):
    """Charge-dependent dispersion; its energy is spread evenly over the atoms of a structure.

    Args:
        settings: functional.
        context: heads and their factors.

    Raises:
        ConfigError: a functional has no D4 parameters, or a head is not named.
        ModelError: the package dftd4 is not installed; or, when called, the model is being exported.

    Source:
        Caldeweyher et al., J. Chem. Phys. 150 (2019) 154122; periodic: Phys. Chem. Chem. Phys. 22 (2020) 8499.
    """

    exportable = False

    def __init__(self, settings: D4Settings, context: PhysicsContext) -> None:
        super().__init__()
        self.settings = settings
        names = _by_head(settings.functional, context.heads)
        for name in filter(None, names):
            _parameters(name, settings.three_body)
        self.options = json.dumps({**settings.model_dump(), "functional": names})
        self.register_buffer("scale", torch.tensor(context.scale, dtype=torch.float64), persistent=False)

    def forward(self, geometry: Geometry, charges: Tensor | None = None) -> Share:
        """Energies (N,), eV, and gradients by positions and strain; the total charge is that of the structure."""
        if torch.jit.is_tracing() or torch.compiler.is_exporting():
            raise ModelError(
                "D4 cannot be exported: it calls the program dftd4",
                "physics.d4",
                "use the bundle itself (Python, ASE), or train with d3",
            )
        graph = geometry.graph
        energies, positions, strain = torch.ops.forgefield.d4(
            graph.positions,
            graph.cell,
            graph.pbc,
            graph.numbers,
            graph.structure,
            graph.head,
            graph.charge,
            self.options,
            self.training,
        )
        scale = self.scale.index_select(0, graph.head)
        of_atoms = scale.index_select(0, graph.structure)
        return Share(
            energies * of_atoms, positions=positions * of_atoms.unsqueeze(1), strain=strain * scale.reshape(-1, 1, 1)
        )


def _by_head(functional: str | dict[str, str | None], heads: tuple[str, ...]) -> list[str | None]:
    if isinstance(functional, str):
        return [functional] * len(heads)
    absent = [name for name in heads if name not in functional]
    if absent:
        fix = f"name it, null if it needs none; there are: {', '.join(functional)}"
        raise ConfigError(f"no functional for the head {absent[0]!r}", "physics.d4.functional", fix)
    return [functional[name] for name in heads]


def _interface() -> Any:
    try:
        from dftd4 import interface
    except ImportError as error:
        raise ModelError(f"D4 needs a package: {error}", "physics.d4", "pip install dftd4, or use d3") from error
    return interface


def _parameters(functional: str, three_body: bool) -> Any:
    """Damping parameters, as the program keeps them."""
    try:
        return _interface().DampingParam(method=functional, atm=three_body)
    except RuntimeError as error:
        table = tomllib.loads((resources.files("dftd4") / "parameters.toml").read_text(encoding="utf-8"))
        near = difflib.get_close_matches(functional.lower(), table["parameter"], n=3, cutoff=0.5)
        raise ConfigError(
            f"dftd4 has no parameters for the functional {functional!r}",
            "physics.d4.functional",
            f"did you mean {', '.join(near)}?" if near else "docs/physics.md says where the names are listed",
        ) from error


class Kept:
    """Results by what went in, the least used thrown away beyond a number of bytes."""

    def __init__(self, limit: int) -> None:
        self.limit, self.size = limit, 0
        self.found: OrderedDict[bytes, Found] = OrderedDict()

    def get(self, key: bytes) -> Found | None:
        """Return what was kept."""
        if key in self.found:
            self.found.move_to_end(key)
        return self.found.get(key)

    def put(self, key: bytes, found: Found) -> None:
        """Keep a result."""
        self.found[key] = found
        self.size += found.gradient.nbytes + 256
        while self.size > self.limit:
            _, old = self.found.popitem(last=False)
            self.size -= old.gradient.nbytes + 256


_kept = Kept(KEPT)


def _compute(arrays: list[np.ndarray], periodic: np.ndarray, functional: str, options: Mapping[str, Any]) -> Found:
    """Run the program on one structure."""
    numbers, positions, cell, charge = arrays
    lattice = (cell / BOHR, periodic) if periodic.all() else (None, None)
    param = _parameters(functional, options["three_body"])
    width = options["cutoff_width"] / BOHR
    reach = [options[name] / BOHR for name in ("cutoff", "three_body_cutoff", "cn_cutoff")]
    try:
        model = _interface().DispersionModel(numbers, positions / BOHR, float(charge), *lattice)
        model.set_realspace_cutoff(*reach, width, width)
        result = model.get_dispersion(param, grad=True)
    except RuntimeError as error:
        raise DataError(f"dftd4 refuses a structure of {len(numbers)} atoms: {error}", "physics.d4") from error
    gradient = result["gradient"] * (HARTREE / BOHR)
    return Found(float(result["energy"]) * HARTREE, gradient, result["virial"] * HARTREE)


def _one(
    arrays: list[np.ndarray], periodic: np.ndarray, functional: str, options: Mapping[str, Any], keep: bool
) -> Found:
    """Result of one structure, computed or kept."""
    if periodic.any() and not periodic.all():
        raise DataError(
            "D4 is for molecules and for crystals periodic in three directions, and a structure is neither",
            "physics.d4",
            "use d3, or a cell that is periodic in three directions with a wide gap",
        )
    if not keep:
        return _compute(arrays, periodic, functional, options)
    parts = [a.tobytes() for a in (*arrays, periodic)] + [json.dumps([functional, options]).encode()]
    key = hashlib.sha256(b"|".join(parts)).digest()
    found = _kept.get(key)
    if found is None:
        found = _compute(arrays, periodic, functional, options)
        _kept.put(key, found)
    return found


@torch.library.custom_op(
    "forgefield::d4",
    mutates_args=(),
    schema="(Tensor positions, Tensor cell, Tensor pbc, Tensor numbers, Tensor structure, Tensor head, Tensor charge, "
    "str options, bool keep) -> (Tensor, Tensor, Tensor)",
)
def _d4(positions, cell, pbc, numbers, structure, head, charge, options, keep):  # noqa: ANN001, ANN202
    """Energies (N,), gradients (N, 3), derivative by strain (S, 3, 3) of a batch."""
    chosen = json.loads(options)
    as_array = lambda t: t.detach().cpu().numpy()  # noqa: E731
    x, box = as_array(positions.double()), as_array(cell.double())
    z, where, q = as_array(numbers), as_array(structure), as_array(charge.double())
    periodic, heads = as_array(pbc), as_array(head)
    energies, gradient, strain = np.zeros(len(z)), np.zeros_like(x), np.zeros_like(box)
    for k in range(len(box)):
        functional = chosen["functional"][heads[k]]
        if functional is None:
            continue
        rows = np.flatnonzero(where == k)
        arrays = [z[rows], x[rows], box[k], q[k]]
        found = _one(arrays, periodic[k], functional, chosen, keep)
        energies[rows], gradient[rows], strain[k] = found.energy / len(rows), found.gradient, found.strain
    back = lambda a: torch.as_tensor(a, dtype=cell.dtype, device=cell.device)  # noqa: E731
    return back(energies), back(gradient), back(strain)


@_d4.register_fake
def _(positions, cell, pbc, numbers, structure, head, charge, options, keep):  # noqa: ANN001, ANN202
    n = positions.shape[0]
    return cell.new_empty(n), cell.new_empty(n, 3), torch.empty_like(cell)


ENTRY = Entry(settings=D4Settings, build=D4, summary="D4 dispersion for a functional, by the program dftd4")
