"""YAML and JSON of HEPData: a record with its ``submission.yaml``, or one file of data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from gammastar.core.documents import shortened
from gammastar.core.errors import InputFileError
from gammastar.core.records import FloatArray
from gammastar.read.published.table import (
    Column,
    Origin,
    PublishedTable,
    TableAxis,
    TableError,
    number,
    split_unit,
)

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


def listed(path: Path, found: Sequence[Any]) -> tuple[Entry, dict[str, Entry]]:
    """Return the head of a submission and its tables by name, each with the path of its data."""
    head: Entry = {}
    tables: dict[str, Entry] = {}
    for i, document in enumerate(found):
        if not isinstance(document, dict):
            raise InputFileError(f"{path}: document {i + 1} is no table of keys")
        if "data_file" not in document:
            head |= document
            continue
        name, place = str(document.get("name", "")), str(document["data_file"])
        if not name or name in tables:
            raise InputFileError(f"{path}: document {i + 1}: the name {name!r} is missing or taken")
        data = path.parent / place
        if not data.resolve().is_relative_to(path.parent.resolve()):
            msg = f"{path}: table {name!r}: data_file {shortened(place)!r} lies outside the record"
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
    found = content.get(key)
    found = [] if found in (None, "", "null", "~") else found
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise InputFileError(f"{where}: {key} must be a list of tables of keys")
    return found


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


def _edge(place: str, text: Any) -> float:
    """Return an edge; nan for the infinity of an open bin."""
    if str(text).strip().casefold().lstrip("+-.") in {"inf", "infinity"}:
        return float("nan")
    return _number(place, text)[0]


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
            if not np.isnan(rows[0][i]):
                raise InputFileError(f"{place}: two errors are labelled {label!r}; which one is meant?")
            rows[0][i], rows[1][i] = minus, plus
    errors = tuple(TableError(label, *rows) for label, rows in labels.items())
    qualifiers = {}
    for one in _listing(where, variable, "qualifiers"):
        units = f" [{one['units']}]" if one.get("units") else ""
        qualifiers[f"{one.get('name', '')}{units}"] = str(one.get("value", ""))
    return Column(name, unit, values, errors, limits, qualifiers)


def _errors(place: str, entry: Entry, value: float) -> Iterator[tuple[str, float, float]]:
    """Yield label and signed shifts of each error of a value; those in per cent are of the value."""
    for k, error in enumerate(_listing(place, entry, "errors"), 1):
        label = str(error.get("label", "")).strip() or "error"
        label = label if k == 1 or label != "error" else f"error {k}"
        if "symerror" in error:
            size = _size(f"{place}, error {label!r}", error["symerror"], value)
            yield label, -size, size
            continue
        both = error.get("asymerror")
        if not isinstance(both, dict):
            msg = f"{place}: error {label!r} has neither symerror nor asymerror with plus and minus"
            raise InputFileError(msg)
        what = f"{place}, error {label!r}"
        ends = [_size(f"{what}, {key}", both.get(key, "-"), value) for key in ("minus", "plus")]
        yield label, ends[0], ends[1]


def _size(place: str, text: Any, value: float) -> float:
    said = str(text).strip()
    relative = said.endswith("%")
    size, _ = _number(place, said[:-1] if relative else text)
    return abs(value) * size / 100.0 if relative else size
