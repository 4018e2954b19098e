"""Leptons as flat columns, straight from the file: for a first pass over large samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import numpy.typing as npt

from gammastar.core.constants import LEPTON_MASS
from gammastar.core.errors import BranchError
from gammastar.read.branches import typename
from gammastar.read.charges import check_sign, has_missing, number_type, numbers
from gammastar.read.events import _raw, _weight, open_events
from gammastar.read.integrity import expand
from gammastar.read.schema import Schema

__all__ = ["open_flat"]

Flat = Mapping[str, npt.NDArray[Any]]


def open_flat(
    files: str | Path | Sequence[str | Path], schema: Schema, *, step: str | int = "100 MB"
) -> Iterator[Flat]:
    """Yield the leptons of files chunk by chunk as flat arrays in the precision of the file.

    Parameters
    ----------
    files : path, glob pattern or a list of these
    schema : Schema
    step : str or int
        Size of a chunk in memory, or its number of entries.

    Yields
    ------
    mapping of str to NDArray
        ``offsets`` (n_events + 1,) where the leptons of each event begin; ``px``, ``py``, ``pz``, ``mass``
        [GeV] and ``charge`` (n_leptons,); ``weight`` (n_events,). For ``select.histograms``, which computes
        in double precision.

    Raises
    ------
    InputFileError, BranchError
        As `open_events`.

    Notes
    -----
    Lists of px, py, pz are handed on without a copy; every other layout goes through `open_events`.
    """
    cartesian = {"px", "py", "pz"} <= set(schema.kinematics)
    lean = schema.layout == "jagged" and cartesian and bool(schema.charge) and not schema.row_filter
    lean = lean and schema.positive is None
    if not lean or schema.unit != 1.0 or "E" in schema.kinematics:
        for events in open_events(files, schema, step=step):
            yield _flattened(events)
        return
    for path in expand(files):
        for arrays in _raw(path, schema, step, truth=False, entries=(0, None)):
            yield _columns(arrays, schema, path)


def _flattened(events: ak.Array) -> Flat:
    counts = np.asarray(ak.to_numpy(ak.num(events.lepton)), dtype=np.int64)
    flat = ak.flatten(events.lepton)
    result = {name: np.asarray(ak.to_numpy(flat[name])) for name in ("px", "py", "pz", "mass", "charge")}
    offsets = np.concatenate([[0], np.cumsum(counts)])
    return result | {"offsets": offsets, "weight": np.asarray(ak.to_numpy(events.weight))}


def _columns(arrays: ak.Array, schema: Schema, path: str) -> Flat:
    names = {
        key: str(schema.kinematics[key]) for key in ("px", "py", "pz", "mass") if key in schema.kinematics
    }
    names["charge"] = str(schema.charge)
    result: dict[str, npt.NDArray[Any]] = {}
    offsets: npt.NDArray[Any] | None = None
    for key, name in names.items():
        if key == "charge":
            check_sign(arrays[name], name, schema, path)
        found, content = _list(arrays[name], name, path)
        if offsets is None:
            offsets = found
        elif not np.array_equal(found, offsets):
            msg = f"{path}: the lepton branches hold lists of different length in the same event ({name!r})"
            raise BranchError(msg)
        result[key] = content
    if "mass" not in result:
        result["mass"] = np.broadcast_to(LEPTON_MASS[schema.lepton], len(result["px"]))
    if offsets is None:
        msg = f"{path}: the schema names no lepton branch"
        raise BranchError(msg)
    plain = not (schema.weight or schema.prescale)
    weight = np.broadcast_to(1.0, len(arrays)) if plain else _weight(arrays, schema, path)
    return result | {"offsets": offsets, "weight": weight}


def _list(branch: ak.Array, name: str, path: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return offsets and content of a list of numbers, without a copy where they are packed."""
    if branch.ndim != 2 or number_type(branch) is None:
        msg = f"{path}: branch {name!r} of type {typename(branch)} must hold a list of numbers per row"
        raise BranchError(msg)
    layout = branch.layout
    if number_type(branch) == np.bool_ or has_missing(branch):
        layout = numbers(branch).layout
    if not _packed(layout):
        layout = ak.to_packed(layout)
        if isinstance(layout, ak.contents.RegularArray):
            layout = layout.to_ListOffsetArray64(True)
    offsets = np.asarray(layout.offsets.data)
    return offsets, np.asarray(layout.content.data)[: int(offsets[-1])]


def _packed(layout: Any) -> bool:
    """Return whether a layout is a list of numbers with offsets that begin at 0."""
    if not isinstance(layout, ak.contents.ListOffsetArray):
        return False
    return isinstance(layout.content, ak.contents.NumpyArray) and int(layout.offsets[0]) == 0
