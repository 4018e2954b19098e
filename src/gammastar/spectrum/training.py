"""What kinematics are learned from: weighted pairs of the density before acceptance."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gammastar.core.axes import effective_size, filled
from gammastar.core.pairs import MatchedPairs, Pairs
from gammastar.core.records import BoolArray, FloatArray, Spectrum
from gammastar.spectrum.domain import Domain
from gammastar.spectrum.sampler import HistSampler

log = logging.getLogger(__name__)
NEAR = 0.03  # GeV: pairs whose kinematics tell those at a mass


@dataclass(frozen=True)
class TrainingSet:
    """Weighted pairs of the density before acceptance: measured ones, and simulated ones elsewhere.

    Attributes
    ----------
    mass, pt, energy : NDArray, shape (n,) [GeV]
    weight : NDArray, shape (n,)
        Subtraction weight over efficiency for pairs of the data, scaled simulation outside the domain.
    reference : NDArray, shape (n,)
        The same with posterior weights, which are not negative: for comparisons of densities.
    event : NDArray of int64, shape (n,)
    measured : NDArray of bool, shape (n,)
        True for pairs of the data.
    """

    mass: FloatArray
    pt: FloatArray
    energy: FloatArray
    weight: FloatArray
    reference: FloatArray
    event: Any
    measured: BoolArray
    domain: Domain

    @property
    def points(self) -> FloatArray:
        """Mass, pt and energy of every pair, shape (n, 3) [GeV]."""
        return np.stack([self.mass, self.pt, self.energy], axis=1)

    def near(self, mass: float) -> float:
        """Return the effective number of pairs, (Σw)²/Σw², within 30 MeV of a mass [GeV].

        Parameters
        ----------
        mass : float [GeV]
        """
        return effective_size(self.weight[np.abs(self.mass - mass) < NEAR])

    def in_domain(self, mass: FloatArray, pt: FloatArray, energy: FloatArray) -> BoolArray:
        """Return where dileptons of these kinematics were measured.

        Parameters
        ----------
        mass, pt, energy : NDArray, shape (n,) [GeV]
        """
        return self.domain.in_domain(mass, pt, energy)


def training_set(
    pairs: Pairs,
    weights: tuple[FloatArray, FloatArray],
    matched: MatchedPairs,
    domain: Domain,
    *,
    beam_energy: float,
    outside: Sequence[float] | None = None,
) -> TrainingSet:
    """Return the pairs that a density learns from.

    Parameters
    ----------
    pairs : Pairs
        Of the data.
    weights : pair of NDArray, shape (n,)
        Of the subtraction: those that are learned from, and posterior ones, which are not negative.
    beam_energy : float [GeV]
        Pairs beyond it are dropped.
    outside : sequence of float, optional
        Edges of mass bins [GeV]: outside the domain stand simulated true pairs, scaled in each bin to the
        measured yield as in `extrapolate`; they carry ``measured = False``. Nothing by default.
    """
    inverse = domain.weights(pairs.mass, pairs.pt, pairs.energy)
    inverse = np.where(pairs.energy < beam_energy, inverse, 0.0)
    corrected, reference = (weight * inverse for weight in weights)
    outer, outer_weight = np.zeros(0, dtype=np.int64), np.zeros(0)
    if outside is not None:
        outer, outer_weight = _outside(pairs.mass, reference, matched, domain, (outside, beam_energy))
    used = np.flatnonzero((corrected != 0) | (reference != 0))
    log.info(
        "training set: %d measured pairs (effective %.0f), %d extrapolated ones",
        *(len(used), effective_size(corrected[used]), len(outer)),
    )
    true = matched.true
    return TrainingSet(
        mass=np.concatenate([pairs.mass[used], true[outer, 0]]),
        pt=np.concatenate([pairs.pt[used], true[outer, 1]]),
        energy=np.concatenate([pairs.energy[used], true[outer, 2]]),
        weight=np.concatenate([corrected[used], outer_weight]),
        reference=np.concatenate([reference[used], outer_weight]),
        event=np.concatenate([pairs.event[used], -1 - matched.event[outer]]),
        measured=np.arange(len(used) + len(outer)) < len(used),
        domain=domain,
    )


def unbinned_training_set(
    matched: MatchedPairs,
    weight: FloatArray,
    domain: Domain,
    *,
    beam_energy: float,
    outside: Sequence[float] | None = None,
) -> TrainingSet:
    """Return simulated true pairs with OmniFold weights as what a density learns from.

    Parameters
    ----------
    weight : NDArray, shape (n,)
        Of OmniFold: the efficiency is contained in them.
    domain, beam_energy, outside
        As for `training_set`.
    """
    mass, pt, energy = matched.true.T
    inverse = domain.weights(mass, pt, energy)
    # the training set divides by the efficiency, which these weights already contain: put it in before
    seen = np.divide(weight, inverse, out=np.zeros_like(inverse), where=inverse > 0)
    n = len(matched)
    pairs = Pairs(mass, pt, energy, np.zeros(n, np.int8), np.ones(n), matched.event)
    return training_set(pairs, (seen, seen), matched, domain, beam_energy=beam_energy, outside=outside)


def _outside(
    mass: FloatArray,
    weight: FloatArray,
    matched: MatchedPairs,
    domain: Domain,
    limits: tuple[Sequence[float], float],
) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """Return simulated true pairs outside the domain and their weights, scaled in each mass bin."""
    edges, beam_energy = np.asarray(limits[0], dtype=np.float64), limits[1]
    true, n_bins = matched.true, len(edges) - 1
    inside = domain.in_domain(true[:, 0], true[:, 1], true[:, 2])
    covered = (true[:, 0] >= edges[0]) & (true[:, 0] < edges[-1]) & (true[:, 2] < beam_energy)

    def bins(values: FloatArray) -> npt.NDArray[np.int64]:
        return np.clip(np.searchsorted(edges, values, "right") - 1, 0, n_bins - 1)

    prior = np.bincount(bins(true[inside, 0]), matched.weight[inside], n_bins)
    measured = np.bincount(bins(mass), weight, n_bins)
    scale = np.divide(np.clip(measured, 0.0, None), prior, out=np.zeros(n_bins), where=prior > 0)
    outer = np.flatnonzero(covered & ~inside)
    return outer, matched.weight[outer] * scale[bins(true[outer, 0])]


def histogram_sampler(training: TrainingSet, axes: tuple[Any, ...], beam_energy: float) -> HistSampler:
    """Return the torch-free twin of a flow: a histogram of the same weighted pairs.

    Parameters
    ----------
    axes : tuple of hist axes
        Mass, pt and energy, in this order.
    beam_energy : float [GeV]
    """
    edges = [np.asarray(axis.edges) for axis in axes]
    content, _ = np.histogramdd(training.points, bins=edges, weights=training.reference)
    square, _ = np.histogramdd(training.points, bins=edges, weights=training.reference**2)
    cov = np.broadcast_to(0.0, (content.size, content.size))
    inside = np.ones(content.shape, dtype=np.bool_)
    cells = Spectrum(filled(axes, content, square), cov, "counts", None, inside)
    return HistSampler(cells, beam_energy=beam_energy)
