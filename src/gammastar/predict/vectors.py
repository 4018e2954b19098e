"""Dark photons and other vectors as models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gammastar.core.constants import ALPHA, CTAU_PER_GEV, M_MU, M_PI_CHARGED
from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray
from gammastar.physics.qed import (
    RTable,
    dark_photon_branching,
    dark_photon_ctau,
    dark_photon_widths,
    lepton_width,
)
from gammastar.physics.vectors import CHARGES, Charges, Process, kinetic_mixing_loop, meson_parts
from gammastar.predict.model import Labels, Limits, Model

__all__ = [
    "DarkPhoton",
    "VectorModel",
    "rate_ratio",
]


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


_STATES = ("ee", "mumu", "tautau", "neutrinos", "hadrons")


@dataclass(frozen=True, slots=True)
class VectorModel(Model):
    """A vector X with given charges and coupling g.

    Attributes
    ----------
    charges : Charges
    r_table : RTable
        Of the electromagnetic current; used by loop-mixed vectors.

    Notes
    -----
    Hadronic widths: of a loop-mixed vector, R(m) Γ(μμ) of a dark photon with ε(m²). Of B − L and the
    protophobic vector, R split into what couples like ρ, ω and φ, each times its squared charge ratio (B − L:
    0, 4 and 1; protophobic: 1, 1 and 4), up to 1.03 GeV; heavier masses are refused. `hadronic_split`.
    """

    charges: Charges
    r_table: RTable

    @classmethod
    def named(cls, name: str, r_table: RTable) -> VectorModel:
        """Return "lmu_ltau", "b_minus_l" or "protophobic".

        Raises
        ------
        PhysicsError
            If there is none of that name.
        """
        if name not in CHARGES:
            msg = f"vector model {name!r} is not known; there are {', '.join(CHARGES)}"
            raise PhysicsError(msg)
        return cls(CHARGES[name], r_table)

    @property
    def condition(self) -> str:
        """Condition under which measured virtual photons predict this vector."""
        return self.charges.condition

    @property
    def labels(self) -> Labels:
        """X and g; limits on dark photons are recast."""
        plane = next((name for name, known in CHARGES.items() if known == self.charges), self.charges.name)
        return Labels(
            f"{self.charges.name} vectors", coupling_name="coupling g", limits="recast", plane=plane
        )

    def rate_ratio(
        self, mass: npt.ArrayLike, shares: Mapping[Process, npt.ArrayLike] | None = None
    ) -> FloatArray:
        """Return X per g² over dark photons per ε²; see `rate_ratio` of this module for the shares."""
        return rate_ratio(self.charges, mass, shares or {})

    def widths(self, mass: float) -> dict[str, float]:
        """Return partial widths per g² [GeV] into ee, mumu, tautau, neutrinos and hadrons."""
        found = {name: float(value) for name, value in self.charges.lepton_widths(mass).items()}
        found["hadrons"] = self._hadrons(mass)
        return found

    def _hadrons(self, mass: float) -> float:
        if self.charges.loop_mixing:
            epsilon2 = float(np.abs(kinetic_mixing_loop(mass**2)) ** 2)
            return epsilon2 * float(self.r_table.at(mass) * lepton_width(mass, M_MU))
        if mass <= 2 * M_PI_CHARGED:
            return 0.0
        massless = ALPHA * mass / 3
        measured = float(self.r_table.at(mass) * lepton_width(mass, M_MU)) / massless
        parts = meson_parts(mass, measured)
        squared = {name: float(self.charges.production_ratio(name, mass)) for name in parts}
        return massless * sum(squared[name] * float(part) for name, part in parts.items())

    def ctau(self, mass: float, coupling: npt.ArrayLike) -> FloatArray:
        """Return cτ [m]; inf at zero coupling."""
        g = np.asarray(coupling, dtype=np.float64)
        if not (np.isfinite(g) & (g >= 0)).all():
            msg = f"coupling {g!r} must be finite and not negative"
            raise PhysicsError(msg)
        with np.errstate(divide="ignore"):
            return np.asarray(CTAU_PER_GEV / (sum(self.widths(mass).values()) * g**2), dtype=np.float64)

    def branching(self, mass: float) -> dict[str, float]:
        """Return the branching ratios; zero at and below threshold."""
        widths = self.widths(mass)
        total = sum(widths.values())
        return {name: widths[name] / total if total > 0 else 0.0 for name in _STATES}

    def width_error(self, mass: float) -> float:
        """Return the relative error of the total width, that of R."""
        moved = VectorModel(self.charges, self.r_table.shifted(1.0))
        plain, other = (sum(model.widths(mass).values()) for model in (self, moved))
        return other / plain - 1.0 if plain > 0 else 0.0


def rate_ratio(charges: Charges, mass: npt.ArrayLike, shares: Mapping[Process, npt.ArrayLike]) -> FloatArray:
    """Return X per g² over dark photons per ε², summed over processes.

    Parameters
    ----------
    charges : Charges
    mass : array_like, shape (n,) [GeV]
    shares : mapping of process to array_like, shape (n,)
        Share of each process in the virtual photons at these masses; they sum to one. A loop-mixed vector
        needs none: its ratio is the same in all processes.

    Raises
    ------
    PhysicsError
        If shares are missing or do not sum to one.
    """
    m = np.atleast_1d(np.asarray(mass, dtype=np.float64))
    if charges.loop_mixing:
        return charges.production_ratio("bremsstrahlung", m)
    if not shares:
        msg = f"{charges.name}: {charges.condition}"
        raise PhysicsError(msg)
    columns = {name: np.broadcast_to(np.asarray(value, float), m.shape) for name, value in shares.items()}
    total = np.sum(list(columns.values()), axis=0)
    if not np.allclose(total, 1.0, atol=1e-6):
        msg = f"{charges.name}: shares of the processes sum to {total.min():g} … {total.max():g}, not to one"
        raise PhysicsError(msg)
    parts = [share * charges.production_ratio(name, m) for name, share in columns.items()]
    return np.asarray(np.sum(parts, axis=0), dtype=np.float64)
