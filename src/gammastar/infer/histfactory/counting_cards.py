"""Counting cards of CMS Combine as workspaces, such as those of milliQan."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np

from gammastar.core.errors import InputFileError, PhysicsError
from gammastar.infer.histfactory.datacards import BOUNDS, ends_of
from gammastar.infer.histfactory.modifiers import Modifiers
from gammastar.infer.histfactory.workspaces import assemble, sample

ROUNDED = 0.02  # relative: rates and factors of a card are printed with few digits


@dataclass
class _Column:
    """One process in one channel."""

    bin: str
    process: str
    signal: bool
    rate: float
    factors: dict[str, tuple[float, float]] = field(default_factory=dict)  # lnN: κ_down, κ_up
    free: list[str] = field(default_factory=list)


@dataclass
class _Card:
    """A card, line by line."""

    name: str
    lines: list[str]
    bins: list[str] = field(default_factory=list)
    observed: list[float] = field(default_factory=list)
    columns: list[_Column] = field(default_factory=list)
    controls: dict[str, tuple[int, dict[int, float]]] = field(default_factory=dict)  # gmN
    parameters: dict[str, tuple[float, tuple[float, float]]] = field(default_factory=dict)

    def refuse(self, row: int, why: str) -> NoReturn:
        """Raise an error that shows a line."""
        msg = f"{self.name}: {why}; the line is {self.lines[row][:80]!r}"
        raise InputFileError(msg)

    def numbers(self, row: int, words: Sequence[str]) -> list[float]:
        """Return finite numbers of a line."""
        try:
            found = [float(word) for word in words]
        except ValueError as error:
            self.refuse(row, f"is no number ({error})")
        if not all(np.isfinite(found)):
            self.refuse(row, "numbers must be finite")
        return found

    def row(self, key: str, start: int = 0) -> int:
        """Return the first line from `start` on that begins with a word."""
        for row in range(start, len(self.lines)):
            if self.lines[row].split()[0] == key:
                return row
        msg = f"{self.name}: the card has no line {key!r}" + (" behind the observation" if start else "")
        raise InputFileError(msg)


def _says(line: str) -> bool:
    return bool(line.strip()) and not line.strip().startswith(("#", "-"))


def is_card(text: str) -> bool:
    """Return whether a text is a datacard: its first line that is no comment begins with ``imax``."""
    return next((line.split()[0] for line in text.splitlines() if _says(line)), "") == "imax"


def read_card(text: str, name: str = "card") -> dict[str, Any]:
    """Return a counting card as a workspace.

    Notes
    -----
    ``gmN N α``: N counts in a control region stand for N α events. It becomes a shapesys where it moves one
    process alone and N > 0, else a control channel of its own, which is exact for N = 0 too. Counts need not
    be whole: those of a masked search are expectations.
    """
    card = _Card(name, [line for line in text.splitlines() if _says(line)])
    _processes(card)
    for row in range(card.row("rate") + 1, len(card.lines)):
        _nuisance(card, row)
    _numbers_agree(card)
    return _workspace(card)


def _processes(card: _Card) -> None:
    """Read channels, observation, processes and rates."""
    for row, line in enumerate(card.lines):
        words = line.split()
        if words[0] == "shapes" and words[3:4] != ["FAKE"]:
            card.refuse(row, "only counting cards are read, this one has shapes")
    seen = card.row("observation")
    before = [row for row in range(seen) if card.lines[row].split()[0] == "bin"]
    card.bins = card.lines[before[-1]].split()[1:] if before else []
    card.observed = card.numbers(seen, card.lines[seen].split()[1:])
    if len(card.bins) != len(card.observed) or len(set(card.bins)) != len(card.bins) or not card.bins:
        card.refuse(seen, f"{len(card.observed)} counts for the channels {card.bins}")
    place, first = card.row("bin", seen), card.row("process", seen)
    second, rate = card.row("process", first + 1), card.row("rate", seen)
    rows = [card.lines[row].split()[1:] for row in (place, first, second)]
    if all(re.fullmatch(r"[+-]?\d+", word) for word in rows[1]):
        rows[1], rows[2], second = rows[2], rows[1], first
    rates = card.numbers(rate, card.lines[rate].split()[1:])
    if len({len(rates), *map(len, rows)}) > 1:
        card.refuse(rate, "lines bin, process and rate have different numbers of columns")
    unknown = sorted(set(rows[0]) - set(card.bins))
    if unknown:
        card.refuse(place, f"no observation for {unknown[0]!r}")
    if min([*rates, *card.observed], default=0.0) < 0:
        card.refuse(rate, "counts and rates must not be negative")
    numbers = card.numbers(second, rows[2])
    for where, process, number, value in zip(rows[0], rows[1], numbers, rates, strict=True):
        card.columns.append(_Column(where, process, number <= 0, value))
    if not any(column.signal for column in card.columns):
        card.refuse(second, "no process has a number of zero or below, which marks the signal")


def _nuisance(card: _Card, row: int) -> None:
    """Read a line below the rates."""
    name, kind, *rest = [*card.lines[row].split(), ""][: 2 + 2 * len(card.columns) + 4]
    if kind == "group":
        return
    if name in card.controls or any(name in column.factors for column in card.columns):
        card.refuse(row, f"two nuisances are called {name!r}")
    if kind == "rateParam":
        _rate_param(card, row)
        return
    if kind not in {"lnN", "gmN"}:
        card.refuse(row, f"nuisance of kind {kind!r}; lnN, gmN and plain rateParam are read")
    entries = [word for word in (rest[1:] if kind == "gmN" else rest) if word][: len(card.columns)]
    if len(entries) < len(card.columns):
        card.refuse(row, f"{len(entries)} entries for {len(card.columns)} columns")
    if kind == "gmN":
        card.controls[name] = _control(card, row, rest[0], entries)
        return
    for column, entry in zip(card.columns, entries, strict=True):
        if entry != "-":
            column.factors[name] = _factors(card, row, entry)


def _factors(card: _Card, row: int, entry: str) -> tuple[float, float]:
    """Return κ_down and κ_up of an entry of a ``lnN``."""
    try:
        ends = ends_of(entry)
    except (ValueError, ZeroDivisionError):
        card.refuse(row, f"{entry!r} is no factor")
    if not (all(np.isfinite(ends)) and min(ends) > 0):
        card.refuse(row, f"{entry!r}: factors must be positive")
    return ends


def _control(card: _Card, row: int, count: str, entries: Sequence[str]) -> tuple[int, dict[int, float]]:
    """Return the counts of a control region and their factors to the columns."""
    if not count.isdigit():
        card.refuse(row, f"{count!r} is no number of counts")
    number = int(count)
    chosen = [i for i, entry in enumerate(entries) if entry != "-"]
    factors = dict(zip(chosen, card.numbers(row, [entries[i] for i in chosen]), strict=True))
    if not factors or min(factors.values()) < 0:
        card.refuse(row, "gmN needs factors to the columns, none negative")
    for i, alpha in factors.items():
        wanted, rate = number * alpha, card.columns[i].rate
        if abs(wanted - rate) > ROUNDED * max(rate, wanted):
            card.refuse(row, f"{number} counts times {alpha:g} are {wanted:g} events, the rate is {rate:g}")
    return number, factors


def _rate_param(card: _Card, row: int) -> None:
    """Read ``name rateParam channel process start [low,high]``."""
    words = card.lines[row].split()
    bounds = re.fullmatch(r"\[([^,]+),([^,]+)\]", words[5]) if len(words) > 5 else None
    if len(words) < 5 or (len(words) > 5 and bounds is None):
        card.refuse(row, "rateParam is read as `name rateParam channel process start [low,high]` only")
    ends = BOUNDS if bounds is None else tuple(card.numbers(row, bounds.groups()))
    found = [c for c in card.columns if words[2] in {"*", c.bin} and words[3] in {"*", c.process}]
    if not found:
        card.refuse(row, "no column is of this channel and process")
    for column in found:
        column.free.append(words[0])
    card.parameters[words[0]] = card.numbers(row, words[4:5])[0], (ends[0], ends[1])


def _numbers_agree(card: _Card) -> None:
    """Refuse a card that has other numbers of channels or nuisances than it says."""
    nuisances = {name for column in card.columns for name in column.factors} | set(card.controls)
    for key, number in (("imax", len(card.bins)), ("kmax", len(nuisances))):
        words = next((line.split() for line in card.lines if line.split()[0] == key), [])
        if len(words) > 1 and words[1].isdigit() and int(words[1]) != number:
            msg = f"{card.name}: {key} = {words[1]}, but the card has {number}; write * or correct it"
            raise InputFileError(msg)


def _workspace(card: _Card) -> dict[str, Any]:
    channels: dict[str, list[dict[str, Any]]] = {where: [] for where in card.bins}
    counts = {where: [number] for where, number in zip(card.bins, card.observed, strict=True)}
    beside: dict[str, list[dict[str, Any]]] = {}
    extra: list[Modifiers] = [[] for _ in card.columns]
    scale = [column.rate for column in card.columns]
    for name, (number, factors) in card.controls.items():
        if number > 0 and len(factors) == 1:
            (place, alpha), *_ = factors.items()
            scale[place] = number * alpha
            extra[place].append({"name": name, "type": "shapesys", "data": [alpha * number**0.5]})
            continue
        free: Modifiers = [{"name": name, "type": "normfactor", "data": None}]
        beside[f"{name}_counts"], counts[f"{name}_counts"] = [sample("counts", [1.0], free)], [float(number)]
        card.parameters[name] = max(float(number), 0.1), (0.0, 10.0 * number + 30.0)
        for place, alpha in factors.items():
            extra[place] += free
            scale[place] = alpha
    for i, column in enumerate(card.columns):
        modifiers: Modifiers = [
            {"name": name, "type": "normsys", "data": {"hi": high, "lo": low}}
            for name, (low, high) in column.factors.items()
        ]
        modifiers += [{"name": name, "type": "normfactor", "data": None} for name in column.free]
        one = sample(column.process, [scale[i]], modifiers, extra[i], signal=column.signal)
        channels[column.bin].append(one)
    try:
        whole = {where: np.rint(values) for where, values in counts.items()}
        found = assemble(channels | beside, whole)
    except PhysicsError as error:
        msg = f"{card.name}: {error}"
        raise InputFileError(msg) from error
    found["observations"] = [{"name": where, "data": values} for where, values in counts.items()]
    found["measurements"][0]["config"]["parameters"] += [
        {"name": name, "inits": [start], "bounds": [list(ends)]}
        for name, (start, ends) in card.parameters.items()
    ]
    return found
