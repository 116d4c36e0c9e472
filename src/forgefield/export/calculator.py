"""The ASE calculator."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import BaseCalculator, Calculator, PropertyNotImplementedError, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from forgefield.core import allocator
from forgefield.core.errors import ConfigError, DeviceError, ModelError
from forgefield.core.settings import Matmul
from forgefield.core.structure import Structure
from forgefield.export.prediction import predict_graph
from forgefield.export.verlet import MovingGraph, VerletList, moved
from forgefield.export.whole import choose_base, together
from forgefield.graph.needs import Electrons
from forgefield.models.bundle import load_bundle
from forgefield.models.potential import Potential
from forgefield.models.precision import require

DTYPES = {"float32": torch.float32, "float64": torch.float64}


class ForgeField(Calculator):
    """ASE calculator of a potential: energy, free_energy, energies, forces and, in 3D-periodic cells, stress.

    Units are ASE's: eV, Å, eV/Å, eV/Å^3; stress in Voigt order xx, yy, zz, yz, xz, xy, positive = tensile.
    `free_energy` equals `energy`; `energies` are per atom, self-atomic energies included. What else a model predicts
    (charges, dipole, targets of the user's own) is in `results` under its name; `get_property(NAME)` gives it. A model
    of properties alone has no energy.

    Args:
        potential: the model, on the device and in the precision to run in.
        head: name of the head to use; may be left out if the model has one only.
        skin: margin of the neighbour search, Å; 0 searches at every step. The results do not depend on it.
        matmul: products of float32 matrices: float32 (strict), or the faster and less exact tf32 (newer NVIDIA GPUs) or
            bf16 (processors with AMX); refused where the machine cannot do it. Left alone outside of `calculate`.
        baseline: for a model that corrects a cheaper level: an ASE calculator of that level; "correction" gives the
            correction alone; None computes GFN-xTB by tblite, and refuses levels that are not known here.
    """

    implemented_properties: ClassVar[list[str]] = ["energy", "free_energy", "energies", "forces", "stress"]

    def __init__(
        self,
        potential: Potential,
        *,
        head: str | None = None,
        skin: float = 0.5,
        matmul: Matmul = "float32",
        baseline: BaseCalculator | Literal["correction"] | None = None,
    ) -> None:
        super().__init__()
        allocator.tune()
        self.potential = potential.eval()
        self.head = choose_head(potential.heads, head)
        self.base = choose_base(potential, baseline)
        self._asks = tuple(dict.fromkeys((*potential.needs.electrons, *(self.base.electrons if self.base else ()))))
        self._features = potential.needs.features
        self.moving = MovingGraph(potential.needs, skin)
        self._last: Structure | None = None
        if potential.jumps:
            warnings.warn(potential.jumps, stacklevel=2)
        standard = type(self).implemented_properties if potential.context.energy else []
        self.implemented_properties = [*standard, *potential.targets.quantities]  # type: ignore[misc]
        require(matmul, next(potential.parameters()).device, potential.dtype, "matmul")
        self.matmul: Matmul = matmul

    @property
    def neighbours(self) -> VerletList:
        """The neighbour list, which counts its searches."""
        return self.moving.neighbours

    @classmethod
    def load(
        cls,
        folder: str | Path,
        device: str = "auto",
        dtype: str | torch.dtype | None = None,
        head: str | None = None,
        skin: float = 0.5,
        matmul: Matmul = "float32",
        baseline: BaseCalculator | Literal["correction"] | None = None,
    ) -> ForgeField:
        """Load an artifact folder (or its manifest.json) and check the weights against their sha256.

        Args:
            folder: the `artifacts` folder.
            device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1".
            dtype: "float32" or "float64"; None keeps the precision the model was saved in.
            head: name of the head; may be left out if the model has one only.
            skin: margin of the neighbour search, Å.
            matmul: precision of products of float32 matrices: "float32", "tf32" or "bf16".
            baseline: the level that a delta-model corrects: an ASE calculator, "correction", or None, see the class.

        Raises:
            ForgeError: the folder, its weights, the device, the dtype, the head, matmul or baseline cannot be used.
        """
        potential = load_bundle(Path(folder), dtype=choose_dtype(dtype), device=choose_device(device))
        return cls(potential.hold_weights(), head=head, skin=skin, matmul=matmul, baseline=baseline)

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """Say what of elements, positions and cell has changed since the last calculation.

        ASE asks several times per step; charges and magnetic moments, which it compares too, change nothing here.
        """
        last = self.atoms
        if last is None or len(last) != len(atoms):
            return list(all_changes)
        changes = [
            name for name in ("positions", "numbers") if not np.array_equal(last.arrays[name], atoms.arrays[name])
        ]
        changes += ["cell"] if not np.array_equal(last.cell.array, atoms.cell.array) else []
        changes += ["pbc"] if not np.array_equal(last.pbc, atoms.pbc) else []
        changes += ["info"] if any(_differ(last, atoms, name) for name, _ in self._features) else []
        if self.potential.needs.atom_charges and not _same_charges(last, atoms):
            changes.append("initial_charges")
        return changes + (["electrons"] if electrons_of(last, self._asks) != electrons_of(atoms, self._asks) else [])

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        """Compute all properties at once (ASE calls this when something changed)."""
        if atoms is not None and (self.atoms is None or self.check_state(atoms)):
            self.atoms = atoms.copy()
        structure = self._structure()
        has_stress = bool(structure.pbc.all())
        if "stress" in (properties or ()) and not has_stress and self.potential.context.energy:
            raise PropertyNotImplementedError(
                "stress needs a cell that is periodic in all three directions; this one has "
                f"pbc = {structure.pbc.tolist()}. Set atoms.pbc = True and a cell"
            )
        graph = self.moving.graph(structure, self.potential)
        (found,) = predict_graph(self.potential, graph, [structure], self.matmul)
        self.results = {name: value if np.ndim(value) else float(value) for name, value in found.extra.items()}
        if not self.potential.context.energy:
            return
        energy = {"energy": found.energy, "free_energy": found.energy, "energies": found.atom_energies}
        self.results |= {**energy, "forces": found.forces}
        if has_stress:
            self.results["stress"] = full_3x3_to_voigt_6_stress(found.stress)
        if self.base is not None:
            base = self.base.compute(structure, self.atoms, stress=has_stress)
            self.results = together(self.results, base, self.potential.baseline.targets)

    def _structure(self) -> Structure:
        """The atoms as they are now; as long as only positions change, the rest of the last structure is kept."""
        atoms, last = self.atoms, self._last
        same = last is not None and np.array_equal(last.numbers, atoms.arrays["numbers"])
        electrons = electrons_of(atoms, self._asks)
        same = same and all(getattr(last, name) == value for name, value in electrons.items())
        features = features_of(atoms, [name for name, _ in self._features])
        same = same and all(np.array_equal(last.features.get(name, ()), value) for name, value in features.items())
        charges = charges_of(atoms) if self.potential.needs.atom_charges else {}
        same = same and last.labels.keys() == charges.keys()
        same = same and all(np.array_equal(last.labels[name], value) for name, value in charges.items())
        same = same and np.array_equal(last.cell, atoms.cell.array) and np.array_equal(last.pbc, atoms.pbc)
        if same:
            self._last = moved(last, atoms.arrays["positions"])
        else:
            fixed = {"head": self.head, "origin": "Atoms", "features": features, "labels": charges, **electrons}
            self._last = Structure(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, **fixed)
        return self._last


def _differ(last: Atoms, atoms: Atoms, name: str) -> bool:
    return not np.array_equal(last.info.get(name, ()), atoms.info.get(name, ()))


def _same_charges(last: Atoms, atoms: Atoms) -> bool:
    return last.has("initial_charges") == atoms.has("initial_charges") and np.array_equal(
        last.get_initial_charges(), atoms.get_initial_charges()
    )


def charges_of(atoms: Atoms) -> dict[str, np.ndarray]:
    """Return the initial charges of atoms as the label `charges`, (N,), e; nothing where none were set."""
    return {"charges": atoms.get_initial_charges()} if atoms.has("initial_charges") else {}


def features_of(atoms: Atoms, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Return further inputs of the structure, (k,) each, from `atoms.info`; those that are not there are left out."""
    return {name: np.atleast_1d(np.asarray(atoms.info[name], float)) for name in names if name in atoms.info}


def electrons_of(atoms: Atoms, asked: Sequence[Electrons]) -> dict[str, Any]:
    """Return what atoms say of their electrons, of what a model asks for, with the units of `Structure`.

    The total charge is read from `atoms.info["charge"]`, else it is the sum of the initial charges, where there are
    some; the multiplicity is read from `atoms.info["multiplicity"]`.
    """
    found: dict[str, Any] = {name: atoms.info.get(name) for name in asked}
    if "charge" in found and found["charge"] is None and atoms.has("initial_charges"):
        found["charge"] = float(atoms.get_initial_charges().sum())
    return found


def choose_head(heads: list[str], head: str | None) -> str:
    """Return the head to use; None is enough if there is one only.

    Raises:
        ModelError: the head is missing from the model, or several heads are there and none was named.
    """
    if head is None and len(heads) == 1:
        return heads[0]
    names = ", ".join(repr(h) for h in heads)
    if head is None:
        raise ModelError(f"the model has {len(heads)} heads", "head", f"name one of {names}")
    if head not in heads:
        raise ModelError(f"the model has no head {head!r}", "head", f"name one of {names}")
    return head


def choose_device(device: str) -> torch.device:
    """Return the device of that name; "auto" is the first GPU, or the CPU if there is none.

    Raises:
        DeviceError: it is not there.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise DeviceError(f"{device!r} is no device", "device", "use auto, cpu, cuda or cuda:0") from None
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        there = torch.cuda.device_count()
        raise DeviceError(f"{device!r} is not there ({there} CUDA devices found)", "device", "use auto or cpu")
    return chosen


def choose_dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    """Return the torch dtype of a name; None stays None.

    Raises:
        ConfigError: neither float32 nor float64.
    """
    if dtype is None or dtype in DTYPES.values():
        return dtype
    if dtype not in DTYPES:
        raise ConfigError(f"{dtype!r} is no dtype to run in", "dtype", "use float32 or float64")
    return DTYPES[dtype]
