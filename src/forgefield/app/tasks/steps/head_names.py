"""Names of levels of theory that a reader, or a file system, could take for one."""

from __future__ import annotations

from collections.abc import Collection

from forgefield.core.errors import DataError


def check_told_apart(names: Collection[str], where: str) -> None:
    """Refuse names that differ only in case, blanks, hyphens or underscores: they would be two levels by oversight.

    Raises:
        DataError: two names are alike.
    """
    seen = dict[str, str]()
    for name in sorted(names):
        key = "".join(letter for letter in name.casefold() if letter not in " -_")
        if key in seen:
            what = f"names levels of theory {seen[key]!r} and {name!r}, which would be two levels with a head each"
            raise DataError(what, where, "write both in the same way, or give them names that cannot be mistaken")
        seen[key] = name
