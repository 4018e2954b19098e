"""Cuts, and how many entries pass each of them."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import awkward as ak
import numpy as np
import numpy.typing as npt

from gammastar.core.errors import BranchError, PhysicsError, SteeringError
from gammastar.core.pairs import Pairs
from gammastar.core.records import FloatArray

Level: TypeAlias = Literal["event", "lepton", "pair"]

MAX_LOST = 0.01  # part of the leptons that may be lost without a word
MAX_LOST_BY_SCHEMA = 0.5  # part beyond which the schema, not the data, is wrong
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Step:
    """What is left after one cut.

    Attributes
    ----------
    name : str
        Name of the cut.
    level : {"event", "lepton", "pair"}
        What is counted.
    n : int
        Number that is left.
    weight, variance : float
        Sum of weights and of squared weights.
    os, pp, mm : float
        Sum of weights of opposite-sign, ++ and -- pairs; 0 for events and leptons.
    lost : mapping of str to int
        In the step ``finite``: leptons that were masked, by the first quantity that did it.
    """

    name: str
    level: Level
    n: int
    weight: float
    variance: float
    os: float = 0.0
    pp: float = 0.0
    mm: float = 0.0
    lost: Mapping[str, int] = field(default_factory=dict, kw_only=True)

    @staticmethod
    def of(name: str, level: Level, weight: FloatArray) -> Step:
        """Return the step of the events or leptons with these weights."""
        return Step(name, level, len(weight), float(np.sum(weight)), float(np.sum(weight**2)))

    @staticmethod
    def of_pairs(name: str, pairs: Pairs, keep: npt.NDArray[np.bool_]) -> Step:
        """Return the step of the pairs that a mask keeps."""
        weight = np.where(keep, pairs.weight, 0.0)
        by_charge = [float(np.sum(weight[mask])) for mask in (pairs.os, pairs.pp, pairs.mm)]
        total = (int(np.sum(keep)), float(np.sum(weight)), float(np.sum(weight**2)))
        return Step(name, "pair", *total, *by_charge)

    def __add__(self, other: Step) -> Step:
        sums = (getattr(self, key) + getattr(other, key) for key in ("weight", "variance", "os", "pp", "mm"))
        names = dict.fromkeys((*self.lost, *other.lost))
        lost = {name: self.lost.get(name, 0) + other.lost.get(name, 0) for name in names}
        return Step(self.name, self.level, self.n + other.n, *sums, lost=lost)


@dataclass(frozen=True, slots=True)
class Cutflow:
    """The steps of a selection in the order in which they are applied; ``sum(cutflows)`` works.

    Examples
    --------
    >>> one = Cutflow((Step.of("all events", "event", np.ones(3)),))
    >>> (one + one)["all events"].n
    6
    """

    steps: tuple[Step, ...] = ()

    def __getitem__(self, name: str) -> Step:
        for step in self.steps:
            if step.name == name:
                return step
        msg = f"cutflow has no step {name!r}; it has {', '.join(step.name for step in self.steps)}"
        raise PhysicsError(msg)

    def __add__(self, other: Cutflow) -> Cutflow:
        if not self.steps or not other.steps:
            return self if self.steps else other
        mine, theirs = ([(s.name, s.level) for s in c.steps] for c in (self, other))
        if mine != theirs:
            raise PhysicsError(f"cutflows of different selections cannot be added: {mine} and {theirs}")
        return Cutflow(tuple(a + b for a, b in zip(self.steps, other.steps, strict=True)))

    def __radd__(self, other: int) -> Cutflow:
        if other != 0:
            return NotImplemented
        return self

    @property
    def not_finite(self) -> int:
        """Leptons that were masked because a quantity is not finite or the charge is not one."""
        names = [step.name for step in self.steps]
        return self["leptons"].n - self["finite"].n if {"leptons", "finite"} <= set(names) else 0

    def rows(self) -> list[dict[str, Any]]:
        """Return one mapping per step, for tables and JSON files."""
        return [{key: getattr(step, key) for key in Step.__dataclass_fields__} for step in self.steps]

    def __str__(self) -> str:
        lines = [f"{'step':<24}{'of':<8}{'n':>12}{'weight':>14}{'+-':>12}{'++':>12}{'--':>12}"]
        for s in self.steps:
            charges = f"{s.os:>12.6g}{s.pp:>12.6g}{s.mm:>12.6g}" if s.level == "pair" else ""
            lines.append(f"{s.name:<24}{s.level:<8}{s.n:>12d}{s.weight:>14.6g}{charges}")
        return "\n".join(lines)


def lost_leptons(flow: Cutflow, sources: Mapping[str, str] | None = None) -> str:
    """Return an alarm if more than 1 % of the leptons were masked, and why; "" if not.

    Parameters
    ----------
    flow : Cutflow
        Of all chunks.
    sources : mapping of quantity to text, optional
        What the schema reads px, py, pz, mass and charge from, e.g. ``Schema.sources``.

    Raises
    ------
    BranchError
        If more than half of the leptons were masked; it names the column that did it.
    """
    n = flow["leptons"].n if flow.steps else 0
    lost = flow.not_finite
    if lost <= MAX_LOST * n:
        return ""
    causes = sorted(flow["finite"].lost.items(), key=lambda cause: -cause[1])
    named = sources or {}
    text = "; ".join(
        f"{number} because {named.get(key, key)} is not {'±1' if key == 'charge' else 'finite'}"
        for key, number in causes
        if number
    )
    found = f"{lost} of {n} leptons ({lost / n:.1%}) are lost"
    if lost > MAX_LOST_BY_SCHEMA * n:
        raise BranchError(f"{found}: {text}; does the schema name the right branch?")
    return f"{found} to the selection: {text}"


def warned(flow: Cutflow) -> Cutflow:
    """Return a cutflow after `lost_leptons` looked at it; an alarm goes to the log."""
    alarm = lost_leptons(flow)
    if alarm:
        logger.warning("%s", alarm)
    return flow


Range: TypeAlias = tuple[float, float]
EventFunction: TypeAlias = Callable[[ak.Array], Any]  # one bool per event, or a list of bools per event
PairFunction: TypeAlias = Callable[[Pairs], Any]  # one bool per pair

LEPTON_QUANTITIES = ("momentum", "energy", "theta", "pt", "eta")
PAIR_QUANTITIES = ("mass", "pt", "energy", "angle")


@dataclass(frozen=True, slots=True)
class GhostVeto:
    """Remove pairs of one track that was reconstructed twice.

    Attributes
    ----------
    angle : float
        Pairs with a smaller opening angle [rad] are removed.
    excess : float
        Pairs with a smaller mass above threshold, m − 2 m_l [GeV], are removed.

    Notes
    -----
    Split tracks make collinear like-sign pairs; left in, the subtracted yield at low mass turns negative.
    The veto must not depend on the charges, so it acts on all pairs alike.
    """

    angle: float = 0.0
    excess: float = 0.0

    def __post_init__(self) -> None:
        for name in ("angle", "excess"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise SteeringError(f"select.ghost.{name} = {value!r} must be zero or positive")


@dataclass(frozen=True, slots=True)
class Cuts:
    """A selection of leptons and pairs.

    Attributes
    ----------
    lepton : mapping of str to (low, high)
        Half-open ranges, low ≤ x < high, of ``momentum``, ``energy``, ``pt`` [GeV], ``theta`` [rad], ``eta``
        or of a lepton column of the schema; both leptons of a pair must pass.
    pair : mapping of str to (low, high)
        Ranges of ``mass``, ``pt``, ``energy`` [GeV], ``angle`` [rad] or of a pair column.
    event_functions : sequence of functions
        Take the events, return a mask of events or of their leptons.
    pair_functions : sequence of functions
        Take the pairs, return a mask of pairs.
    vertex : tuple of str
        Lepton columns with x and y of the track at the z of the interaction, from the interaction: pairs then
        have the columns ``vertex_z``, ``vertex_distance`` and ``vertex_impact``. Empty: they have not.
    """

    lepton: Mapping[str, Range] = field(default_factory=dict)
    pair: Mapping[str, Range] = field(default_factory=dict)
    ghost: GhostVeto | None = None
    event_functions: Sequence[EventFunction] = ()
    pair_functions: Sequence[PairFunction] = ()
    vertex: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.vertex) not in (0, 2):
            msg = f"select.vertex = {list(self.vertex)!r} must name two lepton columns, x and y of the track"
            raise SteeringError(msg)
        for table in ("lepton", "pair"):
            for name, bounds in getattr(self, table).items():
                if len(bounds) != 2 or not bounds[0] < bounds[1]:
                    msg = f"select.{table}.{name} = {list(bounds)!r} must be [low, high] with low < high"
                    raise SteeringError(msg)

    @staticmethod
    def from_mapping(
        mapping: Mapping[str, Any],
        *,
        event_functions: Sequence[EventFunction] = (),
        pair_functions: Sequence[PairFunction] = (),
    ) -> Cuts:
        """Build cuts from the ``[select]`` table of a steering file (keys lepton, pair, ghost).

        Parameters
        ----------
        mapping : mapping
            Plain values, as of a TOML file.
        event_functions : sequence of functions
            Own selections of events.
        pair_functions : sequence of functions
            Own selections of pairs.

        Examples
        --------
        >>> Cuts.from_mapping({"lepton": {"energy": [3, 400]}}).lepton["energy"]
        (3.0, 400.0)
        """
        unknown = set(mapping) - {"lepton", "pair", "ghost"}
        if unknown:
            raise SteeringError(f"select.{sorted(unknown)[0]}: unknown key; known keys: lepton, pair, ghost")
        ghost = mapping.get("ghost")
        try:
            ranges = {
                table: {name: tuple(map(float, bounds)) for name, bounds in mapping.get(table, {}).items()}
                for table in ("lepton", "pair")
            }
            veto = GhostVeto(**ghost) if ghost is not None else None
        except (TypeError, ValueError, AttributeError) as error:
            msg = f"select: {error}; ranges are name = [low, high], ghost has the keys angle and excess"
            raise SteeringError(msg) from error
        return Cuts(
            ranges["lepton"],  # type: ignore[arg-type]  # lengths are checked in __post_init__
            ranges["pair"],  # type: ignore[arg-type]
            veto,
            event_functions,
            pair_functions,
        )

    def __call__(self, events: ak.Array) -> Pairs:
        """Return the selected pairs of a chunk of events; the form that simulated events are matched with."""
        from gammastar.select.pairing import pairs

        return pairs(events, self)[0]


def lepton_quantity(lepton: ak.Array, name: str) -> ak.Array:
    """Return a kinematic quantity or a column of leptons."""
    if name in lepton.fields:
        return lepton[name]
    square = lepton.px**2 + lepton.py**2
    if name == "pt":
        return np.sqrt(square)
    if name == "theta":
        return np.arctan2(np.sqrt(square), lepton.pz)
    if name == "eta":
        with np.errstate(
            divide="ignore", invalid="ignore"
        ):  # along the beam eta is infinite: no range holds it
            return np.arcsinh(lepton.pz / np.sqrt(square))
    if name == "momentum":
        return np.sqrt(square + lepton.pz**2)
    if name == "energy":
        return np.sqrt(square + lepton.pz**2 + lepton.mass**2)
    known = ", ".join((*LEPTON_QUANTITIES, *lepton.fields))
    raise SteeringError(f"select.lepton.{name}: unknown quantity; use one of {known}")


def pair_quantity(pairs: Pairs, name: str) -> np.typing.NDArray[np.float64]:
    """Return a kinematic quantity or a column of pairs."""
    if name in pairs.columns:
        return pairs.columns[name]
    if name in PAIR_QUANTITIES[:3]:
        return np.asarray(getattr(pairs, name))
    known = dict.fromkeys((*PAIR_QUANTITIES, *pairs.columns))
    raise SteeringError(f"select.pair.{name}: unknown quantity; use one of {', '.join(known)}")
