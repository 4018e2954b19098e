"""Dark photons per electron on a thick target, and their energies (first generation of the shower)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray
from gammastar.physics.dark_brem import LEAD, Correction, Material, energy_nodes, track_length, ww_spectrum

__all__ = ["ThickTarget", "thick_target"]

AVOGADRO = 6.02214076e23
PB_CM2 = 1e-36
ELECTRONS, POINTS = 24, 400


@dataclass(frozen=True, slots=True, eq=False)
class ThickTarget:
    """Production of dark photons of one mass by electrons that lose energy in a target.

    Attributes
    ----------
    mass, beam, threshold : float
        [GeV]; only dark photons above the threshold are counted.
    per_electron : float
        Dark photons per electron on target and ε².
    cumulative, energy : NDArray, shape (k,)
        Cumulative distribution of the energy of the dark photon [GeV].
    """

    mass: float
    beam: float
    threshold: float
    per_electron: float
    cumulative: FloatArray
    energy: FloatArray

    def sample(self, n: int, rng: np.random.Generator) -> FloatArray:
        """Draw dark photons along z, shape (n, 4): px, py, pz, E [GeV].

        Their angle, of order M/E or smaller, moves no decay between sections of a calorimeter: left out.
        """
        energy = np.interp(rng.random(n), self.cumulative, self.energy)
        photons = np.zeros((n, 4))
        photons[:, 2] = np.sqrt(energy**2 - self.mass**2)
        photons[:, 3] = energy
        return photons


def thick_target(
    mass: float,
    *,
    beam: float,
    threshold: float,
    material: Material = LEAD,
    correction: Correction | None = None,
) -> ThickTarget:
    """Return yield and energies of dark photons from an electron beam in a thick target.

    Parameters
    ----------
    mass, beam, threshold : float [GeV]
    material : Material
    correction : Correction, optional
        Divides the Weizsaecker-Williams cross-section by K(M, E).

    Raises
    ------
    PhysicsError
        If no dark photon can have more than the threshold.

    Notes
    -----
    N = (N_A X₀/A) ∫ dE T(E) ∫_{xE > threshold} dx dσ/dx, the integral of T over slices of E
    being in closed form.
    """
    lowest = max(threshold, mass)
    if lowest >= beam:
        msg = f"dark photon of {mass:g} GeV above {threshold:g} GeV from a beam of {beam:g} GeV: not possible"
        raise PhysicsError(msg)
    # Slices that shrink towards the beam energy, where most of the path lies.
    edges = beam - (beam - lowest) * np.linspace(0.0, 1.0, ELECTRONS + 1) ** 3
    path = np.diff(track_length(edges, beam))
    centre = 0.5 * (edges[1:] + edges[:-1])
    grid = beam - (beam - lowest) * np.geomspace(1.0, 1e-6, POINTS)
    density = np.zeros(POINTS)
    yields = 0.0
    for electron, length in zip(centre, path, strict=True):
        k = 1.0 if correction is None else float(correction.at(mass, electron))
        x, weight = energy_nodes(mass, float(electron), threshold)
        if not x.size:
            continue
        yields += length / k * float((ww_spectrum(x, mass, float(electron), material) * weight).sum())
        density += length / k * ww_spectrum(grid / electron, mass, float(electron), material) / electron
    step = 0.5 * np.diff(grid) * (density[1:] + density[:-1])
    cumulative = np.concatenate([[0.0], np.cumsum(step)])
    per_area = AVOGADRO * material.radiation_length / material.a * PB_CM2
    return ThickTarget(
        mass=mass,
        beam=beam,
        threshold=threshold,
        per_electron=yields * per_area,
        cumulative=cumulative / cumulative[-1],
        energy=grid,
    )
