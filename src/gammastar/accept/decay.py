"""Where a long-lived particle decays: probabilities and weights for many lifetimes at once."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray

__all__ = ["decay_probability", "decay_weight", "forced_decay", "inverse_decay_length"]

_SHORTEST = 1e-3  # of a chord: decay lengths down to this are sampled well
_UNIFORM = 0.5  # share of the decays that are placed uniformly


def inverse_decay_length(momentum: npt.ArrayLike, mass: float, ctau: npt.ArrayLike) -> FloatArray:
    """Return m/(p cτ) [1/m] for every lifetime and particle, 0 for a stable one.

    Parameters
    ----------
    momentum : array_like, shape (n,) [GeV]
    mass : float [GeV]
    ctau : array_like, scalar or shape (k,) [m]

    Returns
    -------
    NDArray, shape (n,) for a scalar `ctau`, (k, n) otherwise

    Raises
    ------
    PhysicsError
        If a momentum, the mass or a lifetime is not positive.
    """
    p, lifetime = np.asarray(momentum, dtype=np.float64), np.asarray(ctau, dtype=np.float64)
    for name, value in (("mass", np.float64(mass)), ("momentum", p), ("cτ", lifetime)):
        bad = ~(value > 0)  # nan too
        if bad.any():
            msg = f"decay length: {name} = {np.extract(bad, value)[0]!r} must be positive"
            raise PhysicsError(msg)
    with np.errstate(over="ignore"):  # a subnormal cτ: decays at once
        return np.minimum(np.multiply.outer(1.0 / lifetime, mass / p), 1e150)


def decay_probability(
    chord: FloatArray, momentum: npt.ArrayLike, mass: float, ctau: npt.ArrayLike
) -> FloatArray:
    """Return the probability to decay between entry and exit of a volume.

    Parameters
    ----------
    chord : NDArray, shape (n, 2) [m]
        Path lengths to entry and exit; exit may be inf, nan is a miss.
    momentum : array_like, shape (n,) [GeV]
    mass : float [GeV]
    ctau : array_like, scalar or shape (k,) [m]

    Returns
    -------
    NDArray, shape (n,) or (k, n)

    Notes
    -----
    e^(−a/λ) − e^(−b/λ) with λ = cτ p/m, formed without cancellation for λ much longer than the volume.

    Examples
    --------
    >>> decay_probability(np.array([[0.0, np.inf], [5.0, np.inf]]), [1.0, 1.0], 1.0, 5.0).round(4)
    array([1.    , 0.3679])
    """
    inverse = inverse_decay_length(momentum, mass, ctau)
    hit = ~np.isnan(chord[:, 0])
    entry, length = np.where(hit, chord[:, 0], 0.0), np.where(hit, chord[:, 1] - chord[:, 0], 0.0)
    reached: FloatArray = np.exp(-inverse * entry)
    if np.isinf(length).all():  # an open volume: whatever reaches it decays in it, unless stable
        return np.where(inverse > 0, reached, 0.0)
    # A stable particle in an open volume would be 0 × inf.
    exponent = np.multiply(inverse, length, out=np.zeros_like(inverse), where=inverse > 0)
    return reached * -np.expm1(-exponent)


def forced_decay(chord: FloatArray, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Place one decay on each chord, fit for all decay lengths from 1/1000 of it upwards.

    Parameters
    ----------
    chord : NDArray, shape (n, 2) [m]
        Path lengths to entry and exit, both finite.
    rng : numpy.random.Generator

    Returns
    -------
    distance : NDArray, shape (n,) [m]
        Path length from the origin to the decay.
    density : NDArray, shape (n,) [1/m]
        Probability density with which it was placed.

    Raises
    ------
    PhysicsError
        If a chord is a miss or has no end.

    Notes
    -----
    Half of the decays are uniform along the chord, half have a density falling as 1/(x + ℓ/1000) from the
    entry. The uniform half bounds the weights by twice those of uniform placing (long lifetimes); the other
    half keeps as many decays per decade of x, so that short lifetimes do not hang on a few of them.
    """
    length = chord[:, 1] - chord[:, 0]
    if not np.isfinite(length).all():
        msg = "forced decays need chords that hit and that end: bound the volume"
        raise PhysicsError(msg)
    n = len(length)
    u, uniform = rng.uniform(size=n), rng.uniform(size=n) < _UNIFORM
    decades = math.log1p(1.0 / _SHORTEST)
    fraction = np.where(uniform, u, _SHORTEST * np.expm1(u * decades))
    density = _UNIFORM + (1.0 - _UNIFORM) / ((fraction + _SHORTEST) * decades)
    return chord[:, 0] + fraction * length, density / length


def decay_weight(
    distance: FloatArray, density: FloatArray, momentum: npt.ArrayLike, mass: float, ctau: npt.ArrayLike
) -> FloatArray:
    """Return the weight of a decay that was placed with a known density.

    Parameters
    ----------
    distance : NDArray, shape (n,) [m]
        Path length from the origin to the decay.
    density : NDArray, shape (n,) [1/m]
        Density along the path with which it was placed there.
    momentum, mass, ctau
        As for `decay_probability`.

    Returns
    -------
    NDArray, shape (n,) or (k, n)
        e^(−d/λ)/(λ density); its mean over positions is the decay probability of the chord.
    """
    inverse = inverse_decay_length(momentum, mass, ctau)
    return np.asarray(inverse / density * np.exp(-inverse * distance))
