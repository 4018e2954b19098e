"""Kullback-Leibler divergence of a sampler and pairs in windows of mass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pykdtree.kdtree import KDTree

from gammastar.core.errors import PhysicsError
from gammastar.core.files import one_openmp_thread
from gammastar.core.records import BoolArray, FloatArray, Rng
from gammastar.core.sampling import Sampler

_MIN_POINTS = 50  # per draw; below this a divergence says nothing
_MOST_POINTS = 4000
_FEW = 10_000  # points that a processor's cache holds together with their search tree
_SLACK = 1e-9  # GeV by which a window is searched wider than it is
Halves = list[tuple[FloatArray, FloatArray]]


def _near_in_memory(points: FloatArray) -> FloatArray:
    """Return many points in strips, so that queries one after the other find their leaves in the cache."""
    if len(points) < _FEW:
        return points
    return points[np.lexsort((points[:, -1], np.floor(8.0 * points[:, 0])))]


class _Points:
    """Points of the data with their search tree, to which any number of samples is compared."""

    __slots__ = ("count", "scale", "tree")

    def __init__(self, points: FloatArray) -> None:
        self.scale = points.std(axis=0)
        self.scale[self.scale == 0] = 1.0
        self.count, self.tree = len(points), KDTree(points / self.scale)

    def divergence(self, model: FloatArray, k: int) -> float:
        """Return KL(model || these points); see `kl_divergence`."""
        n = len(model)
        model = _near_in_memory(model / self.scale)
        own = KDTree(model).query(model, k=k + 1, sqr_dists=True)[0].reshape(n, k + 1)[:, -1]
        other = self.tree.query(model, k=k, sqr_dists=True)[0].reshape(n, k)[:, -1]
        usable = (own > 0) & (other > 0)
        number = int(np.count_nonzero(usable))
        if number < 0.99 * n:
            raise PhysicsError(
                f"kl_divergence: {n - number} of {n} points coincide with their neighbours; "
                "remove repeated points (resampling with replacement makes them)"
            )
        if number < n:
            own, other = own[usable], other[usable]
        log_ratio = 0.5 * model.shape[1] * np.log(other / own)
        return float(np.mean(log_ratio - np.log(k / self.count)) + np.log(k / (n - 1)))


def kl_divergence(model: FloatArray, data: FloatArray, *, k: int = 2) -> float:
    """Estimate KL(model || data) = ∫ p_model ln(p_model / p_data) from two samples, in nats.

    Parameters
    ----------
    model : NDArray, shape (n, d)
        Unweighted points drawn from the model.
    data : NDArray, shape (m, d)
        Points of the data.
    k : int
        Neighbour whose distance measures the density.

    Returns
    -------
    float
        Zero in expectation for equal distributions (it scatters to both signs), positive otherwise.

    Raises
    ------
    PhysicsError
        If the shapes do not fit, too few points are given, one is not finite, or points repeat.

    Notes
    -----
    Estimator of Wang, Kulkarni and Verdú (IEEE Trans. Inf. Theory 55 (2009) 2392). Eq. 13 of the data-driven
    paper (Allison and Blinov) as printed, ∫ p_m ln(p_d / p_m), is minus this quantity; the sign here is the
    usual one, so that the divergence is not negative.

    The estimate is too small where the model reaches far beyond the data: no neighbour is near there.

    Each coordinate is divided by its standard deviation in `data` first; the divergence itself does not
    depend on the coordinates, the error of its estimate does.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> kl = kl_divergence(rng.normal(size=(4000, 2)), rng.normal(loc=[1.0, 0.0], size=(4000, 2)))
    >>> abs(kl - 0.5) < 0.1  # two unit normals at distance one
    True
    """
    model, data = np.asarray(model, dtype=np.float64), np.asarray(data, dtype=np.float64)
    n, m = len(model), len(data)
    if model.ndim != 2 or data.ndim != 2 or model.shape[1] != data.shape[1] or min(n - 1, m) < k or k < 1:
        raise PhysicsError(
            f"kl_divergence: model {model.shape} and data {data.shape} must be (n, d) and (m, d) with "
            f"more than k = {k} points and k at least 1"
        )
    lost = [int((~np.isfinite(points)).any(axis=1).sum()) for points in (model, data)]
    if any(lost):
        msg = f"kl_divergence: {lost[0]} points of model and {lost[1]} of data are not finite; remove them"
        raise PhysicsError(msg)
    return _Points(data).divergence(model, k)


@dataclass(frozen=True, slots=True, eq=False)
class KLScan:
    """Divergences in windows of mass."""

    mass: FloatArray  # Centres of the windows, shape (n,) [GeV]
    half_width: float  # [GeV]
    n_data: FloatArray  # Pairs of the data in each window, shape (n,)
    # Smallest size of the samples compared in each window; 0 where the window holds too few pairs, shape (n,)
    n_points: FloatArray
    # KL(model || data) and KL(data || other data), one per draw; nan in windows with too few pairs, shape (n,
    # n_draws)
    model_draws: FloatArray
    data_draws: FloatArray

    @property
    def tested(self) -> BoolArray:
        """Windows with enough pairs."""
        return self.n_points > 0

    @property
    def model_mean(self) -> FloatArray:
        """Mean of model against data, shape (n,)."""
        return np.asarray(self.model_draws.mean(axis=1), dtype=np.float64)

    @property
    def data_mean(self) -> FloatArray:
        """Mean of data against data, shape (n,)."""
        return np.asarray(self.data_draws.mean(axis=1), dtype=np.float64)

    def band(self, cl: float, *, of: str = "data") -> FloatArray:
        """Return the central interval of single draws, shape (n, 2): ``of`` "data" (the gate) or "model"."""
        draws = self.data_draws if of == "data" else self.model_draws
        result = np.full((len(self.mass), 2), np.nan)
        tails = [0.5 * (1.0 - cl), 0.5 * (1.0 + cl)]
        result[self.tested] = np.quantile(draws[self.tested], tails, axis=1).T
        return result

    @property
    def inside(self) -> BoolArray:
        """Where the mean of model against data lies in the 95 % band of single data-against-data draws."""
        low, high = self.band(0.95).T
        result: BoolArray = (self.model_mean >= low) & (self.model_mean <= high)
        return result

    @property
    def p_value(self) -> float:
        """Global p-value: share of data draws as far from the data's mean, over all windows, as the model.

        The statistic sums the divergences over the windows, each over its spread between data draws.
        """
        used = self.data_draws[self.tested]
        scale = np.maximum(used.std(axis=1), 1e-12)
        data = ((used - used.mean(axis=1)[:, None]) / scale[:, None]).sum(axis=0)
        model = ((self.model_mean - self.data_mean)[self.tested] / scale).sum()
        return float((1 + (data >= model).sum()) / (1 + data.size))

    @property
    def fraction_inside(self) -> float:
        """Fraction of the tested windows that are `inside`: the gate on a flow."""
        return float(self.inside[self.tested].mean())


def kl_scan(
    sampler: Sampler,
    data: FloatArray,
    *,
    masses: Sequence[float] | FloatArray,
    rng: Rng,
    weight: FloatArray | None = None,
    half_width: float = 0.03,
    n_draws: int = 100,
    max_points: int = _MOST_POINTS,
) -> KLScan:
    """Compare a sampler with data in windows of mass, and the data with themselves.

    In each draw the pairs of a window are unweighted and split at random into two halves: data against data
    compares the halves, model against data compares the second half with as many model points, drawn at the
    masses of the first. Both therefore see the same sample sizes and the same spread of masses.

    Parameters
    ----------
    sampler : Sampler
        A flow or a histogram sampler.
    data : NDArray, shape (n, 3) [GeV]
        Columns mass, pt, energy.
    masses : sequence of float [GeV]
        Centres of the windows.
    weight : NDArray, shape (n,), optional
        Weights of the data, not negative: signed weights have no density to compare with.
    half_width : float [GeV]
    max_points : int
        Largest size of a sample in a draw.

    Raises
    ------
    PhysicsError
        If a weight is negative, or no window holds enough pairs.

    Notes
    -----
    The comparison of Fig. 4 of the data-driven paper (Allison and Blinov), with k = 2. A single divergence
    scatters by about 0.01 for 1e4 points: it passes or fails a flow, it does not rank two of them; rank with
    the loss.
    """
    windows = _Windows.of(data, weight, np.asarray(masses, dtype=np.float64), half_width, sampler.mass_range)
    (model,), own, n_points = windows.compared([sampler], [rng], (n_draws, max_points), itself=True)
    n_data = np.array([len(points) for points, _ in windows.samples], dtype=np.float64)
    return KLScan(windows.mass, half_width, n_data, n_points, model, own)


@dataclass(frozen=True, slots=True, eq=False)
class WindowCheck:
    """A sampler and its replicas against data in windows of mass."""

    mass: FloatArray  # shape (n,) [GeV]
    # Mean divergence of sampler and data, and 1.96 standard deviations of draws and of trainings, shape (n,)
    model: FloatArray
    error: FloatArray
    data: FloatArray  # Quantiles 2.5, 16, 50, 84 and 97.5 % of the data against themselves, shape (n, 5)
    # Windows with enough pairs, and where the mean lies in the 95 % band of the data, shape (n,)
    tested: BoolArray
    inside: BoolArray


def check_windows(
    sampler: Sampler,
    data: FloatArray,
    weight: FloatArray,
    *,
    mass_range: tuple[float, float],
    window: float,
    n_draws: int,
    rng: Callable[[], Rng],
    members: Sequence[Sampler] = (),
) -> WindowCheck:
    """Compare a sampler and its replicas with data in adjacent windows of mass, by `kl_scan`.

    Pairs (mass, pt, energy) of weights that are not positive are left out; `mass_range` holds the first and
    last centre of a window. Replicas get a tenth of the draws, at least 5. `rng` makes a generator for each
    comparison: all see the same draws of the data.
    """
    masses, positive = np.arange(mass_range[0], mass_range[1] + 1e-9, window), weight > 0
    data, weight = data[positive], weight[positive]
    options: dict[str, Any] = {"masses": masses, "half_width": 0.5 * window}
    scan = kl_scan(sampler, data, weight=weight, n_draws=n_draws, rng=rng(), **options)
    spread = np.zeros(len(masses))
    if members:
        low, high = np.array([one.mass_range for one in members]).T
        windows = _Windows.of(data, weight, masses, 0.5 * window, (float(low.max()), float(high.min())))
        each, few = [rng() for _ in members], (max(5, n_draws // 10), _MOST_POINTS)
        found, _, _ = windows.compared(members, each, few, itself=False)
        spread = np.std(found.mean(axis=2), axis=0, ddof=1)
    quantiles = np.full((len(masses), 5), np.nan)
    known = scan.data_draws[scan.tested]
    quantiles[scan.tested] = np.nanquantile(known, [0.025, 0.16, 0.5, 0.84, 0.975], axis=1).T
    return WindowCheck(
        mass=scan.mass,
        model=scan.model_mean,
        error=1.96 * np.hypot(scan.model_draws.std(axis=1), spread),
        data=quantiles,
        tested=scan.tested,
        inside=scan.inside,
    )


def _halves(data: FloatArray, weight: FloatArray, n_draws: int, max_points: int, rng: Rng) -> Halves:
    """Return n_draws pairs of disjoint unweighted samples of equal size, without repeated points."""
    result = []
    for _ in range(n_draws):
        kept = np.flatnonzero(rng.random(len(data)) * weight.max() < weight)
        half = min(len(kept) // 2, max_points)
        chosen = rng.permutation(kept)[: 2 * half]
        result.append((data[chosen[:half]], data[chosen[half:]]))
    return result


def _coordinates(pt: FloatArray, energy: FloatArray) -> FloatArray:
    return np.log(np.stack([pt, energy], axis=-1))


@dataclass(frozen=True, slots=True, eq=False)
class _Windows:
    """Weighted points in windows of mass: centres and half width [GeV], points and weights of each."""

    mass: FloatArray
    half_width: float
    samples: list[tuple[FloatArray, FloatArray]]

    @classmethod
    def of(
        cls,
        data: FloatArray,
        weight: FloatArray | None,
        masses: FloatArray,
        half_width: float,
        known: tuple[float, float],
    ) -> _Windows:
        """Return the points that a sampler of the masses `known` can be compared with."""
        data = np.asarray(data, dtype=np.float64)
        weight = np.ones(len(data)) if weight is None else np.asarray(weight, dtype=np.float64)
        if data.ndim != 2 or data.shape[1] != 3 or weight.shape != (len(data),) or (weight < 0).any():
            raise PhysicsError(
                f"kl_scan: data {data.shape} must be (n, 3) and weight {weight.shape} (n,) without "
                f"negative values ({int((weight < 0).sum())} here); give posterior weights or truth, not "
                "signed weights"
            )
        usable = (weight > 0) & (data[:, 0] >= known[0]) & (data[:, 0] <= known[1])
        data, weight = data[usable], weight[usable]
        order = np.argsort(data[:, 0], kind="stable")
        ordered = data[order, 0]
        samples = []
        for centre in masses:  # windows of different size: each is a neighbour search of its own
            first = np.searchsorted(ordered, centre - half_width - _SLACK)
            near = slice(first, np.searchsorted(ordered, centre + half_width + _SLACK, "right"))
            inside = np.sort(order[near])
            inside = inside[np.abs(data[inside, 0] - centre) <= half_width]
            samples.append((data[inside], weight[inside]))
        return cls(masses, half_width, samples)

    def compared(
        self, samplers: Sequence[Sampler], rngs: Sequence[Rng], size: tuple[int, int], *, itself: bool
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return divergences of samplers and of the data `itself`, and the smallest sizes of the samples.

        Shapes (n_samplers, n_windows, n_draws), (n_windows, n_draws) and (n_windows,). Samplers whose
        generators are in the same state see the same halves, which are then drawn and searched once.
        """
        n_draws, max_points = size
        model = np.full((len(samplers), len(self.mass), n_draws), np.nan)
        own, n_points = np.full(model.shape[1:], np.nan), np.zeros(len(self.mass))
        # a search takes a millisecond: threads that find no free core spend more than that in waiting
        with one_openmp_thread():
            for i, (points, weight) in enumerate(self.samples):
                if len(points) < 2 * _MIN_POINTS:
                    continue
                state = ""
                for j, (sampler, rng) in enumerate(zip(samplers, rngs, strict=True)):
                    if state != str(rng.bit_generator.state):
                        state = str(rng.bit_generator.state)
                        halves = _halves(points, weight, n_draws, max_points, rng)
                        after, smallest = rng.bit_generator.state, min(len(a) for a, _ in halves)
                        if (
                            min(len(b) for _, b in halves) < _MIN_POINTS // 2
                        ):  # few pairs carry all the weight
                            smallest = 0
                        few = [second for _, second in halves if smallest]
                        searched = [_Points(_coordinates(second[:, 1], second[:, 2])) for second in few]
                    rng.bit_generator.state = after
                    if smallest >= _MIN_POINTS:
                        model[j, i] = _of_model(sampler, halves, searched, rng)
                n_points[i] = smallest if smallest >= _MIN_POINTS else 0
                if itself and n_points[i]:
                    firsts = (_coordinates(first[:, 1], first[:, 2]) for first, _ in halves)
                    own[i] = [one.divergence(first, 2) for one, first in zip(searched, firsts, strict=True)]
        if not (n_points > 0).any():
            _refuse(self.half_width)
        return model, own, n_points


def _of_model(sampler: Sampler, halves: Halves, searched: list[_Points], rng: Rng) -> FloatArray:
    """Return the divergences of draws at the masses of the first halves and the second halves, (n_draws,)."""
    pt, energy = sampler.sample(np.concatenate([first[:, 0] for first, _ in halves]), rng)
    last = np.cumsum([len(first) for first, _ in halves])[:-1]
    drawn = np.split(_coordinates(pt, energy), last)
    return np.array([one.divergence(points, 2) for one, points in zip(searched, drawn, strict=True)])


def _refuse(half_width: float) -> None:
    raise PhysicsError(
        f"kl_scan: no window of ±{half_width:g} GeV holds {2 * _MIN_POINTS} pairs (effective); "
        "widen them ([flow] window is the whole width)"
    )
