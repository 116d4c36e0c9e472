"""forgefield data split: divide a data set, and write down how."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from forgefield.app.commands.execution import console, say, say_notes, show_table
from forgefield.app.commands.flags import FormatOption, OnErrorOption, SetOption
from forgefield.core.errors import ConfigError

if TYPE_CHECKING:
    from forgefield.data.split import Split


def command(
    paths: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Training data, of any format.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="Where the split goes.")] = Path(
        "split.json"
    ),
    val: Annotated[
        str | None, typer.Option("--val", metavar="PART", help="Validation: a part (0.1), a number (200), or [3, 17].")
    ] = None,
    test: Annotated[
        str | None, typer.Option("--test", metavar="PART", help="Test: the same; left out of training.")
    ] = None,
    method: Annotated[str | None, typer.Option("--method", help="auto, random, blocks or groups.")] = None,
    by: Annotated[
        str | None,
        typer.Option(
            "--by", help="Keep together what agrees in: composition, trajectory, config_type, a header entry."
        ),
    ] = None,
    gap: Annotated[str | None, typer.Option("--gap", help="Frames left out beside a block of a trajectory.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Of the draws.")] = None,
    format: FormatOption = None,
    on_error: OnErrorOption = None,
    overrides: SetOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file.")] = False,
) -> None:
    """Divide a data set into training, validation and test.

    Frames of a trajectory are almost alike: drawn singly, validation frames
    have twins in training, and errors look too small. So trajectories are
    found and divided in contiguous blocks with a gap, or whole where there
    are many; everything else is drawn at random.

    The file holds frame numbers from 0, the seed, and hashes of the lists and
    of the structures. `data.split: split.json` in run.yaml takes it, and
    refuses it for other data; data.indices_path takes its test part.

    [bold]Examples[/bold]

      forgefield data split train.xyz

      forgefield data split all.xyz --val 0.1 --test 500 --out split.json

      forgefield data split all.db --by composition

      forgefield data split all.xyz --method random --seed 3
    """
    from forgefield.app.data_block import data_block
    from forgefield.app.run import parse_override
    from forgefield.data.parts import open_part
    from forgefield.data.split_settings import SplitSettings
    from forgefield.data.splitting import make_split

    if out.exists() and not force:
        raise ConfigError("the file is there already", str(out), "choose another --out, or --force to write over it")
    if by is not None and method not in (None, "groups"):
        raise ConfigError("--by makes groups", "--by", f"take out --method {method}")
    block = {"val": val, "test": test, "gap": gap}
    split = {name: parse_override(f"x={text}").plain()["x"] for name, text in block.items() if text is not None}
    split |= {"method": "groups", "by": by} if by is not None else {"method": method} if method is not None else {}
    flags = {
        "train": [str(path) for path in paths],
        "format": format,
        "on_error": on_error,
        "split_seed": seed,
        "split": split or None,
    }
    settings = data_block((), flags, overrides or ())
    if not isinstance(settings.split, SplitSettings):
        raise ConfigError("a file is what is made here", "data.split", "give a method, or --val and --test")
    dataset = open_part(settings, "train", active=True)
    say_notes(dataset)
    made = make_split(dataset, settings.split, settings.val_fraction, settings.split_seed).with_contents(dataset)
    made.save(out)
    _show(made, len(dataset))
    skip = ", with data.on_error: skip as here" if dataset.n_left_out else ""
    console().print(f"Written to {out}; use it: data.split: {out}{skip}", highlight=False, soft_wrap=True)


def _show(made: Split, total: int) -> None:
    parts = (("train", made.train), ("val", made.val), ("test", made.test), ("left out", made.left_out))
    rows = [(name, f"{len(places):,}", f"{100 * len(places) / total:.1f} %") for name, places in parts if len(places)]
    show_table(f"{total:,} structures, {made.method}", ("part", "structures", "of all"), rows, console())
    if made.note:
        say(made.note, "note")
