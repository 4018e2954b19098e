"""A schema says what the branches of a file mean; it is data only, never code."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from gammastar.core.constants import LEPTON_MASS
from gammastar.core.errors import SteeringError
from gammastar.core.files import filled_in, from_toml

Layout: TypeAlias = Literal["pair", "jagged", "object"]
Branch: TypeAlias = str | tuple[str, str]  # a pair layout names one branch per leg

CARTESIAN = frozenset({"px", "py", "pz"})
BASES = (
    CARTESIAN,
    *(frozenset(keys) for keys in (("pt", "eta", "phi"), ("pt", "theta", "phi"), ("p", "eta", "phi"))),
    *(frozenset(keys) for keys in (("p", "theta", "phi"), ("p", "tx", "ty"))),
)
LIKE_RUN = re.compile(  # names of branches with the number of a run, or of what a run consists of
    r"(^|[._/])(run|fill|spill|burst|bunch_?crossing|lumi(nosity)?_?(block|section)?)_?(n(o|r|um|umber)?|id)?$",
    re.IGNORECASE,
)
TRUTH_BRANCHES = ("mass", "pt", "energy", "process", "lepton")


@dataclass(frozen=True, slots=True)
class RowFilter:
    """Keep the rows where a branch equals a value (number or string).

    Attributes
    ----------
    branch : str
        Its name in the tree.
    equals : bool, int, float or str
        The value of the rows that are kept.
    """

    branch: str
    equals: bool | int | float | str


@dataclass(frozen=True, slots=True)
class Truth:
    """Branches with the generated virtual photon of each row.

    Attributes
    ----------
    mass, pt, energy : str
        Branches of the photon's mass, transverse momentum and energy; rows where the mass is not a positive
        number hold no photon.
    process : str
        Branch with the code of the process; "" if there is none.
    signal : tuple of int
        Process codes that count as virtual photons; empty means all.
    fakes : tuple of int
        Process codes whose opposite-sign pairs are fakes. Leave out the combinatorial background: like-sign
        subtraction removes it before unfolding.
    lepton : str
        Branch of the leptons that says whether one comes from the photon (not zero) or not (zero);
        "" if there is none: then the pair nearest to the true mass is taken.
    """

    mass: str
    pt: str
    energy: str
    process: str = ""
    signal: tuple[int, ...] = ()
    fakes: tuple[int, ...] = ()
    lepton: str = ""

    @property
    def branches(self) -> tuple[str, ...]:
        """All branches that are read."""
        return tuple(name for name in (getattr(self, key) for key in TRUTH_BRANCHES) if name)


@dataclass(frozen=True, slots=True)
class Schema:
    """Mapping from the branches of a tree to leptons and events.

    Attributes
    ----------
    tree : str
        Name of the TTree or RNTuple, with its directory if it has one.
    layout : {"pair", "jagged", "object"}
        ``pair``: one row per pair, one branch per leg; ``jagged``: one list of numbers per event;
        ``object``: one list of objects per event, kinematics are members of `collection`.
    lepton : {"e", "mu"}
        Sets the mass from which energies are recomputed in double precision.
    kinematics : mapping
        ``px, py, pz``, or ``pt`` or ``p`` with ``eta`` or ``theta`` and ``phi``, or ``p`` with the slopes
        ``tx``, ``ty`` of a track along +z, to branches (two per key in a pair layout; member paths such as
        ``fP.fX`` in an object layout). ``q_over_p`` stands for ``p``, in the inverse unit. ``mass`` is
        optional; ``E`` is accepted and only has to be finite.
    charge, pdg_id : str or pair of str
        One of the two: a branch with the charge (integer or float), or with the PDG code.
    positive : bool, int, float or None
        Value of `charge` that means a positive lepton, where the branch does not hold ±1; one other value may
        occur and means a negative one. A branch without negative numbers (bool, unsigned) needs it.
    collection : str
        Branch of the objects; only for the object layout.
    unit : float
        GeV per unit of momentum in the file, 1e-3 for MeV.
    event : tuple of str
        Branches that identify the event together; empty means the entry number.
    run, block : str
        Branches with the number of the run, and of the luminosity block or spill in it; simulation has none.
    weight, prescale : str
        Branches that multiply into the weight; "" means one.
    lepton_columns, event_columns : mapping of str to branch
        Further quantities, by the name that cuts and pairs will use.

    Notes
    -----
    Branch names are data: they may hold dots, as members of split objects and auxiliary stores do, and are
    never parsed as attributes nor evaluated.
    """

    tree: str
    layout: Layout
    lepton: str
    kinematics: Mapping[str, Branch]
    charge: Branch = ""
    pdg_id: Branch = ""
    positive: bool | float | None = None
    collection: str = ""
    unit: float = 1.0
    event: tuple[str, ...] = ()
    run: str = ""
    block: str = ""
    weight: str = ""
    prescale: str = ""
    row_filter: tuple[RowFilter, ...] = ()
    lepton_columns: Mapping[str, Branch] = field(default_factory=dict)
    event_columns: Mapping[str, str] = field(default_factory=dict)
    truth: Truth | None = None

    def __post_init__(self) -> None:
        _one_of("layout", self.layout, get_args(Layout))
        _one_of("lepton", self.lepton, tuple(LEPTON_MASS))
        _check(bool(self.tree), "schema.tree is empty; give the name of the TTree or RNTuple")
        found = ["p" if key == "q_over_p" else key for key in self.kinematics]
        _check(
            len(set(found)) == len(found) and set(found) - {"mass", "E"} in BASES,
            f"schema.kinematics has the keys {sorted(self.kinematics)}; give px, py, pz, or pt or p with eta "
            "or theta and phi, or p with the slopes tx, ty (q_over_p for p), and if stored mass or E",
        )
        _check(bool(self.charge) != bool(self.pdg_id), "schema needs exactly one of charge and pdg_id")
        _check(not self.block or bool(self.run), "schema.block needs schema.run: blocks are numbered in runs")
        _check(
            self.positive is None or (bool(self.charge) and isinstance(self.positive, (bool, int, float))),
            f"schema.positive = {self.positive!r} must be a number: the charge of a positive lepton in the "
            "branch that schema.charge names",
        )
        _check(
            bool(self.collection) == (self.layout == "object"),
            "schema.collection is needed by the object layout, and only there",
        )
        number = type(self.unit) in (int, float)
        _check(
            number and 0 < self.unit < math.inf,
            f"schema.unit = {self.unit!r} must be positive, a number of GeV per unit of the file",
        )
        for key, branch in self._lepton_branches():
            legs = isinstance(branch, tuple)
            _check(
                legs == (self.layout == "pair"),
                f"schema: {key} = {branch!r}; a pair layout names two branches, the others one",
            )

    def _lepton_branches(self) -> Iterator[tuple[str, Branch]]:
        yield from self.kinematics.items()
        yield "charge" if self.charge else "pdg_id", self.charge or self.pdg_id
        yield from self.lepton_columns.items()

    def branches(self, *, truth: bool = False) -> tuple[str, ...]:
        """Return the names of all branches to read, without repeats."""
        names: list[str] = [self.collection] if self.collection else []
        for key, branch in self._lepton_branches():
            if not (self.layout == "object" and key in self.kinematics):
                names.extend(branch if isinstance(branch, tuple) else (branch,))
        names.extend(self.event)
        names.extend(name for name in (self.run, self.block, self.weight, self.prescale) if name)
        names.extend(rule.branch for rule in self.row_filter)
        names.extend(self.event_columns.values())
        if truth and self.truth is not None:
            names.extend(self.truth.branches)
        return tuple(dict.fromkeys(names))

    def of_simulation(self) -> Schema:
        """Return the schema without runs: simulation has those of no data, and no cut on them acts on it."""
        mine = {
            name: branch
            for name, branch in self.event_columns.items()
            if branch not in (self.run, self.block) and not LIKE_RUN.search(branch)
        }
        return replace(self, run="", block="", event_columns=mine)

    def sources(self) -> dict[str, str]:
        """Return what px, py, pz, mass and charge of the leptons are read from, for messages."""

        def named(*keys: str) -> str:
            found = [key for key in keys if key in self.kinematics]
            return " or ".join(f"{key} = {_names(self.kinematics[key])}" for key in found)

        known = f"pdg_id = {_names(self.pdg_id)} of a lepton {self.lepton!r}, whose charge"
        return {
            "px": named("px", "pt", "p", "q_over_p", "phi", "tx"),
            "py": named("py", "pt", "p", "q_over_p", "phi", "ty"),
            "pz": named("pz", "pt", "p", "q_over_p", "eta", "theta", "tx", "ty"),
            "mass": named("mass", "E"),
            "charge": f"charge = {_names(self.charge)}" if self.charge else known,
        }

    @staticmethod
    def from_mapping(mapping: Mapping[str, Any]) -> Schema:
        """Build a schema from a mapping of plain values (the content of a TOML file)."""
        values = _known("schema", mapping, tuple(Schema.__dataclass_fields__))
        for key in ("tree", "layout", "lepton", "kinematics"):
            _check(key in values, f"schema.{key} is missing")
        for key in ("tree", "layout", "lepton", "collection", "run", "block", "weight", "prescale"):
            _text(f"schema.{key}", values.get(key, ""))
        for key in ("kinematics", "lepton_columns"):
            values[key] = {name: _branch(f"{key}.{name}", b) for name, b in _table(key, values.get(key, {}))}
        for key in ("charge", "pdg_id"):
            values[key] = _branch(key, values[key]) if values.get(key) else ""
        event = values.get("event", ())
        event = [event] if isinstance(event, str) else event
        _check(isinstance(event, (list, tuple)), f"schema.event = {event!r} must name one or more branches")
        values["event"] = tuple(_text("schema.event", name) for name in event)
        values["event_columns"] = dict(_table("event_columns", values.get("event_columns", {})))
        rules = values.get("row_filter", [])
        rules = [rules] if isinstance(rules, Mapping) else rules
        for rule in rules:
            keys = _known("row_filter", rule, ("branch", "equals"))
            _check(len(keys) == 2, f"row_filter = {rule!r} needs the keys branch and equals")
        values["row_filter"] = tuple(RowFilter(**rule) for rule in rules)
        if values.get("truth") is not None:
            values["truth"] = _truth(values["truth"])
        return Schema(**values)


def load_schema(source: str | Path | Mapping[str, Any]) -> Schema:
    """Return a schema from a mapping, a TOML file, or the name of a schema that comes with the package."""
    if isinstance(source, Mapping):
        return Schema.from_mapping(source)
    path = Path(source)
    if path.suffix != ".toml":
        return builtin(str(source))
    try:
        content = from_toml(path)
        filled_in(content)
        return Schema.from_mapping(content)
    except OSError as error:
        raise SteeringError(f"schema {path}: cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        raise SteeringError(f"schema {path}: not a TOML file ({error})") from error
    except SteeringError as error:
        raise SteeringError(f"{path}: {error}") from error


def builtin_names() -> tuple[str, ...]:
    """Return the names of the schemas that come with the package."""
    folder = resources.files("gammastar.read") / "schemas"
    return tuple(sorted(item.name[:-5] for item in folder.iterdir() if item.name.endswith(".toml")))


def builtin(name: str) -> Schema:
    """Return a schema that comes with the package, e.g. ``nanoaod_muon``."""
    _one_of("name", name, builtin_names())
    file = resources.files("gammastar.read") / "schemas" / f"{name}.toml"
    return Schema.from_mapping(from_toml(file.read_text(encoding="utf-8")))


def _names(branch: Branch) -> str:
    return " and ".join(map(repr, branch)) if isinstance(branch, tuple) else repr(branch)


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise SteeringError(message)


def _one_of(key: str, value: Any, allowed: tuple[str, ...]) -> None:
    _check(value in allowed, f"schema.{key} = {value!r}; use one of {', '.join(allowed)}")


def _known(where: str, mapping: Any, allowed: tuple[str, ...]) -> dict[str, Any]:
    for key, _ in _table(where, mapping):
        near = difflib.get_close_matches(str(key), allowed, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(allowed)}"
        _check(key in allowed, f"{where}.{key}: unknown key; {hint}")
    return dict(mapping)


def _table(where: str, value: Any) -> list[tuple[str, Any]]:
    _check(isinstance(value, Mapping), f"{where} = {value!r} must be a table")
    return list(value.items())


def _text(where: str, value: Any) -> str:
    _check(isinstance(value, str), f"{where} = {value!r} must be a text")
    return str(value)


def _branch(where: str, value: Any) -> Branch:
    if isinstance(value, str) and value:
        return value
    legs = value if isinstance(value, (list, tuple)) else ()
    _check(
        len(legs) == 2 and all(isinstance(leg, str) for leg in legs),
        f"schema.{where} = {value!r} must be a branch name, or two of them in a pair layout",
    )
    return (legs[0], legs[1])


def _truth(value: Any) -> Truth:
    table = _known("truth", value, tuple(Truth.__dataclass_fields__))
    for key in ("mass", "pt", "energy"):
        _check(key in table, f"truth.{key} is missing")
    for key in TRUTH_BRANCHES:
        _text(f"truth.{key}", table.get(key, ""))
    for key in ("signal", "fakes"):
        table[key] = tuple(table.get(key, ()))
    return Truth(**table)
