"""Simulated events: the virtual photon of each row and the pair reconstructed from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import awkward as ak
import numpy as np
import numpy.typing as npt

from gammastar.core.errors import BranchError, InputFileError
from gammastar.core.pairs import MatchedPairs, Pairs
from gammastar.core.records import BoolArray, FloatArray
from gammastar.read.events import open_events
from gammastar.read.schema import Schema, Truth

LINK = "from_photon"
IntArray = npt.NDArray[np.int64]


def matched(
    files: str | Path | Sequence[str | Path],
    schema: Schema,
    cuts: Callable[[ak.Array], Pairs],
    *,
    step: str | int = "100 MB",
    entry_start: int = 0,
    entry_stop: int | None = None,
) -> MatchedPairs:
    """Match reconstructed pairs to the generated virtual photons.

    Parameters
    ----------
    schema : Schema
        With a truth table.
    cuts : function of events that returns the selected Pairs
        The selection of the data, e.g. a ``select.Cuts``.
    step : str or int
        Size of a chunk in memory, or its number of entries.
    entry_start, entry_stop : int
        Range of entries of each file; with `entry_stop` given, a range without any photon is no error.

    Returns
    -------
    MatchedPairs
        One row per virtual photon. A photon is reconstructed if the row holds a selected opposite-sign pair
        of its two leptons; without a branch that links leptons to the photon, the pair nearest to its true
        mass is taken.

    Raises
    ------
    BranchError
        If the schema has no truth, or a branch is missing.
    InputFileError
        If a file is damaged, or no row holds a virtual photon.

    Notes
    -----
    Other opposite-sign pairs of the same row are combinatorial: like-sign subtraction removes them from data,
    so they are neither reconstructed photons nor fakes. Fakes are the pairs of the processes that the schema
    lists under ``truth.fakes``.
    """
    chunks = open_matched(files, schema, cuts, step=step, entry_start=entry_start, entry_stop=entry_stop)
    return MatchedPairs.concatenate(list(chunks))


def open_matched(
    files: str | Path | Sequence[str | Path],
    schema: Schema,
    cuts: Callable[[ak.Array], Pairs],
    *,
    step: str | int = "100 MB",
    entry_start: int = 0,
    entry_stop: int | None = None,
) -> Iterator[MatchedPairs]:
    """Yield what `matched` returns chunk by chunk, so that a simulation of any size can be read.

    Parameters
    ----------
    files, schema, cuts, step, entry_start, entry_stop
        As for `matched`.

    Raises
    ------
    BranchError
        If the schema has no truth, or a branch is missing.
    InputFileError
        If a file is damaged, or, after the last chunk, if no row held a virtual photon.
    """
    if schema.truth is None:
        msg = f"the schema of tree {schema.tree!r} has no [truth] table; simulated events need one"
        raise BranchError(msg)
    n, known = 0, schema.truth
    for events in open_events(
        files, schema, step=step, truth=True, entry_start=entry_start, entry_stop=entry_stop
    ):
        part = _match(events, known, cuts)
        n += len(part)
        yield part
    if not n and entry_stop is None:
        raise InputFileError(
            f"{files}: no row holds a virtual photon (truth.mass = {known.mass!r} is never positive, "
            f"or truth.signal = {list(known.signal)} never occurs)"
        )


def _match(events: ak.Array, truth: Truth, cuts: Callable[[ak.Array], Pairs]) -> MatchedPairs:
    n = len(events)
    true = np.stack(
        [np.asarray(ak.to_numpy(events.truth[key])) for key in ("mass", "pt", "energy")], axis=1
    ).reshape(n, 3)
    process = np.asarray(ak.to_numpy(events.truth.process)) if truth.process else np.zeros(n, np.int64)
    photon: BoolArray = np.isfinite(true).all(axis=1) & (true[:, 0] > 0)
    if truth.signal:
        photon &= np.isin(process, truth.signal)
    # Rows stand in for event identifiers, so that a pair finds its way back to its row.
    found = cuts(ak.with_field(events, np.arange(n, dtype=np.int64), "event"))
    found = found.select(found.os)
    fake = found.select(np.isin(process[found.event], truth.fakes) & ~photon[found.event])
    candidate = found.select(photon[found.event])
    if truth.lepton:
        candidate = _linked(candidate)
    reco = np.full((n, 3), np.nan)
    best = _nearest(candidate, true[:, 0])
    row = candidate.event[best]
    reco[row] = _kinematics(candidate)[best]
    columns = {}
    for name, column in candidate.columns.items():
        columns[name] = np.full(n, np.nan)
        columns[name][row] = column[best]
    return MatchedPairs(
        true=true[photon],
        reco=reco[photon],
        weight=np.asarray(ak.to_numpy(events.weight))[photon],
        event=np.asarray(ak.to_numpy(events.event))[photon],
        fakes=_kinematics(fake),
        fake_weight=fake.weight,
        columns={name: column[photon] for name, column in columns.items()},
    )


def _kinematics(pairs: Pairs) -> FloatArray:
    return np.stack([pairs.mass, pairs.pt, pairs.energy], axis=1)


def _nearest(pairs: Pairs, true_mass: FloatArray) -> IntArray:
    """Return the index of the pair of each row that is nearest in mass to the photon."""
    order = np.lexsort((np.abs(pairs.mass - true_mass[pairs.event]), pairs.event))
    _, first = np.unique(pairs.event[order], return_index=True)
    return np.asarray(order[first], dtype=np.int64)


def _linked(pairs: Pairs) -> Pairs:
    """Return the pairs whose two leptons both come from the photon."""
    try:
        first, second = (pairs.columns[f"{LINK}_{leg}"] for leg in (1, 2))
    except KeyError as error:
        msg = f"the selection must hand on the lepton column {LINK!r}; its pairs have {list(pairs.columns)}"
        raise BranchError(msg) from error
    return pairs.select((first != 0) & (second != 0))
