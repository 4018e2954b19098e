"""Which branch a name means, and the numbers and charges that are in it."""

from __future__ import annotations

import contextlib
import difflib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import awkward as ak
import numpy as np
from uproot.behaviors.RNTuple import HasFields
from uproot.interpretation.grouped import AsGrouped
from uproot.interpretation.identify import UnknownInterpretation
from uproot.interpretation.objects import CannotBeAwkward

from gammastar.core.errors import BranchError
from gammastar.core.files import shortened
from gammastar.read.files import bound_lists
from gammastar.read.schema import Schema

MAX_LISTED = 5  # names in a message
MAX_TYPE_LENGTH = 100  # characters of a type in a message


@dataclass(frozen=True, slots=True)
class Place:
    """Where a name is found in what uproot returns: its key there, and the fields below it."""

    key: str
    fields: tuple[str, ...] = ()


@dataclass(frozen=True)
class Chosen:
    """The branches of one tree that are read, each found once by its full path."""

    places: Mapping[str, Place]  # Requested names and where their arrays are
    members: Mapping[str, Mapping[str, Place]]  # Collections that the file keeps as one branch per member
    # What ``iterate`` and ``num_entries_for`` of the tree need to choose these branches and no others
    options: Mapping[str, Any]

    def rows(self, arrays: ak.Array) -> ak.Array:
        """Return the arrays under the requested names; the members of a collection as fields of it."""

        def found(place: Place) -> ak.Array:
            array = arrays[place.key]
            for name in place.fields:
                array = array[name]
            return array

        columns = {name: found(place) for name, place in self.places.items()}
        for name, places in self.members.items():
            columns[name] = _joined(name, {member: found(place) for member, place in places.items()})
        contents = [column.layout for column in columns.values()]
        return ak.Array(ak.contents.RecordArray(contents, list(columns), length=len(arrays)))


def _joined(collection: str, members: Mapping[str, ak.Array]) -> ak.Array:
    try:
        return ak.zip(dict(members))
    except ValueError as error:
        msg = f"the members {listed(members)} of {collection!r} are lists of different length"
        raise BranchError(msg) from error


def choose(
    tree: Any, names: Sequence[str], where: tuple[str, str], members: Mapping[str, Sequence[str]]
) -> Chosen:
    """Return where the branches of these names are."""
    table = _Table(tree, *where)
    places: dict[str, Place] = {}
    split: dict[str, dict[str, Place]] = {}
    missing: list[str] = []
    for name in names:
        keys = table.find(name)
        if not keys:
            missing.append(name)
        elif name in members and table.is_split(keys[0]):
            split[name] = {member: table.member(name, keys[0], member) for member in members[name]}
        else:
            places[name] = table.place(name, keys[0])
    if missing:
        raise BranchError(table.without(missing))
    return Chosen(places, split, table.options())


def fill_fields(ntuple: Any) -> None:
    """Enter the children of all fields of an RNTuple into uproot's own cache.

    uproot looks through all fields for the children of each one: 2 million steps for 1600 branches.
    """
    children: dict[int, list[Any]] = defaultdict(list)
    fields = ntuple.all_fields
    for number, record in enumerate(ntuple.field_records):
        if record.parent_field_id != number:
            children[record.parent_field_id].append(fields[number])

    def below(field: Any) -> list[Any]:
        if field._fields is None:
            found = []
            for child in children[field.field_id]:
                found += below(child) if child.is_anonymous else [child]
            field._fields = found
        return list(field._fields)

    for field in fields:
        below(field)


class _Table:
    """The branches of one tree by their full paths."""

    def __init__(self, tree: Any, path: str, name: str) -> None:
        self.tree, self.path, self.name = tree, path, name
        self.fields = isinstance(tree, HasFields)
        self.branches: dict[str, list[Any]] = {}
        if self.fields:
            fill_fields(tree)
        for key, branch in tree.iteritems(ignore_duplicates=False):
            self.branches.setdefault(str(key), []).append(branch)
        self.short: dict[str, list[str]] = {}
        for key in self.branches:  # what a path ends in, part by part, without the whole path
            short = key
            while self.separator in short:
                short = short.partition(self.separator)[2]
                self.short.setdefault(short, []).append(key)
        self.inside: dict[str, tuple[str, ...]] = {}
        self.used: dict[str, Any] = {}

    @property
    def separator(self) -> str:
        return "." if self.fields else "/"

    def _within(self, name: str) -> Place | None:
        """Return the place of a leaf in a list of leaves, or of a member of an object kept as one branch."""
        for at, mark in enumerate(name):
            keys = [name[:at]] if name[:at] in self.branches else self.short.get(name[:at], [])
            if mark not in "./" or self.fields or len(keys) != 1 or self.is_split(keys[0]):
                continue
            with contextlib.suppress(CannotBeAwkward, NotImplementedError):
                form = self.branches[keys[0]][0].interpretation.awkward_form(self.tree.file)
                fields = _below(form, name[at + 1 :].replace("/", "."))
                if fields:
                    return Place(keys[0], fields)
        return None

    def find(self, name: str) -> list[str]:
        """Return the path of the one branch of this name, or nothing."""
        if name in self.branches:
            keys = [name]
        elif self.fields and name.replace("/", ".") in self.branches:
            keys = [name.replace("/", ".")]
        else:
            keys = self.short.get(name, [])
        inside = None if keys else self._within(name)
        if inside is not None:
            keys = [inside.key]
            self.inside[name] = inside.fields
        if len(keys) > 1:
            raise BranchError(
                f"{self.path}: tree {self.name!r} has {len(keys)} branches {name!r}: {listed(keys)}; "
                "give the full path"
            )
        for key in keys:
            if len(self.branches[key]) > 1:
                raise BranchError(
                    f"{self.path}: tree {self.name!r} has {len(self.branches[key])} branches of the very "
                    f"same path {key!r}, which nothing tells apart; write the file with different names"
                )
        return keys

    def is_split(self, key: str) -> bool:
        """Return whether a branch of a TTree is kept as one branch per member."""
        return not self.fields and bool(self.branches[key][0].branches)

    def member(self, collection: str, key: str, member: str) -> Place:
        """Return the place of a member of a split collection."""
        leaf = key.rpartition("/")[2].rstrip(".")
        mine = [k for k in self.branches if k.startswith(key + "/")]
        wanted = {member, f"{leaf}.{member}", member.replace(".", "/")}
        keys = [k for k in mine if k[len(key) + 1 :] in wanted or k.rpartition("/")[2] in wanted]
        if len(keys) != 1:
            what = f"has no member {member!r}" if not keys else f"has several members {member!r}"
            msg = f"{self.path}: collection {collection!r} {what}; its branches are {listed(mine)}"
            raise BranchError(msg)
        return self.place(member, self.find(keys[0])[0])

    def place(self, name: str, key: str) -> Place:
        """Enter a branch among those that are read and return its place."""
        branch = self.branches[key][0]
        if self.fields:
            self.used[key] = branch
            parts = _parts(branch)
            return Place(parts[0], tuple(parts[1:]))
        # The slash in front keeps uproot from looking for the name in the branches of other objects.
        exact = f"/{key}"
        if self.tree.get(exact) is not branch:
            raise BranchError(
                f"{self.path}: branch {key!r} cannot be reached by its path; write it without '/' in its name"
            )
        self._check_type(key, branch)
        bound_lists(branch)
        self.used[exact] = branch
        return Place(exact, self.inside.get(name, ()))

    def _check_type(self, key: str, branch: Any) -> None:
        interpretation = branch.interpretation
        try:
            unknown = isinstance(interpretation, UnknownInterpretation)
            if not unknown and not isinstance(interpretation, AsGrouped):
                interpretation.awkward_form(branch.file)
        except CannotBeAwkward:
            unknown = True
        if unknown:
            raise BranchError(
                f"{self.path}: branch {key!r} holds {shortened(str(branch.typename), MAX_TYPE_LENGTH)}, "
                "which cannot be read as arrays; write its members as branches of their own (a higher split "
                "level)"
            )
        if isinstance(interpretation, AsGrouped):
            below = [k for k in self.branches if k.startswith(key + "/")]
            msg = f"{self.path}: branch {key!r} holds no numbers itself; name one below it: {listed(below)}"
            raise BranchError(msg)

    def options(self) -> dict[str, Any]:
        if not self.fields:
            return {"expressions": list(self.used)}
        chosen = {id(field) for field in self.used.values()}
        return {"filter_field": lambda field: id(field) in chosen}

    def without(self, missing: Sequence[str]) -> str:
        """Return the message about names that fit no branch."""
        lines = [f"{name!r} (near: {self._near(name)})" for name in missing[:MAX_LISTED]]
        more = f" and {len(missing) - MAX_LISTED} more" if len(missing) > MAX_LISTED else ""
        return f"{self.path}: tree {self.name!r} has no branch {', '.join(lines)}{more}"

    def _near(self, name: str) -> str:
        lower = {key.lower(): key for key in sorted({*self.short, *self.branches})}
        near = difflib.get_close_matches(name.lower(), lower, n=3, cutoff=0.5)
        return ", ".join(lower[key] for key in near) or "none"


def _below(form: Any, path: str) -> tuple[str, ...]:
    """Return the fields on the way down a form, or nothing if there is no such member."""
    while not form.is_record and hasattr(form, "content"):
        form = form.content
    if not form.is_record:
        return ()
    for name in form.fields:
        if name == path:
            return (name,)
        rest = _below(form.content(name), path[len(name) + 1 :]) if path.startswith(f"{name}.") else ()
        if rest:
            return (name, *rest)
    return ()


def _parts(field: Any) -> list[str]:
    """Return the names on the way down to a field of an RNTuple."""
    parts: list[str] = []
    while isinstance(field, HasFields) and field is not field.ntuple:
        if not field.is_anonymous:
            parts.insert(0, str(field.name))
        field = field.parent
    return parts


def listed(names: Sequence[str] | Mapping[str, Any]) -> str:
    """Return a few names for a message, and how many more there are."""
    text = ", ".join(repr(name) for name in list(names)[:MAX_LISTED])
    return f"{text} … and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else text


def typename(array: ak.Array) -> str:
    """Return the type of one row of an array, cut to what a message can hold."""
    return shortened(str(array.type.content), MAX_TYPE_LENGTH)


PDG_ID = {"e": 11, "mu": 13}  # of the negative lepton


def number_type(array: ak.Array) -> np.dtype[Any] | None:
    """Return the type of the numbers in an array at any depth, or None if it holds something else."""
    layout: Any = array.layout
    while layout is not None and not layout.is_numpy:
        text = layout.parameter("__array__") in ("string", "bytestring")
        layout = None if text else _inside(layout)
    return None if layout is None else np.dtype(layout.dtype)


def numbers(array: ak.Array) -> ak.Array:
    """Return numbers in double precision; one that the file leaves out is not a number."""
    result = ak.values_astype(array, np.float64)
    return ak.fill_none(result, np.nan, axis=None) if has_missing(array) else result


def typed(array: ak.Array, name: str, path: str) -> ak.Array:
    """Return integers and booleans bit by bit as they are stored, other numbers in double precision.

    Integers of 64 bits have no room for one that the file leaves out; smaller ones become double precision.
    """
    kind = number_type(array)
    if kind is None or kind.kind not in "biuf":
        raise BranchError(f"{path}: branch {name!r} of type {typename(array)} does not hold real numbers")
    if kind.kind == "f" or (has_missing(array) and kind.itemsize < 8):
        return numbers(array)
    if not has_missing(array):
        return array
    filled = ak.fill_none(array, kind.type(0), axis=None)
    missing = int(ak.count(filled, axis=None)) - int(ak.count(array, axis=None))
    if missing:
        raise BranchError(
            f"{path}: branch {name!r} of type {typename(array)} leaves out {missing} values, and double "
            "precision would lose bits of the others; write the file with a value for these entries"
        )
    return filled


def has_missing(array: ak.Array) -> bool:
    """Return whether the type of an array allows for values that are left out."""
    layout: Any = array.layout
    while layout is not None:
        if layout.is_option:
            return True
        layout = _inside(layout)
    return False


def _inside(layout: Any) -> Any:
    """Return what a list or an optional value holds; None for records, unions and numbers."""
    return (
        None if layout.is_record or layout.is_union or layout.is_numpy else getattr(layout, "content", None)
    )


def check_sign(array: ak.Array, name: str, schema: Schema, path: str) -> None:
    """Refuse a charge whose type holds no negative number, unless the schema says what it means."""
    kind = number_type(array)
    if kind is None or kind.kind not in "bu" or (schema.charge and schema.positive is not None):
        return
    key = "charge" if schema.charge else "pdg_id"
    what = (
        "name the value of a positive lepton in the schema, for instance positive = 1"
        if schema.charge
        else "give a branch with signed PDG codes, or the charge"
    )
    raise BranchError(f"{path}: {key} = {name!r} of type {typename(array)} holds no negative number; {what}")


class Charges:
    """Turn what the files hold into charges; it remembers which value stood for negative leptons."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.negative: set[float] = set()

    def of(self, values: ak.Array, path: str) -> ak.Array:
        """Return charges ±1; other values stay for a plain charge and become 0 for codes."""
        if not self.schema.charge:  # a positive PDG code is a negative lepton
            known = np.abs(values) == PDG_ID[self.schema.lepton]
            return ak.where(known, -np.sign(values), 0.0)
        positive = self.schema.positive
        if positive is None:
            return values
        flat = np.asarray(ak.to_numpy(ak.flatten(values, axis=None)))
        self.negative |= set(np.unique(flat[np.isfinite(flat) & (flat != positive)]).tolist())
        if len(self.negative) > 1:
            some = ", ".join(f"{value:g}" for value in sorted(self.negative)[:5])
            raise BranchError(
                f"{path}: charge = {self.schema.charge!r} takes the values {some} besides "
                f"positive = {float(positive):g}; only one other value can mean a negative lepton"
            )
        charge = ak.where(values == positive, 1.0, -1.0)
        return ak.where(np.isfinite(values), charge, np.nan)
