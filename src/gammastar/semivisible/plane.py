"""Whole planes of mass and coupling for one model: BaBar and NA64 at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from gammastar.core.records import FloatArray
from gammastar.core.sampling import stream
from gammastar.physics.qed import RTable
from gammastar.semivisible import babar, na64
from gammastar.semivisible.decays import NeutrinoMixing, decay_table
from gammastar.semivisible.models import DarkSector

__all__ = ["Options", "Plane", "scan"]

Model: TypeAlias = Callable[[float], DarkSector]


@dataclass(frozen=True, slots=True)
class Options:
    """How a plane is scanned.

    Attributes
    ----------
    n : int
        Events per mass.
    seed : int
    polarised : bool
        Dark photons are transverse; isotropic decay otherwise.
    r_table : RTable or None
        Opens hadronic decays.
    neutrino : NeutrinoMixing or None
        Lets the lightest state decay to a neutrino and a pair.
    s_channel : float
        Probability that an event of e+e− → A'* → ψψ, in which nothing is seen, passes the monophoton
        selection (it lacks the photon); zero leaves the process out.
    """

    n: int = 100_000
    seed: int = 1
    polarised: bool = False
    r_table: RTable | None = None
    neutrino: NeutrinoMixing | None = None
    s_channel: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Plane:
    """Probabilities of missing momentum on a grid, all of shape (masses, couplings).

    Attributes
    ----------
    mass, epsilon : NDArray
    babar, babar_low, babar_high, babar_error : NDArray
        With the band of thresholds and acceptance.
    strict, inclusive : NDArray
        NA64; nan at masses where a cascade has no room in its beam.
    warnings : tuple of str
        What the models say of themselves, e.g. broad dark photons.
    """

    mass: FloatArray
    epsilon: FloatArray
    babar: FloatArray
    babar_low: FloatArray
    babar_high: FloatArray
    babar_error: FloatArray
    strict: FloatArray
    inclusive: FloatArray
    warnings: tuple[str, ...]


def scan(
    model: Model,
    mass: FloatArray,
    epsilon: FloatArray,
    *,
    cards: tuple[babar.BaBar, na64.NA64] | None = None,
    options: Options | None = None,
) -> Plane:
    """Return the probabilities of missing momentum of a model on a grid.

    Parameters
    ----------
    model : callable
        Mass of the dark photon [GeV] -> DarkSector, e.g. ``load_benchmark("iDM-040").sector``.
    mass, epsilon : NDArray, shapes (m,) and (k,)
    cards : tuple of BaBar and NA64, optional
        By default the shipped ones.
    options : Options, optional

    Notes
    -----
    The branching ratio of A' into the standard model, of order α ε²/α_D, is neglected.
    """
    cards = (babar.load_babar(), na64.load_na64()) if cards is None else cards
    options = Options() if options is None else options
    rows: list[Sequence[FloatArray]] = []
    notes: dict[str, None] = {}
    for index, m in enumerate(mass):
        sector = model(float(m))
        notes |= dict.fromkeys(f"{sector.name} at {m:.3g} GeV: {text}" for text in sector.warnings)
        rows.append(_row(sector, epsilon, cards, replace(options, seed=options.seed + index)))
    value, low, high, error, strict, inclusive = (np.array(column) for column in zip(*rows, strict=True))
    return Plane(
        np.asarray(mass), np.asarray(epsilon), value, low, high, error, strict, inclusive, tuple(notes)
    )


def _row(
    sector: DarkSector, epsilon: FloatArray, cards: tuple[babar.BaBar, na64.NA64], options: Options
) -> Sequence[FloatArray]:
    """Return all probabilities at one mass."""
    rng = stream(options.seed, "recast", sector.name)
    table = decay_table(sector, r_table=options.r_table, neutrino=options.neutrino)
    events = babar.cascades(table, cards[0], options.n, rng, polarised=options.polarised)
    p = babar.missing(events, cards[0], epsilon, rng)
    extra = np.zeros_like(epsilon)
    if options.s_channel > 0:
        direct = babar.s_channel_cascades(sector, cards[0], options.n, rng)
        ratio = options.s_channel * babar.s_channel_ratio(sector, cards[0])
        extra = ratio * babar.missing(direct, cards[0], epsilon, rng, band=False).value
    strict = inclusive = np.full(len(epsilon), np.nan)
    if sector.mediator < cards[1].beam:
        target = na64.production(sector.mediator, cards[1])
        energy, decays = na64.cascades(table, target, options.n, rng, polarised=options.polarised)
        strict = na64.missing(energy, decays, cards[1], epsilon, rng, mode="strict").value
        inclusive = na64.missing(energy, decays, cards[1], epsilon, rng, mode="inclusive").value
    return p.value + extra, p.low + extra, p.high + extra, p.error, strict, inclusive
