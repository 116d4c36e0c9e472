"""AIMNet2."""

from forgefield.core.catalog import Entry
from forgefield.models.architectures.aimnet2.model import Aimnet2
from forgefield.models.architectures.aimnet2.settings import Aimnet2Settings

ENTRY = Entry(
    settings=Aimnet2Settings,
    build=Aimnet2,
    summary="message passing with charges that are equilibrated",
    training={"lr": 0.001},
)
