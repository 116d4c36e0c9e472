"""Hand out a checkpoint or bundle as files that other programs load."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from forgefield.app.run import RunConfig
from forgefield.app.tasks.steps.concluding import sample_of
from forgefield.app.tasks.steps.datasets import open_asked
from forgefield.app.tasks.steps.levels import handed_out, state_dispersion
from forgefield.app.tasks.steps.machine import choose_device
from forgefield.app.tasks.steps.models import find_bundle, load_start
from forgefield.app.tasks.steps.outcome import TaskResult, short, show
from forgefield.app.tasks.steps.specimen import specimens
from forgefield.core.disk import disk_errors
from forgefield.core.errors import ConfigError
from forgefield.core.structure import Structure
from forgefield.export.artifact import export_artifacts
from forgefield.models.bundle import read_manifest
from forgefield.models.potential import Potential


def run_task(config: RunConfig, console: Console) -> TaskResult:
    """Load a model and write its artifacts; refused unless each agrees with the model.

    Raises:
        ForgeError: the model cannot be loaded, or the artifacts cannot be written or do not agree.
    """
    if config.run_dir is None or config.start is None:
        raise ConfigError("run_dir and model_in are needed", "run_dir", "name where to write and what to load")
    folder = config.run_dir / config.export.dir
    potential = load_start(config, choose_device(config.device, console))
    state_dispersion(potential, config.data)
    manifest, _ = read_manifest(find_bundle(config.start))
    rows = [("model", f"{potential.backend}, {sum(p.numel() for p in potential.parameters()):,} parameters")]
    files: list[Path] = []
    for inside, model in handed_out(potential, config.export):
        with disk_errors(folder):
            artifact = export_artifacts(
                model,
                folder / inside,
                targets=config.export.targets,
                provenance=manifest.get("provenance", {}),
                sample=_sample(config, model),
                correction_alone=config.export.correction_alone,
            )
        worst = max(c.max_forces_error for c in artifact.certificates.values())
        agree = f"{', '.join(artifact.certificates)} agree with the model (forces within {worst:.1e} eV/Å)"
        rows.append((f"checked{f', {inside}' if inside else ''}", agree))
        files += [folder / inside / file["path"] for file in artifact.manifest["files"].values()]
        files.append(folder / inside / "manifest.json")
    shown = files[-1].parent
    following = [
        (
            "use it in Python, with ASE",
            f"python -c \"from forgefield import ForgeField; ForgeField.load('{short(shown)}')\"",
        ),
        ("predict structures", f"forgefield infer --model {short(shown)} --data structures.xyz --out predictions"),
    ]
    return show(TaskResult(f"{config.name}: export", rows, files, following), console)


def _sample(config: RunConfig, potential: Potential) -> list[Structure]:
    """Return structures to check the files on: of the data, if the run names some, else made up."""
    if config.data.lmdb or config.data.test:
        return sample_of(open_asked(config.data, config.model.head)[0])
    return specimens(potential)
