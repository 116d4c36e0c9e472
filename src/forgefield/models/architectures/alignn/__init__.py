"""ALIGNN."""

from forgefield.core.catalog import Entry
from forgefield.models.architectures.alignn.model import Alignn
from forgefield.models.architectures.alignn.settings import AlignnSettings

ENTRY = Entry(
    settings=AlignnSettings,
    build=Alignn,
    summary="messages between bonds along their angles, and between atoms",
    training={"lr": 0.001},
)
