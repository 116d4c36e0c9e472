"""XPaiNN."""

from forgefield.core.catalog import Entry
from forgefield.models.architectures.xpainn.model import Xpainn
from forgefield.models.architectures.xpainn.settings import XpainnSettings

ENTRY = Entry(
    settings=XpainnSettings,
    build=Xpainn,
    summary="XequiNet's equivariant message passing, with many outputs",
    training={"lr": 0.001},
)
