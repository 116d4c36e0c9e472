"""Addresses of database servers in the place of paths."""

from __future__ import annotations

from pathlib import Path

SCHEMES = ("postgresql:", "postgres:")


def server_address(path: Path) -> str | None:
    """Return the address of a PostgreSQL server that a path means; None for a file.

    Paths lose one slash of "postgresql://user:password@host:5432/name", and may have been made absolute.
    """
    parts = path.parts
    for place, part in enumerate(parts):
        if part in SCHEMES:
            return f"postgresql://{'/'.join(parts[place + 1 :])}"
    return None


def shown(path: object) -> str:
    """Return a path for messages and records: an address loses user and password."""
    address = server_address(Path(str(path)))
    return str(path) if address is None else f"postgresql://{address.rsplit('@', 1)[-1].removeprefix('postgresql://')}"
