"""Leptons of events that a selection keeps, all their pairs, and single leptons."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import awkward as ak
import hist
import numba
import numpy as np
import numpy.typing as npt

from gammastar.core.errors import SteeringError
from gammastar.core.pairs import Pairs
from gammastar.core.records import BoolArray, FloatArray, IntArray, divided
from gammastar.physics.polarisation import azimuth, two_track_vertex
from gammastar.select import scale_factors
from gammastar.select.cuts import Cutflow, Cuts, Step, kept, lepton_quantity, pair_quantity, warned


@numba.njit(cache=True)
def combine(offsets: Any, leptons: Any, charge: Any) -> Any:
    """Combine all pairs of leptons within each event.

    Notes
    -----
    m² = (m₁ + m₂)² + 2 (A − B) with A = E₁E₂ and B = p₁·p₂ + m₁m₂. For fast collinear leptons A − B cancels,
    so it is computed as (A² − B²)/(A + B), where A² − B² = |p₁ × p₂|² + |m₁p₂ − m₂p₁|² is a sum of squares.
    The mass is therefore never below threshold, and exact also where E² − p² would lose all digits.
    """
    px, py, pz, mass = leptons
    n = 0
    for event in range(len(offsets) - 1):
        size = offsets[event + 1] - offsets[event]
        n += size * (size - 1) // 2
    values = np.empty((n, 5))
    index = np.empty((n, 3), dtype=np.int64)
    k = 0
    for event in range(len(offsets) - 1):
        for i in range(offsets[event], offsets[event + 1]):
            for j in range(i + 1, offsets[event + 1]):
                a, b = (j, i) if charge[j] > charge[i] else (i, j)
                x1, y1, z1, m1 = px[a], py[a], pz[a], mass[a]
                x2, y2, z2, m2 = px[b], py[b], pz[b], mass[b]
                e1 = math.sqrt(x1 * x1 + y1 * y1 + z1 * z1 + m1 * m1)
                e2 = math.sqrt(x2 * x2 + y2 * y2 + z2 * z2 + m2 * m2)
                dot = x1 * x2 + y1 * y2 + z1 * z2
                cx, cy, cz = y1 * z2 - z1 * y2, z1 * x2 - x1 * z2, x1 * y2 - y1 * x2
                cross = cx * cx + cy * cy + cz * cz
                plus = dot + m1 * m2
                if plus > 0.0:
                    dx, dy, dz = m1 * x2 - m2 * x1, m1 * y2 - m2 * y1, m1 * z2 - m2 * z1
                    above = 2.0 * (cross + dx * dx + dy * dy + dz * dz) / (e1 * e2 + plus)
                else:
                    above = 2.0 * (e1 * e2 - plus)
                threshold = m1 + m2
                m = math.sqrt(threshold * threshold + above)
                values[k, 0] = m
                x, y = x1 + x2, y1 + y2
                values[k, 1] = math.sqrt(x * x + y * y)  # hypot costs as much as all the rest
                values[k, 2] = e1 + e2
                values[k, 3] = math.atan2(math.sqrt(cross), dot)
                values[k, 4] = above / (m + threshold) if m > 0.0 else 0.0
                index[k, 0], index[k, 1], index[k, 2] = event, a, b
                k += 1
    return values, index


@numba.njit(cache=True)
def usable(px: Any, py: Any, pz: Any, mass: Any, charge: Any) -> Any:
    """Return where all quantities are finite and the charge is ±1."""
    result = np.empty(len(px), dtype=np.bool_)
    for i in range(len(px)):
        total = px[i] + py[i] + pz[i] + mass[i]
        result[i] = (abs(charge[i]) == 1) and math.isfinite(total)
    return result


@numba.njit(cache=True)
def count_kept(offsets: Any, mask: Any) -> Any:
    """Return how many entries of a mask are kept in each event."""
    result = np.zeros(len(offsets) - 1, dtype=np.int64)
    for event in range(len(result)):
        for i in range(offsets[event], offsets[event + 1]):
            if mask[i]:
                result[event] += 1
    return result


QUANTITIES = ("mass", "pt", "energy")
BLOCK = 2048  # pairs at a time: they stay in the cache between the passes


def fillable(axes: Sequence[Any], ranges: Iterable[str]) -> bool:
    """Return whether ranges and axes are of mass, pt or energy, and axes plain with under- and overflow."""
    if not set(ranges) <= set(QUANTITIES):
        return False
    kinds = (hist.axis.Regular, hist.axis.Variable)
    for axis in axes:
        traits = axis.traits
        plain = traits.underflow and traits.overflow and not traits.growth and not traits.circular
        if axis.name not in QUANTITIES or not isinstance(axis, kinds) or not plain:
            return False
        if isinstance(axis, hist.axis.Regular) and getattr(axis, "transform", None) is not None:
            return False
    return True


def fill_pairs(
    leptons: Mapping[str, npt.NDArray[Any]], axes: Sequence[Any], ranges: Mapping[str, tuple[float, float]]
) -> tuple[FloatArray, FloatArray] | None:
    """Fill the pairs of each event by charge."""
    sizes = [len(axis) for axis in axes]
    edges = [np.asarray(axis.edges, dtype=np.float64) for axis in axes]
    starts = np.cumsum([0, *(len(e) for e in edges)])[:-1]
    strides = [int(np.prod([n + 2 for n in sizes[k + 1 :]], dtype=np.int64)) for k in range(len(sizes))]
    regular = [isinstance(axis, hist.axis.Regular) for axis in axes]
    quantity = [QUANTITIES.index(axis.name) for axis in axes]
    layout = np.array([quantity, sizes, strides, starts, regular], dtype=np.int64).reshape(5, len(sizes))
    cut = np.array([QUANTITIES.index(name) for name in ranges], dtype=np.int64)
    bounds = np.array(list(ranges.values()), dtype=np.float64).reshape(-1, 2)
    filled = np.zeros((3, 2, int(np.prod([n + 2 for n in sizes], dtype=np.int64))))
    passed = np.zeros((1 + len(cut), 3, 3))
    four = tuple(leptons[key] for key in ("px", "py", "pz"))
    mass, weight = _repeated(leptons["mass"]), _repeated(leptons["weight"])
    given = leptons["charge"]
    charge = (given == 1).astype(np.int8) - (given == -1)  # one type: another one is seconds of compilation
    columns, offsets = (*four, mass, charge, weight), np.asarray(leptons["offsets"], dtype=np.int64)
    good = _loop(offsets, columns, (layout, np.concatenate(edges), cut, bounds), filled, passed)
    return (filled.reshape(3, 2, *(n + 2 for n in sizes)), passed) if good else None


def _repeated(column: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return one entry of a column that was broadcast from a single number."""
    return np.ascontiguousarray(column[:1] if column.strides == (0,) else column)


@numba.njit(cache=True, error_model="numpy", inline="always")
def _square(one: Any, two: Any) -> Any:  # pragma: no cover - compiled
    """Return m² without cancellation, as `kernel.combine`, and the energy."""
    x1, y1, z1, m1 = one
    x2, y2, z2, m2 = two
    e1 = math.sqrt(x1 * x1 + y1 * y1 + z1 * z1 + m1 * m1)
    e2 = math.sqrt(x2 * x2 + y2 * y2 + z2 * z2 + m2 * m2)
    plus_dot = x1 * x2 + y1 * y2 + z1 * z2 + m1 * m2
    if plus_dot > 0.0:
        cx, cy, cz = y1 * z2 - z1 * y2, z1 * x2 - x1 * z2, x1 * y2 - y1 * x2
        dx, dy, dz = m1 * x2 - m2 * x1, m1 * y2 - m2 * y1, m1 * z2 - m2 * z1
        square = cx * cx + cy * cy + cz * cz + dx * dx + dy * dy + dz * dz
        above = 2.0 * square / (e1 * e2 + plus_dot)
    else:
        above = 2.0 * (e1 * e2 - plus_dot)
    return (m1 + m2) * (m1 + m2) + above, e1 + e2


@numba.njit(cache=True, error_model="numpy")
def _combine_compiled(
    offsets: Any, leptons: Any, event: int, values: Any, sign: Any, weight: Any
) -> Any:  # pragma: no cover - compiled
    """Put pairs of the next events into a block; return where it stopped, and how many there are."""
    px, py, pz, mass, charge, weights = leptons
    per_lepton, per_event = len(mass) > 1, len(weights) > 1
    n = 0
    while event < len(offsets) - 1:
        first, last = offsets[event], offsets[event + 1]
        if n + (last - first) * (last - first - 1) // 2 > len(sign):
            break
        w = np.float64(weights[event if per_event else 0])
        for i in range(first, last):
            m1 = np.float64(mass[i if per_lepton else 0])
            x1, y1, z1 = np.float64(px[i]), np.float64(py[i]), np.float64(pz[i])
            if not math.isfinite(x1 + y1 + z1 + m1) or abs(charge[i]) != 1:
                return -1, 0
            for j in range(i + 1, last):
                m2 = np.float64(mass[j if per_lepton else 0])
                x2, y2, z2 = np.float64(px[j]), np.float64(py[j]), np.float64(pz[j])
                values[0, n], values[2, n] = _square((x1, y1, z1, m1), (x2, y2, z2, m2))
                values[1, n] = (x1 + x2) * (x1 + x2) + (y1 + y2) * (y1 + y2)
                sign[n] = 0 if charge[i] != charge[j] else (1 if charge[i] > 0 else 2)
                weight[n] = w
                n += 1
        event += 1
    return event, n


@numba.njit(cache=True, error_model="numpy")
def _place(values: Any, n: int, axis: Any, edges: Any, cell: Any) -> None:  # pragma: no cover - compiled
    """Add the place on one axis, counted with underflow, to the cells; as boost-histogram places it."""
    bins, stride, first, regular = axis
    low, high = edges[first], edges[first + bins]
    if regular:
        span = high - low
        for i in range(n):
            z = (values[i] - low) / span
            place = bins + 1 if not z < 1.0 else (0 if z < 0.0 else 1 + int(z * bins))
            cell[i] += place * stride
    else:
        own = edges[first : first + bins + 1]
        for i in range(n):
            cell[i] += np.searchsorted(own, values[i], side="right") * stride


@numba.njit(cache=True, error_model="numpy")
def _ranged(
    values: Any, sign: Any, weight: Any, n: int, cuts: Any, passed: Any
) -> int:  # pragma: no cover - compiled
    """Count the pairs through the ranges and move those that pass to the front of the block."""
    cut, bounds = cuts
    kept = 0
    for i in range(n):
        s, w = sign[i], weight[i]
        step = 0
        while True:
            passed[step, s, 0] += 1.0
            passed[step, s, 1] += w
            passed[step, s, 2] += w * w
            if step == len(cut) or not bounds[step, 0] <= values[cut[step], i] < bounds[step, 1]:
                break
            step += 1
        if step == len(cut):
            for k in range(3):
                values[k, kept] = values[k, i]
            sign[kept], weight[kept] = s, w
            kept += 1
    return kept


@numba.njit(cache=True, error_model="numpy")
def _loop(
    offsets: Any, leptons: Any, binning: Any, filled: Any, passed: Any
) -> bool:  # pragma: no cover - compiled
    layout, edges, cut, bounds = binning
    size = BLOCK
    for k in range(len(offsets) - 1):
        size = max(size, (offsets[k + 1] - offsets[k]) * (offsets[k + 1] - offsets[k] - 1) // 2)
    values, weight = np.empty((3, size)), np.empty(size)
    sign, cell = np.empty(size, np.int64), np.empty(size, np.int64)
    event: Any = np.int64(0)  # a plain 0 is a type of its own, for which all is compiled once more
    while event < len(offsets) - 1:
        event, n = _combine_compiled(offsets, leptons, event, values, sign, weight)
        if event < 0:
            return False
        for k in range(2):
            for i in range(n):
                values[k, i] = math.sqrt(values[k, i])
        n = _ranged(values, sign, weight, n, (cut, bounds), passed)
        for i in range(n):
            cell[i] = 0
        for k in range(layout.shape[1]):
            axis = (layout[1, k], layout[2, k], layout[3, k], layout[4, k])
            _place(values[layout[0, k]], n, axis, edges, cell)
        for i in range(n):
            filled[sign[i], 0, cell[i]] += weight[i]
            filled[sign[i], 1, cell[i]] += weight[i] * weight[i]
    return True


KINEMATICS = ("px", "py", "pz", "mass")


@dataclass(frozen=True, slots=True, eq=False)
class Leptons:
    """Selected leptons."""

    counts: IntArray  # shape (n_events,)
    # px, py, pz, mass [GeV], charge, and the columns of the schema, shape (n_leptons,)
    columns: Mapping[str, npt.NDArray[Any]]
    weight: FloatArray  # Of the events, shape (n_events,)

    @property
    def offsets(self) -> IntArray:
        """Where the leptons of each event begin, shape (n_events + 1,)."""
        result = np.zeros(len(self.counts) + 1, dtype=np.int64)
        np.cumsum(self.counts, out=result[1:])
        return result


def as_numpy(array: Any) -> FloatArray:
    """Return a flat awkward array in double precision."""
    return np.asarray(ak.to_numpy(array), dtype=np.float64)


def lepton_step(name: str, counts: IntArray, weight: FloatArray) -> Step:
    """Return the step of so many leptons in each event."""
    n = int(counts.sum())
    if (weight == 1).all():
        return Step(name, "lepton", n, float(n), float(n))
    return Step(name, "lepton", n, float(weight @ counts), float(weight**2 @ counts))


def finite_step(counts: IntArray, weight: FloatArray, columns: Mapping[str, Any], mask: BoolArray) -> Step:
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
    events, lepton = _event_functions(_of_events(events, cuts, steps), cuts, steps)
    weight = as_numpy(events.weight)
    counts = np.asarray(ak.to_numpy(ak.num(lepton)), dtype=np.int64)
    flat = ak.flatten(lepton)
    columns = {name: np.ascontiguousarray(ak.to_numpy(flat[name])) for name in flat.fields}

    def count(name: str, number: IntArray) -> None:
        steps.append(lepton_step(name, number, weight))

    count("leptons", counts)
    starts = Leptons(counts, columns, weight).offsets
    px, py, pz, mass = (columns[key] for key in KINEMATICS)
    mask = usable(px, py, pz, mass, columns["charge"])
    now = counts if mask.all() else count_kept(starts, mask)
    steps.append(finite_step(now, weight, columns, mask))
    for name, wanted in cuts.lepton.items():
        mask &= kept(np.asarray(ak.to_numpy(lepton_quantity(flat, name))), wanted, f"select.lepton.{name}")
        now = count_kept(starts, mask)
        count(f"lepton {name}", now)
    if not mask.all():
        columns = {name: column[mask] for name, column in columns.items()}
    return events, Leptons(now, columns, weight)


def _of_events(events: ak.Array, cuts: Cuts, steps: list[Step]) -> ak.Array:
    """Apply good runs with their prescales, and the conditions of event columns."""
    if cuts.runs is not None:
        if "run" not in events.fields:
            msg = "runs are selected, and the events have none: name the branch of run numbers as schema.run"
            raise SteeringError(msg)
        run = np.asarray(ak.to_numpy(events.run))
        block = np.asarray(ak.to_numpy(events.block)) if "block" in events.fields else None
        events = events[keep := cuts.runs.keep(run, block)]
        if cuts.runs.prescale:
            scaled = as_numpy(events.weight) * cuts.runs.scales(run[keep])
            events = ak.with_field(events, scaled, "weight")
        numbers, counts = np.unique(run[keep], return_counts=True)
        found = {str(number): int(n) for number, n in zip(numbers.tolist(), counts, strict=True)}
        steps.append(replace(Step.of("runs", "event", as_numpy(events.weight)), lost=found))
    for name, wanted in cuts.event.items():
        known = ["run", "block"] if "run" in events.fields else []
        known += events.columns.fields if "columns" in events.fields else []
        if name not in known:
            msg = f"select.event.{name}: unknown column; the events have {', '.join(known) or 'none'}"
            raise SteeringError(f"{msg} (event_columns of the schema; simulation has no runs)")
        column = events[name] if name in events.fields else events["columns", name]
        events = events[kept(np.asarray(ak.to_numpy(column)), wanted, f"select.event.{name}")]
        steps.append(Step.of(f"event {name}", "event", as_numpy(events.weight)))
    return events


def _event_functions(events: ak.Array, cuts: Cuts, steps: list[Step]) -> tuple[ak.Array, ak.Array]:
    """Apply the functions of events; each returns a mask of events or of their leptons."""
    lepton_mask = None
    for function in cuts.event_functions:
        name = getattr(function, "__name__", repr(function))
        try:
            mask = ak.Array(function(events))
        except (AttributeError, ak.errors.FieldNotFoundError) as error:
            has = {"events": events, "leptons": events.lepton}
            has |= {"events.columns": events.columns} if "columns" in events.fields else {}
            there = "; ".join(f"{key} have {', '.join(part.fields)}" for key, part in has.items())
            msg = f"select: {name}(): {str(error).splitlines()[0]}; {there} (simulation has no runs)"
            raise SteeringError(msg) from error
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
) -> tuple[FloatArray, npt.NDArray[np.int8], IntArray, IntArray]:
    """Return the selected leptons of a chunk of events, for a mixing pool.

    Parameters
    ----------
    events : ak.Array
        From ``read.open_events``.
    cuts : Cuts, optional
        The selection of the data; all but its cuts on pairs is used.

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
    for name, wanted in cuts.pair.items():
        keep &= kept(pair_quantity(pairs, name), wanted, f"select.pair.{name}")
    for function in cuts.pair_functions:
        keep &= np.asarray(function(pairs), dtype=bool)
    return pairs.select(keep)


NO_COLUMN = (*KINEMATICS, "charge")


def pairs(events: ak.Array, cuts: Cuts | None = None) -> tuple[Pairs, Cutflow]:
    """Return all pairs of selected leptons of each event, and the cutflow.

    Parameters
    ----------
    events : ak.Array
        A chunk of events with the fields ``lepton`` (px, py, pz, mass [GeV], charge, columns), ``event`` and
        ``weight``.
    cuts : Cuts, optional
        None keeps everything.

    Returns
    -------
    pairs : Pairs
        Columns: ``angle`` [rad]; ``cos_theta``, see `helicity_cosine`; ``phi_star`` [rad] of the first lepton
        about the same axis, from the production plane (`gammastar.physics.polarisation.azimuth`); ``x_1`` and
        ``x_2`` for each lepton column ``x`` (1 is the positive lepton of an opposite-sign pair); the event
        columns; with `Cuts.vertex` also ``vertex_z`` and ``vertex_distance``, see `vertex_columns`.
    cutflow : Cutflow
        Steps in order: events, event functions, leptons, finite, lepton ranges, pairs, ghost veto, pair
        ranges and pair functions.

    Raises
    ------
    SteeringError
        If a cut names an unknown quantity or a function returns no mask.

    Notes
    -----
    Leptons whose quantities are not finite, or whose charge is not ±1, are masked and counted in the step
    ``finite``. Energies are recomputed from momentum and mass in double precision: single-precision
    four-vectors at 100 GeV are wrong by hundreds of MeV in the pair mass.
    """
    cuts = Cuts() if cuts is None else cuts
    steps: list[Step] = []
    events, leptons = selected(events, cuts, steps)
    found, excess = _combine(leptons, events, cuts)
    everything = np.ones(len(found), dtype=bool)
    steps.append(Step.of_pairs("pairs", found, everything))
    keep = _pair_masks(found, excess, cuts, steps)
    return (found if keep.all() else found.select(keep)), Cutflow(tuple(steps))


def collect(chunks: Iterable[ak.Array], cuts: Cuts | None = None) -> tuple[Pairs, Cutflow]:
    """Return the pairs and the cutflow of all chunks, e.g. of ``read.open_events``.

    Parameters
    ----------
    chunks : iterable of awkward.Array
        Leptons of events.

    Raises
    ------
    BranchError
        If more than half of the leptons are not usable (`lost_leptons`).
    """
    parts, cutflow = [], Cutflow()
    for events in chunks:
        part, flow = pairs(events, cuts)
        parts.append(part)
        cutflow += flow
    return Pairs.concatenate(parts), warned(cutflow)


def repeated_events(pairs: Pairs) -> str:
    """Return an alarm if numbers of events come back at another place of the data; "" if none does.

    Pairs of one event follow each other in a file. What comes back is another event of the same number, or
    the same event in a second file.

    Parameters
    ----------
    pairs : Pairs
        In the order in which they were read.

    Examples
    --------
    >>> one = np.ones(3)
    >>> repeated_events(Pairs(one, one, one, np.zeros(3, np.int8), one, np.array([7, 7, 8])))
    ''
    """
    event = pairs.event
    if len(event) < 2:
        return ""
    starts = event[np.r_[True, event[1:] != event[:-1]]]
    counts = np.unique(starts, return_counts=True)[1]
    if len(counts) == len(starts):
        return ""
    columns = (pairs.energy, pairs.pt, pairs.mass, event)
    order = np.lexsort(columns)
    same = int(np.all([np.diff(column[order]) == 0 for column in columns], axis=0).sum())
    text = f"{int((counts > 1).sum())} event numbers come back at another place of the data"
    if same:
        return (
            f"{text}, and {same} of {len(event)} pairs are there twice with the same kinematics: "
            "do two files hold the same events? They count twice"
        )
    return (
        f"{text}: such events are resampled together; if they are different events, name all branches that "
        "identify one (run, luminosity block, event) under `event` of the schema"
    )


def counting(cuts: Cuts, flows: list[Cutflow] | None = None) -> Callable[[ak.Array], Pairs]:
    """Return the selection as a function of events; it appends the cutflow of each chunk to `flows`.

    Parameters
    ----------
    flows : list of Cutflow, optional
        Gets one for each chunk.
    """

    def selection(events: ak.Array) -> Pairs:
        found, flow = pairs(events, cuts)
        if flows is not None:
            flows.append(flow)
        return found

    return selection


def _combine(leptons: Leptons, events: ak.Array, cuts: Cuts) -> tuple[Pairs, FloatArray]:
    """Return all pairs and their mass above threshold."""
    flat = leptons.columns
    four = tuple(flat[key] for key in KINEMATICS)
    charge = flat["charge"].astype(np.int8)
    values, index = combine(leptons.offsets, four, charge)
    row, first, second = index.T
    legs = [np.stack([column[leg] for column in four], axis=1) for leg in (first, second)]
    columns: dict[str, npt.NDArray[Any]] = {
        "angle": values[:, 3],
        "cos_theta": helicity_cosine(legs[0], legs[1], values[:, 0]),
        "phi_star": azimuth(legs[0].T + legs[1].T, legs[0].T),
    }
    for name, column in flat.items():
        if name not in NO_COLUMN:
            columns[f"{name}_1"], columns[f"{name}_2"] = column[first], column[second]
    if cuts.vertex:
        columns |= vertex_columns(columns, legs, cuts.vertex)
    if "columns" in events.fields:
        extra = {name: np.asarray(ak.to_numpy(events.columns[name])) for name in events.columns.fields}
        columns |= {name: column[row] for name, column in extra.items()}
    kinematics = dict(zip(("mass", "pt", "energy"), values.T, strict=False))
    columns |= scale_factors.columns_of(cuts.scale_factors, flat, (first, second), columns | kinematics)
    result = Pairs(
        mass=values[:, 0],
        pt=values[:, 1],
        energy=values[:, 2],
        charge=charge[first] + charge[second],
        weight=leptons.weight[row] * columns.get(scale_factors.NOMINAL, 1.0),
        event=np.asarray(ak.to_numpy(events.event), dtype=np.int64)[row],
        columns=columns,
    )
    return result, values[:, 4]


def vertex_columns(
    columns: Mapping[str, npt.NDArray[Any]], legs: Sequence[FloatArray], names: tuple[str, ...]
) -> dict[str, FloatArray]:
    """Return where the two tracks of pairs come closest, and how well pairs point back to the interaction.

    Whatever flies from the interaction and decays to the pair moves with its total momentum: the mean of the
    two offsets, weighted with the momenta along the beam, is then zero.
    """
    missing = [name for name in names if f"{name}_1" not in columns]
    if missing:
        msg = f"select.vertex: the leptons have no column {missing[0]!r}; see lepton_columns of the schema"
        raise SteeringError(msg)
    points = [
        np.stack([*(columns[f"{name}_{leg}"] for name in names), np.zeros(len(legs[0]))], axis=1)
        for leg in (1, 2)
    ]
    found = two_track_vertex(points[0], legs[0][:, :3], points[1], legs[1][:, :3])
    pz = [leg[:, 2:3] for leg in legs]
    impact = (pz[0] * points[0] + pz[1] * points[1]) / (pz[0] + pz[1])
    impact_size = np.hypot(impact[:, 0], impact[:, 1])
    found_columns = {"vertex_z": found.position[:, 2], "vertex_distance": found.distance}
    return found_columns | {"vertex_impact": impact_size}


def helicity_cosine(first: FloatArray, second: FloatArray, mass: FloatArray) -> FloatArray:
    """Return the cosine of the polar angle of the first lepton in the rest frame of the pair.

    The axis is the direction of flight of the pair in the laboratory.

    Parameters
    ----------
    first, second : NDArray, shape (n, 4) [GeV]
        px, py, pz, mass; the positive lepton first.
    mass : NDArray, shape (n,) [GeV]
        Of the pair.

    Returns
    -------
    NDArray, shape (n,)
        0 for a pair at rest or at threshold, where the angle does not exist.

    Notes
    -----
    The boost from the rest frame gives E₁ − E₂ = (m₁² − m₂²) E/M² + 2 |P| p* cos θ / M, with p* the momentum
    of the leptons in the rest frame, E and P energy and momentum of the pair.
    """
    e1, e2 = (_length(four) for four in (first, second))
    m1, m2 = first[:, 3], second[:, 3]
    square = np.maximum(mass**2, np.finfo(float).tiny)
    momentum = _length(first[:, :3] + second[:, :3])
    kallen = (square - (m1 + m2) ** 2) * (square - (m1 - m2) ** 2)
    scale = momentum * np.sqrt(np.clip(kallen, 0, None)) / square
    above = e1 - e2 - (m1**2 - m2**2) * (e1 + e2) / square
    cosine = divided(above, scale)
    return np.asarray(np.clip(cosine, -1.0, 1.0))


def _length(vectors: FloatArray) -> FloatArray:
    return np.asarray(np.sqrt(np.einsum("ij,ij->i", vectors, vectors)))


def _pair_masks(candidates: Pairs, excess: FloatArray, cuts: Cuts, steps: list[Step]) -> BoolArray:
    keep: BoolArray = np.ones(len(candidates), dtype=bool)
    if cuts.ghost is not None:
        keep = (candidates.columns["angle"] >= cuts.ghost.angle) & (excess >= cuts.ghost.excess)
        steps.append(Step.of_pairs("ghost veto", candidates, keep))
    for name, wanted in cuts.pair.items():
        keep = keep & kept(pair_quantity(candidates, name), wanted, f"select.pair.{name}")
        steps.append(Step.of_pairs(f"pair {name}", candidates, keep))
    for function in cuts.pair_functions:
        name = getattr(function, "__name__", repr(function))
        mask = np.asarray(function(candidates))
        if mask.shape != (len(candidates),) or mask.dtype != np.bool_:
            msg = f"select: {name}() must return one bool per pair, got {mask.dtype} of shape {mask.shape}"
            raise SteeringError(msg)
        keep = keep & mask
        steps.append(Step.of_pairs(name, candidates, keep))
    return keep
