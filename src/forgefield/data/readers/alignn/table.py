"""Tables of id_prop.csv: in each line a structure file and its targets."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase import Atoms

from forgefield.core.errors import DataError
from forgefield.core.quantities import DERIVED, QUANTITIES
from forgefield.data.alignn_labels import is_box
from forgefield.data.ase_frames import frame_of_atoms
from forgefield.data.ase_kinds import check_end, kind_by_content
from forgefield.data.label_names import TargetKey
from forgefield.data.lazy_frames import LazyFrames
from forgefield.data.passed_over import open_each
from forgefield.data.raw_frame import RawFrame
from forgefield.data.reader import ReaderSettings
from forgefield.data.readers.ase_files import read_images

TARGET = "target"
KINDS = {"poscar": "vasp", "cif": "cif", "xyz": "extxyz", "pdb": "proteindatabank"}
NAME = re.compile(r"[A-Za-z_]\w*")
NAME_OF_FILE = re.compile(r"[^\0/]{1,255}")
PEEKED = 1 << 16


class Table(NamedTuple):
    """Lines of id_prop.csv."""

    files: list[str]
    numbers: np.ndarray  # (n, targets)
    names: list[str]  # of the columns, from a header; empty without one
    lines: list[int]  # numbers of their lines


class TableFrames(LazyFrames):
    """Structures in files of their own, read when they are asked for.

    Args:
        file: id_prop.csv.
        settings: of the reader. Without targets of the user's own, the columns become targets.
    """

    def __init__(self, file: Path, settings: ReaderSettings) -> None:
        self._file = file
        self._table, notes = read_table(file, skip=settings.on_error == "skip")
        self._stated = _stated_kind(file.parent)
        notes += check_end(file, "csv")
        if not settings.keys.targets:
            targets = _targets(self._table)
            settings = settings.model_copy(update={"keys": settings.keys.model_copy(update={"targets": targets})})
            widths = ", ".join(f"{k} ({t.components} number{'s' * (t.components > 1)})" for k, t in targets.items())
            notes.append(f"the columns of {file.name} are targets of their own: {widths}")
        super().__init__(file, len(self._table.files), settings, notes)

    def raw(self, index: int) -> RawFrame:
        """Return one structure with its targets."""
        name = self._table.files[index]
        origin = f"{self._file.name}: line {self._table.lines[index]} ({name})"
        if not NAME_OF_FILE.fullmatch(name):
            raise DataError("the first column is no name of a file", origin, "put the structures beside the table")
        raw = frame_of_atoms(_structure(self._file.parent / name, self._stated, origin), origin)
        numbers = self._table.numbers[index]
        if self._table.names:
            own = {column: float(value) for column, value in zip(self._table.names, numbers, strict=True)}
        else:
            own = {TARGET: float(numbers[0]) if len(numbers) == 1 else numbers}
        molecule = is_box(raw.cell)
        return raw._replace(
            values={**raw.values, **own, "file": name},
            cell=np.zeros((3, 3)) if molecule else raw.cell,
            pbc=np.zeros(3, dtype=bool) if molecule else raw.pbc,
        )


def is_table(path: Path) -> bool:
    """Return whether a text file's lines start with the name of a file beside it, then numbers."""
    with path.open("rb") as stream:
        start = stream.read(PEEKED)
    if b"\0" in start or b"," not in start:
        return False
    lines = [line for line in start.decode("latin1").splitlines() if line.strip()][:2]
    for line in lines:
        name = line.split(",")[0].strip()
        if "," in line and name and len(name) < 250 and "/" not in name and (path.parent / name).is_file():
            return True
    return False


def read_table(file: Path, *, skip: bool = False) -> tuple[Table, list[str]]:
    """Return the lines of id_prop.csv, and with `skip` a note on those that are left out.

    Raises:
        DataError: a line is damaged; names it.
    """
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            lines = [(k, row) for k, row in enumerate(csv.reader(stream), 1) if any(cell.strip() for cell in row)]
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"is no table of text ({error})", str(file), "repair it") from None
    if not lines:
        raise DataError("holds no lines", str(file), "write 'file,target' in each line")
    names: list[str] = []
    if not (file.parent / lines[0][1][0].strip()).is_file() and not _are_numbers(lines[0][1][1:]):
        names = [cell.strip() for cell in lines.pop(0)[1][1:]]
        if not all(NAME.fullmatch(n) for n in names) or len(set(names)) < len(names):
            raise DataError("its first line is neither a header nor a structure", f"{file.name}: line 1", "repair it")
    if not lines:
        raise DataError("holds no structures", str(file), "write 'file,target' in each line")
    width = len(lines[0][1])

    def parsed(line: tuple[int, list[str]]) -> tuple[str, list[float], int]:
        place, row = line
        if len(row) != width or width < 2 or (names and len(names) != width - 1) or not _are_numbers(row[1:]):
            what = f"has {len(row) - 1} targets" if len(row) != width or width < 2 else "has a target that is no number"
            raise DataError(f"{what}; the first line has {width - 1}", f"{file.name}: line {place}", "repair the line")
        return row[0].strip(), [float(cell) for cell in row[1:]], place

    found, notes = open_each(lines, parsed, "lines", skip=skip)
    files, numbers, places = (list(column) for column in zip(*found, strict=True))
    return Table(files, np.array(numbers), names, places), notes


def _targets(table: Table) -> dict[str, TargetKey]:
    if table.names:
        own = [n for n in table.names if n not in QUANTITIES and n not in DERIVED]
        return {name: TargetKey(key=name, per="structure") for name in own}
    return {TARGET: TargetKey(key=TARGET, per="structure", components=table.numbers.shape[1])}


def _are_numbers(cells: list[str]) -> bool:
    try:
        [float(cell) for cell in cells]
    except ValueError:
        return False
    return bool(cells)


def _stated_kind(folder: Path) -> str | None:
    """Format that a configuration of ALIGNN in the folder names; None where none does."""
    for file in sorted(folder.glob("*config*.json")):
        try:
            stated = json.loads(file.read_text(encoding="utf-8")).get("file_format")
        except (OSError, ValueError, AttributeError, RecursionError):
            continue
        if stated in KINDS:
            return KINDS[stated]
    return None


def _structure(path: Path, stated: str | None, origin: str) -> Atoms:
    """The one structure of a file: its format by its content, else as the configuration says."""
    if not path.is_file():
        raise DataError(f"the file {path.name} is not there", origin, "copy the structures beside the table")
    kind = kind_by_content(path) or stated or ("extxyz" if _counts_atoms(path) else None)
    if kind is None or kind not in KINDS.values():
        raise DataError(
            f"{path.name} is none of {', '.join(KINDS)}", origin, "convert it, or set file_format in config.json"
        )
    try:
        check_end(path, kind)
        images, _ = read_images(path, kind)
    except DataError as error:
        raise DataError(error.what, origin, error.fix) from None
    if len(images) != 1:
        raise DataError(f"{path.name} holds {len(images)} structures", origin, "give one structure per file")
    return images[0]


def _counts_atoms(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.readline(64).strip().isdigit()
