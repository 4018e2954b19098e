"""NA64's missing-energy search recast to semi-visible dark photons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from gammastar.core.errors import PhysicsError
from gammastar.core.files import Pathlike
from gammastar.core.records import FloatArray, Rng
from gammastar.semivisible.benchmarks import Card, correction
from gammastar.semivisible.cascade import Cascade, decay
from gammastar.semivisible.decays import DecayTable
from gammastar.semivisible.missing_momentum import Missing, exponential_sum, from_sums, missing_energy
from gammastar.semivisible.production import LEAD, Correction, ThickTarget, thick_target


@dataclass(frozen=True, slots=True)
class NA64(Card):
    """The selection at generator level."""

    title: ClassVar[str] = "NA64"
    shipped: ClassVar[str] = "semivisible/na64.toml"
    beam: float  # [GeV]
    eot: float  # Electrons on target of the published limit
    # Smallest missing energy, and largest visible energy behind the electromagnetic calorimeter [GeV]
    missing_energy: float
    hcal_energy: float
    # Ends of the two calorimeters after the first interaction [m]
    ecal_end: float
    hcal_end: float
    sources: Mapping[str, str] | None = None


def load_na64(path: Pathlike | None = None) -> NA64:
    """Return the selection of a card, by default the shipped one; each of its numbers needs a source."""
    return NA64.load(path)


def production(mass: float, card: NA64, k: Correction | None = None) -> ThickTarget:
    """Return dark photons per electron on target in the lead of the calorimeter, above the missing energy."""
    table = correction() if k is None else k
    return thick_target(mass, beam=card.beam, threshold=card.missing_energy, material=LEAD, correction=table)


def cascades(
    table: DecayTable, target: ThickTarget, n: int, rng: Rng, *, polarised: bool = False
) -> tuple[FloatArray, Cascade]:
    """Return the energies of dark photons [GeV], shape (n,), and their decays."""
    if not np.isclose(table.mediator, target.mass, rtol=1e-9):
        raise PhysicsError(
            f"decays of {table.mediator:g} GeV, production of {target.mass:g} GeV: they must belong together"
        )
    photons = target.sample(n, rng)
    return photons[:, 3], decay(table, photons, rng, polarised=polarised)


def missing(
    energy: FloatArray,
    cascade: Cascade,
    card: NA64,
    epsilon: npt.ArrayLike,
    rng: Rng,
    *,
    mode: str = "strict",
) -> Missing:
    """Return the probability that a dark photon above the missing energy counts as missing energy.

    All visible energy of a pair is deposited where it decays; muons and hadrons leak out of the
    electromagnetic calorimeter. The band is the Monte Carlo error: the geometry is data of the card.
    """
    coupling = np.atleast_1d(np.asarray(epsilon, dtype=np.float64))
    source = np.where(cascade.filled, cascade.source, -2)
    flight = cascade.flight(1.0)
    if mode == "strict":
        rate = (np.where(cascade.source == -1, card.hcal_end / flight, 0.0)).sum(axis=1)
        one = np.ones(len(energy))
        sums = np.array([exponential_sum(k * rate, one, coupling) for k in (1.0, 2.0)])
    elif mode == "inclusive":
        leaks = cascade.kind > 0
        visible = cascade.particle[..., 3] + cascade.antiparticle[..., 3]
        limits = (card.ecal_end, card.hcal_end), (card.missing_energy, card.hcal_energy)
        slots = source, visible, leaks, flight, rng.random(source.shape)
        sums = missing_energy(energy, slots, *limits, coupling)
    else:
        raise PhysicsError(f"NA64 mode {mode!r}: 'strict' or 'inclusive'")
    value, error = from_sums(sums, len(cascade))
    low, high = np.clip(value - error, 0.0, 1.0), np.clip(value + error, 0.0, 1.0)
    return Missing(coupling, value, error, np.minimum(low, value), np.maximum(high, value))
