"""Cuts, and how many entries pass each of them."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import awkward as ak
import numpy as np
import numpy.typing as npt

from gammastar.core.errors import BranchError, PhysicsError, SteeringError, require
from gammastar.core.pairs import Pairs
from gammastar.core.records import BoolArray, FloatArray

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
        In the step ``finite``: leptons that were masked, by the first quantity that did it; in the step
        ``runs``: events of each run that are kept.
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
    def of_pairs(name: str, pairs: Pairs, keep: BoolArray) -> Step:
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
        require(mine == theirs, f"cutflows of different selections cannot be added: {mine} and {theirs}")
        return Cutflow(tuple(a + b for a, b in zip(self.steps, other.steps, strict=True)))

    def __radd__(self, other: int) -> Cutflow:
        if other != 0:
            return NotImplemented
        return self

    @property
    def runs(self) -> dict[int, int]:
        """Number of events of each kept run; empty if no runs were selected."""
        steps = [step.lost for step in self.steps if step.name == "runs"]
        return {int(run): number for run, number in (steps[0] if steps else {}).items()}

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
    rows = ((number, named.get(key, key), "±1" if key == "charge" else "finite") for key, number in causes)
    text = "; ".join(f"{number} because {key} is not {what}" for number, key, what in rows if number)
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


@dataclass(frozen=True, slots=True)
class Condition:
    """What a column must hold: bits, listed values, a range; all that is given.

    Attributes
    ----------
    all, any, none : int
        Bits of an integer column of which all, at least one, or none must be set; 0 asks for nothing.
    values, without : tuple
        Values that are kept, and values that are not; empty asks for nothing.
    range : (low, high), optional
        low ≤ x < high.

    Examples
    --------
    >>> Condition(all=0b1001, none=0b10).mask(np.array([9, 11, 13, 1]), "L0")
    array([ True, False,  True, False])
    """

    all: int = 0
    any: int = 0
    none: int = 0
    values: tuple[float | bool, ...] = ()
    without: tuple[float | bool, ...] = ()
    range: Range | None = None

    def __post_init__(self) -> None:
        for name in ("all", "any", "none"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 0:
                raise SteeringError(f"{name} = {getattr(self, name)!r} must be a mask of bits, not negative")
        if not (self.all or self.any or self.none or self.values or self.without or self.range):
            raise SteeringError("asks for nothing; give all, any, none, values, without or range")
        both = set(self.values) & set(self.without)
        if self.all & self.none or (self.any and not self.any & ~self.none) or both:
            raise SteeringError("asks for what it excludes: nothing can pass")
        if self.range is not None and not self.range[0] < self.range[1]:
            raise SteeringError(f"range = {list(self.range)} must be [low, high] with low < high")

    def mask(self, column: npt.NDArray[Any], where: str) -> BoolArray:
        """Return which entries of a column pass; `where` names the column in messages."""
        keep = np.ones(len(column), dtype=np.bool_)
        if self.all or self.any or self.none:
            bits = self._bits(column, where)
            one = bits.dtype.type
            keep &= (bits & one(self.all)) == self.all
            keep &= (bits & one(self.none)) == 0
            keep &= ((bits & one(self.any)) != 0) | (not self.any)
        if self.values:
            keep &= np.isin(column, _of_type(self.values, column, where))
        if self.without:
            keep &= ~np.isin(column, _of_type(self.without, column, where))
        return keep if self.range is None else keep & kept(column, self.range, where)

    def _bits(self, column: npt.NDArray[Any], where: str) -> npt.NDArray[Any]:
        size = 8 * column.dtype.itemsize
        widest = max(self.all, self.any, self.none)
        if column.dtype.kind not in "iu":
            raise SteeringError(f"{where}: all, any and none need integers, and the column is {column.dtype}")
        if widest >> size:
            raise SteeringError(
                f"{where}: mask {widest:#x} has {widest.bit_length()} bits, a column of {column.dtype} {size}"
            )
        return column.view(f"u{column.dtype.itemsize}")


def _of_type(listed: tuple[float | bool, ...], column: npt.NDArray[Any], where: str) -> npt.NDArray[Any]:
    """Return values in the type of a column; one that the type cannot hold is refused."""
    for value in listed:
        info = np.iinfo(column.dtype) if column.dtype.kind in "iu" else None
        fits = info is None or (value == int(value) and info.min <= value <= info.max)
        if not fits or (column.dtype.kind == "b" and value not in (0, 1)):
            raise SteeringError(f"{where}: a column of {column.dtype} never holds {value!r}")
    return np.array(listed, dtype=column.dtype)


def kept(column: npt.NDArray[Any], wanted: Range | Condition, where: str) -> BoolArray:
    """Return which entries lie in a range or meet a condition; integers are compared as integers."""
    if isinstance(wanted, Condition):
        return wanted.mask(column, where)
    low, high = wanted
    if column.dtype.kind in "iu":
        low, high = (math.ceil(edge) if math.isfinite(edge) else edge for edge in (low, high))
    return np.asarray((column >= low) & (column < high))


@dataclass(frozen=True, slots=True, eq=False)
class Runs:
    """Runs of the data: which are kept, and how each of them counts.

    Attributes
    ----------
    good : mapping of run to ranges of blocks, optional
        Runs that are kept, with first and last luminosity block or spill; no range is the whole run. None
        keeps all runs.
    prescale, pot : mapping of run to number
        What events of a run are multiplied with, and its protons on target; empty: one, and unknown.
    """

    good: Mapping[int, tuple[tuple[int, int], ...]] | None = None
    prescale: Mapping[int, float] = field(default_factory=dict)
    pot: Mapping[int, float] = field(default_factory=dict)

    def keep(self, run: npt.NDArray[Any], block: npt.NDArray[Any] | None) -> BoolArray:
        """Return the events of good runs and blocks."""
        if self.good is None:
            return np.ones(len(run), dtype=np.bool_)
        mask = np.zeros(len(run), dtype=np.bool_)
        for number in set(np.unique(run).tolist()) & set(self.good):
            ranges = self.good[number]
            mine = run == number
            if ranges and block is None:
                msg = f"runs: blocks of run {number} are listed; name the branch of blocks as schema.block"
                raise SteeringError(msg)
            if ranges and block is not None:
                mine &= np.any([(block >= first) & (block <= last) for first, last in ranges], axis=0)
            mask |= mine
        return mask

    def with_table(
        self,
        run: npt.NDArray[Any],
        *,
        block: npt.NDArray[Any] | None = None,
        pot: FloatArray | None = None,
        prescale: FloatArray | None = None,
    ) -> Runs:
        """Return the runs with the numbers of a table: a row for each run, or for each of its blocks."""
        run = np.asarray(run).astype(np.int64)
        numbers, place, rows = np.unique(run, return_inverse=True, return_counts=True)
        if block is None and (rows > 1).any():
            several = f"run {numbers[rows > 1][0]} has {rows[rows > 1][0]} rows"
            raise SteeringError(f"{several}; name the column of blocks, or keep one row")
        parts = [number for number in numbers.tolist() if (self.good or {}).get(number)]
        if block is None and pot is not None and parts:
            msg = f"blocks of run {parts[0]} are selected, and its protons are of the whole run; "
            raise SteeringError(f"{msg}name the column of blocks in a table with a row for each")
        whole = None if self.good is None else dict.fromkeys(self.good, ())
        mine = self.keep(run, block) if block is not None else Runs(whole).keep(run, None)
        summed, scale = {}, {}
        for i in np.unique(place[mine]).tolist():
            chosen, number = mine & (place == i), int(numbers[i])
            if pot is not None:
                summed[number] = float(pot[chosen].sum())
            if prescale is not None:
                scale[number] = float(prescale[chosen][0])
                if (prescale[chosen] != scale[number]).any():
                    raise SteeringError(f"the blocks of run {number} have several prescales; select one kind")
        return Runs(self.good, scale, summed)

    def demand(self, runs: Iterable[int]) -> None:
        """Refuse runs that a table does not have."""
        for name in ("pot", "prescale"):
            absent = sorted(set(runs) - set(getattr(self, name)))
            if getattr(self, name) and absent:
                msg = f"read.runs: {len(absent)} runs of the data have no {name} in the table"
                raise SteeringError(f"{msg}: {_some(absent)}")

    def scales(self, run: npt.NDArray[Any]) -> FloatArray:
        """Return the prescale of each event."""
        runs, place = np.unique(run, return_inverse=True)
        self.demand(runs.tolist())
        return np.array([self.prescale[number] for number in runs.tolist()], dtype=np.float64)[place]

    def exposure(self, events: Mapping[int, int]) -> tuple[float, tuple[str, ...]]:
        """Return the protons on target of the kept runs, and notes, from the number of events in each run.

        A kept run of the table without any event counts if that is no surprise: fewer than seven expected,
        after the others. Of more its file is missing, and its protons are left out.
        """
        self.demand(events)
        total = math.fsum(self.pot[run] for run in events)
        if not total > 0:
            raise SteeringError(f"read.runs: the {len(events)} runs that are kept have no protons on target")
        good = self.pot if self.good is None else self.good
        rest = {run: n for run, n in self.pot.items() if run not in events and run in good}
        expected = {run: sum(events.values()) * pot / total for run, pot in rest.items()}
        missing = sorted(run for run, number in expected.items() if number >= FEWEST_OF_RUN)
        total += math.fsum(pot for run, pot in rest.items() if run not in missing)
        lost = math.fsum(rest[run] for run in missing)
        text = f"{len(missing)} runs with {lost:.4g} protons on target have no event ({_some(missing)}): are "
        return total, (f"{text}files missing? They do not count",) if missing else ()


FEWEST_OF_RUN = 7.0  # expected events of a run; that it has none has a probability of 1e-3


def _some(runs: Sequence[int]) -> str:
    return ", ".join(map(str, runs[:5])) + (", …" if len(runs) > 5 else "")


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
    event : mapping of str to (low, high) or Condition
        Ranges and conditions of event columns of the schema.
    lepton : mapping of str to (low, high) or Condition
        Half-open ranges, low ≤ x < high, of ``momentum``, ``energy``, ``pt`` [GeV], ``theta`` [rad], ``eta``
        or of a lepton column of the schema; both leptons of a pair must pass.
    pair : mapping of str to (low, high) or Condition
        Ranges of ``mass``, ``pt``, ``energy`` [GeV], ``angle`` [rad] or of a pair column.
    event_functions : sequence of functions
        Take the events, return a mask of events or of their leptons.
    pair_functions : sequence of functions
        Take the pairs, return a mask of pairs.
    vertex : tuple of str
        Lepton columns with x and y of the track at the z of the interaction, from the interaction: pairs then
        have the columns ``vertex_z``, ``vertex_distance`` and ``vertex_impact``. Empty: they have not.
    runs : Runs, optional
        Good runs and prescales; for data, not for simulation.
    scale_factors : sequence of ScaleFactor
        Multiply the weights of pairs; for simulation, not for data.
    """

    lepton: Mapping[str, Range | Condition] = field(default_factory=dict)
    pair: Mapping[str, Range | Condition] = field(default_factory=dict)
    ghost: GhostVeto | None = None
    event_functions: Sequence[EventFunction] = ()
    pair_functions: Sequence[PairFunction] = ()
    vertex: tuple[str, ...] = ()
    event: Mapping[str, Range | Condition] = field(default_factory=dict)
    runs: Runs | None = None
    scale_factors: Sequence[Any] = ()

    def __post_init__(self) -> None:
        if len(self.vertex) not in (0, 2):
            msg = f"select.vertex = {list(self.vertex)!r} must name two lepton columns, x and y of the track"
            raise SteeringError(msg)
        for table in ("event", "lepton", "pair"):
            for name, bounds in getattr(self, table).items():
                if isinstance(bounds, Condition):
                    continue
                if len(bounds) != 2 or not bounds[0] < bounds[1]:
                    msg = f"select.{table}.{name} = {list(bounds)!r} must be [low, high] with low < high"
                    raise SteeringError(msg)


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
