"""Try a proposed schema on its file: what it finds, and what looks wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import uproot

from gammastar.core.errors import GammastarError
from gammastar.read.events import open_events
from gammastar.read.inspect import inspect, propose_schema, to_toml
from gammastar.read.integrity import reading
from gammastar.read.schema import Schema

__all__ = ["describe", "try_schema"]

FIRST = 20_000  # rows that are read
HIGH = 2e3  # GeV, median momentum beyond which a file more likely holds MeV
FEW = 12  # different values of a text branch that may select rows


def describe(file: str | Path, *, lepton: str = "mu") -> Iterator[str]:
    """Yield trees, branches and types of a file, and a schema that was tried on it.

    Parameters
    ----------
    file : path
    lepton : {"mu", "e"}

    Raises
    ------
    InputFileError
        If the file is missing or damaged, or holds no tree.
    """
    for tree in inspect(file):
        yield f"{tree.name} ({tree.kind}, {tree.entries} entries)"
        for branch, kind in tree.branches.items():
            yield f"  {branch:40s} {kind}"
    try:
        mapping = propose_schema(file, lepton=lepton)
        notes = try_schema(file, mapping)
    except GammastarError as error:
        yield f"\nno schema proposed: {error}"
        return
    yield "\n# proposed schema: check it before use"
    yield from (f"# {note}" for note in notes)
    yield to_toml(mapping)


def try_schema(file: str | Path, mapping: Mapping[str, Any]) -> tuple[str, ...]:
    """Read the first rows of a file with a schema mapping and say what was found.

    Parameters
    ----------
    file : path
    mapping : mapping
        Of `propose_schema`.

    Returns
    -------
    tuple of str
        One line each: leptons and events; rows that repeat an event in a layout of pairs, with the branches
        that may select them; momenta that look like MeV.

    Raises
    ------
    GammastarError
        If the schema does not read the file.
    """
    schema = Schema.from_mapping(mapping)
    chunks = list(open_events(file, schema, step=FIRST, entry_stop=_rows(file, schema)))
    if not chunks:
        return (f"tree {schema.tree!r} holds no entry",)
    events = ak.concatenate(chunks)
    lepton = ak.flatten(events.lepton)
    lines = [f"{len(events)} rows hold {len(lepton)} leptons of flavour {schema.lepton!r}"]
    finite = np.sqrt(ak.to_numpy(lepton.px**2 + lepton.py**2 + lepton.pz**2))
    if len(finite) and np.nanmedian(finite) > HIGH:
        lines.append(f"the median momentum is {np.nanmedian(finite):.4g}: for MeV add unit = 1e-3")
    n_events = len(np.unique(ak.to_numpy(events.event)))
    if schema.layout == "pair" and schema.event and n_events < 0.9 * len(events):
        rule = _selectors(file, schema)
        lines.append(f"the rows hold {n_events} different events only: pairs may be repeated; {rule}")
    return tuple(lines)


def _rows(file: str | Path, schema: Schema) -> int:
    entries = next(tree.entries for tree in inspect(file) if tree.name == schema.tree)
    return min(FIRST, entries)


def _selectors(file: str | Path, schema: Schema) -> str:
    """Return which text branches have few values: one may mark the rows to keep."""
    path, found = str(file), []
    with reading(path), uproot.open({path: None}) as opened:
        tree = opened[schema.tree]
        for name, kind in tree.typenames().items():
            if "char*" not in kind and "string" not in kind:
                continue
            values = sorted(set(ak.to_list(tree[name].array(entry_stop=FIRST))))
            if 1 < len(values) <= FEW:
                found.append(f"{name!r} ({', '.join(values)})")
    return f"a row_filter on {' or '.join(found)} may help" if found else "no branch tells them apart"
