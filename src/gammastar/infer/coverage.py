"""How often a true signal is excluded: pseudo-experiments against the distributions of the statistic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray
from gammastar.infer import profile
from gammastar.infer.channel import Channel
from gammastar.infer.cloud import TIE
from gammastar.infer.ensemble import Convention, Model, Toys, compiled, draw, statistics

__all__ = ["Coverage", "coverage"]

GRID = 201  # values of the statistic at which tails are described


@dataclass(frozen=True, slots=True)
class Coverage:
    """Fractions of pseudo-experiments with the signal in which the signal is excluded.

    Attributes
    ----------
    clsb, cls : float
        P(CLs+b < 1 − cl), which should be 1 − cl, and P(CLs < 1 − cl), which is smaller by construction.
    error : float
        Standard deviation of `clsb` from the number of pseudo-experiments and of toys.
    experiments, toys : int
    method : str
    """

    clsb: float
    cls: float
    error: float
    experiments: int
    toys: int
    method: str


def coverage(
    channels: Sequence[Channel],
    *,
    rng: np.random.Generator,
    convention: Convention | None = None,
    cl: float = 0.90,
    truth: Mapping[str, float] | None = None,
    experiments: int = 100_000,
    n_toys: int = 20_000,
    plug_in: bool = True,
) -> Coverage:
    """Return how often a signal of strength one is excluded when it is there.

    Parameters
    ----------
    channels : sequence of Channel
        Their observed events play no role.
    rng : numpy.random.Generator
    convention : Convention, optional
        By default the ratio of likelihoods with randomised auxiliary measurements.
    cl : float
    truth : mapping of str to float, optional
        True nuisances of the pseudo-experiments in standard deviations, 0 by default.
    experiments : int
    n_toys : int
        Toys per point in nuisances and hypothesis.
    plug_in : bool
        Toys at the fitted nuisances of each experiment, as an analysis has them; else at nominal ones.

    Returns
    -------
    Coverage

    Raises
    ------
    PhysicsError
        For true values of nuisances that do not occur.

    Notes
    -----
    Drawing toys anew for each experiment is hopeless. Both tail probabilities are toyed at points drawn from
    the fitted nuisances, and their logits described by polynomials of second order in the nuisances, for a
    grid of values of the statistic; `error` contains what this description misses.
    """
    convention = Convention("ratio", "randomised") if convention is None else convention
    model = compiled(channels, convention)
    unknown = set(truth or {}) - set(model.nuisances)
    if unknown:
        msg = f"coverage: true values of {sorted(unknown)}; the nuisances are {model.nuisances}"
        raise PhysicsError(msg)
    true = np.array([(truth or {}).get(name, 0.0) for name in model.nuisances])
    toys = draw(model, true, 1.0, experiments, rng, randomise=convention.auxiliary == "randomised")
    q = statistics(model, toys, 1.0, convention.statistic)
    grid = np.unique(np.quantile(q, np.linspace(0.0, 1.0, GRID)))
    points = _points(len(model.nuisances)) if plug_in else 1
    how = (convention, n_toys, points, rng)
    (clsb, missed), (clb, _) = (_tails(model, toys, strength, q, grid, how) for strength in (1.0, 0.0))
    fraction, excluded = float(np.mean(clsb < 1.0 - cl)), float(np.mean(clsb < (1.0 - cl) * clb))
    variance = cl * (1.0 - cl) * (1.0 / experiments + 1.0 / (n_toys * points))
    error = float(np.sqrt(variance + (cl * (1.0 - cl) * missed) ** 2))
    label = f"{experiments} experiments, toys at {'fitted' if plug_in else 'nominal'} nuisances, {convention}"
    return Coverage(fraction, excluded, error, experiments, n_toys * points, label)


def _points(nuisances: int) -> int:
    """Return the number of points in nuisances: three per coefficient of the polynomial."""
    return 1 if nuisances == 0 else 3 * (1 + nuisances + nuisances * (nuisances + 1) // 2)


def _tails(
    model: Model,
    toys: Toys,
    strength: float,
    q: FloatArray,
    grid: FloatArray,
    how: tuple[Convention, int, int, np.random.Generator],
) -> tuple[FloatArray, float]:
    """Return P(≥ q) of every experiment, and the r.m.s. logit that the description of tails misses."""
    convention, n_toys, points, rng = how
    fitted, _ = profile.fit(
        strength,
        model.arrays(),
        toys.aux - model.shift,
        toys.ratio,
        np.ones(len(toys.ratio)),
        toys.offsets,
    )
    if points == 1:
        fitted = np.zeros((1, len(model.nuisances)))
    middle = fitted.mean(axis=0)
    chosen = middle + 1.3 * (fitted[rng.integers(0, len(fitted), points)] - middle)
    logits = np.empty((points, len(grid)))
    for i, theta in enumerate(chosen):
        drawn = draw(model, theta, strength, n_toys, rng, randomise=convention.auxiliary == "randomised")
        sample = np.sort(statistics(model, drawn, 1.0, convention.statistic))
        tail = (n_toys - np.searchsorted(sample, grid - TIE) + 0.5) / (n_toys + 1.0)
        logits[i] = np.log(tail / (1.0 - tail))
    coefficients = np.linalg.lstsq(_powers(chosen - middle), logits, rcond=None)[0]
    left = (_powers(chosen - middle) @ coefficients - logits)[np.abs(logits + 2.2) < 1.0]  # around 0.1
    missed = float(np.sqrt(np.mean(left**2))) if left.size else 0.0
    cell = np.clip(np.searchsorted(grid, q, side="right") - 1, 0, max(len(grid) - 2, 0))
    above = np.minimum(cell + 1, len(grid) - 1)
    powers = _powers(fitted - middle)
    low, high = ((powers * coefficients[:, at].T).sum(axis=1) for at in (cell, above))
    width = np.maximum(grid[above] - grid[cell], 1e-300)
    logit = low + (high - low) * (q - grid[cell]) / width
    return np.asarray(1.0 / (1.0 + np.exp(-logit)), dtype=np.float64), missed


def _powers(theta: FloatArray) -> FloatArray:
    """Return all monomials up to second order, shape (n, coefficients)."""
    first, second = np.triu_indices(theta.shape[1])
    return np.column_stack([np.ones(len(theta)), theta, theta[:, first] * theta[:, second]])
