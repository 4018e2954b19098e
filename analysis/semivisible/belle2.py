"""A photon and a displaced lepton pair at Belle II: a projection at generator level."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from gammastar.core.files import Pathlike
from gammastar.core.records import BoolArray, FloatArray, IntArray, Rng
from gammastar.core.sampling import stream
from gammastar.semivisible.babar import s_channel_cascades
from gammastar.semivisible.benchmarks import ColliderCard
from gammastar.semivisible.cascade import Cascade, decay
from gammastar.semivisible.decays import decay_table
from gammastar.semivisible.models import mediator_widths
from gammastar.semivisible.plane import Model, Options, dark_branching
from gammastar.semivisible.production import monophoton_cross_section, s_channel_cross_section, sample_photons

CHUNK = 4_000


@dataclass(frozen=True, slots=True)
class DisplacedSearch(ColliderCard):
    """A search for a photon and a displaced lepton pair at generator level."""

    title: ClassVar[str] = "Belle II"
    shipped: ClassVar[str] = "semivisible/belle2.toml"
    # Beam energies [GeV]
    beam_minus: float
    beam_plus: float
    cos_max: float  # Largest |cos θ*| of the photon
    luminosity: float  # [1/fb]
    threshold: float  # Energy of each lepton [GeV]
    # Polar angles of the leptons in the laboratory [degrees]
    theta_min: float
    theta_max: float
    # Distances from the beam between which the decay counts [m]
    radius_min: float
    radius_max: float
    events: float  # Events that are excluded
    sources: Mapping[str, str] | None = None


def load_displaced(path: Pathlike | None = None) -> DisplacedSearch:
    """Return the search of a card, by default that of Belle II; each of its numbers needs a source."""
    return DisplacedSearch.load(path)


def displaced_probability(
    cascade: Cascade, card: DisplacedSearch, epsilon: npt.ArrayLike, rng: Rng
) -> FloatArray:
    """Return the probability of a visible displaced pair, (k,): all decays of a line, with exact chords."""
    coupling = np.atleast_1d(np.asarray(epsilon, dtype=np.float64))
    visible = _visible(cascade, card)
    useful = np.flatnonzero(visible.any(axis=1))
    flight = cascade.flight(1.0)  # βγ cτ, at ε = 1
    momentum = np.sqrt((cascade.parent[..., :3] ** 2).sum(axis=-1))
    slope = cascade.parent[..., :2] / np.maximum(momentum, 1e-300)[..., None]
    uniform = rng.random(visible.shape)
    total = np.zeros(len(coupling))
    for first in range(0, len(useful), CHUNK):
        rows = useful[first : first + CHUNK]
        lines = (cascade.source[rows], cascade.filled[rows], visible[rows])
        total += _counted(lines, (flight[rows], slope[rows], uniform[rows]), card, coupling**2).sum(axis=0)
    return np.asarray(total / len(cascade))


def _visible(cascade: Cascade, card: DisplacedSearch) -> BoolArray:
    """Return which decays have both particles inside the acceptance, shape (n, slots)."""
    low, high = np.cos(np.radians(card.theta_max)), np.cos(np.radians(card.theta_min))
    visible = cascade.filled
    for p in (cascade.particle, cascade.antiparticle):
        momentum = np.sqrt((p[..., :3] ** 2).sum(axis=-1))
        inside = (p[..., 2] > low * momentum) & (p[..., 2] < high * momentum)
        visible = visible & inside & (p[..., 3] > card.threshold)
    return np.asarray(visible)


def _counted(
    lines: tuple[IntArray, BoolArray, BoolArray],
    flights: tuple[FloatArray, FloatArray, FloatArray],
    card: DisplacedSearch,
    square: FloatArray,
) -> FloatArray:
    """Return the probability that a decay counts, (n, k): source, filled, visible; βγ cτ, slopes, uniform."""
    source, filled, visible = lines
    flight, slope, uniform = flights
    shape = (len(source), len(square))
    none, inside, position = np.ones(shape), np.ones(shape), np.zeros((*shape, 2))
    lost = np.zeros(shape)  # of the present line: probability that it ended without a counted decay
    for slot in range(source.shape[1]):
        begins = (source[:, slot] < 0)[:, None]
        none = np.where(begins, none * (lost + inside), none)
        lost, inside = np.where(begins, 0.0, lost), np.where(begins, 1.0, inside)
        position = np.where(begins[..., None], 0.0, position)
        here = filled[:, slot]
        mean = np.where(here, flight[:, slot], 1.0)[:, None] / square
        cuts = _chords(position, slope[:, slot], card)
        pair = visible[:, slot, None]
        # Between the outer cylinder and the inner one, before and behind it; then what goes uncounted.
        before, middle, behind, out = (
            np.exp(-x / mean) * -np.expm1(-(y - x) / mean)
            for x, y in ((0.0, cuts[0]), (cuts[0], cuts[1]), (cuts[1], cuts[2]), (cuts[2], np.inf))
        )
        onward = np.where(pair, middle, before + middle + behind)
        start = np.where(pair, cuts[0], 0.0)
        share = onward * np.exp(np.minimum(start / mean, 700.0))  # of what survives to the start
        length = start - mean * np.log1p(-uniform[:, slot, None] * np.minimum(share, 1.0))
        keep = here[:, None]
        lost = np.where(keep, lost + inside * out, lost)
        position = np.where(keep[..., None], position + length[..., None] * slope[:, slot, None, :], position)
        inside = np.where(keep, inside * onward, inside)
    return np.asarray(1.0 - none * (lost + inside))


def _chords(
    position: FloatArray, slope: FloatArray, card: DisplacedSearch
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return where a path enters and leaves the inner cylinder, and leaves the outer one, (n, k) [m]."""
    square = np.maximum((slope**2).sum(axis=1), 1e-24)[:, None]
    along = (position * slope[:, None, :]).sum(axis=2) / square
    closest = (position**2).sum(axis=2) - along**2 * square  # squared distance of the line from the beam

    def half(radius: float) -> FloatArray:
        return np.asarray(np.sqrt(np.clip(radius**2 - closest, 0.0, None) / square))

    outer = np.maximum(-along + half(card.radius_max), 0.0)
    inner = half(card.radius_min)
    enters = np.clip(-along - inner, 0.0, outer)
    leaves = np.clip(-along + inner, enters, outer)
    return enters, leaves, outer


def displaced_plane(
    model: Model,
    mass: FloatArray,
    epsilon: FloatArray,
    *,
    card: DisplacedSearch | None = None,
    options: Options | None = None,
) -> FloatArray:
    """Return the expected events with a displaced pair on a grid, shape (masses, couplings).

    Parameters
    ----------
    model, mass, epsilon
        As for `scan`.
    card : DisplacedSearch, optional
        By default the shipped one.
    options : Options, optional
        `s_channel` is the probability that the trigger takes an event of e+e− → A'* → ψψ, which has no
        photon, by its displaced pair.

    Notes
    -----
    Dark photons with a photon where a pair is open at M and M < √s; the s-channel wherever one is at √s.
    """
    search = load_displaced() if card is None else card
    options = Options() if options is None else options
    sigma = np.zeros((len(mass), len(epsilon)))  # of displaced pairs per ε² [fb]
    for index, m in enumerate(mass.tolist()):
        sector, rng = model(m), stream(options.seed, "displaced", index)
        r_table, neutrino = options.r_table, options.neutrino
        if m < search.sqrt_s and len(mediator_widths(sector)[0]):
            photons = sample_photons(m, search.sqrt_s, search.cos_max, options.n, rng)[1]
            table = decay_table(sector, r_table=r_table, neutrino=neutrino)
            events = decay(table, photons, rng, boost=search.boost, polarised=options.polarised)
            dark = dark_branching(sector, epsilon)
            sigma[index] = float(monophoton_cross_section(m, search.sqrt_s, search.cos_max)) * dark
            sigma[index] *= displaced_probability(events, search, epsilon, rng)
        s_channel = options.s_channel * float(s_channel_cross_section(sector, search.sqrt_s).sum())
        if s_channel > 0:
            events = s_channel_cascades(sector, search, options.n, rng, r_table=r_table, neutrino=neutrino)
            sigma[index] += s_channel * displaced_probability(events, search, epsilon, rng)
    return np.asarray(search.luminosity * epsilon**2 * sigma)
