"""Section ``[in_situ]``: prompt A′ → l⁺l⁻ as a peak in the measured pairs; reach, workspace, patch set."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls
from scipy.special import ndtri

from gammastar import infer, select, spectrum
from gammastar.background import selected_vertices, tails_found, vertex_tails
from gammastar.config import InSitu as Section
from gammastar.core.constants import LEPTON_MASS
from gammastar.core.constants import mass as particle_mass
from gammastar.core.errors import PhysicsError, SteeringError
from gammastar.core.files import shipped
from gammastar.core.pairs import VertexPairs
from gammastar.core.records import MASS, FloatArray, Reach, Spectrum, divided, variable
from gammastar.core.sources import MEASUREMENT, POT, WIDTHS, Source, Sources
from gammastar.infer.counting import counting_limit, expected_limits_of
from gammastar.infer.counting_search import BANDS, intervals_of
from gammastar.infer.histfactory.patchsets import peak_patchset, peak_workspace
from gammastar.physics.detector import (
    MassResolution,
    VertexTelescope,
    load_telescope,
    measured_resolution,
    measured_vertices,
    simulated_vertices,
)
from gammastar.pipeline.context import Context, RunState, axes_of, needed
from gammastar.pipeline.stages.infer import COLUMNS, write_contours
from gammastar.pipeline.stages.read import match_simulation, stored_pairs
from gammastar.predict.in_situ import (
    Background,
    DisplacedYields,
    InSitu,
    Templates,
    best_cut,
    displaced_shares,
    search_in_situ,
    signal_per_coupling,
)
from gammastar.predict.models import DarkPhoton, r_table
from gammastar.predict.production import sources_of
from gammastar.spectrum.mass_shape import MassShape
from gammastar.store.manifest import digest, file_sha256, write_json
from gammastar.store.pairs import read_pairs
from gammastar.unfold.simulation import in_window, reweighted

LOOSE = 2.0 / 3.0  # of the first cut: from there on both sides of the interaction are compared


@dataclass(frozen=True, slots=True, eq=False)
class DisplacedSearch:
    """A finished search: its expectations, the cut and the limits of each mass, contours by name."""

    found: DisplacedYields
    best: npt.NDArray[np.intp]
    limits: FloatArray
    reaches: dict[str, Reach]


def displaced_search(ctx: Context, section: Section, state: RunState, prompt: InSitu) -> DisplacedSearch:
    """Search; write ``reach_displaced``."""
    options = needed(section.displaced, "in_situ.displaced")
    path = shipped(options.telescope, ctx.base, "cards")
    telescope, sha = load_telescope(path), file_sha256(path)
    ctx.cache.enter({path: sha})
    key = ctx.cache.key(section, ctx.cache.key_of("in_situ"), sha)
    compute = functools.partial(_expected_pairs, ctx, section, state, prompt, telescope)
    yields = ctx.cache.keep("displaced", key, compute, DisplacedYields)
    search = _inferred(section, yields)
    _note_displaced(ctx, section, search, telescope)
    _write_displaced(ctx, section, search)
    return search


def _vertices(
    ctx: Context, section: Section, state: RunState, telescope: VertexTelescope
) -> tuple[VertexPairs, VertexPairs | None]:
    """Return the measured pairs with their vertices, and what is in them beside virtual photons."""
    displaced = needed(section.displaced, "in_situ.displaced")
    exposed = needed(ctx.steering.spectrum, "spectrum")
    options: dict[str, Any] = {"lepton_mass": LEPTON_MASS[exposed.lepton], "unit": displaced.unit}
    options["most"] = displaced.distance, displaced.impact
    subtraction = needed(state.subtraction, "subtract")
    if stored_pairs(ctx, state.cutflow) is None:
        chunks = iter([(needed(state.pairs, "select"), subtraction["weight"])])
    else:
        chunks = ((chunk.pairs, chunk.signed) for chunk in read_pairs(ctx.folder / "pairs"))
    parts, sums = [], np.zeros(2)
    for pairs, weight in chunks:
        parts.append(measured_vertices(pairs, weight, telescope, **options))
        own = pairs.weight[pairs.os]
        sums += own[own == 1].sum(), own.sum()
    if not sums[0] > 0:
        raise SteeringError(
            "in_situ.displaced: every event stands for several (weight, prescale), so that nothing is counted"
        )
    others = simulated_vertices(subtraction["removed_vertices"], telescope, sums[0] / sums[1], **options)
    return VertexPairs.concatenate(parts), others


def _expected_pairs(
    ctx: Context, section: Section, state: RunState, prompt: InSitu, telescope: VertexTelescope
) -> DisplacedYields:
    """Return signal and background over masses, cuts and couplings."""
    options = needed(section.displaced, "in_situ.displaced")
    pairs, others = _vertices(ctx, section, state, telescope)
    taken = [] if others is None else [replace(others, weight=-others.weight)]
    every = VertexPairs.concatenate([pairs, *taken])
    low, high = options.coupling
    cuts, coupling = np.array(options.cuts), np.geomspace(low, high, options.n_couplings)
    fitted = needed(state.subtraction, "subtract").get("charm_fit", np.array([1.0, 0.0]))
    model, lepton = DarkPhoton(r_table()), prompt.templates.resolution
    unlike, good = pairs.select(~pairs.like), pairs.select(pairs.good)
    wide = needed(state.hists, "select").os.project(MASS)
    effective = np.asarray(wide.values()) / np.maximum(np.asarray(wide.variances()), 1e-300)
    rows, lost = [], []
    for i, mass in enumerate(prompt.mass):
        ctx.tell("in_situ", (i + 1) / len(prompt.mass), f"displaced, {mass:.3f} GeV")
        half = options.window * float(lepton.sigma(mass))
        window = (mass - half, mass + half)
        try:
            size = float(fitted[1] / fitted[0])
            charm: Any = {"charm": others, "charm_sigma": size}
            tail = vertex_tails(good, cuts, telescope.fiducial, window=window, **charm)
            shares = displaced_shares(
                every, telescope, cuts, mass=mass, half_window=half, ctau=model.ctau(mass, coupling)
            )
        except PhysicsError as error:
            lost.append(f"{mass:.3f} GeV ({error})")
            continue
        per_coupling = prompt.signal[i] / float(np.interp(mass, wide.axes[0].centers, effective))
        produced = per_coupling * float(lepton.cells(mass, window)[0, 0]) * coupling**2
        rows.append((i, window, tail, *(produced * share for share in shares)))
    if not rows:
        raise SteeringError(f"in_situ.displaced: no mass can be searched: {lost[0]}")
    if lost:
        ctx.cache.notes.append(f"displaced search: {len(lost)} masses are left out: {'; '.join(lost[:3])}")
    searched, windows, tails, behind, before, errors = map(list, zip(*rows, strict=True))
    relative = np.hypot(
        prompt.relative(ctx.steering.systematics.nuisances)[searched], options.efficiency_error
    )
    count = np.full((len(rows), len(cuts)), np.nan)
    if section.observed == "data":
        fiducial = telescope.fiducial
        count[:] = [[selected_vertices(unlike, cut, fiducial, w).sum() for cut in cuts] for w in windows]
    names = tuple(dict.fromkeys(name for tail in tails for name in tail.parts))
    return DisplacedYields(
        mass=prompt.mass[searched],
        coupling=coupling,
        cuts=cuts,
        behind=np.array(behind),
        before=np.array(before),
        error=np.array(errors),
        signal_sigma=relative,
        background=np.array([tail.value for tail in tails]),
        background_sigma=np.array([tail.sigma for tail in tails]),
        names=np.array(names, dtype=str),
        parts=np.array([[tail.parts.get(name, np.zeros(len(cuts))) for name in names] for tail in tails]),
        supported=np.array([tail.supported for tail in tails]),
        count=count,
        sides=np.array(tails_found(pairs, (LOOSE * cuts[0], cuts[0]), telescope.fiducial, charm=others)),
    )


def _inferred(section: Section, yields: DisplacedYields) -> DisplacedSearch:
    """Return the limits of every mass at its best cut, and the contours, of the run and of projections."""
    options = needed(section.displaced, "in_situ.displaced")
    reaches: dict[str, Reach] = {}
    first = None
    for factor in (1.0, *options.projections):
        here = yields.times(factor) if factor != 1.0 else yields
        # Enough to choose a cut: exact without background, normal with much of it
        sigma = np.hypot(np.sqrt(here.background), here.log_sigma * here.background)
        rough = -np.log(1 - section.cl) + ndtri(0.5 * (1 + section.cl)) * sigma
        best, rows = best_cut(here.signal, rough), np.arange(len(here.mass))
        limits = expected_limits_of(
            here.background[rows, best],
            signal_sigma=here.signal_sigma,
            background_sigma=here.log_sigma[rows, best],
            cl=section.cl,
            method="marginalised",
        )
        signal = here.signal[rows, best]
        name = "all" if factor == 1.0 else f"projection, {factor:g} times the pairs"
        reaches[name] = infer.reach(here.mass, here.coupling, signal, limits[:, 2], expected=limits)
        if first is None:
            first = best, limits
            if section.observed == "data":
                seen = _observed(yields, best, section.cl)
                reaches["observed"] = infer.reach(here.mass, here.coupling, signal, seen)
    best, limits = needed(first, "in_situ.displaced")
    return DisplacedSearch(yields, best, limits, reaches)


def _observed(yields: DisplacedYields, best: npt.NDArray[np.intp], cl: float) -> FloatArray:
    """Return the observed limit on the signal of each mass."""
    limits = [
        counting_limit(
            yields.count[i, j],
            float(yields.background[i, j]),
            signal_sigma=float(yields.signal_sigma[i]),
            background_sigma=float(yields.log_sigma[i, j]),
            cl=cl,
            method="marginalised",
        )
        for i, j in enumerate(best)
    ]
    return np.array(limits, dtype=np.float64)


def _note_displaced(
    ctx: Context, section: Section, search: DisplacedSearch, telescope: VertexTelescope
) -> None:
    """Enter how the search was made and how far it is from a reach."""
    options, yields = needed(section.displaced, "in_situ.displaced"), search.found
    first, last = telescope.fiducial
    ctx.cache.methods["displaced search"] = (
        f"pairs with a vertex {1e3 * first:g} to {1e3 * last:g} mm behind the interaction and more standard "
        f"deviations than a cut, the one of {', '.join(f'{c:g}' for c in yields.cuts)} with the best "
        f"expected limit at each mass, in ±{options.window:g} resolutions; signal: measured prompt pairs of "
        f"the mass that fly and decay; background: {', '.join(yields.names.tolist())}; exact counting, "
        f"nuisances averaged; efficiency behind the target to {100 * options.efficiency_error:g} %; "
        f"{telescope.name}"
    )
    ratio, sigma = yields.sides
    ctx.cache.numbers["displaced search, pairs behind over before the target"] = f"{ratio:.3f} ± {sigma:.3f}"
    rows = np.arange(len(yields.mass))
    best = yields.signal[rows, search.best].max(axis=1) / search.limits[:, 2]
    top = int(best.argmax())
    largest = f"{best[top]:.3g} at {yields.mass[top]:.3f} GeV"
    ctx.cache.numbers["displaced search, largest signal over its expected limit"] = largest


def _write_displaced(ctx: Context, section: Section, search: DisplacedSearch) -> None:
    """Write the contours of decays behind the target."""
    yields, rows = search.found, []
    for part, reach in search.reaches.items():
        bands = np.full((len(reach.mass), 5, 2), np.nan) if reach.bands is None else reach.bands
        low, high = reach.edges.T
        columns = {"part": part, "mass": reach.mass, "coupling_low": low, "coupling_high": high}
        columns |= {"closed": reach.closed, "clipped_side": np.array(reach.clipped_side)}
        columns |= {"signal": reach.signal, "limit": reach.limit}
        for j, band in enumerate(BANDS):
            columns |= {f"low_{band}": bands[:, j, 0], f"high_{band}": bands[:, j, 1]}
        rows += _rows(
            columns | {"cl": section.cl, "method": "exact CLs, nuisances averaged"}, len(reach.mass)
        )
    content = {
        "assumption": ctx.cache.methods["displaced search"],
        "mass_intervals": {name: intervals_of(reach) for name, reach in search.reaches.items()},
        "background": [
            {
                "mass": mass,
                "cut": yields.cuts[j],
                "expected": yields.background[i, j],
                "sigma": yields.background_sigma[i, j],
                "tail of measured pairs extrapolated from": yields.supported[i],
                **{name: yields.parts[i, k, j] for k, name in enumerate(yields.names.tolist())},
            }
            for i, (mass, j) in enumerate(zip(yields.mass, search.best, strict=True))
        ],
        "columns": COLUMNS,
    }
    write_contours(ctx, "reach_displaced", " in situ, decays behind the target", rows, content)


def _rows(columns: dict[str, Any], n: int) -> list[dict[str, Any]]:
    """Return the n rows of columns; one value stands for all rows."""
    values = (np.broadcast_to(column, n).tolist() for column in columns.values())
    return [dict(zip(columns, row, strict=True)) for row in zip(*values, strict=True)]


PER_WIDTH = 3.0  # bins of the search per resolution
MARGIN = 2.0  # resolutions that are measured on either side of the default masses
LINES = {"omega": 223, "phi": 333}
# Degrees of the positive polynomials through what was subtracted, of both expectations; the second one has
# more polynomials and a hotter ρ [GeV]
COMBINATORIAL = (8, 4)
OTHERS: dict[str, Any] = {"smooth": 4, "temperature": 0.2}
LEAST = 1.0  # pairs of a line that the fit of the spectrum does not see; the search leaves them free
CHANNEL = "in_situ"


def in_situ_stage(ctx: Context, state: Any) -> None:
    """Search; write ``reach_in_situ``, its workspace and patch set, and ``reach_displaced``."""
    section, exposed = needed(ctx.steering.in_situ, "in_situ"), needed(ctx.steering.spectrum, "spectrum")
    if state.matched is None:
        match_simulation(ctx, state)
    systematics = ctx.steering.systematics
    before = ctx.cache.key_of("subtract", "match", "unfold")
    key = ctx.cache.key(section, before, digest(exposed.lepton, systematics.coherence))
    prompt = state.in_situ = ctx.cache.keep("in_situ", key, lambda: _searched(ctx, section, state), InSitu)
    _note(ctx, section, prompt, state)
    _write(ctx, section, prompt)
    if section.displaced is not None:
        state.displaced = displaced_search(ctx, section, state, prompt)


def _searched(ctx: Context, section: Section, state: Any) -> InSitu:
    """Return the search of a run."""
    lepton = LEPTON_MASS[needed(ctx.steering.spectrum, "spectrum").lepton]
    axes = axes_of(ctx.steering.select)
    resolution = _resolution(section, state, axes)
    edges = np.asarray(axes[0].edges, dtype=np.float64)
    masses = _masses(section, resolution, edges, lepton)
    ctx.tell("in_situ", None, f"a peak at {len(masses)} masses")
    fine = resolution.steps(edges[0], edges[-1], PER_WIDTH)
    pairs, scale = _pairs(ctx, state, fine, axes)
    subtraction = state.subtraction
    shifts = dict(zip(subtraction["shift_names"].tolist(), subtraction["shifts"], strict=True))
    measured = replace(state.subtracted, shifts=shifts)
    shapes = _shapes(ctx, measured, resolution, lepton)
    rest = [_smoothed(state, edges, fine, degree) for degree in COMBINATORIAL]
    background = _background(section, shapes, resolution, fine, scale, rest[0])
    expected = (_expected(s, resolution, fine) for s in shapes)
    described = zip(rest, expected, strict=False)
    truths = [scale * (other + sum(lines.values(), smooth)) for other, (smooth, lines) in described]
    signal, sources = _signal(shapes[0] if shapes else None, measured, masses, resolution, lepton)
    effective = np.interp(masses, 0.5 * (fine[1:] + fine[:-1]), scale)
    return search_in_situ(
        Templates(fine, pairs, background, resolution, section.half_window),
        masses,
        effective * signal,
        sources.scaled(effective),
        truths=truths if section.spurious else (),
        resolution_error=section.resolution_error,
    )


def _background(
    section: Section,
    shapes: list[MassShape],
    resolution: MassResolution,
    fine: FloatArray,
    scale: FloatArray,
    rest: FloatArray,
) -> Background:
    """Return what the windows hold without signal."""
    flat = scale * np.diff(fine)
    if not shapes:
        return Background(section.degree, flat)
    smooth, lines = _expected(shapes[0], resolution, fine)
    columns = np.array(list(lines.values())).reshape(len(lines), len(flat))
    shifts = []
    if section.mass_scale:
        moved = _expected(shapes[0], resolution.scaled(scale=1.0 + section.mass_scale), fine)[1]
        shifts.append(sum(moved.values(), -columns.sum(axis=0)))
    if section.resolution_error:
        moved = _expected(shapes[0], resolution.scaled(1.0 + section.resolution_error), fine)[1]
        shifts.append(sum(moved.values(), -columns.sum(axis=0)))
    return Background(
        section.degree,
        scale * (smooth + rest) if section.background == "template" else flat,
        scale * columns,
        np.array([particle_mass(LINES[name]) for name in lines]),
        np.array([shapes[0].line_error(name) for name in lines]),
        scale * np.array(shifts).reshape(len(shifts), len(flat)),
        tuple(lines),
    )


def _resolution(section: Section, state: Any, axes: tuple[Any, ...]) -> MassResolution:
    """Return the resolution at the kinematics of the data, with the widths of the steering if it has any."""
    simulated = reweighted(in_window(state.matched, axes), state.unfolded)
    try:
        found = measured_resolution(simulated.true[:, 0], simulated.reco[:, 0], simulated.weight)
        found = replace(found, efficiency_error=0.0 * found.mass)  # it cancels in the search
    except PhysicsError as error:
        raise SteeringError(f"in_situ.resolution: {error}") from error
    if section.resolution == "simulation":
        return found
    points = section.resolution if isinstance(section.resolution, tuple) else ((1.0, section.resolution),)
    at, width = np.array(points, dtype=np.float64).T
    given = MassResolution.gaussian(at, width)
    grid = np.unique(np.r_[found.mass, at])
    seen: Any = {"efficiency": found.efficiency_at(grid), "efficiency_error": 0.0 * grid}
    return replace(given, mass=grid, width=given.sigma(grid), shift=0.0 * grid, **seen)


def _masses(section: Section, resolution: MassResolution, edges: FloatArray, lepton: float) -> FloatArray:
    """Return the masses of the search."""
    if section.masses:
        return np.array(section.masses)
    if section.mass_range is not None:
        low, high = section.mass_range
    else:
        grid = np.linspace(max(edges[0], 2.0 * lepton), edges[-1], 4001)[1:-1]
        margin = MARGIN * resolution.sigma(grid)
        good = grid[(grid - margin >= edges[0]) & (grid + margin <= edges[-1])]
        if not len(good):
            raise SteeringError(
                f"in_situ: between {edges[0]:g} and {edges[-1]:g} GeV no mass has {MARGIN:g} resolutions "
                "(select.mass) on either side; give masses, or measure a wider range"
            )
        low, high = float(good[0]), float(good[-1])
    steps = resolution.steps(low, high, 50.0)
    even, wanted = np.linspace(0.0, 1.0, len(steps)), np.linspace(0.0, 1.0, section.n_masses)
    return np.asarray(np.interp(wanted, even, steps))


def _pairs(
    ctx: Context, state: Any, fine: FloatArray, axes: tuple[Any, ...]
) -> tuple[FloatArray, FloatArray]:
    """Return opposite-sign pairs as effective numbers, and these per sum of weights, shape (n,) each."""
    stored = stored_pairs(ctx, state.cutflow)
    parts = (state.pairs,) if stored is None else stored
    outer = [variable(axis.name, [axis.edges[0], axis.edges[-1]]) for axis in axes[1:]]
    hist = select.fill(parts, (variable(MASS, fine.tolist()), *outer)).os
    wide = state.hists.os.project(MASS)
    values, variances = np.asarray(wide.values()), np.asarray(wide.variances())
    per_weight = divided(values, variances, 1.0)
    scale = np.interp(0.5 * (fine[1:] + fine[:-1]), wide.axes[0].centers, per_weight)
    return scale * np.asarray(hist.values()).ravel(), scale


def _smoothed(state: Any, edges: FloatArray, fine: FloatArray, degree: int) -> FloatArray:
    """Return what was subtracted in the bins of the search: positive polynomials through the wider bins."""
    _, density, _ = spectrum.mass_density(state.subtracted)
    removed = np.asarray(state.hists.os.project(MASS).values()) - density * np.diff(edges)
    degree = min(degree, max(len(removed) // 2, 1))

    def basis(bounds: FloatArray) -> FloatArray:
        u = np.clip((0.5 * (bounds[1:] + bounds[:-1]) - edges[0]) / (edges[-1] - edges[0]), 0.0, 1.0)
        k = np.arange(degree + 1)
        powers = u[:, None] ** k * (1.0 - u[:, None]) ** (degree - k)
        return np.asarray(powers * np.diff(bounds)[:, None], dtype=np.float64)

    scale = basis(edges).max(axis=0)
    error = np.sqrt(np.maximum(np.abs(removed), 1.0))
    coefficients, _ = nnls(basis(edges) / scale / error[:, None], removed / error)
    return np.asarray(basis(fine) / scale @ coefficients)


def _shapes(ctx: Context, measured: Spectrum, resolution: MassResolution, lepton: float) -> list[MassShape]:
    """Return two fits of lines and continuum to the subtracted pairs; none if the bins do not allow them."""
    counts = spectrum.mass_counts(measured, resolution)
    options: dict[str, Any] = {"m_lepton": lepton, "counts": counts}
    try:
        first = spectrum.fit_mass_shape(measured, coherence=ctx.steering.systematics.coherence, **options)
        return [first, spectrum.fit_mass_shape(measured, **OTHERS, **options)]
    except PhysicsError as error:
        ctx.cache.alarm(
            f"in_situ: {error}; the signal follows the bins of the subtracted spectrum, the background is a "
            "polynomial, and peaks of resonances are not described"
        )
        return []


def _expected(
    shape: MassShape, resolution: MassResolution, fine: FloatArray
) -> tuple[FloatArray, dict[str, FloatArray]]:
    """Return the expected pairs of continuum and lines in the bins of the search."""

    def folded_part(name: str) -> FloatArray:
        return resolution.folded(lambda m: shape.parts(m)[name], fine)

    folded = {name: folded_part(name) for name in shape.parts(shape.edges)}
    smooth = folded.pop("continuum")
    seen = {name: line for name, line in folded.items() if line.sum() > 0}
    return smooth, {name: max(1.0, LEAST / line.sum()) * line for name, line in seen.items()}


def _signal(
    shape: MassShape | None, measured: Spectrum, at: FloatArray, resolution: MassResolution, lepton: float
) -> tuple[FloatArray, Sources]:
    """Return the expected pairs of dark photons per ε² with the sources of their error."""
    model, seen = DarkPhoton(r_table()), resolution.efficiency_at(at)
    state = "mumu" if lepton == LEPTON_MASS["mu"] else "ee"
    per_density = signal_per_coupling(at, seen, [model.branching(float(m))[state] for m in at], lepton)
    moved: dict[str, FloatArray] = {}
    if shape is None:
        centres, values, cov = spectrum.mass_density(measured)
        hats = np.stack([np.interp(at, centres, row) for row in np.eye(len(centres))]) / seen
        density, cov = np.clip(values, 0.0, None) @ hats, hats.T @ cov @ hats
    else:
        density, cov = shape.density(at)
        shifts = spectrum.relative_shifts(measured)
        moved = {name: per_density * shape.shifted(at, shift) for name, shift in shifts.items()}
    if (density <= 0).any():
        msg = f"in_situ.masses: no virtual photon is left at {at[density <= 0][0]:g} GeV after subtraction"
        raise SteeringError(msg)
    signal, cov = per_density * density, cov * np.outer(per_density, per_density)
    parts = [part for part in sources_of(MEASUREMENT, signal, cov, 0.0, moved).parts if part.name != POT]
    widths = np.array([model.width_error(float(m)) for m in at])
    return signal, Sources((*parts, Source.shifted(WIDTHS, "widths", -widths * signal)))


def _note(ctx: Context, section: Section, prompt: InSitu, state: Any) -> None:
    """Enter how the search was made and what it found."""
    nuisances = ctx.steering.systematics.nuisances
    middle = np.sqrt(prompt.expected(nuisances, section.cl)[:, 2])
    seen = ~prompt.blind(section.max_line_correlation) & np.isfinite(middle)
    numbers, mass_of = ctx.cache.numbers, prompt.mass
    numbers["search in situ, opposite-sign pairs"] = f"{prompt.templates.pairs.sum():.0f}"
    width = prompt.templates.resolution.sigma(mass_of)
    numbers["search in situ, mass resolution"] = f"{1e3 * width.min():.3g} to {1e3 * width.max():.3g} MeV"
    if seen.any():
        best = int(np.argmin(np.where(seen, middle, np.inf)))
        text = f"{middle[best]:.3g} at {mass_of[best]:.3f} GeV"
        numbers[f"search in situ, smallest expected epsilon, {100 * section.cl:.3g} % CL"] = text
        model, opposite = DarkPhoton(r_table()), state.pairs.select(state.pairs.os)
        energy = float(np.average(opposite.energy, weights=opposite.weight))
        limits = zip(mass_of[seen], middle[seen], strict=True)
        paths = [energy / m * float(model.ctau(m, epsilon)) for m, epsilon in limits]
        numbers["search in situ, longest mean flight at the limit"] = f"{max(paths):.2g} m"
    ctx.cache.methods["search in situ"] = _described(section, prompt)


def _described(section: Section, prompt: InSitu) -> str:
    terms = f"a polynomial of degree {section.degree}"
    plain_terms = prompt.templates.background.smooth is None
    smooth = terms if plain_terms else f"continuum and subtracted pairs times {terms}"
    names = " and ".join(prompt.templates.background.names)
    lines = f", {names} with free yields" if names else ""
    width = "of the simulation" if section.resolution == "simulation" else "given"
    return (
        f"peak of the resolution ({width}) in ±{section.half_window:g} resolutions over {smooth}{lines}; "
        "normal approximation of CLs; signal: selected pairs at exact mass times m/(2 kappa) BR (Allison and "
        "Blinov, Eq. 6), so that protons on target, acceptance and efficiency cancel"
    )


def _write(ctx: Context, section: Section, prompt: InSitu) -> None:
    """Write the limits, expected and, with data, observed, and the likelihood of every mass."""
    nuisances, signal = ctx.steering.systematics.nuisances, prompt.signal
    blind, levels = (
        prompt.blind(section.max_line_correlation),
        np.sqrt(prompt.expected(nuisances, section.cl)),
    )
    parts, seen = {"all": levels[:, 2]}, {}
    if section.observed == "data":
        parts["observed"] = np.sqrt(prompt.observed(nuisances, section.cl))
        seen = {"fitted": prompt.fits.fitted, "significance": prompt.significance}
    rows = []
    for part, edge in parts.items():
        low = np.where(blind, np.nan, edge)
        columns = {"part": part, "mass": prompt.mass, "coupling_low": low, "coupling_high": np.nan}
        columns |= {"closed": False, "clipped_side": "upper"}
        bands = np.where(blind[:, None] | (part == "observed"), np.nan, levels)
        columns |= {f"low_{name}": band for name, band in zip(BANDS, bands.T, strict=True)}
        columns |= {
            "limit": low**2 * signal,
            "signal_per_coupling2": signal,
            "signal_error": prompt.relative(nuisances),
            "sigma": prompt.fits.sigma,
            "spurious": prompt.spurious,
            "background": prompt.fits.background,
            "resolution": prompt.templates.resolution.sigma(prompt.mass),
            "blind": blind,
            "cl": section.cl,
            "method": "CLs, normal approximation",
        }
        rows += _rows(columns | seen, len(signal))
    errors = {part.name: np.sqrt(np.clip(np.diag(part.cov), 0.0, None)) for part in prompt.sources.parts}
    content = {
        "assumption": ctx.cache.methods["search in situ"],
        "signal_uncertainties": {name: float(np.median(error / signal)) for name, error in errors.items()},
        "columns": ["part", "mass", "coupling_low", "low_m1", "low_p1", "blind"],
    }
    write_contours(ctx, "reach_in_situ", " in situ, prompt decays", rows, content)
    _write_likelihood(ctx, section, prompt)


def _write_likelihood(ctx: Context, section: Section, prompt: InSitu) -> None:
    """Write the workspace of the mass of the smallest expected ε and the patches of all others."""
    nuisances = ctx.steering.systematics.nuisances
    middle = prompt.expected(nuisances, section.cl)[:, 2]
    use: list[int] = np.flatnonzero(
        ~prompt.blind(section.max_line_correlation) & np.isfinite(middle)
    ).tolist()
    if not len(use):
        ctx.cache.alarm(
            "in_situ: no mass has a limit: a line stands at each of them (in_situ.max_line_correlation)"
        )
        return
    pairs, spaces = np.rint(prompt.templates.pairs), []
    parts = prompt.sources.of(nuisances).parts
    for i in use:
        window = prompt.window(i)
        sigma = {part.name: float(np.sqrt(max(part.cov[i, i], 0.0))) for part in parts}
        errors = {re.sub(r"\W+", "_", name): size / prompt.signal[i] for name, size in sigma.items()}
        spaces.append(
            peak_workspace(
                CHANNEL,
                middle[i] * prompt.signal[i] * window.peak,
                window,
                errors=errors,
                spurious=float(prompt.spurious[i]),
                observed=pairs[window.bins] if section.observed == "data" else None,
            )
        )
    best = int(np.argmin(middle[use]))
    hepdata = "ins0000000" if ctx.steering.infer is None else ctx.steering.infer.hepdata
    patches = peak_patchset(spaces, prompt.mass[use], np.sqrt(middle[use]), base=best, hepdata=hepdata)
    write_json(ctx.folder / "workspace_in_situ.json", spaces[best])
    write_json(ctx.folder / "patchset_in_situ.json", patches, indent=None)
