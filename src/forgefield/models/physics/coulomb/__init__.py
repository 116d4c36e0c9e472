"""Coulomb energy of atomic charges."""

from forgefield.core.catalog import Entry
from forgefield.models.physics.coulomb.model import Coulomb
from forgefield.models.physics.coulomb.settings import CoulombSettings

ENTRY = Entry(settings=CoulombSettings, build=Coulomb, summary="Coulomb energy: simple, DSF, Ewald, PME")
