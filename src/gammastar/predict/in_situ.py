"""What the measured dileptons themselves say of dark photons: signal over background, bumps, mechanism."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import eval_legendre, ndtr, ndtri

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray
from gammastar.physics.qed import dark_photon_rate, kappa

__all__ = [
    "BumpHunt",
    "FractionFit",
    "bump_hunt",
    "fit_fraction",
    "pairs_to_exclude",
    "per_observed_pair",
    "signal_over_background",
    "signal_per_coupling",
    "template",
]


def signal_per_coupling(
    mass: npt.ArrayLike, pair_density: npt.ArrayLike, branching: npt.ArrayLike, m_lepton: float
) -> FloatArray:
    """Return reconstructed A' → l⁺l⁻ per ε² from the pairs of virtual photons in the same sample.

    Parameters
    ----------
    mass : array_like, shape (n,) [GeV]
    pair_density : array_like, shape (n,)
        dN/dm of pairs from virtual photons at their true mass, after the selection, background subtracted
        [1/GeV].
    branching : array_like, shape (n,)
        BR(A' → l⁺l⁻).
    m_lepton : float [GeV]

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


def per_observed_pair(
    mass: npt.ArrayLike,
    pairs: npt.ArrayLike,
    cov: npt.ArrayLike,
    *,
    bin_width: npt.ArrayLike,
    m_lepton: float,
    efficiency: npt.ArrayLike = 1.0,
) -> tuple[FloatArray, FloatArray]:
    """Return dark photons per ε² and per observed pair of the same target, with covariance.

    Parameters
    ----------
    mass : array_like, shape (n,) [GeV]
        Bin centres.
    pairs, cov : array_like, shapes (n,), (n, n)
        Unfolded pairs of the bins.
    bin_width : array_like, shape (n,) or () [GeV]
    m_lepton : float [GeV]
    efficiency : array_like, shape (n,) or ()
        Observed over unfolded pairs in each bin.

    Notes
    -----
    A search in the same target multiplies with the pairs that it counts: protons on target and their errors
    cancel. The covariance holds the correlation of each bin with the total.
    """
    values = np.asarray(pairs, dtype=np.float64)
    seen = np.broadcast_to(np.asarray(efficiency, dtype=np.float64), values.shape)
    total = float(seen @ values)
    if not total > 0:
        msg = f"per_observed_pair: {total:g} observed pairs; the spectrum holds none"
        raise PhysicsError(msg)
    factor = dark_photon_rate(1.0 / np.broadcast_to(bin_width, values.shape), mass, m_lepton)
    rate = factor * values / total
    jacobian = np.diag(factor / total) - np.outer(rate, seen) / total
    return rate, jacobian @ np.asarray(cov, dtype=np.float64) @ jacobian.T


@dataclass(frozen=True, slots=True, eq=False)
class BumpHunt:
    """Expected outcome of a search for a narrow peak, one entry per mass.

    Attributes
    ----------
    mass : NDArray, shape (k,) [GeV]
    signal : NDArray, shape (k,)
        Reconstructed signal per ε².
    background : NDArray, shape (k,)
        Pairs in ±1.4 standard deviations of the resolution about the mass.
    sigma : NDArray, shape (k,)
        Standard deviation of the fitted number of signal pairs where there is none.
    limit : NDArray, shape (k,)
        Median expected limit on the signal pairs.
    epsilon2 : NDArray, shape (k,)
        The same as ε².
    cl : float
    fitted : NDArray, shape (k,)
        Signal pairs that the fit finds in the data; nan if the background is taken as known.
    """

    mass: FloatArray
    signal: FloatArray
    background: FloatArray
    sigma: FloatArray
    limit: FloatArray
    epsilon2: FloatArray
    cl: float
    fitted: FloatArray

    @property
    def observed(self) -> FloatArray:
        """Observed CLs limit on the signal pairs, Ŝ + σ Φ⁻¹[1 − (1 − CL) Φ(Ŝ/σ)], shape (k,)."""
        pull = self.fitted / self.sigma
        return np.asarray(self.fitted + self.sigma * ndtri(1 - (1 - self.cl) * ndtr(pull)))


def bump_hunt(
    edges: npt.ArrayLike,
    pairs: npt.ArrayLike,
    mass: npt.ArrayLike,
    signal: npt.ArrayLike,
    resolution: npt.ArrayLike,
    *,
    half_window: float = 6.0,
    degree: int | None = 3,
    cl: float = 0.90,
) -> BumpHunt:
    """Return the expected reach in ε² of a peak search with a sliding window, and the fitted peaks.

    Parameters
    ----------
    edges, pairs : array_like, shapes (n + 1,), (n,)
        Observed opposite-sign pairs, all backgrounds included, in bins finer than the resolution [GeV].
    mass : array_like, shape (k,) [GeV]
        Masses of the search.
    signal : array_like, shape (k,)
        Reconstructed signal per ε² at these masses, from `signal_per_coupling`.
    resolution : array_like, shape (k,) or () [GeV]
        Standard deviation of the mass.
    half_window : float
        Of the window of the fit, in standard deviations.
    degree : int or None
        Of the polynomial background, fitted with the signal; None: the background is known exactly.
    cl : float

    Raises
    ------
    PhysicsError
        If shapes do not fit, a window holds too few bins for the fit, or a bin is negative.

    Notes
    -----
    Gaussian peak over a Legendre polynomial; σ_S from the Fisher information of the binned fit with the
    observed pairs as variances, and the median CLs limit σ_S Φ⁻¹(1 − (1 − CL)/2). Peaks of ω and φ are no
    polynomials: near them the window is blind. With fewer than some twenty pairs in a peak take the exact
    counting limit for `background` instead.

    Examples
    --------
    >>> e = np.linspace(0.5, 1.5, 1001)
    >>> found = bump_hunt(e, np.full(1000, 100.0), [1.0], [1e9], 0.01, degree=None)
    >>> bool(abs(found.sigma[0] / np.sqrt(2 * np.sqrt(np.pi) * 0.01 * 1e5) - 1) < 1e-3)
    True
    """
    e, n = np.asarray(edges, dtype=np.float64), np.asarray(pairs, dtype=np.float64)
    m = np.atleast_1d(np.asarray(mass, dtype=np.float64))
    s, width = (np.broadcast_to(np.asarray(x, dtype=np.float64), m.shape) for x in (signal, resolution))
    if e.ndim != 1 or n.shape != (len(e) - 1,) or not (np.diff(e) > 0).all() or (n < 0).any():
        msg = f"bump_hunt: {e.shape} edges must increase and hold one non-negative content each, {n.shape}"
        raise PhysicsError(msg)
    if not ((width > 0) & (s > 0)).all() or not 0.5 <= cl < 1:
        msg = f"bump_hunt: resolution and signal must be positive, cl = {cl!r} between 0.5 and 1"
        raise PhysicsError(msg)
    centre = 0.5 * (e[1:] + e[:-1])
    pull = (e[None, :] - m[:, None]) / width[:, None]
    peak = np.diff(ndtr(pull), axis=1)
    x = (centre[None, :] - m[:, None]) / (half_window * width[:, None])
    inside = (np.abs(x) <= 1) & (n > 0)
    terms = 0 if degree is None else degree + 1
    short = inside.sum(axis=1) < terms + 2
    if short.any():
        msg = f"bump_hunt: too few filled bins about {m[short][0]:g} GeV for {terms} terms of background"
        raise PhysicsError(msg)
    columns = [peak] + [eval_legendre(k, np.clip(x, -1, 1)) for k in range(terms)]
    design = np.stack(columns, axis=-1)
    weight = np.where(inside, 1.0 / np.maximum(n, 1e-300), 0.0)
    information = np.einsum("kbi,kb,kbj->kij", design, weight, design)
    inverse = np.linalg.inv(information)
    sigma = np.sqrt(inverse[:, 0, 0])
    content = np.einsum("kbi,kb,b->ki", design, weight, n)
    fitted = np.einsum("ki,ki->k", inverse[:, 0], content) if terms else np.full(len(m), np.nan)
    limit = sigma * float(ndtri(1 - (1 - cl) / 2))
    near = np.abs(pull[:, 1:] + pull[:, :-1]) < 2.8
    return BumpHunt(m, s, near @ n, sigma, limit, limit / s, cl, fitted)


def template(
    energy: npt.ArrayLike,
    pt: npt.ArrayLike,
    weight: npt.ArrayLike,
    *,
    energy_edges: npt.ArrayLike,
    pt_edges: npt.ArrayLike,
    floor: float = 1e-3,
) -> FloatArray:
    """Return the probabilities of the cells in (energy, pt), flattened in C order.

    Parameters
    ----------
    energy, pt, weight : array_like, shape (n,)
        Particles with weights, the acceptance of the measurement included [GeV].
    energy_edges, pt_edges : array_like [GeV]
    floor : float
        Share that is spread evenly over all cells: no cell is empty, and a cell that a finite sample of one
        mechanism missed does not decide alone.

    Raises
    ------
    PhysicsError
        If nothing falls into the cells.
    """
    x, y, w, edges_x, edges_y = (
        np.asarray(values, dtype=np.float64) for values in (energy, pt, weight, energy_edges, pt_edges)
    )
    hist, _, _ = np.histogram2d(x, y, bins=[edges_x, edges_y], weights=w)
    flat = np.clip(hist, 0.0, None).ravel()
    if not flat.sum() > 0:
        msg = "template: no particle falls into the cells of energy and pt"
        raise PhysicsError(msg)
    return np.asarray((1 - floor) * flat / flat.sum() + floor / flat.size, dtype=np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class FractionFit:
    """Fitted share of bremsstrahlung.

    Attributes
    ----------
    fraction, error : NDArray, shape (t,)
        Between 0 and 1; standard deviation from the curvature.
    q : NDArray, shape (t,)
        −2 ln[L(tested)/L(fitted)] of the tested fraction; 0 if the fit lies above it.
    """

    fraction: FloatArray
    error: FloatArray
    q: FloatArray


def fit_fraction(
    counts: npt.ArrayLike, hadrons: FloatArray, brem: FloatArray, *, tested: float = 1.0
) -> FractionFit:
    """Fit f in f·brem + (1 − f)·hadrons to the shape of the measured cells.

    Parameters
    ----------
    counts : array_like, shape (t, cells) or (cells,)
        One row per data set or toy.
    hadrons, brem : NDArray, shape (cells,)
        Templates, all cells positive.
    tested : float
        Fraction to be excluded from above.

    Raises
    ------
    PhysicsError
        If a template has empty cells or counts are negative.

    Notes
    -----
    Maximum of Σ n ln(f b + (1 − f) h): concave, found by bisection on its derivative for all rows at once.
    The normalisation is left free, so that no rate enters.
    """
    n = np.atleast_2d(np.asarray(counts, dtype=np.float64))
    if n.shape[1] != hadrons.size or hadrons.shape != brem.shape or (n < 0).any():
        msg = f"fit_fraction: counts {n.shape} and templates {hadrons.shape}, {brem.shape} do not fit"
        raise PhysicsError(msg)
    if not ((hadrons > 0).all() and (brem > 0).all()):
        msg = "fit_fraction: a template has an empty cell; give it a floor"
        raise PhysicsError(msg)
    gap = brem - hadrons

    def slope(f: FloatArray) -> FloatArray:
        return np.asarray((n * gap / (hadrons + f[:, None] * gap)).sum(axis=1), dtype=np.float64)

    low, high = np.zeros(len(n)), np.ones(len(n))
    for _ in range(50):
        middle = 0.5 * (low + high)
        rising = slope(middle) > 0
        low, high = np.where(rising, middle, low), np.where(rising, high, middle)
    f = 0.5 * (low + high)
    density = hadrons + f[:, None] * gap
    curvature = (n * (gap / density) ** 2).sum(axis=1)
    error = np.divide(1.0, np.sqrt(curvature), out=np.full(len(n), np.inf), where=curvature > 0)
    excess = 2 * (n * np.log(density / (hadrons + tested * gap))).sum(axis=1)
    return FractionFit(f, error, np.where(f < tested, np.clip(excess, 0.0, None), 0.0))


def pairs_to_exclude(
    hadrons: FloatArray, brem: FloatArray, fraction: npt.ArrayLike, *, cl: float = 0.90
) -> FloatArray:
    """Return the pairs needed to exclude a share of bremsstrahlung if there is none.

    Parameters
    ----------
    hadrons, brem : NDArray, shape (cells,)
        Templates.
    fraction : array_like, shape (k,)
        Shares that a calculation predicts, e.g. one per Λ.
    cl : float

    Returns
    -------
    NDArray, shape (k,)
        Accepted pairs for a median exclusion.

    Notes
    -----
    On Asimov data q = N × 2 Σ h ln[h/(f b + (1 − f) h)], and the median CLs limit asks
    √q = Φ⁻¹(1 − (1 − CL)/2).
    """
    f = np.atleast_1d(np.asarray(fraction, dtype=np.float64))
    if not ((f > 0) & (f <= 1)).all():
        msg = f"pairs_to_exclude: fractions {f!r} must lie above 0 and up to 1"
        raise PhysicsError(msg)
    mixed = hadrons + f[:, None] * (brem - hadrons)
    per_pair = 2 * (hadrons * np.log(hadrons / mixed)).sum(axis=1)
    return np.asarray(float(ndtri(1 - (1 - cl) / 2)) ** 2 / per_pair, dtype=np.float64)
