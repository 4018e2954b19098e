"""What a dark photon adds to the anomalous magnetic moment of the muon."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from gammastar.core.constants import ALPHA, M_MU
from gammastar.core.errors import PhysicsError, require
from gammastar.core.files import data_path
from gammastar.core.records import FloatArray

DEFAULT = "wp25"
NODES = 400


@dataclass(frozen=True, slots=True)
class Reference:
    """A measured minus a predicted anomaly."""

    name: str
    label: str
    source: str
    # Δa_μ and its standard deviation
    difference: float
    sigma: float
    verified: bool  # False where a number was not confirmed in its source

    def interval(self, n_sigma: float = 2.0) -> tuple[float, float]:
        """Return Δa_μ at ± n standard deviations; a lower end below zero is set to zero."""
        return max(self.difference - n_sigma * self.sigma, 0.0), self.difference + n_sigma * self.sigma

    def band(self, mass: npt.ArrayLike, n_sigma: float = 2.0) -> FloatArray:
        """Return the kinetic mixing at both ends, shape (2, *mass.shape); zero below is an upper limit."""
        return np.stack([epsilon_for(mass, end) for end in self.interval(n_sigma)])


def _integral(mass: npt.ArrayLike) -> FloatArray:
    """Return ∫ dz 2 m² z (1−z)²/(m² (1−z)² + M² z) over (0, 1)."""
    m = np.asarray(mass, dtype=np.float64)[..., None]
    x, weight = np.polynomial.legendre.leggauss(NODES)
    t = 0.5 * (x + 1.0)
    z = t**4 * (35.0 - 84.0 * t + 70.0 * t**2 - 20.0 * t**3)  # smooth step: nodes crowd at both ends
    jacobian = 140.0 * t**3 * (1.0 - t) ** 3
    kernel = 2.0 * M_MU**2 * z * (1.0 - z) ** 2 / (M_MU**2 * (1.0 - z) ** 2 + m**2 * z)
    return np.asarray((0.5 * weight * jacobian * kernel).sum(axis=-1))


def delta_a(mass: npt.ArrayLike, epsilon: npt.ArrayLike) -> FloatArray:
    """Return Δa_μ of a dark photon with vector couplings ε e.

    Δa_μ = (α ε²/2π) ∫₀¹ dz 2 m_μ² z (1−z)²/(m_μ² (1−z)² + M² z), arXiv:0811.1030; α ε²/2π for a massless and
    α ε² m_μ²/(3π M²) for a heavy dark photon.
    """
    m = np.asarray(mass, dtype=np.float64)
    require((np.isfinite(m) & (m >= 0)).all(), f"dark photon mass {m!r} GeV must be finite and not negative")
    return np.asarray(ALPHA * np.square(epsilon) / (2.0 * np.pi) * _integral(m))


def epsilon_for(mass: npt.ArrayLike, delta: npt.ArrayLike) -> FloatArray:
    """Return the kinetic mixing that gives Δa_μ = delta, zero where delta ≤ 0."""
    return np.asarray(np.sqrt(np.clip(delta, 0.0, None) / delta_a(mass, 1.0)))


@cache
def _file() -> dict[str, Any]:
    return tomllib.loads(data_path("semivisible/gm2.toml").read_text())


def reference_names() -> tuple[str, ...]:
    """Return the names of the shipped comparisons."""
    return tuple(_file())


def reference(name: str = DEFAULT) -> Reference:
    """Return a shipped comparison of measurement and prediction."""
    if name not in _file():
        raise PhysicsError(f"muon g-2 reference {name!r}: choose one of {', '.join(_file())}")
    row = _file()[name]
    difference, sigma = 1e-11 * row["difference"], 1e-11 * row["sigma"]
    return Reference(name, row["label"], row["source"], difference, sigma, row["verified"])
