"""Exact CLs limits of a counting search with log-normal nuisances: no asymptotic formula, no toys.

One bin, count n ~ Poisson(λ) with λ = s e^{σ_s θ_s} + b e^{σ_b θ_b} and unit-normal θ. Outcomes are ordered
by n, so CLs = P(≤ n | s + b)/P(≤ n | b), and only the treatment of θ differs:

- ``"none"``: θ = 0;
- ``"exact"``: θ at its fitted value (plug-in), separately for s + b and for b, auxiliary measurements fixed;
- ``"marginalised"``: both probabilities averaged over θ (hybrid Bayesian-frequentist), at any count.

Counts are whole, so that a limit at 90 % excludes a true signal less often than in 10 % of all experiments;
``"mid-p"`` averages as well and takes half of P(n) in both, which comes nearer to 10 %, from both sides.

For the plug-in limit there is a closed form, derived here. With u = 1 − n/λ the conditions of the fit are
θ_s = −σ_s ŝ u and θ_b = −σ_b b̂ u, which the Lambert function solves for given u. At the limit λ̂ is known,
because P(≤ n | λ̂) = (1 − CL) P(≤ n | b̂_b); hence u, b̂, ŝ = λ̂ − b̂ and s = ŝ exp(σ_s² ŝ u). At n = 0 this
is s = ln 10 exp(σ_s² ln 10) at 90 % CL, whatever the background.

Every yield is x = x₀ e^{σθ} with a unit-normal θ and a fixed auxiliary measurement at zero. Fitting one yield
to a count c minimises x − c ln x + θ²/2, which the Wright omega function solves: x = ω(ln(σ² x₀) + σ² c)/σ².
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
from scipy.interpolate import CubicSpline, PchipInterpolator
from scipy.optimize import elementwise
from scipy.special import gammaincc, gammainccinv, lambertw, ndtr, ndtri, pdtr, pdtrik, wrightomega

from gammastar.core.errors import PhysicsError, require
from gammastar.core.records import FloatArray, Limit
from gammastar.infer.channel_limits import asymptotic_limit, fft_cls
from gammastar.infer.channels import counting_channel
from gammastar.physics.averaged_counts import FIXED, at_most, exactly

CountingMethod: TypeAlias = Literal["marginalised", "mid-p", "exact", "none"]

ENUMERATED = 1e4  # events up to which the counts of many searches are enumerated
DENSE, MORE = 20, 10  # first different counts, all solved; of more as many, and 10 per unit of ln n
SPACING = 16.0  # counts in one standard deviation of theirs that stand for all, where they are more
AVERAGING = ("marginalised", "mid-p")
QUANTILES = ndtr([-2.0, -1.0, 0.0, 1.0, 2.0])


def counting_limit(
    count: npt.ArrayLike,
    background: float,
    *,
    signal_sigma: float = 0.0,
    background_sigma: float = 0.0,
    cl: float = 0.90,
    method: CountingMethod = "marginalised",
) -> FloatArray:
    """Return the upper limit on the nominal signal yield for each observed count.

    Parameters
    ----------
    count : array_like of int, shape (n,) or ()
        Observed counts.
    background : float
        Median expected background (0 is allowed).
    signal_sigma, background_sigma : float
        Standard deviations of the logarithm, ln κ (κ = 1.2 is 0.1823).
    cl : float
        Confidence level from 0.5; signals with CLs < 1 − cl are excluded.
    method : {"marginalised", "mid-p", "exact", "none"}
        "mid-p": averaged, P(< n) + ½ P(n) instead of P(≤ n), with signal and without.

    Returns
    -------
    NDArray, shape of `count`
        Limits [events].

    Raises
    ------
    PhysicsError
        If a value is negative, not finite or not a count, or `cl` is outside [0.5, 1).

    Notes
    -----
    "exact" follows the treatment of protons on target in NA62, arXiv:2312.12055 (Appendix B):
    nuisances profiled, auxiliary measurements fixed. CLs: A. L. Read, J. Phys. G28 (2002) 2693.
    Where σ_b·b exceeds √b the fitted background absorbs the signal and this reading turns conservative (1.5
    times the average at b = 100, σ_b = 0.3). "marginalised": R. Cousins and V. Highland, Nucl. Instrum. Meth.
    A 320 (1992) 331; good to 1e-5.

    Examples
    --------
    >>> round(float(counting_limit(0, 0.01)), 4)
    2.3026
    >>> round(float(counting_limit(0, 0.01, signal_sigma=np.log(1.2))), 4)
    2.3527
    >>> round(float(counting_limit(0, 0.01, signal_sigma=np.log(1.2), method="exact")), 4)
    2.4857
    """
    counts = _checked(count, background, (signal_sigma, background_sigma), cl, method)
    if method == "none":
        signal_sigma = background_sigma = 0.0
    if method == "mid-p" or (method == "marginalised" and max(signal_sigma, background_sigma) >= FIXED):
        return averaged_limit(
            counts, background, (signal_sigma, background_sigma), cl, half=method == "mid-p"
        )
    fitted = fit_background(counts, background, background_sigma)
    level = (1.0 - cl) * gammaincc(counts + 1.0, fitted)
    total = gammainccinv(counts + 1.0, level)
    slope = 1.0 - counts / total
    signal = total - pulled_yield(background, background_sigma, slope)
    return np.asarray(signal * np.exp(signal_sigma**2 * signal * slope), dtype=np.float64)


def counting_cls(
    signal: npt.ArrayLike,
    count: npt.ArrayLike,
    background: float,
    *,
    signal_sigma: float = 0.0,
    background_sigma: float = 0.0,
    method: CountingMethod = "marginalised",
) -> FloatArray:
    """Return CLs of nominal signal yields."""
    counts = _checked(count, background, (signal_sigma, background_sigma), 0.9, method)
    signal, counts = np.broadcast_arrays(np.asarray(signal, dtype=np.float64), counts)
    if not np.all(np.isfinite(signal) & (signal >= 0)):
        raise PhysicsError("counting_cls: every signal yield must be finite and not negative")
    if method == "none":
        signal_sigma = background_sigma = 0.0
    if method in AVERAGING:
        half = method == "mid-p"
        above = tail(signal, counts, background, (signal_sigma, background_sigma), half=half)
        return above / tail(np.zeros_like(signal), counts, background, (0.0, background_sigma), half=half)
    sizes = {"signal_sigma": {"signal": signal_sigma}, "background_sigma": {"background": background_sigma}}

    def fitted(s: float, n: float) -> float:
        channel = counting_channel("counting", signal=s, background=background, observed=int(n), **sizes)
        return fft_cls([channel]).cls if s > 0 else 1.0

    return np.asarray(np.vectorize(fitted, otypes=[np.float64])(signal, counts))


def tail(
    signal: FloatArray, count: FloatArray, background: float, sigmas: tuple[float, float], *, half: bool
) -> FloatArray:
    """Return P(≤ n), or P(< n) + ½ P(n), averaged over the nuisances."""
    found = at_most(signal, count, background, sigmas)
    return 0.5 * (found + at_most(signal, count - 1.0, background, sigmas)) if half else found


def count_probabilities(
    background: float, background_sigma: float = 0.0, *, method: CountingMethod = "marginalised"
) -> tuple[FloatArray, FloatArray]:
    """Return the background-only counts that matter and their probabilities.

    Where 1/16 of the standard deviation of the counts is more than one, counts that far apart stand for all.
    """
    sigma = background_sigma if method in AVERAGING else 0.0
    low, high = (poisson_quantile(1e-8, background * np.exp(-6 * sigma)), 1 - 1e-8)
    highest = poisson_quantile(high, background * np.exp(min(6 * sigma, 12.0))) if background > 0 else 0.0
    if highest == 0.0:
        return np.zeros(1), np.ones(1)
    listed = [max(low, 0.0)]
    while listed[-1] < highest:
        n = listed[-1]
        listed.append(n + max(1.0, np.floor(np.sqrt(n + (sigma * n) ** 2) / SPACING)))
    counts = np.array(listed)
    probability = exactly(counts, background, sigma) * np.gradient(counts)
    keep = probability > 1e-9 * probability.max()
    return counts[keep], probability[keep] / probability[keep].sum()


LARGEST_MEAN = 1e10  # expected events; scipy has no quantiles beyond twice that


def poisson_quantile(probability: float, mean: float) -> float:
    """Return the smallest count that a Poisson number exceeds with no more than 1 − probability.

    As scipy.stats has it, whose import takes longer than many a limit.
    """
    if pdtr(0.0, mean) >= probability:
        return 0.0  # pdtrik is not finite for the smallest means
    if mean > LARGEST_MEAN:  # nor for the largest: Cornish and Fisher to second order
        z = float(ndtri(probability))
        return float(np.ceil(mean + z * np.sqrt(mean) + (z * z - 1.0) / 6.0))
    count = float(np.ceil(pdtrik(probability, mean)))
    below = max(count - 1.0, 0.0)
    return below if pdtr(below, mean) >= probability else count


def expected_limits(
    background: float,
    *,
    signal_sigma: float = 0.0,
    background_sigma: float = 0.0,
    cl: float = 0.90,
    method: CountingMethod = "marginalised",
    randomise_pot: bool = False,
) -> FloatArray:
    """Return the limits expected without signal at −2, −1, 0, +1, +2 standard deviations.

    Parameters
    ----------
    background, signal_sigma, background_sigma, cl, method
        As in `counting_limit`.
    randomise_pot : bool
        Let the auxiliary measurement of the signal normalisation vary too: a measurement that is high by g
        standard deviations lowers the limit on the nominal yield by e^{−σ_s g}. Without it, a search with
        almost no background has bands of zero width.

    Returns
    -------
    NDArray, shape (5,)
        Quantiles over all background-only outcomes, enumerated.
    """
    how: dict[str, Any] = {"signal_sigma": signal_sigma, "background_sigma": background_sigma, "cl": cl}
    how["method"] = method
    if randomise_pot and method != "none" and signal_sigma > 0:  # limits of every outcome enter each quantile
        counts, probability = count_probabilities(background, background_sigma, method=method)
        return _spread_quantiles(counting_limit(counts, background, **how), probability, signal_sigma)
    counts = expected_counts(background, background_sigma if method in AVERAGING else 0.0)
    return counting_limit(counts, background, **how)


def expected_counts(background: float, sigma: float) -> FloatArray:
    """Return the counts at −2 … +2 standard deviations, the background averaged over its ln κ, shape (5,)."""
    return np.array([_count_at(quantile, background, sigma) for quantile in QUANTILES.tolist()])


def _count_at(probability: float, background: float, sigma: float) -> float:
    """Return the smallest count with P(≤ n) of at least a probability, the background averaged."""
    if sigma < FIXED or background == 0:
        return poisson_quantile(probability, background) if background > 0 else 0.0
    low, high = -1.0, max(poisson_quantile(0.999, background * np.exp(4.0 * sigma)), 1.0)
    none = np.zeros(1)
    while high - low > 1.0:
        middle = np.floor(0.5 * (low + high))
        enough = at_most(none, np.array([middle]), background, (0.0, sigma))[0] >= probability
        low, high = (low, middle) if enough else (middle, high)
    return float(high)


def expected_limits_of(
    background: npt.ArrayLike,
    *,
    signal_sigma: npt.ArrayLike = 0.0,
    background_sigma: npt.ArrayLike = 0.0,
    cl: float = 0.90,
    method: CountingMethod = "marginalised",
) -> FloatArray:
    """Return `expected_limits` of many searches.

    Beyond 10 000 events at six standard deviations counts are not enumerated; limits are then those of the
    normal approximation of CLs, σ [Φ⁻¹(1 − (1 − CL) Φ(N)) + N] with σ² = b + (σ_b b)².
    """
    b, s, t = np.broadcast_arrays(background, signal_sigma, background_sigma)
    steps = ndtri(QUANTILES)
    normal = ndtri(1.0 - (1.0 - cl) * QUANTILES) + steps
    rows = [
        expected_limits(float(x), signal_sigma=float(y), background_sigma=float(z), cl=cl, method=method)
        if x * np.exp(6.0 * z) <= ENUMERATED
        else np.hypot(np.sqrt(x), z * x) * normal
        for x, y, z in zip(b.ravel(), s.ravel(), t.ravel(), strict=True)
    ]
    return np.reshape(rows, (*b.shape, 5)).astype(np.float64)


def _checked(
    count: npt.ArrayLike, background: float, sigmas: tuple[float, float], cl: float, method: str
) -> FloatArray:
    """Return the counts as floats after the checks that all entry points share."""
    counts = np.asarray(count, dtype=np.float64)
    if not np.all(np.isfinite(counts) & (counts >= 0) & (counts == np.rint(counts))):
        raise PhysicsError(f"counting limit: observed count {count!r} must be a whole number >= 0")
    names = "background", "signal_sigma", "background_sigma"
    for name, value in zip(names, (background, *sigmas), strict=True):
        if not (np.isfinite(value) and value >= 0):
            raise PhysicsError(f"counting limit: {name} = {value!r} must be finite and not negative")
    if not 0.5 <= cl < 1.0:  # below, the fitted yield may lie above the count and the closed form ends
        raise PhysicsError(f"counting limit: cl = {cl!r} must lie between 0.5 and 1 (0.90 for 90 %)")
    if method not in get_args(CountingMethod):
        raise PhysicsError(
            f"counting limit: method = {method!r} must be one of {', '.join(get_args(CountingMethod))}"
        )
    return counts


def _spread_quantiles(limits: FloatArray, probability: FloatArray, sigma: float) -> FloatArray:
    """Return the quantiles of a mixture of log-normals around the limits."""
    logs = np.log(limits)

    def above(x: FloatArray, quantile: FloatArray) -> FloatArray:
        return np.asarray(ndtr((x[..., None] - logs) / sigma) @ probability - quantile)

    ends = np.full(5, logs.min() - 8.0 * sigma), np.full(5, logs.max() + 8.0 * sigma)
    return np.asarray(np.exp(elementwise.find_root(above, ends, args=(QUANTILES,)).x), dtype=np.float64)


def fit_background(count: FloatArray, nominal: float, sigma: float) -> FloatArray:
    """Return the background fitted to the count alone (a convex problem with one solution)."""
    if sigma < FIXED or nominal == 0.0:
        return np.full_like(count, nominal)
    # ω(x) = W(e^x) does not overflow at large counts
    return np.asarray(wrightomega(2 * np.log(sigma) + np.log(nominal) + sigma**2 * count) / sigma**2)


def pulled_yield(nominal: float, sigma: float, slope: FloatArray) -> FloatArray:
    """Return x = nominal·exp(−σ² x u): a yield pulled by the slope u of the likelihood."""
    strength = sigma**2 * nominal * slope
    moved = strength > 1e-12
    safe = np.where(moved, strength, 1.0)
    return np.asarray(np.where(moved, nominal * lambertw(safe).real / safe, nominal), dtype=np.float64)


def averaged_limit(
    count: FloatArray, background: float, sigmas: tuple[float, float], cl: float, *, half: bool = False
) -> FloatArray:
    """Return the signals at which the marginalised CLs is 1 − cl, all counts at once.

    Many different counts are solved at some (real ones do as well: the incomplete gamma function knows no
    whole numbers) and interpolated.
    """
    counts, inverse = np.unique(count, return_inverse=True)
    first, last = np.log1p(counts[[min(DENSE, counts.size - 1), -1]]).tolist()
    further = DENSE + int(MORE * (last - first))
    if counts.size <= DENSE + further:
        return _solved(counts, background, sigmas, cl, half=half)[inverse].reshape(count.shape)
    knots = np.r_[counts[:DENSE], np.expm1(np.linspace(first, last, further))]
    curve = CubicSpline(np.log1p(knots), np.log(_solved(knots, background, sigmas, cl, half=half)))
    return np.asarray(np.exp(curve(np.log1p(count))), dtype=np.float64)


def _solved(
    count: FloatArray, background: float, sigmas: tuple[float, float], cl: float, *, half: bool
) -> FloatArray:
    """Return the averaged limits by root finding, first without the error of the signal."""
    level = (1.0 - cl) * tail(np.zeros_like(count), count, background, (0.0, sigmas[1]), half=half)

    def root(ends: tuple[FloatArray, FloatArray], error: float) -> FloatArray:
        def above(log_signal: FloatArray, n: FloatArray, target: FloatArray) -> FloatArray:
            return tail(np.exp(log_signal), n, background, (error, sigmas[1]), half=half) / target - 1.0

        found = elementwise.bracket_root(above, *ends, args=(count, level))
        found = elementwise.find_root(above, found.bracket, args=(count, level), tolerances={"xatol": 1e-8})
        if not found.success.all():
            bad = count[~found.success][0]
            raise PhysicsError(f"counting limit: no signal is found at n = {bad:g}, b = {background:g}")
        return np.asarray(found.x, dtype=np.float64)

    high = np.log(gammainccinv(count + 1.0, 0.9 * (1.0 - cl)))
    alone = root((high - 3.0, high), 0.0)
    near = alone - 0.1 * sigmas[0], alone + sigmas[0]
    return np.exp(alone if sigmas[0] < FIXED else root(near, sigmas[0]))


Method: TypeAlias = Literal["marginalised", "mid-p", "exact", "none", "asymptotic"]

ASYMPTOTIC_FROM = 20.0
"""Events below which the asymptotic formulae give limits that are too strong (40 % at b = 0.01)."""


def upper_limit(
    background: float,
    background_sigma: float,
    observed: int | Literal["masked", "asimov"],
    *,
    signal_sigma: float = 0.0,
    cl: float = 0.90,
    method: Method = "marginalised",
    randomise_pot: bool = True,
) -> Limit:
    """Return the CLs upper limit on the number of signal events of a counting search.

    Parameters
    ----------
    background : float
        Expected background events; 0 means that none is assumed.
    background_sigma, signal_sigma : float
        Standard deviations of the logarithm (ln κ); for two POT nuisances add them in quadrature.
    observed : int or "masked" or "asimov"
        Without an observation `Limit.observed` is nan and the median of the bands is the result.
    cl : float
        Confidence level.
    method : {"marginalised", "mid-p", "exact", "none", "asymptotic"}
        All counts enumerated: "marginalised" and "mid-p", averaged over the nuisances; "exact", nuisances
        at their fitted values; "none", without them. "asymptotic": profile likelihood, for large counts.
    randomise_pot : bool
        Let the measurement of the protons on target vary in the expected bands of the exact methods, which
        otherwise have no width without background.

    Returns
    -------
    Limit

    Raises
    ------
    PhysicsError
        For values outside their domain.

    Notes
    -----
    A. L. Read, J. Phys. G 28 (2002) 2693 (CLs); G. Cowan et al., Eur. Phys. J. C 71 (2011) 1554 (asymptotic).

    Examples
    --------
    >>> limit = upper_limit(0.0094, 1.386, 0, signal_sigma=0.1823)
    >>> round(limit.observed, 3), limit.method.split(",")[1]
    (2.353, ' nuisances averaged (signal κ 1.2')
    """
    require(
        method in get_args(Method),
        f"upper_limit: method = {method!r} must be one of {', '.join(get_args(Method))}",
    )
    require(
        not isinstance(observed, str) or observed in {"masked", "asimov"},
        f"upper_limit: observed = {observed!r} must be a count, 'masked' or 'asimov'",
    )
    count, sigmas = None if isinstance(observed, str) else observed, (signal_sigma, background_sigma)
    _checked(count or 0, background, sigmas, cl, "none")
    if method == "asymptotic":
        return _asymptotic(background, sigmas, count, cl)
    how: dict[str, Any] = {"signal_sigma": signal_sigma, "background_sigma": background_sigma, "cl": cl}
    how["method"] = method
    seen = np.nan if count is None else float(counting_limit(count, background, **how))
    bands = expected_limits(background, randomise_pot=randomise_pot, **how)
    label = _label(method, sigmas, varied=randomise_pot)
    return Limit(seen, bands, cl, label + (", b = 0 assumed" if background == 0 else ""), 0.0)


def label_at(method: str, signal_sigma: float) -> str:
    """Return the label of a limit with the uncertainty of the signal at another point (ln κ)."""
    return re.sub(r"signal κ [^,)]+", f"signal κ {np.exp(signal_sigma):.4g}", method)


def _label(method: str, sigmas: tuple[float, float], *, varied: bool) -> str:
    treatment = {
        "exact": "nuisances profiled with fixed auxiliaries",
        "marginalised": "nuisances averaged",
        "mid-p": "nuisances averaged, mid-P",
        "none": "no nuisances",
    }[method]
    text = f"exact CLs by enumeration, {treatment}"
    if method != "none":
        text += f" (signal κ {np.exp(sigmas[0]):.4g}, background κ {np.exp(sigmas[1]):.4g})"
        if varied and sigmas[0] > 0:
            text += ", that of the signal varied in the bands"
    return text


def _asymptotic(background: float, sigmas: tuple[float, float], count: int | None, cl: float) -> Limit:
    """Return the limit from the asymptotic formulae for q̃μ, with a warning in its label at few events."""
    channel = counting_channel(
        "counting",
        signal=1.0,
        background=background,
        observed="masked" if count is None else count,
        signal_sigma={"signal": sigmas[0]},
        background_sigma={"background": sigmas[1]},
    )
    limit = asymptotic_limit([channel], cl=cl)
    events = background if count is None else min(background, float(count))
    if events < ASYMPTOTIC_FROM:
        label = f"{limit.method}, too strong at fewer than {ASYMPTOTIC_FROM:g} events: use the averaged one"
        return replace(limit, method=label)
    return limit


KNOTS = 9


def limits_at(
    sigma: npt.ArrayLike,
    background: float,
    background_sigma: float,
    observed: int | Literal["masked", "asimov"],
    *,
    cl: float = 0.90,
    **options: Any,
) -> tuple[FloatArray, FloatArray, Limit]:
    """Return observed and expected limits for each uncertainty of the signal.

    Computed at nine uncertainties and interpolated in σ², in which ln of the limit is nearly linear.
    """
    spreads = np.asarray(sigma, dtype=np.float64)

    @functools.cache  # an uncertainty that is the same everywhere is solved once
    def solve(value: float) -> Limit:
        return upper_limit(background, background_sigma, observed, signal_sigma=value, cl=cl, **options)

    typical = solve(float(np.median(spreads)))
    hidden = not np.isfinite(typical.observed)

    def numbers(value: float) -> FloatArray:
        limit = solve(value)
        return np.array([limit.expected[2] if hidden else limit.observed, *limit.expected])

    values = tabulated(numbers, spreads)
    seen = np.full(spreads.shape, np.nan) if hidden else values[..., 0]
    return seen, values[..., 1:], typical


def tabulated(function: Callable[[float], npt.ArrayLike], sigma: npt.ArrayLike) -> FloatArray:
    """Return a positive function of σ at many values, from nine of them, interpolated in σ²."""
    spreads = np.asarray(sigma, dtype=np.float64)
    low, high = float(spreads.min()), float(spreads.max())
    if high - low < 1e-12:
        value = np.asarray(function(low), dtype=np.float64)
        return np.broadcast_to(value, (*spreads.shape, *value.shape)).copy()
    knots = np.sqrt(np.linspace(low**2, high**2, KNOTS))
    table = np.log([np.asarray(function(float(value)), dtype=np.float64) for value in knots])
    curve = PchipInterpolator(knots**2, table, axis=0)
    return np.asarray(np.exp(curve(np.clip(spreads, low, high) ** 2)), dtype=np.float64)
