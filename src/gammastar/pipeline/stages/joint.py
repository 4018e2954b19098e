"""[infer] likelihood = "joint": one likelihood of pairs and search for every mass, and the limits from it."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from gammastar import select, unfold
from gammastar.config import Infer
from gammastar.core.constants import LEPTON_MASS
from gammastar.core.errors import EmptyWindowError, SteeringError
from gammastar.core.pairs import Pairs
from gammastar.core.records import FloatArray, Limit, Response, divided
from gammastar.core.sampling import stream
from gammastar.core.signal import SignalPlane
from gammastar.infer.counting_search import MEDIAN, CountingSearch
from gammastar.infer.discovery import Ranking
from gammastar.infer.histfactory.likelihoods import CONVENTION
from gammastar.infer.histfactory.patchsets import Documents, patched_points
from gammastar.infer.histfactory.workspaces import pot_names
from gammastar.infer.joint.discovery import PairsFit, discovery_strengths, joint_impacts, pairs_fit
from gammastar.infer.joint.expectation import GridPoint, joint_patchset
from gammastar.infer.joint.limits import (
    LARGEST,
    JointLevels,
    JointLimits,
    couplings_of,
    events_over,
    joint_limit,
    levels_over,
)
from gammastar.infer.joint.model import (
    WIDEST,
    JointEffect,
    JointModel,
    Setting,
    Window,
    window_axes,
    window_model,
)
from gammastar.physics.qed import dark_photon_rate
from gammastar.pipeline.context import Context, needed, simulation_of
from gammastar.pipeline.stages.accept import cell_signals
from gammastar.pipeline.stages.read import stored_pairs
from gammastar.pipeline.stages.subtract import removed_pairs
from gammastar.pipeline.stages.unfold import varied_responses
from gammastar.store.manifest import digest, write_table
from gammastar.unfold import response_matrix

NOTABLE = 0.2  # of the signal, without which the reach is another one
SHOWN = 16  # parameters of a ranking
NEGLIGIBLE = 0.01
SMALLEST = 1e-3  # of the strength, in its logarithm
RANKED = "the measured pairs, and in the search the events expected at the limit"
DOUBTFUL = 1e-3  # p-value of the pairs, all masses taken together, that cannot be left unsaid
POINTS = 81  # of the rate across a window


@dataclass(frozen=True, eq=False)
class _Measured:
    """What all windows share: pairs, simulation, R with its error, what else is in the pairs."""

    parts: Sequence[Pairs] | Any
    truth: Any
    r_factor: tuple[float, float]
    charges: float
    removed: Sequence[tuple[str, Pairs, FloatArray, float]]


def with_joint_likelihood(
    ctx: Context, state: Any, searches: Mapping[str, CountingSearch]
) -> dict[str, tuple[CountingSearch, Documents]]:
    """Return the searches with limits of a joint likelihood on the signal of its cells, and its documents."""
    section: Infer = needed(ctx.steering.infer, "infer")
    measured = _measured(ctx, state)
    masses = next(iter(searches.values())).plane.mass
    windows: dict[str, list[Window | None]] = {name: [] for name in searches}
    fits: dict[float, PairsFit] = {}
    for i, mass in enumerate(masses):
        ctx.tell("infer", i / len(masses), f"pairs about {mass:.3f} GeV")
        found = _windows(ctx, state, measured, searches, i)
        for name, window in found.items():
            windows[name].append(window)
        described = next((window.model for window in found.values() if window is not None), None)
        if described is not None:
            fits[float(mass)] = pairs_fit(described, rng=stream(ctx.seed, "joint pairs", i))
    _tell_fits(ctx, fits)
    return {name: _limited(ctx, section, name, search, windows[name]) for name, search in searches.items()}


def _tell_fits(ctx: Context, fits: Mapping[float, PairsFit]) -> None:
    """Write how well each window describes its pairs, and warn where it does not."""
    if not fits:
        return
    names = [one.name for one in fields(PairsFit)]
    table = {name: [float(getattr(found, name)) for found in fits.values()] for name in names}
    write_table(ctx.folder / "joint_pairs.csv", {"mass": list(fits)} | table)
    worst = min(fits, key=lambda mass: fits[mass].p_value)
    p = fits[worst].p_value
    smallest = "pairs in the joint likelihood, smallest p-value of a window"
    ctx.cache.numbers[smallest] = f"{p:.2g} at {worst:.4g} GeV, of {len(fits)} masses"
    if p * len(fits) < DOUBTFUL:
        ctx.cache.alarm(
            f"infer.joint: the window about {worst:.4g} GeV does not describe its pairs (p = {p:.2g}, "
            f"{len(fits)} masses; joint_pairs.csv has all): its limit is that of another spectrum; take a "
            "narrower window, more cells, a better response or background, or likelihood = 'two-step'"
        )


def _measured(ctx: Context, state: Any) -> _Measured:
    kept = state.subtraction
    if state.pairs is None or kept is None or state.inputs is None:
        raise SteeringError(
            "infer.likelihood = 'joint' fits the pairs of the run itself, which are not here; "
            "take likelihood = 'two-step'"
        )
    stored, hists = stored_pairs(ctx, state.cutflow), state.hists
    plus, minus = (float(h.sum().value) for h in (hists.pp, hists.mm))
    section = needed(ctx.steering.unfold, "unfold")
    return _Measured(
        (state.pairs,) if stored is None else stored,
        simulation_of(section, state.truth),
        (float(kept["r_factor"][0]), float(kept["r_factor"][1])),
        minus / plus if plus > 0 and minus > 0 else 1.0,
        removed_pairs(ctx, state),
    )


def _windows(
    ctx: Context, state: Any, measured: _Measured, searches: Mapping[str, CountingSearch], i: int
) -> dict[str, Window | None]:
    """Return the likelihood of every detector at one mass; None where the window holds nothing to fit."""
    section, production = needed(ctx.steering.infer, "infer"), state.production
    joint, photon = section.joint, production.parts[0]
    mass = float(next(iter(searches.values())).plane.mass[i])
    low = max(mass - joint.window, photon.mass_range[0])
    high = min(mass + joint.window, photon.mass_range[1])
    lepton = LEPTON_MASS[needed(ctx.steering.spectrum, "spectrum").lepton]
    pairs, error = _pairs_of_window(photon, mass, (low, high), lepton)
    axes = window_axes(low, high, joint.pt, joint.energy, side=2.0 * joint.window)
    hists = select.fill(measured.parts, axes)
    rng = stream(ctx.seed, "joint response", i)
    response = unfold.response(measured.truth.parts, axes, axes, n_replicas=joint.n_replicas, rng=rng)
    varied = _varied(ctx, measured, response)
    planes = {name: search.plane for name, search in searches.items()}
    share, seen = cell_signals(ctx, production, planes, i, axes[1:])
    contents, signal = _contents(response, share, pairs * production.exposure.pot)
    templates, effects = _others(measured, axes)
    effects += (JointEffect("mass_shape", signal=float(np.log1p(min(error, 1.0)))),) if error > 0 else ()
    found: dict[str, Window | None] = {}
    for name, search in searches.items():
        b, sigma, _ = search.background
        own = (JointEffect("background_norm", background=min(sigma, WIDEST)),) if b > 0 and sigma > 0 else ()
        setting = Setting(
            b,
            None if isinstance(search.observed, str) else float(search.observed),
            joint.efficiency_floor,
            *(measured.r_factor[0], measured.charges),
            templates,
            varied,
            (*effects, *own),
        )
        try:
            found[name] = window_model(hists, response, (contents, signal(seen[name])), setting)
        except EmptyWindowError as wrong:
            ctx.cache.notes.append(f"joint likelihood at {mass:.4g} GeV, {search.detector.name}: {wrong}")
            found[name] = None
    return found


def _pairs_of_window(
    photon: Any, mass: float, ends: tuple[float, float], lepton: float
) -> tuple[float, float]:
    """Return pairs per proton on target in a window that is normalised to the rate at a mass, and its error.

    The rate of dark photons at the mass is that of the pairs of the window times the ratio of the density at
    the mass to its integral, by the fitted shape of the mass spectrum: only this ratio is taken from it, and
    its relative error is the second number.
    """
    grid = np.unique(np.r_[np.linspace(*ends, POINTS), mass])
    value, cov = photon.rate(grid)
    factor = np.asarray(dark_photon_rate(np.ones_like(grid), grid, lepton))
    density = value / factor
    weight = np.gradient(grid)
    weight[[0, -1]] *= 0.5  # the trapezoidal rule
    pairs = float(weight @ density)
    at = int(np.searchsorted(grid, mass))
    slope = -weight / pairs
    slope[at] += 1.0 / density[at]
    slope = slope / factor
    return pairs, float(np.sqrt(max(slope @ cov @ slope, 0.0)))


def _contents(response: Response, share: FloatArray, pairs: float) -> tuple[FloatArray, Any]:
    """Return nominal contents of all cells from the `share` (c,) of photons and the `pairs` of the window."""
    n = len(share)
    prior = response.prior.reshape(3, n)
    inside = np.maximum(share, 1e-4) * pairs
    scale = pairs / max(float(prior[1].sum()), 1e-300)
    contents = np.maximum(prior * scale, 1e-6 * max(pairs, 1e-300))
    contents[1] = inside

    def signal(seen: FloatArray) -> FloatArray:
        """Return events per true pair, shape (3 c, k), of the events (c, k) of each cell."""
        every = np.zeros((3, *seen.shape))
        every[1] = seen / inside[:, None]
        return every.reshape(3 * n, -1)

    return contents.ravel(), signal


def _varied(ctx: Context, measured: _Measured, response: Response) -> dict[str, list[Response]]:
    """Return the responses of the sources in the simulation that [systematics] sizes, by their names."""
    found: dict[str, list[Response]] = {}
    for one in varied_responses(ctx, measured.truth, response_matrix.without_replicas(response)):
        found.setdefault(_plain(one.name), []).append(needed(one.response, "unfold"))
    return found


def _others(
    measured: _Measured, axes: tuple[Any, ...]
) -> tuple[dict[str, FloatArray], tuple[JointEffect, ...]]:
    """Return open charm and corrections in the bins of a window, and their errors with that of R."""
    templates: dict[str, FloatArray] = {}
    effects = []
    r, sigma = measured.r_factor
    if sigma > 0:
        effects.append(JointEffect("r_factor", r_factor=float(np.log1p(sigma / r))))
    for name, pairs, weight, relative in measured.removed:
        label = _plain(name)
        weighted = replace(pairs, weight=weight, charge=np.zeros(len(pairs), np.int8), columns={})
        content = np.asarray(select.fill(weighted, axes).os.values(), dtype=np.float64)
        templates[label] = np.clip(content.ravel(), 0.0, None)
        size = float(min(np.log1p(relative), WIDEST))
        if size > 0:
            effects.append(JointEffect(f"{label}_norm", templates={label: size}))
    return templates, tuple(effects)


def _plain(name: str) -> str:
    return re.sub(r"\W+", "_", name)


def _limited(
    ctx: Context, section: Infer, name: str, search: CountingSearch, windows: Sequence[Window | None]
) -> tuple[CountingSearch, Documents]:
    """Return a search on the signal of its cells, with limits over masses and couplings, and its files."""
    joint = needed(section.joint, "infer.joint")
    events = np.array([np.zeros(len(search.plane.coupling)) if w is None else w.events for w in windows])
    reduced = replace(search, plane=_in_cells(search.plane, events))
    options = JointLimits(section.cl, section.method, joint.n_toys)
    places = [couplings_of(row, joint.n_couplings) for row in events]

    @functools.cache
    def models(row: int) -> list[JointModel]:
        window = needed(windows[row], "infer")
        return [window.at(int(k), _effects(reduced, row, int(k))) for k in places[row]]

    @functools.cache
    def limits(row: int) -> dict[int, Limit]:
        mass = search.plane.mass[row]
        ctx.tell("infer", row / len(places), f"{search.detector.name}, joint limits at {mass:.3f} GeV")
        found = _kept_limits(ctx, _stage(name, mass), models(row), options)
        return dict(zip(places[row].tolist(), found, strict=True))

    levels = levels_over(events, places, lambda row, column: limits(row)[column])
    levels = _with_others(ctx, replace(reduced, joint=levels), (name, places, models), options)
    lost = max(1.0 - events.sum() / max(float(search.plane.signal.sum()), 1e-300), 0.0)
    ctx.cache.methods[f"likelihood, {search.detector.name}"] = (
        f"joint of pairs and search: {len(joint.pt) - 1} × {len(joint.energy) - 1} cells of q_T and energy "
        f"in ±{joint.window:g} GeV about each mass, and side bands; free contents, no regularisation"
    )
    outside = f"signal outside the cells of the joint likelihood, {search.detector.name}"
    ctx.cache.numbers[outside] = f"{lost:.2%}"
    if lost > NOTABLE:
        ctx.cache.alarm(
            f"infer.joint: {lost:.0%} of the signal in {search.detector.name} lies outside the cells that "
            "pairs populate, and is left out; wider cells (pt, energy) or a lower efficiency_floor hold more "
            "of it, by the shape of the sampler"
        )
    levels = replace(levels, ranked=functools.partial(_ranked, replace(reduced, joint=levels), windows))
    return replace(reduced, joint=levels), _documents(ctx, section, reduced, windows)


Places: TypeAlias = tuple[str, Sequence[npt.NDArray[np.intp]], Callable[[int], list[JointModel]]]


def _with_others(ctx: Context, search: CountingSearch, where: Places, options: JointLimits) -> JointLevels:
    """Return limits with discoveries and projections; `where`: detector, couplings, their models."""
    (name, places, models), plane, asked = where, search.plane, search.options
    levels: JointLevels = needed(search.joint, "infer")
    if not any(map(len, places)):
        return levels
    how = {"projection": levels.typical.method.removeprefix("joint: ")}

    @functools.cache
    def projected(row: int, factor: float) -> dict[int, Limit]:
        at = [model.exposed(factor) for model in models(row)]
        stage = _stage(f"{name}_{factor:.6g}", plane.mass[row])
        found = _kept_limits(ctx, stage, at, replace(options, bands=False))
        return dict(zip(places[row].tolist(), found, strict=True))

    def median(factor: float, row: int, column: int) -> list[float]:
        found = projected(row, factor)[column]
        how["projection"] = found.method
        return [float(found.expected[MEDIAN])]

    @functools.cache
    def every(row: int) -> dict[str, FloatArray]:
        stage = _stage(f"{name}_discovery", plane.mass[row])
        key = ctx.cache.key(
            None, digest(list(asked.discovery), _content(options), *map(_content, models(row)))
        )

        def compute() -> dict[str, Any]:
            found = [discovery_strengths(m, asked.discovery, options, seed=ctx.seed) for m in models(row)]
            return {
                "strength": np.array([x for x, _ in found]),
                "method": np.array([how for _, how in found]),
            }

        return ctx.cache.arrays(stage, key, compute, of="infer")

    def discovered(row: int, column: int) -> list[float]:
        at = places[row].tolist().index(column)
        how["discovery"] = str(every(row)["method"][at])
        return list(every(row)["strength"][at])

    discovery, projections = {}, {}
    if search.background[0] > 0 and asked.discovery:
        found = events_over(plane.signal, places, discovered)
        discovery = {z: found[..., i] for i, z in enumerate(asked.discovery)}
    for exposure in asked.projections:
        factor = exposure / search.detector.exposure
        if factor == 1.0:  # the limit itself
            projections[exposure] = levels.expected[..., MEDIAN]
            continue
        ctx.tell("infer", None, f"{search.detector.name}, joint limits at {exposure:.3g} POT")
        found = events_over(plane.signal, places, functools.partial(median, factor))
        projections[exposure] = found[..., 0]
    return replace(levels, discovery=discovery, projections=projections, methods=how)


def _ranked(
    search: CountingSearch, windows: Sequence[Window | None], row: int, column: int, exponent: float
) -> Ranking | None:
    """Return parameters by their impact on the coupling at the limit, those below 1 % left out."""
    limit = float(needed(search.joint, "infer").expected[row, column, MEDIAN])
    window = windows[row]
    if window is None or limit >= LARGEST:
        return None
    model = window.at(column, _effects(search, row, column))
    found = joint_impacts(model, limit / float(search.plane.signal[row, column]), most=SHOWN)

    def on_coupling(shift: FloatArray) -> FloatArray:
        ratio = np.maximum(1.0 + shift / found.strength, SMALLEST)
        return np.asarray(np.log10(ratio) / exponent, dtype=np.float64)

    postfit, prefit = on_coupling(found.postfit), on_coupling(found.prefit)
    size = np.abs(postfit).max(axis=1)
    kept = np.flatnonzero(size >= NEGLIGIBLE * size.max())
    free = np.isnan(found.pull)
    return Ranking(
        tuple(
            f"{found.names[k]} ({found.value[k]:.2f} ± {found.error[k]:.2f})" if free[k] else found.names[k]
            for k in kept
        ),
        found.pull[kept],
        found.constraint[kept],
        postfit[kept],
        prefit[kept],
        RANKED,
    )


def _stage(name: str, mass: float) -> str:
    """Return the name under which the limits of a mass are kept."""
    return re.sub(r"[^a-z0-9]+", "_", f"joint_{name}_{mass:.6g}".lower().replace(".", "p"))


def _kept_limits(ctx: Context, stage: str, models: Sequence[JointModel], options: JointLimits) -> list[Limit]:
    """Return the limits of some models; a resumed run takes those of models that are the same."""

    def compute() -> dict[str, Any]:
        found = [joint_limit(model, options, seed=ctx.seed) for model in models]
        return {
            "observed": np.array([x.observed for x in found]),
            "expected": np.array([x.expected for x in found]),
            "error": np.array([x.mc_error for x in found]),
            "method": np.array([x.method for x in found]),
        }

    key = ctx.cache.key(None, digest(_content(options), *map(_content, models)))
    kept = ctx.cache.arrays(stage, key, compute, of="infer")
    columns = zip(*(kept[name] for name in ("observed", "expected", "method", "error")), strict=True)
    return [Limit(float(o), e, options.cl, str(m), float(error)) for o, e, m, error in columns]


def _content(record: Any) -> list[Any]:
    """Return the values of a record, those of its effects included, for a digest."""
    values = (getattr(record, one.name) for one in fields(record))
    return [list(map(_content, v)) if isinstance(v, tuple) else v for v in values]


def _in_cells(plane: SignalPlane, events: FloatArray) -> SignalPlane:
    """Return the plane with the signal from the cells alone; errors keep their relative size."""
    share = divided(events, plane.signal)
    inside = np.minimum(plane.in_domain * share, events)
    own: Any = {"effects": tuple(effect.times(share) for effect in plane.effects), "parts": {}}
    error = plane.mc_error * share
    return replace(plane, signal=events, in_domain=inside, mc_error=error, **own)


def _effects(search: CountingSearch, row: int, column: int) -> tuple[JointEffect, ...]:
    """Return what moves the signal of all cells alike at one mass and coupling.

    The kind "spectrum" is in the pairs themselves, whose likelihood holds it.
    """
    calibration, own = search.pot
    sizes = dict(zip(pot_names(search.detector.name), (calibration, own), strict=True))
    wanted, plane = search.options.nuisances, search.plane
    for effect in plane.effects:
        if effect.kind not in ("pot", "spectrum") and (effect.kind in wanted or effect.name in wanted):
            relative = effect.relative(plane.signal)[row, column]
            sizes[_plain(effect.name)] = float(np.log1p(min(relative, 3.0)))
    signal = plane.signal[row, column]
    if signal > 0:
        sizes["signal_mc"] = float(np.log1p(min(plane.mc_error[row, column] / signal, 3.0)))
    return tuple(JointEffect(n, signal=min(s, WIDEST)) for n, s in sizes.items() if s > 0)


def _documents(
    ctx: Context, section: Infer, search: CountingSearch, windows: Sequence[Window | None]
) -> Documents:
    """Return workspace and patch set of every mass that has grid points with enough events."""
    plane = search.plane
    row, column = patched_points(plane.signal, section.max_patches)
    found: Documents = {}
    for i, label in enumerate(_labels(plane.mass)):
        window = windows[i]
        if window is None or i not in row:
            continue
        shared, points = pot_names(search.detector.name), []
        for k in column[row == i].tolist():
            own = {e.name: float(e.signal) for e in _effects(search, i, k) if e.name not in shared}
            points.append(GridPoint(float(plane.mass[i]), float(plane.coupling[k]), window.signal[:, k], own))
        best = int(plane.signal[i].argmax())
        pots = tuple(e for e in _effects(search, i, best) if e.name in shared)
        model = replace(window.model, effects=(*window.model.effects, *pots))
        model = replace(model, observed=None) if ctx.cache.mock else model
        found[label] = joint_patchset(model, points, hepdata=section.hepdata)
        method = "exact" if section.method == "auto" else section.method
        found[label][1]["metadata"][CONVENTION] = {"method": method}
    return found


def _labels(mass: FloatArray) -> list[str]:
    """Return names of masses [GeV] that HistFactory and folders accept, with as many digits as they need."""
    for digits in range(4, 16):
        names = [f"m{value:.{digits}f}".replace(".", "p") for value in mass.tolist()]
        if len(set(names)) == len(names):
            break
    return names
