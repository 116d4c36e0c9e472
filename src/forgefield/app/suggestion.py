"""Sensible settings for a data set, each with its reason; and the commented run.yaml that holds them."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from forgefield.app.portrait import CUTOFFS, Portrait
from forgefield.app.settings_help import first_sentence
from forgefield.core.catalog import Catalog
from forgefield.core.elements import symbol

_ATOMS_PER_BATCH = 270
_UPDATES_WANTED = 20_000
_MANY_NEIGHBORS, _FEW_NEIGHBORS = 70, 12
_BATCHES = (1, 2, 4, 5, 8, 10, 16, 32)
_EPOCHS = (30, 50, 100, 200, 300, 500, 1000)


@dataclass(frozen=True)
class Suggestion:
    """Settings with the reason for each; see `suggest`."""

    r_max: float
    why_r_max: str
    batch_size: int
    epochs: int
    patience: int
    force_weight: float
    stress_weight: float
    why_stress: str
    e0: str
    why_e0: str


def suggest(portrait: Portrait, val_fraction: float = 0.1) -> Suggestion:
    """Choose settings from the look of the data."""
    r_max, why_r_max = _cutoff(portrait)
    n_train = max(1, round(portrait.n_structures * (1 - val_fraction)))
    fits = [b for b in _BATCHES if b * portrait.size <= _ATOMS_PER_BATCH and b <= max(1, n_train // 20)]
    batch = max(fits, default=1)
    wanted = _UPDATES_WANTED / math.ceil(n_train / batch)
    epochs = next((e for e in reversed(_EPOCHS) if e <= wanted), _EPOCHS[0])
    force = 100.0 if portrait.labels["forces"] else 0.0
    stress, why_stress = _stress_weight(portrait, force)
    e0, why_e0 = _references(portrait)
    return Suggestion(r_max, why_r_max, batch, epochs, max(5, epochs // 20), force, stress, why_stress, e0, why_e0)


def _cutoff(portrait: Portrait) -> tuple[float, str]:
    """Five Ångström unless atoms have too many neighbours for speed, or too few to see their surroundings."""
    chosen = 5.0
    while portrait.neighbors[chosen][1] > _MANY_NEIGHBORS and chosen > CUTOFFS[0]:
        chosen -= 0.5
    while portrait.neighbors[chosen][1] < _FEW_NEIGHBORS and portrait.n_periodic and chosen < CUTOFFS[-1]:
        chosen += 0.5
    while portrait.neighbors[chosen][0] == 0 and chosen < CUTOFFS[-1]:
        chosen += 0.5
    return (
        chosen,
        f"{portrait.neighbors[chosen][1]:.0f} neighbours on average, {portrait.neighbors[chosen][0]} at least",
    )


def _stress_weight(portrait: Portrait, force: float) -> tuple[float, str]:
    """Let the stress loss weigh a tenth of the force loss when both are predicted equally well."""
    complete = portrait.labels["stress"] == portrait.n_structures
    if not complete or not portrait.stress_rms or not portrait.force_rms or not force:
        why = "no stress labels" if not portrait.labels["stress"] else "not every frame has a stress"
        return 0.0, why
    raw = 0.1 * force * (portrait.force_rms / portrait.stress_rms) ** 2
    return 10.0 ** min(5, max(0, round(math.log10(raw)))), "about a tenth of the force term's size"


def _references(portrait: Portrait) -> tuple[str, str]:
    missing = [symbol(z) for z in portrait.elements if z not in portrait.isolated]
    if not missing:
        return "isolated", "the data hold a lone atom of every element"
    if portrait.isolated:
        return "least_squares", f"lone atoms of {', '.join(missing)} are missing from the data; better give values"
    return "least_squares", "fitted to the energies; better: energies of lone atoms, {H: -13.6, ...} in eV"


@dataclass(frozen=True)
class Choices:
    """What the user of `init` decides; the rest is suggested.

    Args:
        name: of the run.
        backend: architecture.
        run_dir: as it shall stand in the file.
        data: train, val and test paths, as they shall stand in the file.
        extra: further keys of the data block, label names and units, with their values.
    """

    name: str
    backend: str
    run_dir: str
    data: Mapping[str, Sequence[str]]
    extra: Mapping[str, str]


def write_text(portrait: Portrait, chosen: Suggestion, user: Choices, notes: Sequence[str]) -> str:
    """Return the commented run.yaml; `notes` are warnings that stand in it as comments."""
    lines = [
        "# `forgefield check FILE` looks before, `forgefield run FILE` carries out, `forgefield explain KEY` explains.",
        f"# Data: {portrait.n_structures} structures of {_sizes(portrait)}; {portrait.names()}; {_labels(portrait)}.",
        *(f"# LOOK HERE: {note}" for note in notes),
        "",
        f"name: {quoted(user.name)}",
        "task: train                    # also: finetune, resume, evaluate, infer, export",
        f"backend: {user.backend}",
        f"run_dir: {_beside(quoted(user.run_dir), 'new folder; everything the run makes stands there', 21)}",
        "device: auto                   # CUDA if there is one; or cpu, cuda:0",
        "dtype: float32                 # float64 is slower, for vibrations and tiny energy differences",
        "",
        *_data_block(user, chosen),
        "",
        *_model_block(user.backend, chosen),
        "",
        *_train_block(portrait, chosen),
    ]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _data_block(user: Choices, chosen: Suggestion) -> list[str]:
    lines = ["data:"]
    for key, paths in user.data.items():
        if paths:
            shown = quoted(paths[0]) if len(paths) == 1 else f"[{', '.join(quoted(p) for p in paths)}]"
            lines.append(f"  {key}: {shown}")
    if not user.data.get("test"):
        lines.append("  # test: test.xyz             # evaluated after training, shown in report.html")
    if not user.data.get("val"):
        lines.append(_line("val_fraction", "0.1", "part of the training data that chooses the best epoch"))
    lines.append(_line("e0", chosen.e0, chosen.why_e0))
    lines += [f"  {key}: {quoted(value)}" for key, value in user.extra.items()]
    if not any(key.endswith("_unit") for key in user.extra):
        lines.append(
            "  # energy_unit: eV            # also Ha, kcal/mol, kJ/mol; length_unit, forces_unit, stress_unit"
        )
    return lines


def _model_block(backend: str, chosen: Suggestion) -> list[str]:
    fields = Catalog("forgefield.models.architectures").entry(backend).settings.model_fields
    lines = ["model:"]
    for key in ("r_max", "hidden_irreps", "max_ell", "correlation", "num_interactions"):
        if key not in fields:
            continue
        value = f"{chosen.r_max:.1f}" if key == "r_max" else str(fields[key].default)
        why = f"cutoff, Å: {chosen.why_r_max}" if key == "r_max" else _first_sentence(fields[key].description or "")
        lines.append(_line(key, value, why))
    return lines if len(lines) > 1 else ["model: {}"]


def _train_block(portrait: Portrait, chosen: Suggestion) -> list[str]:
    energy = 1.0 if portrait.labels["energy"] else 0.0
    return [
        "train:",
        _line("epochs", str(chosen.epochs), "passes over the data"),
        "  # max_minutes: 60            # stop by the clock; `forgefield resume` goes on",
        _line("batch_size", str(chosen.batch_size), f"about {chosen.batch_size * portrait.size:.0f} atoms per batch"),
        _line("lr", "0.01", "initial learning rate"),
        _line("plateau_patience", str(chosen.patience), "epochs without progress before the rate is lowered"),
        _line("energy_weight", f"{energy:g}", "" if energy else "no energy labels"),
        _line("force_weight", f"{chosen.force_weight:g}", "" if chosen.force_weight else "no force labels"),
        _line("stress_weight", f"{chosen.stress_weight:g}", chosen.why_stress),
        _line("ema_decay", "0.99", "average of the weights over many updates; it is what is kept"),
        _line("seed", "0", "same seed, same run"),
    ]


def _line(key: str, value: str, why: str) -> str:
    return f"  {key}: {_beside(value, why, 26 - len(key))}"


def _beside(value: str, comment: str, width: int) -> str:
    """Return a value with a comment in the column where comments stand."""
    return f"{value:<{max(width, len(value))}} # {comment}" if comment else value


def _sizes(portrait: Portrait) -> str:
    small, large = int(portrait.sizes.min()), int(portrait.sizes.max())
    return f"{small} atoms" if small == large else f"{small} to {large} atoms"


def _labels(portrait: Portrait) -> str:
    return "labels: " + (", ".join(name for name, count in portrait.labels.items() if count) or "none")


def _first_sentence(text: str) -> str:
    return first_sentence(text)[:1].lower() + first_sentence(text)[1:]


def quoted(text: str) -> str:
    """Return text as a YAML scalar."""
    plain = re.fullmatch(r"[A-Za-z_./][\w./+-]*", text) and text.lower() not in ("null", "true", "false", ".", "..")
    return text if plain else json.dumps(text, ensure_ascii=False)


def relative(path: Path, folder: Path) -> str:
    """Return a path as seen from a folder."""
    return os.path.relpath(path.absolute(), folder.absolute())
