"""Histograms of opposite-sign, ++ and -- pairs, filled from pairs or straight from events."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import awkward as ak
import numpy as np
from hist import Hist
from hist.storage import Weight

from gammastar.core.errors import UserError
from gammastar.core.pairs import Pairs
from gammastar.core.records import BoolArray, FloatArray, PairHists
from gammastar.select.cuts import Condition, Cutflow, Cuts, Step, pair_quantity, warned
from gammastar.select.pairing import (
    KINEMATICS,
    count_kept,
    fill_pairs,
    fillable,
    finite_step,
    lepton_step,
    pairs,
    selected,
    usable,
)


def fill(pairs: Pairs | Iterable[Pairs], axes: tuple[Any, ...]) -> PairHists:
    """Fill the pairs of each charge into a histogram with sums of weights and of squared weights.

    Parameters
    ----------
    pairs : Pairs, or parts of them
        Of parts one is in memory at a time.
    axes : tuple of hist axes
        Named ``mass``, ``pt``, ``energy`` [GeV], ``angle`` [rad] or as a pair column.

    Raises
    ------
    SteeringError
        If an axis names an unknown quantity.

    Examples
    --------
    >>> from gammastar.core.records import regular
    >>> fill(Pairs.empty(), (regular("mass", 4, 0.2, 1.0),)).os.sum().value
    0.0
    """
    if not isinstance(pairs, Pairs):
        hists = (fill(part, axes) for part in pairs)
        return functools.reduce(lambda a, b: PairHists(a.os + b.os, a.pp + b.pp, a.mm + b.mm), hists)
    columns = [pair_quantity(pairs, axis.name) for axis in axes]

    def one(mask: BoolArray) -> Hist[Any]:
        hist: Hist[Any] = Hist(*axes, storage=Weight())
        hist.fill(*(column[mask] for column in columns), weight=pairs.weight[mask])
        return hist

    return PairHists(os=one(pairs.os), pp=one(pairs.pp), mm=one(pairs.mm))


def flat_suffices(axes: tuple[Any, ...], cuts: Cuts) -> bool:
    """Return whether `histograms` needs no more of the events than ``read.open_flat`` has."""
    return _lean(axes, cuts) and not (cuts.lepton or cuts.event or cuts.event_functions or cuts.runs)


def _lean(axes: tuple[Any, ...], cuts: Cuts) -> bool:
    """Return whether one compiled loop makes and fills the pairs."""
    plain = cuts.ghost is None and not cuts.pair_functions and len(_ranges(cuts)) == len(cuts.pair)
    return plain and fillable(axes, cuts.pair)


def _ranges(cuts: Cuts) -> dict[str, tuple[float, float]]:
    return {name: wanted for name, wanted in cuts.pair.items() if not isinstance(wanted, Condition)}


def histograms(
    chunks: Iterable[ak.Array | Mapping[str, Any]], axes: tuple[Any, ...], cuts: Cuts | None = None
) -> tuple[PairHists, Cutflow]:
    """Fill the pairs of all chunks by charge, one chunk in memory at a time.

    Parameters
    ----------
    chunks : iterable of ak.Array, or of flat columns
        Of ``read.open_events``, or, two to three times faster, of ``read.open_flat``.

    Returns
    -------
    PairHists
        Equal to ``fill`` of the pairs of all chunks.
    Cutflow

    Raises
    ------
    UserError
        If there is no chunk, flat columns do not suffice for the axes or the cuts, or more than half of the
        leptons are not usable (`lost_leptons`).

    Notes
    -----
    Without a ghost veto, functions of pairs and axes or cuts on other quantities than mass, pt and energy,
    pairs are never made into a table: one compiled loop computes and fills them.
    """
    found = chunk_sums(chunks, axes, Cuts() if cuts is None else cuts)
    return added(found, axes)


def chunk_sums(
    chunks: Iterable[ak.Array | Mapping[str, Any]], axes: tuple[Any, ...], cuts: Cuts
) -> Iterator[tuple[FloatArray, Cutflow]]:
    """Yield the sums and the cutflow of each chunk of `histograms`."""
    lean = _lean(axes, cuts)
    for events in chunks:
        if isinstance(events, Mapping):
            if not flat_suffices(axes, cuts):
                raise UserError(
                    "select.histograms: flat columns know mass, pt and energy of pairs only, on plain axes; "
                    "use open_events"
                )
            yield _flat(events, axes, cuts)
        elif lean:
            steps: list[Step] = []
            _, leptons = selected(events, cuts, steps)
            columns = {**leptons.columns, "offsets": leptons.offsets, "weight": leptons.weight}
            yield _filled(columns, axes, cuts, steps)
        else:
            found, flow = pairs(events, cuts)
            yield sums_of(fill(found, axes)), flow


def added(found: Iterable[tuple[FloatArray, Cutflow]], axes: tuple[Any, ...]) -> tuple[PairHists, Cutflow]:
    """Return the histograms and the cutflow of all chunks."""
    total, cutflow = None, Cutflow()
    for sums, flow in found:
        total = sums if total is None else total + sums
        cutflow += flow
    if total is None:
        raise UserError("select.histograms: there is no chunk of events; the files are empty")
    return of_sums(total, axes), warned(cutflow)


def _flat(chunk: Mapping[str, Any], axes: tuple[Any, ...], cuts: Cuts) -> tuple[FloatArray, Cutflow]:
    """Fill one chunk of flat columns; the same steps of the cutflow as from events."""
    offsets, weight = chunk["offsets"], chunk["weight"]
    n = len(weight)
    events = Step("events", "event", n, float(n), float(n)) if _ones(weight) else None
    events = events or Step.of("events", "event", weight)
    steps = [events, _leptons_step("leptons", offsets, weight)]
    done = fill_pairs(chunk, axes, _ranges(cuts))
    if done is not None:
        steps.append(_leptons_step("finite", offsets, weight))
        return _result(*done, cuts, steps)
    mask = usable(*(np.ascontiguousarray(chunk[key]) for key in (*KINEMATICS, "charge")))
    counts = count_kept(offsets, mask)
    steps.append(finite_step(counts, np.asarray(weight), chunk, mask))
    kept = {key: chunk[key][mask] for key in (*KINEMATICS, "charge")}
    kept |= {"offsets": np.concatenate([[0], np.cumsum(counts)]), "weight": weight}
    return _filled(kept, axes, cuts, steps)


def _ones(weight: FloatArray) -> bool:
    """Return whether all weights are one, broadcast from a single number."""
    return weight.strides == (0,) and len(weight) > 0 and bool(weight[0] == 1)


def _leptons_step(name: str, offsets: Any, weight: FloatArray) -> Step:
    """Return the step of all leptons; without a pass over the events where all weights are one."""
    if _ones(weight):
        n = int(offsets[-1]) - int(offsets[0])
        return Step(name, "lepton", n, float(n), float(n))
    return lepton_step(name, np.diff(offsets).astype(np.int64), weight)


def _filled(
    columns: Mapping[str, Any], axes: tuple[Any, ...], cuts: Cuts, steps: list[Step]
) -> tuple[FloatArray, Cutflow]:
    """Fill leptons that passed the mask."""
    done = fill_pairs(columns, axes, _ranges(cuts))
    if done is None:
        raise UserError("select.histograms: a lepton that is not finite passed the selection")
    return _result(*done, cuts, steps)


def _result(
    filled: FloatArray, passed: FloatArray, cuts: Cuts, steps: list[Step]
) -> tuple[FloatArray, Cutflow]:
    for name, sums in zip(("pairs", *(f"pair {key}" for key in cuts.pair)), passed, strict=True):
        by_sign = [float(w) for w in sums[:, 1]]
        total = sums.sum(axis=0)
        steps.append(Step(name, "pair", int(total[0]), float(total[1]), float(total[2]), *by_sign))
    return filled, Cutflow(tuple(steps))


def of_sums(filled: FloatArray, axes: tuple[Any, ...]) -> PairHists:
    """Return histograms of sums of weights and of their squares, shape (3, 2, n_0 + 2, …) with flow bins."""
    hists = []
    for value, variance in filled:
        one: Hist[Any] = Hist(*axes, storage=Weight())
        view: Any = one.view(flow=True)
        view["value"], view["variance"] = value, variance
        hists.append(one)
    return PairHists(*hists)


def sums_of(hists: PairHists) -> FloatArray:
    """Return the sums of `of_sums`."""
    each = (hists.os, hists.pp, hists.mm)
    return np.array([[h.values(flow=True), h.variances(flow=True)] for h in each], dtype=np.float64)
