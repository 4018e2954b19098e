"""Pairs that a search behind a target expects from the tails of measured vertices."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from gammastar.core.errors import PhysicsError
from gammastar.core.pairs import VertexPairs
from gammastar.core.records import BoolArray, FloatArray

__all__ = [
    "VertexTails",
    "selected_vertices",
    "tails_found",
    "vertex_tails",
]

VERTEX_TAILS = "vertex tails of measured pairs"
RANDOM = "vertex tails of random pairs"
CHARM = "open charm"
MIN_TAIL_PAIRS = 50.0  # effective pairs beyond a cut from which on the measured tail is extrapolated
MIN_LOOSE_PAIRS = 10.0  # without so many beyond the loosest cut there is no tail to speak of

MAX_POWER = 20.0  # power of an extrapolated tail
LOOSE_PULLS = (1.5, 2.0, 2.5)  # standard deviations from which a tail may also be extrapolated


@dataclass(frozen=True, slots=True, eq=False)
class VertexTails:
    """Expected pairs behind a target whose leptons did not come from there.

    `cuts` (shape (c,)): smallest vertex over its standard deviation; `value`, `sigma` (shape (c,)): expected
    pairs in the mass window and their standard deviation; `parts` (shape (c,)): by origin: "vertex tails of
    measured pairs", "vertex tails of random pairs", "open charm"; `control` (shape (c,)): effective number of
    pairs before the interaction beyond the cut, which the first part is made from; `supported`: pull from
    which on the first part is extrapolated as a power law; `index`: its power.
    """

    cuts: FloatArray
    value: FloatArray
    sigma: FloatArray
    parts: dict[str, FloatArray]
    control: FloatArray
    supported: float
    index: float


@dataclass(frozen=True, slots=True, eq=False)
class _Tail:
    """Share of pairs whose pull is beyond a value: counted up to `start`, extrapolated from there.

    The law is e^{−index u}, with u = ln(pull/start), a power, or u = pull − start where `flying`.
    """

    pull: FloatArray  # increasing
    beyond: FloatArray  # sum of weights from each pull on, one more entry, over the sum of all pairs
    square: FloatArray  # the same of squared weights, not divided
    total: float
    start: float
    index: float
    index_sigma: float
    flying: bool

    @staticmethod
    def of(pull: FloatArray, weight: FloatArray, total: float, cuts: FloatArray, what: str) -> _Tail:
        """Return the tail of pairs with weights of any sign; 1/index is the mean of u, Hill's estimator."""
        flying = what == CHARM
        starts = np.array([*(x for x in LOOSE_PULLS if x < cuts[0]), *cuts])
        order = np.argsort(pull)
        q, w = pull[order], weight[order]
        beyond = np.r_[np.cumsum(w[::-1])[::-1], 0.0]
        square = np.r_[np.cumsum(w[::-1] ** 2)[::-1], 0.0]
        at = np.searchsorted(q, starts, side="right")
        size = np.where(beyond[at] > 0, beyond[at] ** 2 / np.maximum(square[at], 1e-300), 0.0)
        if not (total > 0 and size[0] >= MIN_LOOSE_PAIRS):
            raise PhysicsError(
                f"{what}: {size[0]:.1f} pairs (effective) lie beyond {starts[0]:g} standard deviations, "
                f"fewer than {MIN_LOOSE_PAIRS:g}: take more pairs or a looser first cut"
            )
        good = np.flatnonzero(size >= MIN_TAIL_PAIRS)
        start = starts[good[-1] if len(good) else 0]
        first = int(np.searchsorted(q, start, side="right"))
        n = beyond[first] ** 2 / square[first]
        far = q[first:] - start if flying else np.log(q[first:] / start)
        index = 1.0 / max(float(w[first:] @ far) / beyond[first], 1.0 / MAX_POWER)
        return _Tail(q, beyond / total, square, total, float(start), index, index / np.sqrt(n), flying)

    def counted(self, pull: FloatArray) -> FloatArray:
        """Return the share beyond, as it was counted."""
        return np.asarray(self.beyond[np.searchsorted(self.pull, pull, side="right")])

    def share(self, pull: FloatArray) -> FloatArray:
        """Return the share beyond, extrapolated from `start` on."""
        own = self.counted(np.minimum(pull, self.start))
        return np.asarray(own * np.exp(-self.index * self._far(pull)))

    def _far(self, pull: npt.ArrayLike) -> FloatArray:
        beyond = np.maximum(pull, self.start)
        return np.asarray(beyond - self.start if self.flying else np.log(beyond / self.start))

    def relative(self, pull: float) -> float:
        """Return the relative standard deviation of the share beyond."""
        at = int(np.searchsorted(self.pull, min(pull, self.start), side="right"))
        counted = np.sqrt(self.square[at]) / (self.beyond[at] * self.total)
        return float(np.hypot(counted, float(self._far(pull)) * self.index_sigma))

    def effective(self, pull: float) -> float:
        """Return the effective number of pairs beyond."""
        at = int(np.searchsorted(self.pull, pull, side="right"))
        return float((self.beyond[at] * self.total) ** 2 / self.square[at]) if self.square[at] > 0 else 0.0


def vertex_tails(
    pairs: VertexPairs,
    cuts: npt.ArrayLike,
    fiducial: tuple[float, float],
    *,
    window: tuple[float, float],
    charm: VertexPairs | None = None,
    charm_sigma: float = 0.0,
) -> VertexTails:
    """Return the pairs that a search behind the target expects from the tails of the measured vertices.

    `pairs`: of all masses, with signed weights: opposite-sign pairs their own, like-sign pairs −R and so on.
    Only ``good`` ones are used; `cuts` (shape (c,)): increasing pulls: a pair counts if its vertex is so many
    standard deviations, and at least the first length of `fiducial`, behind the interaction; `fiducial` [m];
    `window` ([GeV]): masses of the search; `charm`: simulated pairs of open charm with positive weights,
    whose sum is the fitted yield; `charm_sigma`: relative standard deviation of that yield.

    Three populations. Pairs of virtual photons: the tail of their pulls is as long before the interaction,
    where no particle decays, as behind it; it is taken from there, outside of the mass window, like-sign
    pairs and charm subtracted. Random pairs: the like-sign pairs of all masses behind the target, so that
    decays in flight need not be symmetric. Open charm: its simulation behind it. The pull makes tails of
    different masses and energies comparable. Beyond the last cut (or 1.5, 2, 2.5) with 50 effective pairs a
    tail goes on as a power law, B. M. Hill, Ann. Stat. 3 (1975) 1163, heavier than Gaussians or exponentials;
    that of charm, which is a flight, as an exponential.
    Pairs of secondary interactions in the target are in the tail only as far as they are symmetric: the
    fiducial length has to begin behind the target.
    """
    limits = np.atleast_1d(np.asarray(cuts, dtype=np.float64))
    first, last = fiducial
    if not (limits[0] > 0 and (np.diff(limits) > 0).all() and 0 <= first < last and window[0] < window[1]):
        ranges = f"cuts {limits}, fiducial {fiducial}, window {window}"
        raise PhysicsError(f"vertex_tails: {ranges}: not increasing")
    pairs = pairs if pairs.good.all() else pairs.select(pairs.good)
    charm = None if charm is None else charm.select(charm.good)
    inside = (pairs.mass >= window[0]) & (pairs.mass < window[1])
    return _tails(pairs, ~inside, inside, limits, fiducial, (charm, window, charm_sigma))


def _tails(
    pairs: VertexPairs,
    aside: BoolArray,
    inside: BoolArray,
    cuts: FloatArray,
    fiducial: tuple[float, float],
    simulated: tuple[VertexPairs | None, tuple[float, float], float],
) -> VertexTails:
    """Return what the tails of some pairs predict for others."""
    charm, window, charm_sigma = simulated
    near, loosest = pairs.select(inside), min(cuts[0], LOOSE_PULLS[0])
    before, total = [pairs.select(aside & (-pairs.pull > loosest))], [pairs.weight[aside]]
    if charm is not None:
        own = (charm.mass >= window[0]) & (charm.mass < window[1])
        far = np.ones(len(charm), bool) if aside.all() else ~own
        near = VertexPairs.concatenate([near, _negative(charm.select(own))])
        before.append(_negative(charm.select(far & (-charm.pull > loosest))))
        total.append(-charm.weight[far])
    if not near.weight.sum() > 0:
        raise PhysicsError(f"vertex_tails: no pair is left in {window[0]:g} to {window[1]:g} GeV")
    tail = VertexPairs.concatenate(before)
    photons = _Tail.of(-tail.pull, tail.weight, float(np.concatenate(total).sum()), cuts, VERTEX_TAILS)
    populations = {VERTEX_TAILS: _expected(near, near.weight, photons, cuts, fiducial)}
    if near.like.any():
        behind = pairs.select(pairs.like & (pairs.pull > loosest))
        random = _Tail.of(behind.pull, -behind.weight, -float(pairs.weight[pairs.like].sum()), cuts, RANDOM)
        populations[RANDOM] = _expected(near, np.where(near.like, -near.weight, 0.0), random, cuts, fiducial)
    if charm is not None:
        populations[CHARM] = _simulated(charm, window, cuts, fiducial, charm_sigma)
    value = np.sum([v for v, _ in populations.values()], axis=0)
    sigma = np.sqrt(np.sum([s**2 for _, s in populations.values()], axis=0))
    control = np.array([photons.effective(cut) for cut in cuts])
    parts = {name: v for name, (v, _) in populations.items()}
    return VertexTails(cuts, value, sigma, parts, control, photons.start, photons.index)


def _negative(charm: VertexPairs) -> VertexPairs:
    """Return simulated charm that is subtracted from the pairs: no like-sign pairs."""
    return replace(charm, weight=-charm.weight, like=np.zeros(len(charm), bool))


def _expected(
    near: VertexPairs, weight: FloatArray, tail: _Tail, cuts: FloatArray, fiducial: tuple[float, float]
) -> tuple[FloatArray, FloatArray]:
    """Return expected pairs and standard deviations, if all pairs in the window have this tail."""
    lowest = np.maximum(cuts[:, None], fiducial[0] / near.sigma)
    share = tail.share(lowest) - tail.share(np.maximum(fiducial[1] / near.sigma, lowest))
    value = np.maximum(share @ weight, 0.0)
    typical = np.exp(np.log(lowest) @ weight / weight.sum())
    return value, value * np.array([tail.relative(pull) for pull in typical])


def _simulated(
    charm: VertexPairs,
    window: tuple[float, float],
    cuts: FloatArray,
    fiducial: tuple[float, float],
    relative: float,
) -> tuple[FloatArray, FloatArray]:
    """Return pairs of open charm behind the cuts with errors; tail of three windows, or of all masses."""
    near = charm.select((charm.mass >= window[0]) & (charm.mass < window[1]))
    if not len(near):
        return np.zeros(len(cuts)), np.zeros(len(cuts))
    width = window[1] - window[0]
    wide = np.abs(charm.mass - window[0] - 0.5 * width) < 1.5 * width
    for part in (charm.select(wide), charm):
        behind = part.select(part.pull > min(cuts[0], LOOSE_PULLS[0]))
        try:
            tail = _Tail.of(behind.pull, behind.weight, float(part.weight.sum()), cuts, CHARM)
        except PhysicsError:
            continue
        value, sigma = _expected(near, near.weight, tail, cuts, fiducial)
        return value, np.hypot(sigma, relative * value)
    raise PhysicsError(f"{CHARM}: fewer than {MIN_LOOSE_PAIRS:g} simulated pairs lie behind the target")


def selected_vertices(
    pairs: VertexPairs, cut: float, fiducial: tuple[float, float], window: tuple[float, float]
) -> BoolArray:
    """Return True for pairs in the mass window that a displaced search counts.

    `cut`: standard deviations behind the interaction; `fiducial` ([m]): first and last place that counts;
    `window` ([GeV]): masses.
    """
    near = pairs.good & (pairs.mass >= window[0]) & (pairs.mass < window[1])
    return np.asarray(near & (pairs.pull > cut) & (pairs.z >= fiducial[0]) & (pairs.z < fiducial[1]))


def tails_found(
    pairs: VertexPairs,
    between: tuple[float, float],
    fiducial: tuple[float, float],
    *,
    charm: VertexPairs | None = None,
) -> tuple[float, float]:
    """Return opposite-sign pairs behind the target over what the tails predict, below the cuts of the search.

    `between`: range of the pull: from a cut so loose that no signal can be seen, to the first cut of the
    search; `fiducial` [m].

    All masses together. The pairs predict themselves only as far as both sides of the interaction are alike:
    the distance of the ratio from one is the error of that.
    """
    pairs, charm = pairs.select(pairs.good), None if charm is None else charm.select(charm.good)
    everything = np.ones(len(pairs), bool)
    bounds = (0.0, 1e9)  # all masses
    tails = _tails(pairs, everything, everything, np.array(between), fiducial, (charm, bounds, 0.0))
    expected = float(tails.value[0] - tails.value[1])
    data = pairs.select(~pairs.like)
    inner, outer = (selected_vertices(data, cut, fiducial, bounds) for cut in between)
    seen = inner & ~outer
    count, square = float(data.weight[seen].sum()), float((data.weight[seen] ** 2).sum())
    return count / expected, float(np.hypot(np.sqrt(square), tails.sigma[0])) / expected
