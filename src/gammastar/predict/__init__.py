"""Rates and kinematics of dark particles from the spectrum of virtual photons."""

from gammastar.predict.channel import Channel, check_exclusive
from gammastar.predict.channels import VirtualPhoton, interpolate_rate, produce, rate
from gammastar.predict.model import Model
from gammastar.predict.models import DarkPhoton

__all__ = [
    "Channel",
    "DarkPhoton",
    "Model",
    "VirtualPhoton",
    "check_exclusive",
    "interpolate_rate",
    "produce",
    "rate",
]
