"""Base labels of structures: those that the data bring, else computed and kept."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import numpy as np

from forgefield.app.baseline.cache import Cache, Failure, key_of
from forgefield.core.errors import DataError
from forgefield.core.quantities import QUANTITIES
from forgefield.core.structure import Structure
from forgefield.models.baseline.settings import BaselineSettings
from forgefield.models.baseline.xtb import Xtb


class BaseLabels:
    """Gives the base labels of a structure; may be sent to other processes.

    Args:
        settings: the baseline.
        cache: where computed results are kept.
    """

    def __init__(self, settings: BaselineSettings, cache: Cache | None = None) -> None:
        self.settings, self.cache = settings, cache or Cache(None)

    @cached_property
    def program(self) -> Xtb:
        """What computes the level.

        Raises:
            ModelError: it is not installed.
        """
        return Xtb(self.settings)

    def __getstate__(self) -> dict[str, object]:
        return {"settings": self.settings, "cache": self.cache}

    def __call__(self, structure: Structure) -> Mapping[str, np.ndarray]:
        """Return the base labels by quantity name.

        Raises:
            DataError: the structure cannot be computed.
        """
        if not self.settings.computed or self.stated(structure):
            return structure.base
        found = self.result(structure)
        if isinstance(found, Failure):
            raise unsolved(structure, found)
        return {name: value for name, value in found.items() if name in QUANTITIES}

    def stated(self, structure: Structure) -> bool:
        """Say whether the data bring all base labels that a whole prediction of the structure needs."""
        needed = {"energy", "forces", *self.settings.targets}
        if structure.pbc.all():
            needed.add("stress")
        return needed <= structure.base.keys()

    def result(self, structure: Structure) -> dict[str, np.ndarray] | Failure:
        """Return what the program gives, computed at most once; or why it gives nothing."""
        try:
            key = key_of(structure, self.settings)
        except DataError as error:
            return Failure(error.what)
        known = self.cache.get(key)
        if known is not None:
            return known
        try:
            made: dict[str, np.ndarray] | Failure = self.program.compute(structure)
        except DataError as error:
            made = Failure(error.what)
        self.cache.put(key, made)
        return made

    def known(self, structure: Structure) -> bool:
        """Say whether nothing has to be computed for a structure."""
        if not self.settings.computed or self.stated(structure):
            return True
        try:
            return self.cache.get(key_of(structure, self.settings)) is not None
        except DataError:
            return False


def unsolved(structure: Structure, why: Failure) -> DataError:
    """Return the error of a structure that cannot be computed."""
    return DataError(
        str(why), structure.origin, "repair it or take it out; or data.on_error: skip leaves such ones out"
    )
