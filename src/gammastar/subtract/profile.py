"""Few counts: the profile likelihood of three Poisson numbers instead of linear errors."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from gammastar.core.axes import filled, flow_free
from gammastar.core.errors import UserError
from gammastar.core.records import FloatArray, PairHists, Spectrum

LOW_COUNTS = 10.0  # pairs of a cell below which linear errors are not to be used
GRID = 40  # starting points of the inner minimisation, in ln q
GOLDEN = 32  # steps of the golden section: each shrinks the bracket by 0.618
BISECTIONS = 36


@dataclass(frozen=True, slots=True, eq=False)
class ProfileInterval:
    """Signal of cells with few pairs."""

    # Most likely signal; negative where the background estimate exceeds the opposite-sign pairs, shape (n,)
    value: FloatArray
    # Where −2 ln λ rises by the square of the number of standard deviations, shape (n,)
    low: FloatArray
    high: FloatArray


def _nll(
    s: FloatArray, p: FloatArray, n: tuple[FloatArray, FloatArray, FloatArray], r: FloatArray
) -> FloatArray:
    """Return −ln L with the background p = 2R√(b₊b₋) given and the asymmetry b₊/b₋ at its best.

    With q = p/2R the best asymmetry is closed: b± = (√(Δ² + 4q²) ± Δ)/2, Δ = N₊₊ − N₋₋.
    """
    os, pp, mm = n
    q = p / (2 * r)
    delta = pp - mm
    root = np.sqrt(delta**2 + 4 * q**2)
    plus, minus = (root + delta) / 2, (root - delta) / 2
    # the smaller of the two without cancellation
    plus = np.where(delta < 0, q**2 / np.maximum(minus, 1e-300), plus)
    minus = np.where(delta > 0, q**2 / np.maximum(plus, 1e-300), minus)
    total = np.maximum(s + p, 1e-300)
    return np.asarray(
        root
        - pp * np.log(np.maximum(plus, 1e-300))
        - mm * np.log(np.maximum(minus, 1e-300))
        + total
        - os * np.log(total)
    )


def _profiled(s: FloatArray, n: tuple[FloatArray, FloatArray, FloatArray], r: FloatArray) -> FloatArray:
    """Return −ln L at signal `s`, minimised over both backgrounds."""
    os, pp, mm = n
    least = np.maximum(-s, 0.0)  # the opposite-sign expectation must stay positive
    top = np.log(2 * r * (pp + mm + 1) + 2 * os + 2 * np.abs(s) + 10)
    bottom = np.full_like(top, np.log(1e-7))
    x = bottom + (top - bottom) * np.linspace(0, 1, GRID)[:, None]
    best = np.argmin(_nll(s, least + np.exp(x), n, r), axis=0)
    columns = np.arange(len(s))
    low, high = x[np.maximum(best - 1, 0), columns], x[np.minimum(best + 1, GRID - 1), columns]
    ratio = (np.sqrt(5) - 1) / 2
    for _ in range(GOLDEN):
        both = np.stack([high - ratio * (high - low), low + ratio * (high - low)])
        one, two = _nll(s, least + np.exp(both), n, r)
        low, high = np.where(one < two, low, both[0]), np.where(one < two, both[1], high)
    return _nll(s, least + np.exp((low + high) / 2), n, r)


def profile_interval(
    os: FloatArray,
    pp: FloatArray,
    mm: FloatArray,
    *,
    r_factor: float | FloatArray = 1.0,
    n_sigma: float = 1.0,
) -> ProfileInterval:
    """Return signal and interval from opposite-sign, ++ and -- counts of each cell.

    Parameters
    ----------
    os, pp, mm : NDArray, shape (n,)
        Counts (unweighted).
    r_factor : float or NDArray, shape (n,)
        R, taken as exact.

    Raises
    ------
    UserError
        If counts are negative or R is not positive.

    Notes
    -----
    N₊₊ ~ P(b₊), N₋₋ ~ P(b₋), N₊₋ ~ P(s + 2R√(b₊b₋)), profiled over b₊ and b₋. To be used below about ten
    counts per cell; above, the linear errors of `same_sign` agree.

    Examples
    --------
    >>> found = profile_interval(np.array([400.0]), np.array([64.0]), np.array([36.0]))
    >>> round(float(found.value[0])), round(float(found.high[0] - found.low[0]) / 2, 1)
    (304, 22.4)
    """
    counts = tuple(np.atleast_1d(np.asarray(a, dtype=np.float64)) for a in (os, pp, mm))
    r = np.broadcast_to(np.asarray(r_factor, dtype=np.float64), counts[0].shape)
    if any((a < 0).any() for a in counts) or (r <= 0).any() or n_sigma <= 0:
        msg = "profile_interval: counts must not be negative, R and n_sigma must be positive"
        raise UserError(msg)
    different, cell = np.unique(np.stack([*counts, r]), axis=1, return_inverse=True)  # few counts repeat
    os, pp, mm, r = different
    value = os - 2 * r * np.sqrt(pp * mm)
    step = 2 * n_sigma * np.sqrt(os + r**2 * (pp + mm) + 4)
    low, high = _edges(value, step, (os, pp, mm), r, n_sigma**2 / 2)
    cell = cell.ravel()
    return ProfileInterval(value[cell], low[cell], high[cell])


def _edges(
    value: FloatArray,
    step: FloatArray,
    counts: tuple[FloatArray, FloatArray, FloatArray],
    r: FloatArray,
    goal: float,
) -> FloatArray:
    """Return where −ln L is higher by `goal`, below and above, shape (2, n); the first steps lead beyond."""
    smallest = np.tile(_profiled(value, counts, r), 2)
    n = (np.tile(counts[0], 2), np.tile(counts[1], 2), np.tile(counts[2], 2))
    value, r, outside = np.tile(value, 2), np.tile(r, 2), np.concatenate([value - step, value + step])
    inside = value
    for _ in range(6):
        short = _profiled(outside, n, r) - smallest < goal
        outside = np.where(short, value + 2 * (outside - value), outside)
    for _ in range(BISECTIONS):
        middle = (inside + outside) / 2
        within = _profiled(middle, n, r) - smallest < goal
        inside, outside = np.where(within, middle, inside), np.where(within, outside, middle)
    return np.asarray((inside + outside) / 2).reshape(2, -1)


def with_profile(
    spectrum: Spectrum,
    hists: PairHists,
    *,
    r_factor: float | FloatArray = 1.0,
    by_r: FloatArray | None = None,
    threshold: float = LOW_COUNTS,
) -> tuple[Spectrum, ProfileInterval]:
    """Give cells with few pairs the variance of the three-Poisson profile.

    Parameters
    ----------
    spectrum : Spectrum
        Of `same_sign`; its values, linear in the counts and therefore without bias in sums, stay.
    r_factor : float or NDArray, shape of the cells
    by_r : NDArray, shape (n_cells,), optional
        Shift of the spectrum by one standard deviation of R, part of the covariance; it stays.
    threshold : float
        Cells with fewer opposite-sign pairs, or fewer like-sign ones, are treated.

    Returns
    -------
    Spectrum
        Variances of these cells are those of half the interval of ±1σ; correlations stay.
    ProfileInterval
        Of all cells, in C order.

    Raises
    ------
    UserError
        If a weighted cell has a negative content.

    Notes
    -----
    Linear errors of a cell without pairs are zero, as if it were known to be empty. Weighted cells hold
    (Σw)²/Σw² effective counts of the weight Σw²/Σw of all their pairs.
    """
    contents = [flow_free(hist) for hist in (hists.os, hists.pp, hists.mm)]
    total, square = (sum(part[k] for part in contents) for k in (0, 1))
    overall = float(np.sum(square) / np.sum(total)) if np.sum(total) > 0 else 1.0
    scale = np.divide(
        square, total, out=np.full_like(np.asarray(total), overall), where=np.asarray(total) > 0
    )
    os, pp, mm = (value / scale for value, _ in contents)
    r = np.broadcast_to(np.asarray(r_factor, dtype=np.float64), spectrum.values.shape).ravel()
    found = profile_interval(os, pp, mm, r_factor=r)
    low = (os < threshold) | (pp + mm < threshold)
    shift = np.zeros(len(os)) if by_r is None else by_r
    statistics = spectrum.cov - np.outer(shift, shift)
    variance = np.clip(np.diag(statistics), 0.0, None)
    wanted = np.where(low, (0.5 * scale * (found.high - found.low)) ** 2, variance)
    factor = np.sqrt(np.divide(wanted, variance, out=np.ones_like(wanted), where=variance > 0))
    cov = statistics * np.outer(factor, factor) + np.outer(shift, shift)
    cov += np.diag(np.where(variance > 0, 0.0, wanted))
    hist = filled(tuple(spectrum.hist.axes), spectrum.values, np.diag(cov))
    interval = ProfileInterval(scale * found.value, scale * found.low, scale * found.high)
    return replace(spectrum, hist=hist, cov=cov), interval
