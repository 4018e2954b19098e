"""A cutflow that adds up over chunks, files and workers."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from gammastar.core.errors import BranchError, PhysicsError
from gammastar.core.pairs import Pairs
from gammastar.core.records import FloatArray

__all__ = ["Cutflow", "Step", "lost_leptons"]

Level: TypeAlias = Literal["event", "lepton", "pair"]

ALARM = 0.01  # part of the leptons that may be lost without a word
REFUSED = 0.5  # part beyond which the schema, not the data, is wrong
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
            msg = f"cutflows of different selections cannot be added: {mine} and {theirs}"
            raise PhysicsError(msg)
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
    if lost <= ALARM * n:
        return ""
    causes = sorted(flow["finite"].lost.items(), key=lambda cause: -cause[1])
    named = sources or {}
    text = "; ".join(
        f"{number} because {named.get(key, key)} is not {'±1' if key == 'charge' else 'finite'}"
        for key, number in causes
        if number
    )
    found = f"{lost} of {n} leptons ({lost / n:.1%}) are lost"
    if lost > REFUSED * n:
        msg = f"{found}: {text}; does the schema name the right branch?"
        raise BranchError(msg)
    return f"{found} to the selection: {text}"


def warned(flow: Cutflow) -> Cutflow:
    """Return a cutflow after `lost_leptons` looked at it; an alarm goes to the log."""
    alarm = lost_leptons(flow)
    if alarm:
        logger.warning("%s", alarm)
    return flow
