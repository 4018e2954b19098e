"""R(m) from published cross-sections of e⁺e⁻ → hadrons, channel by channel, with its error."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

import numpy as np
from scipy.interpolate import PchipInterpolator
from vacuum import bare_over_dressed

from gammastar.core.constants import ALPHA, GEV2_MB, M_PI_CHARGED, branching, mass
from gammastar.core.files import data_path
from gammastar.core.records import FloatArray
from gammastar.physics.vectors import meson_ratio

Pair: TypeAlias = tuple[FloatArray, FloatArray]  # values and errors
MUONS = 4 * np.pi * ALPHA**2 / 3 * GEV2_MB * 1e6  # nb GeV²: σ(e⁺e⁻ → μμ) s for massless muons
HIGHEST = 1.1  # GeV; beyond, channels without a table here grow
SMOOTH = 0.6  # GeV; below, the pion form factor is a polynomial
STEP = (0.77, 0.795)  # GeV; where ρ and ω interfere
COMMON = 0.01  # scale of the pion cross-sections, common to all points
SAME = 2e-4  # GeV: points of two runs that count as one energy
FLOOR = 1e-3  # nb, for the logarithm where nothing was seen
KAONS = ("kk_babar_2013", "kk_cmd2_2008_run2")
NEAR = 0.003  # GeV, of points of CMD-2 whose distance to BaBar is averaged
KAON_SCALES = (
    0.0096,
    0.022,
)  # their errors: 0.22 of 22.93 in the abstract of arXiv:1306.3600; arXiv:0804.0178
CHANNELS = {
    "three pions": ("3pi_snd_2003", "3pi_snd_2002"),
    "pion and photon": ("pi0gamma_snd_2016",),
    "neutral kaons": ("kskl_cmd3_2016", "kskl_snd_2006"),
    "four charged pions": ("4pi_charged_cmd2_2004",),
}
OTHERS = {  # a second experiment where the first one measured too
    "three pions": ("3pi_snd_2002", "3pi_babar_2004"),
    "neutral kaons": ("kskl_cmd3_2016", "kskl_snd_2006"),
}
MIXED_PIONS = (4.0, 2.0)  # π⁺π⁻2π⁰ over 2π⁺2π⁻ from the ωπ⁰ threshold to 1.1 GeV: an estimate
ETA_PHOTON = branching("phi -> eta gamma") / sum(
    branching(f"phi -> {hadrons}") for hadrons in ("K+ K-", "KL KS", "pi pi pi0")
)


@dataclass(frozen=True)
class Points:
    """Cross-sections of one channel.

    Attributes
    ----------
    mass, sigma, error : NDArray, shape (n,) [GeV, nb, nb]
        At the middle of each interval, increasing.
    width : NDArray, shape (n,) [GeV]
        Of the interval; zero for a point.
    """

    mass: FloatArray
    sigma: FloatArray
    error: FloatArray
    width: FloatArray


def masses() -> FloatArray:
    """Return the masses of the table [GeV]: fine on ω and φ, and on none of the measured energies."""
    steps = [(0.2825, 0.76, 0.0025), (0.76, 0.80, 0.0005), (0.80, 1.005, 0.0025)]
    steps += [(1.005, 1.035, 0.00025), (1.035, HIGHEST + 1e-9, 0.0025)]
    return np.concatenate(
        [start + step * np.arange(round((stop - start) / step)) for start, stop, step in steps]
    )


@cache
def points(name: str) -> Points:
    """Read one published table."""
    path = data_path(f"measurements/ee_to_hadrons/{name}.csv")
    low, high, sigma, error, _ = np.genfromtxt(path, delimiter=",", skip_header=4, unpack=True)
    order = np.argsort(low + high)
    return Points(*(x[order] for x in ((low + high) / 2, sigma, error, high - low)))


def merged(names: tuple[str, ...]) -> Points:
    """Return tables as one, points closer than `SAME` averaged; their common errors are not reduced."""
    parts = [points(name) for name in names]
    m, sigma, error, width = (np.concatenate([getattr(p, k) for p in parts]) for k in Points.__annotations__)
    order = np.argsort(m)
    group = np.concatenate([[0], np.cumsum(np.diff(m[order]) > SAME)])
    weight = 1 / error[order] ** 2
    total = np.bincount(group, weight)

    def mean(x: FloatArray) -> FloatArray:
        return np.asarray(np.bincount(group, weight * x[order]) / total)

    return Points(mean(m), mean(sigma), mean(error), mean(width))


def between(found: Points, at: FloatArray) -> Pair:
    """Return cross-section and error between the points [nb]; zero outside.

    Monotone cubics in the logarithm of the cross-section, straight lines in the error.
    """
    inside = (at >= found.mass[0]) & (at <= found.mass[-1])
    x = np.clip(at, found.mass[0], found.mass[-1])
    sigma = np.exp(PchipInterpolator(found.mass, np.log(np.maximum(found.sigma, FLOOR)))(x))
    return np.where(inside, sigma, 0.0), np.where(inside, np.interp(x, found.mass, found.error), 0.0)


def tension(found: Points, other: Points, at: FloatArray) -> FloatArray:
    """Return half of the relative distance of a second experiment where it begins, and beyond.

    The first one measured below; the distance, the mean over the common energies, rises over 10 MeV.
    """
    both = (other.mass > found.mass[0]) & (other.mass < found.mass[-1])
    ours, error = between(found, other.mass[both])
    weight = 1 / ((other.error[both] / other.sigma[both]) ** 2 + (error / ours) ** 2)
    distance = np.average(np.log(other.sigma[both] / ours), weights=weight)
    return np.asarray(0.5 * abs(distance) * np.clip((at - other.mass[both][0]) / 0.01 + 1, 0, 1))


def kaons(at: FloatArray, factor: FloatArray) -> Pair:
    """Return σ(K⁺K⁻) and its error [nb]; `factor` makes dressed cross-sections bare.

    Notes
    -----
    BaBar's points, moved to the mean of both experiments by the errors of their scales; half of the distance
    is added to the error. The distance is that of the points of CMD-2 within some `NEAR`, beyond them that of
    the last ones: none below the φ, CMD-2 7 to 16 % lower above it.
    """
    babar, cmd2 = (points(name) for name in KAONS)
    ours, error = between(babar, cmd2.mass)
    distance = np.log(np.interp(cmd2.mass, at, factor) * cmd2.sigma / ours)
    weight = 1 / ((cmd2.error / cmd2.sigma) ** 2 + (error / ours) ** 2)
    far = 0.5 * ((np.clip(at, cmd2.mass[0], cmd2.mass[-1])[:, None] - cmd2.mass) / NEAR) ** 2
    share = weight * np.exp(-far)
    distance = share @ distance / share.sum(axis=1)
    first, second = np.square(KAON_SCALES)
    value, error = between(babar, at)
    value = value * np.exp(distance * first / (first + second))
    scale = 1 / np.sqrt(1 / first + 1 / second)
    return value, np.sqrt(error**2 + value**2 * (0.25 * distance**2 + scale**2))


def form_factor(found: Points) -> Pair:
    """Return |F_π|² = (4/β³) R of pion pairs and its error."""
    beta = np.sqrt(1 - (2 * M_PI_CHARGED / found.mass) ** 2)
    factor = 4 / beta**3 * found.mass**2 / MUONS
    return factor * found.sigma, factor * found.error


def pions(at: FloatArray) -> Pair:
    """Return σ(π⁺π⁻) with final-state radiation and its error [nb].

    Notes
    -----
    ln |F_π|² is a cubic in s without constant term below `SMOOTH`, since F_π(0) = 1; above, local straight
    lines through the points of each experiment. Where both measured, their geometric mean, and half of their
    distance is added to its error. On the step at the ω the wide intervals of KLOE say nothing about the
    shape: its distance to BaBar is interpolated there.
    """
    babar, kloe = points("pipi_babar_2009"), points("pipi_kloe_2009")
    value, error = np.empty_like(at), np.empty_like(at)
    low = at < SMOOTH
    value[low], error[low] = _cubic(babar, at[low])
    if not low.all():
        value[~low], error[~low] = _together(_local(babar, at[~low]), _local(kloe, at[~low]), at[~low])
    beta = np.sqrt(1 - (2 * M_PI_CHARGED / at) ** 2)
    scale = beta**3 / 4 * MUONS / at**2
    return scale * value, scale * np.hypot(error, COMMON * value)


def _cubic(found: Points, at: FloatArray) -> Pair:
    value, error = form_factor(found)
    use = found.mass < SMOOTH + 0.02
    s, relative = found.mass[use] ** 2, error[use] / value[use]
    basis = np.stack([s, s**2, s**3], axis=1)
    cov = np.linalg.inv((basis / relative[:, None] ** 2).T @ basis)
    best = cov @ (basis.T @ (np.log(value[use]) / relative**2))
    chi2 = np.sum(((np.log(value[use]) - basis @ best) / relative) ** 2) / (use.sum() - 3)
    x = np.stack([at**2, at**4, at**6], axis=1)
    fitted = np.exp(x @ best)
    return fitted, fitted * np.sqrt(np.einsum("ij,jk,ik->i", x, cov, x) * max(1.0, chi2))


def _local(found: Points, at: FloatArray) -> Pair:
    """Fit a straight line to ln |F|² around each mass, narrower on the step at the ω."""
    value, error = form_factor(found)
    relative = error / value
    near = np.clip(np.abs(at - 0.7827) / 0.02, 0.3, 1.0)
    spread = np.maximum(0.004 * near, np.interp(at, found.mass, found.width) * 0.75)
    fitted, sigma = np.full(at.shape, np.nan), np.full(at.shape, np.inf)
    for i in np.flatnonzero((at >= found.mass[0]) & (at <= found.mass[-1])):
        d = (found.mass - at[i]) / spread[i]
        weight = np.exp(-0.5 * d**2) / relative**2
        basis = np.stack([np.ones_like(d), d], axis=1)
        solve = np.linalg.solve((weight[:, None] * basis).T @ basis, (weight[:, None] * basis).T)[0]
        fitted[i] = np.exp(solve @ np.log(value))
        sigma[i] = fitted[i] * np.sqrt(np.sum((solve * relative) ** 2))
    return fitted, sigma


def _together(first: Pair, second: Pair, at: FloatArray) -> Pair:
    """Return the geometric mean of two experiments, with half of their distance as an error of its own."""
    (a, da), (b, db) = first, second
    both = np.isfinite(b) & ~((at > STEP[0]) & (at < STEP[1]))
    anchors = np.append(at[both], at[both][-1] + 0.03)  # the second one ends: back to the first
    distance = np.interp(at, anchors, np.append(np.log(b[both] / a[both]), 0.0))
    value = a * np.exp(0.5 * distance)
    weight = np.where(np.isfinite(b), 0.5, 0.0)
    own = np.hypot((1 - weight) * da / a, weight * np.where(np.isfinite(b), db, 0.0) / a)
    return value, value * np.hypot(own, 0.5 * distance)


def channels(at: FloatArray, beyond: Pair) -> dict[str, Pair]:
    """Return R over massless muons and its error for each channel.

    Parameters
    ----------
    at : NDArray, shape (n,) [GeV]
    beyond : tuple of NDArray
        Masses above `HIGHEST` [GeV] and R over massless muons there, for the vacuum polarisation.

    Notes
    -----
    BaBar's pions and kaons and KLOE's pions are published bare; the others are multiplied by |1 − Δα|²,
    of which R itself is the input: repeated until it stands.
    """
    sigma = {"two pions": pions(at)}
    sigma |= {name: between(merged(tables), at) for name, tables in CHANNELS.items()}
    for name, tables in OTHERS.items():
        value, error = sigma[name]
        sigma[name] = value, np.hypot(error, value * tension(*map(points, tables), at))
    dressed = list(CHANNELS)
    factor = np.ones_like(at)
    grid = (at[1:] + at[:-1]) / 2
    scale = at**2 / MUONS
    for _ in range(6):
        sigma["charged kaons"] = kaons(at, factor)
        found = {
            name: tuple(scale * x * (factor if name in dressed else 1.0) for x in pair)
            for name, pair in sigma.items()
        }
        found |= _unmeasured(found, at)
        total = sum(value for value, _ in found.values())
        spectrum = np.concatenate([at, beyond[0]]), np.concatenate([total, beyond[1]])
        factor = np.interp(at, grid, bare_over_dressed(grid, *spectrum))
    return found


def _unmeasured(found: dict[str, Pair], at: FloatArray) -> dict[str, Pair]:
    """Estimate what no table here holds: π⁺π⁻2π⁰ through ωπ⁰, and ηγ on the φ."""
    charged, _ = found["four charged pions"]
    open_ = at > mass(223) + mass(111)
    central, spread = MIXED_PIONS
    photon = ETA_PHOTON * meson_ratio("phi", at)
    return {
        "two charged, two neutral pions": (central * charged * open_, spread * charged * open_),
        "eta and photon": (photon, 0.1 * photon),
    }
