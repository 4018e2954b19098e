"""The joint likelihood as HistFactory has it: for the fits, and as workspace with its patch set for others.

Parameters are μ, the factors of the n cells, the k nuisances (the core), then the like-sign contents f_i and
the factors γ_i of the finite simulation, which occur in bin i alone: fits eliminate them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray
from gammastar.infer.binned import fits
from gammastar.infer.binned.model import SMALLEST, BinnedModel, SampleTerms, expectation_of
from gammastar.infer.histfactory.modifiers import Modifiers, log_normal
from gammastar.infer.histfactory.patchsets import patch_document, signal_steps
from gammastar.infer.histfactory.workspaces import assemble, sample
from gammastar.infer.joint.model import CHARGES, FREE, JointData, JointModel

FEW, FEWEST = 50, 20  # opposite-sign pairs below which fits begin twice where μ is free, or always
BARE = 1e-3  # factor of contents at the start of a fit that leaves the pairs to like signs
LIFTED = 0.1
ROUNDS = 3  # of expectation-maximisation, for the start of a fit
Rows = npt.NDArray[np.intp] | npt.NDArray[np.bool_] | slice


@dataclass(frozen=True, slots=True, eq=False)
class Point:
    """Parameters of n data sets."""

    core: FloatArray  # μ, factors of the cells, nuisances [standard deviations], shape (n, 1 + j + k)
    # Factors of the like-sign content and of the simulation, shape (n, i)
    like: FloatArray
    gamma: FloatArray

    @classmethod
    def of(cls, x: FloatArray, i: int) -> Point:
        """Return the parameters in order, shape (n, p), with i bins."""
        m = x.shape[1] - 2 * i
        return cls(x[:, :m], x[:, m : m + i], x[:, m + i :])

    @property
    def x(self) -> FloatArray:
        """All of them in order, shape (n, p)."""
        return np.concatenate([self.core, self.like, self.gamma], axis=1)

    def part(self, index: Rows) -> Point:
        """Return the parameters of some data sets."""
        return Point(self.core[index], self.like[index], self.gamma[index])


@dataclass(frozen=True, slots=True, eq=False)
class Arrays:
    """A model as the fits read it; yields are at factors of one."""

    binned: BinnedModel
    cells: FloatArray  # shape (i, j)
    like: FloatArray  # Combinatorial +−, ++ and −− pairs, shape (3, i)
    sigma: FloatArray  # Relative standard deviation of γ; zero fixes it, shape (i,)
    n_nuisances: int

    def data(self, data: JointData) -> tuple[FloatArray, FloatArray]:
        """Return counts and auxiliary measurements as the fits have them, shape (n, bins) and (n, p)."""
        n, (i, j) = len(data), self.cells.shape
        if data.auxiliary.shape[1] != self.n_nuisances:
            raise PhysicsError(
                f"JointData: {data.auxiliary.shape[1]} measurements for {self.n_nuisances} nuisances"
            )
        counts = np.concatenate([data.pairs.reshape(n, -1), data.search], axis=1)
        aux = np.concatenate([np.zeros((n, 1 + j)), data.auxiliary, np.zeros((n, i)), data.simulated], axis=1)
        return counts, aux


CHANNELS = ("opposite_sign", "plus_plus", "minus_minus", "search")
LIKE, SIMULATION = "like_sign", "simulation"  # factors of single bins


@dataclass(frozen=True, slots=True, eq=False)
class _Sample:
    """One sample of a channel at factors of one."""

    channel: int
    name: str
    data: FloatArray
    factors: list[str]  # mu, contents of cells, factors of single bins
    logs: Mapping[str, float]  # ln κ by nuisance
    shifts: Mapping[str, FloatArray]  # Of one standard deviation, linear
    errors: FloatArray | None = None  # Of the finite simulation


def _like(model: JointModel) -> FloatArray:
    """Return combinatorial pairs at a scale where their factors are of order one, shape (3, i)."""
    geometric = np.maximum(0.5 * (model.counts[1] + model.counts[2]), 1.0)
    root = np.sqrt(model.charges)
    return np.stack([2.0 * model.r_factor * geometric, geometric / root, geometric * root])


def _samples(model: JointModel) -> Iterator[_Sample]:
    """Yield the samples of all channels."""
    j, effects = len(model.pairs), model.effects

    def logs(sizes: Iterable[float]) -> dict[str, float]:
        return {e.name: float(size) for e, size in zip(effects, sizes, strict=True) if size != 0.0}

    for c in range(j):
        moved = {e.name: e.response[:, c] * model.pairs[c] for e in effects if e.response is not None}
        moved = {name: shift for name, shift in moved.items() if shift.any()}
        errors, cell = np.sqrt(model.variance[:, c]) * model.pairs[c], f"cell_{c}"
        nominal = model.response[:, c] * model.pairs[c]
        yield _Sample(0, f"pairs_{c}", nominal, [cell, SIMULATION], {}, moved, errors)
        sizes = logs(np.broadcast_to(e.signal, (j,))[c] for e in effects)
        for channel, signal in (
            (0, None if model.in_situ is None else model.in_situ[:, c]),
            (3, model.signal[c]),
        ):
            if signal is not None and signal.any():
                yield _Sample(channel, f"signal_{c}", signal * model.pairs[c], ["mu", cell], sizes, {})
    for name, values in model.templates.items():
        sizes = logs(e.templates.get(name, 0.0) for e in effects)
        yield _Sample(0, name, np.asarray(values, dtype=np.float64), [], sizes, {})
    charged = (logs(e.r_factor for e in effects), {CHARGES: -FREE}, {CHARGES: FREE})
    for channel, (values, sizes) in enumerate(zip(_like(model), charged, strict=True)):
        yield _Sample(channel, "combinatorial", values, [LIKE], sizes, {})
    if model.background.size:
        nominal = np.asarray(model.background, dtype=np.float64)
        yield _Sample(3, "background", nominal, [], logs(e.background for e in effects), {})


def arrays_of(model: JointModel) -> Arrays:
    """Return the arrays of a model."""
    (i, j), k, b = model.response.shape, len(model.effects) + 1, len(model.background)
    total = model.response @ model.pairs
    sigma = np.sqrt((model.variance * model.pairs**2).sum(axis=1))
    sigma = np.divide(sigma, total, out=np.zeros(i), where=total > 0)
    names = ["mu", *(f"cell_{c}" for c in range(j)), *(one.name for one in model.effects), CHARGES]
    number = {name: place for place, name in enumerate(names)}
    single = {LIKE: len(names) + np.arange(i), SIMULATION: len(names) + i + np.arange(i)}
    ends = np.cumsum([0, i, i, i, b])
    terms = [
        SampleTerms(
            slice(*ends[one.channel : one.channel + 2].tolist()),
            one.data,
            [(number[name], shift, np.zeros(i)) for name, shift in one.shifts.items()],
            [(number[name], float(np.exp(-s)), float(np.exp(s))) for name, s in one.logs.items()],
            [number[name] for name in one.factors if name in number],
            [single[name] for name in one.factors if name in single],
        )
        for one in _samples(model)
    ]
    names += [f"{kind}_{c}" for kind in single for c in range(i)]
    p, theta, gamma = len(names), slice(1 + j, 1 + j + k), slice(-i, None)
    start, low, fixed = np.ones(p), np.zeros(p), np.zeros(p, dtype=np.bool_)
    centre, width = np.full(p, np.nan), np.full(p, np.nan)
    start[theta], low[theta], centre[theta], width[theta] = 0.0, -np.inf, 0.0, 1.0
    fixed[gamma], width[gamma] = sigma <= 0, np.where(sigma > 0, sigma, np.nan)
    centre[gamma] = np.where(sigma > 0, 1.0, np.nan)
    binned = BinnedModel(
        expectation_of(terms, 3 * i + b, p, 0),
        tuple(names),
        0,
        start,
        low,
        np.full(p, np.inf),
        fixed,
        centre,
        width,
        tau=np.full(p, np.nan),
        counts=np.zeros(3 * i + b),
        masked=model.observed is None,
        one_sided=np.zeros(0, dtype=np.int64),
    )
    return Arrays(binned, model.response * model.pairs, _like(model), sigma, k)


@dataclass(frozen=True, slots=True, eq=False)
class Expected:
    """Expected events of n data sets."""

    pairs: FloatArray  # shape (n, 3, i)
    search: FloatArray  # shape (n, b)


def expected(arrays: Arrays, point: Point) -> Expected:
    """Return the expected events at some parameters."""
    i, total = len(arrays.cells), arrays.binned.expected(point.x)
    return Expected(total[:, : 3 * i].reshape(-1, 3, i), total[:, 3 * i :])


def asimov(arrays: Arrays, point: Point) -> JointData:
    """Return the data expected at some parameters, with the measurements at their values."""
    means, theta = expected(arrays, point), point.core[:, 1 + arrays.cells.shape[1] :]
    return JointData(means.pairs, means.search, theta, np.where(arrays.sigma > 0, point.gamma, 1.0))


def signal_of(arrays: Arrays, point: Point) -> FloatArray:
    """Return the events of the search per signal strength, shape (n, b)."""
    x = point.x
    ends = []
    for strength in (1.0, 0.0):
        x[:, 0] = strength
        ends.append(arrays.binned.expected(x)[:, 3 * len(arrays.cells) :])
    return np.asarray(ends[0] - ends[1])


def curvature(arrays: Arrays, point: Point, data: JointData) -> tuple[FloatArray, FloatArray]:
    """Return gradient and Hessian in all parameters, shape (n, p) and (n, p, p)."""
    return fits.derivatives(arrays.binned, point.x, *arrays.data(data))


@dataclass(frozen=True, slots=True, eq=False)
class Fits:
    """Fitted parameters of n data sets."""

    point: Point
    value: FloatArray  # −ln L over that of perfect counts, shape (n,)
    slope: FloatArray  # Of −ln L with μ, shape (n,)
    done: npt.NDArray[np.bool_]  # shape (n,)


def start_of(arrays: Arrays, data: JointData, strength: float | FloatArray) -> Point:
    """Return where fits begin: like-sign contents from their own bins, then contents from the pairs.

    A few steps of expectation-maximisation (L. B. Lucy, Astron. J. 79 (1974) 745) tell most cells that end at
    zero from the others.
    """
    (i, j), n = arrays.cells.shape, len(data)
    like = np.maximum(data.pairs[:, 1:].sum(axis=1) / arrays.like[1:].sum(axis=0), 0.1)
    mu = np.broadcast_to(np.reshape(strength, (-1, 1)), (n, 1))
    core = np.concatenate([mu, np.zeros((n, j)), data.auxiliary], axis=1)
    point = Point(core, like, np.where(arrays.sigma > 0, data.simulated, 1.0).reshape(n, i))
    pairs, others = data.pairs[:, 0], expected(arrays, point).pairs[:, 0]
    whole = np.clip((pairs - others).sum(axis=1) / arrays.cells.sum(), 0.1, None)
    contents = np.repeat(whole[:, None], j, axis=1)
    for _ in range(ROUNDS):
        ratio = pairs / np.maximum(contents @ arrays.cells.T + others, SMALLEST)
        contents *= ratio @ arrays.cells / arrays.cells.sum(axis=0)
    core[:, 1 : 1 + j] = np.maximum(contents, BARE)
    return point


def fit(
    arrays: Arrays,
    data: JointData,
    strength: float | FloatArray | None = None,
    start: Point | None = None,
    *,
    most: float | FloatArray = np.inf,
    held: Point | None = None,
) -> Fits:
    """Return the fits of all data sets, at fixed signal strengths or with 0 ≤ μ ≤ `most` free (None).

    Notes
    -----
    Cells, like-sign contents, γ and μ are not negative. With few pairs there are several minima, in the
    pairs or without them: fits then begin without contents and at the fit without signal too, and the lowest
    counts. Where μ is free, a fit at one, or at the largest, goes before.
    Parameters that are `held` (one, else zero) stay where they begin, from one start.
    """
    n, j = len(data), arrays.cells.shape[1]
    fixed = None if strength is None else np.broadcast_to(np.asarray(strength, np.float64), (n,))
    ends = np.broadcast_to(np.asarray(most, dtype=np.float64), (n,))
    plain = start_of(arrays, data, 1.0 if fixed is None else fixed)
    if start is None:
        start = plain if fixed is not None else fit(arrays, data, np.minimum(ends, 1.0)).point
    found = _from(arrays, data, start, np.arange(n), (fixed, ends, held))
    if held is not None:
        return found
    pairs = data.pairs[:, 0].sum(axis=1)
    if (rows := np.flatnonzero(pairs < FEWEST)).size:
        bare = start_of(arrays, data.part(rows), 1.0)
        bare.core[:, 1 : 1 + j] = BARE
        for begin in (plain.part(rows), bare) if fixed is None else (bare,):
            found = _lower(found, _from(arrays, data, begin, rows, (fixed, ends, None)), rows)
    rows = np.flatnonzero(pairs < (FEW if fixed is None else FEWEST))
    if rows.size and (fixed is None or fixed.any()):
        without = fit(arrays, data.part(rows), 0.0, start.part(rows))
        found = _lower(found, _from(arrays, data, without.point, rows, (fixed, ends, None)), rows)
    return found


def _from(
    arrays: Arrays,
    data: JointData,
    begin: Point,
    rows: npt.NDArray[np.intp],
    asked: tuple[FloatArray | None, FloatArray, Point | None],
) -> Fits:
    """Return the fits of some data sets that begin somewhere."""
    model, own, (fixed, most, held) = arrays.binned, data.part(rows), asked
    counts, aux = arrays.data(own)
    x, nominal = begin.x, start_of(arrays, own, 1.0).x
    low, high = (np.where(model.fixed, 1.0, bound) + np.zeros_like(x) for bound in (model.low, model.high))
    low[:, 0], high[:, 0] = (0.0, most[rows]) if fixed is None else (fixed[rows], fixed[rows])
    if held is not None:
        low, high = (np.where(held.x > 0, x, bound) for bound in (low, high))
    x = np.clip(x, low, high)
    contents = np.isnan(model.centre)
    contents[0] = False
    lost = ((model.expected(x) <= SMALLEST) & (counts > 0)).any(axis=1) & (held is None)
    x[lost] = np.clip(np.where(contents, np.maximum(x[lost], LIFTED), x[lost]), low[lost], high[lost])
    gone = fits.vanished(model.events, x) & (held is None)  # where measured nuisances take a template away
    x[gone] = np.clip(np.where(contents, x[gone], model.start), low[gone], high[gone])
    found = fits.lowest(
        model, fits.Data(counts, aux, low, high), np.stack([x, np.clip(nominal, low, high)]), further=False
    )
    return Fits(Point.of(found.x, len(arrays.cells)), found.nll, found.slope, np.isfinite(found.nll))


def _lower(found: Fits, other: Fits, rows: npt.NDArray[np.intp]) -> Fits:
    """Return fits with those of some data sets exchanged where the others are better."""
    better = other.value < found.value[rows]
    at, x = rows[better], found.point.x
    x[at] = other.point.x[better]
    columns = [getattr(found, name).copy() for name in ("value", "slope", "done")]
    for column, name in zip(columns, ("value", "slope", "done"), strict=True):
        column[at] = getattr(other, name)[better]
    return Fits(Point.of(x, found.point.like.shape[1]), *columns)


LARGEST = 1e3  # of free factors
DESCRIPTION = "Expected signal of each cell per mass and coupling, on pairs and search; test mu = 1."


def joint_workspace(model: JointModel, *, poi_maximum: float = 100.0) -> dict[str, Any]:
    """Return the workspace of a joint likelihood.

    HistFactory: CERN-OPEN-2012-016; the JSON form is that of pyhf. With interpolation codes 4 and 4p, which
    pyhf and ROOT take by default, its likelihood is that of `fit` to rounding.
    """
    used = CHANNELS if model.background.size else CHANNELS[:3]
    channels: dict[str, list[dict[str, Any]]] = {name: [] for name in used}
    for one in _samples(model):
        listed: Modifiers = [
            {"name": name, "type": "shapefactor" if name == LIKE else "normfactor", "data": None}
            for name in one.factors
            if name not in ("mu", SIMULATION)
        ]
        for name, step in one.shifts.items():
            data = {"hi_data": (one.data + step).tolist(), "lo_data": (one.data - step).tolist()}
            listed.append({"name": name, "type": "histosys", "data": data})
        if one.errors is not None and model.variance.any():
            listed.append({"name": SIMULATION, "type": "staterror", "data": one.errors.tolist()})
        listed += [_log(name, sigma) for name, sigma in one.logs.items()]
        channels[CHANNELS[one.channel]].append(sample(one.name, one.data, listed, signal="mu" in one.factors))
    observed: dict[str, Any] = dict(zip(CHANNELS, model.counts, strict=False))
    if model.background.size:
        observed[CHANNELS[3]] = "masked" if model.observed is None else model.observed
    spec = assemble(channels, observed, poi_maximum=poi_maximum)
    parameters = spec["measurements"][0]["config"]["parameters"]
    cells, n = range(len(model.pairs)), len(model.counts[0])
    parameters += [{"name": f"cell_{c}", "inits": [1.0], "bounds": [[0.0, LARGEST]]} for c in cells]
    parameters.append({"name": LIKE, "inits": [1.0] * n, "bounds": [[0.0, LARGEST]] * n})
    return spec


@dataclass(frozen=True, slots=True, eq=False)
class GridPoint:
    """What one grid point puts into the search."""

    mass: float  # [GeV]
    coupling: float
    signal: FloatArray  # Events per true pair at μ = 1, shape (j,)
    # ln κ of the signal of all cells by the name of its nuisance, beside those of the workspace
    sigmas: Mapping[str, float]


def joint_patchset(
    model: JointModel, points: Sequence[GridPoint], *, coupling_name: str = "eps", hepdata: str = "ins0000000"
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the background-only workspace of a mass window, and the patches that put a signal into it."""
    if len(model.background) != 1:
        raise PhysicsError(
            f"joint_patchset: the search has {len(model.background)} bins; signals are put into one"
        )
    spec = joint_workspace(model)
    channel = CHANNELS.index("search")
    samples = spec["channels"][channel]["samples"]
    cells = np.flatnonzero(model.signal.any(axis=1))
    for one in samples[: len(cells)]:
        one["data"] = [0.0]
    outside = np.delete(np.stack([point.signal for point in points]), cells, axis=1).any(axis=1)
    if outside.any():
        at = points[int(outside.argmax())]
        raise PhysicsError(
            f"joint_patchset: the point at {at.mass:g} GeV and {at.coupling:g} has signal in a cell "
            "where the model has none; give the model the largest signal of all points"
        )
    where = f"/channels/{channel}/samples"
    patches = [
        [
            step
            for place, cell in enumerate(cells)
            for step in signal_steps(
                f"{where}/{place}",
                samples[place]["name"],
                [float(point.signal[cell] * model.pairs[cell])],
                point.sigmas,
            )
        ]
        for point in points
    ]
    mass, coupling = (np.array([getattr(point, name) for point in points]) for name in ("mass", "coupling"))
    return spec, patch_document(spec, mass, coupling, patches, about=(coupling_name, hepdata, DESCRIPTION))


def _log(name: str, sigma: float) -> dict[str, Any]:
    """Return a log-normal factor that may fall with its nuisance."""
    (found,) = log_normal(name, abs(sigma))
    if sigma < 0:
        found["data"] = {"hi": found["data"]["lo"], "lo": found["data"]["hi"]}
    return found
