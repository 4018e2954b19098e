"""Published tables: columns with errors and origin; the forms of HEPData, YAML, JSON and CSV."""

from __future__ import annotations

import csv
import difflib
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from gammastar.core.errors import InputFileError
from gammastar.core.files import plain, shortened
from gammastar.core.records import FloatArray

MOST_ROWS = 200_000
MOST_SHOWN = 12  # names in a message
MISSING = frozenset({"", "-", "--", "---", "~", "null", "none", "nan", "n/a"})
_ENERGY = {"eV": 1e-9, "keV": 1e-6, "MeV": 1e-3, "GeV": 1.0, "TeV": 1e3}
_UNIT = re.compile(
    r"(?i)(?<![a-z])(tev|gev|mev|kev|ev)(?![a-z])(?:\)?\s*(?:\^|\*\*)\s*\(?([+-]?\d+)\)?|([+-]?\d)(?![\d.]))?"
)
_LIGHT = re.compile(r"/\s*c(?![a-z])(\s*(\^|\*\*)?\s*\d)?|(?<![a-z])c\s*(\^|\*\*)?\s*[+-]?\d", re.IGNORECASE)
_KNOWN = r"[fpnmu]?b|mub|events|counts|deg|rad|mm|cm|m"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a table came from."""

    path: Path  # File that holds its numbers
    sha256: str  # Of that file
    doi: str = ""  # DOI or arXiv number as the file gives it; "" if it gives none
    comment: str = ""  # What the file says about itself


@dataclass(frozen=True, slots=True, eq=False)
class TableAxis:
    """An independent variable, row by row."""

    # As in the header
    name: str
    unit: str
    # Edges of each bin in `unit`; both the same for a point, infinite where a bin is open, nan for a text,
    # (n,)
    low: FloatArray
    high: FloatArray
    value: FloatArray  # The published place inside the bin, its centre without one, (n,)
    text: tuple[str, ...] = ()  # What stands there if that is no number; empty for numbers

    @property
    def points(self) -> bool:
        """Whether some row is a point and no bin."""
        return bool((self.low == self.high).any())


@dataclass(frozen=True, slots=True, eq=False)
class TableError:
    """One named error of a column: by how much it moves, shape (n,) each, with signs; nan if not given."""

    label: str
    minus: FloatArray
    plus: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """A dependent variable."""

    # As in the header
    name: str
    unit: str
    values: FloatArray  # nan where nothing is given, (n,)
    errors: tuple[TableError, ...] = ()
    # Where the value is an upper limit, as ``< 3``, (n,)
    limits: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, dtype=np.bool_))
    qualifiers: Mapping[str, str] = field(default_factory=dict)  # E.g. ``{"SQRT(S) [GeV]": "200"}``.


@dataclass(frozen=True, slots=True, eq=False)
class PublishedTable:
    """A table as it was published, in the units of its header."""

    name: str
    description: str
    axes: tuple[TableAxis, ...]
    columns: tuple[Column, ...]
    origin: Origin
    # Of this table in its record: the table of its name with ", covariance" behind it
    covariance: PublishedTable | None = None

    def __post_init__(self) -> None:
        n = len(self)
        if n > MOST_ROWS:
            raise refused(self, f"has {n} rows; at most {MOST_ROWS} are read")
        sizes = [(axis.name, len(axis.low)) for axis in self.axes]
        sizes += [(error.label, len(error.plus)) for column in self.columns for error in column.errors]
        for name, rows in [*sizes, *((column.name, len(column.values)) for column in self.columns)]:
            if rows != n:
                raise refused(self, f"{name!r} has {rows} rows, the first column {n}: is it cut off?")

    def __len__(self) -> int:
        return len(self.columns[0].values) if self.columns else 0

    @property
    def where(self) -> str:
        """File and table, for messages."""
        return f"{self.origin.path}, table {shortened(plain(self.name), 80)!r}"

    def column(self, which: str | int | None = None) -> Column:
        """Return a column by its name or its number from 1; the only one without."""
        return self.columns[chosen(which, [c.name for c in self.columns], f"{self.where}: column")]

    def bin_name(self, row: int) -> str:
        """Return how a row is called in messages: its number and where it lies."""
        places = []
        for axis in self.axes:
            if axis.text:
                place = axis.text[row]
            elif axis.low[row] == axis.high[row]:
                place = f"{axis.low[row]:g}"
            else:
                place = f"{axis.low[row]:g} to {axis.high[row]:g}"
            places.append(f"{axis.name} {place} {axis.unit}".strip())
        return plain(f"bin {row + 1} ({', '.join(places)})")


def refused(table: PublishedTable, text: str) -> InputFileError:
    """Return the error that names file and table."""
    return InputFileError(f"{table.where}: {text}")


def chosen(which: str | int | None, names: Sequence[str], what: str) -> int:
    """Return the place of a name, or of a number from 1, among names; of the only one for None."""
    listed = ", ".join(f"{i} {plain(name)!r}" for i, name in enumerate(names[:MOST_SHOWN], 1))
    listed += f" … and {len(names) - MOST_SHOWN} more" if len(names) > MOST_SHOWN else ""
    if which is None or which == "":
        if len(names) == 1:
            return 0
        raise InputFileError(f"{what}: say which by name or number; there are {listed or 'none'}")
    if isinstance(which, int):
        if 1 <= which <= len(names):
            return which - 1
        raise InputFileError(f"{what} {which}: there are {listed or 'none'}")
    same = [i for i, name in enumerate(names) if name == which] or [
        i for i, name in enumerate(names) if _same(name) == _same(which)
    ]
    if len(same) == 1:
        return same[0]
    if same:
        raise InputFileError(f"{what} {which!r}: {len(same)} have this name; give the number: {listed}")
    near = difflib.get_close_matches(which, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"there are {listed or 'none'}"
    raise InputFileError(f"{what} {which!r} is not there; {hint}")


def _same(name: str) -> str:
    return " ".join(name.casefold().split())


def number(text: object) -> tuple[float, bool]:
    """Return a number, and whether it is an upper limit; nan where a table gives none."""
    said = str(text).strip().replace("\u2212", "-")
    if said.casefold() in MISSING:
        return float("nan"), False
    limit = said.startswith("<")
    if "_" in said:  # Python would take 1_0 for ten
        raise ValueError(f"{shortened(said, 40)!r} is no number")
    value = float(said[1:] if limit else said)
    if not np.isfinite(value):
        raise ValueError(f"{shortened(said, 40)!r} is not finite")
    return value, limit


def split_unit(header: str) -> tuple[str, str]:
    r"""Return name and unit of a header: ``name [unit]``, ``name (unit)`` or ``name_unit``."""
    text = header.strip()
    match = re.fullmatch(r"(.+?)\s*\[([^\[\]]*)\]", text)
    if match:
        return match[1].strip(), match[2].strip()
    match = re.fullmatch(r"(.+?)\s+\(([^()]*(?:\([^()]*\)[^()]*)*)\)", text)
    if match and (energy_power(match[2])[1] or re.fullmatch(_KNOWN, match[2].strip())):
        return match[1].strip(), match[2].strip()
    match = re.fullmatch(rf"(?i)(.+?)_({'|'.join(_ENERGY)}|{_KNOWN})", text)
    return (match[1], match[2]) if match else (text, "")


def energy_power(unit: str) -> tuple[float, int]:
    r"""Return the size of a unit in powers of GeV, and that power; (1, 0) where no energy is in it."""
    text = _LIGHT.sub("", re.sub(r"[${}\\]", "", unit))
    scale, total = 1.0, 0
    sizes = {name.casefold(): size for name, size in _ENERGY.items()}
    for match in _UNIT.finditer(text):
        power = int(match[2] or match[3] or 1) * (-1 if "/" in text[: match.start()] else 1)
        scale *= sizes[match[1].casefold()] ** power
        total += power
    return float(f"{scale:.12g}"), total


SUBMISSION = "submission.yaml"
DEEPEST = 40  # lists and tables in each other; HEPData's own have about 8
MOST_NODES = 3_000_000  # after every alias is written out
LONGEST_NUMBER = 60  # characters
Entry = dict[str, Any]
_Loader: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)  # every scalar is a text: no dates, no objects


def documents(path: Path, text: str) -> list[Any]:
    """Return the documents of a YAML text; every scalar is a text."""
    try:
        _bounded(path, text)
        return list(yaml.load_all(text, Loader=_Loader))
    except yaml.YAMLError as error:
        msg = f"{path}: is not YAML, or is cut off ({shortened(' '.join(str(error).split()))})"
        raise InputFileError(msg) from error


def _bounded(path: Path, text: str) -> None:
    """Refuse a text that is nested too deep, or that aliases make huge or endless, event by event."""
    sizes: dict[str | None, int] = {}  # of anchors, with their aliases written out
    open_nodes: list[tuple[str | None, int]] = [(None, 0)]
    for event in yaml.parse(text, Loader=_Loader):
        anchor, size = getattr(event, "anchor", None), 1
        if isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append((anchor, 1))
            if len(open_nodes) > DEEPEST + 1:
                msg = f"{path}: lists or tables nested more than {DEEPEST} deep; no table of HEPData is"
                raise InputFileError(msg)
            continue
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, size = open_nodes.pop()
        elif isinstance(event, yaml.AliasEvent):
            if anchor in [other for other, _ in open_nodes]:
                raise InputFileError(f"{path}: line {event.start_mark.line + 1}: an alias holds itself")
            size = sizes.get(anchor, 1)
        elif not isinstance(event, yaml.ScalarEvent):
            continue
        sizes[anchor] = size
        open_nodes[-1] = open_nodes[-1][0], open_nodes[-1][1] + size
        if open_nodes[-1][1] > MOST_NODES:
            msg = f"{path}: more than {MOST_NODES} entries once its aliases are written out; refused"
            raise InputFileError(msg)


def listed(path: Path, documents: Sequence[Any]) -> tuple[Entry, dict[str, Entry]]:
    """Return the head of a submission and its tables by name, each with the path of its data."""
    head: Entry = {}
    tables: dict[str, Entry] = {}
    for i, document in enumerate(documents):
        if not isinstance(document, dict):
            raise InputFileError(f"{path}: document {i + 1} is no table of keys")
        if "data_file" not in document:
            head |= document
            continue
        name, file = str(document.get("name", "")), str(document["data_file"])
        if not name or name in tables:
            raise InputFileError(f"{path}: document {i + 1}: the name {name!r} is missing or taken")
        data = path.parent / file
        if not data.resolve().is_relative_to(path.parent.resolve()):
            msg = f"{path}: table {name!r}: data_file {shortened(file)!r} lies outside the record"
            raise InputFileError(msg)
        tables[name] = document | {"path": data}
    return head, tables


def read_yaml(name: str, content: Any, origin: Origin, description: str = "") -> PublishedTable:
    """Return the table of one data document."""
    where = f"{origin.path}, table {shortened(name, 80)!r}"
    if not isinstance(content, dict) or "dependent_variables" not in content:
        raise InputFileError(f"{where}: has no dependent_variables; is it a table of HEPData, or cut off?")
    axes = [_axis(where, one) for one in _listing(where, content, "independent_variables")]
    columns = [_column(where, one) for one in _listing(where, content, "dependent_variables")]
    return PublishedTable(name, description, tuple(axes), tuple(columns), origin)


def _listing(where: str, content: Mapping[str, Any], key: str) -> list[Entry]:
    entries = content.get(key)
    entries = [] if entries in (None, "", "null", "~") else entries
    if not isinstance(entries, list) or not all(isinstance(one, dict) for one in entries):
        raise InputFileError(f"{where}: {key} must be a list of tables of keys")
    return entries


def _header(where: str, variable: Entry) -> tuple[str, str]:
    header = variable.get("header")
    if not isinstance(header, dict) or not isinstance(header.get("name"), str):
        raise InputFileError(f"{where}: a variable without header and name")
    units = header.get("units", "")
    if isinstance(units, str) and units.strip():
        return header["name"].strip(), units.strip()
    return split_unit(header["name"])


def _number(place: str, text: Any) -> tuple[float, bool]:
    try:
        return number(text if isinstance(text, str) and len(text) <= LONGEST_NUMBER else repr(text)[:40])
    except ValueError as error:
        msg = f"{place}: {error}; a value is a finite number, '-' where there is none"
        raise InputFileError(msg) from error


def _axis(where: str, variable: Entry) -> TableAxis:
    name, unit = _header(where, variable)
    rows, texts = [], []
    for i, entry in enumerate(_listing(where, variable, "values"), 1):
        place, text = f"{where}: {name!r}, bin {i}", str(entry.get("value", ""))
        if "low" in entry or "high" in entry:
            low, high = (_edge(f"{place}, {key}", entry.get(key, "-")) for key in ("low", "high"))
            low, high = (-np.inf if np.isnan(low) else low), (np.inf if np.isnan(high) else high)
            value, text = _number(place, text)[0] if "value" in entry else 0.5 * (low + high), ""
            rows.append((low, high, value))
        else:
            try:
                point = number(text)[0]
            except ValueError:
                point = float("nan")
            rows.append((point, point, point))
        texts.append(text)
    low_, high_, value_ = np.array(rows, dtype=np.float64).reshape(-1, 3).T
    return TableAxis(name, unit, low_, high_, value_, tuple(texts) if np.isnan(value_).any() else ())


def _edge(where: str, text: Any) -> float:
    """Return an edge; nan for the infinity of an open bin."""
    if str(text).strip().casefold().lstrip("+-.") in {"inf", "infinity"}:
        return float("nan")
    return _number(where, text)[0]


def _column(where: str, variable: Entry) -> Column:
    name, unit = _header(where, variable)
    entries = _listing(where, variable, "values")
    values, limits = np.empty(len(entries)), np.zeros(len(entries), dtype=np.bool_)
    labels: dict[str, tuple[FloatArray, FloatArray]] = {}
    for i, entry in enumerate(entries):
        place = f"{where}: {name!r}, bin {i + 1}"
        values[i], limits[i] = _number(place, entry.get("value", "-"))
        for label, minus, plus in _errors(place, entry, float(values[i])):
            nothing = np.full(len(entries), np.nan)
            rows = labels.setdefault(label, (nothing, nothing.copy()))
            rows[0][i], rows[1][i] = minus, plus
    errors = tuple(TableError(label, *rows) for label, rows in labels.items())
    qualifiers = {}
    for one in _listing(where, variable, "qualifiers"):
        units = f" [{one['units']}]" if one.get("units") else ""
        qualifiers[f"{one.get('name', '')}{units}"] = str(one.get("value", ""))
    return Column(name, unit, values, errors, limits, qualifiers)


def _errors(where: str, entry: Entry, value: float) -> Iterator[tuple[str, float, float]]:
    """Yield label and signed shifts of each error of a value; those in per cent are of the value."""
    seen: Counter[str] = Counter()  # of one label there may be several: "sys", "sys 2"
    for k, error in enumerate(_listing(where, entry, "errors"), 1):
        label = str(error.get("label", "")).strip() or "error"
        label = label if k == 1 or label != "error" else f"error {k}"
        seen[label] += 1
        label = label if seen[label] == 1 else f"{label} {seen[label]}"
        if "symerror" in error:
            size = _size(f"{where}, error {label!r}", error["symerror"], value)
            yield label, -size, size
            continue
        both = error.get("asymerror")
        if not isinstance(both, dict):
            msg = f"{where}: error {label!r} has neither symerror nor asymerror with plus and minus"
            raise InputFileError(msg)
        what = f"{where}, error {label!r}"
        ends = [_size(f"{what}, {key}", both.get(key, "-"), value) for key in ("minus", "plus")]
        yield label, ends[0], ends[1]


def _size(where: str, text: Any, value: float) -> float:
    said = str(text).strip()
    relative = said.endswith("%")
    size, _ = _number(where, said[:-1] if relative else text)
    return abs(value) * size / 100.0 if relative else size


_EDGE = re.compile(r"(?i)^(?:(?P<name>.+?)[ _])?(?P<side>low|high)(?P<unit>_[a-z]+| \[.*\])?$")
_SIGN = re.compile(r"(?i)(?:^|[ _])(\+|-|plus|minus)$")
_LABEL = re.compile(r"(?i)^(stat|sys|err|tot|unc|lumi|norm|cor)[\w., -]*$")
_DOI = re.compile(r"(?i)\bdoi:\s*([^\s,;)]+)|\b(10\.\d{4,}/[^\s,;)]+)|\barxiv:\s*([^\s,;:)]+)")
_NOTES = ("table_doi", "name", "description", "data_file", "data_license", "location")


@dataclass
class _Block:
    """One header with its rows, and the qualifiers above it."""

    header: list[str] = field(default_factory=list)
    marks: tuple[str, str] = (",", '"')
    rows: list[tuple[int, list[str]]] = field(default_factory=list)
    qualifiers: dict[str, str] = field(default_factory=dict)


@dataclass
class _Part:
    """What one column of a file is: an edge or point of an axis, a value, or an error of a value."""

    kind: str
    name: str
    label: str = ""
    sign: str = ""


def read_csv(path: Path, text: str, sha256: str) -> PublishedTable:
    """Return the table of a CSV file; each block of a HEPData export is one column of it."""
    notes, comments, blocks = _blocks(path, text)
    if not blocks:
        raise InputFileError(f"{path}: holds no table, only {len(comments)} lines of notes")
    axes: tuple[TableAxis, ...] = ()
    columns: list[Column] = []
    for i, block in enumerate(blocks, 1):
        parsed, more = _parsed(path, block)
        if axes and [len(a.low) for a in parsed] != [len(a.low) for a in axes]:
            msg = f"{path}: block {i} has {len(block.rows)} rows, the first {len(blocks[0].rows)}; cut off?"
            raise InputFileError(msg)
        axes = axes or parsed
        columns += more
    said = " ".join(comments)
    doi = notes.get("table_doi") or next((m[1] or m[2] or f"arXiv:{m[3]}" for m in _DOI.finditer(said)), "")
    origin = Origin(path, sha256, doi.rstrip("."), said)
    name = notes.get("name", path.stem)
    return PublishedTable(name, notes.get("description", said), axes, tuple(columns), origin)


def _blocks(path: Path, text: str) -> tuple[dict[str, str], list[str], list[_Block]]:
    """Return notes by name, other comments, and the blocks of a file."""
    notes: dict[str, str] = {}
    comments: list[str] = []
    blocks: list[_Block] = []
    current = _Block()
    for at, line in enumerate(text.splitlines(), 1):
        if line.startswith("#:"):
            _note(line[2:].strip(), notes, current.qualifiers)
        elif line.startswith("#"):
            comments.append(line.lstrip("# ").strip())
        elif not line.strip():
            if current.rows:
                blocks.append(current)
                current = _Block()
        elif not current.header:
            separator = ";" if line.count(";") > line.count(",") else ","
            current.marks = separator, "'" if line.startswith("'") else '"'
            current.header = _cells(line, current.marks)
        else:
            cells = _cells(line, current.marks)
            if len(cells) != len(current.header):
                raise InputFileError(
                    f"{path}: line {at} has {len(cells)} cells, the header {len(current.header)}; "
                    "is the file cut off, or does a name hold the separator?"
                )
            current.rows.append((at, cells))
    return notes, comments, [*blocks, current] if current.rows else blocks


def _note(text: str, notes: dict[str, str], qualifiers: dict[str, str]) -> None:
    """Sort a line that HEPData wrote: a note about the table, or a qualifier of the columns."""
    key, colon, value = text.partition(":")
    if colon and (key in _NOTES or key.startswith("keyword")):
        notes[key] = value.strip()
        return
    name, *cells = re.split(r"[,;]", text)
    given = [cell.strip() for cell in cells if cell.strip()]
    if given:
        qualifiers[name.strip()] = given[0]


def _cells(line: str, marks: tuple[str, str]) -> list[str]:
    """Return the cells of a line; HEPData separates by comma or semicolon and quotes by either mark."""
    return [cell.strip() for cell in next(csv.reader([line], delimiter=marks[0], quotechar=marks[1]))]


def _parsed(path: Path, block: _Block) -> tuple[tuple[TableAxis, ...], list[Column]]:
    parts = _roles(block.header)
    numbers = np.empty((len(block.rows), len(parts)))
    limits = np.zeros(numbers.shape, dtype=np.bool_)
    texts: dict[int, list[str]] = {}
    for k, part in enumerate(parts):
        for i, (line, cells) in enumerate(block.rows):
            try:
                numbers[i, k], limits[i, k] = number(cells[k])
            except ValueError as error:
                if part.kind == "point":
                    texts[k] = [row[k] for _, row in block.rows]
                    numbers[:, k] = np.nan
                    break
                name = block.header[k]
                msg = f"{path}: line {line}, column {name!r}: {error}; a cell is a finite number or empty"
                raise InputFileError(msg) from error
    axes = tuple(_axes(parts, numbers, texts))
    columns: list[Column] = []
    for start, stop in itertools.pairwise(
        [k for k, p in enumerate(parts) if p.kind == "value"] + [len(parts)]
    ):
        name, unit = split_unit(parts[start].name)
        errors = tuple(_column_errors(parts[start + 1 : stop], numbers[:, start + 1 : stop]))
        columns.append(Column(name, unit, numbers[:, start], errors, limits[:, start], block.qualifiers))
    if not columns:
        raise InputFileError(f"{path}: the header {block.header} has no column of values beside its axes")
    return axes, columns


def _roles(header: Sequence[str]) -> list[_Part]:
    """Say what each column is, from its name and those before it."""
    edges = {k: found for k, cell in enumerate(header) if (found := _EDGE.match(cell))}
    sides: dict[str, set[str]] = {}
    for found in edges.values():
        sides.setdefault(_base(found), set()).add(found["side"].casefold())
    parts: list[_Part] = []
    value = ""
    for k, cell in enumerate(header):
        if k in edges and sides[_base(edges[k])] == {"low", "high"} and not value:
            parts.append(_Part(edges[k]["side"].casefold(), _base(edges[k])))
        elif not value and (cell in sides or k < min(edges, default=1)):
            parts.append(_Part("point", cell))
        elif value and (error := _error(cell, value)):
            parts.append(error)
        else:
            value = cell
            parts.append(_Part("value", cell))
    return parts


def _base(match: re.Match[str]) -> str:
    return f"{match['name'] or ''}{match['unit'] or ''}"


def _error(cell: str, value: str) -> _Part | None:
    """Return what a column is if it is an error of the value before it."""
    own = [
        n for n in (value, split_unit(value)[0]) if cell.startswith(n) and cell[len(n) :][:1] in (" ", "_")
    ]
    rest = cell[len(own[0]) :].strip(" _") if own else cell
    sign = _SIGN.search(rest)
    label = (rest[: sign.start()] if sign else rest).strip(" ._,")
    if not (sign or _LABEL.match(label)):
        return None
    mark = {"plus": "+", "minus": "-"}.get(sign[1].casefold(), sign[1]) if sign else ""
    return _Part("error", cell, label or "error", mark)


def _axes(parts: Sequence[_Part], numbers: FloatArray, texts: dict[int, list[str]]) -> Iterator[TableAxis]:
    names = list(dict.fromkeys(p.name for p in parts if p.kind in ("low", "high", "point")))
    for base in names:
        columns: dict[str, Any] = {p.kind: k for k, p in enumerate(parts) if p.name == base}
        name, unit = split_unit(base)
        if "low" not in columns:
            point = numbers[:, columns["point"]]
            yield TableAxis(name, unit, point, point, point, tuple(texts.get(columns["point"], ())))
            continue
        low, high = numbers[:, columns["low"]], numbers[:, columns["high"]]
        low, high = np.where(np.isnan(low), -np.inf, low), np.where(np.isnan(high), np.inf, high)
        centre = numbers[:, columns["point"]] if "point" in columns else 0.5 * (low + high)
        yield TableAxis(name, unit, low, high, centre)


def _column_errors(parts: Sequence[_Part], numbers: FloatArray) -> Iterator[TableError]:
    """Yield the errors of a value: one column that counts both ways, or one up and one down.

    A column for "-" that holds no negative number holds sizes.
    """
    signs: dict[str, dict[str, FloatArray]] = {}
    for part, row in zip(parts, numbers.T, strict=True):
        signs.setdefault(part.label, {})[part.sign] = row
    for label, given in signs.items():
        plus = given.get("+", given.get("", np.full(len(numbers), np.nan)))
        minus = given.get("-", -given.get("", plus))
        if "-" in given and not (minus < 0).any():
            minus = -minus
        if not (np.isnan(plus).all() and np.isnan(minus).all()):
            yield TableError(label, minus, plus)
