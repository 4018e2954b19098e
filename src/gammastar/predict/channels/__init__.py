"""Production channels, one per file."""

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
]
