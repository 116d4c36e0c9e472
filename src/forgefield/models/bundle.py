"""A potential on disk: weights.safetensors and manifest.json."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from forgefield.core.disk import write_atomic
from forgefield.core.elements import number, symbol
from forgefield.core.errors import ModelError
from forgefield.core.settings import Settings
from forgefield.models.architecture import ArchitectureContext, Fidelity
from forgefield.models.baseline.settings import BaselineSettings
from forgefield.models.mismatch import settings_behind
from forgefield.models.potential import ARCHITECTURES, PHYSICS, Potential, build_potential
from forgefield.models.targets import Aims

SCHEMA = "forgefield-1"
MANIFEST, WEIGHTS = "manifest.json", "weights.safetensors"
UNITS = {"energy": "eV", "length": "Å", "forces": "eV/Å", "stress": "eV/Å^3, positive = tensile"}


def describe(potential: Potential) -> dict[str, Any]:
    """Return everything needed to rebuild a potential but its weights, as JSON values."""
    context = potential.context
    energies = {
        head: {symbol(z): float(e) for z, e in zip(context.elements, row, strict=True)}
        for head, row in zip(context.heads, potential.self_energies.tolist(), strict=True)
    }
    return {
        "schema_version": SCHEMA,
        "backend": potential.backend,
        "settings": potential.settings.model_dump(mode="json"),
        "elements": [symbol(z) for z in context.elements],
        "heads": list(context.heads),
        "reference_energies": energies,
        "avg_num_neighbors": context.avg_num_neighbors,
        **({"first": [context.element_norm, context.head_norm]} if widened(context) else {}),
        "scale": potential.scale.tolist(),
        "shift": potential.shift.tolist(),
        **_optional(potential),
        "physics_scale": {name: term.scale.tolist() for name, term in potential.physics.items()},
        "cutoff": potential.cutoff,
        "dtype": str(potential.dtype).removeprefix("torch."),
        "units": UNITS,
    }


def rebuild(manifest: Mapping[str, Any], dtype: torch.dtype | None = None, seed: int = 0) -> Potential:
    """Build the potential that a description stands for, with random weights.

    Args:
        manifest: as from `describe`.
        dtype: of the weights; the description's by default.
        seed: of the weights.

    Raises:
        ModelError: the description is of another format or version.
    """
    version = manifest.get("schema_version")
    if version != SCHEMA:
        raise ModelError(f"manifest version {version!r} is not {SCHEMA!r}", fix="export it again with this version")
    entry = ARCHITECTURES.entry(manifest["backend"])
    energies = {head: {number(s): e for s, e in row.items()} for head, row in manifest["reference_energies"].items()}
    potential = build_potential(
        manifest["backend"],
        entry.settings.model_validate(manifest["settings"]),
        elements=[number(s) for s in manifest["elements"]],
        heads=manifest["heads"],
        reference_energies=energies,
        avg_num_neighbors=manifest["avg_num_neighbors"],
        scale=manifest["scale"],
        shift=manifest["shift"],
        physics={n: PHYSICS.entry(n).settings.model_validate(v) for n, v in manifest.get("physics", {}).items()},
        physics_scale=manifest["physics_scale"],
        fidelity=Fidelity.model_validate(manifest.get("fidelity", {})),
        aims=Aims.from_json(manifest["predicts"]) if "predicts" in manifest else None,
        dispersion=manifest.get("labels_dispersion", {}),
        dtype=dtype or getattr(torch, manifest["dtype"]),
        seed=seed,
        first=tuple(manifest.get("first", (0, 0))),
    )
    if "baseline" in manifest:
        potential.baseline = BaselineSettings.model_validate(manifest["baseline"])
    return potential


def _optional(potential: Potential) -> dict[str, Any]:
    """What most models lack: physics terms beside the architecture's own, and how the levels of theory differ."""
    found: dict[str, Any] = {}
    if potential.added_physics:
        found["physics"] = {n: v.model_dump(mode="json") for n, v in potential.added_physics.items()}
    if potential.dispersion:
        found["labels_dispersion"] = potential.dispersion
    if potential.baseline is not None:
        found["baseline"] = potential.baseline.model_dump(mode="json")
    if potential.context.fidelity != Fidelity():
        found["fidelity"] = potential.context.fidelity.model_dump(mode="json")
    if potential.aims != Aims():
        found["predicts"] = potential.aims.to_json()
    return found


def with_physics(potential: Potential, added: Mapping[str, Settings]) -> Potential:
    """Return a copy of a potential with further physics terms; its weights stay as they are."""
    described = describe(potential)
    terms = {name: value.model_dump(mode="json") for name, value in added.items()}
    made = rebuild({**described, "physics": described.get("physics", {}) | terms})
    made.architecture.load_state_dict(potential.architecture.state_dict())
    return made.to(next(potential.parameters()).device)


def widened(context: ArchitectureContext) -> bool:
    """Say whether elements or heads were added to a model, or taken from it, after it was made."""
    made_for = (context.element_norm, context.head_norm)
    return made_for != (len(context.elements), len(context.heads))


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save_bundle(potential: Potential, folder: Path, *, provenance: Mapping[str, Any]) -> Path:
    """Write weights and manifest into a folder, each whole or not at all.

    Returns:
        Path of the manifest.
    """
    folder = Path(folder)
    weights = {name: p.detach().cpu().contiguous() for name, p in potential.architecture.named_parameters()}
    write_atomic(folder / WEIGHTS, save(weights))
    manifest = {
        **describe(potential),
        "weights": {"path": WEIGHTS, "format": "safetensors", "sha256": sha256(folder / WEIGHTS)},
        "provenance": dict(provenance),
    }
    return write_atomic(folder / MANIFEST, json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")


def read_manifest(path: Path) -> tuple[dict[str, Any], Path]:
    """Read a manifest; `path` is the file or its folder. Returns it with its folder."""
    path = Path(path)
    file = path / MANIFEST if path.is_dir() else path
    if not file.is_file():
        raise ModelError("no manifest.json there", str(path), "give the artifacts folder of a run, or its manifest")
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelError("is no JSON manifest", str(file), "give the manifest.json of an artifact") from error
    if not isinstance(manifest, dict):
        raise ModelError("is no manifest", str(file), "give the manifest.json of an artifact")
    return manifest, file.parent


def load_bundle(
    path: Path | str,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    weights: Path | None = None,
) -> Potential:
    """Read a potential.

    Args:
        path: folder or manifest.
        dtype: of the weights; the manifest's by default.
        device: where it shall run.
        weights: another file of weights for the same model.

    Raises:
        ModelError: a file is missing, damaged (its hash differs) or belongs to another model.
    """
    manifest, folder = read_manifest(Path(path))
    potential = rebuild(manifest, dtype)
    file = Path(weights) if weights else folder / manifest["weights"]["path"]
    if not file.is_file():
        raise ModelError("weights are missing", str(file), "copy the whole artifacts folder")
    if weights is None and sha256(file) != manifest["weights"]["sha256"]:
        raise ModelError("weights differ from the manifest's sha256", str(file), "copy the artifacts folder again")
    try:
        tensors = load_file(file)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"is no safetensors file ({error})", str(file)) from error
    load_weights(potential, tensors, str(file))
    return potential.to(device)


def load_weights(potential: Potential, tensors: Mapping[str, torch.Tensor], where: str) -> None:
    """Copy weights into the architecture; names and shapes must be the same.

    Raises:
        ModelError: they are not; the first differences are named.
    """
    own = dict(potential.architecture.named_parameters())
    wrong = [f"{n} is missing" for n in own if n not in tensors]
    wrong += [f"{n} is left over" for n in tensors if n not in own]
    wrong += [
        f"{n} has shape {tuple(tensors[n].shape)}, expected {tuple(p.shape)}"
        for n, p in own.items()
        if n in tensors and tensors[n].shape != p.shape
    ]
    if wrong:
        causes = settings_behind(potential, {n: tuple(t.shape) for n, t in tensors.items()})
        shown = "; ".join(wrong[:4]) + (f"; and {len(wrong) - 4} more" if len(wrong) > 4 else "")
        text = f" (what differs is set by {', '.join(causes)})" if causes else ""
        raise ModelError(f"weights of another model: {shown}{text}", where, "use the weights of this model")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(tensors[name])
