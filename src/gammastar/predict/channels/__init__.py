"""Production channels, one per file."""

from gammastar.predict.channels.virtual_photon import VirtualPhoton, interpolate_rate, produce, rate

__all__ = ["VirtualPhoton", "interpolate_rate", "produce", "rate"]
