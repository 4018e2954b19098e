"""Look into a file: trees, branches, types; and a proposal for its schema."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uproot

from gammastar.core.errors import BranchError, InputFileError
from gammastar.read.events import TREE_CLASSES
from gammastar.read.integrity import reading

__all__ = ["TreeSummary", "inspect", "propose_schema", "to_toml"]

LEPTONS = {"mu": ("muon", "mu"), "e": ("electron", "ele", "el", "e")}
KINEMATICS = (("px", "py", "pz"), ("pt", "eta", "phi"))
CHARGE = ("charge", "q")
PDG = ("pdgid", "pdg", "pid")
LISTS = ("[]", "vector<", "RVec<", "TLorentzVector")


@dataclass(frozen=True, slots=True)
class TreeSummary:
    """One tree of a file.

    Attributes
    ----------
    name, kind : str
        Name with its directory, and class (``TTree``, ``ROOT::RNTuple``).
    entries : int
    branches : mapping of str to str
        Branch to C++ type.
    """

    name: str
    kind: str
    entries: int
    branches: Mapping[str, str]


def inspect(file: str | Path) -> tuple[TreeSummary, ...]:
    """Return what the trees of a ROOT file hold, without reading any data.

    Raises
    ------
    InputFileError
        If the file is missing or damaged, or holds no tree.
    """
    path = str(file)
    with reading(path), uproot.open({path: None}) as opened:
        kinds = {key: kind for key, kind in opened.classnames(cycle=False).items() if kind in TREE_CLASSES}
        result = tuple(
            TreeSummary(name, kind, int(opened[name].num_entries), _types(opened[name]))
            for name, kind in kinds.items()
        )
    if not result:
        msg = f"{path}: holds no TTree or RNTuple; it is empty or damaged"
        raise InputFileError(msg)
    return result


def propose_schema(file: str | Path, *, lepton: str = "mu") -> dict[str, Any]:
    """Return a schema mapping guessed from the branch names of a file; check it before use.

    Parameters
    ----------
    file : path
    lepton : {"mu", "e"}

    Raises
    ------
    BranchError
        If no tree has momentum and charge branches of this lepton.
    """
    summaries = inspect(file)
    for tree in sorted(summaries, key=lambda summary: -summary.entries):
        for guess in (_jagged, _object, _pair):
            found = guess(tree, lepton)
            if found is not None:
                return {"tree": tree.name, "lepton": lepton, **found, **_event(tree)}
    msg = (
        f"{file}: no tree ({', '.join(summary.name for summary in summaries)}) has branches that look like "
        f"momentum and charge of leptons {lepton!r}; write the schema by hand from the list of branches"
    )
    raise BranchError(msg)


def to_toml(mapping: Mapping[str, Any]) -> str:
    """Return a schema mapping as TOML text."""
    plain = [f"{key} = {_value(v)}" for key, v in mapping.items() if not isinstance(v, Mapping)]
    for key, table in mapping.items():
        if isinstance(table, Mapping):
            plain += ["", f"[{key}]", *(f"{_key(name)} = {_value(v)}" for name, v in table.items())]
    return "\n".join(plain) + "\n"


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _value(name)


def _value(value: Any) -> str:
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_value, value)) + "]"
    return repr(value)


def _types(tree: Any) -> dict[str, str]:
    typenames = tree.typenames(full_paths=False) if hasattr(tree, "typenames") else {}
    return {str(name): str(kind) for name, kind in typenames.items()}


def _is_list(kind: str) -> bool:
    return any(mark in kind for mark in LISTS)


def _first(names: Mapping[str, str], wanted: tuple[str, ...]) -> str:
    """Return the first branch whose name, in lower case, is one of the wanted ones; "" if none."""
    lower = {name.lower(): name for name in reversed(list(names))}
    return next((lower[want] for want in wanted if want in lower), "")


def _with_sign(names: Mapping[str, str], stem: str) -> dict[str, str]:
    charge = _first(names, tuple(stem + end for end in CHARGE))
    pdg = _first(names, tuple(stem + end for end in PDG))
    return {"charge": charge} if charge else {"pdg_id": pdg} if pdg else {}


def _jagged(tree: TreeSummary, lepton: str) -> dict[str, Any] | None:
    lists = {name: kind for name, kind in tree.branches.items() if _is_list(kind)}
    for stem in LEPTONS[lepton]:
        for mark in ("_", ".", "", "s_", "s.", "sauxdyn.", "auxdyn."):
            sign = _with_sign(lists, stem + mark)
            for keys in KINEMATICS:
                branches = {key: _first(lists, (stem + mark + key,)) for key in keys}
                if sign and all(branches.values()):
                    return {"layout": "jagged", **sign, "kinematics": branches}
    return None


def _object(tree: TreeSummary, lepton: str) -> dict[str, Any] | None:
    vectors = [name for name, kind in tree.branches.items() if "TLorentzVector" in kind]
    for stem in LEPTONS[lepton]:
        for name in vectors:
            sign = _with_sign({k: v for k, v in tree.branches.items() if _is_list(v)}, stem)
            sign = sign or _with_sign(tree.branches, stem + "_")
            if sign and name.lower().startswith(stem):
                members = {"px": "fP.fX", "py": "fP.fY", "pz": "fP.fZ", "E": "fE"}
                return {"layout": "object", "collection": name, **sign, "kinematics": members}
    return None


def _pair(tree: TreeSummary, lepton: str) -> dict[str, Any] | None:
    flat = {name: kind for name, kind in tree.branches.items() if not _is_list(kind)}
    stems = ("", *(stem + mark for stem in LEPTONS[lepton] for mark in ("_", "")))
    for stem in stems:
        for one, two in (("1", "2"), ("_1", "_2"), ("p", "m"), ("_plus", "_minus")):
            sign = [_first(flat, tuple(stem + c + leg for c in CHARGE)) for leg in (one, two)]
            for keys in KINEMATICS:
                legs = {key: [_first(flat, (stem + key + leg,)) for leg in (one, two)] for key in keys}
                if all(sign) and all(a and b for a, b in legs.values()):
                    return {"layout": "pair", "charge": sign, "kinematics": legs}
    return None


def _event(tree: TreeSummary) -> dict[str, Any]:
    names = {name: kind for name, kind in tree.branches.items() if "int" in kind.lower()}
    found = [_first(names, (k,)) for k in ("run", "luminosityblock", "burst", "event")]
    return {"event": [name for name in found if name]} if found[-1] else {}
