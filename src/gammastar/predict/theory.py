"""Theory channels: bremsstrahlung, mesons, tables that users bring; and where no lepton pair was measured."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from gammastar.core import constants
from gammastar.core.errors import InputFileError, PhysicsError, require
from gammastar.core.files import Pathlike, text_of
from gammastar.core.records import BoolArray, FloatArray, Rng, Sample, divided
from gammastar.core.sampling import stream
from gammastar.physics import bremsstrahlung, mesons
from gammastar.physics.polarisation import daughter
from gammastar.predict.channel import MASSES, Channel, InDomain, outside, sample_at_origin

_CASCADES = "first interaction of each proton only: secondary cascades are omitted and would add soft mesons"


@dataclass(frozen=True, slots=True)
class Bremsstrahlung(Channel):
    """Proton bremsstrahlung with a named convention and a theory band from Λ."""

    kernel: bremsstrahlung.Bremsstrahlung
    beam_energy: float  # [GeV]
    interaction: float = 1.0  # Probability of a proton to interact: 1 in a dump, 1 − exp(−L) in a thin target
    group: ClassVar[str] = "bremsstrahlung"
    processes: ClassVar[frozenset[str]] = frozenset({"bremsstrahlung"})

    def describe(self) -> str:
        """Return conventions and omissions, to be printed beside the numbers."""
        return f"{self.kernel.describe()}; {_CASCADES}"

    def envelope(self, mass: npt.ArrayLike) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return the rate and the lower and upper edge of its band of Λ, each of shape (n,)."""
        central = self.interaction * self.kernel.rate(mass, self.beam_energy)
        if self.kernel.off_shell is None:
            return central, central, central
        ends = [kernel.rate(mass, self.beam_energy) for kernel in bremsstrahlung.band(self.kernel)]
        low, high = (self.interaction * end for end in ends)
        return central, low, high

    def rate(self, mass: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Return the rate per proton on target and ε²; the band of Λ is one error common to all masses."""
        central, low, high = self.envelope(np.atleast_1d(np.asarray(mass, dtype=np.float64)))
        half = 0.5 * (high - low)
        return central, np.outer(half, half)

    def band(self, mass: float, sample: Sample) -> FloatArray | None:
        """Return d²N/(dz dpT²) at both ends of the band of Λ over that of the centre, shape (2, n)."""
        if self.kernel.off_shell is None:
            return Channel.band(self, mass, sample)
        p4 = sample.p4
        z = np.asarray(p4.pz, dtype=np.float64) / self.beam_energy
        pt2 = np.square(np.asarray(p4.pt, dtype=np.float64))
        kernels = (self.kernel, *bremsstrahlung.band(self.kernel))
        centre, *ends = (kernel.differential(z, pt2, mass, self.beam_energy) for kernel in kernels)
        return divided(np.stack(ends), centre, 1.0)

    def produce(self, mass: float, *, n: int, rng: Rng) -> Sample:
        """Return `n` weighted dark photons; the weights sum to the rate."""
        energy, pt, weight = self.kernel.sample(mass, self.beam_energy, n, rng)
        total = float(self.interaction * self.kernel.rate(mass, self.beam_energy))
        phi = rng.uniform(-np.pi, np.pi, n)
        pz = np.sqrt(energy**2 - pt**2 - mass**2)
        p = np.stack([pt * np.cos(phi), pt * np.sin(phi), pz, energy])
        return sample_at_origin(p, weight * (total / weight.sum()))


@dataclass(frozen=True, slots=True)
class MesonChannel(Channel):
    """Dark photons from decays of mesons; the leaves say which."""

    table: mesons.MesonTable
    beam_energy: float  # [GeV]
    interaction: float = 1.0  # Probability that a proton interacts in the target
    # Masses that the channel covers [GeV], e.g. (0, 2 m_μ) beside a rate measured with dimuons.
    mass_range: tuple[float, float] = (0.0, np.inf)
    group: ClassVar[str] = "mesons"
    processes: ClassVar[frozenset[str]] = frozenset()
    members: ClassVar[frozenset[tuple[str, str]]] = frozenset()

    @property
    def decays(self) -> tuple[mesons.Decay, ...]:
        """Decays of the table that belong to this channel."""
        found = tuple(d for d in self.table.decays if (d.kind, d.parent) in self.members)
        require(found, f"channel {self.group!r}: the table holds none of {sorted(self.members)}")
        return found

    @property
    def unit(self) -> mesons.Unit:
        """What the rate counts in: that of the table."""
        return self.table.unit

    def describe(self) -> str:
        """Return sources and omissions, to be printed beside the numbers."""
        parents = ", ".join(decay.parent for decay in self.decays)
        return f"{self.group} of {parents}: {self.table.source}; {_CASCADES}"

    def by_decay(self, mass: npt.ArrayLike) -> FloatArray:
        """Return the rate of each decay per proton on target and ε², shape (decays, n)."""
        m = np.atleast_1d(np.asarray(mass, dtype=np.float64))
        inside = (m >= self.mass_range[0]) & (m < self.mass_range[1])
        rows = []
        for decay in self.decays:
            meson = self.table.mesons[decay.parent]
            per_meson = mesons.dark_photon_branching(decay, meson.mass, constants.width(meson.pdg), m)
            rows.append(np.where(inside, self.interaction * meson.per_interaction * per_meson, 0.0))
        return np.stack(rows)

    def rate(self, mass: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Return the rate per proton on target and ε²; a multiplicity is one error common to all masses."""
        rows = self.by_decay(mass)
        parents = [decay.parent for decay in self.decays]
        by_meson = {name: rows[[parent == name for parent in parents]].sum(axis=0) for name in parents}
        shifts = np.stack([self.table.mesons[name].sigma * row for name, row in by_meson.items()])
        return rows.sum(axis=0), np.einsum("dm,dn->mn", shifts, shifts)

    def produce(self, mass: float, *, n: int, rng: Rng) -> Sample:
        """Return `n` dark photons, shared among the decays by their rates."""
        rows = self.by_decay([mass])[:, 0]
        total = float(rows.sum())
        require(total > 0, f"channel {self.group!r}: no decay is open at {mass:g} GeV; see [predict]")
        counts = rng.multinomial(n, rows / total)
        shares = [(decay, int(n)) for decay, n in zip(self.decays, counts, strict=True) if n]
        parts = [self._kinematics(decay, mass, n, rng) for decay, n in shares]
        photons, parents = (np.concatenate(rows, axis=1) for rows in zip(*parts, strict=True))
        mesons_of = None if np.isnan(parents).all() else parents.T
        return sample_at_origin(photons, np.full(n, total / n), mesons_of)

    def _kinematics(
        self, decay: mesons.Decay, mass: float, n: int, rng: Rng
    ) -> tuple[FloatArray, FloatArray]:
        """Return dark photons and the mesons that decayed to them, nan for mixing, shapes (4, n)."""
        meson = self.table.mesons[decay.parent]
        if decay.kind in ("vector_mixing", "rho_mixing"):
            return meson.sample(mass, n, self.beam_energy, rng), np.full((4, n), np.nan)
        light = 0.0 if decay.daughter is None else constants.mass(decay.daughter)
        parent = meson.sample(meson.mass, n, self.beam_energy, rng)
        cosine, phi = rng.uniform(-1, 1, n), rng.uniform(-np.pi, np.pi, n)
        return daughter(parent, meson.mass, mass, light, cosine, phi), parent


class PionDalitz(MesonChannel):
    """π⁰ → γA'; below the dimuon threshold, so that it adds to a rate measured with dimuons."""

    __slots__ = ()
    group = "pion_dalitz"
    processes = frozenset({"pion_dalitz"})
    members = frozenset({("pseudoscalar_dalitz", "pi0")})


class PseudoscalarDalitz(MesonChannel):
    """η, η' → γA'."""

    __slots__ = ()
    group = "pseudoscalar_dalitz"
    processes = frozenset({"pseudoscalar_dalitz"})
    members = frozenset({("pseudoscalar_dalitz", "eta"), ("pseudoscalar_dalitz", "eta_prime")})


class VectorDalitz(MesonChannel):
    """ω → π⁰A' and φ → ηA'."""

    __slots__ = ()
    group = "vector_dalitz"
    processes = frozenset({"vector_dalitz"})
    members = frozenset({("vector_dalitz", parent) for parent in ("omega", "phi", "rho")})


class VectorMixing(MesonChannel):
    """ρ, ω, φ → A' by mixing."""

    __slots__ = ()
    group = "vector_mesons"
    processes = frozenset({"vector_mesons"})
    members = frozenset({("rho_mixing", "rho"), ("vector_mixing", "omega"), ("vector_mixing", "phi")})


class JPsi(MesonChannel):
    """J/ψ → A' by mixing; above the masses of low-mass dimuons."""

    __slots__ = ()
    group = "jpsi"
    processes = frozenset({"jpsi"})
    members = frozenset({("vector_mixing", "jpsi")})


_NODES = 20_000  # of the integral over the domain: a share of one half to 0.4 %


@dataclass(frozen=True, slots=True, eq=False)
class Outside(Channel):
    """The part of a theory channel outside the measured domain, particle by particle.

    It may be added to measured virtual photons: inside the domain the process is in the data.
    """

    channel: Channel
    in_domain: InDomain
    mass_range: tuple[float, float]  # Masses of the measured spectrum [GeV]

    @property
    def group(self) -> str:
        """That of the channel: the whole and its part never add up."""
        return self.channel.group

    @property
    def processes(self) -> frozenset[str]:
        """The processes of the channel, named as parts outside the measured domain."""
        return frozenset(outside(name) for name in self.channel.processes)

    @property
    def unit(self) -> mesons.Unit:
        """What the rate counts in: that of the channel."""
        return getattr(self.channel, "unit", "proton")

    def describe(self) -> str:
        """Return what the channel says of itself, and where it counts."""
        own = self.channel.describe() if hasattr(self.channel, "describe") else self.channel.group
        return f"{own}; outside the measured domain only"

    def share(self, mass: npt.ArrayLike) -> FloatArray:
        """Return the part of the rate outside the measured domain, shape (n,).

        The same `_NODES` particles of the channel for every call at a mass: a quadrature rule, no chance.
        """
        masses = np.atleast_1d(np.asarray(mass, dtype=np.float64))
        return np.array([self._share(float(m)) for m in masses])

    def _share(self, mass: float) -> float:
        sample = self.channel.produce(mass, n=_NODES, rng=stream(0, "outside the domain", f"{mass:.9g}"))
        return 1.0 - float(sample.weight[self._inside(mass, sample)].sum() / sample.weight.sum())

    def _inside(self, mass: float, sample: Sample) -> BoolArray:
        pt, energy = (np.asarray(c, dtype=np.float64) for c in (sample.p4.pt, sample.p4.E))
        return np.asarray(self.in_domain(np.full(len(pt), mass), pt, energy), dtype=np.bool_)

    def rate(self, mass: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Return rate and covariance of the part."""
        value, cov = self.channel.rate(mass)
        share = self.share(mass)
        return value * share, cov * np.outer(share, share)

    def band(self, mass: float, sample: Sample) -> FloatArray | None:
        """Return the edges of the channel's theory over its centre, shape (2, n)."""
        return self.channel.band(mass, sample)

    def produce(self, mass: float, *, n: int, rng: Rng) -> Sample:
        """Return `n` particles; those inside the domain weigh nothing, the others sum to the rate."""
        sample = self.channel.produce(mass, n=n, rng=rng)
        weight = np.where(self._inside(mass, sample), 0.0, sample.weight)
        total = float(self.rate([mass])[0][0])
        if not weight.sum() > 0:
            raise PhysicsError(f"channel {self.group!r}: none of {n} particles of {mass:g} GeV lies outside")
        return replace(sample, weight=weight * (total / weight.sum()), in_domain=np.zeros(n, dtype=np.bool_))


SPECTRUM = re.compile(r"([0-9.]+)TeV_(.+?)(?:_([^_]+))?_m_([0-9.eE+-]+)\.npy")
MESONS: Mapping[str, str] = MappingProxyType(
    {
        "111": "pion_dalitz",
        "221": "pseudoscalar_dalitz",
        "331": "pseudoscalar_dalitz",
        "113": "vector_mesons",
        "223": "vector_mesons",
        "333": "vector_mesons",
        "443": "jpsi",
    }
)
MAX_GENERATORS = 64  # of one mode at one mass
MAX_TABLE_BYTES = 1 << 30  # bytes of one table


def tabulated_channel(name: str, base: Path, sigma_inelastic: float | None = None) -> Channel | None:
    """Return the channel of ``foresee:FOLDER`` or ``eventcalc:FOLDER/NAME``; None for another name."""
    kind, _, path = name.partition(":")
    if kind == "foresee":
        return ForeseeSpectra.read(base / path, sigma_inelastic=sigma_inelastic)
    return EventCalcTables.read(base / path) if kind == "eventcalc" else None


def _between(masses: FloatArray, mass: float, what: str) -> tuple[int, float]:
    """Return the place of the mass below, and how far the next one is, in [0, 1]; refuse others."""
    if not masses[0] <= mass <= masses[-1]:
        raise PhysicsError(f"{what}: {mass:g} GeV is outside the tables, {masses[0]:g} to {masses[-1]:g} GeV")
    i = int(np.clip(np.searchsorted(masses, mass, side="right") - 1, 0, len(masses) - 2))
    return i, float((mass - masses[i]) / (masses[i + 1] - masses[i]))


@dataclass(frozen=True, slots=True, eq=False)
class ForeseeSpectra(Channel):
    """Dark photons of ``model/LLP_spectra`` of FORESEE: all modes together, generators averaged."""

    masses: FloatArray  # (k,) [GeV]
    grid: mesons.Cells  # Their angles and momenta
    # Content of each cell at each mass, the mean of the generators of each mode, summed over modes, (k, n)
    weight: FloatArray
    edges: FloatArray  # Sums with the smallest and with the largest generator of each mode, (2, k)
    modes: tuple[str, ...]  # PDG numbers of mesons, ``Brem…``, ``DY…`` or other names
    unit: mesons.Unit
    source: str
    group: ClassVar[str] = "foresee_spectra"

    @classmethod
    def read(cls, folder: Pathlike, *, sigma_inelastic: float | None = None) -> ForeseeSpectra:
        """Read files ``<energy>TeV_<mode>_<generator>_m_<mass>.npy``."""
        folder = Path(folder)
        files: dict[tuple[str, float], list[Path]] = {}
        for path in sorted(folder.glob("*_m_*.npy")):
            match = SPECTRUM.fullmatch(path.name)
            if match is not None:
                files.setdefault((match[2], float(match[4])), []).append(path)
        masses = np.array(sorted({mass for _, mass in files}))
        if len(masses) < 2:
            names = "<energy>TeV_<mode>_<generator>_m_<mass>.npy"
            raise InputFileError(f"{folder}: spectra {names} of two masses are needed")
        modes = sorted({mode for mode, _ in files})
        _whole(folder, masses, {mode: {m for other, m in files if other == mode} for mode in modes})
        grid: mesons.Cells | None = None
        rows, edges = [], []
        for mass in masses.tolist():
            parts = []
            for mode in modes:
                own = [mesons.read_cells(path) for path in files.get((mode, mass), [])[:MAX_GENERATORS]]
                for cells, path in zip(own, files.get((mode, mass), []), strict=False):
                    grid = cells if grid is None else grid
                    axes = [(c.log_angle, c.log_momentum) for c in (grid, cells)]
                    same = len(grid.weight) == len(cells.weight) and np.allclose(axes[0], axes[1], atol=1e-6)
                    other = f"{path}: has other cells than the first file of its folder; use one grid"
                    require(same, other, InputFileError)
                parts += [np.stack([cells.weight for cells in own])] if own else []
            rows.append(np.sum([part.mean(axis=0) for part in parts], axis=0))
            sums = [part.sum(axis=1) for part in parts]
            edges.append([sum(s.min() for s in sums), sum(s.max() for s in sums)])
        if grid is None:
            raise InputFileError(f"{folder}: holds no spectra")
        scale = 1.0 if sigma_inelastic is None else 1.0 / (sigma_inelastic * mesons.PB_PER_MB)
        return cls(
            masses=masses,
            grid=grid,
            weight=np.stack(rows) * scale,
            edges=np.array(edges).T * scale,
            modes=tuple(modes),
            unit="pb" if sigma_inelastic is None else "proton",
            source=f"LLP spectra of FORESEE in {folder.name}: {', '.join(modes)}",
        )

    @property
    def mass_range(self) -> tuple[float, float]:
        """Masses of the tables [GeV]; the last belongs to it."""
        return float(self.masses[0]), float(np.nextafter(self.masses[-1], np.inf))

    @property
    def processes(self) -> frozenset[str]:
        """Those of the modes; one that is not known stands for itself."""
        return frozenset(_process(mode) for mode in self.modes)

    def describe(self) -> str:
        """Return where the numbers come from."""
        return f"{self.source}; cross sections straight between {len(self.masses)} masses"

    def rate(self, mass: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Return the rate and its covariance: half the range of the generators, common to all masses."""
        m = np.atleast_1d(np.asarray(mass, dtype=np.float64))
        rows = (self.weight.sum(axis=1), *self.edges)
        value, low, high = (np.interp(m, self.masses, row, left=0.0, right=0.0) for row in rows)
        half = 0.5 * (high - low)
        return value, np.outer(half, half)

    def produce(self, mass: float, *, n: int, rng: Rng) -> Sample:
        """Return `n` dark photons of equal weight."""
        i, x = _between(self.masses, mass, "spectra of FORESEE")
        cells = replace(self.grid, weight=(1 - x) * self.weight[i] + x * self.weight[i + 1])
        return sample_at_origin(cells.sample(mass, n, rng), np.full(n, cells.total / n))


def _process(mode: str) -> str:
    if mode in MESONS:
        return MESONS[mode]
    lower = mode.lower()
    known = {"brem": "bremsstrahlung", "dy": "drell_yan"}
    return next((process for start, process in known.items() if lower.startswith(start)), mode)


def _whole(folder: Path, masses: FloatArray, found: Mapping[str, set[float]]) -> None:
    """Refuse a mode that lacks a mass between its first and its last."""
    for mode, own in found.items():
        inside = masses[(masses > min(own)) & (masses < max(own))]
        missing = [mass for mass in inside.tolist() if mass not in own]
        if missing:
            raise InputFileError(
                f"{folder}: mode {mode!r} has no spectrum at {missing[0]:g} GeV, between masses where it has "
                "one; make it, or remove the other modes' files of that mass"
            )


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
        i, x = _between(self.masses, mass, "tables of EventCalc")
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
