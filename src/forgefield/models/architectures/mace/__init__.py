"""MACE."""

from forgefield.core.catalog import Entry
from forgefield.models.architectures.mace.model import Mace
from forgefield.models.architectures.mace.settings import MaceSettings

ENTRY = Entry(settings=MaceSettings, build=Mace, summary="equivariant, many-body message passing")
