"""The abstract production channel, processes and their masses; no process is counted twice."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from gammastar.core.constants import M_PI0
from gammastar.core.constants import mass as mass_of
from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray, Momenta, Sample
from gammastar.physics.mesons import Unit

Importance: TypeAlias = Callable[[Sample], FloatArray]
"""Sample of n particles -> how much each of them, per unit weight, adds to some sums that count, (k, n)."""

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
    """Return the processes that a spectrum of lepton pairs holds."""
    low, high = mass_range
    inside = {name for name, (first, last) in MASSES.items() if first < high and low < last}
    return frozenset(inside | {outside(name) for name in inside - FORWARD})


def outside(process: str) -> str:
    """Return the name of the part of a process that lies outside the measured domain."""
    return f"{process} outside the measured domain"


class Channel(ABC):
    """A way to make dark particles at unit coupling.

    Attributes
    ----------
    group : str
        Name of the channel's kind; two channels of one group never add up.
    processes : frozenset of str
        What the channel contains, e.g. ``{"pseudoscalar_dalitz", "bremsstrahlung"}``.
    """

    @property
    def group(self) -> str:
        """Name of the kind; a class attribute will do."""
        raise AttributeError(f"{type(self).__name__} needs group, the name of its kind")

    @property
    def processes(self) -> frozenset[str]:
        """What the channel contains; a class attribute will do."""
        raise AttributeError(f"{type(self).__name__} needs processes, a frozenset of names")

    @abstractmethod
    def rate(self, mass: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Return the rate per proton on target and unit coupling, with its covariance.

        Parameters
        ----------
        mass : array_like, shape (n,) [GeV]

        Returns
        -------
        rate : NDArray, shape (n,)
        cov : NDArray, shape (n, n)
        """

    @abstractmethod
    def produce(self, mass: float, *, n: int, rng: np.random.Generator) -> Sample:
        """Return `n` weighted particles whose weights sum to the rate at this mass.

        They are symmetric about the beam: a detector beside it sees them turned into its azimuths.

        Parameters
        ----------
        mass : float [GeV]
        n : int
            How many particles.
        """

    def focused(
        self,
        mass: float,
        *,
        n: int,
        rng: np.random.Generator,
        importance: Importance,  # noqa: ARG002
    ) -> Sample:
        """Return `n` weighted particles, more of them where they count; by default those of `produce`.

        Parameters
        ----------
        mass : float [GeV]

        Returns
        -------
        Sample
            Weighted sums are those of `produce` on average; its weights sum to the rate on average too.
        """
        return self.produce(mass, n=n, rng=rng)

    def replicas(self, mass: float, sample: Sample) -> FloatArray | None:  # noqa: ARG002
        """Return what replicas of the kinematics would weigh the particles of a sample.

        Parameters
        ----------
        mass : float [GeV]
        sample : Sample
            From `produce` or `focused` at this mass, or some of its particles.

        Returns
        -------
        NDArray, shape (k, n), or None
            Density of each replica over that of the sample; None if the channel has no replicas.
        """
        return None

    def band(self, mass: float, sample: Sample) -> FloatArray | None:
        """Return what the edges of the theory would weigh the particles of a sample, one sigma each way.

        Parameters
        ----------
        mass : float [GeV]
        sample : Sample
            From `produce` at this mass.

        Returns
        -------
        NDArray, shape (2, n), or None
            Lower and upper edge over the centre; by default the error of the rate, for every particle the
            same. None where the errors are not those of a theory.
        """
        value, cov = self.rate([mass])
        relative = np.sqrt(max(float(cov[0, 0]), 0.0)) / float(value[0]) if value[0] > 0 else 0.0
        ends = np.array([max(0.0, 1.0 - relative), 1.0 + relative])
        return np.repeat(ends[:, None], len(sample.weight), axis=1)


def check_exclusive(channels: Sequence[Channel]) -> None:
    """Check that no process is in two channels.

    Raises
    ------
    PhysicsError
        If two channels share their group or a process: their sum would count it twice.

    Notes
    -----
    A channel may bound the masses it covers with an attribute ``mass_range`` (low, high) [GeV]; channels that
    cover disjoint masses may share a process, as η Dalitz decays below and above the dimuon threshold.
    """
    for first, second in combinations(channels, 2):
        a, b = (getattr(channel, "mass_range", (0.0, np.inf)) for channel in (first, second))
        if a[1] <= b[0] or b[1] <= a[0]:
            continue
        shared = first.processes & second.processes
        if first.group == second.group or shared:
            what = ", ".join(sorted(shared)) if shared else f"the group {first.group!r}"
            msg = f"channels {first.group!r} and {second.group!r} both contain {what}: remove one of them"
            if shared and shared <= FORWARD and "virtual_photon" in (first.group, second.group):
                msg += ", or count it outside the measured domain only, under [predict] outside"
            raise PhysicsError(msg)


def sample_at_origin(p: FloatArray, weight: FloatArray, parent: FloatArray | None = None) -> Sample:
    """Return particles of momenta (4, n) made at the origin, where no pair was measured."""
    n = len(weight)
    return Sample(Momenta(*p), weight, np.zeros((n, 3)), np.zeros(n, dtype=np.bool_), parent=parent)


def unit_of(channels: Sequence[Channel]) -> Unit:
    """Return what the rates of channels count in: "proton", or "pb" for a detector with a luminosity."""
    units = {channel.group: getattr(channel, "unit", "proton") for channel in channels}
    if len(set(units.values())) > 1:
        text = ", ".join(f"{group!r} in {unit}" for group, unit in units.items())
        raise PhysicsError(
            f"rates count per proton or as cross sections, not both: {text}; give predict.sigma_inelastic to "
            "have all of them per interacting proton"
        )
    return "pb" if "pb" in units.values() else "proton"
