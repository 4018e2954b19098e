"""CLs and limits of unbinned, binned and counting channels: by weighted toys, by FFT, asymptotic.

`exact_cls` and `exact_limit` draw weighted toys; without events there is a closed form, `zero_event_cls`.

`fft_cls` fixes the nuisances. Then q = 2 Σ s − 2 V with V = Σ_i v(x_i), v = ln(1 + s f_s/(b f_b)): a sum of a
Poisson number of equal, independent terms. Its characteristic function is
exp Σ_c [s_c (H_s − 1) + b_c (H_b − 1)], with H the transform of v under each density (H. Hu and J. Nielsen,
physics/9906010). There are no toys, so that probabilities of 1e-12 come out as well. No event and one event
are summed without the grid.

`asymptotic_limit`: G. Cowan, K. Cranmer, E. Gross, O. Vitells, Eur. Phys. J. C 71 (2011)
1554, Eqs. 62 and 64 to 66, with q̃μ of the data and q_A of the Asimov data of the background, fitted without
signal, as in pyhf.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import gammaincc, logit, ndtr, ndtri

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray, Limit
from gammastar.infer import profile
from gammastar.infer.channels import Channel
from gammastar.infer.toys import (
    KINDS,
    TIE,
    CLs,
    Convention,
    ToyModel,
    Toys,
    WeightedToys,
    draw_weighted_toys,
    falling_root,
    toy_model,
)

START, MOST = 2_000, 200_000  # toys per hypothesis of the first round and at most


@dataclass(frozen=True, slots=True)
class StrengthLimit:
    """Upper limit on the signal strength: couplings where it is below one are excluded."""

    # Limit in units of the channels' nominal signal, and its Monte Carlo error
    strength: float
    error: float
    events: float  # The limit as the nominal signal summed over the channels
    cl: float
    toys: int
    method: str


def exact_cls(
    channels: Sequence[Channel],
    *,
    rng: np.random.Generator,
    convention: Convention | None = None,
    strength: float = 1.0,
    n_toys: int = 10_000,
    auxiliary: Mapping[str, float] | None = None,
) -> CLs:
    """Return CLs of a signal in one or several channels.

    Parameters
    ----------
    channels : sequence of Channel
        From `unbinned_channel`, `binned_channel` or `counting_channel`; equal names of nuisances are shared.
    convention : Convention, optional
        By default the ratio of profiled likelihoods with fixed auxiliary measurements, as NA62.
    strength : float
        Factor on the signal of all channels.
    n_toys : int
        Toys of each of the two hypotheses.
    auxiliary : mapping of str to float, optional
        Observed auxiliary measurements in standard deviations; 0 by default.

    Returns
    -------
    CLs

    Raises
    ------
    PhysicsError
        For masked channels, no signal, or names that do not fit.

    Notes
    -----
    arXiv:2312.12055, Appendix B (statistic and plug-in nuisances); A. L. Read, J. Phys. G 28 (2002) 2693.
    Without any observed event and with fixed auxiliaries the result is a closed form without toys.

    Examples
    --------
    >>> from gammastar.infer import counting_channel
    >>> ee = counting_channel("ee", signal=2.4857, background=0.0094, observed=0,
    ...     signal_sigma={"pot": np.log(1.2)}, background_sigma={"b_ee": np.log(4.0)})
    >>> round(exact_cls([ee], rng=np.random.default_rng(1)).cls, 4)
    0.1
    """
    convention = Convention() if convention is None else convention
    model, data = _ready(channels, convention, auxiliary)
    _positive(strength)
    if _closed(convention, data):
        return zero_event_cls(channels, strength=strength, convention=convention, auxiliary=auxiliary)
    return draw_weighted_toys(model, convention, data, (strength,), n_toys, rng).at(strength)


def zero_event_cls(
    channels: Sequence[Channel],
    *,
    strength: float = 1.0,
    convention: Convention | None = None,
    auxiliary: Mapping[str, float] | None = None,
) -> CLs:
    """Return CLs where no event is observed and auxiliary measurements are fixed: P(n = 0) is all there is.

    CLs = e^{−s−b} at the nuisances fitted with signal, over e^{−b} at those fitted without. If signal and
    background share no nuisance this is e^{−s}, whatever the background.
    """
    convention = Convention() if convention is None else convention
    model, data = _ready(channels, convention, auxiliary)
    if not _closed(convention, data):
        raise PhysicsError(
            "the closed form needs no observed event, fixed auxiliaries and the statistic 'ratio' or 'qtilde'"
        )
    clsb = float(np.exp(-model.rates(model.fitted(data, strength), strength).sum()))
    clb = float(np.exp(-model.rates(model.fitted(data, 0.0), 0.0).sum()))
    label = f"exact CLs, closed form at n = 0, {convention}"
    return CLs(clsb / clb, 0.0, clsb, clb, np.nan, 0, np.inf, label)


def exact_limit(
    channels: Sequence[Channel],
    *,
    rng: np.random.Generator,
    cl: float = 0.90,
    convention: Convention | None = None,
    precision: float = 0.02,
    auxiliary: Mapping[str, float] | None = None,
) -> StrengthLimit:
    """Return the upper limit on the strength of a signal in one or several channels.

    Parameters
    ----------
    channels, rng, convention, auxiliary
        As in `exact_cls`.
    cl : float
        Signals with CLs < 1 − cl are excluded.
    precision : float
        Relative Monte Carlo error of the limit; toys are added until it is met (or 200 000 per hypothesis).

    Returns
    -------
    StrengthLimit

    Raises
    ------
    PhysicsError
        As `exact_cls`, and for `cl` outside (0, 1).

    Notes
    -----
    In one channel the limit in events serves all couplings of a mass (`reach`). Where the shares of several
    channels change with the coupling, compute the strength at each point and give its inverse to `reach` as
    the signal, with a limit of one: excluded is where the strength is below one.

    The convention holds at every size of the nuisances. [infer] and `upper_limit` average over them.
    """
    convention = Convention() if convention is None else convention
    if not 0.0 < cl < 1.0 or convention.statistic == "q0":
        raise PhysicsError(f"exact_limit: cl = {cl!r} must lie between 0 and 1, and 'q0' is for discoveries")
    model, data = _ready(channels, convention, auxiliary)
    total = float(model.yields[0].sum())
    guess = (2.3 + 1.3 * np.sqrt(len(data.ratio)) + np.sqrt(model.yields[1].sum())) / total
    if _closed(convention, data):
        how: dict[str, Any] = {"convention": convention, "auxiliary": auxiliary}
        strength = strength_at(lambda x: zero_event_cls(channels, strength=x, **how).cls, 1.0 - cl, guess)
        label = f"exact CLs, closed form at n = 0, {convention}"
        return StrengthLimit(strength, 0.0, strength * total, cl, 0, label)
    n = START
    while True:
        toys = draw_weighted_toys(model, convention, data, (0.6 * guess, 1.2 * guess), n, rng)
        strength, relative = _solved(toys, guess, cl)
        if not 0.0 < strength < np.inf:
            if n >= MOST:
                raise PhysicsError(
                    f"exact_limit: of {n} toys without signal none is as extreme as the data, or CLs does "
                    "not cross 1 − cl: signal or background does not describe the data"
                )
            n = MOST
            continue
        if relative <= precision or n >= MOST:
            label = toys.at(strength).method
            return StrengthLimit(
                strength, strength * relative, strength * total, cl, len(toys.log_mixture), label
            )
        guess, n = strength, int(min(MOST, max(2 * n, 1.2 * n * (relative / precision) ** 2)))


def _solved(toys: WeightedToys, guess: float, cl: float) -> tuple[float, float]:
    """Return the strength at which CLs is 1 − cl and its relative Monte Carlo error."""

    def excess(log_strength: float) -> float:
        level = np.clip(toys.at(float(np.exp(log_strength))).cls, 1e-12, 1.0 - 1e-12)
        return float(logit(level) - logit(1.0 - cl))

    told = toys.at(guess).clb > 0.0
    root, step = falling_root(excess, float(np.log(guess))) if told else np.inf, 0.05
    if not np.isfinite(root):
        return float(np.exp(root)), 0.0
    slope = (excess(root + step) - excess(root - step)) / (2.0 * step)
    error = toys.at(float(np.exp(root))).error / ((1.0 - cl) * cl)
    return float(np.exp(root)), float(error / max(abs(slope), 1e-3))


def _ready(
    channels: Sequence[Channel], convention: Convention, auxiliary: Mapping[str, float] | None
) -> tuple[ToyModel, Toys]:
    model = toy_model(channels, convention, auxiliary)
    return model, model.data()


def _positive(strength: float) -> None:
    if not (np.isfinite(strength) and strength > 0):
        raise PhysicsError(f"signal strength {strength!r} must be positive and finite")


def _closed(convention: Convention, data: Toys) -> bool:
    return convention.auxiliary == "fixed" and convention.statistic != "q0" and not len(data.ratio)


GRID_STEP, MOST_POINTS = 1e-3, 1 << 20  # of V, and points at most


def fft_cls(channels: Sequence[Channel], *, strength: float = 1.0, fitted: bool = True) -> CLs:
    """Return CLs of the ratio of likelihoods with nuisances fixed, exact up to the grid of V.

    With nuisances fixed at the fit with signal, V is defined by that fit for both hypotheses.
    """
    _positive(strength)
    model = toy_model(channels)
    data = model.data()
    nominal = np.zeros(len(model.nuisances))
    with_signal = model.rates(model.fitted(data, strength) if fitted else nominal, strength)
    without = model.rates(model.fitted(data, 0.0) if fitted else nominal, 0.0)
    parts = [
        np.log1p(s * data.ratio[data.offsets[c] : data.offsets[c + 1]] / b)
        for c, (s, b) in enumerate(with_signal.T)
    ]
    observed = np.concatenate(parts)
    clsb, clb = (_probability_below(observed, model, with_signal, rates) for rates in (with_signal, without))
    q = 2.0 * float(with_signal[0].sum()) - 2.0 * float(observed.sum())
    where = "at fitted values" if fitted else "at nominal values"
    label = f"exact CLs, compound Poisson by FFT, nuisances fixed {where}"
    return CLs(clsb / clb, 0.0, clsb, clb, q, 0, np.inf, label)


def _probability_below(
    observed: FloatArray, model: ToyModel, weights: FloatArray, rates: FloatArray
) -> float:
    """Return P(V ≤ V_obs) for events at given rates; V is defined by the rates `weights`.

    Each term is rounded to the grid, those of the observed events as well, so that ties remain ties.
    """
    values, intensity = [], []
    for c, channel in enumerate(model.channels):
        values.append(np.log1p(weights[0, c] * channel.ratio / weights[1, c]))
        intensity.append(rates[0, c] * channel.signal_pmf + rates[1, c] * channel.background_pmf)
    v, rate = np.concatenate(values), np.concatenate(intensity)
    counts = v > TIE  # other events do not move V
    v, rate = v[counts], rate[counts]
    nothing, total = float(np.exp(-rate.sum())), float(observed.sum())
    if total <= TIE or not v.size:
        return nothing
    if (v == v[0]).all():  # every event moves V by as much: a sum of Poisson probabilities
        return float(gammaincc(np.rint(total / v[0]) + 1.0, rate.sum()))
    mean, variance = float(rate @ v), float(rate @ v**2)
    reach = max(mean + 10.0 * np.sqrt(variance), total) + 4.0 * float(v.max())
    points = min(1 << int(np.ceil(np.log2(reach / GRID_STEP))), MOST_POINTS)
    step = reach / points
    density = np.bincount(np.rint(v / step).astype(np.int64), rate, points)
    probability = np.fft.irfft(np.exp(np.fft.rfft(density) - rate.sum()), points)
    probability -= nothing * density
    probability[0] -= nothing
    one = nothing * float(rate[v <= total + TIE].sum())
    return nothing + one + float(probability[: int(np.rint(observed / step).sum()) + 1].sum())


BANDS = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])


@dataclass(frozen=True, slots=True, eq=False)
class _Data:
    """Cells with multiplicities, which need not be whole (Asimov data)."""

    ratio: FloatArray
    times: FloatArray
    offsets: npt.NDArray[np.int64]
    aux: FloatArray

    def q(self, model: ToyModel, strength: float) -> float:
        arrays = model.arrays(strength)
        found = profile.statistic(
            KINDS["qtilde"], arrays, self.aux[None, :], self.ratio, self.times, self.offsets
        )
        return float(found[0])


def asymptotic_limit(
    channels: Sequence[Channel], *, cl: float = 0.90, auxiliary: Mapping[str, float] | None = None
) -> Limit:
    """Return the asymptotic upper limit on the nominal signal summed over the channels.

    Parameters
    ----------
    auxiliary : mapping of str to float, optional
        Observed auxiliary measurements in standard deviations.

    Returns
    -------
    Limit

    Raises
    ------
    PhysicsError
        For `cl` outside (0, 1).

    Notes
    -----
    Agrees with pyhf to 1e-4 at interpolation code 1 with lo = 1/hi. Below some twenty expected events these
    limits are too strong, by 40 % at b = 0.01: use `exact_limit`.

    Examples
    --------
    >>> from gammastar.infer import counting_channel
    >>> found = asymptotic_limit([counting_channel("c", signal=1.0, background=0.5, observed=1)])
    >>> round(found.observed, 3)  # the exact limit is 3.508
    2.825
    """
    if not 0.0 < cl < 1.0:
        raise PhysicsError(f"asymptotic_limit: cl = {cl!r} must lie between 0 and 1")
    model, observed, asimov = _prepared(channels, auxiliary)
    total, alpha = float(model.yields[0].sum()), 1.0 - cl
    guess = (2.0 + 1.6 * np.sqrt(asimov.times.sum())) / total
    targets = BANDS + ndtri(1.0 - alpha * ndtr(BANDS))

    def spread(strength: float) -> float:
        return float(np.sqrt(max(asimov.q(model, strength), 0.0)))

    def below(target: float, strength: float) -> float:
        return float(np.exp(target - spread(strength)))

    expected = np.empty(5)
    for i, target in enumerate(targets.tolist()):
        expected[i] = guess = strength_at(partial(below, target), 1.0, guess)
    value = np.nan
    if observed is not None:
        data = observed
        value = total * strength_at(lambda x: cls_of(data.q(model, x), spread(x)), alpha, expected[2])
    label = "asymptotic CLs (q̃μ, compiled fits)"
    return Limit(value, total * expected, cl, label, 0.0)


def strength_at(cls: Callable[[float], float], level: float, guess: float) -> float:
    """Return the strength at which a falling CLs has a level."""

    def excess(log_strength: float) -> float:
        return float(np.log(max(cls(float(np.exp(log_strength))), 1e-300)) - np.log(level))

    return float(np.exp(falling_root(excess, float(np.log(guess)))))


def cls_of(q: float, root: float) -> float:
    """Return CLs of q̃μ with √q_A."""
    if q <= root**2:
        power, shifted = np.sqrt(max(q, 0.0)), np.sqrt(max(q, 0.0)) - root
    else:
        shifted = (q - root**2) / (2.0 * max(root, 1e-12))
        power = shifted + root
    return float(max(ndtr(-power), 1e-300) / max(ndtr(-shifted), 1e-300))


def _prepared(
    channels: Sequence[Channel], auxiliary: Mapping[str, float] | None
) -> tuple[ToyModel, _Data | None, _Data]:
    """Return the model, the observed data (None while masked) and the Asimov data of the background."""
    model = toy_model(channels, None, auxiliary)
    observed, theta = None, model.aux
    events = [channel.observed for channel in model.channels if channel.observed is not None]
    if len(events) == len(model.channels):
        pairs = [np.unique(ratio, return_counts=True) for ratio in events]
        observed = _joined([(r, n.astype(np.float64)) for r, n in pairs], model.aux)
        fitted, _ = profile.fit(
            0.0, model.arrays(), model.aux[None, :], observed.ratio, observed.times, observed.offsets
        )
        theta = fitted[0]
    background = model.rates(theta, 0.0)[1]
    cells = [(c.ratio, b * c.background_pmf) for c, b in zip(model.channels, background, strict=True)]
    return model, observed, _joined(cells, theta)


def _joined(parts: Sequence[tuple[FloatArray, FloatArray]], aux: FloatArray) -> _Data:
    offsets = np.r_[0, np.cumsum([len(ratio) for ratio, _ in parts])].astype(np.int64)
    return _Data(np.concatenate([r for r, _ in parts]), np.concatenate([n for _, n in parts]), offsets, aux)
