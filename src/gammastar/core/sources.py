"""Uncertainties of one prediction by source: one name each, covariances between masses."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from gammastar.core.errors import PhysicsError
from gammastar.core.pairs import MatchedPairs
from gammastar.core.records import FloatArray

__all__ = [
    "EFFICIENCY",
    "EXTRAPOLATION",
    "FLOW",
    "KINDS",
    "MEASUREMENT",
    "MOMENTUM_SCALE",
    "PAIRS",
    "POLARISATION",
    "POT",
    "PRIOR",
    "RADIATION",
    "RESERVED",
    "RESOLUTION",
    "SAMPLE",
    "SCALING",
    "SEARCH_POT",
    "SPIN",
    "THEORY",
    "THEORY_OF",
    "WIDTHS",
    "Kind",
    "OwnSource",
    "Source",
    "Sources",
    "spelling",
]

Kind: TypeAlias = Literal[
    "pot",
    "spectrum",
    "kinematics",
    "polarisation",
    "scaling",
    "widths",
    "extrapolation",
    "theory",
    "sample",
    "own",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""Groups of sources; a limit takes them by these or by name, and each source is a nuisance of its own."""

MEASUREMENT, THEORY = "measurement", "theory"
POT, SEARCH_POT = "protons on target", "protons on target of the search"
POLARISATION, RADIATION, EFFICIENCY = "polarisation of virtual photons", "final-state radiation", "efficiency"
PRIOR = "prior of the unfolding"
MOMENTUM_SCALE, RESOLUTION = "momentum scale", "momentum resolution"
THEORY_OF = "theory, "
"""Before the group of a theory channel that stands beside measured photons."""
SPIN, FLOW, SCALING = "spin state of the decays", "flow", "scaling with A"
WIDTHS, EXTRAPOLATION, SAMPLE = "hadronic width", "extrapolation", "finite sample"
PAIRS = "finite pairs"
"""Of kinematics without replicas: 1/√n of the effective number n of pairs behind a yield."""

RESERVED = (
    *(MEASUREMENT, THEORY, POT, SEARCH_POT, POLARISATION, RADIATION, EFFICIENCY, SPIN, FLOW, SCALING),
    *(WIDTHS, EXTRAPOLATION, SAMPLE, PAIRS, "background", "open charm", "charm", "mass", "total"),
    *(PRIOR, MOMENTUM_SCALE, RESOLUTION, "prior", "in the limit", *KINDS),
)
"""Names that no source of a user may take."""


def spelling(name: str) -> str:
    """Return letters and digits of a name alone: names that agree in them are taken for the same."""
    return "".join(letter for letter in name.casefold() if letter.isalnum())


Factor: TypeAlias = Callable[[FloatArray, FloatArray, FloatArray], npt.ArrayLike]
"""Mass, pt, energy [GeV], (n,) each -> factors, (n,)."""


@dataclass(frozen=True, slots=True)
class OwnSource:
    """A source of the user: what one standard deviation makes of simulated pairs or of dark particles.

    Named under [systematics] own as ``file.py:name``; its name stays in the covariance of the spectrum, the
    rate, the yields, the limit, the workspace and the report.

    `name`: besides it one of the three functions; `pairs`: `gammastar.core.pairs.MatchedPairs` ->
    MatchedPairs: the simulation with other reconstructed momenta, other weights; the spectrum is unfolded
    once more with the response that it gives. A variation that draws anew adds the noise of its simulation;
    `efficiency`: true mass, pt, energy [GeV], (n,) each -> factor on the efficiency of each simulated photon,
    (n,); `particles`: mass, pt, energy [GeV], (n,) each -> factor on the weight of each dark particle, (n,).
    """

    name: str
    pairs: Callable[[MatchedPairs], Any] | None = None
    efficiency: Factor | None = None
    particles: Factor | None = None

    def __post_init__(self) -> None:
        if spelling(self.name) in {spelling(name) for name in RESERVED} or not spelling(self.name):
            raise PhysicsError(f"source {self.name!r}: the name is empty or taken; take another one")
        given = [f for f in (self.pairs, self.efficiency, self.particles) if f is not None]
        if len(given) != 1 or not callable(given[0]):
            msg = f"source {self.name!r}: needs one of `pairs`, `efficiency` and `particles`, a function"
            raise PhysicsError(msg)

    def checked(self, matched: MatchedPairs) -> MatchedPairs:
        """Return what `pairs` makes of simulated pairs, looked at."""
        if self.pairs is None:
            return matched
        found = self.pairs(matched)
        if not isinstance(found, MatchedPairs) or len(found.weight) != len(matched.weight):
            msg = f"source {self.name!r}: pairs must return a MatchedPairs of the {len(matched.weight)} given"
            raise PhysicsError(msg)
        if not np.isfinite(found.weight).all():
            raise PhysicsError(f"source {self.name!r}: pairs returned weights that are not finite")
        return found

    def factor(self, mass: FloatArray, pt: FloatArray, energy: FloatArray) -> FloatArray:
        """Return the factors of `efficiency` or `particles`, (n,), looked at; one where there is neither."""
        function = self.particles or self.efficiency
        if function is None:
            return np.ones(len(pt))
        found = np.asarray(function(mass, pt, energy), dtype=np.float64)
        if found.shape != pt.shape or not (np.isfinite(found) & (found >= 0)).all():
            what = f"factors of shape {found.shape} for {len(pt)} particles"
            raise PhysicsError(f"source {self.name!r}: {what}, or some that are negative or not finite")
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """One source of uncertainty: the covariance `cov` (n, n) between masses, and its kind of nuisance."""

    name: str
    kind: Kind
    cov: FloatArray

    def __post_init__(self) -> None:
        if not spelling(self.name) or self.kind not in KINDS:
            msg = f"source {self.name!r} of kind {self.kind!r}: needs a name, and one of {', '.join(KINDS)}"
            raise PhysicsError(msg)
        shape = np.shape(self.cov)
        if len(shape) != 2 or shape[0] != shape[1] or not np.isfinite(self.cov).all():
            raise PhysicsError(f"source {self.name!r}: covariance of shape {shape} must be square and finite")

    @classmethod
    def shifted(cls, name: str, kind: Kind, shift: npt.ArrayLike) -> Source:
        """Return a source that moves all masses together, by a shift of shape (n,) at one sigma."""
        row = np.atleast_1d(np.asarray(shift, dtype=np.float64))
        return cls(name, kind, np.outer(row, row))

    @classmethod
    def ranged(cls, name: str, kind: Kind, ends: npt.ArrayLike) -> Source:
        """Return a source from half the distance of the prediction at both ends, shape (2, n)."""
        low, high = _rows(name, ends, exactly=2)
        return cls.shifted(name, kind, 0.5 * (high - low))

    @classmethod
    def spread(cls, name: str, kind: Kind, replicas: npt.ArrayLike) -> Source:
        """Return a source from the prediction of r replicas, shape (r, n): their covariance."""
        rows = _rows(name, replicas)
        return cls(name, kind, np.cov(rows, rowvar=False).reshape(rows.shape[1], rows.shape[1]))

    def scaled(self, factor: npt.ArrayLike) -> Source:
        """Return the source of the prediction times a factor, shape (n,) or ()."""
        row = np.broadcast_to(np.asarray(factor, dtype=np.float64), len(self.cov))
        return Source(self.name, self.kind, self.cov * np.outer(row, row))


@dataclass(frozen=True, slots=True, eq=False)
class Sources:
    """Independent sources of one prediction at n masses."""

    parts: tuple[Source, ...] = ()

    def __post_init__(self) -> None:
        seen: dict[str, str] = {}
        for part in self.parts:
            plain = spelling(part.name)
            if plain in seen:
                raise PhysicsError(
                    f"two sources of uncertainty are called {seen[plain]!r} and {part.name!r}; "
                    "each needs a name of its own, as one would overwrite the other"
                )
            seen[plain] = part.name
        shapes = {part.cov.shape for part in self.parts}
        if len(shapes) > 1:
            msg = f"sources {', '.join(self.names)}: covariances of different shapes {sorted(shapes)}"
            raise PhysicsError(msg)

    @property
    def names(self) -> tuple[str, ...]:
        """Names in order."""
        return tuple(part.name for part in self.parts)

    def __add__(self, others: Sources) -> Sources:
        """Return both together."""
        return Sources(self.parts + others.parts)

    def named(self, name: str) -> Source:
        """Return the source of a name."""
        for part in self.parts:
            if part.name == name:
                return part
        raise PhysicsError(f"no source {name!r}; there are {', '.join(self.names) or 'none'}")

    def of(self, wanted: Iterable[str]) -> Sources:
        """Return the sources of some kinds, or of some names that are no kinds."""
        asked = set(wanted)
        names = asked - set(KINDS)
        return Sources(tuple(part for part in self.parts if part.kind in asked or part.name in names))

    def scaled(self, factor: npt.ArrayLike) -> Sources:
        """Return the sources of the prediction times a factor, shape (n,) or ()."""
        return Sources(tuple(part.scaled(factor) for part in self.parts))

    def total(self) -> FloatArray:
        """Return the covariance of all sources together, shape (n, n); (0, 0) without any."""
        if not self.parts:
            return np.zeros((0, 0))
        return np.asarray(np.sum([part.cov for part in self.parts], axis=0), dtype=np.float64)


def _rows(name: str, values: npt.ArrayLike, *, exactly: int | None = None) -> FloatArray:
    rows = np.asarray(values, dtype=np.float64)
    if rows.ndim != 2 or len(rows) < 2 or (exactly is not None and len(rows) != exactly):
        wanted = "at least 2" if exactly is None else str(exactly)
        raise PhysicsError(f"source {name!r}: predictions of shape {rows.shape}, expected ({wanted}, masses)")
    return rows
