"""The methods by their names, one's own among them, and a scan of their strengths.

A new built-in method is a file with a `Method` and a line in `METHODS`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gammastar.core.errors import UserError, require
from gammastar.core.records import FloatArray, Response, Spectrum
from gammastar.unfold.folding import Method, Options, Unfolder, asimov, refolding, scaled_prior
from gammastar.unfold.iterative_bayes import ITERATIVE
from gammastar.unfold.likelihood_fit import LIKELIHOOD
from gammastar.unfold.omnifolding import OMNIFOLD
from gammastar.unfold.regularised import LEAST_SQUARES, TIKHONOV, global_correlation

METHODS: Mapping[str, Method] = {
    "likelihood": LIKELIHOOD,
    "iterative": ITERATIVE,
    "tikhonov": TIKHONOV,
    "least squares": LEAST_SQUARES,
    "omnifold": OMNIFOLD,
}
SLOPE = 0.15  # of the alternative truths of a scan, from end to end of the mass axis


@dataclass(frozen=True, slots=True)
class Candidate:
    """One strength in a scan."""

    name: str
    chi2_ndf: float  # Refolding χ² per cell
    correlation: float  # Mean global correlation of the result
    error: float  # Mean of σ_i/|x_i|, weighted with |x_i|
    bias: float  # Mean |bias|/σ over cells, the largest of all alternatives (0 without any)
    bias_of: Mapping[str, float]  # The same for each alternative

    @property
    def row(self) -> tuple[float, float, float, float]:
        """χ² per cell, correlation, error and bias."""
        return self.chi2_ndf, self.correlation, self.error, self.bias


def scan(
    measured: Spectrum,
    response: Response,
    candidates: Mapping[str, Unfolder],
    *,
    alternatives: Mapping[str, FloatArray] | None = None,
) -> tuple[Candidate, ...]:
    """Unfold with every candidate and see how far each would be wrong if the truth were another.

    Parameters
    ----------
    candidates : mapping of str to function (measured, response) → Spectrum
        From strong to weak regularisation, e.g. ``{"4": partial(iterative, n_iterations=4), …}``.
    alternatives : mapping of str to NDArray, shape of the true cells, optional
        True spectra, in pairs, that the data could hold. Their exact expectation is unfolded; the bias is
        compared with the error of the unfolded data.

    Returns
    -------
    tuple of Candidate
    """
    result = []
    for name, unfolder in candidates.items():
        found = unfolder(measured, response)
        use = found.domain.ravel() & (np.diag(found.cov) > 0)
        sigma = np.sqrt(np.diag(found.cov)[use])
        values = np.abs(found.values.ravel()[use])
        chi2, ndf = refolding(found, measured, response)
        bias = {}
        for label, truth in (alternatives or {}).items():
            refolded = unfolder(asimov(truth, measured, response), response)
            shift = refolded.values - np.reshape(truth, found.values.shape)
            bias[label] = float(np.mean(np.abs(shift.ravel()[use]) / sigma))
        rho = global_correlation(found.cov[np.ix_(use, use)])
        result.append(
            Candidate(
                name,
                chi2 / max(ndf, 1),
                float(rho.mean()),
                float(sigma.sum() / values.sum()) if values.sum() > 0 else float("nan"),
                max(bias.values(), default=0.0),
                bias,
            )
        )
    return tuple(result)


def best_candidate(candidates: Sequence[Candidate], *, most_bias: float = 0.25) -> Candidate:
    """Return the first candidate with a stress bias below `most_bias` σ, or that of the smallest bias."""
    require(candidates, "unfold: best_candidate needs at least one candidate", UserError)
    good = [c for c in candidates if c.bias < most_bias]
    return good[0] if good else min(candidates, key=lambda c: c.bias)


def mass_scan(
    measured: Spectrum, response: Response, method: Method, options: Options, strengths: Sequence[float] = ()
) -> tuple[FloatArray, tuple[Candidate, ...]]:
    """Unfold a mass spectrum with several strengths; alternative truths have another slope."""
    if method.candidates is None:
        return np.zeros(0), ()
    candidates = method.candidates(measured, response, options, strengths)
    start = scaled_prior(measured, response)
    x = np.linspace(-1, 1, len(start))
    truths = {name: start * (1 + sign * SLOPE * x) for name, sign in (("steeper", -1), ("flatter", 1))}
    named = {f"{strength:g}": unfolder for strength, unfolder in candidates.items()}
    return np.array(list(candidates), dtype=np.float64), scan(measured, response, named, alternatives=truths)


def method_of(name: str) -> Method:
    """Return what a method knows; one of the user, ``file.py:function``, knows no more than its function."""
    return METHODS.get(name, LEAST_SQUARES)


def own_method(unfolder: object, name: str) -> Method:
    """Return a function of the user as a method whose result is checked."""
    if not callable(unfolder):
        raise UserError(f"{name}: {type(unfolder).__name__} is no function (measured, response) -> Spectrum")

    def checked(measured: Spectrum, response: Response) -> Spectrum:
        unfolded: Spectrum = unfolder(measured, response)
        problem = _problem(unfolded, response)
        if problem:
            raise UserError(f"{name}: {problem}")
        return unfolded

    return Method(lambda *_: (checked, 0.0), lambda *_: f"own method {name}", linear=True)


def _problem(unfolded: object, response: Response) -> str:
    """Return what is wrong with the result of a method of the user, "" if nothing is."""
    if not isinstance(unfolded, Spectrum):
        return f"returns {type(unfolded).__name__}; it must return a gammastar Spectrum"
    values, cov = unfolded.values, unfolded.cov
    both = unfolded.hist.axes, response.true
    found, wanted = (", ".join(f"{a.name}({len(a)})" for a in axes) for axes in both)
    scale = max(float(np.abs(cov).max(initial=0.0)), np.finfo(float).tiny)
    rules = (
        (
            tuple(unfolded.hist.axes) != tuple(response.true),
            f"its axes {found} are not response.true: {wanted}",
        ),
        (unfolded.quantity != "counts", f"its result is {unfolded.quantity!r}; it must be 'counts'"),
        (not (np.isfinite(values).all() and np.isfinite(cov).all()), "its numbers are not all finite"),
        (not np.allclose(cov, cov.T, rtol=0, atol=1e-9 * scale), "its covariance is not symmetric"),
        (bool((np.diag(cov) < 0).any()), "its covariance has a negative variance"),
        (not unfolded.domain.any(), "no cell of its result lies in the domain"),
    )
    return next((text for broken, text in rules if broken), "")
