"""Data sets: structures from one or more files, and views on them."""

from __future__ import annotations

import difflib
import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, final

import numpy as np

from forgefield.core.catalog import Catalog
from forgefield.core.elements import symbol
from forgefield.core.errors import DataError
from forgefield.core.quantities import ALWAYS
from forgefield.core.structure import Structure
from forgefield.data.label_names import LabelKeys
from forgefield.data.label_units import LabelUnits
from forgefield.data.reader import Frames, ListFrames, Reader
from forgefield.data.reading import FORMAT_ALIASES, READERS
from forgefield.data.server_address import server_address
from forgefield.data.survey import Survey, join

FINGERPRINT = b"forgefield-data-1"
KNOWN_STARTS = {
    b"PK\x03\x04": "a zip archive without the names of rMD17 or sGDML files; unpack or convert it",
    b"\x80": "a pickle, which is never loaded; convert it to extxyz",
    b"{": "a JSON file; convert it to extxyz",
    b"BZh": "a bzip2 file; use xz or gz, or unpack it",
}


@final
class Dataset:
    """Structures in a fixed order. Files that are read lazily stay lazy; a subset shares them.

    Args:
        parts: the sources, in order.
        indices: which structures of the sources taken together; None = all.
    """

    def __init__(self, parts: Sequence[Frames], indices: np.ndarray | None = None) -> None:
        self.parts = tuple(parts)
        self._ends = np.cumsum([len(p) for p in self.parts], dtype=np.int64)
        total = int(self._ends[-1]) if self.parts else 0
        self.indices = np.arange(total) if indices is None else np.asarray(indices, dtype=np.int64)

    @classmethod
    def of(cls, structures: Sequence[Structure], source: str = "memory") -> Dataset:
        """Return a data set of structures that are already in memory."""
        return cls([ListFrames(structures, source)])

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Structure:
        at = int(self.indices[index])
        part = int(np.searchsorted(self._ends, at, side="right"))
        return self.parts[part][at - (int(self._ends[part - 1]) if part else 0)]

    def __iter__(self) -> Iterator[Structure]:
        return (self[i] for i in range(len(self)))

    @property
    def name(self) -> str:
        """The sources, for messages."""
        return ", ".join(p.source for p in self.parts)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know about the sources."""
        return tuple(note for part in self.parts for note in part.notes)

    @property
    def n_left_out(self) -> int:
        """How many structures were left out when the sources were opened (on_error: skip), as far as it is known."""
        return sum(part.n_left_out for part in self.parts)

    def subset(self, indices: Sequence[int] | np.ndarray) -> Dataset:
        """Return the structures at these places, in this order.

        Raises:
            DataError: a place does not exist.
        """
        chosen = np.asarray(indices, dtype=np.int64).reshape(-1)
        wrong = chosen[(chosen < 0) | (chosen >= len(self))]
        if len(wrong):
            raise DataError(
                f"index {wrong[0]} is out of range: there are {len(self)} structures",
                self.name,
                f"use 0 to {len(self) - 1}" if len(self) else "the data set is empty",
            )
        return Dataset(self.parts, self.indices[chosen])

    def part_numbers(self) -> np.ndarray:
        """Return for each structure which of `parts` it comes from, (n,)."""
        return np.searchsorted(self._ends, self.indices, side="right")

    def elements(self) -> list[int]:
        """Atomic numbers that occur, ascending."""
        return sorted({z for kind in self.survey.present() for z in kind.elements})

    def heads(self) -> list[str]:
        """Names of heads that structures name, in the order of their first appearance."""
        return list(dict.fromkeys(kind.head for kind in self.survey.present() if kind.head is not None))

    @cached_property
    def survey(self) -> Survey:
        """Kinds and sizes of the structures; each source is passed over once at most, subsets included."""
        return join([part.survey() for part in self.parts]).take(self.indices)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of what the structures hold, in their order (hex); the files' names and format do not enter."""
        if len(self.parts) == 1 and np.array_equal(self.indices, np.arange(len(self.parts[0]))):
            kept = self.parts[0].fingerprint
            if kept is not None:
                return kept
        digest = hashlib.sha256(FINGERPRINT)
        for structure in self:
            add_contents(digest, structure)
        return digest.hexdigest()

    def describe(self) -> dict[str, Any]:
        """Return a summary in plain numbers and texts: sizes, elements, labels, groups, sources."""
        sizes, labels, groups, heads = [], Counter(), Counter(), Counter()
        formulas: Counter[str] = Counter()
        elements: Counter[int] = Counter()
        periodic = fixed = 0
        for s in self:
            sizes.append(len(s))
            labels.update(list(s.labels))
            groups[s.config_type] += 1
            heads[s.level or "(none)"] += 1
            periodic += bool(s.pbc.any())
            fixed += s.fixed is not None and bool(s.fixed.any())
            counts = Counter(s.numbers.tolist())
            elements.update(counts)
            formulas["".join(f"{symbol(z)}{n}" for z, n in sorted(counts.items()))] += 1
        return {
            "n_structures": len(sizes),
            "n_atoms": sum(sizes),
            "atoms_per_structure": {"min": min(sizes, default=0), "max": max(sizes, default=0)},
            "elements": {symbol(z): elements[z] for z in sorted(elements)},
            "formulas": dict(formulas.most_common(20)),
            "n_formulas": len(formulas),
            "labels": {name: labels[name] for name in (*ALWAYS, *sorted(labels.keys() - set(ALWAYS)))},
            "config_types": dict(groups.most_common()),
            "heads": dict(heads.most_common()),
            "n_periodic": periodic,
            "n_with_fixed_atoms": fixed,
            "sources": [{"path": p.source, "frames": len(p), "keys": p.chosen} for p in self.parts],
            "notes": list(self.notes),
            "fingerprint": self.fingerprint,
        }


def add_contents(digest: Any, s: Structure) -> None:
    """Feed one structure to a hash: every field with its name and length, so that none can run into the next."""
    fields: list[tuple[str, bytes]] = [
        ("numbers", s.numbers.astype("<i8").tobytes()),
        ("positions", s.positions.astype("<f8").tobytes()),
        ("cell", s.cell.astype("<f8").tobytes()),
        ("pbc", s.pbc.tobytes()),
        ("config_type", s.config_type.encode()),
        ("head", repr(s.head).encode()),
        ("weight", np.float64(s.weight).astype("<f8").tobytes()),
        ("fixed", b"" if s.fixed is None else np.asarray(s.fixed, dtype=bool).tobytes()),
        ("tags", b"" if s.tags is None else np.asarray(s.tags).astype("<i8").tobytes()),
    ]
    if s.force_mask is not None:
        fields.append(("force_mask", np.asarray(s.force_mask, dtype=bool).tobytes()))
    electrons = (("charge", s.charge), ("multiplicity", s.multiplicity), ("fidelity", s.fidelity))
    fields += [(name, repr(value).encode()) for name, value in electrons if value is not None]
    for kind, table in (("base", s.base), ("feature", s.features)):
        fields += [(f"{kind} {k} {table[k].shape}", table[k].astype("<f8").tobytes()) for k in sorted(table)]
    fields += [(f"label {k}", np.asarray(s.labels[k]).astype("<f8").tobytes()) for k in sorted(s.labels)]
    for name, value in fields:
        digest.update(f"{name}:{len(value)}:".encode())
        digest.update(value)


def open_dataset(
    path: str | Path | Sequence[str | Path],
    format: str = "auto",
    keys: LabelKeys | None = None,
    units: LabelUnits | None = None,
) -> Dataset:
    """Open one or more files or folders as one data set.

    Args:
        path: file, folder of LMDB shards, or a list of them.
        format: name of a reader; "auto" looks into each file.
        keys: names of the labels.
        units: units and signs of the files.

    Raises:
        DataError: a file is missing, empty, damaged or of unknown format.
    """
    paths = [Path(path)] if isinstance(path, (str, Path)) else [Path(p) for p in path]
    if not paths:
        raise DataError("no data were given", fix="name at least one file")
    return Dataset([open_frames(one, format, keys or LabelKeys(), units or LabelUnits()) for one in paths])


def open_frames(
    path: Path,
    format: str,
    keys: LabelKeys,
    units: LabelUnits,
    select: str | None = None,
    on_error: Literal["raise", "skip"] = "raise",
) -> Frames:
    """Open one file or folder.

    Args:
        path: file or folder.
        format: name of a reader; "auto" looks into the file.
        keys: names of the labels.
        units: units and signs of the file.
        select: which records of a database.
        on_error: "skip" opens a source although some of its frames cannot be decoded; reading those still raises.

    Raises:
        DataError: it is missing, empty, damaged or of unknown format, or cannot select.
    """
    _check_there(path)
    name = FORMAT_ALIASES.get(format, format)
    name = detect_format(path) if name == "auto" else name
    entry = Catalog(READERS).entry(name)
    block: dict[str, Any] = {"keys": keys, "units": units, "select": select, "on_error": on_error}
    reader: Reader = entry.build(entry.settings(**block))
    if select is not None and not reader.selects:
        raise DataError(f"records of {name} cannot be selected", str(path), "remove data.select; it is for databases")
    return reader.open(path)


def detect_format(path: Path) -> str:
    """Return the name of the reader that recognises the contents of a file or folder.

    Raises:
        DataError: none does; says what the file seems to be.
    """
    name = _recognised(path)
    if name is not None:
        return name
    known = ", ".join(Catalog(READERS).names())
    if path.is_dir():
        inside = sorted(path.iterdir())
        names = ", ".join(p.name for p in inside[:5])
        known = [p.name for p in inside[:50] if p.is_file() and _recognised(p)]
        fix = f"name what it holds: {' '.join(known[:5])}{' ...' if len(known) > 5 else ''}" if known else "name a file"
        raise DataError(f"is a folder without data of a known format (it holds {names or 'nothing'})", str(path), fix)
    start = _start(path, 16)
    what = next((v for k, v in KNOWN_STARTS.items() if start.startswith(k)), f"it starts with {start!r}")
    raise DataError(f"the format is not known: {what}", str(path), f"convert it, or set data.format ({known})")


def _recognised(path: Path) -> str | None:
    catalog = Catalog(READERS)
    entries = {name: catalog.entry(name) for name in catalog.names()}
    return next((name for name, entry in entries.items() if entry.build(entry.settings()).recognises(path)), None)


def _check_there(path: Path) -> None:
    if server_address(path) is not None:
        return
    if not path.exists():
        folder = path.parent
        if not folder.is_dir():
            raise DataError(f"there is no folder {folder}", str(path), "check the path")
        near = difflib.get_close_matches(path.name, [p.name for p in folder.iterdir()], n=3, cutoff=0.5)
        raise DataError(
            "the file does not exist",
            str(path),
            f"did you mean {' or '.join(repr(n) for n in near)}?" if near else "check the path",
        )
    try:
        empty = path.is_file() and not _start(path, 1)
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", str(path), "check its permissions") from None
    if empty:
        raise DataError("is empty", str(path), "give a file with at least one frame")


def _start(path: Path, n_bytes: int) -> bytes:
    with path.open("rb") as stream:
        return stream.read(n_bytes)
