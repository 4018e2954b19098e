"""Every key of the steering file with type, unit, default and meaning, as the models say."""

from __future__ import annotations

import difflib
import inspect
import json
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from gammastar.config.fields import Edges, meanings
from gammastar.config.steering import Steering
from gammastar.core.errors import UserError

UNIT = re.compile(r"\[([^\[\]]+)\]\.$")
SIMPLE: dict[Any, str] = {bool: "true or false", int: "integer", float: "number", str: "text"}
SIGNS, TURNED = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}, str.maketrans(">≥", "<≤")
WIDTH = 96
HEAD, RULE = ("key", "type", "unit", "default", "meaning"), ("---",) * 5
PAGE = """# Keys of the steering file

`gammastar keys SECTION` prints the same in a terminal; `gammastar keys --markdown > docs/reference/keys.md`
writes this page. A section is a table of the TOML file, and a stage runs when its section is there. Edges are
a list of numbers, or `{ bins = 36, low = 0.2, high = 1.1 }`. Files are looked for beside the steering file.
"""


@dataclass(frozen=True)
class Key:
    """A key: `default` as TOML, "needed" without one, "" if it is nothing; `unit` is "" for plain numbers."""

    name: str
    kind: str
    unit: str
    default: str
    meaning: str


@dataclass(frozen=True)
class Table:
    """A table of the steering file by its dotted name, what it is about, and its keys."""

    name: str
    about: str
    keys: tuple[Key, ...]
    many: bool = False

    @property
    def header(self) -> str:
        """The table as TOML writes it."""
        return f"[[{self.name}]]" if self.many else f"[{self.name}]"


def tables() -> tuple[Table, ...]:
    """Return every table of the steering file, in the order of the stages."""
    return tuple(_tables(Steering, ""))


def _tables(model: type[BaseModel], prefix: str, *, many: bool = False) -> Iterator[Table]:
    told = meanings(model)
    keys, below = [], []
    for name, field in model.model_fields.items():
        spelled = field.alias or name
        inner = _model_of(field.annotation)
        if inner is None:
            keys.append(_key(spelled, field, told.get(name, "")))
        else:
            several = tuple in {get_origin(part) for part in _parts(field.annotation)}
            below += list(_tables(inner, f"{prefix}.{spelled}".lstrip("."), many=several))
    if prefix:
        yield Table(prefix, inspect.getdoc(model) or "", tuple(keys), many)
    yield from below


def _key(name: str, field: FieldInfo, meaning: str) -> Key:
    unit = UNIT.search(meaning)
    if unit is not None and unit[1] in Steering.model_fields:  # names a section
        unit = None
    sentence = meaning if unit is None else meaning[: unit.start()].rstrip() + "."
    default = "needed" if field.is_required() else _toml(field.get_default(call_default_factory=True))
    kind = _kind(Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation)
    return Key(name, kind, "" if unit is None else unit[1], default, sentence)


def _parts(annotation: Any) -> Sequence[Any]:
    """Return the alternatives of a type, without None."""
    if get_origin(annotation) in (Union, UnionType):
        return [part for part in get_args(annotation) if part is not NoneType]
    return [annotation]


def _model_of(annotation: Any) -> type[BaseModel] | None:
    """Return the table that a key holds, one or a list of them."""
    for part in _parts(annotation):
        kind = get_args(part)[0] if get_origin(part) is tuple else part
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def _kind(annotation: Any) -> str:
    """Return a type in words: what a person would write into the file."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _bounded(_kind(arguments[0]), arguments[1:])
    if origin in (Union, UnionType, Literal):
        parts = map(json.dumps, arguments) if origin is Literal else map(_kind, _parts(annotation))
        return " or ".join(parts)
    if origin in (dict, tuple):
        inside = [_kind(argument) for argument in arguments if argument is not ...]
        if origin is tuple and ... not in arguments:
            return f"[{', '.join(inside)}]"
        return f"{'table' if origin is dict else 'list'} of {inside[-1]}"
    model = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return annotation.__name__.lower() if model else SIMPLE.get(annotation, str(annotation))


def _bounded(kind: str, metadata: Sequence[Any]) -> str:
    """Return a kind of number with its bounds; what else a validator asks stands in its message."""
    if get_args(Edges)[-1] in metadata:
        return "edges"
    flat = [more for item in metadata for more in (item.metadata if isinstance(item, FieldInfo) else (item,))]
    if kind not in ("number", "integer"):
        return kind
    bounds = {name: b for item in flat for name in SIGNS if (b := getattr(item, name, None)) is not None}
    low, high = bounds.keys() & {"gt", "ge"}, bounds.keys() & {"lt", "le"}
    if low and high:
        (below,), (above,) = low, high
        return f"{bounds[below]:g} {SIGNS[below].translate(TURNED)} {kind} {SIGNS[above]} {bounds[above]:g}"
    return " ".join((kind, *(f"{SIGNS[name]} {bound:g}" for name, bound in bounds.items())))


def _toml(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value, ensure_ascii=False)


def chosen(name: str) -> tuple[Table, ...]:
    """Return the tables of a section, one table with one key of it, or all tables that have a key."""
    every = tables()
    matching = [t for t in every if f".{t.name}".endswith(f".{name}") or t.name.startswith(f"{name}.")]
    section, _, key = name.rpartition(".")
    matching += [
        Table(table.name, "", tuple(k for k in table.keys if k.name == key), table.many)
        for table in every
        if section in ("", table.name) and key in {k.name for k in table.keys}
    ]
    if not matching:
        names = [t.name for t in every] + [f"{t.name}.{k.name}" for t in every for k in t.keys]
        names += [k.name for t in every for k in t.keys]
        near = list(dict.fromkeys(difflib.get_close_matches(name, names, n=3)))
        sections = ", ".join(table.name for table in every if "." not in table.name)
        hint = f"did you mean {' or '.join(near)}?" if near else f"the sections are {sections}"
        raise UserError(f"keys: no section or key is called {name!r}; {hint}")
    return tuple(matching)


def text(name: str = "") -> str:
    """Return the reference of all keys, or of a section or key, for a terminal."""
    parts = []
    for table in chosen(name) if name else tables():
        lines = [table.header]
        lines += [textwrap.fill(paragraph, WIDTH) for paragraph in _paragraphs(table.about)]
        for key in table.keys:
            value = f" = {key.default}" if key.default not in ("", "needed") else ""
            about = "; ".join(filter(None, (key.kind, key.unit, "needed" if key.default == "needed" else "")))
            lines += [f"  {key.name}{value}  ({about})"]
            lines += [textwrap.fill(key.meaning, WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6)]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _paragraphs(about: str) -> list[str]:
    return [" ".join(paragraph.split()) for paragraph in about.split("\n\n") if paragraph.strip()]


def markdown() -> str:
    """Return the page of the documentation, ``docs/reference/keys.md``."""
    parts = [PAGE]
    for table in tables():
        parts.append(f"## {table.header}\n")
        parts += [f"{paragraph}\n" for paragraph in _paragraphs(table.about)]
        rows = [(f"`{k.name}`", k.kind, k.unit, _code(k.default), k.meaning) for k in table.keys]
        cells = [
            [cell.replace("|", r"\|").replace("*", r"\*") for cell in row] for row in (HEAD, RULE, *rows)
        ]
        parts.append("\n".join(f"| {' | '.join(row)} |" for row in cells) + "\n")
    return "\n".join(parts)


def _code(default: str) -> str:
    return default if default in ("", "needed") else f"`{default}`"
