"""forgefield data convert: from one format, or several, to another."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from forgefield.app.commands.execution import console, say, show_table
from forgefield.app.commands.flags import FormatOption, OnErrorOption, SetOption
from forgefield.core.errors import ConfigError, DataError

if TYPE_CHECKING:
    import numpy as np

    from forgefield.data.conversion import Converted
    from forgefield.data.dataset import Dataset
    from forgefield.data.settings import DataSettings
    from forgefield.data.writer import Writer

ENDINGS = {".xyz": "extxyz", ".extxyz": "extxyz", ".db": "ase_db", ".aselmdb": "aselmdb", ".gzip": "pacemaker",
           ".h5": "size_grouped", ".hdf5": "size_grouped"}  # fmt: skip
TOLD_EVERY = 100  # structures between two moves of the bar


def command(
    paths: Annotated[
        list[Path], typer.Argument(metavar="IN... OUT", help="Files or folders of any format, and what is written.")
    ],
    to: Annotated[
        str | None, typer.Option("--to", metavar="FORMAT", help="Format; else by OUT's ending, or the store.")
    ] = None,
    format: FormatOption = None,
    on_error: OnErrorOption = None,
    options: Annotated[
        list[str] | None, typer.Option("--with", metavar="KEY=VALUE", help="A setting of FORMAT: --with float32=true.")
    ] = None,
    overrides: SetOption = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT, once the new one is complete.")] = False,
    append: Annotated[
        bool, typer.Option("--append", help="Add all of the inputs to OUT, a store, or nothing.")
    ] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Begin anew, do not go on with a killed one.")] = False,
) -> None:
    """Convert data sets: several files and formats become one.

    One structure is in memory at a time. OUT appears when it is complete;
    until then all is written beside it. Killed while it writes a store, the
    same command goes on where it was.

    Names, units and signs are those of the `data` block of run.yaml; labels
    are written in eV and Å. Files with units, fidelity or weight of their own
    are given as a list to --set data.lmdb.

    [bold]Examples[/bold]

      forgefield data convert train.xyz train.store

      forgefield data convert a.xyz shards/ c.db all.store --on-error skip

      forgefield data convert old.xyz new.xyz --set data.energy_unit=Ha

      forgefield data convert new.xyz all.store --append

      forgefield data convert all.store half.store --with float32=true

      forgefield data convert all.store --set "data.lmdb=[{path: a.xyz, fidelity: pbe}, {path: b.db, weight: 0.5}]"
    """
    from forgefield.app.data_block import data_block, writer_settings
    from forgefield.core.catalog import Catalog
    from forgefield.data.conversion import job_of
    from forgefield.data.sources import open_sources, skipped_parts
    from forgefield.data.writer import WRITERS

    *inputs, target = paths
    settings = data_block(inputs, {"format": format, "on_error": on_error}, overrides or ())
    if not settings.lmdb:
        raise ConfigError("nothing to convert", "data convert", "forgefield data convert IN... OUT")
    name = to or ENDINGS.get(target.suffix.lower(), "store")
    _check_target(target, [Path(source) for source in settings.lmdb], overwrite or append, name)
    if append and target.exists():
        writer = _appender(target, name, options, overwrite or restart)
    else:
        writer: Writer = Catalog(WRITERS).entry(name).build(target, writer_settings(name, options or ()))
    if restart:
        writer.forget()
    started = time.monotonic()
    dataset = open_sources(settings.lmdb, settings, screened=False)
    job = job_of([Path(source) for source in settings.lmdb], [settings.model_dump(mode="json"), name, options])
    done = _with_bar(dataset, writer, job, skipped_parts(settings.lmdb, settings))
    _summary(dataset, done, target, name, settings, time.monotonic() - started)


def _appender(target: Path, name: str, options: list[str] | None, anew: bool) -> Writer:
    from forgefield.data.store.appender import StoreAppender

    if name != "store":
        raise ConfigError(f"format {name} cannot be appended to", "--append", "only a store can: name one")
    if anew or options:
        what = "does not go with --overwrite, --restart or --with: the store stays as it is"
        raise ConfigError(what, "--append", "leave one of them out")
    return StoreAppender(target)


def _check_target(target: Path, inputs: Sequence[Path], overwrite: bool, name: str) -> None:
    from forgefield.data.server_address import server_address, shown
    from forgefield.data.store.frames import is_store

    if server_address(target) is not None:
        raise DataError("is a database server, which is only read", shown(target), "name a file: --to ase_db all.db")
    if any(target.resolve() == path.resolve() for path in inputs):
        raise DataError("is both read and written", str(target), "give the result another name")
    if target.exists() and not overwrite:
        more = ", or --append to add to it" if is_store(target) else ""
        fix = f"remove it, choose another name, or give --overwrite{more}"
        raise DataError("is there already", str(target), fix)
    replaceable = is_store(target) if name == "store" else target.is_file()
    if target.exists() and not replaceable:
        raise DataError(f"is there, and is not what format {name} replaces", str(target), "remove it yourself")


def _with_bar(dataset: Dataset, writer: Writer, job: str, skip: np.ndarray) -> Converted:
    """Convert with a bar on stderr, which is there on a terminal only."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from forgefield.data.conversion import convert

    columns = TextColumn("converting"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=len(dataset))

        def tell(n: int) -> None:
            if n % TOLD_EVERY == 0:
                bar.update(task, completed=n)

        try:
            return convert(dataset, writer, job, skip=skip, tell=tell)
        except KeyboardInterrupt:
            say("the same command goes on where the last complete part ended, if the format can", "stopped")
            raise


def _summary(
    dataset: Dataset, done: Converted, target: Path, name: str, settings: DataSettings, seconds: float
) -> None:
    from forgefield.data.server_address import shown

    rows: list[tuple[str, Any]] = [("inputs", ", ".join(shown(source) for source in settings.lmdb))]
    rows += [("structures", f"{done.n_written}, of {len(dataset) + dataset.n_left_out} read")]
    if done.continued:
        rows.append(("continued", f"{done.continued} of them were done by an earlier run"))
    if done.n_skipped:
        rows.append(("left out", f"{done.n_skipped} (--on-error skip): {'; '.join(done.skipped)}"))
    if dataset.n_left_out:
        rows.append(("left out", f"{dataset.n_left_out} when the inputs were opened (--on-error skip): see the notes"))
    files = [target] if target.is_file() else [p for p in target.rglob("*") if p.is_file()]
    size = sum(file.stat().st_size for file in files)
    rows += [("written", f"{target} ({name}, {size / 2**20:.1f} MiB)"), ("time", f"{seconds:.1f} s")]
    rows += [("note", note) for note in (*dataset.notes, *done.notes)]
    show_table("", ("", "converted"), rows, console())
