"""Look into a file: its trees, their branches by full path, and the types."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uproot
from uproot.behaviors.RNTuple import HasFields

from gammastar.core.errors import InputFileError
from gammastar.read.branches import fill_fields
from gammastar.read.events import TREE_CLASSES
from gammastar.read.integrity import reading

__all__ = ["TreeSummary", "inspect", "is_list"]

LISTS = ("[]", "vector<", "RVec<", "TClonesArray")


@dataclass(frozen=True, slots=True)
class TreeSummary:
    """One tree of a file.

    Attributes
    ----------
    name, kind : str
        Name with its directory, and class (``TTree``, ``ROOT::RNTuple``).
    entries : int
    branches : mapping of str to str
        Branch, by its full path, to C++ type; leaves of a branch with a list of leaves are ``branch.leaf``.
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
        trees = {name: opened[name] for name in kinds}
        result = tuple(
            TreeSummary(name, kinds[name], int(tree.num_entries), dict(_types(tree)))
            for name, tree in trees.items()
        )
    if not result:
        msg = f"{path}: holds no TTree or RNTuple; it is empty or damaged"
        raise InputFileError(msg)
    return result


def is_list(kind: str) -> bool:
    """Return whether a branch of this C++ type holds a list per row."""
    return any(mark in kind for mark in LISTS)


def _types(tree: Any) -> Iterator[tuple[str, str]]:
    if isinstance(tree, HasFields):
        fill_fields(tree)
        for field in tree.all_fields:
            if field.path and not field.is_anonymous:
                yield str(field.path), str(field.typename)
        return
    for name, branch in tree.iteritems():
        leaves = branch.member("fLeaves", none_if_missing=True) or ()
        if len(leaves) > 1 and not branch.branches:
            ends = "[]" if is_list(str(branch.typename)) else ""
            for leaf in leaves:
                yield f"{name}.{leaf.name}", f"{_leaf_type(leaf)}{ends}"
        else:
            yield str(name), str(branch.typename)


def _leaf_type(leaf: Any) -> str:
    kinds = {"D": "double", "F": "float", "L": "int64_t", "I": "int32_t", "S": "int16_t", "B": "int8_t"}
    kind = kinds.get(str(leaf.classname).removeprefix("TLeaf"), "bool")
    return f"u{kind}" if leaf.member("fIsUnsigned", none_if_missing=True) else kind
