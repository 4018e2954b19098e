"""Prompt A′ → l⁺l⁻ in the measured pairs themselves: signal, search and errors, without protons on target."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any, Self, cast

import numpy as np
import numpy.typing as npt

from gammastar.core.records import BoolArray, FloatArray
from gammastar.core.sources import Kind, Source, Sources
from gammastar.physics.qed import dark_photon_rate, kappa
from gammastar.physics.resolution import MassResolution
from gammastar.predict.peak_search import (
    Background,
    PeakFits,
    Window,
    cls_limits,
    expected_limits,
    peak_search,
    window_of,
)

RESOLUTION = "mass resolution"


def signal_per_coupling(
    mass: npt.ArrayLike, pair_density: npt.ArrayLike, branching: npt.ArrayLike, m_lepton: float
) -> FloatArray:
    """Return reconstructed A' → l⁺l⁻ per ε² from the pairs of virtual photons in the same sample.

    Notes
    -----
    Eq. 6 of Allison and Blinov (2025) times the branching ratio: S = ε² (m/2κ) (dN/dm) BR. Acceptance and
    efficiency are those of the pairs, as long as the decay is prompt and the spin states agree; protons on
    target and cross sections cancel.
    """
    return dark_photon_rate(pair_density, mass, m_lepton) * np.asarray(branching, dtype=np.float64)


def signal_over_background(
    mass: npt.ArrayLike, window: npt.ArrayLike, branching: npt.ArrayLike, m_lepton: float
) -> FloatArray:
    """Return S/B per ε² in a mass window where all pairs come from virtual photons.

    Notes
    -----
    m BR/(2κ δm), (3π/2α)(m/δm) BR far above threshold; B. Batell, M. Pospelov and A. Ritz, Phys. Rev. D 79
    (2009) 115008, J. D. Bjorken et al., Phys. Rev. D 80 (2009) 075018.
    """
    m = np.asarray(mass, dtype=np.float64)
    return np.asarray(np.asarray(branching) * m / (2 * kappa(m, m_lepton) * np.asarray(window)))


@dataclass(frozen=True, slots=True, eq=False)
class Templates:
    """What a search in situ compares."""

    # Opposite-sign pairs after the selection, in bins finer than the resolution [GeV]
    edges: FloatArray
    pairs: FloatArray
    background: Background
    resolution: MassResolution
    half_window: float  # In resolutions

    def fits(self, pairs: npt.ArrayLike, mass: FloatArray) -> PeakFits:
        """Return the fits of a peak at each mass to pairs, shape (n,) or (k, n)."""
        given: dict[str, Any] = {"background": self.background, "half_window": self.half_window}
        return peak_search(self.edges, pairs, mass, self.resolution, **given)

    def spurious(self, truths: npt.ArrayLike, mass: FloatArray) -> FloatArray:
        """Return the peak that the background model leaves in expectations without signal, shape (k,).

        Notes
        -----
        In standard deviations of the fit the largest of all expectations and of all searched masses within
        one resolution, without sign.
        """
        found, sigma = np.zeros(len(mass)), self.fits(self.pairs, mass).sigma
        for truth in np.atleast_2d(np.asarray(truths, dtype=np.float64)):
            found = np.maximum(found, np.abs(self.fits(truth, mass).fitted) / sigma)
        near = np.abs(mass[None, :] - mass[:, None]) <= self.resolution.sigma(mass)[:, None]
        return np.asarray(sigma * np.where(near, found[None, :], 0.0).max(axis=1))


@dataclass(frozen=True, slots=True, eq=False)
class InSitu:
    """A finished search."""

    templates: Templates
    signal: FloatArray  # Expected pairs per ε², shape (k,)
    sources: Sources  # Of the errors of `signal`
    fits: PeakFits  # At k masses
    # Pairs that the background model may leave as a peak; an error beside that of the statistics, shape (k,)
    spurious: FloatArray

    @property
    def mass(self) -> FloatArray:
        """Masses of the search [GeV], shape (k,)."""
        return self.fits.mass

    @property
    def sigma(self) -> FloatArray:
        """Standard deviation of the fitted pairs without signal, statistics and model, shape (k,)."""
        return np.hypot(self.fits.sigma, self.spurious)

    def relative(self, in_limit: Collection[str]) -> FloatArray:
        """Return the relative error of the signal from some kinds or names of sources, shape (k,)."""
        cov = self.sources.of(in_limit).total()
        return np.sqrt(np.clip(np.diag(cov), 0.0, None)) / self.signal if cov.size else 0.0 * self.signal

    def expected(self, in_limit: Collection[str], cl: float) -> FloatArray:
        """Return the limits on ε² expected at −2 … +2 standard deviations, shape (k, 5)."""
        limits = expected_limits(self.sigma, self.relative(in_limit), cl=cl)
        return np.asarray(limits / self.signal[:, None])

    def observed(self, in_limit: Collection[str], cl: float) -> FloatArray:
        """Return the observed limits on ε², shape (k,)."""
        sigma = np.hypot(self.fits.error, self.spurious)
        return np.asarray(cls_limits(self.fits.fitted, sigma, self.relative(in_limit), cl=cl) / self.signal)

    @property
    def significance(self) -> FloatArray:
        """Local significance of the fitted peak in standard deviations, shape (k,)."""
        return np.asarray(self.fits.fitted / np.hypot(self.fits.error, self.spurious))

    def blind(self, most: float) -> BoolArray:
        """Return True where peak and a line of free yield look alike, with a correlation above `most`."""
        return np.asarray(self.fits.correlation > most)

    def window(self, i: int) -> Window:
        """Return the parts of the window of mass number `i`."""
        known = self.templates
        given: dict[str, Any] = {"background": known.background, "half_window": known.half_window}
        return window_of(known.edges, self.fits, i, known.resolution, **given)

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return plain arrays by name."""
        known, back = self.templates, self.templates.background
        rest = {
            "edges": known.edges,
            "pairs": known.pairs,
            "names": np.array(back.names, dtype=str),
            "half_window": np.array(known.half_window),
            "per_coupling": self.signal,
            "spurious": self.spurious,
            "degree": np.array(-1 if back.degree is None else back.degree),
            "smooth": np.zeros(0) if back.smooth is None else back.smooth,
            "lines": back.lines,
            "places": back.places,
            "line_errors": back.errors,
            "shifts": back.shifts,
            "source_names": np.array(self.sources.names, dtype=str),
            "source_kinds": np.array([part.kind for part in self.sources.parts], dtype=str),
            "source_cov": np.array([part.cov for part in self.sources.parts]),
        }
        rest |= {f"resolution_{f.name}": getattr(known.resolution, f.name) for f in fields(MassResolution)}
        return rest | {f"fit_{f.name}": getattr(self.fits, f.name) for f in fields(PeakFits)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Return the search of such arrays."""
        degree, smooth = int(arrays["degree"]), arrays["smooth"]
        known = Background(
            None if degree < 0 else degree,
            smooth if len(smooth) else None,
            arrays["lines"],
            arrays["places"],
            arrays["line_errors"],
            arrays["shifts"],
            tuple(arrays["names"].tolist()),
        )
        resolution = MassResolution(
            **{f.name: arrays[f"resolution_{f.name}"] for f in fields(MassResolution)}
        )
        window = float(arrays["half_window"])
        rows = zip(*(arrays[f"source_{name}"] for name in ("names", "kinds", "cov")), strict=True)
        return cls(
            Templates(arrays["edges"], arrays["pairs"], known, resolution, window),
            arrays["per_coupling"],
            Sources(tuple(Source(str(name), cast("Kind", str(kind)), cov) for name, kind, cov in rows)),
            PeakFits(**{f.name: arrays[f"fit_{f.name}"] for f in fields(PeakFits)}),
            arrays["spurious"],
        )


def search_in_situ(
    templates: Templates,
    mass: npt.ArrayLike,
    signal: npt.ArrayLike,
    sources: Sources,
    *,
    truths: npt.ArrayLike = (),
    resolution_error: float = 0.0,
) -> InSitu:
    """Return a search with its fits, its spurious signal, and the error of the signal from the resolution.

    Parameters
    ----------
    mass : array_like, shape (k,) [GeV]
    signal : array_like, shape (k,)
        Expected pairs per ε², of `signal_per_coupling`.
    sources : Sources
        Of its errors.
    truths : array_like, shape (t, n)
        Smooth expectations without signal, for the test of the background; none leaves it out.
    resolution_error : float
        Relative, of the width of the peak.
    """
    mass, signal = np.asarray(mass, dtype=np.float64), np.asarray(signal, dtype=np.float64)
    fits = templates.fits(templates.pairs, mass)
    spurious = templates.spurious(truths, mass) if np.size(truths) else np.zeros(len(mass))
    if resolution_error:
        # a wider peak seen as one of the nominal width, over the expectation of each window
        strength, seen = np.maximum(fits.sigma, 1.0), []
        for width in (1.0, 1.0 + resolution_error):
            peak = templates.resolution.scaled(width).cells(mass, templates.edges)
            pairs = np.clip(np.nan_to_num(fits.expected) + strength[:, None] * peak, 0.0, None)
            seen.append(templates.fits(pairs, mass).fitted)
        moved = (seen[1] - seen[0]) / strength
        sources += Sources((Source.shifted(RESOLUTION, "kinematics", moved * signal),))
    return InSitu(templates, signal, sources, fits, spurious)
