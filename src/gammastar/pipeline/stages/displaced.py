"""Table ``[in_situ.displaced]``: A′ → l⁺l⁻ behind the target, seen by a vertex telescope; reach and files."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gammastar import infer
from gammastar.background import selected_vertices, tails_found, vertex_tails
from gammastar.config import InSitu as Section
from gammastar.core.constants import LEPTON_MASS
from gammastar.core.errors import PhysicsError, SteeringError
from gammastar.core.files import shipped
from gammastar.core.pairs import VertexPairs
from gammastar.core.records import MASS, FloatArray, Reach
from gammastar.infer.counting import counting_limit, expected_limits_of
from gammastar.infer.counting_search import BANDS, intervals_of, plain
from gammastar.physics.detector import VertexTelescope, load_telescope, measured_vertices, simulated_vertices
from gammastar.pipeline.context import Context, RunState, needed
from gammastar.pipeline.stages.read import stored_pairs
from gammastar.predict.displaced import DisplacedYields, best_cut, displaced_shares
from gammastar.predict.in_situ import InSitu
from gammastar.predict.models import DarkPhoton
from gammastar.predict.names import r_table
from gammastar.store.manifest import file_sha256, write_json
from gammastar.store.pairs import read_pairs
from gammastar.store.records import write_reach

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
    found = ctx.cache.keep(
        "displaced", key, lambda: _expected(ctx, section, state, prompt, telescope), DisplacedYields
    )
    search = _inferred(section, found)
    _note(ctx, section, search, telescope)
    _write(ctx, section, search)
    return search


def _vertices(
    ctx: Context, section: Section, state: RunState, telescope: VertexTelescope
) -> tuple[VertexPairs, VertexPairs | None]:
    """Return the measured pairs with their vertices, and what is in them beside virtual photons."""
    asked, exposed = needed(section.displaced, "in_situ.displaced"), needed(ctx.steering.spectrum, "spectrum")
    options: dict[str, Any] = {
        "lepton_mass": LEPTON_MASS[exposed.lepton],
        "unit": asked.unit,
        "most": (asked.distance, asked.impact),
    }
    kept = needed(state.subtraction, "subtract")
    if stored_pairs(ctx, state.cutflow) is None:
        chunks = iter([(needed(state.pairs, "select"), kept["weight"])])
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
    others = simulated_vertices(kept["removed_vertices"], telescope, sums[0] / sums[1], **options)
    return VertexPairs.concatenate(parts), others


def _expected(
    ctx: Context, section: Section, state: RunState, prompt: InSitu, telescope: VertexTelescope
) -> DisplacedYields:
    """Return signal and background over masses, cuts and couplings."""
    options = needed(section.displaced, "in_situ.displaced")
    pairs, others = _vertices(ctx, section, state, telescope)
    taken = [] if others is None else [replace(others, weight=-others.weight)]
    every = VertexPairs.concatenate([pairs, *taken])
    cuts, coupling = (
        np.array(options.cuts),
        np.geomspace(options.coupling[0], options.coupling[1], options.n_couplings),
    )
    fitted = needed(state.subtraction, "subtract").get("charm_fit", np.array([1.0, 0.0]))
    model, lepton = DarkPhoton(r_table()), prompt.templates.resolution
    own, good = pairs.select(~pairs.like), pairs.select(pairs.good)
    wide = needed(state.hists, "select").os.project(MASS)
    effective = np.asarray(wide.values()) / np.maximum(np.asarray(wide.variances()), 1e-300)
    rows, lost = [], []
    for i, mass in enumerate(prompt.mass):
        ctx.tell("in_situ", (i + 1) / len(prompt.mass), f"displaced, {mass:.3f} GeV")
        half = options.window * float(lepton.sigma(mass))
        window = (mass - half, mass + half)
        try:
            tails = vertex_tails(
                good,
                cuts,
                telescope.fiducial,
                window=window,
                charm=others,
                charm_sigma=float(fitted[1] / fitted[0]),
            )
            behind, before, error = displaced_shares(
                every, telescope, cuts, mass=mass, half_window=half, ctau=model.ctau(mass, coupling)
            )
        except PhysicsError as error:
            lost.append(f"{mass:.3f} GeV ({error})")
            continue
        per_coupling = prompt.signal[i] / float(np.interp(mass, wide.axes[0].centers, effective))
        produced = per_coupling * float(lepton.cells(mass, window)[0, 0]) * coupling**2
        rows.append((i, produced * behind, produced * before, tails, window, produced * error))
    if not rows:
        raise SteeringError(f"in_situ.displaced: no mass can be searched: {lost[0]}")
    if lost:
        ctx.cache.notes.append(f"displaced search: {len(lost)} masses are left out: {'; '.join(lost[:3])}")
    kept = [row[0] for row in rows]
    relative = np.hypot(prompt.relative(ctx.steering.systematics.in_limit)[kept], options.efficiency_error)
    count = np.full((len(rows), len(cuts)), np.nan)
    if section.observed == "data":
        count[:] = [
            [selected_vertices(own, cut, telescope.fiducial, row[4]).sum() for cut in cuts] for row in rows
        ]
    found = [row[3] for row in rows]
    names = tuple(dict.fromkeys(name for tails in found for name in tails.parts))
    return DisplacedYields(
        mass=prompt.mass[kept],
        coupling=coupling,
        cuts=cuts,
        behind=np.array([row[1] for row in rows]),
        before=np.array([row[2] for row in rows]),
        error=np.array([row[5] for row in rows]),
        signal_sigma=relative,
        background=np.array([tails.value for tails in found]),
        background_sigma=np.array([tails.sigma for tails in found]),
        names=np.array(names, dtype=str),
        parts=np.array([[tails.parts.get(name, np.zeros(len(cuts))) for name in names] for tails in found]),
        supported=np.array([tails.supported for tails in found]),
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
        rough = expected_limits_of(
            here.background,
            signal_sigma=here.signal_sigma[:, None],
            background_sigma=here.log_sigma,
            cl=section.cl,
        )[:, :, 2]
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


def _note(ctx: Context, section: Section, search: DisplacedSearch, telescope: VertexTelescope) -> None:
    """Enter how the search was made and how far it is from a reach."""
    options, found = needed(section.displaced, "in_situ.displaced"), search.found
    first, last = telescope.fiducial
    ctx.cache.methods["displaced search"] = (
        f"pairs with a vertex {1e3 * first:g} to {1e3 * last:g} mm behind the interaction and more standard "
        f"deviations than a cut, the one of {', '.join(f'{c:g}' for c in found.cuts)} with the best expected "
        f"limit at each mass, in ±{options.window:g} resolutions; signal: measured prompt pairs of the mass "
        f"that fly and decay; background: {', '.join(found.names.tolist())}; exact counting, nuisances "
        f"averaged; efficiency behind the target to {100 * options.efficiency_error:g} %; {telescope.name}"
    )
    ratio, sigma = found.sides
    ctx.cache.numbers["displaced search, pairs behind over before the target"] = f"{ratio:.3f} ± {sigma:.3f}"
    rows = np.arange(len(found.mass))
    best = found.signal[rows, search.best].max(axis=1) / search.limits[:, 2]
    top = int(best.argmax())
    ctx.cache.numbers["displaced search, largest signal over its expected limit"] = (
        f"{best[top]:.3g} at {found.mass[top]:.3f} GeV"
    )


def _write(ctx: Context, section: Section, search: DisplacedSearch) -> None:
    """Write the contours as CSV and JSON: one row per mass and island."""
    rows = [row for part, reach in search.reaches.items() for row in _rows(section, part, reach)]
    write_reach(ctx.folder / "reach_displaced.csv", {key: [row[key] for row in rows] for key in rows[0]})
    found = search.found
    content = {
        "label": f"{'MOCK ' if ctx.cache.mock else ''}expected reach in situ, decays behind the target",
        "mock": ctx.cache.mock,
        "partial": ctx.cache.partial,
        "assumption": ctx.cache.methods["displaced search"],
        "mass_intervals": {name: intervals_of(reach) for name, reach in search.reaches.items()},
        "background": [
            {
                "mass": mass,
                "cut": found.cuts[j],
                "expected": found.background[i, j],
                "sigma": found.background_sigma[i, j],
                "tail of measured pairs extrapolated from": found.supported[i],
                **{name: found.parts[i, k, j] for k, name in enumerate(found.names.tolist())},
            }
            for i, (mass, j) in enumerate(zip(found.mass, search.best, strict=True))
        ],
        "columns": ["part", "mass", "coupling_low", "coupling_high", "closed", "clipped_side"],
        "rows": plain(rows),
    }
    write_json(ctx.folder / "reach_displaced.json", content)


def _rows(section: Section, part: str, reach: Reach) -> list[dict[str, Any]]:
    n = len(reach.mass)
    bands = np.full((n, 5, 2), np.nan) if reach.bands is None else reach.bands
    limit, rows = np.broadcast_to(reach.limit, (n,)), []
    for i, mass in enumerate(reach.mass):
        entry: dict[str, Any] = {
            "part": part,
            "mass": float(mass),
            "coupling_low": float(reach.edges[i, 0]),
            "coupling_high": float(reach.edges[i, 1]),
            "closed": bool(reach.closed[i]),
            "clipped_side": reach.clipped_side[i],
            "signal": float(reach.signal[i]),
            "limit": float(limit[i]),
        }
        for j, band in enumerate(BANDS):
            entry[f"low_{band}"], entry[f"high_{band}"] = (float(x) for x in bands[i, j])
        rows.append(entry | {"cl": section.cl, "method": "exact CLs, nuisances averaged"})
    return rows
