"""A counting search of one detector: background, limits and every contour over masses and couplings."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray, Limit, MassInterval, Reach
from gammastar.core.signal import SignalPlane
from gammastar.core.sources import SAMPLE
from gammastar.infer.channels import counting_channel
from gammastar.infer.contours import reach, with_errors
from gammastar.infer.counting import label_at, limits_at, tabulated
from gammastar.infer.discovery import (
    Ranking,
    discovery_yield,
    observed_significance,
    projected_yields,
    ranking,
)
from gammastar.infer.histfactory.workspaces import pot_names
from gammastar.infer.joint.limits import JointLevels
from gammastar.physics.detector import Detector
from gammastar.physics.millicharge import MillichargeDetector

MEDIAN = 2
AnyDetector = Detector | MillichargeDetector


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """What a search asks for; [infer] of a steering file."""

    cl: float = 0.90
    method: Literal["auto", "exact", "marginalised", "mid-p", "asymptotic"] = "auto"
    nuisances: tuple[str, ...] = ("pot",)  # Kinds or names of sources that the limit takes
    min_effective: float = 10.0  # Effective pairs, and drawn particles, below which a yield is not trusted
    discovery: tuple[float, ...] = ()  # Significances [standard deviations]
    projections: tuple[float, ...] = ()  # Protons on target

    @property
    def convention(self) -> dict[str, Any]:
        """Return the options of the limit of a count, which "auto" averages over the nuisances."""
        return {"method": "marginalised" if self.method == "auto" else self.method}


@dataclass(frozen=True, slots=True, eq=False)
class Search:
    """The result of one detector.

    Attributes
    ----------
    signal_sigma : float
        ln κ of the protons on target of both runs together (0 if they are no nuisance).
    assumption : str
        Where the background comes from.
    limit : Limit
        At the median uncertainty of the signal.
    reach, measured : Reach
        Expected: with every signal event, and with those from where dileptons were measured.
    fraction : NDArray, shape (n, 2)
        Measured part of the signal on the lower and the upper edge of `reach`.
    observed : Reach or None
        With the observed limit; None while the data stay masked, and always for mock data.
    significance : float
        Of the observed count; nan while masked.
    discovery : mapping of float to Reach
        By significance [standard deviations]; empty where no background is known, as one event would do.
    projections : mapping of float to Reach
        By protons on target.
    spreads : mapping of str to NDArray, shape (masses, couplings)
        ln κ of the signal by source, protons on target excepted.
    impacts : Ranking or None
        On the lower edge at `impact_mass`.
    levels : NDArray, shape (masses, 6), or None
        Observed (nan while masked) and expected limits at the best coupling of each mass; None if the limit
        is the same everywhere.
    mass, couplings : NDArray
        Of the scan; masses in GeV.
    joint : JointLevels or None
        Limits of a joint likelihood.
    median : NDArray, shape of `sigma`, or None
        Median expected limits at the confidence level of `limit`, where they are known.
    """

    detector: AnyDetector
    background: float
    background_sigma: float
    signal_sigma: float
    assumption: str
    limit: Limit
    reach: Reach
    measured: Reach
    fraction: FloatArray
    observed: Reach | None = None
    significance: float = np.nan
    discovery: Mapping[float, Reach] = field(default_factory=dict)
    projections: Mapping[float, Reach] = field(default_factory=dict)
    spreads: Mapping[str, FloatArray] = field(default_factory=dict)
    impacts: Ranking | None = None
    impact_mass: float = np.nan
    levels: FloatArray | None = None
    options: SearchOptions = field(default_factory=SearchOptions)
    mass: FloatArray = field(default_factory=lambda: np.empty(0))
    couplings: FloatArray = field(default_factory=lambda: np.empty(0))
    joint: JointLevels | None = None
    median: FloatArray | None = None

    @property
    def sigma(self) -> FloatArray:
        """Ln κ of the signal in all, shape (1, 1) if it is the same everywhere."""
        return _in_quadrature(self.signal_sigma**2, self.spreads)

    def sigma_at(self, mass: float, coupling: float) -> float:
        """Return the uncertainty of the signal in all (ln κ) at a mass of the scan [GeV] and a coupling."""
        row = int(np.argmin(np.abs(self.mass - mass)))
        own = np.broadcast_to(self.sigma, (len(self.mass), len(self.couplings)))[row]
        return float(np.interp(np.log(coupling), np.log(self.couplings), own))

    def median_limit(self, cl: float) -> float | FloatArray:
        """Return the median expected limit at another confidence level.

        A number if the uncertainty of the signal is the same everywhere, else an array over masses and
        couplings. Those of a joint likelihood are known at its own level alone.
        """
        if self.joint is not None and cl != self.limit.cl:
            raise PhysicsError(
                f"the limits of a joint likelihood are those at {self.limit.cl:g}, not at {cl:g}"
            )
        if self.joint is not None:
            return self.joint.expected[..., MEDIAN]
        median = self.median if cl == self.limit.cl else None
        if median is None:
            convention = self.options.convention
            _, expected, _ = limits_at(
                self.sigma, self.background, self.background_sigma, "masked", cl=cl, **convention
            )
            median = expected[..., MEDIAN]
        return float(median[0, 0]) if median.size == 1 else median


def _in_quadrature(variance: float, spreads: Mapping[str, FloatArray]) -> FloatArray:
    """Return ln κ of all sources together, shape (1, 1) if it is the same everywhere."""
    total = np.full((1, 1), variance)
    for spread in spreads.values():
        total = total + spread**2
    return np.asarray(np.sqrt(total), dtype=np.float64)


def background_of(
    detector: AnyDetector, given: tuple[float | None, float] = (None, 0.0)
) -> tuple[float, float, str]:
    """Return background, its ln κ and where it comes from.

    `given` is that of the steering; None leaves it to the file of the detector.
    """
    if isinstance(detector, MillichargeDetector):  # whose file gives a standard deviation in events
        b, error = detector.background or 0.0, detector.background_sigma or 0.0
        if b == 0:
            return 0.0, 0.0, "b = 0 assumed"
        return b, float(np.log1p(error / b)), f"b = {b:g} ± {error:g} (file of {detector.name})"
    if given[0] is not None:
        (b, sigma), source = (given[0], given[1]), "steering"
    elif detector.background is not None:
        b, sigma = detector.background, detector.background_sigma or 0.0
        source = f"file of {detector.name}"
    else:
        return 0.0, 0.0, "b = 0 assumed"
    if b == 0:
        return 0.0, 0.0, "b = 0 assumed"
    return b, sigma, f"b = {b:g}, ln kappa = {sigma:g} ({source})"


@dataclass(frozen=True, slots=True, eq=False)
class CountingSearch:
    """Signal, uncertainties and limits of one detector over masses and couplings, of ε or Q alike.

    Attributes
    ----------
    plane : SignalPlane
        As the limits take it: all of the signal, or its measured part.
    background : (float, float, str)
        Expected events, their ln κ, where they come from.
    pot_sigma : float
        Relative uncertainty of the protons on target of the calibration run.
    mock : bool
        Then an observed count is no observation.
    joint : JointLevels, optional
        Limits of a joint likelihood over the plane, in the place of those of a count.
    """

    detector: AnyDetector
    plane: SignalPlane
    options: SearchOptions
    background: tuple[float, float, str]
    observed: int | Literal["masked", "asimov"] = "masked"
    pot_sigma: float = 0.0
    mock: bool = False
    joint: JointLevels | None = None
    spreads: dict[str, FloatArray] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "spreads", self.plane.spreads(self.options.nuisances))

    @property
    def pot(self) -> tuple[float, float]:
        """Ln κ of the protons on target of calibration and search; zero if they are no nuisance."""
        if "pot" not in self.options.nuisances:
            return 0.0, 0.0
        search = self.detector.pot_sigma if isinstance(self.detector, Detector) else 0.0
        return self.pot_sigma, search

    @property
    def sigma(self) -> FloatArray:
        """Ln κ of the signal in all, shape (1, 1) if it is the same everywhere."""
        return _in_quadrature(self.pot[0] ** 2 + self.pot[1] ** 2, self.spreads)

    @property
    def _scan(self) -> dict[str, Any]:
        reliable = self.plane.data_end(self.options.min_effective)
        return {"reliable": reliable, "threshold": self.plane.rate.threshold}

    def limits(self) -> tuple[FloatArray, FloatArray, Limit]:
        """Return observed and expected limits for each uncertainty of the signal, or those over the plane."""
        if self.joint is not None:
            return self.joint.observed, self.joint.expected, self.joint.typical
        b, b_sigma, _ = self.background
        options = self.options
        return limits_at(self.sigma, b, b_sigma, self.observed, cl=options.cl, **options.convention)

    def reach(self, level: FloatArray, signal: FloatArray, expected: FloatArray | None = None) -> Reach:
        """Return the reach of a signal, shape (n, k), for limits of the shape of `sigma`, all in events.

        `expected` are those at −2 … +2 standard deviations, on one more axis.
        """
        one = level.size == 1
        limit = float(level.ravel()[0]) if one else np.broadcast_to(level, signal.shape)
        bands = None
        if expected is not None:
            bands = expected.reshape(5) if one else np.broadcast_to(expected, (*signal.shape, 5))
        return reach(self.plane.mass, self.plane.coupling, signal, limit, expected=bands, **self._scan)

    def contour(self) -> Reach:
        """Return the median expected reach alone."""
        return self.reach(self.limits()[1][..., MEDIAN], self.plane.signal)

    def search(self) -> Search:
        """Return the limit and every contour."""
        options, plane = self.options, self.plane
        b, b_sigma, assumption = self.background
        observed, expected, limit = self.limits()
        median = expected[..., MEDIAN]
        contour = self.reach(median, plane.signal, expected)
        level = float(median.ravel()[0]) if median.size == 1 else np.broadcast_to(median, plane.signal.shape)
        contour = with_errors(
            contour,
            plane.mass,
            plane.coupling,
            plane.signal,
            level,
            signal_error=plane.mc_error,
            limit_error=limit.mc_error / limit.expected[MEDIAN],
            method=limit.method,
            **self._scan,
        )
        if plane.beyond is not None:
            contour = replace(contour, beyond=part_at_edges(contour, plane, plane.beyond))
        seen = None
        if not isinstance(self.observed, str) and not self.mock:
            seen = self.reach(observed, plane.signal)
        impacts, mass = self.impacts(contour)
        return Search(
            self.detector,
            b,
            b_sigma,
            float(np.hypot(*self.pot)),
            assumption,
            limit,
            contour,
            self.reach(median, plane.in_domain),
            part_at_edges(contour, plane, plane.in_domain),
            observed=seen,
            significance=observed_significance("masked" if self.mock else self.observed, b, b_sigma),
            discovery=self._discoveries(),
            projections=self._projections(),
            spreads=self.spreads,
            impacts=impacts,
            impact_mass=mass,
            levels=self._along(observed, expected),
            options=options,
            mass=plane.mass,
            couplings=plane.coupling,
            joint=self.joint,
            median=median if isinstance(self.observed, str) and self.joint is None else None,
        )

    def _along(self, observed: FloatArray, expected: FloatArray) -> FloatArray | None:
        """Return observed and expected limits at the best coupling of each mass, if they change at all."""
        if observed.size == 1:
            return None
        signal = self.plane.signal
        every = np.broadcast_to(np.concatenate([observed[..., None], expected], axis=-1), (*signal.shape, 6))
        best = (signal / every[..., 1 + MEDIAN]).argmax(axis=1)
        levels: FloatArray = every[np.arange(len(best)), best].copy()
        if self.mock:
            levels[:, 0] = np.nan
        return levels

    def _discoveries(self) -> dict[float, Reach]:
        """Return the reach of each significance; none without background."""
        if self.joint is not None:
            return self._reaches(self.joint.discovery)
        b, b_sigma, _ = self.background

        def needed(z: float, signal_sigma: float) -> float:
            return discovery_yield(b, b_sigma, significance=z, signal_sigma=signal_sigma)

        return self._tabulated(needed, self.options.discovery if b > 0 else ())

    def _projections(self) -> dict[float, Reach]:
        """Return the reach of each other exposure."""
        if self.joint is not None:
            return self._reaches(self.joint.projections)
        b, b_sigma, _ = self.background
        how = {"background_sigma": b_sigma, "cl": self.options.cl, "observed": self.observed}

        def needed(pot: float, signal_sigma: float) -> float:
            more = how | self.options.convention | {"signal_sigma": signal_sigma}
            return float(projected_yields(b, [pot / self.detector.exposure], **more)[0])

        return self._tabulated(needed, self.options.projections)

    def _tabulated(
        self, needed: Callable[[float, float], float], wanted: Sequence[float]
    ) -> dict[float, Reach]:
        """Return the reaches for needed signals that are functions of their uncertainty."""
        return self._reaches({x: tabulated(partial(needed, x), self.sigma) for x in wanted})

    def _reaches(self, levels: Mapping[float, FloatArray]) -> dict[float, Reach]:
        return {value: self.reach(level, self.plane.signal) for value, level in levels.items()}

    def impacts(self, contour: Reach) -> tuple[Ranking | None, float]:
        """Return pulls and impacts on the lower edge of the widest interval.

        None without nuisances.
        """
        edges, couplings = contour.edges, self.plane.coupling
        width = np.where(np.isfinite(edges).all(axis=1), np.log(edges[:, 1] / edges[:, 0]), 0)
        entry = int(np.argmax(width))
        if not width[entry] > 0:
            return None, np.nan
        row = int(np.searchsorted(self.plane.mass, contour.mass[entry]))
        column = int(np.clip(np.searchsorted(couplings, edges[entry, 0]), 1, len(couplings) - 1))
        pair = self.plane.signal[row, column - 1 : column + 1]
        if not (pair > 0).all() or pair[0] == pair[1]:
            return None, np.nan
        exponent = float(np.diff(np.log(pair))[0] / np.diff(np.log(couplings[column - 1 : column + 1]))[0])
        if self.joint is not None:
            ranked = None if self.joint.ranked is None else self.joint.ranked(row, column, exponent)
            return ranked, np.nan if ranked is None else float(contour.mass[entry])
        sigmas = dict(zip(pot_names(self.detector.name), self.pot, strict=True))
        sigmas |= {name: float(spread[row, column]) for name, spread in self.spreads.items()}
        sigmas = {name: value for name, value in sigmas.items() if value > 0}
        b, b_sigma, _ = self.background
        background = {"background": b_sigma} if b > 0 and b_sigma > 0 else {}
        if not sigmas and not background:
            return None, np.nan
        count: int | Literal["masked"] = (
            "masked" if self.mock or isinstance(self.observed, str) else self.observed
        )
        channel = counting_channel(
            "counting",
            signal=1.0,
            background=b,
            observed=count,
            signal_sigma=sigmas,
            background_sigma=background,
        )
        return ranking([channel], cl=self.options.cl, exponent=exponent), float(contour.mass[entry])


def part_at_edges(contour: Reach, plane: SignalPlane, signal: FloatArray) -> FloatArray:
    """Return a part of the signal over the whole on both edges of every entry, shape (n, 2)."""
    total, couplings = plane.signal, plane.coupling
    part = np.divide(signal, total, out=np.zeros_like(total), where=total > 0)
    row = np.searchsorted(plane.mass, contour.mass)
    known = np.isfinite(contour.edges)
    log_edges = np.log(np.where(known, contour.edges, couplings[0]))
    grid = np.log(couplings)
    index = np.clip(np.searchsorted(grid, log_edges), 1, len(grid) - 1)
    share = (log_edges - grid[index - 1]) / (grid[index] - grid[index - 1])
    low, high = part[row[:, None], index - 1], part[row[:, None], index]
    return np.where(known, low + share * (high - low), np.nan)


def modifiers_at(
    search: CountingSearch, row: npt.NDArray[np.intp], column: npt.NDArray[np.intp]
) -> dict[str, FloatArray]:
    """Return ln κ of the signal at some grid points by the name of its modifier, shape (points,) each.

    The finite sample is ``signal_mc``, of which a likelihood always knows.
    """
    found = {
        re.sub(r"\W+", "_", name): spread[row, column]
        for name, spread in search.spreads.items()
        if name != SAMPLE
    }
    signal, error = search.plane.signal[row, column], search.plane.mc_error[row, column]
    return found | {"signal_mc": np.log1p(np.clip(error / signal, 0.0, 3.0))}


BANDS = ("m2", "m1", "median", "p1", "p2")
SOURCES = ("sample", "toys", "interpolation")  # of the numerical errors of an edge


def contours(search: Search) -> dict[str, Reach]:
    """Return every contour of a search by its name in the tables."""
    parts = {"all": search.reach, "measured domain": search.measured}
    if search.observed is not None:
        parts["observed"] = search.observed
    parts |= {f"discovery, {z:g} sigma": reach for z, reach in search.discovery.items()}
    return parts | {f"projection, {pot:.4g} POT": reach for pot, reach in search.projections.items()}


def intervals_of(found: Reach) -> list[dict[str, Any]]:
    """Return the intervals of mass in which anything is reached, as the files hold them."""
    return [asdict(interval) for interval in found.intervals]


def limits_of_edges(reach: Reach, i: int) -> dict[str, float]:
    """Return the coupling of the largest signal of an entry, its limit there, and those of both edges."""
    n = len(reach.mass)
    peak = np.full(n, np.nan) if reach.peak is None else reach.peak
    edges = np.full((n, 2), np.nan) if reach.edge_limits is None else reach.edge_limits
    return {
        "peak": float(peak[i]),
        "limit": float(np.broadcast_to(reach.limit, (n,))[i]),
        "limit_low": float(edges[i, 0]),
        "limit_high": float(edges[i, 1]),
    }


def reach_rows(search: Search, coupling: str = "coupling") -> list[dict[str, Any]]:
    """Return one row per mass and island of every contour; `coupling` begins the names of its columns."""
    rows = []
    for part, found in contours(search).items():
        rows += _rows(found, search, part, coupling)
    return rows


def _rows(reach: Reach, search: Search, part: str, name: str) -> list[dict[str, Any]]:
    limit, rows = search.limit, []
    n = len(reach.mass)
    bands = np.full((n, 5, 2), np.nan) if reach.bands is None else reach.bands
    errors = np.full((n, 2, 3), np.nan) if reach.errors is None else reach.errors
    method = _method(part, search)
    for i, mass in enumerate(reach.mass):
        edges = reach.edges[i]
        decided = limits_of_edges(reach, i)
        entry: dict[str, Any] = {
            "part": part,
            "mass": float(mass),
            f"{name}_low": float(edges[0]),
            f"{name}_high": float(edges[1]),
            "closed": bool(reach.closed[i]),
            "clipped_side": reach.clipped_side[i],
            f"{name}_peak": decided.pop("peak"),
            "signal": float(reach.signal[i]),
            **decided,
        }
        for j, band in enumerate(BANDS):
            entry[f"low_{band}"], entry[f"high_{band}"] = (float(x) for x in bands[i, j])
        at = (entry[f"{name}_peak"], *edges.tolist())
        labels = [label_at(method, search.sigma_at(float(mass), g)) if g > 0 else "" for g in at]
        entry |= {"cl": limit.cl, "method": labels[0] or method}
        entry |= {"method_low": labels[1], "method_high": labels[2], "mc_error": float(limit.mc_error)}
        for k, side in enumerate(("low", "high")):
            total = float(np.sqrt((errors[i, k] ** 2).sum()))
            entry[f"{name}_{side}_error"] = float(edges[k] * np.log(10.0) * total)
            entry |= {f"{side}_error_{s}": float(errors[i, k, j]) for j, s in enumerate(SOURCES)}
        entry["fraction_in_domain_low"], entry["fraction_in_domain_high"] = _fraction(search, part, i)
        beyond = (np.nan, np.nan) if reach.beyond is None else reach.beyond[i]
        entry["fraction_beyond_energies_low"], entry["fraction_beyond_energies_high"] = map(float, beyond)
        rows.append(entry)
    return rows


def reach_of_rows(
    rows: Sequence[Mapping[str, Any]], intervals: Sequence[Mapping[str, Any]] = (), coupling: str = "coupling"
) -> Reach:
    """Return the contour that the rows of one part hold: what `reach_rows` wrote."""

    def column(name: str) -> FloatArray:
        return np.array([np.nan if row.get(name) is None else row[name] for row in rows], dtype=np.float64)

    edges = np.column_stack([column(f"{coupling}_low"), column(f"{coupling}_high")])
    bands = np.array([[column(f"{side}_{band}") for side in ("low", "high")] for band in BANDS])
    errors = np.array([[column(f"{side}_error_{s}") for s in SOURCES] for side in ("low", "high")])
    found = tuple(MassInterval(**interval) for interval in intervals)
    mass = column("mass")
    return Reach(
        mass,
        edges,
        column("signal"),
        column("limit"),
        np.array([bool(row["closed"]) for row in rows]),
        tuple(str(row["clipped_side"]) for row in rows),
        found,
        _tips(mass, edges, found),
        np.moveaxis(bands, 2, 0),
        np.moveaxis(errors, 2, 0),
        tuple(str(row["method"]) for row in rows),
        column(f"{coupling}_peak"),
        np.column_stack([column("limit_low"), column("limit_high")]),
        np.column_stack([column(f"fraction_beyond_energies_{side}") for side in ("low", "high")]),
    )


def _tips(mass: FloatArray, edges: FloatArray, intervals: Sequence[MassInterval]) -> FloatArray:
    """Return where the islands at the closed ends of intervals end, as `Reach.ends`."""
    ends = np.full((len(mass), 2, 2), np.nan)
    reached = np.isfinite(edges).all(axis=1)
    for found in intervals:
        own = np.flatnonzero(reached & (mass >= found.low) & (mass <= found.high))
        sides = (
            (found.low_closed, found.low, found.low_coupling, np.min),
            (found.high_closed, found.high, found.high_coupling, np.max),
        )
        for side, (closed, at, tip, outermost) in enumerate(sides):
            if not closed or not len(own):
                continue
            last = own[mass[own] == outermost(mass[own])]
            away = np.abs(np.log(edges[last] / tip)).min(axis=1)
            ends[last[np.argmin(away)], side] = at, tip
    return ends


def _fraction(search: Search, part: str, i: int) -> tuple[float, float]:
    """Return the measured part of the signal on both edges of an entry, nan where it is not known."""
    if part == "measured domain":
        return 1.0, 1.0
    if part != "all":
        return np.nan, np.nan
    low, high = search.fraction[i]
    return float(low), float(high)


def _method(part: str, search: Search) -> str:
    limit = search.limit.method
    joint = {} if search.joint is None else search.joint.methods
    kind, _, which = part.partition(", ")
    if kind in joint:
        return f"joint: {joint[kind]}, median {'' if kind == 'discovery' else 'expected, '}{which}"
    if part.startswith("discovery"):
        return f"exact p-value by enumeration, nuisances averaged, median {part.removeprefix('discovery, ')}"
    if part.startswith("projection"):
        return f"{limit}, median expected, {part.removeprefix('projection, ')}"
    return limit


def plain(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows for JSON, which has no number that is not finite."""
    return [
        {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in row.items()}
        for row in rows
    ]


def exponent_of(signal: FloatArray, coupling: FloatArray) -> str:
    """Return d ln s/d ln g at the smallest and at the middle coupling of the mass with the largest signal."""
    row = signal[int(signal.max(axis=1).argmax())]
    if not (row > 0).all():
        return "no signal at small charge"
    slope = np.diff(np.log(row)) / np.diff(np.log(coupling))
    middle = len(slope) // 2
    return f"{slope[0]:.3f} at Q = {coupling[0]:.2g} and {slope[middle]:.3f} at Q = {coupling[middle]:.2g}"
