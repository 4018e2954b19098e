"""Positive weights with the sums and moments of signed ones, in slices of mass."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gammastar.core.errors import UserError
from gammastar.core.records import FloatArray

_REACH = 3.0  # standard deviations and size of the exponent: outliers do not decide
_MOMENTS = ((0, 1, 2, 3, 4, 5), (0, 1, 2), (0,))  # of `_terms`: what is tried, the most first
_STEPS = 40
_DEPTH = 9  # halvings: at most 512 slices


@dataclass(frozen=True, slots=True, eq=False)
class MomentWeights:
    """A factor exp(quadratic form) of two variables in every slice of a third."""

    cuts: FloatArray  # Between the slices, ascending, shape (n_slices − 1,)
    # The variables are counted in `width` from `centre`, up to three of them, shape (n_slices, 2)
    centre: FloatArray
    width: FloatArray
    coefficients: FloatArray  # Of 1, a, b, a², ab, b², shape (n_slices, 6)

    def factors(self, along: FloatArray, x: FloatArray) -> FloatArray:
        """Return the factors at `along`, shape (n,), and `x`, shape (n, 2)."""
        place = np.searchsorted(self.cuts, along)
        terms = _terms((x - self.centre[place]) / self.width[place])
        return np.asarray(np.exp(_exponent(terms, self.coefficients[place])))


def moment_weights(
    along: FloatArray, x: FloatArray, signed: FloatArray, positive: FloatArray, *, error: float
) -> MomentWeights:
    """Return factors after which positive weights have sum, means and second moments of the signed ones.

    Notes
    -----
    Calibration of survey weights by raking (Deville and Särndal, J. Am. Stat. Assoc. 87 (1992) 376, case 2):
    of all positive weights with these moments those nearest to the given ones, Σ w ln(w / w₀) smallest.
    Solved by Newton's method on its dual, which is convex.
    """
    if not error > 0:
        msg = f"moment_weights: error = {error!r} of the sum of a slice must be positive"
        raise UserError(msg)
    order = np.argsort(along, kind="stable")
    along, x, signed, positive = along[order], x[order], signed[order], positive[order]
    first = _slices(along, signed, error)
    number = np.diff([*first, len(along)])
    place = np.repeat(np.arange(len(first)), number)
    centre, width = _scale(x, positive, place, len(first))
    terms = _terms((x - centre[place]) / width[place])
    coefficients = np.zeros((len(first), terms.shape[1]))
    open_ = np.ones(len(first), dtype=bool)
    for columns in _MOMENTS:
        found, good = _raked(terms[:, columns], signed, positive, place, len(first))
        use = np.flatnonzero(open_ & good)
        coefficients[np.ix_(use, np.array(columns))] = found[use]
        open_ &= ~good
    cuts = 0.5 * (along[first[1:] - 1] + along[first[1:]])
    return MomentWeights(cuts, centre, width, coefficients)


def _slices(along: FloatArray, signed: FloatArray, error: float) -> np.ndarray:
    """Return the first index of every slice of sorted points."""
    total = np.concatenate([[0.0], np.cumsum(signed)])
    square = np.concatenate([[0.0], np.cumsum(signed**2)])

    def known(a: int, b: int) -> bool:
        value = total[b] - total[a]
        return bool(value > 0 and np.sqrt(square[b] - square[a]) <= error * value)

    waiting, first = [(0, len(along), 0)], []
    while waiting:
        a, b, depth = waiting.pop()
        half = (a + b) // 2
        # equal values stay together
        cut = a + int(np.searchsorted(along[a:b], along[half], "left")) if b > a else a
        if depth < _DEPTH and a < cut < b and known(a, cut) and known(cut, b):
            waiting += [(cut, b, depth + 1), (a, cut, depth + 1)]
        else:
            first.append(a)
    return np.array(first)


def _scale(x: FloatArray, weight: FloatArray, place: np.ndarray, n: int) -> tuple[FloatArray, FloatArray]:
    total = np.bincount(place, weight, n)[:, None]
    safe = np.where(total > 0, total, 1.0)
    centre = np.stack([np.bincount(place, weight * column, n) for column in x.T], axis=1) / safe
    square = (x - centre[place]) ** 2
    width = np.sqrt(np.stack([np.bincount(place, weight * column, n) for column in square.T], axis=1) / safe)
    return centre, np.where(width > 0, width, 1.0)


def _terms(scaled: FloatArray) -> FloatArray:
    a, b = np.clip(scaled, -_REACH, _REACH).T
    return np.stack([np.ones_like(a), a, b, a * a, a * b, b * b], axis=1)


def _exponent(terms: FloatArray, coefficients: FloatArray) -> FloatArray:
    result: FloatArray = np.clip(np.einsum("ij,ij->i", terms, coefficients), -_REACH, _REACH)
    return result


def _raked(
    terms: FloatArray, signed: FloatArray, positive: FloatArray, place: np.ndarray, n: int
) -> tuple[FloatArray, np.ndarray]:
    """Return coefficients, shape (n, n_terms), and where they give the moments, of all slices at once."""
    k = terms.shape[1]
    pairs = [(i, j) for i in range(k) for j in range(i, k)]

    def sums(weight: FloatArray) -> FloatArray:
        return np.stack([np.bincount(place, weight * terms[:, i], n) for i in range(k)], axis=1)

    target, found = sums(signed), np.zeros((n, k))
    size = np.bincount(place, positive, n)
    size = np.where(size > 0, size, 1.0)  # nothing to tilt: no step leads to the moments, the factor stays 1
    for _ in range(_STEPS):
        weight = positive * np.exp(_exponent(terms, found[place]))
        missing = target - sums(weight)
        good = np.abs(missing).max(axis=1) <= 1e-9 * size
        if good.all():
            break
        curve = np.zeros((n, k, k))
        for i, j in pairs:
            curve[:, i, j] = curve[:, j, i] = np.bincount(place, weight * terms[:, i] * terms[:, j], n)
        curve += 1e-9 * size[:, None, None] * np.eye(k)
        step = np.linalg.solve(curve, missing[:, :, None])[:, :, 0]
        largest = np.zeros(n)
        np.maximum.at(largest, place, np.abs(np.einsum("ij,ij->i", terms, step[place])))
        found += np.where(good, 0.0, np.minimum(1.0, 1.0 / np.maximum(largest, 1e-12)))[:, None] * step
    return found, good
