"""Toys: pseudo-experiments of a model, plain or drawn where the data are rare and weighted back.

Also how every limit is found from a statistic: `falling_root` of an exact one, `toy_limits` of one with toys.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
from scipy.interpolate import PchipInterpolator
from scipy.optimize import brentq
from scipy.special import logit, logsumexp

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray
from gammastar.infer import profile
from gammastar.infer.channels import Channel

Statistic: TypeAlias = Literal["ratio", "qtilde", "q0"]
Auxiliary: TypeAlias = Literal["fixed", "randomised", "averaged"]
Ties: TypeAlias = Literal["whole", "mid-p"]
KINDS = {"ratio": 0, "qtilde": 1, "q0": 2}


@dataclass(frozen=True, slots=True)
class Convention:
    """How CLs is defined; written into every result.

    Attributes
    ----------
    statistic : {"ratio", "qtilde", "q0"}
        "ratio": −2 ln L(s+b)/L(b), each profiled, signal strength fixed (NA62, LEP, Tevatron); "qtilde": the
        profile likelihood ratio with 0 ≤ μ̂ ≤ μ (LHC, pyhf); "q0": for discovery.
    auxiliary : {"fixed", "randomised", "averaged"}
        What toys do with nuisances and their auxiliary measurements. "fixed": nuisances at their fitted
        values, measurements as observed; "randomised": measurements drawn anew around the fitted values;
        "averaged": nuisances drawn around the observed measurements, which stay (hybrid of R. Cousins and
        V. Highland, Nucl. Instrum. Meth. A 320 (1992) 331).
    constraint : {"auxiliary", "posterior"}
        "auxiliary": ln κ·θ with a unit-normal measurement of θ; "posterior": the log-normal density in the
        yield's factor itself, as RooLognormal, whose factor 1/e^{σθ} moves the maximum by −σ² (in the log).
    ties : {"whole", "mid-p"}
        "mid-p": outcomes as likely as the observed one count half, with signal and without.
    """

    statistic: Statistic = "ratio"
    auxiliary: Auxiliary = "fixed"
    constraint: Literal["auxiliary", "posterior"] = "auxiliary"
    ties: Ties = "whole"

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("statistic", self.statistic, get_args(Statistic)),
            ("auxiliary", self.auxiliary, get_args(Auxiliary)),
            ("constraint", self.constraint, ("auxiliary", "posterior")),
            ("ties", self.ties, get_args(Ties)),
        ):
            if value not in allowed:
                raise PhysicsError(f"Convention.{name} = {value!r} must be one of {', '.join(allowed)}")

    def beyond(self, q: FloatArray, observed: FloatArray | float, near: float) -> FloatArray:
        """Return whether statistics are at least an observed one; at mid-P ½ for those `near` it."""
        above = (q > observed + near).astype(np.float64)
        return above + (1.0 if self.ties == "whole" else 0.5) * (np.abs(q - observed) <= near)

    def __str__(self) -> str:
        """Return the label used in `method`."""
        name = {"ratio": "ratio s+b/b", "qtilde": "q̃μ", "q0": "q0"}[self.statistic]
        tail = ", log-normal posterior" if self.constraint == "posterior" else ""
        tail += ", mid-P" if self.ties == "mid-p" else ""
        if self.auxiliary == "averaged":
            return f"{name}, nuisances profiled, toys averaged over nuisances{tail}"
        return f"{name}, nuisances profiled, {self.auxiliary} auxiliaries{tail}"


@dataclass(frozen=True, slots=True, eq=False)
class ToyModel:
    """Channels as arrays."""

    channels: tuple[Channel, ...]
    nuisances: tuple[str, ...]
    yields: FloatArray  # Signal and background at nominal nuisances, shape (2, channels)
    # ln κ of each nuisance on signal and background, shape (channels, nuisances)
    exponents: tuple[FloatArray, FloatArray]
    aux: FloatArray  # Observed auxiliary measurements [standard deviations], shape (nuisances,)
    # What the posterior reading subtracts from auxiliary measurements in fits, shape (nuisances,)
    shift: FloatArray

    def arrays(self, strength: float = 1.0) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return the arguments of the compiled fits with the signal scaled."""
        return (self.yields * np.array([[strength], [1.0]]), *self.exponents)

    def rates(self, theta: FloatArray, strength: float) -> FloatArray:
        """Return s and b per channel at given nuisances (…, nuisances), shape (…, 2, channels)."""
        a, d = self.exponents
        scaled = self.yields * np.array([[strength], [1.0]])
        pulls = np.stack([theta @ a.T, theta @ d.T], axis=-2)
        return np.asarray(scaled * np.exp(pulls), dtype=np.float64)

    def data(self) -> Toys:
        """Return the observed data."""
        observed = []
        for channel in self.channels:
            if channel.observed is None:
                raise PhysicsError(
                    f"channel {channel.name!r} is masked: there is no observed result, ask for expected ones"
                )
            observed.append(channel.observed)
        offsets = np.r_[0, np.cumsum([len(o) for o in observed])].astype(np.int64)
        return Toys(np.concatenate(observed), offsets, self.aux[None, :])

    def fitted(self, data: Toys, strength: float) -> FloatArray:
        """Return the nuisances fitted to one data set at a signal strength (0: background only)."""
        theta, _ = profile.fit(
            1.0 if strength > 0 else 0.0,
            self.arrays(strength if strength > 0 else 1.0),
            data.aux - self.shift,
            data.ratio,
            np.ones(len(data.ratio)),
            data.offsets,
        )
        return np.asarray(theta[0], dtype=np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class Toys:
    """Data sets: density ratios of their events, where each (set, channel) begins, auxiliary measurements.

    Drawn ones also know the numbers of signal and background events, `parts` of shape (sets, channels, 2).
    """

    ratio: FloatArray
    offsets: npt.NDArray[np.int64]
    aux: FloatArray = field(default_factory=lambda: np.zeros((1, 0)))
    parts: npt.NDArray[np.int64] | None = None


def lint_names(names: Sequence[str]) -> None:
    """Refuse nuisances whose names differ only in spelling: they would silently be uncorrelated."""
    seen: dict[str, str] = {}
    for name in names:
        plain = "".join(letter for letter in name.casefold() if letter.isalnum())
        other = seen.setdefault(plain, name)
        if other != name:
            raise PhysicsError(
                f"nuisances {other!r} and {name!r} differ in spelling only; give a shared nuisance one name"
            )


def toy_model(
    channels: Sequence[Channel],
    convention: Convention | None = None,
    auxiliary: Mapping[str, float] | None = None,
) -> ToyModel:
    """Return channels as one model; a nuisance name that occurs in several of them is shared."""
    if not channels or not sum(channel.signal for channel in channels) > 0:
        raise PhysicsError("exact limits need at least one channel with a signal")
    labels = [channel.name for channel in channels]
    if len(set(labels)) < len(labels):
        raise PhysicsError(f"channels {labels} must have different names")
    sources = [(channel.signal_sigma, channel.background_sigma) for channel in channels]
    names = list(dict.fromkeys(name for pair in sources for sigmas in pair for name in sigmas))
    names = [name for name in names if any(abs(p.get(name, 0.0)) > 0 for pair in sources for p in pair)]
    lint_names(names)
    unknown = set(auxiliary or {}) - set(names)
    if unknown:
        raise PhysicsError(f"auxiliary measurements of {sorted(unknown)}; the nuisances are {names}")
    a, d = (
        np.array([[pair[side].get(name, 0.0) for name in names] for pair in sources]).reshape(
            len(sources), len(names)
        )
        for side in (0, 1)
    )
    posterior = convention is not None and convention.constraint == "posterior"
    widest = np.abs(np.concatenate([a, d])).max(axis=0) if names else np.zeros(0)
    return ToyModel(
        tuple(channels),
        tuple(names),
        np.array([[c.signal for c in channels], [c.background for c in channels]]),
        (a, d),
        np.array([(auxiliary or {}).get(name, 0.0) for name in names]),
        widest if posterior else np.zeros(len(names)),
    )


def draw(
    model: ToyModel, theta: FloatArray, strength: float, n: int, rng: np.random.Generator, *, randomise: bool
) -> Toys:
    """Draw pseudo-experiments at a signal strength and at nuisances, shape (nuisances,) or (n, nuisances)."""
    width = len(model.channels)
    rates = np.swapaxes(model.rates(theta, strength), -1, -2)
    counts = rng.poisson(rates, (n, width, 2))
    label = np.repeat(np.tile(np.arange(2 * width), n), counts.ravel())
    ratio = np.empty(len(label))
    for c, channel in enumerate(model.channels):
        for part, pmf in enumerate((channel.signal_pmf, channel.background_pmf)):
            here = np.flatnonzero(label == 2 * c + part)
            if here.size:
                cell = np.searchsorted(np.cumsum(pmf)[:-1], rng.random(here.size), side="right")
                ratio[here] = channel.ratio[cell]
    offsets = np.r_[0, np.cumsum(counts.sum(axis=2).ravel())].astype(np.int64)
    aux = theta + rng.standard_normal((n, theta.shape[-1])) if randomise else model.aux[None, :]
    return Toys(ratio, offsets, aux, counts.astype(np.int64))


def statistics(model: ToyModel, toys: Toys, strength: float, kind: Statistic) -> FloatArray:
    """Return the test statistic of each data set at a signal strength, shape (n,).

    Data sets that are equal (counts beside the same measurements) are fitted once.
    """
    some, place = _distinct(model, toys)
    q = profile.statistic(
        KINDS[kind],
        model.arrays(strength),
        np.ascontiguousarray(some.aux - model.shift),
        some.ratio,
        np.ones(len(some.ratio)),
        some.offsets,
    )
    return np.asarray(q[place], dtype=np.float64)


def _distinct(model: ToyModel, toys: Toys) -> tuple[Toys, Any]:
    """Return the data sets that differ and the place of each one among them, if they hold counts alone."""
    cells = [np.unique(channel.ratio) for channel in model.channels]
    counts = np.diff(toys.offsets).reshape(-1, len(cells))
    aux, shared = toys.aux, np.zeros(len(counts), dtype=np.int64)
    if len(aux) > 1 and 4 * len(np.unique(aux[:, :1])) < len(aux) == len(counts):
        aux, shared = np.unique(aux, axis=0, return_inverse=True)
        shared = shared.ravel()
    most = (shared.max(initial=0) + 1, *(counts.max(axis=0, initial=0) + 1).tolist())
    alike = len(aux) <= most[0] and all(len(cell) == 1 for cell in cells) and math.prod(most) < 1 << 62
    ratio = np.concatenate(cells)
    if not alike or not np.array_equal(toys.ratio, np.repeat(np.tile(ratio, len(counts)), counts.ravel())):
        return toys, slice(None)
    keys, place = np.unique(np.ravel_multi_index((shared, *counts.T), most), return_inverse=True)
    row, *few = np.unravel_index(keys, most)
    times = np.stack(few, axis=1).ravel()
    offsets = np.r_[0, np.cumsum(times)].astype(np.int64)
    return Toys(np.repeat(np.tile(ratio, len(keys)), times), offsets, aux[row]), place


TIE = 1e-7
"""Differences of the statistic below this are ties (at n = 0 it has an atom)."""


@dataclass(frozen=True, slots=True)
class CLs:
    """CLs of one hypothesis with its Monte Carlo error."""

    # CLs and its standard deviation from the finite number of toys
    cls: float
    error: float
    # P(q ≥ q_obs) under signal plus background and under background only
    clsb: float
    clb: float
    q: float  # Observed test statistic (nan in the closed form)
    toys: int
    effective: float  # Kish's effective number of toys of the worse hypothesis
    method: str


def cls_of_tails(clsb: npt.ArrayLike, clb: npt.ArrayLike) -> FloatArray:
    """Return CLs from fractions of toys; one where none without signal is as extreme, 0/0 excludes none."""
    with_signal, without = np.broadcast_arrays(np.asarray(clsb, np.float64), np.asarray(clb, np.float64))
    found: FloatArray = np.divide(with_signal, without, out=np.ones(without.shape), where=without > 0.0)
    return found


@dataclass(frozen=True, slots=True, eq=False)
class WeightedToys:
    """Toys of several proposals with the logarithm of their mixture density.

    Where toys average over nuisances, `theta` holds those of each toy, equally distributed in all proposals;
    densities are then those of the events at these nuisances.
    """

    model: ToyModel
    convention: Convention
    data: Toys
    toys: Toys
    log_mixture: FloatArray
    theta: FloatArray | None

    def log_weight(self, strength: float) -> FloatArray:
        """Return the logarithm of the weight of each toy under a hypothesis, shape (n,)."""
        theta = self.model.fitted(self.data, strength) if self.theta is None else self.theta
        return _log_density(self.model, self.toys, theta, strength, self.convention) - self.log_mixture

    def at(self, strength: float) -> CLs:
        """Return CLs of a signal strength."""
        model, kind = self.model, self.convention.statistic
        observed = float(statistics(model, self.data, strength, kind)[0])
        beyond = self.convention.beyond(statistics(model, self.toys, strength, kind), observed, TIE)
        with_signal, without = np.exp(self.log_weight(strength)), np.exp(self.log_weight(0.0))
        sums = with_signal.sum(), without.sum()
        clsb, clb = float(with_signal @ beyond / sums[0]), float(without @ beyond / sums[1])
        n = len(beyond)
        label = f"exact CLs, {n} weighted toys, {self.convention}"
        effective = min(sums[0] ** 2 / (with_signal**2).sum(), sums[1] ** 2 / (without**2).sum())
        cls = float(cls_of_tails(clsb, clb))
        if clb <= 0 or clsb <= 0:
            return CLs(cls, max(cls, 1.0 / n), clsb, clb, observed, n, float(effective), label)
        # influence of each toy on the ratio of two self-normalised averages
        pull = with_signal / sums[0] * (beyond / clsb - 1.0) - without / sums[1] * (beyond / clb - 1.0)
        error = cls * float(np.sqrt((pull**2).sum()))
        return CLs(cls, error, clsb, clb, observed, n, float(effective), label)


def draw_weighted_toys(
    model: ToyModel,
    convention: Convention,
    data: Toys,
    strengths: Sequence[float],
    n: int,
    rng: np.random.Generator,
) -> WeightedToys:
    """Draw n toys without signal and n in all at the strengths."""
    randomise, average = convention.auxiliary == "randomised", convention.auxiliary == "averaged"
    sizes = {0.0: n, **{mu: max(n // len(strengths), 1) for mu in strengths}}
    thetas = {
        mu: data.aux[0] + rng.standard_normal((k, len(model.nuisances)))
        if average
        else model.fitted(data, mu)
        for mu, k in sizes.items()
    }
    drawn = [draw(model, thetas[mu], mu, k, rng, randomise=randomise) for mu, k in sizes.items()]
    shifts = np.cumsum([0, *(len(part.ratio) for part in drawn)])
    offsets = np.concatenate([[0], *(p.offsets[1:] + s for p, s in zip(drawn, shifts[:-1], strict=True))])
    aux = np.concatenate([part.aux for part in drawn]) if randomise else model.aux[None, :]
    toys = Toys(np.concatenate([part.ratio for part in drawn]), offsets.astype(np.int64), aux)
    share = np.log(list(sizes.values())) - np.log(sum(sizes.values()))
    each = np.concatenate(list(thetas.values())) if average else None
    densities = [
        _log_density(model, toys, thetas[mu] if each is None else each, mu, convention) for mu in sizes
    ]
    mixture = np.asarray(logsumexp(np.stack(densities) + share[:, None], axis=0), dtype=np.float64)
    return WeightedToys(model, convention, data, toys, mixture, each)


def _log_density(
    model: ToyModel, toys: Toys, theta: FloatArray, strength: float, convention: Convention
) -> FloatArray:
    rates = model.rates(np.atleast_2d(theta), strength)
    density = np.asarray(profile.log_density(rates, toys.ratio, toys.offsets))
    if convention.auxiliary == "randomised":
        density = density - 0.5 * ((toys.aux - theta) ** 2).sum(axis=1)
    return density


FARTHEST = 1e6  # factor on the first strength, either way, up to which a limit is sought
STEP, FINE = 2.0, 4  # factor between strengths of a limit by toys; further ones next to the crossings


def falling_root(function: Callable[[float], float], start: float, *, step: float = 0.5) -> float:
    """Return where a falling function of ln μ is zero; ±inf where it is not within a factor of 1e6."""
    known = functools.cache(function)
    side = 1.0 if known(start) > 0 else -1.0
    here, before, reach = start, start, float(np.log(FARTHEST))
    if np.isnan(known(start)):
        return float("nan")
    while (known(here) > 0) == (side > 0):
        if abs(here - start) > reach:
            return side * float("inf")
        here, before, step = here + side * step, here, 1.5 * step
    return float(brentq(known, here, before, xtol=1e-6))


def toy_limits(
    levels: Callable[[float], npt.ArrayLike],
    alpha: float,
    smallest: float,
    *,
    start: float = 1.0,
    farthest: float = FARTHEST,
) -> tuple[FloatArray, FloatArray]:
    """Return the strengths at which each of several CLs falls to α, and d logit CLs/d ln μ there.

    CLs of one seed are tabulated over strengths in steps of two until all lie on both sides of α, then four
    times more finely next to the crossings; their logits, cut at `smallest`, are interpolated (PCHIP).
    A limit is inf beyond `farthest` times the start, and 0 below 1/`farthest`.
    """
    table: dict[float, FloatArray] = {}

    def at(strength: float) -> FloatArray:
        if strength not in table:
            table[strength] = np.asarray(levels(strength), dtype=np.float64)
        return table[strength]

    high = low = start
    while np.nanmax(at(high)) > alpha and high < farthest * start:
        high *= STEP
    while np.nanmin(at(low)) <= alpha and low > start / farthest:
        low /= STEP
    for first in sorted(table)[:-1]:
        if ((at(first) > alpha) & (at(first * STEP) <= alpha)).any():
            for k in range(1, FINE):
                at(first * STEP ** (k / FINE))
    strengths = np.array(sorted(table))
    rows = np.clip([table[mu] for mu in strengths], smallest, 1.0 - 1e-9)
    found = [_first_crossing(np.log(strengths), row) for row in (logit(rows) - logit(alpha)).T]
    limits, slopes = np.array(found).T
    return limits, slopes


def _first_crossing(x: FloatArray, curve: FloatArray) -> tuple[float, float]:
    """Return e to the point where a falling curve is zero for the first time, and its slope there."""
    if np.isnan(curve).any():
        return float("nan"), 0.0
    below = np.flatnonzero((curve[:-1] > 0) & (curve[1:] <= 0))
    if not below.size:
        return (float("inf") if curve[-1] > 0 else 0.0), 0.0
    i, smooth = int(below[0]), PchipInterpolator(x, curve)
    roots = smooth.solve(0.0, extrapolate=False)
    root = roots[(roots >= x[i] - 1e-12) & (roots <= x[i + 1] + 1e-12)][0]
    return float(np.exp(root)), float(smooth(root, 1))
