"""From chunks of events straight to histograms of pairs: what a first pass over large files needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import awkward as ak
import numpy as np
import numpy.typing as npt
from hist import Hist
from hist.storage import Weight

from gammastar.core.errors import UserError
from gammastar.core.records import FloatArray, PairHists
from gammastar.select.cutflow import Cutflow, Step
from gammastar.select.cuts import Cuts
from gammastar.select.fill import fill
from gammastar.select.kernel import count_kept, signed_pairs, usable
from gammastar.select.leptons import KINEMATICS, lepton_step, selected
from gammastar.select.pairs import pairs

__all__ = ["histograms"]

QUANTITIES = ("mass", "pt", "energy")


def histograms(
    chunks: Iterable[ak.Array | Mapping[str, Any]], axes: tuple[Any, ...], cuts: Cuts | None = None
) -> tuple[PairHists, Cutflow]:
    """Fill the pairs of all chunks by charge, one chunk in memory at a time.

    Parameters
    ----------
    chunks : iterable of ak.Array, or of flat columns
        Of ``read.open_events``, or, two to three times faster, of ``read.open_flat``.
    axes : tuple of hist axes
    cuts : Cuts, optional

    Returns
    -------
    PairHists
        Equal to ``fill`` of the pairs of all chunks.
    Cutflow

    Notes
    -----
    Without a ghost veto, functions of pairs and axes or cuts on other quantities than mass, pt and energy,
    pairs are never made into a table: a compiled loop hands them to the histogram sorted by charge.
    """
    cuts = Cuts() if cuts is None else cuts
    names = {axis.name for axis in axes} | set(cuts.pair)
    lean = names <= set(QUANTITIES) and cuts.ghost is None and not cuts.pair_functions
    total: PairHists | None = None
    cutflow = Cutflow()
    for events in chunks:
        if isinstance(events, Mapping):
            if not lean or cuts.lepton or cuts.event_functions:
                msg = (
                    "select.histograms: flat columns know mass, pt and energy of pairs only; use open_events"
                )
                raise UserError(msg)
            hists, flow = _flat(events, axes, cuts)
        elif lean:
            steps: list[Step] = []
            _, leptons = selected(events, cuts, steps)
            hists, flow = _lean(leptons.offsets, leptons.columns, leptons.weight, axes, cuts, steps)
        else:
            found, flow = pairs(events, cuts)
            hists = fill(found, axes)
        cutflow += flow
        if total is None:
            total = hists
        else:
            total = PairHists(total.os + hists.os, total.pp + hists.pp, total.mm + hists.mm)
    if total is None:
        msg = "select.histograms: there is no chunk of events; the files are empty"
        raise UserError(msg)
    return total, cutflow


def _flat(chunk: Mapping[str, Any], axes: tuple[Any, ...], cuts: Cuts) -> tuple[PairHists, Cutflow]:
    """Fill one chunk of flat columns; the same steps of the cutflow as from events."""
    offsets, weight = chunk["offsets"], chunk["weight"]
    steps = [Step.of("events", "event", weight)]
    mask = usable(*(chunk[key] for key in (*KINEMATICS, "charge")))
    counts = np.diff(offsets)
    steps.append(lepton_step("leptons", counts, weight))
    if mask.all():
        steps.append(lepton_step("finite", counts, weight))
        return _lean(offsets, chunk, weight, axes, cuts, steps)
    counts = count_kept(offsets, mask)
    steps.append(lepton_step("finite", counts, weight))
    kept = {key: chunk[key][mask] for key in (*KINEMATICS, "charge")}
    return _lean(np.concatenate([[0], np.cumsum(counts)]), kept, weight, axes, cuts, steps)


def _lean(
    offsets: npt.NDArray[np.int64],
    leptons: Mapping[str, Any],
    weights: FloatArray,
    axes: tuple[Any, ...],
    cuts: Cuts,
    steps: list[Step],
) -> tuple[PairHists, Cutflow]:
    px, py, pz, mass, charge = (leptons[key] for key in (*KINEMATICS, "charge"))
    unit = bool((weights == 1).all())
    needed = set(cuts.pair) | {axis.name for axis in axes}
    want = np.array(["pt" in needed, not unit, "energy" in needed])
    values, row, ends = signed_pairs(offsets, px, py, pz, mass, charge, want)
    weight = None if unit else weights[row]
    starts = np.concatenate([[0], ends[:2]])
    parts = [slice(int(a), int(b)) for a, b in zip(starts, ends, strict=True)]
    steps.append(_step("pairs", parts, weight, None))
    keep = None
    for name, (low, high) in cuts.pair.items():
        value = values[QUANTITIES.index(name)]
        inside = (value >= low) & (value < high)
        keep = inside if keep is None else keep & inside
        steps.append(_step(f"pair {name}", parts, weight, keep))
    filled = []
    for part in parts:
        hist: Hist[Any] = Hist(*axes, storage=Weight())
        chosen = [values[QUANTITIES.index(axis.name), part] for axis in axes]
        w = None if weight is None else weight[part]
        if keep is not None:
            chosen, w = [column[keep[part]] for column in chosen], None if w is None else w[keep[part]]
        hist.fill(*chosen, weight=w)
        filled.append(hist)
    return PairHists(*filled), Cutflow(tuple(steps))


def _step(name: str, parts: list[slice], weight: FloatArray | None, keep: Any) -> Step:
    sums, squares, numbers = [], [], []
    for part in parts:
        number = part.stop - part.start if keep is None else int(keep[part].sum())
        w = None if weight is None else weight[part]
        w = w if w is None or keep is None else w[keep[part]]
        numbers.append(number)
        sums.append(float(number) if w is None else float(w.sum()))
        squares.append(float(number) if w is None else float((w**2).sum()))
    return Step(name, "pair", sum(numbers), sum(sums), sum(squares), *sums)
