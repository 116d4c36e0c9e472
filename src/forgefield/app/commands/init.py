"""forgefield init: look at a data set and write a run.yaml that fits it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from forgefield.app.commands import flags as f
from forgefield.app.commands.execution import console, say, show_table
from forgefield.core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from rich.console import Console

    from forgefield.app.portrait import Portrait
    from forgefield.app.suggestion import Suggestion
    from forgefield.data.dataset import Dataset


def command(
    data: Annotated[list[Path], typer.Argument(metavar="DATA...", help="Training structures: extxyz, LMDB, folders.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The file to write.")] = Path("run.yaml"),
    val: f.ValOption = None,
    test: f.TestOption = None,
    backend: Annotated[str, typer.Option("--backend", help="Architecture.")] = "mace",
    name: Annotated[str, typer.Option("--name", help="Name of the run.")] = "first",
    run_dir: Annotated[
        Path | None, typer.Option("--run-dir", metavar="FOLDER", help="Folder of the run (default: runs/NAME).")
    ] = None,
    energy_key: f.EnergyKeyOption = None,
    forces_key: f.ForcesKeyOption = None,
    stress_key: f.StressKeyOption = None,
    energy_unit: Annotated[
        str | None, typer.Option("--energy-unit", rich_help_panel=f.DATA, help="Unit of the energies in the files.")
    ] = None,
    length_unit: Annotated[
        str | None, typer.Option("--length-unit", rich_help_panel=f.DATA, help="Unit of the positions in the files.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
) -> None:
    """Look at a data set and write a commented run.yaml that fits it.

    It reads the structures, reports elements, sizes, labels and signs of
    wrong units, and suggests cutoff, batch size, epochs and loss weights.

    [bold]Examples[/bold]

      forgefield init train.xyz

      forgefield init train.xyz --test test.xyz --out runs/first.yaml

      forgefield init hartree.xyz --energy-unit Ha --length-unit bohr
    """
    from forgefield.app.portrait import look_at, warnings
    from forgefield.app.run import build_runs, config_of
    from forgefield.app.suggestion import Choices, relative, suggest, write_text
    from forgefield.app.yaml_source import Place, parse_yaml
    from forgefield.core.disk import write_atomic
    from forgefield.data.parts import open_part

    if out.exists() and not force:
        raise ConfigError("the file is there already", str(out), "choose another --out, or --force to write over it")
    extra = {
        "energy_key": energy_key, "forces_key": forces_key, "stress_key": stress_key,
        "energy_unit": energy_unit, "length_unit": length_unit,
    }  # fmt: skip
    extra = {key: value for key, value in extra.items() if value is not None}
    sets = {"train": data, "val": val or [], "test": test or []}
    block = {key: [str(p) for p in paths] for key, paths in sets.items() if paths}
    trial = config_of({"task": "train", "backend": backend, "run_dir": "x", "data": {**block, **extra}})
    datasets = {key: open_part(trial.data, key) for key in block}  # type: ignore[arg-type]
    portraits = {key: look_at(dataset) for key, dataset in datasets.items()}
    train = portraits["train"]
    refuse_useless(train, datasets["train"])
    notes = [note for portrait in portraits.values() for note in warnings(portrait)]
    chosen = suggest(train)
    folder = out.absolute().parent
    user = Choices(
        name, backend, relative(run_dir or Path("runs") / name, folder),
        {key: [relative(p, folder) for p in paths] for key, paths in sets.items()}, extra,
    )  # fmt: skip
    text = write_text(train, chosen, user, list(dict.fromkeys(notes)))
    build_runs(parse_yaml(text, Place(str(out))), folder)
    write_atomic(out, text)
    report(portraits, chosen, list(dict.fromkeys(notes)), out)


def refuse_useless(portrait: Portrait, dataset: Dataset) -> None:
    """Refuse data that nothing can be learned from.

    Raises:
        DataError: there are no structures, or none has a label that is known.
    """
    if portrait.n_structures == 0:
        raise DataError("holds frames of one free atom only", dataset.name, "name the structures to train on")
    if not any(portrait.labels.values()):
        others = sorted({name for part in dataset.parts for name in part.others})
        seen = f"; the files have {', '.join(others)}" if others else ""
        what = f"no frame has an energy, forces or a stress under a usual name{seen}"
        raise DataError(what, dataset.name, "name the right ones: --energy-key, --forces-key")


def report(portraits: dict[str, Portrait], chosen: Suggestion, notes: list[str], out: Path) -> None:
    """Print what was seen, what was chosen, and what to do next."""
    screen = console()
    for key, portrait in portraits.items():
        _portray(key, portrait, screen)
    screen.print(
        f"Suggested: cutoff {chosen.r_max:g} Å ({chosen.why_r_max}), batch {chosen.batch_size}, {chosen.epochs} epochs",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    for note in notes:
        say(note, "look here")
    screen.print(f"\nWritten to {out}. Next:", highlight=False, soft_wrap=True)
    screen.print(f"  forgefield check {out}\n  forgefield run {out}", highlight=False, soft_wrap=True)


def _portray(key: str, portrait: Portrait, screen: Console) -> None:
    energies, rows = portrait.energies, []
    sizes = portrait.sizes
    rows.append(("structures", f"{portrait.n_structures}, {portrait.n_periodic} of them periodic"))
    if len(sizes):
        rows.append(("atoms", f"{sizes.min()} to {sizes.max()}, {sizes.mean():.1f} on average"))
    rows.append(("elements", portrait.names()))
    rows.append(("labels", ", ".join(f"{name} {count}" for name, count in portrait.labels.items())))
    if len(energies):
        rows.append(("energy per atom", f"{energies.min():.3f} to {energies.max():.3f} eV"))
    if portrait.force_rms is not None:
        rows.append(("forces, RMS", f"{portrait.force_rms:.3f} eV/Å"))
    if portrait.stress_rms is not None:
        rows.append(("stress, RMS", f"{portrait.stress_rms:.4f} eV/Å^3 = {portrait.stress_rms * 160.21766:.2f} GPa"))
    if portrait.heads:
        rows.append(("heads", ", ".join(f"{name} {count}" for name, count in portrait.heads.items())))
    show_table(f"data.{key}", ("what", "found"), rows, screen)
    screen.print()
