"""Production tables of EventCalc and SensCalc as a channel of one's own.

A copy beside the steering file serves ``channels = ["eventcalc_tables.py:dark_photons"]`` with

    def dark_photons():
        return EventCalcTables.read("Distributions/Dark-photons/DP-central")
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from gammastar.core.errors import InputFileError, PhysicsError, require
from gammastar.core.files import Pathlike, text_of
from gammastar.core.records import FloatArray, Rng, Sample
from gammastar.physics import mesons
from gammastar.predict import Channel
from gammastar.predict.channel import MASSES, sample_at_origin

MAX_TABLE_BYTES = 1 << 30  # bytes of one table


def _between(masses: FloatArray, mass: float) -> tuple[int, float]:
    """Return the place of the mass below, and how far the next one is, in [0, 1]; refuse others."""
    if not masses[0] <= mass <= masses[-1]:
        ends = f"{masses[0]:g} to {masses[-1]:g} GeV"
        raise PhysicsError(f"tables of EventCalc: {mass:g} GeV is outside the tables, {ends}")
    i = int(np.clip(np.searchsorted(masses, mass, side="right") - 1, 0, len(masses) - 2))
    return i, float((mass - masses[i]) / (masses[i + 1] - masses[i]))


@dataclass(frozen=True, eq=False)
class EventCalcTables(Channel):
    """Long-lived particles of EventCalc and SensCalc: a yield per proton, a density of angle and energy."""

    # Nodes of the density, (k,) (a,) (e,) [GeV, rad, GeV]
    masses: FloatArray
    angles: FloatArray
    energies: FloatArray
    density: FloatArray  # Per rad and GeV; straight lines between the nodes, (k, a, e)
    # Largest energies at each angle, (l,) (b,) (l, b) [GeV, rad, GeV]
    limit_masses: FloatArray
    limit_angles: FloatArray
    limits: FloatArray
    # Masses [GeV], and the particles per proton on target and unit coupling squared: central, lower and
    # upper, (4, y)
    yields: FloatArray
    source: str
    group: ClassVar[str] = "eventcalc"
    processes: ClassVar[frozenset[str]] = frozenset(MASSES)
    unit: ClassVar[mesons.Unit] = "proton"

    @classmethod
    def read(cls, path: Pathlike) -> EventCalcTables:
        """Read ``DoubleDistr-NAME.txt``, ``Emax-NAME.txt`` and ``Total-yield-NAME.txt``.

        `path`: folder and NAME, e.g. ``Distributions/Dark-photons/DP-central``. If NAME ends in ``central``
        and yields ``lower`` and ``upper`` lie beside it, they are the band of the theory.

        EventCalc-SHiP, arXiv:2305.13383 and ``funcs/initLLP.py``: columns mass, angle, energy and density;
        mass, angle and largest energy; mass and yield, without a header. Its density is cut at the largest
        energy, and so is ours.
        """
        path = Path(path)
        folder, name = path.parent, path.name
        nodes = _columns(folder / f"DoubleDistr-{name}.txt", 4)
        limits = _columns(folder / f"Emax-{name}.txt", 3)
        central = _columns(folder / f"Total-yield-{name}.txt", 2)
        edges = [central[1]] * 2
        base = name.removesuffix("central")
        beside = [folder / f"Total-yield-{base}{side}.txt" for side in ("lower", "upper")]
        if base != name and all(file.is_file() for file in beside):
            edges = [np.interp(central[0], *_columns(file, 2)) for file in beside]
        (masses, angles, energies), density = _nodes(folder / f"DoubleDistr-{name}.txt", nodes)
        (limit_masses, limit_angles), largest = _nodes(folder / f"Emax-{name}.txt", limits)
        axes = (masses, angles, energies)
        if min(map(len, axes)) < 2:
            raise InputFileError(
                f"{folder / f'DoubleDistr-{name}.txt'}: two masses, angles and energies at least are needed"
            )
        yields, source = np.stack([*central, *edges]), f"{name} of EventCalc in {folder.name}"
        return cls(*axes, density, limit_masses, limit_angles, largest, yields, source)

    @property
    def mass_range(self) -> tuple[float, float]:
        """Masses that all three tables hold [GeV]; the last belongs to it."""
        ends = [self.masses, self.yields[0]]
        first, last = max(row[0] for row in ends), min(row[-1] for row in ends)
        return float(first), float(np.nextafter(last, np.inf))

    def describe(self) -> str:
        """Return where the numbers come from."""
        return f"{self.source}: yield per proton, all processes, with the density of angle and energy"

    def _at(self, mass: float) -> tuple[FloatArray, FloatArray]:
        """Return the density (a, e) at a mass, and the largest energy at the angles of its nodes."""
        i, x = _between(self.masses, mass)
        # beyond the angles of this table its ends hold
        limit = np.stack([np.interp(self.angles, self.limit_angles, row) for row in self.limits])
        largest = [np.interp(mass, self.limit_masses, column) for column in limit.T]
        return (1 - x) * self.density[i] + x * self.density[i + 1], np.array(largest)

    @cached_property
    def held(self) -> FloatArray:
        """Integral of the density at the masses of the tables, (k,): EventCalc's polar acceptance."""
        return np.array([self._integral(float(mass)) for mass in self.masses])

    def _integral(self, mass: float) -> float:
        density, largest = self._at(mass)
        nodes, weights = np.polynomial.legendre.leggauss(3)
        nodes, weights = 0.5 * (nodes + 1), 0.5 * weights
        a, e = np.diff(self.angles), np.diff(self.energies)
        total = 0.0
        for u, w in zip(nodes, weights, strict=True):
            row, top = ((1 - u) * x[:-1] + u * x[1:] for x in (density, largest))
            for v, wv in zip(nodes, weights, strict=True):
                energy = self.energies[:-1] + v * e
                allowed = (energy[None, :] <= top[:, None]) & (energy[None, :] > mass)
                value = (1 - v) * row[:, :-1] + v * row[:, 1:]
                total += w * wv * float(a @ np.where(allowed, value, 0.0) @ e)
        return total

    def rate(self, mass: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Return yield times `held`, with half the band of the theory as error common to all masses."""
        m = np.atleast_1d(np.asarray(mass, dtype=np.float64))
        low, high = self.mass_range
        part = np.interp(m, self.masses, self.held)
        inside, rows = (m >= low) & (m < high), (np.interp(m, self.yields[0], row) for row in self.yields[1:])
        value, lower, upper = (np.where(inside, part * row, 0.0) for row in rows)
        half = 0.5 * (upper - lower)
        return value, np.outer(half, half)

    def produce(self, mass: float, *, n: int, rng: Rng) -> Sample:
        """Return `n` weighted particles; the weights sum to the rate."""
        density, largest = self._at(mass)
        a, e = np.diff(self.angles), np.diff(self.energies)
        mean = 0.25 * (density[:-1, :-1] + density[1:, :-1] + density[:-1, 1:] + density[1:, 1:])
        content = (mean * a[:, None] * e).ravel()
        require(content.sum() > 0, f"{self.source}: the density at {mass:g} GeV is zero everywhere")
        i, j = np.unravel_index(rng.choice(content.size, size=n, p=content / content.sum()), mean.shape)
        u, v = rng.uniform(size=(2, n))
        low, high = ((1 - u) * density[i, k] + u * density[i + 1, k] for k in (j, j + 1))
        theta, energy = self.angles[i] + u * a[i], self.energies[j] + v * e[j]
        allowed = (energy <= (1 - u) * largest[i] + u * largest[i + 1]) & (energy > mass)
        weight = np.where(allowed, ((1 - v) * low + v * high) / mean[i, j], 0.0)
        require(weight.sum() > 0, f"{self.source}: none of {n} of {mass:g} GeV lies below the largest energy")
        momentum = np.sqrt(np.clip(energy**2 - mass**2, 0.0, None))
        phi = rng.uniform(-np.pi, np.pi, n)
        pt = momentum * np.sin(theta)
        p = np.stack([pt * np.cos(phi), pt * np.sin(phi), momentum * np.cos(theta), np.hypot(momentum, mass)])
        return sample_at_origin(p, weight * (float(self.rate([mass])[0][0]) / weight.sum()))


def _columns(path: Path, count: int) -> FloatArray:
    """Return the columns of a table without a header, shape (count, n)."""
    try:
        columns = np.loadtxt(text_of(path, MAX_TABLE_BYTES).splitlines(), dtype=np.float64, ndmin=2).T
    except (OSError, ValueError) as error:
        raise InputFileError(f"{path}: is no table of {count} columns of numbers ({error})") from error
    if len(columns) != count or not np.isfinite(columns).all() or (columns < 0).any():
        found = f"a table of shape {columns.shape[::-1]}"
        raise InputFileError(f"{path}: expected {count} columns of finite numbers ≥ 0, found {found}")
    if count == 2:
        columns = columns[:, np.argsort(columns[0], kind="stable")]
    return columns


def _nodes(path: Path, columns: FloatArray) -> tuple[list[FloatArray], FloatArray]:
    """Return the axes of a table of nodes and its values on them; refuse one that lacks a node."""
    axes, places = [], []
    for column in columns[:-1]:
        axis, place = np.unique(column, return_inverse=True)
        axes.append(axis)
        places.append(place)
    shape = tuple(map(len, axes))
    values = np.full(shape, np.nan)
    values[tuple(places)] = columns[-1]
    if np.isnan(values).any():
        where = [axis[k] for axis, k in zip(axes, np.argwhere(np.isnan(values))[0], strict=True)]
        raise InputFileError(
            f"{path}: no value at {', '.join(f'{x:g}' for x in where)}; every node of the grid is needed"
        )
    return axes, values
