"""Production channels, one per file."""

from gammastar.predict.channels.tabulated import EventCalcTables, ForeseeSpectra, tabulated_channel
from gammastar.predict.channels.theory import (
    Bremsstrahlung,
    JPsi,
    MesonChannel,
    Outside,
    PionDalitz,
    PseudoscalarDalitz,
    VectorDalitz,
    VectorMixing,
)
from gammastar.predict.channels.virtual_photon import (
    ReplicaWeights,
    VirtualPhoton,
    interpolate_rate,
    produce,
    rate,
)

__all__ = [
    "Bremsstrahlung",
    "EventCalcTables",
    "ForeseeSpectra",
    "JPsi",
    "MesonChannel",
    "Outside",
    "PionDalitz",
    "PseudoscalarDalitz",
    "ReplicaWeights",
    "VectorDalitz",
    "VectorMixing",
    "VirtualPhoton",
    "interpolate_rate",
    "produce",
    "rate",
    "tabulated_channel",
]
