"""Uncertainties of rates and yields by source, with their correlation between masses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray
from gammastar.core.sources import MEASUREMENT, POT, Source, Sources

__all__ = ["Budget", "budget"]


@dataclass(frozen=True, slots=True, eq=False)
class Budget:
    """Covariances of one prediction by source.

    Attributes
    ----------
    value : NDArray, shape (n,)
        Rate or yield at each mass.
    sources : Sources
    """

    value: FloatArray
    sources: Sources

    @property
    def parts(self) -> dict[str, FloatArray]:
        """Covariances by name, shape (n, n) each."""
        return {part.name: part.cov for part in self.sources.parts}

    @property
    def total(self) -> FloatArray:
        """Covariance of all sources together, shape (n, n)."""
        return self.sources.total()

    def relative(self, source: str | None = None) -> FloatArray:
        """Return the relative standard deviation of one source or of all, shape (n,); nan where zero."""
        cov = self.total if source is None else self.sources.named(source).cov
        sigma = np.sqrt(np.clip(np.diag(cov), 0.0, None))
        result: FloatArray = np.full(self.value.shape, np.nan)
        np.divide(sigma, np.abs(self.value), out=result, where=self.value != 0)
        return result

    def scaled(self, factor: npt.ArrayLike) -> Budget:
        """Return the budget of value × factor, e.g. of a yield with its acceptance."""
        f = np.broadcast_to(np.asarray(factor, dtype=np.float64), self.value.shape)
        return Budget(self.value * f, self.sources.scaled(f))


def budget(
    value: npt.ArrayLike,
    *,
    measured: npt.ArrayLike,
    pot: float = 0.0,
    common: Mapping[str, float] | None = None,
    shifts: Mapping[str, npt.ArrayLike] | None = None,
    ensembles: Mapping[str, npt.ArrayLike] | None = None,
) -> Budget:
    """Put the uncertainties of a prediction together.

    Parameters
    ----------
    value : array_like, shape (n,)
        Nominal rate or yield at each mass.
    measured : array_like, shape (n, n)
        Covariance of the unfolded spectrum carried to the rate: subtraction, unfolding, statistics.
    pot : float
        Relative uncertainty of the protons on target, common to all masses.
    common : mapping of str to float
        Further relative uncertainties common to all masses, e.g. of A^α.
    shifts : mapping of str to array_like, shape (n,) or (2, n)
        Predictions under a variation: one alternative, or the two ends of a range (half their distance
        counts), e.g. "charm" without and "polarisation" with λθ up and down. Fully correlated in mass.
    ensembles : mapping of str to array_like, shape (r, n)
        Predictions of r replicas, e.g. "flow" for an ensemble of generators: their covariance counts.

    Raises
    ------
    PhysicsError
        If shapes do not fit, or two sources have one name.
    """
    nominal = np.atleast_1d(np.asarray(value, dtype=np.float64))
    n = len(nominal)
    parts = [Source(MEASUREMENT, "spectrum", _shaped("measured", measured, (n, n)))]
    parts.append(Source.shifted(POT, "pot", nominal * pot))
    for name, sigma in (common or {}).items():
        parts.append(Source.shifted(name, "scaling", nominal * sigma))
    for name, rows in (shifts or {}).items():
        array = np.atleast_2d(np.asarray(rows, dtype=np.float64))
        if array.shape not in ((1, n), (2, n)):
            msg = f"budget: {name!r} has shape {array.shape}, expected ({n},) or (2, {n})"
            raise PhysicsError(msg)
        half = array[0] - nominal if len(array) == 1 else 0.5 * (array[0] - array[1])
        parts.append(Source.shifted(name, "spectrum", half))
    for name, rows in (ensembles or {}).items():
        array = np.atleast_2d(np.asarray(rows, dtype=np.float64))
        if array.shape[1] != n or len(array) < 2:
            msg = f"budget: ensemble {name!r} has shape {array.shape}, expected (replicas >= 2, {n})"
            raise PhysicsError(msg)
        parts.append(Source.spread(name, "kinematics", array))
    return Budget(nominal, Sources(tuple(parts)))


def _shaped(name: str, array: npt.ArrayLike, shape: tuple[int, ...]) -> FloatArray:
    values = np.asarray(array, dtype=np.float64)
    if values.shape != shape:
        msg = f"budget: {name!r} has shape {values.shape}, expected {shape}"
        raise PhysicsError(msg)
    return values
