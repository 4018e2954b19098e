"""Planes of mass and coupling: what missing-momentum searches exclude of a model."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from gammastar.core.constants import CTAU_PER_GEV, LEPTON_MASS
from gammastar.core.files import data_path
from gammastar.core.records import FloatArray
from gammastar.core.sampling import stream
from gammastar.physics.qed import RTable, lepton_width
from gammastar.semivisible import babar, na64
from gammastar.semivisible.decays import Mixings, dark_widths, decay_table, lifetimes, visible_widths
from gammastar.semivisible.missing_momentum import Missing
from gammastar.semivisible.models import DarkSector, mediator_widths

VISIBLE = 0.01  # part of visible decays of the dark photon above which a result says so
PROMPT = 1e-4  # decay length [m] above which a decay that is taken as at once is not
Model: TypeAlias = Callable[[float], DarkSector]


@dataclass(frozen=True, slots=True)
class Options:
    """How a plane is scanned."""

    n: int = 100_000  # Events per mass
    seed: int = 1
    polarised: bool = False  # Dark photons are transverse; isotropic decay otherwise
    r_table: RTable | None = None  # Opens hadronic decays
    neutrino: Mixings = None  # Let states decay to a neutrino and a pair
    # Probability that an event of e+e− → A'* → ψψ, in which nothing is seen, passes the monophoton
    # selection (it lacks the photon); zero leaves the process out
    s_channel: float = 0.0
    # Dark photons of an importance sample of prompt decays, where plain events are few; not with
    # `polarised`. Zero: plain events alone
    prompt: int = 2_000


@dataclass(frozen=True, slots=True, eq=False)
class Plane:
    """Probabilities of missing momentum on a grid, all of shape (masses, couplings)."""

    # Masses of the dark photon [GeV] and its kinetic mixing
    mass: FloatArray
    epsilon: FloatArray
    # With the band of thresholds and acceptance
    babar: FloatArray
    babar_low: FloatArray
    babar_high: FloatArray
    babar_error: FloatArray
    # NA64; nan at masses where a cascade has no room in its beam
    strict: FloatArray
    inclusive: FloatArray
    warnings: tuple[str, ...]  # What the models say of themselves, e.g. broad dark photons


def scan(
    model: Model,
    mass: FloatArray,
    epsilon: FloatArray,
    *,
    cards: tuple[babar.BaBar, na64.NA64] | None = None,
    options: Options | None = None,
    progress: Callable[[float], None] | None = None,
) -> Plane:
    """Return the probabilities of missing momentum of a model on a grid.

    Parameters
    ----------
    model : callable
        Mass of the dark photon [GeV] -> DarkSector, e.g. ``load_benchmark("iDM-040").sector``.
    mass, epsilon : NDArray, shapes (m,) and (k,)
        Masses of the dark photon [GeV] and its kinetic mixing.
    cards : tuple of BaBar and NA64, optional
        By default the shipped ones.
    progress : callable, optional
        Takes the part that is done.

    Notes
    -----
    Only the part of the dark photons that decays into the dark sector can be missed: probabilities hold
    Γ_D/(Γ_D + ε² Γ_SM) of `dark_branching`. Where no pair is open at M they come from the s-channel alone;
    beyond the energy of a collider they are nan. Warnings say where, and where the picture of a narrow dark
    photon that decays to dark states fails.
    """
    cards = (babar.load_babar(), na64.load_na64()) if cards is None else cards
    options = Options() if options is None else options
    rows: list[tuple[FloatArray, ...]] = []
    notes: dict[str, None] = {}
    for index, m in enumerate(mass):
        sector = model(float(m))
        remarks = _notes(sector, float(np.max(epsilon)), cards)
        notes |= dict.fromkeys(f"{sector.name} at {m:.3g} GeV: {text}" for text in remarks)
        rows.append(_row(sector, epsilon, cards, replace(options, seed=options.seed + index)))
        if progress is not None:
            progress((index + 1) / len(mass))
    value, low, high, error, strict, inclusive = (np.array(column) for column in zip(*rows, strict=True))
    axes, bands = (np.asarray(mass), np.asarray(epsilon)), (value, low, high, error)
    return Plane(*axes, *bands, strict, inclusive, tuple(notes))


@cache
def hadrons(highest: float = 20.0) -> RTable:
    """Return the shipped table of R, which ends at 2 GeV, with its last value up to a mass [GeV]."""
    table = RTable.read(data_path("measurements/r_ratio.csv"))
    return RTable(np.append(table.mass, highest), np.append(table.ratio, table.ratio[-1]))


def visible_width(mass: float) -> float:
    """Return Γ(A' → e+e−, μ+μ−, hadrons) per ε² [GeV]; R stays at its last value above the shipped table."""
    table = hadrons(max(20.0, mass))
    electrons, muons = (float(lepton_width(mass, m)) for m in LEPTON_MASS.values())
    return electrons + muons * (1.0 + float(table.at(mass)))


def dark_branching(sector: DarkSector, epsilon: npt.ArrayLike) -> FloatArray:
    """Return the probability that a dark photon decays into the dark sector, shape of `epsilon`."""
    dark = float(mediator_widths(sector)[1].sum())
    visible = np.square(epsilon) * visible_width(sector.mediator)
    return np.asarray(dark / np.maximum(dark + visible, 1e-300), dtype=np.float64)


def _notes(sector: DarkSector, epsilon: float, cards: tuple[babar.BaBar, na64.NA64]) -> list[str]:
    """Return what a result at this mass has to say beside it, `epsilon` being its largest coupling."""
    remarks = list(sector.warnings)
    if not len(mediator_widths(sector)[0]):
        remarks.append("no pair of dark states is open: on its shell the dark photon decays visibly")
    elif (visible := 1.0 - float(dark_branching(sector, epsilon))) > VISIBLE:
        remarks.append(f"at epsilon = {epsilon:.2g} the dark photon decays visibly in {100 * visible:.2g} %")
    remarks += _prompt_notes(sector, epsilon)
    if sector.mediator >= cards[0].sqrt_s:
        remarks.append(f"it cannot be made on its shell at {cards[0].sqrt_s:.4g} GeV")
    return remarks


def _prompt_notes(sector: DarkSector, epsilon: float) -> list[str]:
    """Return where decays without kinetic mixing are not as fast as they are taken to be."""
    remarks = []
    for j, (dark, slow) in enumerate(zip(dark_widths(sector), visible_widths(sector), strict=True)):
        if not dark > 0:
            continue
        state, length = f"state {j + 1}", CTAU_PER_GEV / dark
        if lifetimes(sector)[j] > 0:
            remarks.append(f"{state} decays to dark states too, c tau = {length:.2g} m: left out")
            continue
        if length > PROMPT:
            remarks.append(f"{state} decays to dark states after c tau = {length:.2g} m: taken as at once")
        if (part := epsilon**2 * slow / dark) > VISIBLE:
            rate = f"{part:.2g} times the rate of those to dark states"
            remarks.append(f"at epsilon = {epsilon:.2g} visible decays of {state} have {rate}: left out")
    return remarks


def _row(
    sector: DarkSector, epsilon: FloatArray, cards: tuple[babar.BaBar, na64.NA64], options: Options
) -> tuple[FloatArray, ...]:
    """Return all probabilities at one mass."""
    rng = stream(options.seed, "recast", sector.name)
    strict = inclusive = np.full(len(epsilon), np.nan)
    if sector.mediator >= cards[0].sqrt_s:
        return (np.full(len(epsilon), np.nan),) * 4 + (strict, inclusive)
    part = dark_branching(sector, epsilon)
    p = Missing(epsilon, *np.zeros((4, len(epsilon))))
    table = None
    if len(mediator_widths(sector)[0]):
        table = decay_table(sector, r_table=options.r_table, neutrino=options.neutrino)
        events = babar.cascades(table, cards[0], options.n, rng, polarised=options.polarised)
        prompt = 0 if options.polarised else options.prompt
        p = babar.missing(events, cards[0], epsilon, rng, prompt=prompt)
    value, low, high, error = (part * x for x in (p.value, p.low, p.high, p.error))
    if options.s_channel > 0 and len(mediator_widths(replace(sector, mediator=cards[0].sqrt_s))[0]):
        other: Any = {"r_table": options.r_table, "neutrino": options.neutrino}
        more = babar.s_channel_cascades(sector, cards[0], options.n, rng, **other)
        ratio = options.s_channel * babar.s_channel_ratio(sector, cards[0])
        q = babar.missing(more, cards[0], epsilon, rng)
        value, low, high = value + ratio * q.value, low + ratio * q.low, high + ratio * q.high
        error = np.hypot(error, ratio * q.error)
    if sector.mediator < cards[1].beam:
        strict, inclusive = np.zeros((2, len(epsilon)))
    if table is not None and sector.mediator < cards[1].beam:
        target = na64.production(sector.mediator, cards[1])
        energy, decays = na64.cascades(table, target, options.n, rng, polarised=options.polarised)
        of_mode = functools.partial(na64.missing, energy, decays, cards[1], epsilon, rng)
        strict, inclusive = (part * of_mode(mode=mode).value for mode in ("strict", "inclusive"))
    return value, low, high, error, strict, inclusive
