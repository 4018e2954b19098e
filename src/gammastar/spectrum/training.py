"""What kinematics are learned from: weighted pairs before acceptance, at true kinematics, or a histogram."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from pykdtree.kdtree import KDTree
from scipy.ndimage import label, median_filter

from gammastar.core.errors import PhysicsError
from gammastar.core.pairs import MatchedPairs, Pairs
from gammastar.core.records import (
    KINEMATICS,
    BoolArray,
    FloatArray,
    IntArray,
    Rng,
    Spectrum,
    divided,
    effective_size,
    filled,
)
from gammastar.core.sampling import Sampler, event_seeds, replica_weights, stream
from gammastar.spectrum.extrapolation import ForwardPower
from gammastar.spectrum.normalise import Domain

log = logging.getLogger(__name__)

REDRAWS = 1000  # of redrawing; each keeps at least half of what is left


class HistSampler(Sampler):
    """Draws (pt, energy) at given mass from a spectrum in mass, pt and energy.

    A cell is drawn with the probability of its content in the mass bin, then a point uniformly in the part of
    the cell that is physical at this mass. Cells of negative content, as a subtraction leaves them, are never
    drawn. A mass in an empty bin takes the nearest bin that has content.

    Parameters
    ----------
    spectrum : Spectrum
        Axes mass, pt and energy in any order.
    beam_energy : float, optional
        [GeV]; that of the spectrum's exposure by default.

    Raises
    ------
    PhysicsError
        If an axis or the beam energy is missing, or no cell has content inside the physical limits.
    """

    def __init__(self, spectrum: Spectrum, *, beam_energy: float | None = None) -> None:
        names = [axis.name for axis in spectrum.hist.axes]
        if sorted(names) != sorted(KINEMATICS):
            msg = f"HistSampler needs the axes {', '.join(KINEMATICS)}; the spectrum has {names}"
            raise PhysicsError(msg)
        if beam_energy is None:
            if spectrum.exposure is None:
                raise PhysicsError("HistSampler: the spectrum has no exposure; give beam_energy")
            beam_energy = spectrum.exposure.beam_energy
        self._beam_energy = float(beam_energy)
        order = [names.index(name) for name in KINEMATICS]
        mass, pt, energy = (np.asarray(spectrum.hist.axes[i].edges, dtype=np.float64) for i in order)
        content = spectrum.values.transpose(order)
        negative = float(-content[content < 0].sum())
        content = np.clip(content, 0, None)
        if negative > 0:
            log.info("HistSampler: cells of negative content hold %.3g of %.3g", negative, content.sum())
        self._mass_edges = mass
        low_pt, low_energy = (a.ravel() for a in np.meshgrid(pt[:-1], energy[:-1], indexing="ij"))
        high_pt, high_energy = (a.ravel() for a in np.meshgrid(pt[1:], energy[1:], indexing="ij"))
        high_energy = np.minimum(high_energy, self._beam_energy)
        self._cells = (np.maximum(low_pt, 0.0), high_pt, low_energy, high_energy)
        # the heaviest mass a cell can hold: at its lowest pt and highest energy
        reach2 = np.where(high_energy > low_energy, high_energy**2 - self._cells[0] ** 2, 0.0)
        self._cell_mass = np.sqrt(np.clip(reach2, 0, None))
        flat = content.reshape(len(mass) - 1, -1) * (self._cell_mass > mass[:-1, None])
        total = flat.sum(axis=1)
        full = np.flatnonzero(total > 0)
        if not full.size:
            raise PhysicsError(
                "HistSampler: no cell has positive content inside the physical limits; see the axes of "
                "[select], [unfold] and [flow]"
            )
        empty = int((total[full[0] : full[-1] + 1] <= 0).sum())
        if empty:
            log.warning("HistSampler: %d mass bins are empty; their neighbours are drawn from instead", empty)
        self._range = (float(mass[full[0]]), float(mass[full[-1] + 1]))
        bins = np.arange(len(total))
        self._row = np.abs(bins[:, None] - full).argmin(axis=1)
        # one increasing array for all mass bins: that of row k runs from k to k + 1
        self._cumulative = np.cumsum(flat[full] / total[full, None], axis=1)
        self._cumulative /= self._cumulative[:, -1:]
        self._heaviest = np.where(flat[full] > 0, self._cell_mass, 0.0).max(axis=1)

    @property
    def mass_range(self) -> tuple[float, float]:
        """Lowest and highest mass that can be sampled [GeV]."""
        return self._range

    @property
    def beam_energy(self) -> float:
        """Upper limit of the energy [GeV]."""
        return self._beam_energy

    def _draw_cells(self, row: IntArray, mass: FloatArray, rng: Rng) -> IntArray:
        """Draw a cell per mass among those that are physical at it."""
        n_cells = self._cumulative.shape[1]
        line = (self._cumulative + np.arange(len(self._cumulative))[:, None]).ravel()
        cell = np.zeros(len(mass), dtype=np.int64)
        left = np.arange(len(mass))
        while left.size:
            place = np.searchsorted(line, row[left] + rng.random(left.size), side="right")
            cell[left] = np.clip(place - row[left] * n_cells, 0, n_cells - 1)
            left = left[self._cell_mass[cell[left]] <= mass[left]]
        return cell

    def sample(self, mass: FloatArray, rng: Rng) -> tuple[FloatArray, FloatArray]:
        """Draw one (pt, energy) per entry of `mass`.

        Parameters
        ----------
        mass : NDArray, shape (n,) [GeV]

        Returns
        -------
        pt, energy : NDArray, shape (n,) [GeV]
            Inside energy ≥ √(mass² + pt²) and energy < beam energy.

        Raises
        ------
        PhysicsError
            If a mass lies outside `mass_range`, or is too heavy for every cell of its bin.

        Notes
        -----
        The length of the allowed energies is concave in pt inside a cell and largest at its lower edge:
        accepting pt in proportion to it keeps at least one half.
        """
        mass = np.atleast_1d(np.asarray(mass, dtype=np.float64))
        low, high = self._range
        if not ((mass >= low) & (mass <= high)).all():
            msg = f"HistSampler: masses {mass.min()} to {mass.max()} GeV leave the range {low} to {high} GeV"
            raise PhysicsError(msg)
        index = np.searchsorted(self._mass_edges, mass, side="right") - 1
        row = self._row[np.clip(index, 0, len(self._mass_edges) - 2)]
        if (mass >= self._heaviest[row]).any():
            worst = mass[mass >= self._heaviest[row]][0]
            msg = f"HistSampler: no populated cell allows energy > mass at {worst} GeV; widen the energy axis"
            raise PhysicsError(msg)
        cell = self._draw_cells(row, mass, rng)
        return self._draw_points(cell, mass, rng)

    def _draw_points(self, cell: IntArray, mass: FloatArray, rng: Rng) -> tuple[FloatArray, FloatArray]:
        low_pt, high_pt, low_energy, high_energy = (edge[cell] for edge in self._cells)
        high_pt = np.minimum(high_pt, np.sqrt(np.clip(high_energy**2 - mass**2, 0, None)))
        longest = high_energy - np.maximum(low_energy, np.hypot(mass, low_pt))
        pt = np.zeros_like(mass)
        left = np.arange(len(mass))
        for _ in range(REDRAWS):
            if not left.size:
                break
            trial = low_pt[left] + rng.random(left.size) * (high_pt - low_pt)[left]
            length = high_energy[left] - np.maximum(low_energy[left], np.hypot(mass[left], trial))
            pt[left] = trial
            left = left[rng.random(left.size) * longest[left] >= length]
        lowest = np.maximum(low_energy, np.hypot(mass, pt))
        # 1 - random lies in (0, 1]; mirrored so that the beam energy itself is never reached
        energy = lowest + rng.random(len(mass)) * (high_energy - lowest)
        return pt, np.minimum(energy, np.nextafter(self._beam_energy, 0))


NEIGHBOURS = 32  # simulated pairs around a measured one
ROUNDS = (20, 4)  # of iterations in mass alone, and then in mass, pt and energy
PARTS = 3  # of the measured pt and of the energy, in which the simulated density is corrected
STEPS = (0.1, 0.2, 0.1)  # distances: of the resolution in ln m, in ln pt, in ln E
STRIPS, LARGEST = 5, 20_000  # of true mass in a resolution, and at most
CHUNK = 50_000  # pairs at a time


@dataclass(frozen=True, slots=True, eq=False)
class TruePosterior:
    """P(true kinematics | measured pair): simulated pairs that were reconstructed like it.

    The simulation gives the response and, within a cell, the density; the contents of the cells are those of
    the data, by D'Agostini's iteration (Nucl. Instrum. Meth. A362 (1995) 487). Pairs drawn with it are
    unfolded in mass, pt and energy at once.
    """

    points: FloatArray  # Measured mass, pt and energy, shape (n, 3) [GeV]
    near: IntArray  # Simulated pairs whose reconstructed kinematics are next to each, shape (n, k)
    # True mass [GeV], ln(true/reconstructed pt), true less reconstructed rapidity, shape (m, 3)
    true: FloatArray
    weight: FloatArray
    cell: IntArray  # True cell: bins of mass and its lines, and quantiles of pt and energy, shape (m,)
    measured: IntArray  # Reconstructed cell of each measured pair, shape (n,)
    folded: FloatArray  # Simulated weight in each reconstructed and true cell
    distance: float  # Median distance in mass of the farthest of the k, over the resolution

    @classmethod
    def of(cls, points: FloatArray, matched: MatchedPairs, mass_edges: FloatArray) -> TruePosterior:
        """Return the posterior of measured points, shape (n, 3) [GeV]."""
        seen = matched.reconstructed & (matched.weight > 0)
        true, reco, weight = matched.true[seen], matched.reco[seen], matched.weight[seen]
        shift = _variables(true) - _variables(reco)
        sigma = max(1.4826 * float(np.median(np.abs(shift[:, 0]))), 1e-4)
        scale = np.array([STEPS[0] * sigma, *STEPS[1:]])
        k = min(NEIGHBOURS, len(true))
        near = KDTree(np.log(reco) / scale).query(np.log(points) / scale, k=k)[1]
        near = near.reshape(len(points), k).astype(np.int64)
        inner = np.arange(1, PARTS) / PARTS
        parts = [np.quantile(points[:, i], inner) for i in (1, 2)]
        bins = [(np.searchsorted(mass_edges[1:-1], v[:, 0], "right"), v) for v in (points, reco)]
        measured, of_reco = (_cells(number, values, parts) for number, values in bins)
        of_true = _cells(_mass_cells(true[:, 0], weight, sigma), true, parts)
        rows, columns = len(mass_edges[1:]) * PARTS**2, (int(of_true.max()) // PARTS**2 + 1) * PARTS**2
        folded = np.bincount(of_reco * columns + of_true, weight, rows * columns).astype(np.float64)
        farthest = np.abs(np.log(reco[near[:, -1], 0] / points[:, 0])) / sigma
        distance = float(np.median(farthest)) if len(points) else 0.0
        moved = np.column_stack([true[:, 0], shift[:, 1:]])
        return cls(points, near, moved, weight, of_true, measured, folded.reshape(rows, columns), distance)

    def ratio(self, weight: FloatArray) -> FloatArray:
        """Return unfolded contents of the true cells over simulated ones, for weights of the pairs."""
        n = PARTS**2
        found = np.clip(np.bincount(self.measured, weight, len(self.folded)), 0.0, None).astype(np.float64)
        masses = self.folded.reshape(len(found) // n, n, -1, n).sum(axis=(1, 3))
        start = _unfolded(found.reshape(-1, n).sum(axis=1), masses, np.ones(masses.shape[1]), ROUNDS[0])
        return _unfolded(found, self.folded, np.repeat(start, n), ROUNDS[1])

    def draw(self, weight: FloatArray, rng: Rng) -> FloatArray:
        """Return true mass, pt and energy of every pair, shape (n, 3) [GeV]; weights as for `ratio`."""
        possible = self.weight * np.maximum(self.ratio(weight)[self.cell], 1e-12)
        values = _variables(self.points)
        for start in range(0, len(values), CHUNK):
            part = slice(start, start + CHUNK)
            near = self.near[part]
            summed = np.cumsum(possible[near], axis=1)
            place = (summed < rng.random((len(near), 1)) * summed[:, -1:]).sum(axis=1)
            drawn = self.true[np.take_along_axis(near, place[:, None], axis=1)[:, 0]]
            values[part, 0], values[part, 1:] = drawn[:, 0], values[part, 1:] + drawn[:, 1:]
        mass, pt = values[:, 0], np.exp(values[:, 1])
        return np.stack([mass, pt, np.hypot(mass, pt) * np.cosh(values[:, 2])], axis=1)


def _unfolded(found: FloatArray, folded: FloatArray, ratio: FloatArray, rounds: int) -> FloatArray:
    """Return unfolded contents over simulated ones: D'Agostini's iteration."""
    total = folded.sum(axis=0)
    for _ in range(rounds):
        expected = folded @ ratio
        share = divided(found, expected)
        ratio = ratio * divided(folded.T @ share, total)
    return ratio


def _variables(points: FloatArray) -> FloatArray:
    """Return ln m, ln pt and rapidity, in which every shift is physical."""
    mass, pt, energy = points.T
    rapidity = np.arccosh(np.maximum(energy / np.hypot(mass, pt), 1.0))
    return np.stack([np.log(mass), np.log(pt), rapidity], axis=1)


def _cells(mass: IntArray, points: FloatArray, parts: list[FloatArray]) -> IntArray:
    """Return the cell of each point: its bin of mass, its parts of pt and energy."""
    index = [np.searchsorted(inner, points[:, i], "right") for i, inner in enumerate(parts, start=1)]
    return np.asarray((mass * PARTS + index[0]) * PARTS + index[1])


def _mass_cells(mass: FloatArray, weight: FloatArray, sigma: float) -> IntArray:
    """Return bins of true mass, two resolutions wide, and each narrow line that stands out alone."""
    step = sigma / STRIPS
    place = ((np.log(mass) - np.log(mass.min())) / step).astype(np.int64)
    if place.max() > LARGEST:  # no resolution to speak of: nothing to tell apart
        place = place * LARGEST // place.max()
    content, square = np.bincount(place, weight), np.bincount(place, weight**2)
    around = median_filter(content, 6 * STRIPS + 1, mode="nearest")
    line, _ = label(content - around > np.maximum(1.5 * around, 5.0 * np.sqrt(square)))
    wide = np.arange(len(content)) // (2 * STRIPS)
    return np.asarray(np.unique(np.where(line > 0, -line, wide), return_inverse=True)[1][place])


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

    def _count(self, event: IntArray, member: int | None) -> FloatArray:
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
        sizes = len(kept), effective_size(signed[kept]), len(outer)
        log.info("training set: %d measured pairs (effective %.0f), %d extrapolated ones", *sizes)
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
    event: IntArray
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
        scale = divided(measured, self.inner)
        return np.asarray(self.weight * scale[_bins(self.edges, self.points[:, 0])])


def _bins(edges: FloatArray, mass: FloatArray) -> IntArray:
    return np.clip(np.searchsorted(edges, mass, "right") - 1, 0, len(edges) - 2)


def histogram_sampler(training: TrainingSet, axes: tuple[Any, ...], beam_energy: float) -> HistSampler:
    """Return a sampler from a histogram of the weighted pairs, which needs no torch.

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
