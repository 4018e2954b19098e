"""Processes that make virtual photons: at which masses, and which of them a measured spectrum holds."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from gammastar.core.constants import M_PI0
from gammastar.core.constants import mass as mass_of

__all__ = ["FORWARD", "MASSES", "held", "outside"]

_ETA, _ETA_PRIME, _OMEGA, _PHI, _JPSI = (mass_of(pdg) for pdg in (221, 331, 223, 333, 443))
_EVERY = (0.0, float("inf"))

MASSES: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "pion_dalitz": (0.0, M_PI0),
        "pseudoscalar_dalitz": (0.0, _ETA_PRIME),
        "vector_dalitz": (0.0, max(_OMEGA, _PHI) - M_PI0),
        "vector_mesons": _EVERY,
        "bremsstrahlung": _EVERY,
        "drell_yan": _EVERY,
        "jpsi": (_JPSI, _JPSI),
    }
)
"""Masses of the virtual photon at which a process is open [GeV]."""

FORWARD = frozenset({"bremsstrahlung"})
"""Processes at angles that no spectrometer beside the beam sees, and no simulation of hadrons holds."""


def held(mass_range: tuple[float, float]) -> frozenset[str]:
    """Return the processes that a spectrum of lepton pairs holds.

    Parameters
    ----------
    mass_range : tuple of float
        First and last measured mass [GeV]; the first is never below twice the lepton's mass.

    Returns
    -------
    frozenset of str
        Every process that makes virtual photons of these masses, as it is named inside the measured domain.
        Outside it, where the spectrum continues with the simulation's hadrons, all but `FORWARD`.

    Examples
    --------
    >>> sorted(held((0.05, 1.0)) - held((0.2125, 1.0)))
    ['pion_dalitz', 'pion_dalitz outside the measured domain']
    >>> "jpsi" in held((0.2125, 4.0))
    True
    """
    low, high = mass_range
    inside = {name for name, (first, last) in MASSES.items() if first < high and low < last}
    return frozenset(inside | {outside(name) for name in inside - FORWARD})


def outside(process: str) -> str:
    """Return the name of the part of a process that lies outside the measured domain."""
    return f"{process} outside the measured domain"
