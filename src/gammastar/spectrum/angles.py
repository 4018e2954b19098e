"""The spin density of measured pairs from their decay angles at given mass, q_T and energy."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gammastar.core.errors import PhysicsError
from gammastar.core.pairs import MatchedPairs, Pairs
from gammastar.core.records import KINEMATICS, BoolArray, FloatArray, IntArray, Spectrum, cell_of
from gammastar.physics.polarisation import COEFFICIENTS, SpinDensities, harmonics, mass_factor

ANGLES = ("cos_theta", "phi_star")
"""Columns of pairs that the spin density needs."""

CELL = 200  # simulated pairs, at least; the bias of λ is about −λ over twice as many
ORDER = (2, 1, 2, 0)  # energy, pt, energy, mass: the acceptance follows the energy most
STEPS = 50
MOST = 5.0  # change of a simulated cell by the data, over that of all of them


@dataclass(frozen=True, slots=True, eq=False)
class DecayAngles:
    """Pairs with the angles of their positive lepton about the axes of the frame "laboratory".

    Attributes
    ----------
    kinematics : NDArray, shape (n, 3) [GeV]
        Mass, transverse momentum, energy.
    cos_theta, phi : NDArray, shape (n,)
        See `gammastar.physics.polarisation`. Which lepton is the first does not matter.
    weight : NDArray, shape (n,)
        Signed: pairs of other origin are taken away by weights below zero.
    event : NDArray of int64, shape (n,)
        Pairs of one event are not independent.

    Raises
    ------
    PhysicsError
        If shapes do not fit or a value is not finite.
    """

    kinematics: FloatArray
    cos_theta: FloatArray
    phi: FloatArray
    weight: FloatArray
    event: IntArray

    def __post_init__(self) -> None:
        n = len(self.weight)
        shapes = {"kinematics": (n, 3), "cos_theta": (n,), "phi": (n,), "event": (n,)}
        for name, shape in shapes.items():
            found = getattr(self, name)
            if found.shape != shape or not np.isfinite(found).all():
                raise PhysicsError(f"DecayAngles.{name}: {found.shape} must be {shape} finite numbers")

    def select(self, mask: BoolArray) -> DecayAngles:
        """Return the pairs of a mask.

        Parameters
        ----------
        mask : NDArray of bool or int
            Which ones.
        """
        angles = self.kinematics[mask], self.cos_theta[mask], self.phi[mask]
        return DecayAngles(*angles, self.weight[mask], self.event[mask])

    def observables(self, m_lepton: float) -> FloatArray:
        """Return the harmonics times the factor of the leptons' mass, shape (n, 3).

        Parameters
        ----------
        m_lepton : float [GeV]
        """
        seen = harmonics(self.cos_theta, self.phi) * mass_factor(self.kinematics[:, 0], m_lepton)
        return np.ascontiguousarray(seen.T)


def fit_spin_densities(
    measured: DecayAngles,
    simulated: DecayAngles,
    edges: Sequence[float],
    m_lepton: float,
    *,
    cell: int = CELL,
) -> SpinDensities:
    """Fit the spin density of measured pairs in regions of mass.

    Parameters
    ----------
    measured : DecayAngles
        Pairs of the data with their subtraction weights; no correction for the efficiency is in them.
    simulated : DecayAngles
        Reconstructed pairs of a simulation whose photons are unpolarised about the laboratory flight.
    edges : sequence of float
        Of the regions of reconstructed mass [GeV].
    m_lepton : float
        Of the measured leptons [GeV].
    cell : int
        Least number of simulated pairs in a cell of mass, transverse momentum and energy.

    Returns
    -------
    SpinDensities
        For massless fermions; the errors hold the statistics of data and simulation.

    Raises
    ------
    PhysicsError
        If a region holds too few measured or simulated pairs; it names the region.

    Notes
    -----
    At given (m, q_T, E) the decay angles of a vector have the density 1 + a·h, with h the harmonics times the
    factor of the lepton's mass, so that three numbers a are all there is to learn. They solve
    Σ_i w_i h_i = Σ_c W_c E_c(a): the weighted sum over pairs, and over cells c of (m, q_T, E) the subtracted
    number W_c of pairs times the mean of h in the simulation reweighted by 1 + a·h. Acceptance and efficiency
    are in the simulated pairs. Their spectrum enters inside a cell, and through the resolution: see
    `prior_weights`. To first order in a this is the maximum of the likelihood, and weights below zero do no
    harm. Errors: sums of squares by event.
    """
    bounds = np.asarray(edges, dtype=np.float64)
    found = []
    for low, high in itertools.pairwise(bounds):
        both = (measured, simulated)
        data, mc = (p.select((p.kinematics[:, 0] >= low) & (p.kinematics[:, 0] < high)) for p in both)
        where = f"spin density from {low:g} to {high:g} GeV"
        total = float(data.weight.sum())
        if len(mc.weight) < 2 * cell or not total > 0:
            raise PhysicsError(
                f"{where}: {total:.0f} subtracted pairs and {len(mc.weight)} simulated ones; it needs more "
                f"than 0 and at least {2 * cell}: widen the region"
            )
        found.append((*_region(data, mc, m_lepton, cell, where), total))
    moments, cov, pairs = (np.array(column) for column in zip(*found, strict=True))
    return SpinDensities(bounds, moments, cov, pairs)


def fit_without(
    measured: DecayAngles,
    simulated: DecayAngles,
    removed: FloatArray,
    sigma: Mapping[int, float],
    how: tuple[Sequence[float], float],
) -> SpinDensities:
    """Fit the spin density without pairs of other components, whose errors are in the covariance."""
    own = removed[6].astype(np.int64)

    def fit(factor: FloatArray) -> SpinDensities:
        return fit_spin_densities(_without(measured, removed, factor), simulated, *how)

    spin = fit(np.ones(len(own)))
    for k in np.unique(own):
        shift = fit(np.where(own == k, 1.0 + sigma[int(k)], 1.0)).moments - spin.moments
        spin = replace(spin, cov=spin.cov + shift[:, :, np.newaxis] * shift[:, np.newaxis, :])
    return spin


def _without(data: DecayAngles, removed: FloatArray, factor: FloatArray) -> DecayAngles:
    """Return the pairs with those to remove as events of their own, of weights below zero."""
    mass, pt, energy, cosine, phi, weight, _ = removed
    return DecayAngles(
        np.concatenate([data.kinematics, np.stack([mass, pt, energy], axis=1)]),
        np.concatenate([data.cos_theta, cosine]),
        np.concatenate([data.phi, phi]),
        np.concatenate([data.weight, -weight * factor]),
        np.concatenate([data.event, data.event.min(initial=0) - 1 - np.arange(len(mass))]),
    )


def measured_angles(pairs: Pairs, weight: FloatArray) -> DecayAngles:
    """Return the decay angles of measured pairs with the signed weights of their subtraction."""
    kinematics = np.stack([pairs.mass, pairs.pt, pairs.energy], axis=1)
    cosine, phi = (pairs.columns[name] for name in ANGLES)
    return DecayAngles(kinematics, cosine, phi, weight, pairs.event).select(weight != 0)


def simulated_angles(matched: MatchedPairs, unfolded: Spectrum) -> DecayAngles:
    """Return the decay angles of reconstructed simulated pairs, weighted to an unfolded spectrum."""
    seen = matched.reconstructed
    weight = matched.weight * prior_weights(matched.true, matched.weight, unfolded)
    cosine, phi = (matched.columns[name][seen] for name in ANGLES)
    return DecayAngles(matched.reco[seen], cosine, phi, weight[seen], matched.event[seen])


def spin_rows(spin: SpinDensities, m_fermion: float) -> list[tuple[float, float, str]]:
    """Return ends of mass [GeV] and coefficients with errors, as text, of each region."""
    values, errors = spin.coefficients(m_fermion)
    return [
        (
            float(spin.edges[i]),
            float(spin.edges[i + 1]),
            ", ".join(f"{x:.2f} ± {e:.2f}" for x, e in zip(values[i], errors[i], strict=True)),
        )
        for i in range(len(values))
    ]


def spin_text(spin: SpinDensities) -> str:
    """Return how the photons decay, for the manifest."""
    rows = "; ".join(f"{low:g} to {high:g} GeV: {text}" for low, high, text in spin_rows(spin, 0.0))
    return (
        "spin density of the measured pairs, frame laboratory (z along the flight there, x in the production "
        f"plane), {', '.join(COEFFICIENTS)} for massless fermions, {rows}; other masses follow the nearest "
        "region"
    )


def prior_weights(true: FloatArray, weight: FloatArray, unfolded: Spectrum) -> FloatArray:
    """Return factors that give simulated photons the unfolded spectrum, shape (n,).

    Parameters
    ----------
    true : NDArray, shape (n, 3) [GeV]
        Mass, transverse momentum and energy.
    weight : NDArray, shape (n,)
    unfolded : Spectrum
        On axes of true mass, pt and energy.

    Notes
    -----
    Angles and kinematics are smeared together, so that at given measured (m, q_T, E) the angles that are seen
    depend on the true spectrum. Outside the axes and where nothing was unfolded the factor is that of all
    cells together; no cell changes by more than `MOST` beyond it.
    """
    cell = cell_of(unfolded.hist.axes, lambda name: true[:, KINEMATICS.index(name)])
    inside = cell >= 0
    prior = np.bincount(cell[inside], weight[inside], unfolded.values.size)
    counts = unfolded.values.ravel()
    known = (prior > 0) & (counts > 0)
    overall = float(counts[known].sum() / prior[known].sum()) if known.any() else 1.0
    ratio = np.divide(counts, prior * overall, out=np.ones_like(prior), where=known)
    return np.where(inside, np.clip(ratio, 1 / MOST, MOST)[cell], 1.0)


def _cells(points: FloatArray, others: FloatArray, least: int) -> tuple[IntArray, IntArray, int]:
    """Return the cell of each row of two samples, and how many there are: medians of the first, in turn."""
    depth = int(np.log2(len(points) / least))
    groups = [(np.arange(len(points)), np.arange(len(others)))]
    for level in range(depth):
        order = ORDER[level % len(ORDER)]
        column, theirs = (np.ascontiguousarray(rows[:, order]) for rows in (points, others))
        groups = [half for group in groups for half in _halves(*group, column, theirs)]
    cells = []
    for which, rows in enumerate((points, others)):
        cell = np.zeros(len(rows), dtype=np.int64)
        for number, group in enumerate(groups):
            cell[group[which]] = number
        cells.append(cell)
    return cells[0], cells[1], 2**depth


def _halves(
    one: IntArray, other: IntArray, column: FloatArray, theirs: FloatArray
) -> tuple[tuple[IntArray, IntArray], tuple[IntArray, IntArray]]:
    """Divide the rows of a cell, of two samples, at the median of the first."""
    values, half = column[one], len(one) // 2
    middle = np.partition(values, half)[half] if len(one) else np.nan
    up, above = values >= middle, theirs[other] >= middle
    return (one[~up], other[~above]), (one[up], other[above])


class _Cells:
    """Sums over the simulated pairs of each cell, from which their means under any spin density follow."""

    def __init__(self, h: FloatArray, weight: FloatArray, cell: IntArray, n: int) -> None:
        def summed(values: FloatArray) -> FloatArray:
            columns = [np.bincount(cell, weight * column, n) for column in values.reshape(len(h), -1).T]
            return np.array(columns, dtype=np.float64).T.reshape(n, *values.shape[1:])

        total = np.maximum(np.bincount(cell, weight, n), np.finfo(float).tiny)
        self.h, self.weight, self.cell, self.total = h, weight, cell, total
        self.first = summed(h) / total[:, None]
        self.second = summed(h[:, :, None] * h[:, None, :]) / total[:, None, None]

    def means(self, a: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the mean of h in each cell (n, 3), and its derivatives by a (n, 3, 3)."""
        norm = 1.0 + self.first @ a
        mean = (self.first + self.second @ a) / norm[:, None]
        return mean, (self.second - mean[:, :, None] * self.first[:, None, :]) / norm[:, None, None]

    def spread(self, a: FloatArray, counts: FloatArray) -> FloatArray:
        """Return the covariance of Σ_c counts_c × mean_c from the finite simulation, shape (3, 3)."""
        mean, _ = self.means(a)
        scale = counts / (self.total * (1.0 + self.first @ a))
        one = (self.weight * (1.0 + self.h @ a) * scale[self.cell])[:, None] * (self.h - mean[self.cell])
        return np.asarray(one.T @ one)


def _region(
    data: DecayAngles, mc: DecayAngles, m_lepton: float, least: int, where: str
) -> tuple[FloatArray, FloatArray]:
    """Return moments and covariance of one region."""
    simulated, measured, n = _cells(mc.kinematics, data.kinematics, least)
    cells = _Cells(mc.observables(m_lepton), mc.weight, simulated, n)
    h = data.observables(m_lepton)
    counts: FloatArray = np.bincount(measured, data.weight, n).astype(np.float64)
    target = data.weight @ h
    a = np.zeros(3)
    for _ in range(STEPS):
        mean, slope = cells.means(a)
        jacobian = np.einsum("c,cij->ij", counts, slope)
        if not np.linalg.eigvals(jacobian).real.min() > 0:
            break
        step = np.linalg.solve(jacobian, target - counts @ mean)
        a = a + step / max(1.0, float(np.abs(step).max()))
        if np.abs(step).max() < 1e-10:
            one = _by_event(data.weight[:, None] * (h - mean[measured]), data.event)
            inverse = np.linalg.inv(jacobian)
            return a, inverse @ (one.T @ one + cells.spread(a, counts)) @ inverse.T
    msg = f"{where}: {data.weight.sum():.0f} subtracted pairs do not determine it; widen the region"
    raise PhysicsError(msg)


def _by_event(rows: FloatArray, event: IntArray) -> FloatArray:
    """Return the sums of rows of the same event."""
    _, index = np.unique(event, return_inverse=True)
    return np.stack([np.bincount(index, column) for column in rows.T], axis=1)
