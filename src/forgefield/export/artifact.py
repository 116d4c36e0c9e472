"""The folder that is handed out: weights, manifest, exported files, and proof that they agree."""

from __future__ import annotations

import copy
import json
import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from forgefield.core.catalog import Catalog
from forgefield.core.errors import ForgeError, ModelError
from forgefield.core.structure import Structure
from forgefield.export.physics import PhysicsReport, check_physics
from forgefield.export.prediction import Candidate, predict
from forgefield.export.probes import bare, probes
from forgefield.export.target import Target, check_files, gives
from forgefield.export.verify import Certificate, verify
from forgefield.graph.pairs import find_pairs
from forgefield.kernels.choice import describe
from forgefield.models.bundle import MANIFEST, SCHEMA, load_bundle, read_manifest, save_bundle, sha256
from forgefield.models.potential import Potential

TARGETS = Catalog("forgefield.export.targets")
MAX_SAMPLE = 16  # structures of the sample that are compared
N_PHYSICS = 2  # smallest structures of the sample, two atoms or more, whose physics is checked


@dataclass(frozen=True)
class Artifact:
    """An artifact folder as it was written or found.

    Args:
        folder: where it lies.
        manifest: the whole manifest.json.
        certificates: agreement with the eager model, by file.
        physics: finite differences and rotation.
    """

    folder: Path
    manifest: Mapping[str, Any]
    certificates: Mapping[str, Certificate]
    physics: PhysicsReport

    def path(self, name: str) -> Path:
        """Return the path of a file by its name in the manifest, for example "torchscript"."""
        files = self.manifest["files"]
        if name not in files:
            raise ModelError(f"no {name!r} in this artifact", str(self.folder), "there are: " + ", ".join(files))
        return self.folder / files[name]["path"]


def export_artifacts(
    potential: Potential,
    folder: Path | str,
    *,
    targets: Sequence[str] = ("torchscript",),
    provenance: Mapping[str, Any],
    sample: Sequence[Structure],
    correction_alone: bool = False,
) -> Artifact:
    """Write an artifact folder, and refuse unless everything in it agrees with the eager model.

    All is written to a new folder beside it and renamed at the end; an artifact that lies there already is replaced
    only then.

    Args:
        potential: the model.
        folder: the artifact folder itself.
        targets: names of export formats.
        provenance: where the model comes from; JSON values, kept in the manifest.
        sample: structures of the data set to verify on; the first 16 are compared, labels are not used.
        correction_alone: write files of a model that corrects a baseline, although they hold the correction alone.

    Raises:
        ForgeError: a target is unknown, a file deviates, or the folder cannot be written or holds other things.
    """
    folder = Path(folder)
    made = {name: _build_target(name) for name in targets}
    check_files(potential, targets)
    if made and potential.baseline is not None and not correction_alone:
        what = f"a file of {', '.join(made)} would hold the correction to {potential.baseline.name} alone"
        fix = "give none (targets: []): the weights serve Python and ASE as a whole; or say correction_alone: true"
        raise ModelError(what, "export.targets", fix)
    if not sample:
        raise ModelError("no structure to verify the export on", "sample", "give at least one, for example of the data")
    if not any(potential.takes(s.pbc.tolist()) for s in sample):
        what = "no structure of the sample is one that the model's physics terms are meant for"
        raise ModelError(what, "sample", "give structures as the model was trained on")
    _require_replaceable(folder)
    partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.partial")
    try:
        artifact_manifest = _write(potential, partial, made, provenance, sample)
        _swap(partial, folder)
    except (OSError, SafetensorError) as error:
        raise ForgeError(f"cannot write the artifact ({error})", str(folder), "check free space and rights") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return _as_artifact(folder, artifact_manifest)


def read_artifact(folder: Path | str) -> Artifact:
    """Read an artifact's manifest and check every file against its sha256.

    Raises:
        ModelError: it is no complete artifact, or a file is missing or changed.
    """
    manifest, folder = read_manifest(Path(folder))
    if "files" not in manifest or "certificate" not in manifest:
        raise ModelError("is a bundle without a certificate", str(folder), "export it: forgefield export")
    for name, file in manifest["files"].items():
        path = folder / file["path"]
        if not path.is_file():
            raise ModelError(f"{name} is missing", str(path), "copy the whole artifacts folder")
        if sha256(path) != file["sha256"]:
            raise ModelError(f"{name} differs from the manifest's sha256", str(path), "copy the artifacts folder again")
    return _as_artifact(folder, manifest)


def _build_target(name: str) -> Target:
    entry = TARGETS.entry(name)
    return entry.build(entry.settings())


def _write(
    potential: Potential,
    folder: Path,
    targets: Mapping[str, Target],
    provenance: Mapping[str, Any],
    sample: Sequence[Structure],
) -> dict[str, Any]:
    """Write and verify everything in a fresh folder; return the manifest."""
    eager = copy.deepcopy(potential).cpu().eval()
    manifest_path = save_bundle(eager, folder, provenance=provenance)
    manifest = json.loads(manifest_path.read_text(encoding="utf-8"))
    near = [bare(s, eager.heads) for s in sample if eager.takes(s.pbc.tolist())][:MAX_SAMPLE]
    made_up = probes(near, eager.elements, eager.heads, eager.cutoff)
    structures = near + [s for s in made_up if eager.takes(s.pbc.tolist())]
    traced_on = next((s for s in structures if len(find_pairs(s, eager.cutoff).first)), structures[0])

    reloaded = load_bundle(folder)
    eager_again: Candidate = lambda s: predict(reloaded, [s])[0]  # noqa: E731
    weights = manifest["weights"]["path"]
    ours = describe(torch.device("cpu"))
    certificates = {"weights": verify(eager_again, eager, structures, name=weights, target="weights", kernels=ours)}
    files = {"weights": dict(manifest["weights"])}
    for name, target in targets.items():
        path = folder / target.filename
        target.write(eager, path, traced_on)
        certificates |= _certify(name, target, path, eager, [s for s in structures if target.takes(s)])
        files[name] = {"path": target.filename, "format": target.format, "sha256": sha256(path)}
        for beside, text in target.companions(eager).items():
            (folder / beside).write_text(text, encoding="utf-8")
            files[f"{name}_{Path(beside).stem}"] = {"path": beside, "format": "text", "sha256": sha256(folder / beside)}
    small = sorted((s for s in near if len(s) > 1), key=len)[:N_PHYSICS]
    small += [s for s in structures[len(near) :] if s.pbc.all()]
    physics = check_physics(load_bundle(folder, dtype=torch.float64), small)

    if eager.baseline is not None:
        files = {name: {**file, **gives(eager)} for name, file in files.items()}
    manifest["files"] = files
    manifest["certificate"] = {
        "passed": True,
        "torch": torch.__version__,
        "dtype": manifest["dtype"],
        "n_structures": len(structures),
        "agreement": {name: c.to_json() for name, c in certificates.items()},
        "physics": physics.to_json(),
    }
    manifest_path.write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    for path in folder.iterdir():
        with open(path, "rb") as file:
            os.fsync(file.fileno())
    return manifest


def _certify(
    name: str, target: Target, path: Path, eager: Potential, structures: Sequence[Structure]
) -> dict[str, Certificate]:
    """Compare a file with the model, structure by structure and, if it takes several, all in one batch."""
    about = {"target": target.format, "kernels": target.kernels}
    found = {name: verify(target.read(path), eager, structures, name=target.filename, **about)}
    batched = target.read_batched(path)
    if batched is not None:
        together = dict(zip(map(id, structures), batched(structures), strict=True))
        where = f"{target.filename}, all structures in one batch"
        found[f"{name}_batch"] = verify(lambda s: together[id(s)], eager, structures, name=where, **about)
    return found


def _require_replaceable(folder: Path) -> None:
    """Raise if the folder holds anything that an export did not write: it would be lost."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ModelError("is a file; the artifact is a folder", str(folder), "name another folder")
    ours = {MANIFEST}
    if (folder / MANIFEST).is_file():
        manifest, _ = read_manifest(folder)
        if manifest.get("schema_version") == SCHEMA:
            ours |= {f["path"] for f in (manifest["weights"], *manifest.get("files", {}).values())}
    others = sorted(p.name for p in folder.iterdir() if p.name not in ours)
    if others or ((folder / MANIFEST).exists() and len(ours) == 1):
        names = ", ".join(others[:4]) or MANIFEST
        raise ModelError(f"holds files that are not of an artifact: {names}", str(folder), "move them, or name another")


def _swap(partial: Path, folder: Path) -> None:
    """Put the finished folder in place; the old one comes back if that fails."""
    if not folder.exists():
        os.replace(partial, folder)
        return
    old = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.old")
    os.replace(folder, old)
    try:
        os.replace(partial, folder)
    except OSError:
        os.replace(old, folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _as_artifact(folder: Path, manifest: Mapping[str, Any]) -> Artifact:
    block = manifest["certificate"]
    certificates = {name: Certificate.from_json(values) for name, values in block["agreement"].items()}
    return Artifact(folder, manifest, certificates, PhysicsReport(**block["physics"]))
