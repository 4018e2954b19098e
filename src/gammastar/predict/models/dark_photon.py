"""The minimal dark photon: kinetic mixing alone, no lighter dark states."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gammastar.core.records import FloatArray
from gammastar.physics.qed import RTable, dark_photon_branching, dark_photon_ctau, dark_photon_widths
from gammastar.predict.model import Labels, Limits, Model

__all__ = ["DarkPhoton"]


@dataclass(frozen=True, slots=True)
class DarkPhoton(Model):
    """Dark photon with decays to e+e−, μ+μ− and hadrons; the coupling is ε.

    Attributes
    ----------
    r_table : RTable
        R(m) for the hadronic width.
    """

    r_table: RTable

    @property
    def labels(self) -> Labels:
        """A′ and ε; published limits hold as they are, but not for a class derived from this one."""
        plain = type(self) is DarkPhoton
        limits: Limits = "published" if plain else "none"
        plane = "dark_photon" if plain else ""
        return Labels("dark photons", "A′", "ε", "kinetic mixing", limits=limits, plane=plane)

    def rate_ratio(self, mass: npt.ArrayLike) -> FloatArray:
        """Return ones."""
        return np.ones_like(np.atleast_1d(np.asarray(mass, dtype=np.float64)))

    def ctau(self, mass: float, coupling: npt.ArrayLike) -> FloatArray:
        """Return cτ ∝ 1/ε² [m]; see `gammastar.physics.qed.dark_photon_ctau`."""
        return dark_photon_ctau(mass, coupling, self.r_table)

    def branching(self, mass: float) -> dict[str, float]:
        """Return the branching ratios into "ee", "mumu" and "hadrons", zero at and below threshold."""
        return {name: float(value) for name, value in dark_photon_branching(mass, self.r_table).items()}

    def width_error(self, mass: float) -> float:
        """Return the relative error of the total width, that of R."""
        plain, moved = (
            sum(float(part) for part in dark_photon_widths(mass, table).values())
            for table in (self.r_table, self.r_table.shifted(1.0))
        )
        return moved / plain - 1.0 if plain > 0 else 0.0
