"""The steering file and all of its keys; a stage runs when its section is there. No data are touched here."""

from __future__ import annotations

import copy
import difflib
import inspect
import json
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from gammastar.config import measured
from gammastar.config.dark import Accept, Infer, InSitu, Predict, Report
from gammastar.config.fields import TO_FILL, Edges, Fraction, Section, cells_problem, meanings
from gammastar.core.errors import SteeringError, UserError
from gammastar.core.files import Finding, Pathlike, from_toml, shortened
from gammastar.core.sources import KINDS

Share = Annotated[float, Field(ge=0, le=1)]
UNFOLDED = (
    *("polarisation", "radiation", "momentum_scale", "momentum_resolution", "efficiency", "prior"),
    *("background", "charm", "corrections"),
)


class Systematics(Section):
    """Sources of uncertainty, one standard deviation each, by the names that they keep up to the limit."""

    polarisation: Annotated[float, Field(gt=0, le=1)] | None = None
    """Of the spectrum: σ(λθ) about the flight of the pair in the laboratory."""
    radiation: Annotated[float, Field(gt=0, le=1)] | None = None
    """Of the spectrum: radiation of photons by the leptons, relative."""
    momentum_scale: Annotated[float, Field(gt=0, le=0.2)] | None = None
    """Of the spectrum: scale of the lepton momenta in the data against that of the simulation, relative."""
    momentum_resolution: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Of the spectrum: width of the resolution in mass, pt and energy, relative."""
    efficiency: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Of the spectrum: efficiency of a pair, relative."""
    prior: bool | None = None
    """Of the spectrum: how far it moves as the simulation gets the unfolded transverse momenta and energies;
    by default with [unfold] method = 'likelihood', whose result has them."""
    background: bool = False
    """Of the spectrum: take R out of the measured covariance and propagate it as a source of its own."""
    charm: bool = False
    """Of the spectrum: the same for the amount of open charm."""
    corrections: bool = False
    """Of the spectrum: the same for the size of each correction."""
    pot: Fraction = 0.0
    """Of rate and signal: protons on target of the calibration, relative."""
    coherence: Share = 0.7
    """Of the rate beside the ω: σ of both quadratures of the interference of ρ and ω, whose phase is free."""
    spin: Share | None = None
    """Of the signal: error of [accept] longitudinal; by default the range that photons transverse along the
    axis of each frame span."""
    scaling: Annotated[float, Field(ge=0)] = 0.0
    """Of the signal: error of [accept] alpha."""
    extrapolation: Annotated[float, Field(ge=0, le=3)] | None = None
    """Of the signal outside the measured domain: ln κ; by default from how well the simulation describes the
    measured part."""
    forward_power: Annotated[float, Field(ge=0, le=10)] = 1.5
    """Of rate and signal beyond the measured x_R: σ of [spectrum] forward_power."""
    own: Annotated[tuple[Annotated[str, Field(pattern=r"^.+\.py:\w+$")], ...], Field(max_length=50)] = ()
    """Sources of one's own, 'file.py:name' with a `gammastar.core.sources.OwnSource`."""
    nuisances: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=80)], ...], Field(max_length=100)
    ] = ("pot",)
    """Kinds or names of the sources included as nuisances in limits: 'pot', 'spectrum', 'kinematics',
    'polarisation', 'scaling', 'widths', 'extrapolation', 'theory', 'sample', 'own'; 'sample' is in every
    patch anyway."""

    def of(self, stage: Literal["unfold", "predict", "accept"]) -> dict[str, Any]:
        """Return the keys that decide what a stage computes."""
        keys = {
            "unfold": (*UNFOLDED, "own"),
            "predict": ("coherence", "forward_power"),
            "accept": ("spin", "scaling", "own"),
        }
        return self.model_dump(mode="json", include=set(keys[stage]))

    def unknown(self, names: tuple[str, ...]) -> list[str]:
        """Return what `nuisances` lists that is neither a kind nor one of some names."""
        return [name for name in self.nuisances if name not in KINDS and name not in names]


STAGES = (
    "simulate",
    "read",
    "select",
    "subtract",
    "unfold",
    "spectrum",
    "in_situ",
    "flow",
    "predict",
    "accept",
    "infer",
    "report",
)

MAX_BYTES = 1 << 20
MAX_VALUE_LENGTH = 80  # characters of a wrong value that are shown
MAX_SHOWN_KEYS = 12  # wrong keys that are shown


class Steering(Section):
    """A whole analysis; every section but ``[analysis]`` is optional."""

    analysis: measured.Analysis
    simulate: measured.Simulate | None = None
    read: measured.Read | None = None
    select: measured.Select | None = None
    subtract: measured.Subtract | None = None
    unfold: measured.Unfold | None = None
    spectrum: measured.SpectrumSection | None = None
    in_situ: InSitu | None = None
    flow: measured.FlowSection | None = None
    predict: Predict | None = None
    accept: Accept | None = None
    infer: Infer | None = None
    report: Report | None = None
    systematics: Systematics = Field(default_factory=Systematics)

    @model_validator(mode="after")
    def _needs(self) -> Steering:
        needs = {
            "select": "read",
            "subtract": "select",
            "unfold": "subtract",
            "spectrum": "unfold",
            "in_situ": "spectrum",
            "flow": "spectrum",
            "predict": "spectrum",
            "accept": "predict",
            "infer": "accept",
        }
        if self.predict is not None and self.predict.source == "theory":
            del needs["predict"]
        published = self.spectrum is not None and self.spectrum.table is not None
        if published:
            del needs["spectrum"]
        asked = {stage: before for stage, before in needs.items() if getattr(self, stage) is not None}
        absent = ((stage, before) for stage, before in asked.items() if getattr(self, before) is None)
        missing = [f"[{stage}] needs the section [{before}]" for stage, before in absent]
        if self.unfold is not None and self.select is not None:
            own, other = self.unfold, self.select
            axes = (own.mass or other.mass, own.pt or other.pt, own.energy or other.energy)
            problem = cells_problem(*axes)
            missing += [f"[unfold] {problem}"] if problem else []
        accept, predict = self.accept, self.predict
        if accept and predict and accept.millicharge_detectors and not predict.millicharge:
            missing.append("[accept] millicharge_detectors need the section [predict.millicharge]")
        if accept and self.systematics.scaling and accept.target_scaling != "power":
            missing.append("[systematics] scaling belongs to [accept] target_scaling = 'power'")
        missing += self._without_pairs() + self._angles()
        missing += self._published() if published else []
        if missing:
            raise ValueError("; ".join(missing))
        return self

    def _without_pairs(self) -> list[str]:
        """Return what needs single pairs, where ``[select] keep_pairs`` leaves them out."""
        if self.select is None or self.select.keep_pairs:
            return []
        subtract, unfold, predict = self.subtract, self.unfold, self.predict
        needs = {
            "[subtract.charm]": subtract is not None and subtract.charm is not None,
            "[subtract] bootstrap": subtract is not None and subtract.bootstrap > 0,
            "[unfold] method = 'omnifold'": unfold is not None and unfold.way.pairs,
            "[in_situ]": self.in_situ is not None,
            "[flow]": self.flow is not None,
            "[predict] from the spectrum": predict is not None and predict.source == "spectrum",
        }
        needing = [name for name, wanted in needs.items() if wanted]
        return [f"[select] keep_pairs = false: {', '.join(needing)} need the single pairs"] if needing else []

    def _published(self) -> list[str]:
        """Return what contradicts ``[spectrum.table]``."""
        names = ("simulate", "read", "select", "subtract", "unfold", "flow")
        given = [f"[{name}]" for name in names if getattr(self, name) is not None]
        theory = self.predict is not None and self.predict.source == "theory"
        table = None if self.spectrum is None else self.spectrum.table
        unmodelled = table is not None and table.kinematics is None and not theory
        contradictions = {
            f"[spectrum.table] stands for {', '.join(given)}: drop one of them": given,
            "[in_situ] searches among measured pairs; a published table has none": self.in_situ is not None,
            "[predict] outside_domain: a published table has no measured domain": (
                self.predict is not None and self.predict.outside_domain
            ),
            "[accept] needs q_T and energy: give [spectrum.table] kinematics, a card": (
                self.accept is not None and unmodelled
            ),
        }
        return [text for text, wrong in contradictions.items() if wrong]

    def _angles(self) -> list[str]:
        """Return what contradicts ``[flow] angles``."""
        if self.flow is None or self.flow.angles is None:
            return []
        given = set() if self.accept is None else self.accept.model_fields_set
        assumed = [f"[accept] {key}" for key in ("longitudinal", "spin_frame") if key in given]
        assumed += ["[systematics] spin"] if "spin" in self.systematics.model_fields_set else []
        contradictions = []
        if assumed:
            keys = ", ".join(assumed)
            state = f"the spin state that {keys} would assume"
            contradictions.append(f"[flow] angles measures {state}: drop one of them")
        if self.subtract is not None and not self.subtract.way.signed:
            method = self.subtract.method
            what = f"[subtract] method {method!r} has none, take 'regions'"
            contradictions.append(f"[flow] angles needs like-sign pairs with weights: {what}")
        return contradictions


def _table_of(place: tuple[Any, ...]) -> type[BaseModel] | None:
    """Return the model of a table of the steering file, or None if it is not one of one kind."""
    model: type[BaseModel] = Steering
    for part in place:
        if isinstance(part, int):
            continue
        known = {field.alias or name: field for name, field in model.model_fields.items()}
        if part not in known:
            return None
        kinds = _models_in(known[part].annotation)
        if len(kinds) != 1:
            return None
        model = kinds[0]
    return model


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]


def _keys(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _unknown(place: tuple[Any, ...]) -> str:
    """Say what an unknown key may have been meant to be."""
    *table, key = place
    model = _table_of(tuple(table))
    name = str(key)
    owners = [s for s in Steering.model_fields if (t := _table_of((s,))) is not None and name in _keys(t)]
    near = difflib.get_close_matches(name, [] if model is None else _keys(model), n=1, cutoff=0.6)
    if not table:
        near = near or [stage for stage in Steering.model_fields if name.startswith(stage[:5])][:1]
        if owners:
            return f"unknown section; {name!r} is a key of [{'] or ['.join(owners)}]"
        return "unknown section; " + (f"did you mean [{near[0]}]?" if near else _known(Steering, "sections"))
    if near:
        return f"unknown key; did you mean {near[0]!r}?"
    if owners:
        return f"unknown key; {name!r} belongs to [{'] or ['.join(owners)}]"
    return "unknown key" + ("" if model is None else "; " + _known(model, f"keys of [{table[0]}]"))


def _known(model: type[BaseModel], what: str) -> str:
    return f"the {what} are {', '.join(_keys(model))}"[:400]


def problems(error: ValidationError) -> list[tuple[str, str]]:
    """Return the keys that are wrong, each with the reason."""
    reasons = []
    for item in error.errors():
        place = item["loc"]
        key = ".".join(str(part) for part in place) or "steering"
        if item["type"] == "extra_forbidden":
            reasons.append((shortened(key), _unknown(place)))
            continue
        text = item["msg"].removeprefix("Value error, ").replace("valid tuple", "valid list")
        if item["type"] == "missing":
            text = "is missing" if len(place) > 1 else f"the section [{key}] is missing"
        elif text == TO_FILL:
            text += f": {_meaning(place)}"
        elif item["type"] == "model_type":
            text = f"must be a table, [{key}], not {_shown(item['input'])}"
        elif place and not isinstance(item["input"], dict):  # what is wrong with a section names its keys
            text += f" (value: {_shown(item['input'])})"
        reasons.append((shortened(key), text))
    return reasons


def _meaning(place: tuple[Any, ...]) -> str:
    """Return what a key means, for one that a file to start from leaves open."""
    model = _table_of(place[:-1])
    names = {} if model is None else {field.alias or name: name for name, field in model.model_fields.items()}
    told = {} if model is None else meanings(model)
    return told.get(names.get(str(place[-1]), ""), "see `gammastar keys`").rstrip(".")


def _shown(value: Any) -> str:
    try:
        return shortened(repr(list(value) if isinstance(value, tuple) else value), MAX_VALUE_LENGTH)
    except ValueError:  # Python prints no integer of thousands of digits
        return "an integer of thousands of digits"


def examine(path: Pathlike) -> tuple[Steering | None, tuple[Finding, ...]]:
    """Return a steering file as far as it can be understood, and what is wrong with it.

    Unknown and wrong keys are left out of what is returned, so that the rest can be looked at; None if that
    is no steering either. Mistakes never raise.
    """
    path = Path(path)
    try:
        content = read_toml(path)
        return Steering.model_validate(content), ()
    except SteeringError as error:
        return None, (Finding("error", path.name, str(error).removeprefix(f"{path}: ")),)
    except RecursionError:
        return None, (Finding("error", path.name, "is nested too deep for a steering file"),)
    except ValidationError as error:
        findings = tuple(Finding("error", key, text) for key, text in problems(error))
        places = [item["loc"] for item in error.errors()]
    try:
        rest = copy.deepcopy(content)
        for place in places:
            _leave_out(rest, place)
        return Steering.model_validate(rest), findings
    except (ValidationError, RecursionError, ValueError):
        return None, findings


def _leave_out(content: Any, place: tuple[Any, ...]) -> None:
    """Delete a key; what a validator adds to the place of an error is no key."""
    for i, part in enumerate(place):
        if not isinstance(content, dict) or part not in content:
            return
        if i == len(place) - 1 or not isinstance(content[part], dict):
            del content[part]
            return
        content = content[part]


def parse(content: dict[str, Any], source: str = "steering") -> Steering:
    """Validate the content of a steering file.

    Parameters
    ----------
    content : mapping
        Of a steering file.
    source : str
        What messages call it.

    Raises
    ------
    SteeringError
        Naming every wrong key, its value and the reason.
    """
    try:
        return Steering.model_validate(content)
    except ValidationError as error:
        lines = [f"{key}: {text}" for key, text in problems(error)]
        more = [f"… and {len(lines) - MAX_SHOWN_KEYS} more"] if len(lines) > MAX_SHOWN_KEYS else []
        raise SteeringError("\n".join([f"{source}:", *lines[:MAX_SHOWN_KEYS], *more])) from error


def read_toml(path: Pathlike) -> dict[str, Any]:
    """Read a TOML file.

    Raises
    ------
    SteeringError
        If the file is missing or is not TOML.
    """
    path = Path(path)
    try:
        return from_toml(path, MAX_BYTES)
    except OSError as error:
        raise SteeringError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:  # TOML, text, and numbers of thousands of digits
        raise SteeringError(f"{path}: is not TOML ({shortened(str(error))})") from error


def load(path: Pathlike) -> Steering:
    """Read and validate a steering file.

    Raises
    ------
    SteeringError
        If the file is missing, is not TOML, or holds an unknown or wrong key.
    """
    path = Path(path)
    try:
        return parse(read_toml(path), str(path))
    except RecursionError as error:
        raise SteeringError(f"{path}: is nested too deep for a steering file") from error


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


WORDS = {"str": "text", "float": "number", "bool": "true or false", "int": "integer"}
WORDS |= {"mapping": "table", "tuple": "list"}
WORD = re.compile(rf"\b({'|'.join(WORDS)})\b")


def schema_tables() -> tuple[Table, ...]:
    """Return the tables of a schema: its keys stand at the top of a file of its own, or of ``schema``."""
    from gammastar.read.schema import RowFilter, Schema, Truth

    of_rows = _told("schema.row_filter", RowFilter, many=True)
    return _told("schema", Schema), _told("schema.truth", Truth), of_rows


def _told(name: str, record: type[Any], *, many: bool = False) -> Table:
    """Return a table from the attributes that the docstring of a record explains."""
    about, _, rest = (inspect.getdoc(record) or "").partition("\n\nAttributes\n----------\n")
    entries = rest.partition("\n\nNotes\n")[0]
    default = {f.name: "needed" if f.default is MISSING else _toml(f.default) for f in fields(record)}
    default |= {f.name: "" for f in fields(record) if f.default_factory is not MISSING}
    keys = [
        Key(key, WORD.sub(lambda word: WORDS[word[0]], kind), "", default[key], _plain(meaning))
        for names, kind, meaning in re.findall(r"^(\w.*?) : (.+)\n((?: {4}.*\n?)+)", entries, re.MULTILINE)
        for key in names.split(", ")
    ]
    where = " One file with these keys at its top is what [read] schema names." if name == "schema" else ""
    return Table(name, about.splitlines()[0] + where, tuple(keys), many)


def _plain(text: str) -> str:
    return " ".join(text.split()).replace("``", "`")


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
    every = (*tables(), *schema_tables())
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
    for table in chosen(name) if name else (*tables(), *schema_tables()):
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
    for table in (*tables(), *schema_tables()):
        parts.append(f"## {table.header}\n")
        parts += [f"{paragraph}\n" for paragraph in _paragraphs(table.about)]
        plain = ("", "needed")  # no value that one could write
        told = [(k, k.default if k.default in plain else f"`{k.default}`") for k in table.keys]
        rows = [(f"`{k.name}`", k.kind, k.unit, default, k.meaning) for k, default in told]
        every = (HEAD, RULE, *rows)
        cells = [[cell.replace("|", r"\|").replace("*", r"\*") for cell in row] for row in every]
        parts.append("\n".join(f"| {' | '.join(row)} |" for row in cells) + "\n")
    return "\n".join(parts)
