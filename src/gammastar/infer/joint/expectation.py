"""Expected events of many data sets at once, their likelihood, its gradient and its Hessian in closed form.

The same likelihood is a HistFactory workspace with its patch set, for pyhf, cabinetry and what reads them.

Core parameters are μ, the factors of the n cells and the k nuisances. The like-sign content f_i
and the factor γ_i of the finite simulation occur in bin i alone: their part of the Hessian is one 2 × 2 block
per bin, which is eliminated. With v = 1 − N/ν and d = N/ν² of each bin the gradient is Σ v ∂ν and the Hessian
Σ d ∂ν ∂νᵀ + Σ v ∂²ν.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln, xlogy

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray
from gammastar.infer.binned.model import interpolated, polynomials_of
from gammastar.infer.histfactory.modifiers import Modifiers, log_normal
from gammastar.infer.histfactory.patchsets import patch_document, signal_steps
from gammastar.infer.histfactory.workspaces import assemble, sample
from gammastar.infer.joint.model import CHARGES, FREE, JointData, JointEffect, JointModel

R_FACTOR, PLUS, MINUS, BACKGROUND, TEMPLATES = range(5)  # groups of yields behind those of the cells
HALF_LOG = 0.5 * np.log(2.0 * np.pi)


@dataclass(frozen=True, slots=True, eq=False)
class Point:
    """Parameters of n data sets."""

    core: FloatArray  # μ, factors of the cells, nuisances [standard deviations], shape (n, 1 + j + k)
    # Factors of the like-sign content and of the simulation, shape (n, i)
    like: FloatArray
    gamma: FloatArray

    def part(self, index: npt.NDArray[np.intp] | npt.NDArray[np.bool_] | slice) -> Point:
        """Return the parameters of some data sets."""
        return Point(self.core[index], self.like[index], self.gamma[index])


@dataclass(frozen=True, slots=True, eq=False)
class Arrays:
    """A model as the fits read it; yields are at factors of one."""

    cells: FloatArray  # shape (i, j)
    shifts: FloatArray  # shape (k, i, j)
    moved: npt.NDArray[np.intp]  # Nuisances that move the response
    in_situ: FloatArray  # shape (i, j)
    signal: FloatArray  # shape (j, b)
    templates: FloatArray  # shape (t, i)
    background: FloatArray  # shape (b,)
    like: FloatArray  # Combinatorial +−, ++ and −− pairs, shape (3, i)
    # Polynomials in θ within one standard deviation (code 4 of HistFactory) of the u different log-normal
    # factors, shape (u, 7)
    curves: FloatArray
    # ln κ and nuisance of each, shape (u,)
    log_kappa: FloatArray
    nuisance: npt.NDArray[np.intp]
    # Groups of yields (cells, `R_FACTOR` … `TEMPLATES`), and the factors they have
    place: tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]
    n_groups: int
    n_nuisances: int
    sigma: FloatArray  # Relative standard deviation of γ; zero fixes it, shape (i,)


def arrays_of(model: JointModel) -> Arrays:
    """Return the arrays of a model."""
    (i, j), k, names = model.response.shape, len(model.effects) + 1, list(model.templates)
    log_kappa = np.zeros((j + TEMPLATES + len(names), k))
    shifts = np.zeros((k, i, j))
    for e, effect in enumerate(model.effects):
        log_kappa[:j, e] = effect.signal
        log_kappa[j + R_FACTOR, e] = effect.r_factor
        log_kappa[j + BACKGROUND, e] = effect.background
        for name, value in effect.templates.items():
            log_kappa[j + TEMPLATES + names.index(name), e] = value
        if effect.response is not None:
            shifts[e] = effect.response * model.pairs
    log_kappa[j + PLUS, -1], log_kappa[j + MINUS, -1] = -FREE, FREE
    # a scale at which factors are of order one, whatever the counts are
    geometric = np.maximum(0.5 * (model.counts[1] + model.counts[2]), 1.0)
    root = np.sqrt(model.charges)
    like = np.stack(
        [2.0 * np.broadcast_to(model.r_factor, (i,)) * geometric, geometric / root, geometric * root]
    )
    cells = model.response * model.pairs
    total = cells.sum(axis=1)
    sigma = np.sqrt((model.variance * model.pairs**2).sum(axis=1))
    group, nuisance = np.nonzero(log_kappa)
    different, place = np.unique(
        np.stack([nuisance, log_kappa[group, nuisance]], axis=1), axis=0, return_inverse=True
    )
    return Arrays(
        cells,
        shifts,
        np.flatnonzero(shifts.any(axis=(1, 2))),
        (np.zeros((i, j)) if model.in_situ is None else model.in_situ) * model.pairs,
        model.signal * model.pairs[:, None],
        np.array([model.templates[name] for name in names], dtype=np.float64).reshape(len(names), i),
        np.asarray(model.background, dtype=np.float64),
        like,
        polynomials_of(np.exp(-different[:, 1]), np.exp(different[:, 1])),
        different[:, 1],
        different[:, 0].astype(np.intp),
        (group, place.ravel()),
        len(log_kappa),
        k,
        np.divide(sigma, total, out=np.zeros(i), where=total > 0),
    )


def _factors(
    arrays: Arrays, theta: FloatArray, *, derivatives: bool
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the factor of each group (n, g), its logarithmic slopes, and second ones less their squares."""
    n, (group, which) = len(theta), arrays.place
    x, log_kappa = theta[:, arrays.nuisance], arrays.log_kappa
    value, first, second = (a.T for a in interpolated(x.T, arrays.curves, log_kappa, -log_kappa))
    log = np.where(np.abs(x) < 1.0, np.log(np.maximum(value, 1e-300)), log_kappa * x)
    sums = np.zeros((len(arrays.log_kappa), arrays.n_groups))
    sums[which, group] = 1.0
    factor = np.exp(np.clip(log @ sums, -300.0, 300.0))
    if not derivatives:
        return factor, first, second
    u, w = np.zeros((2, n, arrays.n_groups, arrays.n_nuisances))
    slope = first / value
    bend = second / value - slope**2
    u[:, group, arrays.nuisance[which]], w[:, group, arrays.nuisance[which]] = slope[:, which], bend[:, which]
    return factor, u, w


@dataclass(frozen=True, slots=True, eq=False)
class Expected:
    """Expected events of n data sets, and what they are made of."""

    pairs: FloatArray  # shape (n, 3, i)
    search: FloatArray  # shape (n, b)
    response: FloatArray  # shape (n or 1, i, j)
    seen: FloatArray  # Pairs of virtual photons before γ, shape (n, i)
    signal: FloatArray  # Contents of the cells times the factor of the signal, shape (n, j)
    factor: FloatArray  # shape (n, g)


def expected(arrays: Arrays, point: Point, factor: FloatArray | None = None) -> Expected:
    """Return the expected events at some parameters."""
    j = arrays.cells.shape[1]
    strength, cells, theta = point.core[:, :1], point.core[:, 1 : j + 1], point.core[:, j + 1 :]
    if factor is None:
        factor, _, _ = _factors(arrays, theta, derivatives=False)
    response = arrays.cells[None]
    if arrays.moved.size:
        shifts = arrays.shifts[arrays.moved]
        moved = theta[:, arrays.moved] @ shifts.reshape(len(shifts), -1)
        response = response + moved.reshape(-1, *shifts.shape[1:])
    seen = (response @ cells[:, :, None])[:, :, 0]
    signal = cells * factor[:, :j]
    others = factor[:, j:]
    combinatorial = arrays.like[None] * point.like[:, None, :] * others[:, [R_FACTOR, PLUS, MINUS], None]
    opposite = (
        point.gamma * seen + strength * (signal @ arrays.in_situ.T) + others[:, TEMPLATES:] @ arrays.templates
    )
    combinatorial[:, 0] += opposite
    search = strength * (signal @ arrays.signal) + others[:, BACKGROUND, None] * arrays.background
    return Expected(combinatorial, search, response, seen, signal, factor)


def _poisson(counts: FloatArray, mean: FloatArray) -> FloatArray:
    """Return −ln of the Poisson probability over its largest, which keeps digits; inf where it vanishes."""
    seen = counts > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        value = mean - counts + xlogy(counts, np.where(seen, counts, 1.0) / np.where(seen, mean, 1.0))
    return np.where((mean >= 0) & ~np.isnan(value), value, np.inf)


def _largest(counts: FloatArray) -> FloatArray:
    """Return −ln of the largest Poisson probability of some counts."""
    return np.asarray(counts - xlogy(counts, counts) + gammaln(counts + 1), dtype=np.float64)


def negative_log(arrays: Arrays, point: Point, data: JointData, *, constants: bool = False) -> FloatArray:
    """Return −ln of the likelihood over that of perfect counts, shape (n,); with constants as pyhf has it."""
    return _negative_log(arrays, point, data, expected(arrays, point), constants=constants)


def _negative_log(
    arrays: Arrays, point: Point, data: JointData, means: Expected, *, constants: bool = False
) -> FloatArray:
    free, theta = arrays.sigma > 0, point.core[:, 1 + arrays.cells.shape[1] :]
    pull = (point.gamma[:, free] - data.simulated[:, free]) / arrays.sigma[free]
    value = (
        _poisson(data.pairs, means.pairs).sum(axis=(1, 2))
        + _poisson(data.search, means.search).sum(axis=1)
        + 0.5 * ((theta - data.auxiliary) ** 2).sum(axis=1)
        + 0.5 * (pull**2).sum(axis=1)
    )
    if constants:
        value = value + _largest(data.pairs).sum(axis=(1, 2)) + _largest(data.search).sum(axis=1)
        value = value + HALF_LOG * (theta.shape[1] + free.sum()) + np.log(arrays.sigma[free]).sum()
    return np.asarray(value, dtype=np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class Curvature:
    """Gradient and Hessian of n data sets, m core parameters."""

    value: FloatArray  # shape (n,)
    core: FloatArray  # shape (n, m)
    bins: FloatArray  # Gradient in f_i and γ_i, shape (n, i, 2)
    core_core: FloatArray  # shape (n, m, m)
    bins_core: FloatArray  # shape (n, i, 2, m)
    bins_bins: FloatArray  # shape (n, i, 2, 2)

    def part(self, index: npt.NDArray[np.bool_]) -> Curvature:
        """Return those of some data sets."""
        return Curvature(*(getattr(self, one.name)[index] for one in fields(self)))


def _slopes(arrays: Arrays, point: Point, means: Expected, u: FloatArray) -> tuple[FloatArray, ...]:
    """Return derivatives by the core of the pairs (n, 3, i, m), of the search (n, b, m), and of `seen`."""
    j, (n, i) = arrays.cells.shape[1], means.seen.shape
    m, strength, cells = point.core.shape[1], point.core[:, 0], point.core[:, 1 : j + 1]
    factor = means.factor
    seen = np.zeros((n, i, m))
    seen[:, :, 1 : j + 1] = means.response
    for k in arrays.moved:
        seen[:, :, 1 + j + k] = cells @ arrays.shifts[k].T
    pairs, search = np.zeros((n, 3, i, m)), np.zeros((n, len(arrays.background), m))
    pairs[:, 0] = point.gamma[:, :, None] * seen
    by_theta = (strength[:, None] * means.signal)[:, :, None] * u[:, :j]  # (n, j, k)
    for target, matrix in ((pairs[:, 0], arrays.in_situ), (search, arrays.signal.T)):
        if not matrix.any():
            continue
        target[:, :, 0] += means.signal @ matrix.T
        target[:, :, 1 : j + 1] += (strength[:, None] * factor[:, :j])[:, None, :] * matrix
        target[:, :, 1 + j :] += matrix @ by_theta
    if len(arrays.templates):
        pulled = factor[:, j + TEMPLATES :, None] * u[:, j + TEMPLATES :]
        pairs[:, 0, :, 1 + j :] += arrays.templates.T @ pulled
    search[:, :, 1 + j :] += (factor[:, j + BACKGROUND, None] * u[:, j + BACKGROUND])[
        :, None, :
    ] * arrays.background[None, :, None]
    charged = arrays.like[None] * point.like[:, None, :] * factor[:, j : j + 3, None]
    pairs[:, :, :, 1 + j :] += charged[:, :, :, None] * u[:, j : j + 3, None, :]
    return pairs, search, seen


def curvature(arrays: Arrays, point: Point, data: JointData) -> Curvature:
    """Return value, gradient and Hessian."""
    j, (n, m) = arrays.cells.shape[1], point.core.shape
    factor, u, w = _factors(arrays, point.core[:, 1 + j :], derivatives=True)
    means = expected(arrays, point, factor)
    pairs, search, seen = _slopes(arrays, point, means, u)
    per_like = arrays.like[None] * factor[:, j : j + 3, None]  # (n, 3, i)
    (v_pairs, d_pairs), (v_search, d_search) = (
        _weights(counts, mean) for counts, mean in ((data.pairs, means.pairs), (data.search, means.search))
    )
    theta, free = point.core[:, 1 + j :], arrays.sigma > 0
    inverse = np.divide(1.0, arrays.sigma**2, out=np.zeros_like(arrays.sigma), where=free)
    flat = pairs.reshape(n, -1, m)
    core = (v_pairs.reshape(n, 1, -1) @ flat)[:, 0] + (v_search[:, None, :] @ search)[:, 0]
    core[:, 1 + j :] += theta - data.auxiliary
    bins = np.stack(
        [
            (v_pairs * per_like).sum(axis=1),
            v_pairs[:, 0] * means.seen + (point.gamma - data.simulated) * inverse,
        ],
        axis=-1,
    )
    square = np.swapaxes(flat * d_pairs.reshape(n, -1, 1), 1, 2) @ flat
    square += np.swapaxes(search * d_search[:, :, None], 1, 2) @ search
    diagonal = np.arange(1 + j, m)
    square[:, diagonal, diagonal] += 1.0
    own = d_pairs[:, 0]
    cross = np.stack(
        [((d_pairs * per_like)[..., None] * pairs).sum(axis=1), (own * means.seen)[..., None] * pairs[:, 0]],
        axis=2,
    )
    block = np.empty((*means.seen.shape, 2, 2))
    block[..., 0, 0] = (d_pairs * per_like**2).sum(axis=1)
    block[..., 0, 1] = block[..., 1, 0] = own * per_like[:, 0] * means.seen
    block[..., 1, 1] = own * means.seen**2 + inverse
    square += _second(arrays, point, means, (v_pairs, v_search), (u, w))
    cross[:, :, 0, 1 + j :] += np.swapaxes(v_pairs * per_like, 1, 2) @ u[:, j : j + 3]
    cross[:, :, 1] += v_pairs[:, 0, :, None] * seen
    value = _negative_log(arrays, point, data, means)
    return Curvature(value, core, bins, square, cross, block)


def _weights(counts: FloatArray, mean: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return 1 − N/ν and N/ν² of each bin."""
    safe = np.maximum(mean, 1e-30)
    ratio = np.where(counts > 0, counts / safe, 0.0)
    return 1.0 - ratio, ratio / safe


def _second(
    arrays: Arrays,
    point: Point,
    means: Expected,
    weights: tuple[FloatArray, FloatArray],
    slopes: tuple[FloatArray, FloatArray],
) -> FloatArray:
    """Return Σ v ∂²ν of the core, shape (n, m, m)."""
    (v_pairs, v_search), (u, w) = weights, slopes
    j, (n, m) = arrays.cells.shape[1], point.core.shape
    strength, cells, factor = point.core[:, 0], point.core[:, 1 : j + 1], means.factor
    per_cell = (v_pairs[:, 0] @ arrays.in_situ + v_search @ arrays.signal.T) * factor[:, :j]  # (n, j)
    found = np.zeros((n, m, m))
    found[:, 0, 1 : j + 1] = per_cell
    found[:, 0, 1 + j :] = ((cells * per_cell)[:, None, :] @ u[:, :j])[:, 0]
    found[:, 1 : j + 1, 1 + j :] = (strength[:, None] * per_cell)[:, :, None] * u[:, :j]
    for k in arrays.moved:
        found[:, 1 : j + 1, 1 + j + k] += (v_pairs[:, 0] * point.gamma) @ arrays.shifts[k]
    found += np.swapaxes(found, 1, 2)
    charged = (v_pairs * arrays.like * point.like[:, None, :]).sum(axis=2) * factor[:, j : j + 3]
    background = (v_search @ arrays.background) * factor[:, j + BACKGROUND]
    templates = (v_pairs[:, 0] @ arrays.templates.T) * factor[:, j + TEMPLATES :]
    whole = np.concatenate(
        [strength[:, None] * cells * per_cell, charged, background[:, None], templates], axis=1
    )  # weighted yield of each group
    found[:, 1 + j :, 1 + j :] += np.swapaxes(u * whole[:, :, None], 1, 2) @ u
    diagonal = np.arange(1 + j, m)
    found[:, diagonal, diagonal] += (whole[:, :, None] * w).sum(axis=1)
    return found


CHANNELS = ("opposite_sign", "plus_plus", "minus_minus", "search")
LARGEST = 1e3  # of free factors
DESCRIPTION = "Expected signal of each cell per mass and coupling, on pairs and search; test mu = 1."


def joint_workspace(model: JointModel, *, poi_maximum: float = 100.0) -> dict[str, Any]:
    """Return the workspace of a joint likelihood.

    Notes
    -----
    HistFactory: CERN-OPEN-2012-016; the JSON form is that of pyhf. With interpolation codes 4 and 4p, which
    pyhf and ROOT take by default, its likelihood is that of `fit` to rounding.
    """
    arrays, j = arrays_of(model), len(model.pairs)
    free: Modifiers = [{"name": "like_sign", "type": "shapefactor", "data": None}]
    counted = np.sqrt(model.variance) * model.pairs
    opposite = []
    for cell in range(j):
        nominal = arrays.cells[:, cell]
        listed = [_cell(cell), *_shifts(model, cell, nominal)]
        if arrays.sigma.any():
            listed.append({"name": "simulation", "type": "staterror", "data": counted[:, cell].tolist()})
        opposite.append(sample(f"pairs_{cell}", nominal, listed))
        if arrays.in_situ[:, cell].any():
            modifiers = [_cell(cell), *_logs(model, lambda e, c=cell: _signal(e, j)[c])]
            opposite.append(sample(f"signal_{cell}", arrays.in_situ[:, cell], modifiers, signal=True))
    for name, values in model.templates.items():
        opposite.append(sample(name, values, _logs(model, lambda e, n=name: e.templates.get(n, 0.0))))
    opposite.append(sample("combinatorial", arrays.like[0], free, _logs(model, lambda e: e.r_factor)))
    channels = {CHANNELS[0]: opposite}
    for channel, values, sign in zip(CHANNELS[1:3], arrays.like[1:], (-FREE, FREE), strict=True):
        channels[channel] = [sample("combinatorial", values, free, [_log(CHARGES, sign)])]
    observed: dict[str, Any] = dict(zip(CHANNELS[:3], model.counts, strict=True))
    if model.background.size:
        channels[CHANNELS[3]] = [
            sample(
                f"signal_{cell}",
                arrays.signal[cell],
                [_cell(cell), *_logs(model, lambda e, c=cell: _signal(e, j)[c])],
                signal=True,
            )
            for cell in range(j)
            if arrays.signal[cell].any()
        ]
        channels[CHANNELS[3]].append(
            sample("background", model.background, _logs(model, lambda e: e.background))
        )
        observed[CHANNELS[3]] = "masked" if model.observed is None else model.observed
    spec = assemble(channels, observed, poi_maximum=poi_maximum)
    parameters = spec["measurements"][0]["config"]["parameters"]
    parameters += [
        {"name": name, "inits": [1.0], "bounds": [[0.0, LARGEST]]} for name in (f"cell_{c}" for c in range(j))
    ]
    n = len(model.counts[0])
    parameters.append({"name": "like_sign", "inits": [1.0] * n, "bounds": [[0.0, LARGEST]] * n})
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
    model: JointModel,
    points: Sequence[GridPoint],
    *,
    coupling_name: str = "eps",
    hepdata: str = "ins0000000",
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


def _cell(cell: int) -> dict[str, Any]:
    return {"name": f"cell_{cell}", "type": "normfactor", "data": None}


def _signal(effect: JointEffect, j: int) -> FloatArray:
    return np.broadcast_to(np.asarray(effect.signal, dtype=np.float64), (j,))


def _log(name: str, sigma: float) -> dict[str, Any]:
    """Return a log-normal factor that may fall with its nuisance."""
    (found,) = log_normal(name, abs(sigma))
    if sigma < 0:
        found["data"] = {"hi": found["data"]["lo"], "lo": found["data"]["hi"]}
    return found


def _logs(model: JointModel, of: Any) -> Modifiers:
    """Return the log-normal factors of one sample."""
    return [_log(effect.name, float(of(effect))) for effect in model.effects if of(effect) != 0.0]


def _shifts(model: JointModel, cell: int, nominal: FloatArray) -> Modifiers:
    """Return the shifts of the response of one cell; linear, and so the same up and down."""
    found: Modifiers = []
    for effect in model.effects:
        if effect.response is None or not effect.response[:, cell].any():
            continue
        step = effect.response[:, cell] * model.pairs[cell]
        data = {"hi_data": (nominal + step).tolist(), "lo_data": (nominal - step).tolist()}
        found.append({"name": effect.name, "type": "histosys", "data": data})
    return found
