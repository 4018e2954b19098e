"""Rates and kinematics of dark particles from the spectrum of virtual photons, and theory beside them."""

from __future__ import annotations

from gammastar.predict.channel import Channel, VirtualPhoton, check_exclusive, rate
from gammastar.predict.in_situ import search_in_situ
from gammastar.predict.millicharge import VirtualPhotons, chi_pairs, chi_rate
from gammastar.predict.mixture import Mixture
from gammastar.predict.models import DarkPhoton, Labels, Model, VectorModel, make_model, theory_channel
from gammastar.predict.production import Production, scan_masses
from gammastar.predict.theory import (
    Bremsstrahlung,
    JPsi,
    Outside,
    PionDalitz,
    PseudoscalarDalitz,
    VectorDalitz,
    VectorMixing,
)

__all__ = [
    "Bremsstrahlung",
    "Channel",
    "DarkPhoton",
    "JPsi",
    "Labels",
    "Mixture",
    "Model",
    "Outside",
    "PionDalitz",
    "Production",
    "PseudoscalarDalitz",
    "VectorDalitz",
    "VectorMixing",
    "VectorModel",
    "VirtualPhoton",
    "VirtualPhotons",
    "check_exclusive",
    "chi_pairs",
    "chi_rate",
    "make_model",
    "rate",
    "scan_masses",
    "search_in_situ",
    "theory_channel",
]
