"""Theory channels: bremsstrahlung, mesons, tables that users bring; and where no lepton pair was measured."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from gammastar.core import constants
from gammastar.core.errors import InputFileError, PhysicsError, require
from gammastar.core.files import Pathlike
from gammastar.core.records import BoolArray, FloatArray, Rng, Sample, divided
from gammastar.core.sampling import stream
from gammastar.physics import bremsstrahlung, mesons
from gammastar.physics.polarisation import daughter
from gammastar.predict.channel import Channel, InDomain, outside, sample_at_origin

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
        known = self.masses
        if not known[0] <= mass <= known[-1]:
            ends = f"{known[0]:g} to {known[-1]:g} GeV"
            raise PhysicsError(f"spectra of FORESEE: {mass:g} GeV is outside the tables, {ends}")
        i = int(np.clip(np.searchsorted(known, mass, side="right") - 1, 0, len(known) - 2))
        x = float((mass - known[i]) / (known[i + 1] - known[i]))
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
