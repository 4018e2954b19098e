"""STAR's tables of unlike- and like-sign e⁺e⁻ pairs, subtracted; what mixed events say of R."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gammastar import read, subtract
from gammastar.core import records
from gammastar.core.files import data_path
from gammastar.core.records import FloatArray, PairHists, filled
from gammastar.read.published import PublishedTable

PER_BIN = 0.005  # GeV: the 19.6 GeV table counts pairs per 5 MeV; so read, all its contents are whole numbers
MIXED_ABOVE = 1.0  # GeV: from there the background of the 200 GeV table comes from mixed events
RESIDUAL = (0.15, 1.0)  # GeV: where like-sign pairs are the background and correlated ones have died out


@dataclass(frozen=True, slots=True, eq=False)
class Subtracted:
    """A published subtraction and ours, one entry per published bin.

    Attributes
    ----------
    name : str
        What the background is.
    low, high : NDArray, shape (n,) [GeV]
        As published: bins may overlap or leave gaps.
    unlike, background : NDArray, shape (n,)
    published, published_error : NDArray, shape (n,)
        Signal and its statistical error.
    signal, error : NDArray, shape (n,)
        Ours.
    rounding : NDArray, shape (n,)
        What the digits of the three published numbers leave open in their difference.
    without_r : NDArray, shape (n,)
        Our signal with R = 1.
    """

    name: str
    low: FloatArray
    high: FloatArray
    unlike: FloatArray
    background: FloatArray
    published: FloatArray
    published_error: FloatArray
    signal: FloatArray
    error: FloatArray
    rounding: FloatArray
    without_r: FloatArray

    @property
    def residual(self) -> FloatArray:
        """Ours minus published, in units of what rounding allows."""
        return (self.signal - self.published) / self.rounding


def published(table: str) -> PublishedTable:
    """Return a shipped table."""
    return read.hepdata(data_path(f"published/{table}.csv"))


def ratio(table: str) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Return lower and upper edges [GeV], values and errors of a table with one column."""
    found = published(table)
    axis, column = found.axes[0], found.column()
    return axis.low, axis.high, column.values, column.errors[0].plus


@dataclass(frozen=True, slots=True, eq=False)
class Gold200:
    """Figure 20: unlike-sign pairs, background and signal, each with its statistical error."""

    low: FloatArray
    high: FloatArray
    raw: FloatArray
    raw_error: FloatArray
    background: FloatArray
    background_error: FloatArray
    signal: FloatArray
    signal_error: FloatArray

    @classmethod
    def read(cls) -> Gold200:
        """Read the shipped table."""
        table = published("star_2014/fg20A")
        parts = [x for column in table.columns for x in (column.values, column.errors[0].plus)]
        return cls(table.axes[0].low, table.axes[0].high, *parts)


def half_unit(values: FloatArray, digits: int) -> FloatArray:
    """Return half a unit of the last of so many significant digits."""
    size = np.where(values == 0, 1.0, np.abs(values))
    return np.where(values == 0, 0.0, 0.5 * 10.0 ** (np.floor(np.log10(size)) + 1 - digits))


def by_package(
    unlike: FloatArray,
    like: FloatArray,
    variances: tuple[FloatArray, FloatArray],
    r: FloatArray | float = 1.0,
) -> tuple[FloatArray, FloatArray]:
    """Return signal and statistical error of the package's like-sign estimate.

    The tables give like-sign pairs as one number, 2√(N₊₊N₋₋): half of it and of its variance stands for each
    charge, which changes neither the estimate nor its error. Bins of a published table need not touch: the
    axis counts them.
    """
    axis = (records.regular("bin", len(unlike), 0, len(unlike)),)
    half = filled(axis, like / 2, variances[1] / 2)
    pairs = PairHists(filled(axis, unlike, variances[0]), half, half)
    found = subtract.same_sign(pairs, method="geometric mean", r_factor=np.broadcast_to(r, unlike.shape))
    return found.values, np.sqrt(np.diag(found.cov))


def gold_19() -> Subtracted:
    """Return Au+Au at 19.6 GeV: like-sign pairs are published with R in them; errors are those of counts."""
    table = published("star_2015/table1")
    low, high = table.axes[0].low, table.axes[0].high
    size = (high - low) / PER_BIN
    unlike, like = (table.column(name).values for name in ("Unlike-sign", "Like-sign"))
    ours, own = (x / size for x in by_package(unlike * size, like * size, (unlike * size, like * size)))
    signal, error = table.column("Signal").values, table.column("Signal").errors[0].plus
    rounding = sum(half_unit(x, 6) for x in (unlike, like, signal)) + 1e-12
    return Subtracted("like-sign, with R", low, high, unlike, like, signal, error, ours, own, rounding, ours)


def acceptance(mass: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return R = unlike/like of mixed events at 200 GeV and its error, straight between bin centres."""
    low, high, value, error = ratio("star_2014/fg17")
    centre = 0.5 * (low + high)
    return np.interp(mass, centre, value), np.interp(mass, centre, error)


def events_seen() -> float:
    """Return the events behind the 200 GeV table: with contents per event it is value/(error² width).

    Median of the bins from 0.2 to 1 GeV; below, errors are some per cent larger than Poisson's.
    """
    t = Gold200.read()
    inside = (t.low >= 0.2) & (t.high <= MIXED_ABOVE)
    return float(np.median((t.raw / (t.raw_error**2 * (t.high - t.low)))[inside]))


def gold_200() -> Subtracted:
    """Return Au+Au at 200 GeV, R from the measured acceptance factor.

    The table holds the background after R. Below 1 GeV it is like-sign pairs: the pairs before R are
    background/R, with the Poisson variance of as many counts; above it is mixed events, with their published
    error.
    """
    t = Gold200.read()
    low, high, background = t.low, t.high, t.background
    mixed = low >= MIXED_ABOVE - 1e-9
    r = np.where(mixed, 1.0, acceptance(0.5 * (low + high))[0])
    like = background / r
    variance = np.where(mixed, t.background_error**2, like / (events_seen() * (high - low)))
    ours, own = by_package(t.raw, like, (t.raw_error**2, variance), r)
    plain, _ = by_package(t.raw, like, (t.raw_error**2, variance))
    rounding = sum(half_unit(x, 4) for x in (t.raw, background, t.signal))
    name = "like-sign, with R; above 1 GeV mixed"
    return Subtracted(
        name, low, high, t.raw, background, t.signal, t.signal_error, ours, own, rounding, plain
    )


def r_from_errors() -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return mass, R as the published errors of the background imply it, and its rounding, below 1 GeV.

    B = R L/N and σ² = R² L/(N² Δm): R = N σ² Δm/B, with the number of events N from the unlike-sign pairs.
    """
    t = Gold200.read()
    low, high, background, error = t.low, t.high, t.background, t.background_error
    inside = high <= MIXED_ABOVE
    r = events_seen() * error**2 * (high - low) / background
    blur = np.hypot(2 * half_unit(error, 4) / error, half_unit(background, 4) / background) / np.sqrt(3) * r
    return (0.5 * (low + high))[inside], r[inside], blur[inside]


def mixed_events() -> dict[str, float]:
    """Return fits of like-sign over mixed unlike-sign pairs: a constant, and a constant over R."""
    low, high, value, error = ratio("star_2014/fg18")
    r = acceptance(0.5 * (low + high))[0]
    above = (low >= RESIDUAL[0]) & (high <= 3.0)
    found = {}
    for name, shape in (("constant", np.ones_like(r)), ("constant/R", 1 / r)):
        weight = 1 / error[above] ** 2
        k = float((value * shape)[above] @ weight / (shape[above] ** 2 @ weight))
        found[f"chi2 of {name}"] = float((np.square(value - k * shape)[above] * weight).sum())
        found[f"{name}"] = k
    found["bins"] = int(above.sum())
    below = high <= RESIDUAL[0]
    found["largest departure below 0.15 GeV"] = float(np.abs(value[below] - 1).max())
    inside = (low >= RESIDUAL[0]) & (high <= RESIDUAL[1])
    found["mean departure, 0.15 to 1 GeV"] = float(
        np.average(value[inside] - 1, weights=1 / error[inside] ** 2)
    )
    return found


def signal_shift() -> tuple[FloatArray, FloatArray]:
    """Return mass and relative change of the signal if mixed events replaced like-sign pairs, below 1 GeV."""
    table = gold_200()
    inside = table.high <= MIXED_ABOVE
    mass = (0.5 * (table.low + table.high))[inside]
    low, high, value, _ = ratio("star_2014/fg18")
    departure = np.interp(mass, 0.5 * (low + high), value) - 1
    return mass, departure * (table.background / table.published)[inside]


def numbers() -> dict:
    """Return all that README and validation quote."""
    first, second = gold_19(), gold_200()
    counts = first.unlike * (first.high - first.low) / PER_BIN
    many = counts >= 1000
    mass, r, blur = r_from_errors()
    pull = (r - acceptance(mass)[0]) / np.hypot(blur, acceptance(mass)[1])
    away = np.abs(r / acceptance(mass)[0] - 1)
    like = second.high <= MIXED_ABOVE
    shift = np.abs(second.without_r - second.published) / second.published_error
    return {
        "19.6 GeV": {
            "bins": len(counts),
            "largest difference of the signal in units of rounding": float(np.abs(first.residual).max()),
            "error, ours over published, bins above 1000 pairs": [
                float(x)
                for x in (
                    (first.error / first.published_error)[many].min(),
                    (first.error / first.published_error)[many].max(),
                )
            ],
            "error, ours over published, all bins": [
                float(x)
                for x in (
                    (first.error / first.published_error).min(),
                    (first.error / first.published_error).max(),
                )
            ],
            "largest distance of contents per 5 MeV from whole numbers": float(
                np.abs(counts - np.round(counts))[counts < 1e5].max()
            ),
        },
        "200 GeV": {
            "bins": len(second.low),
            "largest difference of the signal in units of rounding": float(np.abs(second.residual).max()),
            "error, ours over published": [
                float(x)
                for x in (
                    (second.error / second.published_error).min(),
                    (second.error / second.published_error).max(),
                )
            ],
            "events": events_seen(),
            "R implied by errors against R measured: largest difference": float(away.max()),
            "R implied by errors against R measured: rms pull": float(np.sqrt(np.mean(pull**2))),
            "signal with R = 1: largest shift in standard deviations, like-sign region": float(
                shift[like].max()
            ),
            "at [GeV]": float((0.5 * (second.low + second.high))[like][np.argmax(shift[like])]),
        },
        "like-sign over mixed": mixed_events(),
        "signal if mixed events replaced like-sign pairs, largest relative shift 0.15 to 1 GeV": float(
            np.abs(signal_shift()[1][signal_shift()[0] > RESIDUAL[0]]).max()
        ),
    }
