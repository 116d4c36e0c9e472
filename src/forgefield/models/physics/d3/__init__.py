"""D3(BJ) dispersion."""

from forgefield.core.catalog import Entry
from forgefield.models.physics.d3.model import D3
from forgefield.models.physics.d3.settings import D3Settings

ENTRY = Entry(settings=D3Settings, build=D3, summary="D3(BJ) dispersion for a functional")
