"""Extended XYZ: text files, plain or compressed with xz or gzip."""

from __future__ import annotations

import gzip
import io
import lzma
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms, FixCartesian
from ase.io.extxyz import key_val_str_to_dict, read_xyz

from forgefield.core.catalog import Entry
from forgefield.core.errors import DataError
from forgefield.data.labelling import RawFrame, choose_keys, label_structure, other_names
from forgefield.data.reader import ListFrames, Reader, ReaderSettings

XZ, GZIP = b"\xfd7zXZ\x00", b"\x1f\x8b"
DEFAULT_COLUMNS = 4  # symbol and position


class ExtxyzSettings(ReaderSettings):
    """Extended XYZ as ASE, MACE, QUIP and many others write it."""


class ExtxyzReader(Reader):
    """Reads the whole file at once; ASE parses the frames, all checks are ours."""

    def __init__(self, settings: ExtxyzSettings) -> None:
        self.settings = settings

    def recognises(self, path: Path) -> bool:
        """Return whether the first line that is not empty is a count of atoms."""
        if not path.is_file():
            return False
        try:
            with _open(path) as stream:
                line = next((x for x in iter(lambda: stream.readline(4096), "") if x.strip()), "")
        except (OSError, EOFError, lzma.LZMAError, zlib.error):
            return _start(path).startswith((XZ, GZIP))  # damaged: `open` says so
        except UnicodeDecodeError:
            return False
        return line.strip().isdigit()

    def open(self, path: Path) -> ListFrames:
        """Return all frames of the file.

        Raises:
            DataError: the file is empty, cut off, or a frame is wrong.
        """
        raw = [_parse(block, path.name) for block in _blocks(_read_text(path), path)]
        keys, units = self.settings.keys, self.settings.units
        chosen = choose_keys(raw, keys, units, str(path))
        structures = [label_structure(frame, chosen, keys, units) for frame in raw]
        return ListFrames(structures, str(path), chosen, other_names(raw, chosen))


class _Block(NamedTuple):
    """The lines of one frame."""

    index: int
    count: int
    lines: Sequence[str]


def _start(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(len(XZ))


def _open(path: Path) -> io.TextIOBase:
    start = _start(path)
    if start.startswith(XZ):
        return lzma.open(path, "rt", encoding="utf-8")
    if start.startswith(GZIP):
        return gzip.open(path, "rt", encoding="utf-8")
    return path.open(encoding="utf-8")


def _read_text(path: Path) -> str:
    """The text of the file, decompressed by what it contains, not by its name."""
    try:
        with _open(path) as stream:
            text = stream.read()
    except EOFError:
        raise DataError("the compressed file is cut off", str(path), "copy or download it again") from None
    except (lzma.LZMAError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"the compressed file is damaged ({error})", str(path), "copy it again") from None
    except UnicodeDecodeError:
        raise DataError("is not a text file", str(path), "set data.format to the right format") from None
    if not text.strip():
        raise DataError("is empty", str(path), "give a file with at least one frame")
    return text


def _blocks(text: str, path: Path) -> Iterator[_Block]:
    """Cut the text into frames by their atom counts, and check that the counts are true."""
    lines = text.split("\n")
    complete = lines[-1] == ""  # the last line ends with a newline
    lines = lines if not complete else lines[:-1]
    at = index = 0
    while at < len(lines):
        if not lines[at].strip():
            at += 1
            continue
        where = f"{path.name}: frame {index} (line {at + 1})"
        count = _count(lines[at], where, index)
        block = lines[at + 2 : at + 2 + count]
        if at + 1 >= len(lines) or len(block) < count:
            raise DataError(
                f"the file ends after {len(block)} of {count} atoms", where, "the file is cut off: copy it again"
            )
        end = at + 2 + count
        _check_rows(lines[at + 1], block, where)
        if end == len(lines) and not complete:
            _check_last_line(block, where)
        while end < len(lines) and lines[end].lstrip().startswith("VEC"):
            end += 1
        yield _Block(index, count, lines[at:end])
        at, index = end, index + 1


def _count(line: str, where: str, index: int) -> int:
    try:
        count = int(line)
    except ValueError:
        fix = f"the atom count of frame {index - 1} may be too small" if index else "is this an extended XYZ file?"
        raise DataError(f"expected a count of atoms, found {line.strip()[:60]!r}", where, fix) from None
    if count < 1:
        raise DataError(f"has {count} atoms", where, "remove this frame")
    return count


def _columns(comment: str) -> int:
    """Columns that the comment line promises."""
    for word in comment.replace('"', " ").split():
        if word.startswith("Properties="):
            counts = word.split("=", 1)[1].split(":")[2::3]
            return sum(int(c) for c in counts if c.isdigit())
    return 0


def _check_rows(comment: str, rows: Sequence[str], where: str) -> None:
    expected = _columns(comment)
    for k, row in enumerate(rows):
        found = len(row.split())
        if expected and found != expected:
            fix = "the atom count may be wrong or the file damaged here"
            raise DataError(f"atom {k} has {found} columns, Properties says {expected}: {row[:60]!r}", where, fix)
        if found < DEFAULT_COLUMNS:
            raise DataError(
                f"atom {k} has {found} columns, needs a symbol and three coordinates: {row[:60]!r}",
                where,
                "the atom count may be wrong",
            )


def _check_last_line(rows: Sequence[str], where: str) -> None:
    """Refuse a last number that was cut short: no newline, and shorter than rows that all have one length."""
    lengths = {len(r) for r in rows[:-1]}
    if len(lengths) == 1 and len(rows[-1]) < lengths.pop():
        raise DataError(
            f"the last line has no end and is shorter than the others: {rows[-1][:60]!r}",
            where,
            "the file is cut off: copy it again",
        )


def _parse(block: _Block, name: str) -> RawFrame:
    origin = f"{name}: frame {block.index}"
    values: dict[str, Any] = {}

    def remember(comment: str) -> dict[str, Any]:
        parsed = key_val_str_to_dict(comment)
        values.update(parsed)
        return parsed

    try:
        text = io.StringIO("\n".join(block.lines) + "\n")
        atoms = next(iter(read_xyz(text, 0, properties_parser=remember)))
    except KeyError as error:
        raise DataError(f"{error} is no element", origin, "repair the symbols of this frame") from None
    except (OSError, ValueError, TypeError, IndexError, AssertionError, AttributeError) as error:
        raise DataError(f"cannot be read ({error})", origin, "repair or remove this frame") from None
    for used in ("Lattice", "Properties", "pbc"):
        values.pop(used, None)
    results = atoms.calc.results if atoms.calc is not None else {}
    columns = {k: np.asarray(v) for k, v in results.items() if np.shape(v)[:1] == (len(atoms),) and k not in values}
    arrays = {k: v for k, v in atoms.arrays.items() if k not in ("numbers", "positions", "tags")}
    return RawFrame(
        numbers=atoms.numbers,
        positions=atoms.positions,
        cell=np.asarray(atoms.cell),
        pbc=np.asarray(atoms.pbc),
        values=values | {k: v for k, v in columns.items() if k == "energy"},
        arrays=arrays | columns,
        origin=origin,
        fixed=_fixed(atoms),
        tags=atoms.get_tags() if atoms.has("tags") else None,
    )


def _fixed(atoms: Atoms) -> np.ndarray | None:
    """Atoms held fixed in all three directions, (N,); None without constraints."""
    if not atoms.constraints:
        return None
    fixed = np.zeros(len(atoms), dtype=bool)
    for constraint in atoms.constraints:
        if isinstance(constraint, FixAtoms) or (isinstance(constraint, FixCartesian) and np.all(constraint.mask)):
            fixed[constraint.index] = True
    return fixed


ENTRY = Entry(ExtxyzSettings, ExtxyzReader, "extended XYZ, plain, .xz or .gz")
