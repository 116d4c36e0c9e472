"""Equivariant features: channels of each degree, with the harmonics' parity."""

from __future__ import annotations

import re
from typing import NamedTuple

HIGHEST = 4


class Irreps(NamedTuple):
    """Channels by degree. Features lie degree after degree, (2l+1) rows of C channels each, as (N, size)."""

    degrees: tuple[int, ...]  # ascending, each once
    channels: tuple[int, ...]

    @property
    def parts(self) -> list[tuple[int, int]]:
        """Degree and channels of each part."""
        return list(zip(self.degrees, self.channels, strict=True))

    @property
    def count(self) -> int:
        """Channels of all degrees together."""
        return sum(self.channels)

    @property
    def sizes(self) -> list[int]:
        """Numbers that each degree has."""
        return [(2 * l + 1) * c for l, c in self.parts]

    def only(self, degrees: tuple[int, ...]) -> Irreps:
        """Return the parts of these degrees."""
        kept = [(l, c) for l, c in self.parts if l in degrees]
        return Irreps(tuple(l for l, _ in kept), tuple(c for _, c in kept))


def parse_irreps(text: str) -> Irreps:
    """Read "64x0e + 32x1o"; the same degree twice is joined.

    Raises:
        ValueError: it cannot be read, or a degree is too high or has the other parity.
    """
    found: dict[int, int] = {}
    for part in text.split("+"):
        match = re.fullmatch(r"\s*(\d+)\s*x\s*(\d+)([eo])\s*", part)
        if not match or int(match[1]) < 1:
            raise ValueError(f"cannot read {part.strip()!r}; write such as 64x0e + 32x1o + 16x2e")
        degree = int(match[2])
        if match[3] != "eo"[degree % 2]:
            raise ValueError(
                f"{part.strip()}: features are made of spherical harmonics, which are even (e) for even degrees and "
                f"odd (o) for odd ones: write {match[1]}x{degree}{'eo'[degree % 2]}"
            )
        if degree > HIGHEST:
            raise ValueError(f"{part.strip()}: degrees up to {HIGHEST} are known")
        found[degree] = found.get(degree, 0) + int(match[1])
    ordered = sorted(found.items())
    return Irreps(tuple(l for l, _ in ordered), tuple(c for _, c in ordered))
