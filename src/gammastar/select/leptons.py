"""Leptons of a selection: their quantities, those that are lost, and single ones for mixed events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import awkward as ak
import numpy as np
import numpy.typing as npt

from gammastar.core.errors import SteeringError
from gammastar.core.pairs import Pairs
from gammastar.core.records import FloatArray
from gammastar.select.cuts import Cuts, Step, lepton_quantity, pair_quantity
from gammastar.select.fused import count_kept, usable

KINEMATICS = ("px", "py", "pz", "mass")


@dataclass(frozen=True, slots=True, eq=False)
class Leptons:
    """Selected leptons."""

    counts: npt.NDArray[np.int64]  # shape (n_events,)
    # px, py, pz, mass [GeV], charge, and the columns of the schema, shape (n_leptons,)
    columns: Mapping[str, FloatArray]
    weight: FloatArray  # Of the events, shape (n_events,)

    @property
    def offsets(self) -> npt.NDArray[np.int64]:
        """Where the leptons of each event begin, shape (n_events + 1,)."""
        result = np.zeros(len(self.counts) + 1, dtype=np.int64)
        np.cumsum(self.counts, out=result[1:])
        return result


def as_numpy(array: Any) -> FloatArray:
    """Return a flat awkward array in double precision."""
    return np.asarray(ak.to_numpy(array), dtype=np.float64)


def lepton_step(name: str, counts: npt.NDArray[np.int64], weight: FloatArray) -> Step:
    """Return the step of so many leptons in each event."""
    n = int(counts.sum())
    if (weight == 1).all():
        return Step(name, "lepton", n, float(n), float(n))
    return Step(name, "lepton", n, float(weight @ counts), float(weight**2 @ counts))


def finite_step(
    counts: npt.NDArray[np.int64], weight: FloatArray, columns: Mapping[str, Any], mask: npt.NDArray[np.bool_]
) -> Step:
    """Return the step ``finite``, with what made the other leptons unusable: each counts once."""
    step, lost = lepton_step("finite", counts, weight), ~mask
    if not lost.any():
        return step
    left = {key: np.asarray(columns[key])[lost] for key in (*KINEMATICS, "charge")}
    causes, open_ = {}, np.ones(int(lost.sum()), dtype=bool)
    for key, column in left.items():
        bad = open_ & (np.abs(column) != 1 if key == "charge" else ~np.isfinite(column))
        open_ &= ~bad
        causes[key] = int(bad.sum())
    causes["px"] += int(open_.sum())  # finite components whose sum is not
    return replace(step, lost={key: number for key, number in causes.items() if number})


def selected(events: ak.Array, cuts: Cuts, steps: list[Step]) -> tuple[ak.Array, Leptons]:
    """Return the events that pass and their leptons; one step of the cutflow per cut is appended."""
    steps.append(Step.of("events", "event", as_numpy(events.weight)))
    events, lepton = _event_functions(events, cuts, steps)
    weight = as_numpy(events.weight)
    counts = np.asarray(ak.to_numpy(ak.num(lepton)), dtype=np.int64)
    flat = ak.flatten(lepton)
    columns = {name: np.ascontiguousarray(as_numpy(flat[name])) for name in flat.fields}

    def count(name: str, number: npt.NDArray[np.int64]) -> None:
        steps.append(lepton_step(name, number, weight))

    count("leptons", counts)
    starts = Leptons(counts, columns, weight).offsets
    px, py, pz, mass = (columns[key] for key in KINEMATICS)
    mask = usable(px, py, pz, mass, columns["charge"])
    now = counts if mask.all() else count_kept(starts, mask)
    steps.append(finite_step(now, weight, columns, mask))
    for name, (low, high) in cuts.lepton.items():
        value = as_numpy(lepton_quantity(flat, name))
        mask &= (value >= low) & (value < high)
        now = count_kept(starts, mask)
        count(f"lepton {name}", now)
    if not mask.all():
        columns = {name: column[mask] for name, column in columns.items()}
    return events, Leptons(now, columns, weight)


def _event_functions(events: ak.Array, cuts: Cuts, steps: list[Step]) -> tuple[ak.Array, ak.Array]:
    """Apply the functions of events; each returns a mask of events or of their leptons."""
    lepton_mask = None
    for function in cuts.event_functions:
        name = getattr(function, "__name__", repr(function))
        mask = ak.Array(function(events))
        if len(mask) != len(events) or "bool" not in str(ak.type(mask)):
            msg = f"select: {name}() must return one bool per event or per lepton, got {ak.type(mask)}"
            raise SteeringError(msg)
        if mask.ndim == 1:
            events = events[mask]
            lepton_mask = None if lepton_mask is None else lepton_mask[mask]
            steps.append(Step.of(name, "event", as_numpy(events.weight)))
        else:
            lepton_mask = mask if lepton_mask is None else lepton_mask & mask
    return events, (events.lepton if lepton_mask is None else events.lepton[lepton_mask])


def singles(
    events: ak.Array, cuts: Cuts | None = None
) -> tuple[FloatArray, npt.NDArray[np.int8], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the selected leptons of a chunk of events, for a mixing pool.

    Parameters
    ----------
    events : ak.Array
        From ``read.open_events``.
    cuts : Cuts, optional
        The selection of the data; its event functions and lepton ranges are used.

    Returns
    -------
    momentum : NDArray, shape (n, 4) [GeV]
        px, py, pz, mass.
    charge : NDArray of int8, shape (n,)
    event : NDArray of int64, shape (n,)
    multiplicity : NDArray of int64, shape (n,)
        Selected leptons of the event, a natural mixing class (up to 4).
    """
    events, leptons = selected(events, Cuts() if cuts is None else cuts, [])
    momentum = np.stack([leptons.columns[key] for key in KINEMATICS], axis=1)
    charge = leptons.columns["charge"].astype(np.int8)
    event = np.repeat(np.asarray(ak.to_numpy(events.event), dtype=np.int64), leptons.counts)
    return momentum, charge, event, np.repeat(np.minimum(leptons.counts, 4), leptons.counts)


def apply(pairs: Pairs, cuts: Cuts) -> Pairs:
    """Apply the pair part of a selection to pairs that were made elsewhere, e.g. by event mixing.

    Parameters
    ----------
    pairs : Pairs
        With the columns that the selection names; a ghost veto needs ``angle``. Its cut on the mass above
        threshold is not applied: mixed pairs are never one track.

    Raises
    ------
    SteeringError
        If a cut names an unknown quantity.
    """
    keep = np.ones(len(pairs), dtype=bool)
    if cuts.ghost is not None:
        keep &= pair_quantity(pairs, "angle") >= cuts.ghost.angle
    for name, (low, high) in cuts.pair.items():
        value = pair_quantity(pairs, name)
        keep &= (value >= low) & (value < high)
    for function in cuts.pair_functions:
        keep &= np.asarray(function(pairs), dtype=bool)
    return pairs.select(keep)
