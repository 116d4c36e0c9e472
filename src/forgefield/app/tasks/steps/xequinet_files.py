"""Test results under the names and in the form that scripts for XequiNet read: `export.files_of: xequinet`."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from forgefield.app.folder import RunFolder
from forgefield.app.reports.contents import Predictions
from forgefield.app.run import RunConfig
from forgefield.app.tasks.steps.further import unit_of
from forgefield.core.disk import write_atomic
from forgefield.core.errors import ConfigError
from forgefield.core.quantities import QUANTITIES
from forgefield.core.structure import Structure
from forgefield.data.dataset import Dataset
from forgefield.data.parts import TrainingData

FOLDER = "xequinet"
NAMES = {"charges": "atomic_charges", "polarizability": "polar", "isotropic_polarizability": "iso_polarizability"}
"""Quantities that XequiNet calls otherwise."""
PER_ATOM = "energy/atom"


class Compared(NamedTuple):
    """A property of all tested structures, in a row; not a number where there is no label."""

    unit: str
    value: np.ndarray  # (S, ...) or (N, ...)
    label: np.ndarray  # the same shape
    is_class: bool = False


def check_tested(config: RunConfig, data: TrainingData) -> None:
    """Refuse test results of a run that has nothing to test on.

    Raises:
        ConfigError: there are no test structures.
    """
    if config.export.files_of == "xequinet" and not config.data.test and data.test is None:
        fix = "set data.test or data.split.test, or take export.files_of out"
        raise ConfigError("xequinet: its files hold test results, and there are no test data", "export.files_of", fix)


def write_xequinet_files(folder: RunFolder, name: str, tests: Mapping[str, Dataset]) -> list[Path]:
    """Write the test results of a finished run into run_dir/xequinet.

    NAME_test.log: units, and mean absolute and root mean square errors of each property; NAME_test_results.npz: what
    XequiNet's NAME_test_results.pt holds, as plain arrays: `data/...` (structures and labels), `results/...`
    (predictions). Units: eV, Å, e; the virial is -dE/dstrain, the stress the virial per volume.

    Args:
        folder: of the run, with its evaluations.
        name: of the run.
        tests: what was tested on, by name; one after the other in the files.

    Returns:
        The files.
    """
    parts = [(Predictions.read(folder.evaluation(test) / "predictions.npz"), data) for test, data in tests.items()]
    structures = [structure for found, data in parts for structure in _tested(found, data)]
    compared = properties([found for found, _ in parts], structures)
    arrays = {f"data/{key}": value for key, value in described(structures).items()}
    for key, one in compared.items():
        arrays[f"results/{key}"] = one.value
        if np.isfinite(one.label).any():
            arrays[f"data/{key}"] = one.label
    packed = io.BytesIO()
    np.savez_compressed(packed, **arrays)  # type: ignore[arg-type]
    place, word = folder.root / FOLDER, name.replace("/", "_")
    return [
        write_atomic(place / f"{word}_test.log", log_of(compared, structures)),
        write_atomic(place / f"{word}_test_results.npz", packed.getvalue()),
    ]


def _tested(found: Predictions, dataset: Dataset) -> Iterator[Structure]:
    """Yield the structures that are predicted: in the order of the data set, of which some may have been left out."""
    wanted = iter(str(origin) for origin in found.origin)
    origin = next(wanted, None)
    for k in range(len(dataset)):
        if (structure := dataset[k]).origin == origin:
            yield structure
            origin = next(wanted, None)


def properties(parts: Sequence[Predictions], structures: Sequence[Structure]) -> dict[str, Compared]:
    """Return what is predicted under XequiNet's names.

    Args:
        parts: predictions of the test sets.
        structures: theirs, in the same order.
    """
    found: dict[str, Compared] = {}

    def add(name: str, unit: str, value: np.ndarray, label: np.ndarray, is_class: bool = False) -> None:
        if len(value) and np.isfinite(value).any():
            found[name] = Compared(unit.replace("Å", "Angstrom"), value, label, is_class)

    add("energy", "eV", _row(parts, "energy"), _row(parts, "energy_label"))
    if all(len(part.forces) == len(part.numbers) for part in parts):
        add("forces", "eV/Å", _row(parts, "forces"), _row(parts, "forces_label"))
        volumes = np.array([s.volume if s.pbc.all() else np.nan for s in structures]).reshape(-1, 1, 1)
        stress, label = _row(parts, "stress"), _row(parts, "stress_label")
        add("virial", "eV", -volumes * stress, -volumes * label)
        add("stress", "eV/Å^3", np.where(np.isnan(volumes), np.nan, -stress), -label)
    for name in parts[0].further:
        if all(name in part.further for part in parts):
            one = [part.further[name] for part in parts]
            value, target = (np.concatenate(rows) for rows in ([p.value for p in one], [p.label for p in one]))
            shape = _shape(name, value.shape[1])
            args = value.reshape(len(value), *shape), target.reshape(len(value), *shape)
            add(NAMES.get(name, name), unit_of(name), *args, one[0].kind == "class")
    return found


def _row(parts: Sequence[Predictions], name: str) -> np.ndarray:
    return np.concatenate([getattr(part, name) for part in parts])


def _shape(name: str, width: int) -> tuple[int, ...]:
    """Return the shape of a row of a quantity."""
    if name in QUANTITIES:
        return QUANTITIES[name].shape
    return (3, 3) if name == "cartesian" else (width,) if width > 1 else ()


def described(structures: Sequence[Structure]) -> dict[str, np.ndarray]:
    """Return the structures as XequiNet's batches have them; charge and spin (unpaired electrons) if all state them."""
    counts = np.array([len(s) for s in structures])
    found = {
        "atomic_numbers": np.concatenate([s.numbers for s in structures]),
        "pos": np.concatenate([s.positions for s in structures]),
        "cell": np.array([s.cell for s in structures]),
        "pbc": np.array([s.pbc for s in structures]),
        "batch": np.repeat(np.arange(len(structures)), counts),
        "ptr": np.concatenate([[0], np.cumsum(counts)]),
        "origin": np.array([s.origin for s in structures]),
    }
    if all(s.charge is not None for s in structures):
        found["charge"] = np.array([s.charge for s in structures])
    if all(s.multiplicity is not None for s in structures):
        found["spin"] = np.array([s.multiplicity for s in structures]) - 1
    return found


def log_of(compared: Mapping[str, Compared], structures: Sequence[Structure]) -> str:
    """Return the text of the log."""
    lines = [" --- XequiNet Testing", " --- Property: pos --- Unit: Angstrom"]
    lines += [f" --- Property: {name} --- Unit: {one.unit or 'as labelled'}" for name, one in sorted(compared.items())]
    errors = dict(sorted(_errors(compared, np.array([len(s) for s in structures]))))
    table = [["", *(name.capitalize() for name in errors)]]
    table.append(["Test MAE", *(f"{np.abs(e).mean():.6f}" for e in errors.values())])
    table.append(["Test RMSE", *(f"{np.sqrt(np.square(e).mean()):.6f}" for e in errors.values())])
    widths = [max(len(row[k]) for row in table) for k in range(len(table[0]))]
    rows = [[row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))] for row in table]
    return "\n".join([*lines, " --- Test Results", *("  ".join(row) for row in rows)]) + "\n"


def _errors(compared: Mapping[str, Compared], counts: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the errors of all labelled components of each property; of the energy also per atom."""
    for name, one in compared.items():
        error = one.value - one.label
        if not one.is_class and np.isfinite(error).any():
            yield name, error[np.isfinite(error)]
            if name == "energy":
                yield PER_ATOM, (error / counts)[np.isfinite(error)]
