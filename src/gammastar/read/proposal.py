"""What a file holds, the schema that is proposed for it, and a first look through it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from uproot.behaviors.RNTuple import HasFields
from uproot.const import RNTupleFieldRole

from gammastar.core.errors import BranchError, InputFileError, UserError
from gammastar.core.files import Finding, plain
from gammastar.read.branches import fill_fields
from gammastar.read.events import TREE_CLASSES
from gammastar.read.files import kept_open, opened
from gammastar.read.meaning import examine, seen_lepton
from gammastar.read.schema import Schema

LISTS = ("[]", "vector<", "RVec<", "TClonesArray")
LEAVES = {"D": "double", "F": "float", "L": "int64_t", "I": "int32_t", "S": "int16_t", "B": "int8_t"}


@dataclass(frozen=True, slots=True)
class TreeSummary:
    """One tree of a file.

    Attributes
    ----------
    name, kind : str
        Name with its directory, and class (``TTree``, ``ROOT::RNTuple``).
    branches : mapping of str to str
        Branch, by its full path, to C++ type; leaves of a branch with a list of leaves are ``branch.leaf``.
    """

    name: str
    kind: str
    entries: int
    branches: Mapping[str, str]


def inspect(file: str | Path) -> tuple[TreeSummary, ...]:
    """Return what the trees of a ROOT file hold, without reading any data."""
    path = str(file)
    with opened(path) as found:
        kinds = {key: kind for key, kind in found.classnames(cycle=False).items() if kind in TREE_CLASSES}
        trees = {name: found[name] for name in kinds}
        result = tuple(
            TreeSummary(name, kinds[name], int(tree.num_entries), dict(_types(tree)))
            for name, tree in trees.items()
        )
    if not result:
        raise InputFileError(f"{path}: holds no TTree or RNTuple; it is empty or damaged")
    return result


def is_list(kind: str) -> bool:
    """Return whether a branch of this C++ type holds a list per row."""
    return any(mark in kind for mark in LISTS)


def _types(tree: Any) -> Iterator[tuple[str, str]]:
    if isinstance(tree, HasFields):
        fill_fields(tree)
        for field in tree.all_fields:
            if field.path and not field.is_anonymous:
                untyped = "[]" if field.record.struct_role == RNTupleFieldRole.COLLECTION else ""
                yield str(field.path), str(field.typename) or untyped
        return
    for name, branch in tree.iteritems():
        leaves = branch.member("fLeaves", none_if_missing=True) or ()
        if len(leaves) > 1 and not branch.branches:
            ends = "[]" if is_list(_typename(branch)) else ""
            for leaf in leaves:
                kind = LEAVES.get(str(leaf.classname).removeprefix("TLeaf"), "bool")
                unsigned = "u" if kind != "bool" and leaf.member("fIsUnsigned", none_if_missing=True) else ""
                yield f"{name}.{leaf.member('fName')}", f"{unsigned}{kind}{ends}"
        else:
            yield str(name), _typename(branch)


def _typename(branch: Any) -> str:
    try:
        return str(branch.typename)
    except (KeyError, ValueError, TypeError, NotImplementedError, AttributeError) as error:
        return f"unreadable ({type(error).__name__})"  # one branch that nobody needs costs no tree


KEYS = {
    "px": ("px",),
    "py": ("py",),
    "pz": ("pz",),
    "pt": ("pt",),
    "eta": ("eta",),
    "phi": ("phi",),
    "E": ("energy", "en", "e"),
    "mass": ("mass", "m"),
    "charge": ("charge", "chg", "ch", "q", "id_charge"),
    "pdg_id": ("pdgid", "pdg_id", "pdgcode", "pdg", "pid"),
}
MOMENTA = (("px", "py", "pz"), ("pt", "eta", "phi"))
FLAVOURS = {
    "mu": {"mu", "mus", "muon", "muons", "dimuon", "dimuons", "mumu"},
    "e": {"e", "el", "els", "ele", "eles", "electron", "electrons", "dielectron", "dielectrons", "ee"},
}
GENERIC = {"lep", "leps", "lepton", "leptons", "trk", "trks", "track", "tracks", "l", "m", "cand", ""}
TRUTH = {"gen", "mc", "true", "truth", "sim", "mother", "parent"}
LEGS = (("1", "2"), ("plus", "minus"), ("pos", "neg"), ("p", "m"), ("0", "1"))
EVENT = (
    ("run", "runnumber", "runid", "runno"),
    ("luminosityblock", "lumiblock", "lumi", "burst", "spill", "spillid"),
    ("event", "eventnumber", "eventid", "evt", "evtnumber"),
)
VECTOR = {"px": "fP.fX", "py": "fP.fY", "pz": "fP.fZ", "E": "fE"}


@dataclass(frozen=True, slots=True)
class Guess:
    """One collection of leptons, or one pair of legs, that the names of branches show."""

    tree: TreeSummary
    lepton: str  # "" if the names do not tell
    stem: str  # What the names of its branches begin with
    mapping: Mapping[str, Any]  # The schema without tree, lepton and event
    rank: tuple[int, ...]  # The smaller, the more likely


@dataclass(frozen=True, slots=True)
class Proposal:
    """A schema that was tried on its file.

    Attributes
    ----------
    notes : tuple of str
        Which tree and collection it takes and why.
    findings : tuple of Finding
        Of `examine`.
    """

    schema: Mapping[str, Any]
    notes: tuple[str, ...]
    findings: tuple[Finding, ...]


def propose(
    file: str | Path, *, lepton: str | None = None, trees: tuple[TreeSummary, ...] = ()
) -> tuple[Proposal, ...]:
    """Return schemas guessed from the branch names of a file, each tried on its first rows.

    Parameters
    ----------
    lepton : {"mu", "e"}, optional
        Only this flavour; it is also taken where neither names nor masses show one.
    trees : tuple of TreeSummary
        Of `inspect`, if it was called before.

    Returns
    -------
    tuple of Proposal
        One per flavour, muons first.

    Raises
    ------
    BranchError
        If no tree has momentum and charge branches of leptons; the message says what is missing.
    """
    trees = trees or inspect(file)
    guesses = sorted(
        (guess for tree in trees for find in (_jagged, _vectors, _pairs) for guess in find(tree)),
        key=lambda guess: guess.rank,
    )
    proposals: dict[str, Proposal] = {}
    failed: list[str] = []
    for guess in guesses:
        if proposals and not guess.lepton:
            continue  # a name that shows its flavour comes first
        flavour, seen = _flavour(file, guess, lepton)
        if not flavour:
            failed.append(
                f"tree {guess.tree.name!r}: {guess.stem or 'the legs'!r} may be leptons, but neither names "
                "nor masses say which; give --lepton mu or --lepton e"
            )
        elif flavour not in proposals and lepton in (None, flavour):
            tried = _try(file, guess, flavour)
            if isinstance(tried, str):
                failed.append(f"tree {guess.tree.name!r}: {guess.stem!r} cannot be read: {tried}")
            else:
                notes = (_why(guess, guesses), *seen)
                proposals[flavour] = Proposal(tried[0], notes, tried[1])
    if proposals:
        return tuple(proposals[flavour] for flavour in FLAVOURS if flavour in proposals)
    if failed:
        more = f" … and {len(failed) - 3} more" if len(failed) > 3 else ""
        raise BranchError(f"{file}: no schema proposed; {'; '.join(text[:300] for text in failed[:3])}{more}")
    names = ", ".join(repr(tree.name) for tree in trees[:5]) + (" …" if len(trees) > 5 else "")
    what = f"leptons {lepton!r}" if lepton else "leptons"
    raise BranchError(
        f"{file}: no tree ({names}) has branches that look like momentum (px, py, pz or pt, eta, phi) and "
        f"charge or PDG code of {what}{_lacking(trees)}; write the schema by hand from the list of branches"
    )


def _lacking(trees: tuple[TreeSummary, ...]) -> str:
    """Say which lepton-like collection lacks something."""
    for tree in trees:
        for stem, columns in _collections(tree).items():
            if any(set(keys) <= set(columns) for keys in MOMENTA) and _kind_of(stem) is not None:
                return f"; {stem!r} in tree {tree.name!r} has momenta, but no charge and no PDG code"
    return ""


def _why(guess: Guess, guesses: list[Guess]) -> str:
    others = sorted({other.tree.name for other in guesses} - {guess.tree.name})
    reason = "the only tree with momenta and charges of leptons"
    if others:
        reason = f"best names, then most entries ({guess.tree.entries}); {', '.join(others[:3])} also fit"
    return f"tree {guess.tree.name!r}: {reason}"


def _flavour(file: str | Path, guess: Guess, lepton: str | None) -> tuple[str, tuple[str, ...]]:
    """Return the flavour of a guess, with a note where the names do not tell."""
    if guess.lepton:
        return guess.lepton, ()
    name = guess.stem or "the legs"
    try:
        schema = Schema.from_mapping(_mapping(guess, lepton or "mu"))
        seen = seen_lepton(file, schema)
    except UserError:
        seen = ""
    if seen:
        return seen, (f"lepton = {seen!r}: from masses or PDG codes, the name {name!r} does not tell",)
    if lepton:
        return lepton, (f"lepton = {lepton!r}: as asked for, nothing in {name!r} shows the flavour",)
    return "", ()


def _mapping(guess: Guess, lepton: str, **changes: Any) -> dict[str, Any]:
    return {"tree": guess.tree.name, "lepton": lepton, **guess.mapping, **_event(guess.tree), **changes}


def _try(file: str | Path, guess: Guess, lepton: str) -> tuple[dict[str, Any], tuple[Finding, ...]] | str:
    """Return a schema that reads the file with what is wrong with it, or why it does not read it."""
    mapping = _mapping(guess, lepton)
    findings = examine(file, mapping)
    for key in ("E", "mass"):  # what does not hold what its name says is left out
        if any(finding.key == key for finding in findings):
            kinematics = {k: v for k, v in mapping["kinematics"].items() if k != key}
            mapping = mapping | {"kinematics": kinematics}
            findings = examine(file, mapping)
    broken = next((finding for finding in findings if finding.key == "schema"), None)
    if broken is not None:
        return broken.message
    if any(finding.key == "unit" for finding in findings):
        for unit in (1e-3, 1e3):
            other = mapping | {"unit": unit}
            tried = examine(file, other)
            if not any(finding.key in ("unit", "schema") for finding in tried):
                return _ordered(other), tried
    return _ordered(mapping), findings


def _ordered(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Return plain keys before tables, as TOML needs them."""
    return dict(sorted(mapping.items(), key=lambda item: isinstance(item[1], Mapping)))


def _words(stem: str) -> list[str]:
    """Return the words of a name, as in ``AnalysisMuonsAuxDyn.``: analysis, muons, aux, dyn."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", stem)]


def _kind_of(stem: str) -> str | None:
    """Return the flavour that a name shows, "" for a generic name, None for something else."""
    words = _words(stem)
    for flavour, names in FLAVOURS.items():
        if names & set(words):
            return flavour
    whole = stem.lower().strip("_./")
    for flavour, names in FLAVOURS.items():
        if any(len(name) > 3 and whole.startswith(name) for name in names):
            return flavour
    return "" if whole in GENERIC or GENERIC & set(words) else None


def _rank(tree: TreeSummary, stem: str, kind: str, order: int) -> tuple[int, ...]:
    words = _words(stem)
    plain = kind and stem.lower().strip("_./s") in FLAVOURS[kind] | {"muon", "electron"}
    return (int(bool(TRUTH & set(words))), int(not kind), int(not plain), order, -tree.entries, len(stem))


def _collections(tree: TreeSummary) -> dict[str, dict[str, str]]:
    """Return the list branches that are named for a quantity: stem to key to branch."""
    collections: dict[str, dict[str, str]] = {}
    for name, kind in tree.branches.items():
        if not is_list(kind) and not _in_list(tree, name):
            continue
        for key, ends in KEYS.items():
            for end in ends:
                stem = name[: -len(end)]
                joined = stem.endswith(("_", ".", "/")) or len(end) > 1 or _kind_of(stem)
                if name.lower().endswith(end) and joined:
                    collections.setdefault(stem, {}).setdefault(key, name)
    return collections


def _in_list(tree: TreeSummary, name: str) -> bool:
    """Return whether a branch of plain type lies in a collection, as fields of RNTuple records do."""
    while "." in name or "/" in name:
        name = re.split(r"[./](?=[^./]*$)", name)[0]
        if is_list(tree.branches.get(name, "")):
            return True
    return False


def _jagged(tree: TreeSummary) -> Iterator[Guess]:
    for order, (stem, columns) in enumerate(_collections(tree).items()):
        kind = _kind_of(stem)
        if kind is not None and not stem.startswith("_collection"):
            yield from _guess(tree, kind, stem, ("jagged", columns), order)


def _guess(
    tree: TreeSummary, kind: str, stem: str, layout: tuple[str, Mapping[str, Any]], order: int
) -> Iterator[Guess]:
    """Yield the guess of columns that hold a sign and one complete set of momenta."""
    name, columns = layout
    sign, complete = _sign(columns), [keys for keys in MOMENTA if set(keys) <= set(columns)]
    if sign and complete:
        kinematics = {key: columns[key] for key in (*complete[0], "E", "mass") if key in columns}
        mapping = {"layout": name, **sign, "kinematics": kinematics}
        yield Guess(tree, kind, stem, mapping, _rank(tree, stem, kind, order))


def _sign(columns: Mapping[str, Any]) -> dict[str, Any]:
    return next(({key: columns[key]} for key in ("charge", "pdg_id") if key in columns), {})


def _vectors(tree: TreeSummary) -> Iterator[Guess]:
    """Yield lists of TLorentzVector with a list of charges beside them."""
    for order, (name, kind) in enumerate(tree.branches.items()):
        if "TLorentzVector" not in kind or not is_list(kind):
            continue
        lists = {other.lower(): other for other, k in tree.branches.items() if is_list(k)}
        flavour = _kind_of(name)
        stems = [name.lower().removesuffix(end) for end in ("p4", "_p4", "vec", "_vec", "_lv", "")]
        for stem in stems if flavour is not None else ():
            columns = {
                key: lists[stem + mark + end]
                for key in ("pdg_id", "charge")
                for end in KEYS[key]
                for mark in ("", "_", ".")
                if stem + mark + end in lists
            }
            if columns:
                mapping = {"layout": "object", "collection": name, **_sign(columns), "kinematics": VECTOR}
                yield Guess(tree, flavour or "", name, mapping, _rank(tree, stem, flavour or "", order))
                break


def _pairs(tree: TreeSummary) -> Iterator[Guess]:
    """Yield pairs of legs: ``px1``, ``pt_plus``, ``mu1_px``, ``m1/px``."""
    flat = {name: kind for name, kind in tree.branches.items() if not is_list(kind)}
    flat = {name: kind for name, kind in flat.items() if not _in_list(tree, name)}
    groups: dict[tuple[Any, ...], dict[tuple[str, str], str]] = {}
    for name in flat:
        for group, key, leg in _legs(name):
            groups.setdefault(group, {}).setdefault((key, leg), name)
    for order, ((legs, stem, *_), columns) in enumerate(groups.items()):
        whole = [key for key in KEYS if all((key, leg) in columns for leg in legs)]
        both, kind = {key: [columns[key, leg] for leg in legs] for key in whole}, _kind_of(stem)
        if kind is not None:
            yield from _guess(tree, kind or _kind_of(tree.name) or "", stem, ("pair", both), order)


def _legs(name: str) -> Iterator[tuple[tuple[Any, ...], str, str]]:
    """Yield how a name may be read as a quantity of one leg: group, key, leg."""
    lower = name.lower()
    for legs in LEGS:
        either = "|".join(legs)
        for key, ends in KEYS.items():
            words = "|".join(ends)
            after = re.fullmatch(rf"(.*?)({words})(_?)({either})(_vtx)?", lower)
            if after:
                stem, _, mark, leg, tail = after.groups()
                yield (legs, stem, "after", mark, tail), key, leg
            before = re.fullmatch(rf"(.*?)_?({either})([_./])({words})", lower)
            if before:
                stem, leg, mark, _ = before.groups()
                yield (legs, stem, "before", mark), key, leg


def _event(tree: TreeSummary) -> dict[str, Any]:
    names = {
        re.split(r"[./]", name)[-1].lower(): name
        for name, kind in reversed(list(tree.branches.items()))
        if "int" in kind.lower() and not is_list(kind)
    }
    branches = [next((names[name] for name in group if name in names), "") for group in EVENT]
    return {"event": [name for name in branches if name]} if branches[-1] else {}


@dataclass(frozen=True, slots=True)
class Description:
    """What a file holds.

    Attributes
    ----------
    schemas : tuple of Proposal
        Empty if nothing is proposed.
    proposal : str
        The first schema as TOML, with what was found as comments; without a schema, what is missing.
    listing : str
        Trees, branches and types.
    """

    schemas: tuple[Proposal, ...]
    proposal: str
    listing: str


@kept_open()
def describe(file: str | Path, *, lepton: str | None = None, pattern: str = "*") -> Description:
    """Return a schema that was tried on a file, and its trees, branches and types.

    Parameters
    ----------
    lepton : {"mu", "e"}, optional
        Only this flavour.
    pattern : str
        Shell pattern of branch names for the listing, e.g. ``Muon*``; capitals do not matter.

    Raises
    ------
    InputFileError
        If the file is missing or damaged, or holds no tree.
    """
    trees = inspect(file)
    listing = "\n".join(_listed(trees, pattern))
    try:
        schemas = propose(file, lepton=lepton, trees=trees)
    except BranchError as error:
        return Description((), str(error), listing)
    return Description(schemas, "\n".join(_proposed(file, schemas)), listing)


def _proposed(file: str | Path, schemas: tuple[Proposal, ...]) -> Iterator[str]:
    first = schemas[0]
    notes = [f"proposed for {Path(file).name}; check it before use", *first.notes]
    notes += [f"{finding.level}: {finding.key}: {finding.message}" for finding in first.findings]
    for other in schemas[1:]:
        flavour = other.schema["lepton"]
        notes.append(f"the file holds leptons {flavour!r} as well: --lepton {flavour}")
    yield from (f"# {plain(note, keep='')}" for note in notes)
    yield ""
    yield to_toml(first.schema).rstrip("\n")


def _listed(trees: tuple[TreeSummary, ...], pattern: str) -> Iterator[str]:
    for tree in trees:
        names = [name for name in tree.branches if fnmatchcase(name.lower(), pattern.lower())]
        shown = "" if len(names) == len(tree.branches) else f", {len(names)} like {pattern!r}"
        yield f"\n{tree.name} ({tree.kind}, {tree.entries} entries, {len(tree.branches)} branches{shown})"
        for name in names:
            yield f"  {name:40s} {tree.branches[name]}"


def to_toml(mapping: Mapping[str, Any]) -> str:
    """Return a schema mapping as TOML text."""
    lines = [f"{key} = {_value(v)}" for key, v in mapping.items() if not isinstance(v, Mapping)]
    for key, table in mapping.items():
        if isinstance(table, Mapping):
            lines += ["", f"[{key}]", *(f"{_key(name)} = {_value(v)}" for name, v in table.items())]
    return "\n".join(lines) + "\n"


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _value(name)


def _value(value: Any) -> str:
    if isinstance(value, str):
        return plain(json.dumps(value, ensure_ascii=False), keep="")  # escapes that TOML has as well
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_value, value)) + "]"
    return repr(value)
