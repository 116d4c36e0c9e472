"""What the report tells, read from the plain files of a run folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ruamel.yaml import YAML

from forgefield.app.folder import METRICS, RunFolder, read_json
from forgefield.core.elements import symbol


class Property(NamedTuple):
    """Predictions and labels of one more quantity, R rows of D components; an absent label is NaN."""

    value: np.ndarray  # (R, D)
    label: np.ndarray  # (R, D)
    per: str  # structure or atom
    kind: str  # number or class

    @property
    def known(self) -> np.ndarray:
        """Which rows are labelled, (R,)."""
        return np.isfinite(self.label).all(axis=1)


_FURTHER = "further"


@dataclass(frozen=True)
class Predictions:
    """Predictions and labels of one data set; an absent label is NaN.

    Args:
        n_atoms: atoms of each structure, (S,).
        numbers: atomic numbers, all structures in a row, (N,).
        energy: predicted energies, (S,), eV.
        energy_label: reference energies, (S,), eV.
        baseline: sum of the free-atom energies of each structure, (S,), eV.
        forces: predicted forces, (N, 3), eV/Å; empty where they were skipped.
        forces_label: reference forces, (N, 3), eV/Å.
        stress: predicted stress, (S, 3, 3), eV/Å^3.
        stress_label: reference stress, (S, 3, 3), eV/Å^3.
        index: place in the data set, (S,).
        config_type: kind of each structure, (S,).
        origin: file and frame of each structure, (S,).
        further: what else is predicted, by name.
    """

    n_atoms: np.ndarray
    numbers: np.ndarray
    energy: np.ndarray
    energy_label: np.ndarray
    baseline: np.ndarray
    forces: np.ndarray
    forces_label: np.ndarray
    stress: np.ndarray
    stress_label: np.ndarray
    index: np.ndarray
    config_type: np.ndarray
    origin: np.ndarray
    further: Mapping[str, Property] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Predictions:
        """Read predictions.npz."""
        with np.load(path, allow_pickle=False) as arrays:
            plain = {name: arrays[name] for name in cls.__dataclass_fields__ if name != _FURTHER}
            further: dict[str, Property] = {}
            for key in arrays.files:
                if key.startswith(f"{_FURTHER}:") and key.endswith(":value"):
                    place = key.removesuffix(":value")
                    _, per, kind, name = place.split(":")
                    further[name] = Property(arrays[key], arrays[f"{place}:label"], per, kind)
            return cls(**plain, further=further)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what predictions.npz holds."""
        found = {name: value for name, value in vars(self).items() if name != _FURTHER}
        for name, (value, label, per, kind) in self.further.items():
            place = f"{_FURTHER}:{per}:{kind}:{name}"
            found |= {f"{place}:value": value, f"{place}:label": label}
        return found

    @property
    def ends(self) -> np.ndarray:
        """One past the last atom of each structure, (S,)."""
        return np.cumsum(self.n_atoms)

    @property
    def has_forces(self) -> np.ndarray:
        """Which atoms have both a predicted and a reference force, (N,)."""
        if len(self.forces) != len(self.numbers):
            return np.zeros(len(self.numbers), dtype=bool)
        return np.isfinite(self.forces_label).all(axis=1)

    def formula(self, k: int) -> str:
        """Return the composition of structure `k`, carbon and hydrogen first, such as C12H12N2O."""
        end = int(self.ends[k])
        found, counts = np.unique(self.numbers[end - int(self.n_atoms[k]) : end], return_counts=True)
        named = {symbol(int(z)): int(n) for z, n in zip(found, counts, strict=True)}
        first = ["C", "H"] if "C" in named else []
        order = [s for s in first if s in named] + sorted(s for s in named if s not in first)
        return "".join(s + (str(named[s]) if named[s] > 1 else "") for s in order)


@dataclass(frozen=True)
class Evaluated:
    """One evaluated data set."""

    name: str
    metrics: dict[str, Any]
    predictions: Predictions | None

    @property
    def overall(self) -> dict[str, float | None]:
        """The errors over the whole set."""
        return self.metrics["all"]


@dataclass(frozen=True)
class Contents:
    """Everything the page shows.

    Args:
        folder: the run folder.
        record: run.json.
        config: the resolved configuration as plain values.
        config_text: the same as text.
        statistics: statistics.json, or empty.
        history: one mapping per validation.
        breakdown: the same by head, element and parameter group, as in breakdown.jsonl.
        evaluated: evaluated sets, the one to judge by first (test before validation).
        manifest: the manifest of the exported model, or empty.
    """

    folder: RunFolder
    record: dict[str, Any]
    config: dict[str, Any]
    config_text: str
    statistics: dict[str, Any]
    history: list[dict[str, Any]]
    evaluated: list[Evaluated]
    manifest: dict[str, Any] = field(default_factory=dict)
    breakdown: list[dict[str, Any]] = field(default_factory=list)

    @property
    def artifacts(self) -> Path:
        """The folder of the exported model."""
        return self.folder.root / self.record.get("artifacts", "artifacts")

    @property
    def has_energy(self) -> bool:
        """Whether the model predicts energies, or properties alone."""
        return bool(self.manifest.get("predicts", {}).get("energy", True))

    @cached_property
    def judged(self) -> Evaluated | None:
        """The set the headline speaks of."""
        return self.evaluated[0] if self.evaluated else None

    def series(self, key: str) -> np.ndarray:
        """Return one number per epoch; NaN where an epoch has none."""
        return np.array([_number(line.get(key)) for line in self.history], dtype=np.float64)


def read_contents(run_dir: str | Path) -> Contents:
    """Collect what the report needs; whatever a run does not have stays empty."""
    folder = RunFolder(run_dir)
    config_text = folder.resolved.read_text(encoding="utf-8") if folder.resolved.is_file() else ""
    record = read_json(folder.record)
    manifest = folder.root / record.get("artifacts", "artifacts") / "manifest.json"
    found = [_read_evaluation(path, folder.root) for path in folder.evaluations()]
    return Contents(
        folder=folder,
        record=record,
        config=YAML(typ="safe").load(config_text) or {},
        config_text=config_text,
        statistics=read_json(folder.statistics) if folder.statistics.is_file() else {},
        history=_read_history(folder.history),
        evaluated=sorted(found, key=lambda one: _judging_order(one.name, record.get("judged"))),
        manifest=read_json(manifest) if manifest.is_file() else {},
        breakdown=_read_history(folder.breakdown),
    )


def _judging_order(name: str, judged: str | None) -> tuple[int, str]:
    """Put the set that the run was to be judged by first, and what training saw last."""
    return (0 if name == judged else 2 if name in ("val", "train") else 1, name)


def _read_evaluation(path: Path, root: Path) -> Evaluated:
    """Read one evaluated set: a folder below evaluation/, named as the folder, or the run folder itself."""
    arrays, metrics = path / "predictions.npz", read_json(path / METRICS)
    predictions = Predictions.read(arrays) if arrays.is_file() else None
    name = metrics.get("about", {}).get("set", path.name) if path == root else path.name
    return Evaluated(name, metrics, predictions)


def _read_history(path: Path) -> list[dict[str, Any]]:
    """Read history.jsonl or breakdown.jsonl; a last line cut short by a crash is left out."""
    if not path.is_file():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            continue
        if isinstance(line, dict):
            lines.append(line)
    return lines


def _number(value: object) -> float:
    """Return a finite number as it is, and anything else as NaN."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else float("nan")
