"""Datacards of CMS Combine: workspaces written, with the histograms that they name; counting cards read.

Combine (HiggsAnalysis/CombinedLimit) multiplies processes numbered zero or below by the signal strength r,
the ``mu`` of our workspaces. What becomes of a modifier:

| HistFactory | card |
|---|---|
| normsys | ``lnN``, κ or κ_down/κ_up |
| histosys, with the normsys of its name | ``shape`` with a histogram up and one down |
| normfactor | ``rateParam``; that of the signal strength is implied |
| shapesys | ``gmN`` where its counts are whole; else a ``rateParam`` and a channel of the counts |
| shapefactor | a ``rateParam`` per bin |
| staterror | a ``rateParam`` per bin with a Gaussian ``param`` |

The last three stand for single bins, so that each bin of their channel becomes a counting channel; there
histosys is a ``lnN`` per bin. A sample that is nothing but a shift about zero becomes that shift times a
parameter with a Gaussian constraint. Both programs agree at nominal and one standard deviation away; between,
each interpolates asymmetric variations in its own way.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np

from gammastar.core.errors import InputFileError, PhysicsError
from gammastar.core.records import FloatArray
from gammastar.infer.histfactory.hs3 import staterrors
from gammastar.infer.histfactory.modifiers import Modifiers
from gammastar.infer.histfactory.workspaces import assemble, sample

BINWISE = {"shapesys", "shapefactor", "staterror"}
WHOLE = 1e-6  # relative: counts that are whole numbers but for rounding
FIVE = 5.0  # standard deviations, bounds of a nuisance in HistFactory
BOUNDS = (0.0, 20.0)  # of a free factor whose workspace gives none
WORD = re.compile(r"[^A-Za-z0-9_]+")


@dataclass(frozen=True, slots=True)
class Card:
    """A datacard and the histograms that it names."""

    text: str  # With the name of the ROOT file where `histograms` belong
    # Contents by their names in the file, ``<channel>/<process>`` and so on; bins are numbered from zero
    histograms: Mapping[str, FloatArray]


@dataclass
class _Column:
    """One process in one bin of the card."""

    bin: str
    process: str
    signal: bool
    rate: float
    effects: dict[str, tuple[str, str]] = field(default_factory=dict)  # name -> kind, value


@dataclass
class _Lines:
    """What a card is made of."""

    shapes: list[str]
    observed: dict[str, float]
    columns: list[_Column]
    rest: list[str]
    histograms: dict[str, FloatArray]
    controls: list[tuple[str, int, _Column, float]] = field(default_factory=list)  # gmN: N and factor


@dataclass(frozen=True)
class _Known:
    """What the measurement says of the parameters."""

    poi: str
    settings: Mapping[str, Any]

    def is_signal(self, one: Mapping[str, Any]) -> bool:
        return any(m["name"] == self.poi for m in one["modifiers"])


def _word(name: str) -> str:
    """Return a name that Combine takes: letters, digits and underscores, and not r, its signal strength."""
    found = WORD.sub("_", name).strip("_") or "x"
    return "r_" if found == "r" else found


def to_card(workspace: Mapping[str, Any], *, root: str = "shapes.root", note: str = "") -> Card:
    """Return a workspace as a datacard."""
    if len(workspace["measurements"]) != 1:
        raise PhysicsError(
            f"to_card: {len(workspace['measurements'])} measurements, expected one; give one after the other"
        )
    config = workspace["measurements"][0]["config"]
    known = _Known(config["poi"], {entry["name"]: entry for entry in config["parameters"]})
    counts = {entry["name"]: entry["data"] for entry in workspace["observations"]}
    _distinct(workspace)
    lines = _Lines([], {}, [], [], {})
    for channel in workspace["channels"]:
        kinds = {m["type"] for one in channel["samples"] for m in one["modifiers"]}
        split = len(channel["samples"][0]["data"]) == 1 or bool(kinds & BINWISE)
        (_split if split else _whole)(channel, counts[channel["name"]], known, lines)
        if not split:
            name = _word(channel["name"])
            lines.shapes.append(f"shapes * {name} {root} $CHANNEL/$PROCESS $CHANNEL/$PROCESS_$SYSTEMATIC")
    if lines.shapes:
        single = [name for name in lines.observed if not any(f"shapes * {name} " in x for x in lines.shapes)]
        lines.shapes += [f"shapes * {name} FAKE" for name in single]
    masked = "masked" in workspace["measurements"][0]["name"]
    head = [note, "observation: the expected background, no data" if masked else ""]
    return Card(_text(lines, [line for line in head if line]), lines.histograms)


def _distinct(workspace: Mapping[str, Any]) -> None:
    """Refuse names that Combine could not tell apart."""
    groups: dict[str, set[str]] = {
        "channels": {channel["name"] for channel in workspace["channels"]},
        "nuisances": {m["name"] for c in workspace["channels"] for s in c["samples"] for m in s["modifiers"]},
    }
    groups |= {c["name"]: {s["name"] for s in c["samples"]} for c in workspace["channels"]}
    for where, names in groups.items():
        seen: dict[str, str] = {}
        for name in sorted(names):
            first = seen.setdefault(_word(name), name)
            if first != name:
                both = f"{first!r} and {name!r} are both {_word(name)!r}"
                raise PhysicsError(f"to_card, {where}: {both} to Combine; rename one")


def _factor(modifier: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """Return κ of a normalisation: of a normsys, or of lumi with its relative error."""
    if modifier["type"] == "lumi":
        sigmas = settings.get(modifier["name"], {}).get("sigmas")
        if not sigmas:
            raise PhysicsError(f"to_card: the error of {modifier['name']!r} is not in the measurement")
        return f"{1.0 + float(sigmas[0]):.9g}"
    high, low = float(modifier["data"]["hi"]), float(modifier["data"]["lo"])
    return f"{high:.9g}" if abs(high * low - 1.0) < 1e-9 else f"{low:.9g}/{high:.9g}"


def _free(name: str, column: _Column, settings: Mapping[str, Any], lines: _Lines, k: int = 0) -> None:
    """Add a free factor on one column."""
    given = settings.get(name.rsplit("_bin", 1)[0], {})
    start = float((given.get("inits") or [1.0] * (k + 1))[k])
    low, high = (given.get("bounds") or [BOUNDS] * (k + 1))[k]
    lines.rest.append(
        f"{_word(name)} rateParam {column.bin} {column.process} {start:.9g} [{low:.9g},{high:.9g}]"
    )


def _additive(one: Mapping[str, Any], what: str) -> tuple[str, FloatArray] | None:
    """Return nuisance and template of a sample that is nothing but a shift about zero; None for others."""
    kinds = {m["type"]: m for m in one["modifiers"]}
    if np.any(one["data"]) or "histosys" not in kinds:
        return None
    data = kinds["histosys"]["data"]
    high, low = (np.asarray(data[key], dtype=np.float64) for key in ("hi_data", "lo_data"))
    if len(one["modifiers"]) > 1 or not np.allclose(high, -low) or (high < 0).any():
        raise PhysicsError(
            f"to_card, {what}: an empty sample with more than one shift of one sign; put it on a background"
        )
    return kinds["histosys"]["name"], high


def _shift(name: str, column: _Column, lines: _Lines) -> None:
    """Make a process the shift of one standard deviation times a parameter about zero."""
    lines.rest.append(f"{_word(name)} rateParam {column.bin} {column.process} 0 [-{FIVE:g},{FIVE:g}]")
    constraint = f"{_word(name)} param 0 1"
    if constraint not in lines.rest:
        lines.rest.append(constraint)


def _whole(channel: Mapping[str, Any], counts: Sequence[float], known: _Known, lines: _Lines) -> None:
    """Add a channel as histograms."""
    where = _word(channel["name"])
    lines.observed[where] = float(np.sum(counts))
    lines.histograms[f"{where}/data_obs"] = np.asarray(counts, dtype=np.float64)
    for one in channel["samples"]:
        process, what = _word(one["name"]), f"{channel['name']}, {one['name']}"
        shift = _additive(one, what)
        nominal = np.asarray(one["data"], dtype=np.float64) if shift is None else shift[1]
        column = _Column(where, process, known.is_signal(one), float(nominal.sum()))
        lines.columns.append(column)
        lines.histograms[f"{where}/{process}"] = nominal
        if shift is not None:
            _shift(shift[0], column, lines)
            continue
        factors = {m["name"]: m for m in one["modifiers"] if m["type"] in {"normsys", "lumi"}}
        for modifier in one["modifiers"]:
            name = modifier["name"]
            if modifier["type"] == "histosys":
                for side, values in _templates(modifier, factors.pop(name, None), what).items():
                    lines.histograms[f"{where}/{process}_{_word(name)}{side}"] = values
                column.effects[_word(name)] = "shape", "1"
            elif modifier["type"] == "normfactor" and name != known.poi:
                _free(name, column, known.settings, lines)
        for name, modifier in factors.items():
            column.effects[_word(name)] = "lnN", _factor(modifier, known.settings)


def _templates(
    modifier: Mapping[str, Any], norm: Mapping[str, Any] | None, what: str
) -> dict[str, FloatArray]:
    """Return the histograms up and down of a variation with its normalisation."""
    ends = (1.0, 1.0) if norm is None else (norm["data"]["hi"], norm["data"]["lo"])
    found = {}
    for side, key, factor in zip(("Up", "Down"), ("hi_data", "lo_data"), ends, strict=True):
        values = np.asarray(modifier["data"][key], dtype=np.float64) * factor
        if (values < 0).any():
            raise PhysicsError(
                f"to_card, {what}: variation {modifier['name']!r} is negative in a bin; merge bins"
            )
        found[side] = values
    return found


def _split(channel: Mapping[str, Any], counts: Sequence[float], known: _Known, lines: _Lines) -> None:
    """Add each bin of a channel as a counting channel."""
    totals, bins = staterrors(channel), len(counts)
    shifts = [_additive(one, f"{channel['name']}, {one['name']}") for one in channel["samples"]]
    for k in range(bins):
        suffix = "" if bins == 1 else f"_bin{k}"
        where = _word(channel["name"]) + suffix
        lines.observed[where] = float(counts[k])
        for one, shift in zip(channel["samples"], shifts, strict=True):
            rate = float(one["data"][k] if shift is None else shift[1][k])
            column = _Column(where, _word(one["name"]), known.is_signal(one), rate)
            lines.columns.append(column)
            if shift is not None:
                _shift(shift[0], column, lines)
                continue
            for modifier in one["modifiers"]:
                if modifier["type"] in BINWISE:
                    _binwise(modifier, k, column, (suffix, totals, known), lines)
                elif modifier["name"] != known.poi:
                    _in_bin(modifier, k, column, known, lines)


def _in_bin(modifier: Mapping[str, Any], k: int, column: _Column, known: _Known, lines: _Lines) -> None:
    """Add what a modifier of a whole channel does to one bin."""
    name, kind = modifier["name"], modifier["type"]
    if kind in {"normsys", "lumi"}:
        _times(column, _word(name), _factor(modifier, known.settings))
    elif kind == "normfactor":
        _free(name, column, known.settings, lines)
    elif kind == "histosys" and column.rate > 0:
        ends = [float(modifier["data"][key][k]) / column.rate for key in ("lo_data", "hi_data")]
        if min(ends) <= 0:
            raise PhysicsError(
                f"to_card, {column.bin}, {column.process}: variation {name!r} leaves nothing; merge bins"
            )
        _times(column, _word(name), "{:.9g}/{:.9g}".format(*ends))


def _binwise(
    modifier: Mapping[str, Any],
    k: int,
    column: _Column,
    where: tuple[str, Mapping[str, Sequence[float]], _Known],
    lines: _Lines,
) -> None:
    """Add what a modifier of single bins does to one of them."""
    (suffix, totals, known), name, kind = where, modifier["name"], modifier["type"]
    if kind == "shapefactor":
        _free(f"{name}_bin{k}", column, known.settings, lines, k)
    elif kind == "shapesys" and column.rate > 0 and modifier["data"][k] > 0:
        tau, own = (column.rate / float(modifier["data"][k])) ** 2, f"{name}{suffix}"
        if abs(tau - round(tau)) < WHOLE * tau:
            lines.controls.append((_word(own), round(tau), column, column.rate / tau))
            return
        beside = _Column(f"{_word(own)}_counts", "constraint", signal=False, rate=tau)
        lines.observed[beside.bin] = tau
        lines.columns.append(beside)
        for one in (column, beside):
            _free(own, one, {}, lines)
    elif kind == "staterror" and totals[name][k] > 0:
        own = f"{name}_bin{k}"
        _free(own, column, {}, lines)
        constraint = f"{_word(own)} param 1 {totals[name][k]:.9g}"
        if constraint not in lines.rest:
            lines.rest.append(constraint)


def _times(column: _Column, name: str, value: str) -> None:
    """Multiply an effect into what a nuisance already does to a column."""
    if name not in column.effects:
        column.effects[name] = "lnN", value
        return
    ends = [ends_of(text) for text in (column.effects[name][1], value)]
    column.effects[name] = "lnN", "{:.9g}/{:.9g}".format(*(a * b for a, b in zip(*ends, strict=True)))


def ends_of(text: str) -> tuple[float, float]:
    """Return κ_down and κ_up of an entry."""
    low, _, high = text.partition("/")
    return (float(low), float(high)) if high else (1.0 / float(low), float(low))


def _text(lines: _Lines, head: Sequence[str]) -> str:
    """Return a card; signals get the numbers 0, −1 and so on, backgrounds 1, 2 and so on."""
    signals = list(dict.fromkeys(c.process for c in lines.columns if c.signal))
    others = list(dict.fromkeys(c.process for c in lines.columns if not c.signal))
    numbers = {name: -i for i, name in enumerate(signals)} | {n: 1 + i for i, n in enumerate(others)}
    both = sorted(set(signals) & set(others))
    if both:
        raise PhysicsError(
            f"to_card: process {both[0]!r} is signal in one channel and background in another; rename one"
        )
    names = list(dict.fromkeys(name for column in lines.columns for name in column.effects))
    rows = []
    for name in names:
        kinds = {column.effects[name][0] for column in lines.columns if name in column.effects}
        kind = "shape?" if len(kinds) > 1 else kinds.pop()  # a lnN for some columns, shapes for others
        rows.append([name, kind, *(column.effects.get(name, ("", "-"))[1] for column in lines.columns)])
    dashes = "-" * 60
    for name, number, place, alpha in lines.controls:
        cells = [f"{alpha:.12g}" if column is place else "-" for column in lines.columns]
        rows.append([name, f"gmN {number}", *cells])
    params = sum(" param " in line for line in lines.rest)
    return "\n".join(
        [
            *(f"# {line}" for line in head),
            f"imax {len(lines.observed)}  number of channels",
            f"jmax {len(numbers) - 1}  number of processes minus one",
            f"kmax {len(rows) + params}  number of nuisances",
            dashes,
            *lines.shapes,
            *([dashes] if lines.shapes else []),
            _aligned(["bin", *lines.observed]),
            _aligned(["observation", *(f"{n:.12g}" for n in lines.observed.values())]),
            dashes,
            _aligned(["bin", "", *(column.bin for column in lines.columns)]),
            _aligned(["process", "", *(column.process for column in lines.columns)]),
            _aligned(["process", "", *(str(numbers[column.process]) for column in lines.columns)]),
            _aligned(["rate", "", *(f"{column.rate:.12g}" for column in lines.columns)]),
            dashes,
            *(_aligned(row) for row in rows),
            *lines.rest,
            "",
        ]
    )


def _aligned(words: Sequence[str]) -> str:
    return "  ".join(word for word in words if word)


ROUNDED = 0.02  # relative: rates and factors of a card are printed with few digits


@dataclass
class _Process(_Column):
    """The same of a card that is read."""

    factors: dict[str, tuple[float, float]] = field(default_factory=dict)  # lnN: κ_down, κ_up
    free: list[str] = field(default_factory=list)


@dataclass
class _CardLines:
    """A card, line by line."""

    name: str
    lines: list[str]
    bins: list[str] = field(default_factory=list)
    observed: list[float] = field(default_factory=list)
    columns: list[_Process] = field(default_factory=list)
    controls: dict[str, tuple[int, dict[int, float]]] = field(default_factory=dict)  # gmN
    parameters: dict[str, tuple[float, tuple[float, float]]] = field(default_factory=dict)

    def refuse(self, row: int, why: str) -> NoReturn:
        """Raise an error that shows a line."""
        raise InputFileError(f"{self.name}: {why}; the line is {self.lines[row][:80]!r}")

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
        raise InputFileError(
            f"{self.name}: the card has no line {key!r}" + (" behind the observation" if start else "")
        )


def _says(line: str) -> bool:
    return bool(line.strip()) and not line.strip().startswith(("#", "-"))


def is_card(text: str) -> bool:
    """Return whether a text is a datacard: its first line that is no comment begins with ``imax``."""
    return next((line.split()[0] for line in text.splitlines() if _says(line)), "") == "imax"


def read_card(text: str, name: str = "card") -> dict[str, Any]:
    """Return a counting card as a workspace.

    ``gmN N α``: N counts in a control region stand for N α events. It becomes a shapesys where it moves one
    process alone and N > 0, else a control channel of its own, which is exact for N = 0 too. Counts need not
    be whole: those of a masked search are expectations.
    """
    card = _CardLines(name, [line for line in text.splitlines() if _says(line)])
    _processes(card)
    for row in range(card.row("rate") + 1, len(card.lines)):
        _nuisance(card, row)
    _numbers_agree(card)
    return _workspace(card)


def _processes(card: _CardLines) -> None:
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
        card.columns.append(_Process(where, process, number <= 0, value))
    if not any(column.signal for column in card.columns):
        card.refuse(second, "no process has a number of zero or below, which marks the signal")


def _nuisance(card: _CardLines, row: int) -> None:
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


def _factors(card: _CardLines, row: int, entry: str) -> tuple[float, float]:
    """Return κ_down and κ_up of an entry of a ``lnN``."""
    try:
        ends = ends_of(entry)
    except (ValueError, ZeroDivisionError):
        card.refuse(row, f"{entry!r} is no factor")
    if not (all(np.isfinite(ends)) and min(ends) > 0):
        card.refuse(row, f"{entry!r}: factors must be positive")
    return ends


def _control(card: _CardLines, row: int, count: str, entries: Sequence[str]) -> tuple[int, dict[int, float]]:
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


def _rate_param(card: _CardLines, row: int) -> None:
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


def _numbers_agree(card: _CardLines) -> None:
    """Refuse a card that has other numbers of channels or nuisances than it says."""
    nuisances = {name for column in card.columns for name in column.factors} | set(card.controls)
    for key, number in (("imax", len(card.bins)), ("kmax", len(nuisances))):
        words = next((line.split() for line in card.lines if line.split()[0] == key), [])
        if len(words) > 1 and words[1].isdigit() and int(words[1]) != number:
            raise InputFileError(
                f"{card.name}: {key} = {words[1]}, but the card has {number}; write * or correct it"
            )


def _workspace(card: _CardLines) -> dict[str, Any]:
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
        raise InputFileError(f"{card.name}: {error}") from error
    found["observations"] = [{"name": where, "data": values} for where, values in counts.items()]
    found["measurements"][0]["config"]["parameters"] += [
        {"name": name, "inits": [start], "bounds": [list(ends)]}
        for name, (start, ends) in card.parameters.items()
    ]
    return found
