"""Density estimates that the data-driven paper names beside its flow: kernels and Gaussian mixtures."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp
from sklearn.mixture import GaussianMixture

from gammastar.core.errors import PhysicsError
from gammastar.core.records import BoolArray, FloatArray
from gammastar.core.sampling import Sampler

__all__ = ["KernelSampler", "MixtureSampler"]

ROUNDS = 1000  # of redrawing unphysical points
CHUNK = 2048  # masses at a time


def _physical(mass: FloatArray, pt: FloatArray, energy: FloatArray, beam_energy: float) -> BoolArray:
    return np.asarray((pt > 0) & (energy > np.hypot(mass, pt)) & (energy < beam_energy))


def _sample_of(pairs: FloatArray, weight: FloatArray | None, name: str) -> tuple[FloatArray, FloatArray]:
    pairs = np.asarray(pairs, dtype=np.float64)
    weight = np.ones(len(pairs)) if weight is None else np.asarray(weight, dtype=np.float64)
    good = pairs.ndim == 2 and pairs.shape[1] == 3 and weight.shape == (len(pairs),) and len(pairs) >= 100
    if not good or not (pairs > 0).all() or not (weight >= 0).all() or not weight.sum() > 0:
        msg = (
            f"{name}: pairs {pairs.shape} must be (n ≥ 100, 3), all positive, with weights "
            "that are not negative and not all zero"
        )
        raise PhysicsError(msg)
    kept = weight > 0
    return pairs[kept], weight[kept]


class _LogSampler(Sampler, ABC):
    """Common part: draws in (ln pt, ln E), unphysical ones again."""

    _range: tuple[float, float]
    _beam_energy: float

    @property
    def mass_range(self) -> tuple[float, float]:
        """Lowest and highest mass that can be sampled [GeV]."""
        return self._range

    @abstractmethod
    def _draw(self, mass: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Return (ln pt, ln E), shape (n, 2)."""

    def sample(self, mass: FloatArray, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        """Draw one (pt, energy) per entry of `mass`; see `Sampler.sample`."""
        mass = np.atleast_1d(np.asarray(mass, dtype=np.float64))
        low, high = self._range
        if not ((mass >= low) & (mass <= high)).all():
            msg = (
                f"masses {mass.min():.6g} to {mass.max():.6g} GeV leave the range {low:.6g} to {high:.6g} GeV"
            )
            raise PhysicsError(msg)
        pt, energy = np.empty_like(mass), np.empty_like(mass)
        left = np.arange(mass.size)
        for _ in range(ROUNDS):
            if not left.size:
                return pt, energy
            pt[left], energy[left] = np.exp(self._draw(mass[left], rng)).T
            left = left[~_physical(mass[left], pt[left], energy[left], self._beam_energy)]
        msg = f"no physical point at mass = {mass[left[0]]:.6g} GeV in {ROUNDS} draws"
        raise PhysicsError(msg)


class KernelSampler(_LogSampler):
    """Kernel density estimate: a pair of near mass, moved by a Gaussian in (ln pt, ln E).

    Parameters
    ----------
    pairs : NDArray, shape (n, 3) [GeV]
        mass, pt, energy.
    weight : NDArray, shape (n,), optional
        Not negative.
    beam_energy : float [GeV]
    mass_width : float [GeV]
        Standard deviation of the kernel in mass; 0.01 by default.
    bandwidth : float
        Multiplies Silverman's width in (ln pt, ln E), of the pairs that one mass uses.

    Notes
    -----
    p(x | m) = Σ w K(m − mᵢ) K(x − xᵢ) / Σ w K(m − mᵢ); Silverman's rule for two dimensions,
    n_eff^(−1/6) standard deviations.
    """

    def __init__(
        self,
        pairs: FloatArray,
        weight: FloatArray | None = None,
        *,
        beam_energy: float,
        mass_width: float = 0.01,
        bandwidth: float = 1.0,
    ) -> None:
        pairs, weight = _sample_of(pairs, weight, "KernelSampler")
        if not mass_width > 0 or not bandwidth > 0:
            msg = f"KernelSampler: mass_width = {mass_width} and bandwidth = {bandwidth} must be positive"
            raise PhysicsError(msg)
        order = np.argsort(pairs[:, 0], kind="stable")
        self._mass = pairs[order, 0]
        self._logs = np.log(pairs[order, 1:])
        self._cumulative = np.concatenate([[0.0], np.cumsum(weight[order])])
        self._squares = np.concatenate([[0.0], np.cumsum(weight[order] ** 2)])
        self._width, self._bandwidth = mass_width, bandwidth
        self._beam_energy = beam_energy
        self._range = (float(self._mass[0]), float(self._mass[-1]))
        self._spread = np.sqrt(np.average((self._logs - self._logs.mean(axis=0)) ** 2, axis=0))

    def _draw(self, mass: FloatArray, rng: np.random.Generator) -> FloatArray:
        index = self._neighbour(mass, rng)
        low, high = (np.searchsorted(self._mass, mass + s * self._width) for s in (-2.0, 2.0))
        total = self._cumulative[high] - self._cumulative[low]
        square = self._squares[high] - self._squares[low]
        n_eff = np.divide(total**2, square, out=np.ones_like(total), where=square > 0)
        step = self._bandwidth * np.maximum(n_eff, 1.0) ** (-1.0 / 6.0)
        moved: FloatArray = self._logs[index] + step[:, None] * self._spread * rng.standard_normal(
            (mass.size, 2)
        )
        return moved

    def _neighbour(self, mass: FloatArray, rng: np.random.Generator) -> npt.NDArray[np.int64]:
        """Draw a pair by weight, Gaussian in mass: uniform in a wide window, then accepted."""
        low, high = (np.searchsorted(self._mass, mass + s * 4.0 * self._width) for s in (-1.0, 1.0))
        nearest = np.clip(np.searchsorted(self._mass, mass), 0, len(self._mass) - 1)
        index = nearest.astype(np.int64)
        left = np.flatnonzero(self._cumulative[high] > self._cumulative[low])
        for _ in range(200):  # an empty kernel keeps the nearest pair
            if not left.size:
                break
            first, last = self._cumulative[low[left]], self._cumulative[high[left]]
            place = (
                np.searchsorted(self._cumulative, first + rng.random(left.size) * (last - first), "right") - 1
            )
            place = np.clip(place, 0, len(self._mass) - 1)
            chance = np.exp(-0.5 * ((self._mass[place] - mass[left]) / self._width) ** 2)
            good = rng.random(left.size) < chance
            index[left[good]] = place[good]
            left = left[~good]
        return index


class MixtureSampler(_LogSampler):
    """Gaussian mixture in (ln m, ln pt, ln E), conditioned on the mass.

    Parameters
    ----------
    pairs : NDArray, shape (n, 3) [GeV]
        mass, pt, energy.
    weight : NDArray, shape (n,), optional
        Not negative; the pairs are resampled by it.
    beam_energy : float [GeV]
    components : int
    rng : numpy.random.Generator
    """

    def __init__(
        self,
        pairs: FloatArray,
        weight: FloatArray | None = None,
        *,
        beam_energy: float,
        components: int = 40,
        rng: np.random.Generator,
    ) -> None:
        pairs, weight = _sample_of(pairs, weight, "MixtureSampler")
        chosen = rng.choice(len(pairs), size=min(len(pairs), 100_000), p=weight / weight.sum())
        logs = np.log(pairs[chosen])
        self._centre, self._scale = logs.mean(axis=0), np.maximum(logs.std(axis=0), 1e-9)
        model = GaussianMixture(
            components, reg_covar=1e-5, max_iter=60, random_state=int(rng.integers(2**31)), tol=1e-3
        )
        with np.errstate(all="ignore"):
            model.fit((logs - self._centre) / self._scale)
        self._log_share = np.log(model.weights_)
        self._mean, covariance = model.means_, model.covariances_
        self._variance = covariance[:, 0, 0]
        self._slope = covariance[:, 1:, 0] / self._variance[:, None]
        rest = covariance[:, 1:, 1:] - self._slope[:, :, None] * covariance[:, None, 0, 1:]
        self._root = np.linalg.cholesky(rest)
        self._beam_energy = beam_energy
        self._range = (float(pairs[:, 0].min()), float(pairs[:, 0].max()))

    def _draw(self, mass: FloatArray, rng: np.random.Generator) -> FloatArray:
        x = (np.log(mass) - self._centre[0]) / self._scale[0]
        parts = [self._conditional(one, rng) for one in np.array_split(x, max(1, x.size // CHUNK))]
        drawn: FloatArray = self._centre[1:] + self._scale[1:] * np.concatenate(parts)
        return drawn

    def _conditional(self, x: FloatArray, rng: np.random.Generator) -> FloatArray:
        gap = x[:, None] - self._mean[:, 0]
        log_density = self._log_share - 0.5 * gap**2 / self._variance - 0.5 * np.log(self._variance)
        share = np.exp(log_density - logsumexp(log_density, axis=1, keepdims=True))
        k = (np.cumsum(share, axis=1) < rng.random(x.size)[:, None]).sum(axis=1).clip(max=len(self._mean) - 1)
        mean = self._mean[k, 1:] + self._slope[k] * gap[np.arange(x.size), k, None]
        noise = np.einsum("nij,nj->ni", self._root[k], rng.standard_normal((x.size, 2)))
        return np.asarray(mean + noise, dtype=np.float64)
