"""The histogram sampler: kinematics at given mass straight from the cells of a spectrum."""

from __future__ import annotations

import logging

import numpy as np
import numpy.typing as npt

from gammastar.core.errors import PhysicsError
from gammastar.core.records import KINEMATICS, FloatArray, Spectrum
from gammastar.core.sampling import Sampler

log = logging.getLogger(__name__)

ROUNDS = 1000  # of redrawing; each keeps at least half of what is left


class HistSampler(Sampler):
    """Draws (pt, energy) at given mass from a spectrum in mass, pt and energy.

    A cell is drawn with the probability of its content in the mass bin, then a point uniformly in the part of
    the cell that is physical at this mass. Cells of negative content, as a subtraction leaves them, are never
    drawn. A mass in an empty bin takes the nearest bin that has content.

    Parameters
    ----------
    spectrum : Spectrum
        Axes mass, pt and energy in any order.
    beam_energy : float, optional
        [GeV]; that of the spectrum's exposure by default.

    Raises
    ------
    PhysicsError
        If an axis or the beam energy is missing, or no cell has content inside the physical limits.
    """

    def __init__(self, spectrum: Spectrum, *, beam_energy: float | None = None) -> None:
        names = [axis.name for axis in spectrum.hist.axes]
        if sorted(names) != sorted(KINEMATICS):
            msg = f"HistSampler needs the axes {', '.join(KINEMATICS)}; the spectrum has {names}"
            raise PhysicsError(msg)
        if beam_energy is None:
            if spectrum.exposure is None:
                msg = "HistSampler: the spectrum has no exposure; give beam_energy"
                raise PhysicsError(msg)
            beam_energy = spectrum.exposure.beam_energy
        self._beam_energy = float(beam_energy)
        order = [names.index(name) for name in KINEMATICS]
        mass, pt, energy = (np.asarray(spectrum.hist.axes[i].edges, dtype=np.float64) for i in order)
        content = spectrum.values.transpose(order)
        negative = float(-content[content < 0].sum())
        content = np.clip(content, 0, None)
        if negative > 0:
            log.info("HistSampler: cells of negative content hold %.3g of %.3g", negative, content.sum())
        self._mass_edges = mass
        low_pt, low_energy = (a.ravel() for a in np.meshgrid(pt[:-1], energy[:-1], indexing="ij"))
        high_pt, high_energy = (a.ravel() for a in np.meshgrid(pt[1:], energy[1:], indexing="ij"))
        high_energy = np.minimum(high_energy, self._beam_energy)
        self._cells = (np.maximum(low_pt, 0.0), high_pt, low_energy, high_energy)
        # the heaviest mass a cell can hold: at its lowest pt and highest energy
        reach2 = np.where(high_energy > low_energy, high_energy**2 - self._cells[0] ** 2, 0.0)
        self._cell_mass = np.sqrt(np.clip(reach2, 0, None))
        flat = content.reshape(len(mass) - 1, -1) * (self._cell_mass > mass[:-1, None])
        total = flat.sum(axis=1)
        full = np.flatnonzero(total > 0)
        if not full.size:
            raise PhysicsError(
                "HistSampler: no cell has positive content inside the physical limits; see the axes of "
                "[select], [unfold] and [flow]"
            )
        empty = int((total[full[0] : full[-1] + 1] <= 0).sum())
        if empty:
            log.warning("HistSampler: %d mass bins are empty; their neighbours are drawn from instead", empty)
        self._range = (float(mass[full[0]]), float(mass[full[-1] + 1]))
        bins = np.arange(len(total))
        self._row = np.abs(bins[:, None] - full).argmin(axis=1)
        # one increasing array for all mass bins: that of row k runs from k to k + 1
        self._cumulative = np.cumsum(flat[full] / total[full, None], axis=1)
        self._cumulative /= self._cumulative[:, -1:]
        self._heaviest = np.where(flat[full] > 0, self._cell_mass, 0.0).max(axis=1)

    @property
    def mass_range(self) -> tuple[float, float]:
        """Lowest and highest mass that can be sampled [GeV]."""
        return self._range

    @property
    def beam_energy(self) -> float:
        """Upper limit of the energy [GeV]."""
        return self._beam_energy

    def _draw_cells(
        self, row: npt.NDArray[np.int64], mass: FloatArray, rng: np.random.Generator
    ) -> npt.NDArray[np.int64]:
        """Draw a cell per mass among those that are physical at it."""
        n_cells = self._cumulative.shape[1]
        line = (self._cumulative + np.arange(len(self._cumulative))[:, None]).ravel()
        cell = np.zeros(len(mass), dtype=np.int64)
        left = np.arange(len(mass))
        while left.size:
            place = np.searchsorted(line, row[left] + rng.random(left.size), side="right")
            cell[left] = np.clip(place - row[left] * n_cells, 0, n_cells - 1)
            left = left[self._cell_mass[cell[left]] <= mass[left]]
        return cell

    def sample(self, mass: FloatArray, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        """Draw one (pt, energy) per entry of `mass`.

        Parameters
        ----------
        mass : NDArray, shape (n,) [GeV]

        Returns
        -------
        pt, energy : NDArray, shape (n,) [GeV]
            Inside energy ≥ √(mass² + pt²) and energy < beam energy.

        Raises
        ------
        PhysicsError
            If a mass lies outside `mass_range`, or is too heavy for every cell of its bin.

        Notes
        -----
        The length of the allowed energies is concave in pt inside a cell and largest at its lower edge:
        accepting pt in proportion to it keeps at least one half.
        """
        mass = np.atleast_1d(np.asarray(mass, dtype=np.float64))
        low, high = self._range
        if not ((mass >= low) & (mass <= high)).all():
            msg = f"HistSampler: masses {mass.min()} to {mass.max()} GeV leave the range {low} to {high} GeV"
            raise PhysicsError(msg)
        index = np.searchsorted(self._mass_edges, mass, side="right") - 1
        row = self._row[np.clip(index, 0, len(self._mass_edges) - 2)]
        if (mass >= self._heaviest[row]).any():
            worst = mass[mass >= self._heaviest[row]][0]
            msg = f"HistSampler: no populated cell allows energy > mass at {worst} GeV; widen the energy axis"
            raise PhysicsError(msg)
        cell = self._draw_cells(row, mass, rng)
        return self._draw_points(cell, mass, rng)

    def _draw_points(
        self, cell: npt.NDArray[np.int64], mass: FloatArray, rng: np.random.Generator
    ) -> tuple[FloatArray, FloatArray]:
        low_pt, high_pt, low_energy, high_energy = (edge[cell] for edge in self._cells)
        high_pt = np.minimum(high_pt, np.sqrt(np.clip(high_energy**2 - mass**2, 0, None)))
        longest = high_energy - np.maximum(low_energy, np.hypot(mass, low_pt))
        pt = np.zeros_like(mass)
        left = np.arange(len(mass))
        for _ in range(ROUNDS):
            if not left.size:
                break
            trial = low_pt[left] + rng.random(left.size) * (high_pt - low_pt)[left]
            length = high_energy[left] - np.maximum(low_energy[left], np.hypot(mass[left], trial))
            pt[left] = trial
            left = left[rng.random(left.size) * longest[left] >= length]
        lowest = np.maximum(low_energy, np.hypot(mass, pt))
        # 1 - random lies in (0, 1]; mirrored so that the beam energy itself is never reached
        energy = lowest + rng.random(len(mass)) * (high_energy - lowest)
        return pt, np.minimum(energy, np.nextafter(self._beam_energy, 0))
