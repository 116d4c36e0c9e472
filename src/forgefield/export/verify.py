"""Does an exported file say what the model says?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from forgefield.core.errors import ModelError
from forgefield.core.structure import Structure
from forgefield.export.prediction import Candidate, Prediction, predict, self_energies
from forgefield.models.potential import Potential
from forgefield.models.precision import matmul_precision


@dataclass(frozen=True)
class Tolerances:
    """Largest deviations allowed: absolute + relative times the magnitude of the reference.

    Args:
        energy: eV per atom.
        forces: eV/Å, per component.
        stress: eV/Å^3, per component.
        relative: of the structure's largest atom energy (self-atomic energies apart), force and stress component.
        further: of other predictions, per component, in their units.
    """

    energy: float
    forces: float
    stress: float
    relative: float
    further: float = 1e-4

    @classmethod
    def of(cls, dtype: torch.dtype) -> Tolerances:
        """Return what rounding in `dtype` explains."""
        if dtype == torch.float64:
            return cls(energy=1e-10, forces=1e-10, stress=1e-10, relative=1e-11, further=1e-10)
        return cls(energy=2e-5, forces=1e-4, stress=1e-5, relative=2e-5)


@dataclass(frozen=True)
class Certificate:
    """What was compared, and the largest deviations from the eager model that were found.

    Args:
        n_structures: structures compared.
        n_atoms: their atoms.
        max_energy_error: eV per atom.
        max_forces_error: eV/Å, per component.
        max_stress_error: eV/Å^3, per component.
        max_further_error: of all other predictions that the file gives, each in its unit, per component.
        dtype: precision of the eager model.
        torch: version of torch.
        tolerances: what was allowed.
        target: format of the file that was compared.
        kernels: implementation of the model's kernels that the file holds.
    """

    n_structures: int
    n_atoms: int
    max_energy_error: float
    max_forces_error: float
    max_stress_error: float
    dtype: str
    torch: str
    tolerances: Tolerances
    target: str = ""
    kernels: str = "plain PyTorch"
    max_further_error: float = 0.0

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Certificate:
        """Return the certificate that `to_json` described."""
        fields: dict[str, Any] = {**values, "tolerances": Tolerances(**values["tolerances"])}
        return cls(**fields)

    def to_json(self) -> dict[str, object]:
        """Return plain numbers and texts."""
        return asdict(self)


def verify(
    candidate: Candidate,
    potential: Potential,
    structures: Sequence[Structure],
    tolerances: Tolerances | None = None,
    *,
    name: str = "the exported file",
    target: str = "",
    kernels: str = "plain PyTorch",
) -> Certificate:
    """Compare a candidate with the eager model, structure by structure.

    Args:
        candidate: predicts one structure.
        potential: the eager model.
        structures: at least one, without labels being used.
        tolerances: None takes those of the model's precision.
        name: of the candidate, for messages.
        target: format of the file, for the certificate.
        kernels: implementation of the kernels it holds, for the certificate.

    Raises:
        ModelError: it does not agree; nothing may be handed out then.
    """
    if not structures:
        raise ModelError("no structure to verify on", name, "give at least one sample structure")
    tolerances = tolerances or Tolerances.of(potential.dtype)
    largest = {"energy": 0.0, "forces": 0.0, "stress": 0.0, "further": 0.0}
    for structure in structures:
        with matmul_precision("float32", torch.device("cpu")):
            (expected,), found = predict(potential, [structure]), candidate(structure)
        lacking = expected.extra.keys() - found.extra.keys()
        if lacking and not potential.context.energy:
            raise ModelError(f"does not give {min(lacking)}", name, "do not use the file; please report it")
        for quantity, error, magnitude in _deviations(found, expected, self_energies(potential, structure)):
            allowed = getattr(tolerances, quantity) + tolerances.relative * magnitude
            if not error <= allowed:  # NaN must not pass
                raise ModelError(
                    f"{quantity}: deviates by {error:.3g} from the eager model, {allowed:.3g} is allowed "
                    f"(on {structure.origin})",
                    name,
                    "do not use the file; please report the model's settings",
                )
            largest[quantity] = max(largest[quantity], error)
    return Certificate(
        n_structures=len(structures),
        n_atoms=sum(len(s) for s in structures),
        max_energy_error=largest["energy"],
        max_forces_error=largest["forces"],
        max_stress_error=largest["stress"],
        max_further_error=largest["further"],
        dtype=str(potential.dtype).removeprefix("torch."),
        torch=torch.__version__,
        tolerances=tolerances,
        target=target,
        kernels=kernels,
    )


def _deviations(found: Prediction, expected: Prediction, alone: np.ndarray) -> Iterator[tuple[str, float, float]]:
    """Yield quantity, largest deviation, and the magnitude that rounding is proportional to.

    Energies are rounded in the model's precision without the self-atomic energies, which are kept in float64.
    """
    n = len(expected.forces)
    shapes = (np.shape(found.forces), np.shape(found.stress), np.shape(found.atom_energies))
    if shapes != ((n, 3), (3, 3), (n,)):
        raise ModelError(f"forces, stress and atom energies have shapes {shapes} for {n} atoms")
    largest = lambda x: float(np.abs(x).max())  # noqa: E731
    bound = largest(expected.atom_energies - alone)
    yield "energy", abs(found.energy - expected.energy) / n, bound
    yield "energy", largest(found.atom_energies - expected.atom_energies), bound
    yield "forces", largest(found.forces - expected.forces), largest(expected.forces)
    yield "stress", largest(found.stress - expected.stress), largest(expected.stress)
    for name, value in found.extra.items():
        if value.shape != expected.extra[name].shape:
            raise ModelError(f"{name} has shape {value.shape}, expected {expected.extra[name].shape}")
        yield "further", largest(value - expected.extra[name]), largest(expected.extra[name])
