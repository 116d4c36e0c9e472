"""forgefield data info: what a file holds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from forgefield.app.commands.execution import console, say, show_table
from forgefield.app.commands.flags import FormatOption, OnErrorOption, SetOption
from forgefield.core.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from forgefield.data.dataset import Dataset
    from forgefield.data.settings import DataSettings
    from forgefield.data.sources import Source

SHOWN = 6  # names in a row


def command(
    paths: Annotated[
        list[Path] | None, typer.Argument(metavar="FILE...", help="Files or folders of any format.")
    ] = None,
    format: FormatOption = None,
    on_error: OnErrorOption = None,
    formats: Annotated[bool, typer.Option("--formats", help="List the formats that can be read and written.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print plain JSON.")] = False,
    overrides: SetOption = None,
) -> None:
    """Tell what is in a data set: elements, sizes, labels and their names, units, trajectories.

    Looks at every structure once. Names, units and signs are settled as a run
    would settle them: "not stated" is a unit that neither the file nor you
    name. The row `sizes` holds what speaks for it; what looks wrong (energies
    in Hartree, positions in bohr, energies per atom) is said with the key
    that mends it. `forgefield data doctor` looks closer.

    [bold]Examples[/bold]

      forgefield data info train.xyz

      forgefield data info shards/ --format lmdb --on-error skip

      forgefield data info old.xyz --set data.energy_unit=Ha --set data.forces_key=F

      forgefield data info all.db --set data.select=status=completed

      forgefield data info --formats
    """
    from forgefield.app.data_block import data_block
    from forgefield.app.data_summary import plain
    from forgefield.data.sources import open_sources

    if formats:
        _show_formats(console())
        return
    if not paths:
        raise ConfigError("no file is given", "data info", "forgefield data info train.xyz")
    settings = data_block(paths, {"format": format, "on_error": on_error}, overrides or ())
    dataset = open_sources(settings.lmdb, settings)
    found = plain(dataset) | {"formats": [_format_of(source, settings) for source in settings.lmdb]}
    found["notes"] = list(dataset.notes)
    found["sizes"], found["looks"] = _looks(dataset, found)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    out = console()
    show_table(dataset.name, ("what", "found"), list(_rows(found, settings)), out)
    for note in found["notes"]:
        say(note, "note")
    for sign in found["looks"]:
        say(sign, "look here")


def _show_formats(out: Console) -> None:
    from forgefield.core.catalog import Catalog
    from forgefield.data.reading import READERS
    from forgefield.data.writer import WRITERS

    readers, writers = Catalog(READERS), Catalog(WRITERS)
    names = sorted({*readers.names(), *writers.names()})
    rows = []
    for name in names:
        told = (readers if name in readers.names() else writers).entry(name)
        text = (told.settings.__doc__ or "").strip().splitlines()
        rows.append((name, "yes" if name in readers.names() else "", "yes" if name in writers.names() else "",
                     text[0] if text else ""))  # fmt: skip
    show_table("Formats: --format NAME, data.format: NAME", ("name", "read", "written", "what it is"), rows, out)


def _format_of(source: Path | Source, settings: DataSettings) -> str:
    from forgefield.core.errors import DataError
    from forgefield.data.dataset import detect_format
    from forgefield.data.sources import Source

    stated = source.within(settings).format if isinstance(source, Source) else settings.format
    try:
        return detect_format(Path(source)) if stated == "auto" else stated
    except DataError:  # on_error: skip, or it would have been raised before
        return "unknown"


def _looks(dataset: Dataset, found: Mapping[str, Any]) -> tuple[str, list[str]]:
    """What speaks for the units, and what looks wrong, from a sample of evenly spread structures."""
    import numpy as np

    from forgefield.app.portrait import look_at, warnings

    sample = dataset.subset(np.unique(np.linspace(0, len(dataset) - 1, 2000).astype(int))) if len(dataset) else dataset
    portrait = look_at(sample)
    if not portrait.n_structures:
        return "", []
    sizes: list[str] = []
    if portrait.contact is not None:
        sizes.append(f"nearest atoms at {portrait.contact:.2f} of the sum of covalent radii (usual: 0.8 to 1.2)")
    if len(portrait.energies):
        sizes.append(f"energies about {float(np.median(portrait.energies)):.4g} eV/atom")
    if portrait.force_rms is not None:
        sizes.append(f"forces {portrait.force_rms:.2g} eV/Å RMS (usual: 0.01 to 5)")
    if portrait.stress_rms is not None:
        sizes.append(f"stresses {160.21766 * portrait.stress_rms:.2g} GPa RMS (usual: 0.1 to 20)")
    others = sorted({name for source in found["sources"] for name in source["others"]})
    return "; ".join(sizes), [_with_names(sign, others) for sign in warnings(portrait)]


def _with_names(sign: str, others: Sequence[str]) -> str:
    """A sign that a label is missing, with the names that may be its."""
    if not sign.startswith("no frame has") or not others:
        return sign
    return f"{sign}. Names that may be theirs: {', '.join(others[:10])}: --set data.energy_key={others[0]}"


def _rows(found: Mapping[str, Any], settings: DataSettings) -> list[tuple[str, str]]:
    low, high = found["atoms_per_structure"]
    n = found["structures"]
    rows = [
        ("format", ", ".join(dict.fromkeys(found["formats"]))),
        ("structures", f"{n:,}" + (f"; {found['left_out']:,} left out" if found["left_out"] else "")),
        ("atoms", f"{found['atoms']:,}; {low} to {high} per structure, {found['atoms'] / max(n, 1):.1f} on average"),
        ("elements", _counted(found["elements"], len(found["elements"]))),
        ("formulas", f"{found['n_formulas']}: {_counted(found['formulas'])}"),
        ("periodic along", _counted(found["periodic"])),
        ("labels", _of_all(found["labels"], n) or "none"),
    ]
    names = {label: key for source in found["sources"] for label, key in source["keys"].items() if key and key != label}
    if names:
        rows.append(("read from", ", ".join(f"{label}: {key}" for label, key in names.items())))
    rows.append(
        ("units", "; ".join(dict.fromkeys(source["units"] for source in found["sources"] if source["structures"])))
    )
    if found["sizes"]:
        rows.append(("sizes", found["sizes"]))
    for name, text in (("base_labels", "base labels"), ("features", "further inputs")):
        if found[name]:
            rows.append((text, _of_all(found[name], n)))
    for name in ("fidelity", "head", "config_type", "charge", "multiplicity"):
        if name in found:
            rows.append((name.replace("_", " "), _counted(found[name])))
    if found["free_atoms"]:
        rows.append(("free atoms", _counted(found["free_atoms"])))
    for name, text in (("with_fixed_atoms", "with fixed atoms"), ("with_weight", "with a weight")):
        if found[name]:
            rows.append((text, f"{found[name]:,} structures"))
    runs = found["trajectories"]
    if runs["number"]:
        what = (
            f"{runs['number']} found, {runs['structures']:,} of {n:,} structures: a split keeps their frames together"
        )
        rows.append(("trajectories", what))
    others = sorted({name for source in found["sources"] for name in source["others"]})
    if others:
        rows.append(("other names", ", ".join(others)))
    if found["header_entries"]:
        rows.append(("header", _of_all(found["header_entries"], n)))
    return rows


def _counted(counts: Mapping[str, int], shown: int = SHOWN) -> str:
    items = list(counts.items())
    text = ", ".join(f"{name} {count:,}" for name, count in items[:shown])
    return text + (", ..." if len(items) > shown else "")


def _of_all(counts: Mapping[str, int], n: int) -> str:
    """Return names, with a number where not all structures have one."""
    items = list(counts.items())
    text = ", ".join(name if count == n else f"{name} ({count:,} of {n:,})" for name, count in items[:20])
    return text + (", ..." if len(items) > 20 else "")
