"""Single leptons for event mixing, and the pair selection on pairs that come from elsewhere."""

from __future__ import annotations

import awkward as ak
import numpy as np
import numpy.typing as npt

from gammastar.core.pairs import Pairs
from gammastar.core.records import FloatArray
from gammastar.select.cuts import Cuts, pair_quantity
from gammastar.select.leptons import KINEMATICS, selected

__all__ = ["apply", "singles"]


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
    cuts : Cuts

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
