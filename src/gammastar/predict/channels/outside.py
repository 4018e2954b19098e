"""A theory channel where no lepton pair was measured: what data do not decide."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from gammastar.core.errors import PhysicsError
from gammastar.core.records import BoolArray, FloatArray, Sample
from gammastar.core.sampling import stream
from gammastar.predict.channel import Channel, outside
from gammastar.predict.channels.virtual_photon import InDomain

__all__ = ["Outside"]

_NODES = 20_000  # of the integral over the domain: a share of one half to 0.4 %


@dataclass(frozen=True, slots=True, eq=False)
class Outside(Channel):
    """The part of a theory channel outside the measured domain, particle by particle.

    It may be added to measured virtual photons: inside the domain the process is in the data.

    Attributes
    ----------
    channel : Channel
    in_domain : callable
        (mass, pt, energy) -> True where lepton pairs were measured.
    mass_range : tuple of float
        Masses of the measured spectrum [GeV].
    """

    channel: Channel
    in_domain: InDomain
    mass_range: tuple[float, float]

    @property
    def group(self) -> str:
        """That of the channel: the whole and its part never add up."""
        return self.channel.group

    @property
    def processes(self) -> frozenset[str]:
        """The processes of the channel, named as parts outside the measured domain."""
        return frozenset(outside(name) for name in self.channel.processes)

    def describe(self) -> str:
        """Return what the channel says of itself, and where it counts."""
        own = self.channel.describe() if hasattr(self.channel, "describe") else self.channel.group
        return f"{own}; outside the measured domain only"

    def share(self, mass: npt.ArrayLike) -> FloatArray:
        """Return the part of the rate outside the measured domain, shape (n,).

        Notes
        -----
        The same `_NODES` particles of the channel for every call at a mass: a quadrature rule, no chance.
        """
        masses = np.atleast_1d(np.asarray(mass, dtype=np.float64))
        return np.array([self._share(float(m)) for m in masses])

    def _share(self, mass: float) -> float:
        sample = self.channel.produce(mass, n=_NODES, rng=stream(0, "outside the domain", f"{mass:.9g}"))
        return 1.0 - float(sample.weight[self._inside(mass, sample)].sum() / sample.weight.sum())

    def _inside(self, mass: float, sample: Sample) -> BoolArray:
        pt, energy = (np.asarray(c, dtype=np.float64) for c in (sample.p4.pt, sample.p4.E))
        return np.asarray(self.in_domain(np.full(len(pt), mass), pt, energy), dtype=np.bool_)

    def rate(self, mass: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Return rate and covariance of the part."""
        value, cov = self.channel.rate(mass)
        share = self.share(mass)
        return value * share, cov * np.outer(share, share)

    def band(self, mass: float, sample: Sample) -> FloatArray | None:
        """Return the edges of the channel's theory over its centre, shape (2, n)."""
        return self.channel.band(mass, sample)

    def produce(self, mass: float, *, n: int, rng: np.random.Generator) -> Sample:
        """Return `n` particles; those inside the domain weigh nothing, the others sum to the rate.

        Raises
        ------
        PhysicsError
            If all of them lie inside.
        """
        sample = self.channel.produce(mass, n=n, rng=rng)
        weight = np.where(self._inside(mass, sample), 0.0, sample.weight)
        total = float(self.rate([mass])[0][0])
        if not weight.sum() > 0:
            msg = f"channel {self.group!r}: none of {n} particles of {mass:g} GeV is outside the domain"
            raise PhysicsError(msg)
        return replace(sample, weight=weight * (total / weight.sum()), in_domain=np.zeros(n, dtype=np.bool_))
