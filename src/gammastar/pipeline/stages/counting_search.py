"""One search: its limit and every contour over masses and couplings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gammastar import infer
from gammastar.config import Infer
from gammastar.core.constants import LEPTON_MASS
from gammastar.core.errors import PhysicsError
from gammastar.core.records import Exposure, FloatArray, Limit, Reach
from gammastar.infer.histfactory.workspaces import POT_NUISANCES
from gammastar.infer.impacts import Ranking
from gammastar.infer.limits import limits_at, tabulated
from gammastar.physics.detector import Detector
from gammastar.physics.millicharge import MillichargeDetector
from gammastar.pipeline.cache import Arrays
from gammastar.pipeline.context import Context
from gammastar.pipeline.stages.error_budget import in_use, measured_part, spreads_of

__all__ = [
    "MEDIAN",
    "Plane",
    "Search",
    "sigma_between",
]

MEDIAN = 2


@dataclass(frozen=True, slots=True, eq=False)
class Search:
    """The result of one detector.

    Attributes
    ----------
    detector : Detector
    background, background_sigma : float
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
    impact_mass : float
    levels : NDArray, shape (masses, 6), or None
        Observed (nan while masked) and expected limits at the best coupling of each mass; None if the limit
        is the same everywhere.
    options : mapping
        `method` and `asymptotic_from` of the limits.
    mass, couplings : NDArray
        Of the scan.
    """

    detector: Detector
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
    options: Mapping[str, Any] = field(default_factory=dict)
    mass: FloatArray = field(default_factory=lambda: np.empty(0))
    couplings: FloatArray = field(default_factory=lambda: np.empty(0))

    def sigma_at(self, mass: float, coupling: float) -> float:
        """Return the uncertainty of the signal in all (ln κ) at a mass of the scan and a coupling."""
        total = np.full((1, 1), self.signal_sigma**2)
        for spread in self.spreads.values():
            total = total + spread**2
        return sigma_between(np.sqrt(total), (self.mass, self.couplings), mass, coupling)


def _background(
    section: Infer, detector: Detector | MillichargeDetector, main: bool
) -> tuple[float, float, str]:
    """Return background, its ln κ and where it comes from."""
    if isinstance(detector, MillichargeDetector):  # whose file gives a standard deviation in events
        b, error = detector.background or 0.0, detector.background_sigma or 0.0
        if b == 0:
            return 0.0, 0.0, "b = 0 assumed"
        return b, float(np.log1p(error / b)), f"b = {b:g} ± {error:g} (file of {detector.name})"
    if main and section.background is not None:
        b, sigma = section.background, section.background_sigma
        source = "steering"
    elif detector.background is not None:
        b, sigma = detector.background, detector.background_sigma or 0.0
        source = f"file of {detector.name}"
    else:
        return 0.0, 0.0, "b = 0 assumed"
    if b == 0:
        return 0.0, 0.0, "b = 0 assumed"
    return b, sigma, f"b = {b:g}, ln kappa = {sigma:g} ({source})"


def sigma_between(
    sigma: FloatArray, axes: tuple[FloatArray, FloatArray], mass: float, coupling: float
) -> float:
    """Return the uncertainty of the signal at a mass of the scan, between its couplings."""
    row = np.broadcast_to(sigma, (len(axes[0]), len(axes[1])))[int(np.argmin(np.abs(axes[0] - mass)))]
    return float(np.interp(np.log(coupling), np.log(axes[1]), row))


class Plane:
    """Signal, uncertainties and limits of one detector over masses and couplings.

    Dark photons over ε and millicharged particles over Q alike: [infer] and [spectrum] extrapolate count the
    same for both.
    """

    def __init__(
        self,
        ctx: Context,
        section: Infer,
        detector: Detector | MillichargeDetector,
        predicted: Arrays,
        accepted: Arrays,
        exposure: Exposure,
        *,
        main: bool,
    ) -> None:
        self.ctx, self.section, self.detector = ctx, section, detector
        self.mass, self.couplings = predicted["mass"], accepted["couplings"]
        self.b, self.b_sigma, self.assumption = _background(section, detector, main)
        count = section.observed if isinstance(section.observed, str) else section.observed[0]
        self.observed: Any = count if main else "masked"
        runs = (exposure.pot_sigma, detector.pot_sigma if isinstance(detector, Detector) else 0.0)
        self.pot = runs if "pot" in section.nuisances else (0.0, 0.0)
        spectrum = ctx.steering.spectrum
        self.accepted = in_use(
            accepted,
            extrapolate=spectrum is None or spectrum.extrapolate,
            extrapolation_sigma=section.extrapolation_sigma,
        )
        self.spreads = spreads_of(section, predicted, self.accepted)
        self.inside, self.signal = self.accepted["in_domain_signal"], self.accepted["signal"]
        self.error = accepted["mc_error"]
        self.options: dict[str, Any] = {"method": section.method, "asymptotic_from": section.asymptotic_from}
        self.scan: dict[str, Any] = {"reliable": accepted["n_effective"] >= section.min_effective}
        if isinstance(detector, Detector):
            lepton = "mu" if spectrum is None else spectrum.lepton
            self.scan["threshold"] = float(predicted.get("threshold", 2 * LEPTON_MASS[lepton]))

    @property
    def sigma(self) -> FloatArray:
        """Ln κ of the signal in all, shape (1, 1) if it is the same everywhere."""
        total = np.full((1, 1), self.pot[0] ** 2 + self.pot[1] ** 2)
        for spread in self.spreads.values():
            total = total + spread**2
        return np.asarray(np.sqrt(total), dtype=np.float64)

    def reach(self, level: FloatArray, signal: FloatArray, expected: FloatArray | None = None) -> Reach:
        """Return the reach for limits of the shape of `sigma`, with numerical errors."""
        one = level.size == 1
        limit = float(level.ravel()[0]) if one else np.broadcast_to(level, signal.shape)
        bands = None
        if expected is not None:
            bands = expected.reshape(5) if one else np.broadcast_to(expected, (*signal.shape, 5))
        return infer.reach(self.mass, self.couplings, signal, limit, expected=bands, **self.scan)

    def limits(self) -> tuple[FloatArray, FloatArray, Limit]:
        """Return observed and expected limits for each uncertainty of the signal."""
        section = self.section
        return limits_at(
            self.sigma,
            self.b,
            self.b_sigma,
            self.observed,
            cl=section.cl,
            **self.options,
        )

    def contour(self) -> Reach:
        """Return the median expected reach alone."""
        return self.reach(self.limits()[1][..., MEDIAN], self.signal)

    def search(self) -> Search:
        """Return the limit and every contour."""
        section, mock, detector = self.section, self.ctx.book.mock, self.detector
        if not isinstance(detector, Detector):
            msg = f"{detector.name} sees millicharged particles, no decays: it has no search over couplings"
            raise PhysicsError(msg)
        observed, expected, limit = self.limits()
        median = expected[..., MEDIAN]
        found = self.reach(median, self.signal, expected)
        level = float(median.ravel()[0]) if median.size == 1 else np.broadcast_to(median, self.signal.shape)
        found = infer.with_errors(
            found,
            self.mass,
            self.couplings,
            self.signal,
            level,
            signal_error=self.error,
            limit_error=limit.mc_error / limit.expected[MEDIAN],
            method=limit.method,
            **self.scan,
        )
        seen = None
        if not isinstance(self.observed, str) and not mock:
            seen = self.reach(observed, self.signal)
        ranking, mass = self.impacts(found)
        return Search(
            detector,
            self.b,
            self.b_sigma,
            float(np.hypot(*self.pot)),
            self.assumption,
            limit,
            found,
            self.reach(median, self.inside),
            measured_part(found, self.mass, self.couplings, self.inside, self.signal),
            observed=seen,
            significance=infer.observed_significance(
                "masked" if mock else self.observed, self.b, self.b_sigma
            ),
            discovery={z: self.other(self.discovered(z)) for z in section.discovery if self.b > 0},
            projections={pot: self.other(self.projected(pot)) for pot in section.projections},
            spreads=self.spreads,
            impacts=ranking,
            impact_mass=mass,
            levels=self.along(observed, expected),
            options=self.options,
            mass=self.mass,
            couplings=self.couplings,
        )

    def along(self, observed: FloatArray, expected: FloatArray) -> FloatArray | None:
        """Return observed and expected limits at the best coupling of each mass, if they change at all."""
        if observed.size == 1:
            return None
        every = np.broadcast_to(
            np.concatenate([observed[..., None], expected], axis=-1), (*self.signal.shape, 6)
        )
        best = (self.signal / every[..., 1 + MEDIAN]).argmax(axis=1)
        found: FloatArray = every[np.arange(len(best)), best].copy()
        if self.ctx.book.mock:
            found[:, 0] = np.nan
        return found

    def other(self, function: Callable[[float], float]) -> Reach:
        """Return the reach for a needed signal that is a function of its uncertainty."""
        return self.reach(tabulated(function, self.sigma), self.signal)

    def discovered(self, significance: float) -> Callable[[float], float]:
        """Return the signal of a median discovery as a function of its uncertainty."""
        return lambda s: infer.discovery_yield(
            self.b, self.b_sigma, significance=significance, signal_sigma=s
        )

    def projected(self, pot: float) -> Callable[[float], float]:
        """Return the median limit with other protons on target as a function of the uncertainty."""
        factor = pot / self.detector.pot

        def needed(sigma: float) -> float:
            found = infer.projected_yields(
                self.b,
                [factor],
                background_sigma=self.b_sigma,
                signal_sigma=sigma,
                cl=self.section.cl,
                observed=self.observed,
                **self.options,
            )
            return float(found[0])

        return needed

    def impacts(self, found: Reach) -> tuple[Ranking | None, float]:
        """Return pulls and impacts on the lower edge of the widest interval (None without nuisances)."""
        width = np.where(
            np.isfinite(found.edges).all(axis=1), np.log(found.edges[:, 1] / found.edges[:, 0]), 0
        )
        entry = int(np.argmax(width))
        if not width[entry] > 0:
            return None, np.nan
        row = int(np.searchsorted(self.mass, found.mass[entry]))
        column = int(
            np.clip(np.searchsorted(self.couplings, found.edges[entry, 0]), 1, len(self.couplings) - 1)
        )
        pair = self.signal[row, column - 1 : column + 1]
        if not (pair > 0).all() or pair[0] == pair[1]:
            return None, np.nan
        exponent = float(
            np.diff(np.log(pair))[0] / np.diff(np.log(self.couplings[column - 1 : column + 1]))[0]
        )
        sigmas = dict(zip(POT_NUISANCES, self.pot, strict=True))
        sigmas |= {name: float(spread[row, column]) for name, spread in self.spreads.items()}
        sigmas = {name: value for name, value in sigmas.items() if value > 0}
        background = {"background": self.b_sigma} if self.b > 0 and self.b_sigma > 0 else {}
        if not sigmas and not background:
            return None, np.nan
        hidden = isinstance(self.observed, str) or self.ctx.book.mock
        channel = infer.counting_channel(
            "counting",
            signal=1.0,
            background=self.b,
            observed="masked" if hidden else self.observed,
            signal_sigma=sigmas,
            background_sigma=background,
        )
        return infer.ranking([channel], cl=self.section.cl, exponent=exponent), float(found.mass[entry])
