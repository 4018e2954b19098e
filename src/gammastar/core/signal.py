"""What is expected of a dark particle: rate, and signal over masses and couplings, with every source."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from gammastar.core.errors import PhysicsError
from gammastar.core.records import ArrayRecord, BoolArray, FloatArray, ReprMixin, divided
from gammastar.core.sources import KINDS, SAMPLE, THEORY_OF, Kind, Source, Sources, spelling

Form: TypeAlias = Literal["relative", "ends", "replicas", "share"]
VIRTUAL_PHOTON = "virtual_photon"
"""Group of the channel of measured photons."""
BEYOND = "beyond measured energies"
"""Part of a signal at energies above those of all measured pairs of its mass."""
MOST = 50.0  # relative error of a signal that counts as such: κ of 51


def relative_shift(signal: FloatArray, rows: FloatArray) -> FloatArray:
    """Return the shift of a signal (k,) to the first of some rows (r, k), over the signal."""
    return divided(rows[0] - signal, signal)


@dataclass(frozen=True, slots=True, eq=False)
class Variation:
    """What a source, or a part, makes of the particles of a sample."""

    name: str  # Of the source; of a part the group of its channel
    kind: Kind
    # "relative": sums that `estimate` turns into one relative error; "ends" and "replicas" as in `Effect`;
    # "share": the particles of one channel, no uncertainty
    form: Form
    factors: FloatArray  # On the weights of the particles, (r, n)
    # Signal (k,) and what the factors make of it (r, k) -> relative error (k,); by default the shift to the
    # first row
    estimate: Callable[[FloatArray, FloatArray], FloatArray] = relative_shift


@dataclass(frozen=True, slots=True, eq=False)
class Effect:
    """What one source of uncertainty makes of a signal over n masses and k couplings."""

    name: str
    kind: Kind
    form: Form
    # "relative": shape (n, k) or (1, 1), the shift of the signal by one standard deviation over the signal,
    # common to all masses; "ends": (2, n, k), the signal at both ends of a range, of which half the distance
    # counts; "replicas": (r, n, k), the signal of each replica, of which the spread counts
    values: FloatArray

    def __post_init__(self) -> None:
        rows = {"relative": None, "ends": 2, "replicas": len(self.values)}
        shape = np.shape(self.values)
        wanted = 2 if self.form == "relative" else 3
        if self.form not in rows or len(shape) != wanted or (wanted == 3 and shape[0] != rows[self.form]):
            msg = f"source {self.name!r}: values of shape {shape} are no {self.form!r} over a plane"
            raise PhysicsError(msg)
        if not np.isfinite(self.values).all() or (self.form == "replicas" and len(self.values) < 2):
            raise PhysicsError(f"source {self.name!r}: needs finite values, and at least 2 replicas")

    def relative(self, signal: FloatArray) -> FloatArray:
        """Return the standard deviation over the signal (n, k), zero where there is none."""
        if self.form == "relative":
            return np.broadcast_to(np.abs(self.values), signal.shape)
        if self.form == "ends":
            return divided(0.5 * np.abs(self.values[1] - self.values[0]), signal)
        return divided(self.values.std(axis=0, ddof=1), signal)

    def at(self, signal: FloatArray, best: npt.NDArray[np.intp]) -> Source:
        """Return the source of the yields at one coupling per mass, `best` of shape (n,)."""
        rows = np.arange(len(signal))
        if self.form == "relative":
            shift = np.broadcast_to(self.values, signal.shape)[rows, best] * signal[rows, best]
            return Source.shifted(self.name, self.kind, shift)
        values = self.values[:, rows, best]
        if self.form == "ends":
            return Source.ranged(self.name, self.kind, values)
        return Source.spread(self.name, self.kind, values)

    def times(self, share: FloatArray) -> Effect:
        """Return the effect on a part (n, k) of the signal that moves as the whole does."""
        return self if self.form == "relative" else replace(self, values=self.values * share)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Rate(ReprMixin, ArrayRecord):
    """Dark particles per proton on target and squared coupling, at exact masses."""

    # (n,) [GeV]; all channels together
    mass: FloatArray
    value: FloatArray
    cov: FloatArray  # Of the measurement or of the theory, (n, n)
    # All of them, protons on target among them; of channels beside measured photons "theory, <group>"
    sources: Sources
    threshold: float = 0.0  # Nothing is claimed below [GeV]
    # Rate of each group of channels, where there are several, (n,)
    channels: Mapping[str, FloatArray] = field(default_factory=dict)
    # Edges of theory alone, (n,)
    low: FloatArray | None = None
    high: FloatArray | None = None
    # Share of the rate from where dileptons were measured (nan where it is not known); the relative error of
    # the whole from the others; its relative change if the trend of measured over simulated density went on
    # there, (n,)
    measured_part: FloatArray | None = None
    extrapolation: FloatArray | None = None
    extrapolation_step: FloatArray | None = None

    def __post_init__(self) -> None:
        n = len(self.mass)
        for name in ("value", "low", "high", *OPTIONAL):
            row = getattr(self, name)
            if row is not None and np.shape(row) != (n,):
                raise PhysicsError(f"Rate.{name} has shape {np.shape(row)}, expected {(n,)}")
        for name, square in (("cov", self.cov), *((s.name, s.cov) for s in self.sources.parts)):
            if np.shape(square) != (n, n):
                msg = f"Rate: covariance {name!r} has shape {np.shape(square)}, expected {(n, n)}"
                raise PhysicsError(msg)

    def at(self, index: npt.NDArray[np.intp]) -> Rate:
        """Return the rate at some of its masses, by their places."""
        square = np.ix_(index, index)
        rows = {name: getattr(self, name) for name in ("low", "high", *OPTIONAL)}
        return replace(
            self,
            mass=self.mass[index],
            value=self.value[index],
            cov=self.cov[square],
            sources=Sources(tuple(replace(part, cov=part.cov[square]) for part in self.sources.parts)),
            channels={name: row[index] for name, row in self.channels.items()},
            **{name: row[index] for name, row in rows.items() if row is not None},
        )

    @property
    def measured(self) -> FloatArray:
        """The rate of measured photons, shape (n,); the whole rate where there is no other channel."""
        return self.channels.get(VIRTUAL_PHOTON, self.value)

    def relative(self, source: str | None = None) -> FloatArray:
        """Return the relative standard deviation from one source or from all, shape (n,); nan at no rate."""
        cov = self.sources.total() if source is None else self.sources.named(source).cov
        sigma = np.sqrt(np.clip(np.diag(cov), 0.0, None))
        return divided(sigma, self.value, np.nan)

    def error(self) -> FloatArray:
        """Return the standard deviation from all sources, the extrapolation among them, shape (n,)."""
        variance = np.clip(np.diag(self.sources.total()), 0.0, None)
        beyond = 0.0 if self.extrapolation is None else self.extrapolation * self.value
        return np.asarray(np.sqrt(variance + beyond**2))


OPTIONAL = ("measured_part", "extrapolation", "extrapolation_step")
PLANES = ("signal", "in_domain", "mc_error", "n_effective")


@dataclass(frozen=True, slots=True, eq=False)
class AcceptanceCurves:
    """Acceptance over the lifetime at a few masses."""

    mass: FloatArray  # (m,) [GeV]
    ctau: FloatArray  # (t,) [m]
    # Accepted share of the particles; its error from the finite sample and the spread of replicas, (m, t)
    acceptance: FloatArray
    error: FloatArray


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class SignalPlane(ReprMixin, ArrayRecord):
    """The signal in one detector over n masses and k couplings."""

    rate: Rate  # At the masses of the plane
    coupling: FloatArray  # Increasing, (k,)
    # Expected events, and the part of them from where dileptons were measured, (n, k)
    signal: FloatArray
    in_domain: FloatArray
    # Error of `signal` from the finite sample, effective number of accepted particles, (n, k)
    mc_error: FloatArray
    n_effective: FloatArray
    effects: tuple[Effect, ...] = ()  # Sources beside those of the rate
    # Signal of each group of channels, where there are several, (n, k)
    parts: Mapping[str, FloatArray] = field(default_factory=dict)
    # Relative standard deviation of the total width, (n,)
    width_sigma: FloatArray = field(default_factory=lambda: np.zeros(0))
    curves: AcceptanceCurves | None = None
    # Effective number of pairs, measured or simulated, on whose kinematics the signal rests: where it falls
    # to few the data end. inf for theory, None where it is not known, (n, k)
    pairs: FloatArray | None = None
    # Part of the signal at energies above those of all measured pairs, (n, k)
    beyond: FloatArray | None = None

    def __post_init__(self) -> None:
        shape = len(self.rate.mass), len(self.coupling)
        planes = [(name, getattr(self, name)) for name in PLANES] + list(self.parts.items())
        planes += [(n, getattr(self, n)) for n in ("pairs", "beyond") if getattr(self, n) is not None]
        planes += [(e.name, e.values[0] if e.form != "relative" else e.values) for e in self.effects]
        for name, values in planes:
            if np.shape(values) != shape and np.shape(values) != (1, 1):
                raise PhysicsError(f"SignalPlane: {name!r} has shape {np.shape(values)}, expected {shape}")
        # theory beside measured photons is named twice: its effect takes the place of its part of the rate
        own = [s.name for s in self.rate.sources.parts if not s.name.startswith(THEORY_OF)]
        every = own + [e.name for e in self.effects]
        names = [spelling(name) for name in every]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            msg = f"SignalPlane: two sources of uncertainty are called {twice[0]!r}; name them apart"
            raise PhysicsError(msg)

    @property
    def mass(self) -> FloatArray:
        """Masses [GeV], shape (n,)."""
        return self.rate.mass

    @property
    def in_domain_fraction(self) -> FloatArray:
        """Measured part of the signal (n, k), nan where there is none."""
        return divided(self.in_domain, self.signal, np.nan)

    def reliable(self, least: float) -> BoolArray:
        """Return where the yield rests on at least so many pairs and on as many drawn particles, (n, k)."""
        drawn = self.n_effective >= least
        return drawn if self.pairs is None else drawn & (self.pairs >= least)

    def data_end(self, least: float) -> FloatArray:
        """Return the coupling of each mass above which the yield is not `reliable`, shape (n,).

        Between two couplings it lies where the number of pairs, or of drawn particles, crosses `least`,
        straight in both logarithms; 0 where no yield is reliable, inf where all of them are.
        """
        number = self.n_effective if self.pairs is None else np.minimum(self.n_effective, self.pairs)
        good = number >= least
        last = len(self.coupling) - 1 - np.argmax(good[:, ::-1], axis=1)
        x, rows = np.log(self.coupling), np.arange(len(number))
        after = np.minimum(last + 1, len(x) - 1)
        above, below = (np.log(np.maximum(number[rows, i], 1e-300) / least) for i in (last, after))
        part = np.divide(above, above - below, out=np.zeros_like(above), where=above > below)
        end = np.exp(x[last] + part * (x[after] - x[last]))
        return np.where(good.any(axis=1), np.where(last == len(x) - 1, np.inf, end), 0.0)

    @property
    def measured_share(self) -> FloatArray:
        """Part of the signal (n, k) from measured photons: one without other channels."""
        own = self.parts.get(VIRTUAL_PHOTON)
        return np.ones_like(self.signal) if own is None else divided(own, self.signal)

    @property
    def measured_rate(self) -> FloatArray:
        """The rate (n,) that `measured_share` of the signal comes from."""
        return self.rate.measured if VIRTUAL_PHOTON in self.parts else self.rate.value

    def effect(self, name: str) -> Effect | None:
        """Return the effect of a name, if there is one."""
        return next((effect for effect in self.effects if effect.name == name), None)

    def budget(self) -> tuple[FloatArray, FloatArray, Sources]:
        """Return the yield of each mass at its best coupling, that coupling, and the sources of its error.

        Sources of the measured rate scale with the acceptance of the measured photons; theory beside them
        has the yields of both its edges instead. What is extrapolated follows one trend, and R(s) has common
        errors, so that masses move together; the finite sample is independent at each mass.
        """
        best = self.signal.argmax(axis=1)
        rows = np.arange(len(best))
        value = self.signal[rows, best]
        acceptance = divided(value * self.measured_share[rows, best], self.measured_rate)
        parts = [p.scaled(acceptance) for p in self.rate.sources.parts if not p.name.startswith(THEORY_OF)]
        parts += [effect.at(self.signal, best) for effect in self.effects]
        parts.append(Source(SAMPLE, "sample", np.diag(self.mc_error[rows, best] ** 2)))
        return value, self.coupling[best], Sources(tuple(parts))

    def spreads(self, wanted: Collection[str]) -> dict[str, FloatArray]:
        """Return ln κ of the signal at each point by source, of the wanted kinds or names.

        Protons on target are left out: they are nuisances of the likelihood itself. κ of a kind is that of
        its sources in quadrature, which share it in proportion to their variances.
        """
        named: list[tuple[str, str, FloatArray]] = []
        for part in self.rate.sources.parts:
            if part.kind == "spectrum":
                sigma = np.sqrt(np.clip(np.diag(part.cov), 0.0, None))
                relative = divided(sigma, self.measured_rate)[:, None] * self.measured_share
                named.append((part.name, part.kind, relative))
        named += [(e.name, e.kind, e.relative(self.signal)) for e in self.effects if e.kind != "pot"]
        named.append((SAMPLE, "sample", divided(self.mc_error, self.signal)))
        names = set(wanted) - set(KINDS)
        named = [e for e in named if (e[1] in wanted or e[0] in names) and e[2].any()]
        return _shared(named)


@dataclass(frozen=True, slots=True, eq=False)
class SignalPlanes(ArrayRecord):
    """The planes of several detectors by the stems of their files."""

    by_detector: Mapping[str, SignalPlane] = field(default_factory=dict)


def _shared(named: Sequence[tuple[str, str, FloatArray]]) -> dict[str, FloatArray]:
    """Return ln κ by name: that of each kind in all, divided among its sources by their variances."""
    spreads: dict[str, FloatArray] = {}
    for kind in dict.fromkeys(kind for _, kind, _ in named):
        own = [(name, sigma) for name, k, sigma in named if k == kind]
        if len(own) == 1:
            spreads[own[0][0]] = np.log1p(np.clip(own[0][1], 0.0, MOST))
            continue
        total = np.sqrt(np.sum([sigma**2 for _, sigma in own], axis=0))
        whole = np.log1p(np.clip(total, 0.0, MOST))
        spreads |= {name: whole * divided(np.asarray(sigma), total) for name, sigma in own}
    return spreads
