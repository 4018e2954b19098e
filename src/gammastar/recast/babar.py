"""BaBar's monophoton search recast to semi-visible dark photons."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gammastar.core.data import data_path
from gammastar.core.documents import from_toml, sources_of
from gammastar.core.errors import InputFileError, SteeringError
from gammastar.core.records import FloatArray
from gammastar.physics.cascade import Cascade, decay
from gammastar.physics.dark_sector import DarkSector
from gammastar.physics.decay_table import DecayTable, decay_table
from gammastar.physics.monophoton import cross_section, s_channel_cross_section, sample_photons
from gammastar.recast.exponentials import exponential_sum
from gammastar.recast.flight import no_visible_decay
from gammastar.recast.missing_momentum import Missing, from_sums

__all__ = [
    "BaBar",
    "cascades",
    "load_babar",
    "missing",
    "prompt_table",
    "s_channel_cascades",
    "s_channel_ratio",
    "seen",
]


@dataclass(frozen=True, slots=True)
class BaBar:
    """The selection at generator level.

    Attributes
    ----------
    beam_minus, beam_plus : float
        Beam energies [GeV].
    cos_max : float
        Largest |cos θ*| of the photon.
    threshold : float
        Energy [GeV] above which a particle is visible.
    theta_min, theta_max : float
        Polar angles in the laboratory between which it is visible [degrees].
    radius : float
        Decays farther from the beam are invisible [m]; inf: prompt decays everywhere.
    transverse : bool
        The variable that the threshold cuts on is the transverse momentum.
    thresholds, angles, factor
        What spans the band: other thresholds [GeV], other polar angles, a factor on the probability that a
        decay inside is not seen.
    sources : mapping of str to str
    """

    beam_minus: float
    beam_plus: float
    cos_max: float
    threshold: float
    theta_min: float
    theta_max: float
    radius: float
    transverse: bool = False
    thresholds: tuple[float, ...] = ()
    angles: tuple[tuple[float, float], ...] = ()
    factor: float = 1.0
    sources: Mapping[str, str] | None = None

    @property
    def sqrt_s(self) -> float:
        """Energy in the centre of mass [GeV]: 10.564 GeV for 9.0 on 3.1 GeV, not 10.58."""
        return 2.0 * float(np.sqrt(self.beam_minus * self.beam_plus))

    @property
    def boost(self) -> float:
        """βγ of the centre of mass along the electron beam."""
        return (self.beam_minus - self.beam_plus) / self.sqrt_s

    @property
    def unverified(self) -> tuple[str, ...]:
        """Inputs that were not confirmed in their source."""
        notes = self.sources or {}
        return tuple(
            f"BaBar {key}: {text}" for key, text in notes.items() if not text.startswith("published")
        )


def load_babar(path: Path | None = None) -> BaBar:
    """Return the selection of a card, by default the shipped one.

    Raises
    ------
    InputFileError
        If the file cannot be read or is not TOML.
    SteeringError
        If a number of the card is missing or has no source.
    """
    file = data_path("semivisible/babar.toml") if path is None else path
    try:
        card = from_toml(file)
        sources = sources_of(card)
    except (OSError, ValueError) as error:
        msg = f"{file}: cannot be read as TOML ({error})"
        raise InputFileError(msg) from error
    card.pop("sources", None)
    band = card.pop("band", {})
    missing_sources = sorted(set(card) - set(sources))
    if missing_sources:
        msg = f"{file}: no source is given for {', '.join(missing_sources)}"
        raise SteeringError(msg)
    try:
        return BaBar(
            **card,
            thresholds=tuple(band.get("thresholds", ())),
            angles=tuple((low, high) for low, high in band.get("angles", ())),
            factor=band.get("factor", 1.0),
            sources=sources | ({"band": band["source"]} if band else {}),
        )
    except (TypeError, KeyError, ValueError) as error:
        msg = f"{file}: {error}"
        raise SteeringError(msg) from error


def cascades(
    table: DecayTable, card: BaBar, n: int, rng: np.random.Generator, *, polarised: bool = False
) -> Cascade:
    """Return decays of dark photons from e+e− → γ A', in the laboratory (z along the electrons)."""
    dark = sample_photons(table.mediator, card.sqrt_s, card.cos_max, n, rng)[1]
    return decay(table, dark, rng, boost=card.boost, polarised=polarised)


def s_channel_cascades(sector: DarkSector, card: BaBar, n: int, rng: np.random.Generator) -> Cascade:
    """Return decays of e+e− → A'* → ψ_i ψ_j without a photon, isotropic in the centre of mass."""
    heavy = replace(decay_table(sector), mediator=card.sqrt_s)
    rest = np.zeros((n, 4))
    rest[:, 3] = card.sqrt_s
    partial = s_channel_cross_section(sector, card.sqrt_s)
    if len(partial) == len(heavy.pair_fraction):
        heavy = replace(heavy, pair_fraction=partial / partial.sum())
    return decay(heavy, rest, rng, boost=card.boost)


def seen(cascade: Cascade, card: BaBar) -> npt.NDArray[np.bool_]:
    """Return which decays have a visible particle, shape (n, slots)."""
    low, high = np.cos(np.radians(card.theta_max)), np.cos(np.radians(card.theta_min))
    visible = np.zeros(cascade.state.shape, dtype=bool)
    for p in (cascade.particle, cascade.antiparticle):
        pt2 = p[..., 0] ** 2 + p[..., 1] ** 2
        momentum = np.sqrt(pt2 + p[..., 2] ** 2)
        size = np.sqrt(pt2) if card.transverse else p[..., 3]
        inside = (p[..., 2] > low * momentum) & (p[..., 2] < high * momentum)
        visible |= inside & (size > card.threshold)
    return np.asarray(visible & cascade.filled)


def _probabilities(
    cascade: Cascade, cards: list[BaBar], epsilon: FloatArray, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Return P and its error for several selections of one radius, shape (selections + 1, k) each.

    The last one sees every decay: what it misses decays outside, whatever "visible" means.
    """
    visible = np.stack([*(seen(cascade, card) for card in cards), cascade.filled], axis=-1)
    if np.isinf(cards[0].radius):
        missed = (~visible.any(axis=1)).sum(axis=0).astype(np.float64)
        return from_sums(np.broadcast_to(missed[:, None], (2, len(missed), len(epsilon))), len(cascade))
    momentum = np.sqrt((cascade.parent[..., :3] ** 2).sum(axis=-1))
    slope = np.hypot(cascade.parent[..., 0], cascade.parent[..., 1]) / np.where(cascade.filled, momentum, 1.0)
    flight = cascade.flight(1.0)
    if (cascade.source < 0).all():
        rate = np.where(cascade.filled, cards[0].radius / (np.maximum(slope, 1e-12) * flight), 0.0)
        rates = (visible * rate[..., None]).sum(axis=1).T
        one = np.ones(len(cascade))
        sums = np.array([[exponential_sum(k * row, one, epsilon) for row in rates] for k in (1.0, 2.0)])
        return from_sums(sums, len(cascade))
    source = np.where(cascade.filled, cascade.source, -2)
    uniform = rng.random(cascade.state.shape)
    sums = no_visible_decay(visible, source, flight, slope, uniform, cards[0].radius, epsilon)
    return from_sums(sums, len(cascade))


def missing(
    cascade: Cascade, card: BaBar, epsilon: npt.ArrayLike, rng: np.random.Generator, *, band: bool = True
) -> Missing:
    """Return the probability that no visible particle is recorded, with its band.

    Parameters
    ----------
    cascade : Cascade
        From `cascades`; one sample serves all couplings, thresholds and acceptances.
    card : BaBar
    epsilon : array_like, shape (k,)
    rng : numpy.random.Generator
        For the positions of earlier decays in a cascade.
    band : bool
        False leaves low = value = high, for scans inside a fit; results and figures keep it.

    Notes
    -----
    Decays farther from the beam than the radius are invisible, each line with its analytic survival.
    """
    coupling = np.atleast_1d(np.asarray(epsilon, dtype=np.float64))
    cards = [card]
    if band:
        cards += [replace(card, threshold=t) for t in card.thresholds]
        cards += [replace(card, theta_min=a, theta_max=b) for a, b in card.angles]
    values, errors = _probabilities(cascade, cards, coupling, rng)
    value, outside = values[0], values[-1]
    low, high = values[:-1].min(axis=0), values[:-1].max(axis=0)
    if band:
        unseen = value - outside
        low = np.minimum(low, outside + unseen / card.factor)
        high = np.maximum(high, np.minimum(outside + unseen * card.factor, 1.0))
    return Missing(coupling, value, errors[0], low, high)


def prompt_table(
    model: Callable[[float], DarkSector],
    mass: FloatArray,
    card: BaBar,
    rng: np.random.Generator,
    *,
    n: int = 400_000,
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Return P_miss of prompt decays, its Monte Carlo error and the ends of its band, shape (m,) each.

    Parameters
    ----------
    model : callable
        Mass of the dark photon [GeV] -> DarkSector.
    mass : NDArray, shape (m,) [GeV]
    card : BaBar
        Its radius is not used.
    rng : numpy.random.Generator
    n : int
        Events per mass; 4e5 give 5 % at P_miss = 1e-3.

    Notes
    -----
    Prompt, P_miss does not depend on ε, and ε_lim = ε_BaBar/√P_miss.
    """
    prompt = replace(card, radius=np.inf)
    rows = []
    for m in mass:
        events = cascades(decay_table(model(float(m))), prompt, n, rng)
        p = missing(events, prompt, [1.0], rng)
        rows.append([p.value[0], p.error[0], p.low[0], p.high[0]])
    value, error, low, high = np.array(rows).T
    return value, error, low, high


def s_channel_ratio(sector: DarkSector, card: BaBar) -> float:
    """Return σ(e+e− → A'* → ψψ)/σ(e+e− → γA') with the photon inside the acceptance."""
    isr = float(cross_section(sector.mediator, card.sqrt_s, card.cos_max))
    return float(s_channel_cross_section(sector, card.sqrt_s).sum()) / isr
