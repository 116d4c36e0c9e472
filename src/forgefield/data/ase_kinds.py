"""Which of ASE's file formats are read: those that neither run nor unpickle what they find, told by content."""

from __future__ import annotations

import re
from pathlib import Path

from ase.io.formats import UnknownFileTypeError, filetype, ioformats

from forgefield.core.errors import DataError

SAFE = frozenset(
    {
        *(
            "traj",
            "vasp",
            "vasp-out",
            "vasp-xdatcar",
            "vasp-xml",
            "cif",
            "proteindatabank",
            "xsf",
            "cube",
            "cfg",
            "eon",
        ),
        *("aims", "aims-output", "abinit-in", "abinit-out", "castep-geom", "castep-md"),
        *("cp2k-restart", "crystal", "dmol-arc", "dmol-car", "elk", "espresso-in", "espresso-out", "exciting"),
        *("gaussian-in", "gaussian-out", "gen", "gpaw-out", "gpumd", "lammps-dump-text", "mol", "sdf"),
        *("nwchem-in", "nwchem-out", "onetep-out", "orca-output", "qbox", "res", "runnerdata", "siesta-xv", "struct"),
        *("turbomole", "turbomole-gradient", "xsd", "xtd"),
    }
)
"""Formats of ASE whose parsers were looked through: text or ULM in, no pickle, no eval, no other program.

Left out on purpose: formats of pictures and netCDF, gpw (needs GPAW), LAMMPS data and binary dumps (they name types,
not elements), and everything that other packages add to ASE."""

PEEKED = 64 * 1024
NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eEdD][-+]?\d+)?"
THREE = rf"[ \t]*{NUMBER}[ \t]+{NUMBER}[ \t]+{NUMBER}[^\n]*\n"
SIGNS = (
    ("vasp-xml", re.compile(r"\s*<\?xml[^>]*>\s*<modeling>")),
    ("vasp-out", re.compile(r"\s*vasp\.\d")),
    (
        "vasp-xdatcar",
        re.compile(rf"[^\n]*\n[ \t]*{NUMBER}[ \t]*\n(?:{THREE}){{3}}[^\n]*\n[^\n]*\nDirect configuration="),
    ),
    (
        "vasp",
        re.compile(
            rf"[^\n]*\n[ \t]*{NUMBER}[^\n]*\n(?:{THREE}){{3}}(?:[ \t]*[A-Z][^\n]*\n)?[ \t]*\d+(?:[ \t]+\d+)*[ \t]*\r?\n"
        ),
    ),
    ("cif", re.compile(r"(?:\s*#[^\n]*\n)*\s*data_\S*\s")),
    ("proteindatabank", re.compile(r"(?:HEADER|TITLE |COMPND|AUTHOR|REMARK|CRYST1|MODEL  |ATOM  |HETATM)")),
    ("sdf", re.compile(r"(?:[^\n]*\n){3}[ \d]{6}[^\n]*V2000\s")),
)
ENDS = {
    "vasp-xml": re.compile(rb"</modeling>\s*$"),
    "proteindatabank": re.compile(rb"(?:^|\n)(?:END|ENDMDL|MASTER[^\n]*|CONECT[^\n]*)\s*$"),
    "sdf": re.compile(rb"(?:M  END|\$\$\$\$)\s*$"),
}
ULM = (b"- of UlmASE-Trajectory", b"AFFormatASE-Trajectory")


def kind_by_content(path: Path) -> str | None:
    """Return ASE's name of a safe format that the content of a file shows; None if it shows none."""
    with path.open("rb") as stream:
        start = stream.read(PEEKED)
    if start.startswith(ULM):
        return "traj"
    if b"\0" in start:
        return None
    text = start.decode("latin1")
    for name, sign in SIGNS:
        if sign.match(text):
            return name
    for name in sorted(SAFE):
        found = ioformats[name]
        if (found.magic or found.magic_regex) and any(found.match_magic(s + start[:2000]) for s in (b"", b"\n")):
            return name
    return None


def safe_kind(path: Path) -> str:
    """Return ASE's name of the format of a file, by content, else by name.

    Raises:
        DataError: it is not known, or a format whose reader would run or unpickle what it finds.
    """
    kind = kind_by_content(path)
    if kind is None:
        try:
            named = path.suffix.removeprefix(".").lower()
            kind = named if named in SAFE else filetype(str(path), guess=False)
        except (UnknownFileTypeError, OSError, UnicodeError):
            raise DataError("ASE does not know this format", str(path), "convert it to extxyz") from None
    if kind not in SAFE:
        raise DataError(
            f"is {kind!r} for ASE, a format that is not read here",
            str(path),
            "convert it to extxyz with ase.io, if you trust the file",
        )
    if kind == "lammps-dump-text":
        _require_elements(path)
    return kind


def check_end(path: Path, kind: str) -> list[str]:
    """Return notes on a text file that may be cut off.

    Raises:
        DataError: it has no end where its format has one, so that ASE would leave out what is missing.
    """
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - PEEKED))
        tail = stream.read()
    ends = ENDS.get(kind)
    if ends is not None and ends.search(tail) is None:
        fix = "copy it again; of a calculation that was stopped, remove the incomplete step and close the file"
        raise DataError(f"has no end, as {kind} has one", str(path), fix)
    if kind == "vasp-out" and b"General timing" not in tail:
        return ["the calculation did not come to its end; a last step that is incomplete is not read"]
    return [] if tail.endswith(b"\n") else ["the file does not end with a newline: was it cut off?"]


def _require_elements(path: Path) -> None:
    """Refuse LAMMPS dumps without element names: ASE would take type 1 for hydrogen."""
    with path.open("rb") as stream:
        columns = re.search(rb"ITEM: ATOMS([^\n]*)", stream.read(PEEKED))
    if columns is None or b"element" not in columns.group(1).split():
        raise DataError(
            "the dump names atom types but no elements", str(path), "write it with `dump_modify element` and the column"
        )
