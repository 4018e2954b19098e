"""Is the density that of the pairs? The energy distance, its p-value, and the smallest shift it finds."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from scipy.optimize import brentq
from scipy.sparse import csr_array
from scipy.spatial.distance import cdist

from gammastar.core.errors import PhysicsError
from gammastar.core.records import BoolArray, FloatArray, IntArray, Rng, effective_size
from gammastar.core.sampling import Sampler

CHUNK = 20_000  # pairs at a time
GROUPS = 2000  # of events that change sign together
LANDMARKS = 100
NEIGHBOURS = 500  # in mass, among which the weights of a replica have mean one
PROBE = 20_000  # pairs with which mean changes are computed
ROUNDS = 500  # of drawing twins
FEWEST = 50  # pairs (effective) that make a test
SMALLEST, LARGEST = 1e-5, 2.0  # relative shifts that are tried
SHIFTED = ("pt", "energy")
ALARM = 1e-3  # p-value
MATTERS = 0.02  # mean relative shift; less is let be where there are no replicas, whose error is unknown

Inside: TypeAlias = Callable[[FloatArray, FloatArray, FloatArray], BoolArray]
Replicas: TypeAlias = Callable[[FloatArray, FloatArray, FloatArray], FloatArray]


@dataclass(frozen=True, slots=True)
class DensityOptions:
    """What is asked of `density_test`."""

    # The smallest shift is that for which the p-value is below `significance` with probability `power`
    significance: float = 0.01
    power: float = 0.95
    n_flips: int = 4999  # Random signs behind the p-values: the smallest p-value is 1/(n_flips + 1)


@dataclass(frozen=True, slots=True, eq=False)
class DensityTest:
    """What `density_test` finds."""

    distance: float  # Energy distance of data and model in (m, ln pt, ln E), each over its standard deviation
    p_value: float  # Probability of a larger distance if the model is the density of the data
    # The same if the model may be wrong by the spread of its replicas; nan without replicas
    band_p_value: float
    n_pairs: int
    effective_size: float  # (Σw)²/Σw² of their weights
    options: DensityOptions  # Significance and power that `smallest` belongs to
    # Smallest relative shift of all ``pt`` and of all ``energy`` that is found; inf if none below 2 is
    smallest: Mapping[str, float]
    # Mean of ln(data/model) and its error: the relative shift that is seen
    shift: Mapping[str, tuple[float, float]]
    band: Mapping[str, float]  # Standard deviation of that mean between the replicas; nan without replicas

    @property
    def verdict(self) -> float:
        """The p-value that judges: within the band of the replicas where there are some."""
        return self.p_value if np.isnan(self.band_p_value) else self.band_p_value

    @property
    def matters(self) -> bool:
        """Whether the model is off by more than its band, or without one by more than two per cent."""
        banded = not np.isnan(self.band_p_value)
        largest = max(abs(shift) for shift, _ in self.shift.values())
        return self.verdict < ALARM and (banded or largest > MATTERS)


@dataclass(frozen=True)
class _Kernel:
    """Features whose squared distance is half the energy distance, by its values at landmarks.

    |a − b| is minus twice a kernel up to terms of a or b alone (Sejdinovic et al., Ann. Stat. 41 (2013)
    2263); the landmarks approximate the kernel (Williams and Seeger, NIPS 13 (2000) 682). With any landmarks
    the test is valid.
    """

    scale: FloatArray
    landmarks: FloatArray
    root: FloatArray

    @staticmethod
    def of(points: FloatArray, scale: FloatArray) -> _Kernel:
        """Return the kernel with these points, in the coordinates of `_coordinates`, as landmarks."""
        marks = points / scale
        value, vector = np.linalg.eigh(_centred(marks, marks))
        kept = value > 1e-9 * value[-1]
        return _Kernel(scale, marks, vector[:, kept] / np.sqrt(value[kept]))

    def values(self, points: FloatArray) -> FloatArray:
        """Return the kernel at points and landmarks (n, n_landmarks); features are these times `root`."""
        return _centred(points / self.scale, self.landmarks)


def _centred(first: FloatArray, landmarks: FloatArray) -> FloatArray:
    """Return ½(|a − o| + |b − o| − |a − b|) with o the mean of the landmarks, shape (n, n_landmarks)."""
    origin = landmarks.mean(axis=0)
    own = [np.linalg.norm(points - origin, axis=1) for points in (first, landmarks)]
    return np.asarray(0.5 * (own[0][:, None] + own[1][None, :] - cdist(first, landmarks)))


def _coordinates(mass: FloatArray, pt: FloatArray, energy: FloatArray) -> FloatArray:
    return np.column_stack([mass, np.log(pt), np.log(energy)])


def _twins(
    sampler: Sampler, mass: FloatArray, inside: Inside | None, rng: Rng
) -> tuple[FloatArray, FloatArray]:
    """Return pt and energy drawn at these masses, again until inside; nan where that takes too long."""
    pt, energy = np.full(len(mass), np.nan), np.full(len(mass), np.nan)
    left = np.arange(len(mass))
    for _ in range(ROUNDS):
        drawn = sampler.sample(mass[left], rng)
        good = np.ones(len(left), dtype=np.bool_) if inside is None else inside(mass[left], *drawn)
        pt[left[good]], energy[left[good]] = drawn[0][good], drawn[1][good]
        left = left[~good]
        if not len(left):
            break
    return pt, energy


def density_test(
    sampler: Sampler,
    data: FloatArray,
    *,
    rng: Rng,
    weight: FloatArray | None = None,
    event: IntArray | None = None,
    inside: Inside | None = None,
    replicas: Replicas | None = None,
    options: DensityOptions | None = None,
) -> DensityTest:
    """Test whether weighted pairs follow the density p(pt, energy | mass) of a sampler.

    Parameters
    ----------
    sampler : Sampler
        A flow, a histogram, any other.
    data : NDArray, shape (n, 3) [GeV]
        Columns mass, pt, energy. Pairs at masses that the sampler does not know are left out.
    weight : NDArray, shape (n,), optional
        Weights of the data; signed ones and those that depend on pt and energy are allowed.
    event : NDArray of int, shape (n,), optional
        Pairs of one event count as dependent; each is its own event by default.
    inside : callable, optional
        Of mass, pt, energy: where there are data. Both are compared inside alone.
    replicas : callable, optional
        Of mass, pt, energy: the density of each replica over that of the sampler, shape (n_replicas, n), e.g.
        ``FlowVariations.weights``. Their spread says how far off the sampler may be.

    Raises
    ------
    PhysicsError
        If shapes do not fit, a number is not finite or not positive, or fewer than 50 pairs (effective) lie
        in the range of the sampler.

    Notes
    -----
    Each pair gets a twin that the sampler draws at the pair's mass. The statistic is the energy distance
    (Székely and Rizzo, J. Stat. Plan. Inference 143 (2013) 1249) of pairs and twins, both with the weights of
    the pairs; 100 landmarks make its cost linear in the pairs. If the density is right, a pair and its twin
    may be exchanged: the distribution of the statistic follows from random signs of each event's difference
    (exact for equal weights; for others a wild bootstrap, valid for many pairs).

    The power adds the mean change of the features under a shift to the same random signs: what a test of as
    many pairs with these weights finds. It is that of this sample, not that of a better experiment.

    Pairs that trained a flow are nearer to it than new ones: with them both p-values are too large, not too
    small. The weights count as exact.
    """
    options = DensityOptions() if options is None else options
    mass, points, twins, weight, group = _checked(sampler, data, weight, event, inside, rng)
    scale = np.sqrt(np.cov(points.T, aweights=np.abs(weight)).diagonal())
    scale = np.where(scale > 0, scale, 1.0)
    chosen = rng.choice(len(points), (2, LANDMARKS // 2), p=np.abs(weight) / np.abs(weight).sum())
    kernel = _Kernel.of(np.concatenate([points[chosen[0]], twins[chosen[1]]]), scale)
    sums = _group_sums(kernel, (points, twins), weight, group)
    signs = 2 * rng.integers(0, 2, (options.n_flips, len(sums)), dtype=np.int8) - 1
    noise = np.asarray(signs.astype(np.float32) @ sums.astype(np.float32), dtype=np.float64)
    seen, null = float(np.sum(sums.sum(axis=0) ** 2)), np.sum(noise**2, axis=1)
    probe, total = rng.permutation(len(points))[:PROBE], float(weight.sum())
    near = _Probe(kernel, twins[probe], weight[probe], total)
    logs = _grouped((points - twins)[:, 1:], weight, group) / total
    errors = np.sqrt(np.sum(logs**2, axis=0))
    within, spread = float("nan"), np.full(len(SHIFTED), np.nan)
    if replicas is not None:
        moved, spread = _band(near, replicas, mass[probe])
        extra = _of_replicas(moved, options.n_flips, rng)
        within = _p_value(seen, np.sum((noise + extra) ** 2, axis=1))
    return DensityTest(
        distance=2.0 * seen / total**2,
        p_value=_p_value(seen, null),
        band_p_value=within,
        n_pairs=len(points),
        effective_size=effective_size(weight),
        options=options,
        smallest={name: _smallest(near, 1 + i, noise, options) for i, name in enumerate(SHIFTED)},
        shift={name: (float(logs[:, i].sum()), float(errors[i])) for i, name in enumerate(SHIFTED)},
        band={name: float(spread[i]) for i, name in enumerate(SHIFTED)},
    )


def density_slices(
    sampler: Sampler, data: FloatArray, *, weight: FloatArray, width: float = 0.05, **how: Any
) -> list[tuple[float, float, DensityTest]]:
    """Return lower and upper mass [GeV] and `density_test` of each slice that holds enough pairs."""
    low, high = sampler.mass_range
    n = max(round((high - low) / width), 1)
    edges, event = np.linspace(low, high, n + 1), np.asarray(how.pop("event", np.arange(len(data))))
    place = np.clip(np.searchsorted(edges, data[:, 0], "right") - 1, 0, n - 1)
    found = []
    for k in range(n):
        own = np.flatnonzero((place == k) & (data[:, 0] >= low) & (data[:, 0] <= high))
        with contextlib.suppress(PhysicsError):  # fewer pairs than make a test
            test = density_test(sampler, data[own], weight=weight[own], event=event[own], **how)
            found.append((float(edges[k]), float(edges[k + 1]), test))
    return found


def _p_value(seen: float, null: FloatArray) -> float:
    return float((1 + np.sum(null >= seen)) / (1 + len(null)))


def _checked(
    sampler: Sampler,
    data: FloatArray,
    weight: FloatArray | None,
    event: IntArray | None,
    inside: Inside | None,
    rng: Rng,
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray, IntArray]:
    """Return masses, points, twins, weights and the group of each pair, where the sampler knows the mass."""
    data = np.asarray(data, dtype=np.float64)
    n = len(data)
    weight = np.ones(n) if weight is None else np.asarray(weight, dtype=np.float64)
    event = np.arange(n) if event is None else np.asarray(event)
    if data.ndim != 2 or data.shape[1] != 3 or weight.shape != (n,) or event.shape != (n,):
        shapes = f"data {data.shape}, weight {weight.shape}, event {event.shape}"
        raise PhysicsError(f"density_test: {shapes} must be (n, 3), (n,) and (n,)")
    bad = ~((np.isfinite(data) & (data > 0)).all(axis=1) & np.isfinite(weight))
    if bad.any():
        raise PhysicsError(f"density_test: {int(bad.sum())} pairs are not finite and positive; remove them")
    low, high = sampler.mass_range
    covered = (weight != 0) & (data[:, 0] >= low) & (data[:, 0] <= high)
    if inside is not None:
        covered &= inside(*data.T)
    pt, energy = np.full(n, np.nan), np.full(n, np.nan)
    if covered.sum() >= FEWEST:  # fewer cannot weigh as many
        pt[covered], energy[covered] = _twins(sampler, data[covered, 0], inside, rng)
    used = np.flatnonzero(covered & np.isfinite(pt))
    size = effective_size(weight[used])
    if size < FEWEST:
        pairs = f"{len(used)} pairs (effective {size:.0f}) between {low:g} and {high:g} GeV"
        raise PhysicsError(f"density_test: {pairs}; at least {FEWEST} are needed")
    data, weight = data[used], weight[used]
    twins = _coordinates(data[:, 0], pt[used], energy[used])
    unique, rank = np.unique(event[used], return_inverse=True)
    group = rng.permutation(len(unique))[rank] % min(len(unique), GROUPS)
    return data[:, 0], _coordinates(*data.T), twins, weight, group


def _grouped(values: FloatArray, weight: FloatArray, group: IntArray) -> FloatArray:
    """Return weighted sums over the pairs of each group, shape (n_groups, k)."""
    n = int(group.max()) + 1
    sums = csr_array((weight, (group, np.arange(len(group)))), shape=(n, len(group)))
    return np.asarray(sums @ values, dtype=np.float64)


def _group_sums(
    kernel: _Kernel, both: tuple[FloatArray, FloatArray], weight: FloatArray, group: IntArray
) -> FloatArray:
    """Return the weighted differences of the features of pairs and twins, summed over groups."""
    total = np.zeros((int(group.max()) + 1, len(kernel.root)))
    for start in range(0, len(weight), CHUNK):
        part = slice(start, start + CHUNK)
        change = kernel.values(both[0][part]) - kernel.values(both[1][part])
        found = _grouped(change, weight[part], group[part])
        total[: len(found)] += found
    return np.asarray(total @ kernel.root, dtype=np.float64)


@dataclass(frozen=True)
class _Probe:
    """Twins with which the mean change of the features is computed."""

    kernel: _Kernel
    twins: FloatArray
    weight: FloatArray
    total: float

    @cached_property
    def values(self) -> FloatArray:
        """The kernel at the twins and the landmarks."""
        return self.kernel.values(self.twins)

    def change(self, moved: FloatArray) -> FloatArray:
        """Return the change of the weighted sum of the features over all pairs."""
        share = self.weight * (self.total / self.weight.sum())
        return np.asarray(share @ (self.kernel.values(moved) - self.values) @ self.kernel.root)


def _smallest(near: _Probe, column: int, noise: FloatArray, options: DensityOptions) -> float:
    """Return the smallest relative shift of one coordinate that is found as the options ask."""
    if options.power <= 0.0:
        return SMALLEST
    square = np.sum(noise**2, axis=1)
    threshold = float(np.quantile(square, 1.0 - options.significance))

    def missing(log_shift: float) -> float:
        moved = near.twins.copy()
        moved[:, column] += np.log1p(np.exp(log_shift))
        change = near.change(moved)
        found = square + 2.0 * (noise @ change) + change @ change > threshold
        return float(found.mean()) - options.power

    low, high = np.log(SMALLEST), np.log(LARGEST)
    if missing(low) >= 0:
        return SMALLEST
    if missing(high) < 0:
        return float("inf")
    return float(np.exp(brentq(missing, low, high, xtol=0.01)))


def _band(near: _Probe, replicas: Replicas, mass: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the replicas' changes of the features and the spread of their mean logarithms.

    A replica weighs the twins; its weights have mean one among neighbours in mass, as its density at fixed
    mass has, also where the twins fill a part of the phase space alone.
    """
    ratio = np.asarray(replicas(mass, *np.exp(near.twins[:, 1:].T)), dtype=np.float64)
    order = np.argsort(mass, kind="stable")
    for block in np.array_split(order, max(1, len(order) // NEIGHBOURS)):
        ratio[:, block] /= ratio[:, block].mean(axis=1)[:, None]
    extra = (ratio - ratio.mean(axis=0)) * near.weight / near.weight.sum()
    spread = np.sqrt(np.sum((extra @ near.twins[:, 1:]) ** 2, axis=0) / (len(ratio) - 1))
    return np.asarray(extra @ near.values @ near.kernel.root * near.total), spread


def _of_replicas(moved: FloatArray, n: int, rng: Rng) -> FloatArray:
    """Return n changes of the features with the covariance of the replicas, Student's t for their number."""
    free = len(moved) - 1
    normal = rng.standard_normal((n, len(moved))) / np.sqrt(free)
    return np.asarray((normal * np.sqrt(free / rng.chisquare(free, n))[:, None]) @ moved)
