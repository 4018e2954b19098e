"""Events as files: ROOT trees."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import uproot

from gammastar.store.manifest import atomic

__all__ = ["write_tree"]


def write_tree(path: Path, trees: Mapping[str, Mapping[str, Any]]) -> None:
    """Write flat and jagged arrays as TTrees, at once or not at all.

    Parameters
    ----------
    path : Path
    trees : mapping of tree name to mapping of branch name to array
        Jagged arrays of one collection are given as one record array per collection (``Muon``), which is
        written as ``nMuon`` and ``Muon_*``.
    """
    with atomic(path) as temporary, uproot.recreate(temporary, compression=uproot.ZLIB(4)) as file:
        for name, branches in trees.items():
            types = {key: getattr(array, "type", None) or array.dtype for key, array in branches.items()}
            types = {key: (kind.content if hasattr(kind, "content") else kind) for key, kind in types.items()}
            tree = file.mktree(name, types)
            tree.extend(dict(branches))
