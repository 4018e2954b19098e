"""Other views of the simulated pairs: cut, reweighted, unsmeared, with other momenta or resolution."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np

from gammastar.core.constants import M_MU
from gammastar.core.errors import UserError, require
from gammastar.core.pairs import MatchedPairs
from gammastar.core.records import BoolArray, FloatArray, Response, Rng, Spectrum, divided
from gammastar.core.sampling import event_seeds, uniform
from gammastar.physics.qed import kept_momentum
from gammastar.unfold.response_matrix import COSINE, cells

View: TypeAlias = Callable[[MatchedPairs], MatchedPairs]
LARGEST = 5.0  # of the factor on a simulated pair, up and down
COLUMN = {"pt": 1, "energy": 2}
NOISE = (3.0, 9.0)  # χ² per degree of freedom up to which factors are noise, and from which they are not
FITTED = 20  # rounds of proportional fitting


def in_window(matched: MatchedPairs, axes: Sequence[Any]) -> MatchedPairs:
    """Return the simulation with misses where the axes hold no reconstructed pair, and fakes inside alone.

    The data must be cut to the same window: otherwise OmniFold takes their cut for an absence of pairs,
    weights the simulated ones near and beyond it down, and counts them in the total that is scaled to data.
    """
    inside = cells(matched.reco, axes) >= 0
    kept = cells(matched.fakes, axes) >= 0
    reco, fakes = np.where(inside[:, None], matched.reco, np.nan), matched.fakes[kept]
    return replace(matched, reco=reco, fakes=fakes, fake_weight=matched.fake_weight[kept])


def unsmeared(matched: MatchedPairs) -> MatchedPairs:
    """Return the simulation as if leptons were measured exactly: the efficiency stays, the resolution goes.

    With its response each cell of the measured quantities is divided by the efficiency of that cell of the
    true quantities: event weights 1/ε with the resolution left in, as in the data-driven paper of Allison and
    Blinov. Narrow resonances stay wide, and a rate taken at a mass near them is wrong by the ratio of the
    line shapes.
    """
    return replace(matched, reco=np.where(matched.reconstructed[:, None], matched.true, np.nan))


def reweighted(
    matched: MatchedPairs,
    unfolded: Spectrum | None = None,
    *,
    weight: FloatArray | None = None,
    most: float = 10,
) -> MatchedPairs:
    """Return simulated pairs whose true distribution is the unfolded one, cell by cell.

    A response in the mass alone averages the efficiency over pt and energy; with these weights it averages
    over those of the data.
    """
    if (unfolded is None) == (weight is None):
        raise UserError("reweighted: give either an unfolded spectrum or ready weights")
    if unfolded is not None:
        axes = tuple(unfolded.hist.axes)
        cell = cells(matched.true, axes)
        n = int(np.prod([len(a) for a in axes]))
        prior = np.bincount(cell[cell >= 0], matched.weight[cell >= 0], n)
        use = unfolded.domain.ravel() & (prior > 0) & (unfolded.values.ravel() > 0)
        scale = unfolded.values.ravel()[use].sum() / max(float(prior[use].sum()), 1e-300)
        ratio = np.ones(n)
        ratio[use] = np.clip(unfolded.values.ravel()[use] / prior[use] / scale, 1 / most, most)
        weight = matched.weight * np.where(cell >= 0, ratio[cell], 1.0)
    final = matched.weight if weight is None else np.asarray(weight, dtype=np.float64)
    return replace(matched, weight=final)


def fiducial(matched: MatchedPairs, domain: Spectrum | Response) -> MatchedPairs:
    """Return the simulated pairs inside the measured domain; pairs from outside become fakes."""
    axes, inside = _domain(domain)
    cell = cells(matched.true, axes)
    kept = (cell >= 0) & inside[cell]
    require(kept.any(), "fiducial: no simulated pair lies inside the domain", UserError)
    spill = ~kept & matched.reconstructed
    return replace(
        matched.select(kept),
        fakes=np.concatenate([matched.fakes, matched.reco[spill]]),
        fake_weight=np.concatenate([matched.fake_weight, matched.weight[spill]]),
    )


def _domain(domain: Spectrum | Response) -> tuple[Sequence[Any], BoolArray]:
    if isinstance(domain, Response):
        return domain.true, np.asarray(domain.efficiency > 0)
    return tuple(domain.hist.axes), domain.domain.ravel()


def scaled_momenta(matched: MatchedPairs, factors: FloatArray, *, m_lepton: float = M_MU) -> MatchedPairs:
    """Return the simulated pairs with the momenta of both reconstructed leptons times factors, shape (2, n).

    So do photons radiated along a lepton, and another momentum scale. E₊ and E₋ follow from energy, mass and
    cos θ of the pair; the product of the momenta p₊·p₋ scales with both factors, so
    M² = 2m² + 2(E₊E₋ − p₊·p₋) is exact. The transverse momentum is scaled with the energy, and a lepton that
    loses so much that it would miss the detector is not removed: for an uncertainty that suffices.
    """
    if COSINE not in matched.columns or np.shape(factors) != (2, len(matched)):
        msg = f"scaled_momenta: needs the column {COSINE!r} and factors of shape {(2, len(matched))}"
        raise UserError(msg)
    if not ((factors > 0) & (factors <= 2)).all():
        msg = f"scaled_momenta: factors must lie in (0, 2], found {factors.min():g} to {factors.max():g}"
        raise UserError(msg)
    mass, pt, energy = matched.reco.T
    velocity = np.sqrt(np.clip(1 - (2 * m_lepton / np.maximum(mass, 2 * m_lepton)) ** 2, 0, None))
    momentum = np.sqrt(np.clip(energy**2 - mass**2, 0, None))
    half = 0.5 * momentum * velocity * np.nan_to_num(matched.columns[COSINE])
    one, two = 0.5 * energy + half, 0.5 * energy - half
    dot = one * two - 0.5 * (mass**2 - 2 * m_lepton**2)
    after = [
        np.sqrt(z**2 * np.clip(e**2 - m_lepton**2, 0, None) + m_lepton**2)
        for z, e in zip(factors, (one, two), strict=True)
    ]
    square = 2 * m_lepton**2 + 2 * (after[0] * after[1] - factors[0] * factors[1] * dot)
    left = after[0] + after[1]
    reco = np.stack([np.sqrt(np.maximum(square, 4 * m_lepton**2)), pt * left / energy, left], axis=1)
    return replace(matched, reco=np.where(matched.reconstructed[:, None], reco, np.nan))


def mixed_simulation(nominal: MatchedPairs, other: MatchedPairs, share: float) -> MatchedPairs:
    """Return a simulation of which a share is replaced by another version of the same events."""
    if len(nominal) != len(other) or not 0 <= share <= 1:
        raise UserError(f"mixed_simulation: {len(nominal)} and {len(other)} pairs, share {share:g} of [0, 1]")
    both = ((nominal, 1.0 - share), (other, share))
    parts = [replace(p, weight=p.weight * w, fake_weight=p.fake_weight * w) for p, w in both]
    return MatchedPairs.concatenate(parts)


def more_radiation(share: float, m_lepton: float, rng: Rng) -> View:
    """Return what replaces a share of the simulation by the same pairs with radiation once more."""
    salts = [int(salt) for salt in rng.integers(2**63, size=2)]

    def view(part: MatchedPairs) -> MatchedPairs:
        mass = np.ascontiguousarray(part.true[:, 0])
        pair = part.event ^ mass.view(np.int64)
        numbers = np.stack([uniform(event_seeds(pair, run=salt)) for salt in salts])
        kept = np.maximum(kept_momentum(numbers, mass, m_lepton), 1e-3)
        return mixed_simulation(part, scaled_momenta(part, kept, m_lepton=m_lepton), share)

    return view


def other_scale(size: float, m_lepton: float) -> View:
    """Return what reconstructs both leptons of a pair with momenta larger by a relative size."""
    return lambda part: scaled_momenta(part, np.full((2, len(part)), 1 + size), m_lepton=m_lepton)


def other_resolution(size: float, m_lepton: float) -> View:
    """Return what widens reconstructed less true mass, pt and energy by a relative size, without noise."""

    def view(part: MatchedPairs) -> MatchedPairs:
        mass, pt, energy = (part.true + (1 + size) * (part.reco - part.true)).T
        mass = np.maximum(mass, 2 * m_lepton)
        return replace(part, reco=np.stack([mass, np.abs(pt), np.maximum(energy, mass)], axis=1))

    return view


def kinematic_factors(
    nominal: Spectrum, response: Response, parts: Iterable[MatchedPairs]
) -> dict[str, FloatArray]:
    """Return points of pt and of energy, and logarithms of unfolded over simulated yield there, (2, k) each.

    Factors of mass, pt and energy give the simulation the unfolded sums along each axis inside the measured
    domain (iterative proportional fitting; Deming and Stephan, Ann. Math. Stat. 11 (1940) 427); that of the
    mass is left out. The logarithms stand at the mean simulated values of the bins, and go on to the outer
    edges as straight lines, since the widest bins have the steepest slopes.
    """
    names = [axis.name for axis in nominal.hist.axes]
    prior = np.where(nominal.domain, response.prior.reshape(nominal.values.shape), 0.0)
    values = np.where(nominal.domain & (prior > 0), np.clip(nominal.values, 0.0, None), 0.0)
    factors = [np.ones(n) for n in values.shape]
    for _ in range(FITTED):
        for axis in range(len(names)):
            others = tuple(i for i in range(len(names)) if i != axis)
            scaled = prior * functools.reduce(np.multiply.outer, factors)
            found, simulated = values.sum(axis=others), scaled.sum(axis=others)
            factors[axis] *= divided(found, simulated)
    curves = {}
    for name in (name for name in COLUMN if name in names):
        axis = names.index(name)
        use = factors[axis] > 0
        if use.sum() < 2:
            continue
        edges = np.asarray(nominal.hist.axes[axis].edges, dtype=np.float64)
        weight = prior.sum(axis=tuple(i for i in range(len(names)) if i != axis))[use]
        logarithm = np.log(factors[axis][use])
        y = np.clip(logarithm - weight @ logarithm / weight.sum(), -np.log(LARGEST), np.log(LARGEST))
        ends = edges[np.flatnonzero(use)[[0, -1]] + [0, 1]]
        x = np.sort([*ends, *_means(parts, COLUMN[name], edges)[use]])
        low, high = np.diff(y)[[0, -1]] / np.diff(x)[[1, -2]] * np.diff(x)[[0, -1]]
        curves[name] = np.array([x, [y[0] - low, *y, y[-1] + high]])
    return curves


def significant(curves: Mapping[str, FloatArray], nominal: Spectrum) -> dict[str, FloatArray]:
    """Return as much of `kinematic_factors` as is more than what the errors of the spectrum explain."""
    found = {}
    for name, (x, y) in curves.items():
        sums = nominal.project(name)
        use = (sums.values > 0) & sums.domain
        chi2 = np.sum((y[1:-1] * sums.values[use]) ** 2 / np.maximum(np.diag(sums.cov)[use], 1e-300))
        found[name] = np.array([x, y * np.interp(chi2 / (use.sum() - 1), NOISE, (0.0, 1.0))])
    return found


def with_kinematics(curves: Mapping[str, FloatArray]) -> View:
    """Return what weights simulated photons with the product of `kinematic_factors`."""

    def view(part: MatchedPairs) -> MatchedPairs:
        exponent = sum((np.interp(part.true[:, COLUMN[name]], *curve) for name, curve in curves.items()), 0.0)
        factor = np.exp(np.clip(exponent, -np.log(LARGEST), np.log(LARGEST)))
        return replace(part, weight=part.weight * factor)

    return view


def _means(parts: Iterable[MatchedPairs], column: int, edges: FloatArray) -> FloatArray:
    """Return the mean true value of the simulated photons in each bin, its centre where there are none."""
    content, sums = np.zeros((2, len(edges) - 1))
    for part in parts:
        x = part.true[:, column]
        content += np.histogram(x, edges, weights=part.weight)[0]
        sums += np.histogram(x, edges, weights=part.weight * x)[0]
    mean = np.divide(sums, content, out=0.5 * (edges[1:] + edges[:-1]), where=content > 0)
    inner = 1e-6 * np.diff(edges)
    return np.asarray(np.clip(mean, edges[:-1] + inner, edges[1:] - inner))
