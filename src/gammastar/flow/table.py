"""A table of a flow at one mass: the same kinematics, some hundred times faster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray
from gammastar.core.sampling import Sampler
from gammastar.flow.model import KinematicFlow

__all__ = ["MassTable", "tabulate"]

_REACH = 7.0  # standard deviations; 3e-12 of the draws lie beyond and are put onto the edge


@numba.njit(cache=True)
def _lookup(z, log_pt, rapidity, mass, beam_energy, pt_out, energy_out):  # type: ignore[no-untyped-def]
    n1, (m1, m2) = len(log_pt) - 1, rapidity.shape
    m1, m2 = m1 - 1, m2 - 1
    for i in range(len(z)):
        first = min(max((z[i, 0] + 7.0) / 14.0, 0.0), 1.0)
        second = min(max((z[i, 1] + 7.0) / 14.0, 0.0), 1.0)
        a = first * n1
        k = min(int(a), n1 - 1)
        pt = np.exp(log_pt[k] + (a - k) * (log_pt[k + 1] - log_pt[k]))
        a, b = first * m1, second * m2
        j, k = min(int(a), m1 - 1), min(int(b), m2 - 1)
        a, b = a - j, b - k
        low = rapidity[j, k] + b * (rapidity[j, k + 1] - rapidity[j, k])
        high = rapidity[j + 1, k] + b * (rapidity[j + 1, k + 1] - rapidity[j + 1, k])
        grown = np.exp(low + a * (high - low))
        mt = np.sqrt(mass * mass + pt * pt)
        pt_out[i] = pt
        energy_out[i] = min(0.5 * mt * (grown + 1.0 / grown), beam_energy)


@dataclass(frozen=True, slots=True, eq=False)
class MassTable(Sampler):
    """p(pt, energy) of a flow at one mass, as a table over the normal numbers.

    Attributes
    ----------
    mass, beam_energy : float [GeV]
    log_pt : NDArray, shape (n,)
        ln pt at normal scores from −7 to 7.
    rapidity : NDArray, shape (n1, n2)
        Rapidity in the laboratory, at scores of the two normal numbers.
    error : float
        Largest relative difference of pt or energy from the flow for the same normal numbers, over all but
        1e-4 of the draws (see `tabulate`).
    """

    mass: float
    beam_energy: float
    log_pt: FloatArray
    rapidity: FloatArray
    error: float

    @property
    def mass_range(self) -> tuple[float, float]:
        """The one mass [GeV], twice."""
        return self.mass, self.mass

    def sample(self, mass: FloatArray, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        """Draw one (pt, energy) per entry of `mass`; all entries are the mass of the table."""
        mass = np.atleast_1d(np.asarray(mass, dtype=np.float64))
        return self.transform(mass, rng.standard_normal((mass.size, 2)))

    def draw(self, n: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        """Draw n points (pt, energy) [GeV]; single-precision normal numbers, the fastest way."""
        return self._looked_up(rng.standard_normal((n, 2), dtype=np.float32))

    def transform(self, mass: FloatArray, normal: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return pt and energy [GeV] of normal numbers, shape (n, 2); see `KinematicFlow.transform`."""
        if (mass != self.mass).any():
            wrong = float(mass[mass != self.mass][0])
            msg = f"the table is of mass {self.mass:.6g} GeV, not {wrong:.6g}; sample the flow itself"
            raise PhysicsError(msg)
        return self._looked_up(np.ascontiguousarray(normal))

    def _looked_up(self, normal: npt.NDArray[np.floating[Any]]) -> tuple[FloatArray, FloatArray]:
        pt, energy = np.empty(len(normal)), np.empty(len(normal))
        limit = float(np.nextafter(self.beam_energy, 0.0))
        _lookup(normal, self.log_pt, self.rapidity, self.mass, limit, pt, energy)
        return pt, energy


def tabulate(
    flow: KinematicFlow,
    mass: float,
    *,
    nodes: int = 769,
    tolerance: float = 2e-3,
    n_check: int = 100_000,
    rng: np.random.Generator,
) -> MassTable:
    """Return a table of a flow at one mass, tested against the flow.

    Parameters
    ----------
    flow : KinematicFlow
    mass : float [GeV]
    nodes : int
        Points along each normal number.
    tolerance : float
        Largest relative difference of pt and energy for the same normal numbers, but for 1e-4 of them.
    n_check : int
        Draws of the test.
    rng : numpy.random.Generator

    Returns
    -------
    MassTable

    Raises
    ------
    PhysicsError
        If the table is less exact than `tolerance`, or the mass lies outside the range of the flow.
    """
    score = np.linspace(-_REACH, _REACH, nodes)
    points = np.stack([a.ravel() for a in np.meshgrid(score, score, indexing="ij")], axis=-1)
    pt, energy = flow.transform(np.full(len(points), mass), points)
    pt, energy = pt.reshape(nodes, nodes)[:, 0], energy.reshape(nodes, nodes)
    mt = np.hypot(mass, pt)[:, None]
    rapidity = np.arccosh(np.maximum(energy / mt, 1.0))
    table = MassTable(float(mass), flow.beam_energy, np.log(pt), rapidity, np.inf)
    normal = rng.standard_normal((n_check, 2))
    ours, exact = (np.stack(f.transform(np.full(n_check, table.mass), normal)) for f in (table, flow))
    error = float(np.quantile(np.abs(ours / exact - 1.0).max(axis=0), 1.0 - 1e-4))
    if not error <= tolerance:
        msg = (
            f"the table at {mass:.6g} GeV differs from the flow by {error:.3g} > {tolerance:g}: "
            f"use more than {nodes} nodes, or sample the flow itself"
        )
        raise PhysicsError(msg)
    return MassTable(table.mass, table.beam_energy, table.log_pt, table.rapidity, error)
