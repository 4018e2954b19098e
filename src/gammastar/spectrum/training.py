"""What kinematics are learned from: weighted pairs of the density before acceptance."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gammastar.core.pairs import MatchedPairs, Pairs
from gammastar.core.records import BoolArray, FloatArray, Spectrum, effective_size, filled
from gammastar.core.sampling import event_seeds, replica_weights, stream
from gammastar.spectrum.domain import Domain
from gammastar.spectrum.extrapolation import ForwardPower
from gammastar.spectrum.sampler import HistSampler
from gammastar.spectrum.true_kinematics import TruePosterior

log = logging.getLogger(__name__)
NEAR = 0.03  # GeV: pairs whose kinematics tell those at a mass


@dataclass(frozen=True)
class TrainingSet:
    """Weighted pairs of the density before acceptance: measured ones, and simulated ones elsewhere.

    Attributes
    ----------
    mass, pt, energy : NDArray, shape (n,) [GeV]
        True ones; those of measured pairs are drawn from the posterior of the response.
    weight : NDArray, shape (n,)
        Subtraction weight over efficiency for pairs of the data, scaled simulation outside the domain.
    reference : NDArray, shape (n,)
        The same with posterior weights, which are not negative: for comparisons of densities.
    event : NDArray of int64, shape (n,)
    measured : NDArray of bool, shape (n,)
        True for pairs of the data.
    domain : Domain
    replica : callable, optional
        Of a number: the same pairs with Poisson weights by event, unfolded and drawn anew.
    coarse : float
        Median distance in mass of the simulated pairs behind a draw, over the resolution.
    """

    mass: FloatArray
    pt: FloatArray
    energy: FloatArray
    weight: FloatArray
    reference: FloatArray
    event: Any
    measured: BoolArray
    domain: Domain
    replica: Callable[[int], TrainingSet] | None = None
    coarse: float = 0.0

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
    edges: FloatArray,
    seed: int,
    outside: ForwardPower | bool = False,
) -> TrainingSet:
    """Return the pairs that a density learns from, at true mass, pt and energy.

    Parameters
    ----------
    pairs : Pairs
        Of the data.
    weights : pair of NDArray, shape (n,)
        Of the subtraction: those that are learned from, and posterior ones, which are not negative.
    beam_energy : float [GeV]
        Pairs beyond it are dropped.
    edges : NDArray
        Of bins of mass [GeV].
    seed : int
        Decides the draws.
    outside : ForwardPower or bool
        Outside the domain stand simulated true pairs, scaled in each bin of mass to the measured yield as in
        `extrapolate`; they carry ``measured = False``. A forward power law takes the place of the simulated
        fall.

    Notes
    -----
    See `TruePosterior`: at a reconstructed 1.06 GeV most pairs are φ, whose kinematics are not those of a
    virtual photon of 1.06 GeV.
    """
    used = np.flatnonzero((weights[0] != 0) | (weights[1] != 0))
    pairs, weights = pairs.select(used), (weights[0][used], weights[1][used])
    points = np.stack([pairs.mass, pairs.pt, pairs.energy], axis=1)
    posterior = TruePosterior.of(points, matched, edges)
    outer = _Outside.of(matched, domain, edges, beam_energy, outside) if outside else None
    source = _Source(pairs, weights, posterior, domain, outer, beam_energy, seed)
    return source.drawn(None)


@dataclass(frozen=True, slots=True, eq=False)
class _Source:
    """What training sets are drawn from: measured pairs with their posterior, simulated ones elsewhere."""

    pairs: Pairs
    weights: tuple[FloatArray, FloatArray]
    posterior: TruePosterior
    domain: Domain
    outer: _Outside | None
    beam_energy: float
    seed: int

    def _count(self, event: npt.NDArray[np.int64], member: int | None) -> FloatArray:
        if member is None:
            return np.ones(len(event))
        seeds = event_seeds(event, dataset="training", run=self.seed)
        return np.asarray(replica_weights(seeds, range(member, member + 1))[0])

    def drawn(self, member: int | None) -> TrainingSet:
        """Return the training set, or its bootstrap replica of a number."""
        count = self._count(self.pairs.event, member)
        signed, reference = (weight * count for weight in self.weights)
        rng = stream(self.seed, "true kinematics", -1 if member is None else member)
        points = self.posterior.draw(reference, rng)
        inverse = self.domain.weights(*points.T)
        inverse = np.where(points[:, 2] < self.beam_energy, inverse, 0.0)
        signed, reference = signed * inverse, reference * inverse
        outer, event, weight = np.zeros((0, 3)), np.zeros(0, dtype=np.int64), np.zeros(0)
        if self.outer is not None:
            outer, event = self.outer.points, -1 - self.outer.event
            weight = self.outer.scaled(points[:, 0], reference) * self._count(event, member)
        kept = np.flatnonzero((signed != 0) | (reference != 0))
        log.info(
            "training set: %d measured pairs (effective %.0f), %d extrapolated ones",
            *(len(kept), effective_size(signed[kept]), len(outer)),
        )
        mass, pt, energy = np.concatenate([points[kept], outer]).T
        return TrainingSet(
            *(mass, pt, energy),
            weight=np.concatenate([signed[kept], weight]),
            reference=np.concatenate([reference[kept], weight]),
            event=np.concatenate([self.pairs.event[kept], event]),
            measured=np.arange(len(mass)) < len(kept),
            domain=self.domain,
            replica=self.drawn,
            coarse=self.posterior.distance,
        )


def unbinned_training_set(
    matched: MatchedPairs,
    weight: FloatArray,
    domain: Domain,
    *,
    beam_energy: float,
    edges: FloatArray,
    outside: ForwardPower | bool = False,
) -> TrainingSet:
    """Return simulated true pairs with OmniFold weights as what a density learns from.

    Parameters
    ----------
    weight : NDArray, shape (n,)
        Of OmniFold: the efficiency is contained in them.
    domain, beam_energy, edges, outside
        As for `training_set`.
    """
    mass, pt, energy = matched.true.T
    weight = np.where(domain.in_domain(mass, pt, energy) & (energy < beam_energy), weight, 0.0)
    kept = np.flatnonzero(weight)
    points, event = matched.true[kept], matched.event[kept]
    weight, measured = weight[kept], np.ones(len(kept), dtype=np.bool_)
    if outside:
        outer = _Outside.of(matched, domain, edges, beam_energy, outside)
        weight = np.concatenate([weight, outer.scaled(points[:, 0], weight)])
        points, event = np.concatenate([points, outer.points]), np.concatenate([event, -1 - outer.event])
        measured = np.arange(len(points)) < len(kept)
    mass, pt, energy = points.T
    return TrainingSet(mass, pt, energy, weight, weight, event, measured, domain)


@dataclass(frozen=True, slots=True, eq=False)
class _Outside:
    """Simulated true pairs outside the domain, and the simulated yield inside it in each bin of mass."""

    points: FloatArray
    weight: FloatArray
    event: npt.NDArray[np.int64]
    inner: FloatArray
    edges: FloatArray

    @classmethod
    def of(
        cls,
        matched: MatchedPairs,
        domain: Domain,
        edges: FloatArray,
        beam_energy: float,
        shape: ForwardPower | bool,
    ) -> _Outside:
        true, edges = matched.true, np.asarray(edges, dtype=np.float64)
        inside = domain.in_domain(*true.T)
        covered = (true[:, 0] >= edges[0]) & (true[:, 0] < edges[-1]) & (true[:, 2] < beam_energy)
        place = _bins(edges, true[inside, 0])
        inner = np.bincount(place, matched.weight[inside], len(edges) - 1).astype(np.float64)
        outer = np.flatnonzero(covered & ~inside)
        weight = matched.weight[outer]
        if isinstance(shape, ForwardPower):
            weight = weight * shape.factor(*true[outer].T)
        return cls(true[outer], weight, matched.event[outer], inner, edges)

    def scaled(self, mass: FloatArray, weight: FloatArray) -> FloatArray:
        """Return the weights of the pairs outside for pairs inside of these masses and weights."""
        n = len(self.inner)
        measured = np.clip(np.bincount(_bins(self.edges, mass), weight, n), 0.0, None)
        scale = np.divide(measured, self.inner, out=np.zeros(n), where=self.inner > 0)
        return np.asarray(self.weight * scale[_bins(self.edges, self.points[:, 0])])


def _bins(edges: FloatArray, mass: FloatArray) -> npt.NDArray[np.int64]:
    return np.clip(np.searchsorted(edges, mass, "right") - 1, 0, len(edges) - 2)


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
