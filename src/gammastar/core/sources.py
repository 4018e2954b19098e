"""Uncertainties of one prediction by source: one name each, covariances between masses."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray

__all__ = [
    "EFFICIENCY",
    "EXTRAPOLATION",
    "FLOW",
    "KINDS",
    "MEASUREMENT",
    "POLARISATION",
    "POT",
    "PRIOR",
    "RADIATION",
    "RESERVED",
    "SAMPLE",
    "SCALING",
    "SEARCH_POT",
    "SPIN",
    "THEORY",
    "THEORY_OF",
    "WIDTHS",
    "Kind",
    "Source",
    "Sources",
    "spelling",
]

Kind: TypeAlias = Literal[
    "pot", "spectrum", "kinematics", "polarisation", "scaling", "widths", "extrapolation", "theory", "sample"
]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""Groups of sources as limits take them: each is one nuisance of the signal, protons on target are two."""

MEASUREMENT, THEORY = "measurement", "theory"
POT, SEARCH_POT = "protons on target", "protons on target of the search"
POLARISATION, RADIATION, EFFICIENCY = "polarisation of virtual photons", "final-state radiation", "efficiency"
PRIOR = "prior of the unfolding"
THEORY_OF = "theory, "
"""Before the group of a theory channel that stands beside measured photons."""
SPIN, FLOW, SCALING = "spin state of the decays", "flow", "scaling with A"
WIDTHS, EXTRAPOLATION, SAMPLE = "hadronic width", "extrapolation", "finite sample"

RESERVED = (
    *(MEASUREMENT, THEORY, POT, SEARCH_POT, POLARISATION, RADIATION, EFFICIENCY, SPIN, FLOW, SCALING),
    *(WIDTHS, EXTRAPOLATION, SAMPLE, "background", "open charm", "charm", "mass", "total"),
    *(PRIOR, "prior", "in the limit", *KINDS),
)
"""Names that no source of a user may take."""


def spelling(name: str) -> str:
    """Return letters and digits of a name alone: names that agree in them are taken for the same."""
    return "".join(letter for letter in name.casefold() if letter.isalnum())


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """One source of uncertainty.

    Attributes
    ----------
    name : str
    kind : Kind
        The nuisance of the limit to which it belongs.
    cov : NDArray, shape (n, n)
        Covariance of the prediction between masses.
    """

    name: str
    kind: Kind
    cov: FloatArray

    def __post_init__(self) -> None:
        if not spelling(self.name) or self.kind not in KINDS:
            msg = f"source {self.name!r} of kind {self.kind!r}: needs a name, and one of {', '.join(KINDS)}"
            raise PhysicsError(msg)
        shape = np.shape(self.cov)
        if len(shape) != 2 or shape[0] != shape[1] or not np.isfinite(self.cov).all():
            msg = f"source {self.name!r}: covariance of shape {shape} must be square and finite"
            raise PhysicsError(msg)

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
    """Independent sources of one prediction at n masses.

    Raises
    ------
    PhysicsError
        If two sources have the same name, or names that differ in spelling only: one would overwrite or
        double the other. Also for covariances of different shapes.

    Examples
    --------
    >>> flow, charm = Source.shifted("flow", "kinematics", [3.0]), Source.shifted("charm", "spectrum", [4.0])
    >>> float(Sources((flow, charm)).total()[0, 0])
    25.0
    """

    parts: tuple[Source, ...] = ()

    def __post_init__(self) -> None:
        seen: dict[str, str] = {}
        for part in self.parts:
            plain = spelling(part.name)
            if plain in seen:
                msg = (
                    f"two sources of uncertainty are called {seen[plain]!r} and {part.name!r}; "
                    "each needs a name of its own, as one would overwrite the other"
                )
                raise PhysicsError(msg)
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
        """Return the source of a name.

        Raises
        ------
        PhysicsError
            If there is none.
        """
        for part in self.parts:
            if part.name == name:
                return part
        msg = f"no source {name!r}; there are {', '.join(self.names) or 'none'}"
        raise PhysicsError(msg)

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
        msg = f"source {name!r}: predictions of shape {rows.shape}, expected ({wanted}, masses)"
        raise PhysicsError(msg)
    return rows
