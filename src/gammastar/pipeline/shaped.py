"""The preset "line shape": fitted line shapes in true mass, unfolded cells in pt and energy."""

from __future__ import annotations

import numpy as np

from gammastar import unfold
from gammastar.core.axes import MASS, regular
from gammastar.core.constants import branching
from gammastar.core.errors import SteeringError
from gammastar.core.pairs import MatchedPairs
from gammastar.core.records import FloatArray, Spectrum
from gammastar.core.stats import filled
from gammastar.pipeline.checkpoint import Arrays

__all__ = ["line_shape_spectrum"]

FINE = 0.005  # GeV, true cells of the forward fold; a tenth of the usual resolution of 30 to 60 MeV
TIES = {("omega_dalitz", "omega"): (branching("omega -> pi0 mu mu") / branching("omega -> e e"), 0.2)}
"""BR(ω → μμπ⁰)/BR(ω → μμ), the latter by lepton universality, and its relative error."""


def _summed(spectrum: Spectrum) -> tuple[int, FloatArray]:
    """Return the position of the mass axis and the matrix that sums over all others."""
    position = [axis.name for axis in spectrum.hist.axes].index(MASS)
    label = np.indices(spectrum.domain.shape)[position].ravel()
    n = len(spectrum.hist.axes[position])
    return position, (np.arange(n)[:, None] == label).astype(np.float64)


def line_shape_spectrum(
    measured: Spectrum, matched: MatchedPairs, unfolded: Spectrum
) -> tuple[Spectrum, Arrays]:
    """Replace the mass dependence of an unfolded spectrum by fitted line shapes.

    Parameters
    ----------
    measured : Spectrum
        Subtracted pairs on the reconstructed axes.
    matched : MatchedPairs
    unfolded : Spectrum
        Of the iterative method, on the true axes.

    Returns
    -------
    Spectrum
        Per mass bin the integral of the line shapes inside the domain, divided among pt and energy as
        `unfolded` divides it. Its covariance holds both, and is first order.
    dict of arrays
        Names, yields and errors of the components, chi2 and ndf.

    Raises
    ------
    SteeringError
        If the spectrum has no mass axis wide enough for the fit.
    """
    position, total = _summed(unfolded)
    axis = unfolded.hist.axes[position]
    measured_position, measured_total = _summed(measured)
    reco = measured.hist.axes[measured_position]
    cov = measured_total @ measured.cov @ measured_total.T
    values = measured_total @ measured.values.ravel()
    flat = Spectrum(
        filled((reco,), values, np.diag(cov)), cov, "counts", None, np.ones(len(reco), dtype=bool)
    )
    low, high = float(reco.edges[0]), float(reco.edges[-1])
    low, high = max(0.2115, low - 0.05), high + 0.1  # pairs from outside enter by the resolution
    same = unfold.reweighted(matched, unfolded)
    inside = unfold.fiducial(same, unfolded)
    fine = regular(MASS, max(round((high - low) / FINE), 1), low, high)
    part = unfold.fiducial_fraction(same, unfolded, axis)
    centres = 0.5 * (np.asarray(axis.edges)[1:] + np.asarray(axis.edges)[:-1])
    response = unfold.response(inside, (reco,), (fine,), n_replicas=0)
    components = [c.times(centres, part) for c in unfold.cocktail_components((low, high))]
    folded = [float((response.migration @ c.cells(np.asarray(fine.edges))).sum()) for c in components]
    components = [c for c, seen in zip(components, folded, strict=True) if seen > 1e-9]
    if len(components) > len(reco):
        msg = f"unfold.preset = 'line shape': {len(reco)} mass bins cannot fix {len(components)} line shapes"
        raise SteeringError(msg)
    known = {c.name for c in components}
    ties = {pair: value for pair, value in TIES.items() if set(pair) <= known}
    found = unfold.forward_fold(flat, response, components, ratios=ties)
    shape = found.spectrum(axis)
    extra = {
        "shape_names": np.array([c.name for c in components], dtype=str),
        "shape_yields": np.stack([found.yields, np.sqrt(np.diag(found.cov))], axis=1),
        "shape_chi2": np.array([found.chi2, found.ndf]),
    }
    return _distributed(shape, unfolded, total), extra


def _distributed(shape: Spectrum, unfolded: Spectrum, total: FloatArray) -> Spectrum:
    """Divide each mass bin of `shape` among the cells as `unfolded` does; first-order covariance of both."""
    u = np.where(unfolded.domain.ravel(), unfolded.values.ravel(), 0.0)
    per_bin = total @ u
    safe = np.where(per_bin > 0, per_bin, 1.0)
    share = np.where(total.T @ per_bin > 0, u / (total.T @ safe), 0.0)
    line = np.where(per_bin > 0, shape.values.ravel(), 0.0)
    values = share * (total.T @ line)
    # d value = share dL + L/U (dU − share dΣU)
    by_line = total.T * share[:, None]
    by_cell = (total.T @ (line / safe))[:, None] * (np.eye(len(u)) - share[:, None] * (total.T @ total))
    cov = by_line @ shape.cov @ by_line.T + by_cell @ unfolded.cov @ by_cell.T
    cov = (cov + cov.T) / 2
    hist = filled(tuple(unfolded.hist.axes), values, np.diag(cov))
    return Spectrum(hist, cov, "counts", unfolded.exposure, unfolded.domain)
