"""Random streams by name, what draws kinematics at a mass, and bootstrap weights that the event decides."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from gammastar.core.errors import UserError, require
from gammastar.core.records import BoolArray, FloatArray, IntArray, Rng


def stream(seed: int, *names: str | int) -> Rng:
    """Return the random generator of a named purpose, whatever others are asked for, in whatever order."""
    words = [seed]
    for name in names:
        digest = hashlib.sha256(str(name).encode()).digest()
        words.append(int.from_bytes(digest[:8], "little"))
    return Rng(np.random.Philox(np.random.SeedSequence(words)))


def systematic(weight: FloatArray, n: int, rng: Rng) -> IntArray:
    """Return the indices of `n` entries, drawn systematically with their weights and put out of order."""
    steps = (np.arange(n) + rng.uniform()) / n
    index = np.searchsorted(np.cumsum(weight) / weight.sum(), steps, side="right")
    return rng.permutation(np.minimum(index, len(weight) - 1))


class Sampler(ABC):
    """Draws the kinematics of a virtual photon at a given mass."""

    @abstractmethod
    def sample(self, mass: FloatArray, rng: Rng) -> tuple[FloatArray, FloatArray]:
        """Draw one (pt, energy) per entry of `mass`."""

    @property
    @abstractmethod
    def mass_range(self) -> tuple[float, float]:
        """Lowest and highest mass that can be sampled [GeV]."""


@runtime_checkable
class Transport(Protocol):
    """A sampler that is a map of two normal numbers."""

    @property
    def mass_range(self) -> tuple[float, float]:
        """Lowest and highest mass that can be sampled [GeV]."""

    def transform(self, mass: FloatArray, normal: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return pt and energy [GeV], (n,), of masses (n,) and normal numbers (n, 2)."""


def at_mass(sampler: Transport, mass: float) -> Callable[[FloatArray], tuple[FloatArray, FloatArray]]:
    """Return the map of normal numbers (n, 2) to pt and energy [GeV] at one mass [GeV]."""
    own = getattr(sampler, "at_mass", None)
    if own is not None:
        found: Callable[[FloatArray], tuple[FloatArray, FloatArray]] = own(mass)
        return found
    return lambda normal: sampler.transform(np.full(len(normal), mass), normal)


SeedArray = npt.NDArray[np.uint64]

# P(X ≤ k) of a Poisson law of mean 1, k = 0 … 12; beyond it the probability is below 1e-10
_CUMULATIVE = np.cumsum(np.exp(-1) / np.cumprod(np.concatenate([[1.0], np.arange(1.0, 13.0)])))


def mixed(word: SeedArray) -> SeedArray:
    """Return words with well-mixed bits: the finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014)."""
    word = word + np.uint64(0x9E3779B97F4A7C15)
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(word ^ (word >> np.uint64(31)))


def event_seeds(event: IntArray, *, dataset: str = "", run: int = 0) -> SeedArray:
    """Return one seed per pair, a hash of (dataset, run, event)."""
    name = int.from_bytes(hashlib.sha256(dataset.encode()).digest()[:8], "little")
    start = mixed(np.array([name], dtype=np.uint64)) ^ mixed(np.array([run], dtype=np.int64).view(np.uint64))
    return mixed(np.ascontiguousarray(event, dtype=np.int64).view(np.uint64) ^ start)


def uniform(seed: SeedArray) -> FloatArray:
    """Return a number in [0, 1) per seed."""
    return np.asarray((seed >> np.uint64(11)) * 2.0**-53)


def sampled(event: IntArray, share: float, *, dataset: str = "") -> BoolArray:
    """Return True for events of a sample with this share; a smaller sample lies in a larger one."""
    return np.asarray(uniform(event_seeds(event, dataset=dataset)) < share)


def replica_weights(seed: SeedArray, replicas: int | range) -> FloatArray:
    """Return Poisson(1) weights of bootstrap replicas."""
    numbers = range(replicas) if isinstance(replicas, int) else replicas
    require(len(numbers), "replica_weights: at least one replica is needed", UserError)
    result = np.empty((len(numbers), len(seed)))
    for row, number in zip(result, numbers, strict=True):
        salt = mixed(np.array([number + 1], dtype=np.uint64))
        for start in range(0, len(seed), _CACHED):
            part = slice(start, start + _CACHED)
            row[part] = _poisson(mixed(seed[part] ^ salt))
    return result


_CACHED = 8192  # words at a time: all work arrays stay in the cache
_BITS = 16


def _table() -> npt.NDArray[np.int8]:
    """Return the Poisson quantile of all words with the same first bits, −1 where they do not decide it."""
    edges = np.arange(2**_BITS + 1) / 2**_BITS
    low = np.searchsorted(_CUMULATIVE, edges[:-1], side="right")
    return np.where(low == np.searchsorted(_CUMULATIVE, edges[1:], side="left"), low, -1).astype(np.int8)


_QUANTILE = _table()


def _poisson(word: SeedArray) -> npt.NDArray[np.int8]:
    """Return the quantile of a Poisson law of mean 1 at the number in [0, 1) that each word stands for."""
    quantile = _QUANTILE[(word >> np.uint64(64 - _BITS)).astype(np.intp)]
    open_ = np.flatnonzero(quantile < 0)
    quantile[open_] = np.searchsorted(_CUMULATIVE, uniform(word[open_]), side="right")
    return quantile
