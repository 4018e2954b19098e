"""Sections of the report on dark particles: production, signal yields, reaches, what others exclude."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from gammastar import predict, report
from gammastar.config import Predict
from gammastar.core.records import FloatArray, Limit, Reach
from gammastar.core.resolve import UserCode
from gammastar.core.signal import Rate, SignalPlane
from gammastar.core.sources import EXTRAPOLATION, FLOW
from gammastar.infer.counting_search import Search
from gammastar.infer.impacts import Ranking
from gammastar.infer.reach_tables import masses_reached
from gammastar.physics.millicharge import MillichargeDetector
from gammastar.physics.vectors import SPLIT_MAX
from gammastar.pipeline.context import Context, Products
from gammastar.pipeline.stages.infer import in_use
from gammastar.pipeline.stages.predict import model_of, theory_options
from gammastar.predict.mixture import shares_of
from gammastar.predict.names import make_model, r_table, theory_channel
from gammastar.predict.production import needs_shares
from gammastar.predict.recast import displaced
from gammastar.report.figures.limits import impact_figure, limit_figure
from gammastar.report.figures.signal import (
    Band,
    Points,
    acceptance_figure,
    band_figure,
    rate_figure,
    reach_lines_figure,
)
from gammastar.report.pages import titled
from gammastar.report.style import power_of_ten

__all__ = [
    "RECAST_NOTE",
    "acceptance_section",
    "conditions",
    "edges_of",
    "error_tables",
    "millicharge_sections",
    "rate_section",
    "reach_sections",
    "recast_limits",
]

PRODUCTION = ("production,", "model", "target")
NAMES = {
    "virtual_photon": "measured dileptons, Eq. 8",
    "bremsstrahlung": "bremsstrahlung",
    "pion_dalitz": r"$\pi^0\to\gamma\gamma^*$",
    "pseudoscalar_dalitz": r"$\eta,\eta'\to\gamma\gamma^*$",
    "vector_dalitz": r"$\omega,\rho,\phi\to P\gamma^*$",
    "vector_mesons": r"$\rho,\omega,\phi\to\gamma^*$",
    "jpsi": r"$J/\psi\to\gamma^*$",
}
COMPARED = ("pseudoscalar_dalitz", "vector_dalitz", "vector_mesons")
NO_LIMITS = {
    "published": "No published limit is drawn: none is at hand.",
    "recast": "No published limit is drawn: those on dark photons, recast by ratios, exclude nothing here.",
    "none": "No published limit is drawn: those on dark photons were not recast to this model.",
}
ACCEPTANCE = ("spin state", "production vertex", "scaling with A")


RECAST_NOTE = (
    "recast by ratios of rate, branching ratio to ee and lifetime at one effective momentum; shares of the "
    "processes from the theory channels at 400 GeV"
)
BEAM = 400.0  # GeV, for the shares of the processes
N_MASSES = 60
CHANNELS = ("pion_dalitz", "pseudoscalar_dalitz", "vector_dalitz", "vector_mesons", "bremsstrahlung")
LENGTHS = {  # from the target to the decay volume and its length [m]
    "FASER": (476.0, 1.5),  # arXiv:2308.05587
    "NA62": (81.6, 77.9),  # arXiv:2312.12055
    "CHARM (recomputed)": (480.0, 35.0),  # Phys. Lett. B 157 (1985) 458
    "NuCal (recomputed)": (64.0, 23.0),  # Z. Phys. C 51 (1991) 341
}


def edges_of(polygon: FloatArray, mass: FloatArray) -> FloatArray:
    """Return the lowest and highest coupling of a closed polygon at masses, shape (n, 2); nan outside it.

    Parameters
    ----------
    polygon : NDArray, shape (k, 2)
        Mass [GeV] and coupling; logarithmic between vertices.
    mass : NDArray, shape (n,) [GeV]
    """
    low, high = np.full(len(mass), np.inf), np.full(len(mass), -np.inf)
    x, y = polygon[:, 0], np.log(polygon[:, 1])
    for (x0, y0), (x1, y1) in pairwise(zip([*x, x[0]], [*y, y[0]], strict=True)):
        if x0 != x1:
            part = (mass - x0) / (x1 - x0)
            at = np.where((part >= 0) & (part <= 1), y0 + part * (y1 - y0), np.nan)
            low, high = np.fmin(low, at), np.fmax(high, at)
    edges = np.exp(np.stack([low, high], axis=1))
    edges[~(low < high - 1e-6)] = np.nan
    return np.asarray(edges, dtype=np.float64)


def recast_limits(section: Predict, where: Path | UserCode) -> list[report.ExistingLimit]:
    """Return the shipped limits on dark photons as limits on the model of a steering file.

    Parameters
    ----------
    section : Predict
        Names the model, the table of mesons and the preset of bremsstrahlung.
    where : Path or UserCode
        Folder of the steering file, or the code that was frozen there.

    Returns
    -------
    list of ExistingLimit
        Of kind "recast", one for each island; none where the vector is not seen.

    Notes
    -----
    `gammastar.predict.recast.displaced` with the lengths of each experiment. Decays to e⁺e⁻ only, which is
    what the experiments mostly saw; FASER's shares of the processes are taken as those of 400 GeV.
    """
    model, photon = make_model(section.model, where), predict.DarkPhoton(r_table())
    options, names = theory_options(section, where), CHANNELS if needs_shares(model) else ()
    channels = [theory_channel(name, options, BEAM) for name in names]
    found = []
    for limit in report.existing_limits(kinds=("observed", "recast")):
        near, length = LENGTHS[limit.name]
        low, high = limit.polygon[:, 0].min(), min(limit.polygon[:, 0].max(), SPLIT_MAX)
        mass = np.geomspace(low * 1.001, high * 0.999, N_MASSES)
        edges = edges_of(limit.polygon, mass)
        inside = np.isfinite(edges).all(axis=1)
        mass, edges = mass[inside], edges[inside]
        if needs_shares(model):
            ratio = model.rate_ratio(mass, shares_of(channels, mass))
        else:
            ratio = model.rate_ratio(mass)
        new = displaced(
            mass, edges, photon, model, state="ee", ratio=ratio, length_ratio=(near + length) / near
        )
        found += [_limit(limit, section.model, polygon) for polygon in _islands(mass, new)]
    return found


def _limit(limit: report.ExistingLimit, plane: str, polygon: FloatArray) -> report.ExistingLimit:
    name = limit.name.removesuffix(" (recomputed)")
    return replace(limit, name=f"{name} (recast)", plane=plane, kind="recast", polygon=polygon)


def _islands(mass: FloatArray, edges: FloatArray) -> list[FloatArray]:
    """Return closed polygons of runs of two masses or more with finite edges."""
    good = np.asarray(np.isfinite(edges).all(axis=1), dtype=np.bool_)
    runs = np.split(np.arange(len(mass)), np.flatnonzero(np.diff(good)) + 1)
    polygons = []
    for run in runs:
        if len(run) > 1 and good[run[0]]:
            lower = np.stack([mass[run], edges[run, 0]], axis=1)
            upper = np.stack([mass[run], edges[run, 1]], axis=1)
            polygons.append(np.concatenate([lower, upper[::-1]]))
    return polygons


def conditions(ctx: Context, keys: tuple[str, ...] = PRODUCTION) -> list[str]:
    """Return the conventions and assumptions whose names begin so, one line each."""
    found = {key: text for key, text in ctx.book.methods.items() if key.startswith(keys)}
    return [f"{key[0].upper()}{key[1:]}: {text}." for key, text in found.items()]


def rate_section(ctx: Context, made: Any) -> report.Section:
    """Return dark particles per proton on target and squared coupling, beside theory with its bands."""
    predicted, section = made.rate, ctx.steering.predict
    if predicted is None or section is None:
        return report.Section("Rate", ["No rate was predicted."])
    mass, rate, errors = predicted.mass, predicted.value, predicted.error()
    low = int(np.argmin(mass))
    model = model_of(ctx)
    what = model.labels.particles
    per = "interacting proton" if section.source == "theory" else "POT"
    part = _measured_rate(predicted)
    told = f"{what} per {per} and squared coupling at {mass[low]:.3f} GeV"
    if part is not None and np.isfinite(part[low]).all():
        value, error = part[low, 1], part[low, 2] - part[low, 1]
        ctx.book.numbers[f"{told}, where dileptons were measured"] = f"{value:.3g} ± {error:.2g}"
    ctx.book.numbers[told] = f"{rate[low]:.3g} ± {errors[low]:.2g}"
    if section.source == "theory":
        text = "Theory channels, exclusive of each other; the errors of multiplicities and of Λ count alone."
        figure = _theory_figure(ctx, predicted)
    else:
        text = (
            "Dileptons per proton on target times m/(2 kappa): no model of hadron production enters. Theory "
            "stands beside it for comparison alone."
        )
        own = {} if part is None else {"measured domain": part}
        own |= _comparisons(ctx, made, mass) if isinstance(model, predict.DarkPhoton) else {}
        named = model.labels
        count = rf"$N_{{{named.particle.replace('_', '')}}}$ / POT / ${named.coupling_symbol}^2$"
        figure = rate_figure(
            mass,
            rate,
            errors,
            mock=ctx.book.mock,
            label="full phase space",
            comparisons=own,
            axes_labels=(named.mass_axis, count),
        )
    return report.Section(
        f"Rate of {what}",
        [text, *conditions(ctx)],
        figures=[titled("rate", f"{what[0].upper()}{what[1:]} per {per} and squared coupling.", figure)],
        tables=[_rate_table(predicted)],
    )


def _measured_rate(predicted: Rate) -> FloatArray | None:
    """Return the rate where dileptons were measured with its lower and upper edge, shape (n, 3)."""
    if predicted.measured_part is None:
        return None
    error = np.sqrt(np.clip(np.diag(predicted.sources.total()), 0, None))
    rate = predicted.value
    edges = np.stack([np.clip(rate - error, 0.0, None), rate, rate + error], axis=1)
    found: FloatArray = edges * predicted.measured_part[:, None]
    return found


def _rate_table(predicted: Rate) -> report.Table:
    rate = predicted.value
    rows = np.unique(np.linspace(0, len(rate) - 1, 8).astype(int))
    rows = rows[rate[rows] > 0]
    columns: dict[str, Any] = {"mass [GeV]": predicted.mass[rows]}
    measured = _measured_rate(predicted)
    if measured is not None:
        columns["rate, measured part"] = measured[rows, 1]
    columns["rate"] = rate[rows]
    for part in predicted.sources.parts:
        columns[part.name] = np.sqrt(np.clip(np.diag(part.cov)[rows], 0.0, None)) / rate[rows]
    if predicted.extrapolation is not None:
        columns["extrapolation"] = predicted.extrapolation[rows]
    columns["total"] = predicted.error()[rows] / rate[rows]
    plain = {name: [float(x) for x in values] for name, values in columns.items()}
    return report.Table(plain, caption="Relative errors of the rate by source")


def _bands(predicted: Rate) -> list[Band]:
    """Return the rate of each channel as a line."""
    rows = predicted.channels.items()
    return [Band(NAMES.get(n, n), predicted.mass, row, row, row, i) for i, (n, row) in enumerate(rows)]


def _errors(predicted: Rate) -> FloatArray:
    """Return the distances of the rate to its lower and upper edge, shape (2, n)."""
    rate = predicted.value
    low, high = (rate if edge is None else edge for edge in (predicted.low, predicted.high))
    return np.stack([rate - low, high - rate])


def _theory_figure(ctx: Context, predicted: Rate) -> Any:
    mass, rate = predicted.mass, predicted.value
    errors, bands = _errors(predicted), _bands(predicted)
    points = Points("sum of the channels", mass, rate, errors, line=True)
    top = float(rate.max())
    bottom = float(rate[rate > 0].min()) if (rate > 0).any() else 1e-6 * top
    return band_figure(
        points,
        bands,
        x_label="mass [GeV]",
        y_label="particles / interacting proton / squared coupling",
        y_range=(max(0.02 * bottom, 1e-7 * top), 30 * top),
        x_range=(float(mass[0]), float(mass[-1])),
        mock=ctx.book.mock,
    )


def _comparisons(ctx: Context, made: Any, mass: FloatArray) -> dict[str, FloatArray]:
    """Return theory beside the data: low, central and high, shape (n, 3)."""
    section, exposure = ctx.steering.predict, made.production.exposure
    if section is None:
        return {}
    options, beam, depth = theory_options(section, ctx.code), exposure.beam_energy, exposure.thickness
    brem = theory_channel("bremsstrahlung", options, beam, thickness=depth)
    if not isinstance(brem, predict.Bremsstrahlung):
        return {}
    known = mass <= brem.kernel.largest_mass(exposure.beam_energy)
    band = np.full((len(mass), 3), np.nan)  # nothing is drawn where the kernel says nothing
    if known.any():
        central, low, high = brem.envelope(mass[known])
        band[known] = np.stack([low, central, high], axis=1)
    parts = (theory_channel(name, options, beam, thickness=depth) for name in COMPARED)
    decays = predict.Mixture(tuple(parts))
    rate, cov = decays.rate(mass)
    sigma = np.sqrt(np.diag(cov))
    return {
        f"bremsstrahlung, {brem.kernel.name}": band,
        "meson decays, illustrative": np.stack([np.clip(rate - sigma, 0, None), rate, rate + sigma], axis=1),
    }


def relative_errors(plane: SignalPlane, at: FloatArray, nuisances: Collection[str]) -> dict[str, list[float]]:
    """Return the relative errors of the yield by source at the masses next to the wanted ones.

    Parameters
    ----------
    plane : SignalPlane
    at : NDArray [GeV]
    nuisances : collection of str
        Kinds or names of sources that the limit takes.

    Returns
    -------
    dict of str to list of float
        ``mass``, one column per source, ``total`` of all of them, ``in the limit`` of the nuisances.
    """
    value, _, sources = plane.budget()
    rows = np.unique(np.abs(plane.mass[:, None] - np.asarray(at)[None, :]).argmin(axis=0))
    rows = rows[value[rows] > 0]

    def sigma(cov: FloatArray) -> list[float]:
        variance = np.diag(cov)[rows] if cov.size else np.zeros(len(rows))
        return list(np.sqrt(np.clip(variance, 0.0, None)) / value[rows])

    table: dict[str, list[float]] = {"mass": [float(plane.mass[i]) for i in rows]}
    table |= {part.name: sigma(part.cov) for part in sources.parts}
    table["total"] = sigma(sources.total())
    table["in the limit"] = sigma(sources.of(nuisances).total())
    return table


def error_tables(ctx: Context, planes: dict[str, SignalPlane]) -> list[report.Table]:
    """Return the relative errors of the yields by source, one table per detector.

    "total" adds all sources in quadrature, "in the limit" those that [infer] nuisances names.
    """
    section, tables = ctx.steering.infer, []
    for name, plane in planes.items():
        at = np.linspace(plane.mass[0], plane.mass[-1], 6)
        columns = relative_errors(in_use(ctx, plane), at, () if section is None else section.nuisances)
        if section is None:
            del columns["in the limit"]
        if columns["mass"]:
            caption = f"Relative errors of the yield at the best coupling, {name}"
            named = {"mass [GeV]" if key == "mass" else key: value for key, value in columns.items()}
            tables.append(report.Table(named, caption=caption))
    return tables


def millicharge_sections(ctx: Context, made: Any) -> list[report.Section]:
    """Return pairs per proton on target and the reach in mass and charge; nothing without the section."""
    if made.pair_rate is None:
        return []
    found = [_pairs_section(ctx, made.pair_rate)]
    if made.charge_searches:
        found.append(_charge_section(ctx, made.charge_searches, made.charge_planes or {}))
    return found


def _pairs_section(ctx: Context, predicted: Rate) -> report.Section:
    mass, rate = predicted.mass, predicted.value
    errors, bands = _errors(predicted), _bands(predicted)
    positive = rate[rate > 0]
    figure = band_figure(
        Points("all channels", mass, rate, errors, line=True),
        bands,
        x_label=r"$m_\chi$ [GeV]",
        y_label=r"$N_{\chi\bar\chi}$ / POT / $Q^2$",
        y_range=(0.02 * float(positive.min()), 300 * float(positive.max())),
        x_range=(0.9 * float(mass[0]), 1.1 * float(mass[-1])),
        mock=ctx.book.mock,
    )
    first = (
        "Pairs are counted, two particles each. Without a theory channel for photons lighter than two "
        "leptons the plateau at small mass is a lower bound."
    )
    text = [first] + [f"{k}: {v}." for k, v in ctx.book.methods.items() if k.startswith("millicharged pairs")]
    caption = "Millicharged pairs per proton on target and squared charge."
    return report.Section(
        "Millicharged pairs", text, [titled("millicharged_pairs", caption, figure)], [_rate_table(predicted)]
    )


def _charge_section(
    ctx: Context, searches: dict[str, Search], planes: dict[str, SignalPlane]
) -> report.Section:
    curves, text, lowest, highest = {}, [], 1.0, 0.0
    for search in searches.values():
        detector, mass = search.detector, search.mass
        if not isinstance(detector, MillichargeDetector):
            continue
        edges = np.full(len(mass), np.nan)
        for m, pair in zip(search.reach.mass, search.reach.edges, strict=True):
            row = int(np.argmin(np.abs(mass - m)))
            edges[row] = np.fmin(edges[row], pair[0])
        curves[detector.name] = (mass, edges)
        if np.isfinite(edges).any():
            lowest, highest = min(lowest, float(np.nanmin(edges))), max(highest, float(np.nanmax(edges)))
        reached = "nothing is reached" if np.isnan(edges).all() else f"Q > {np.nanmin(edges):.2g} at best"
        ctx.book.numbers[f"reach, {detector.name}"] = reached
        note = "; illustrative numbers" if detector.illustrative else ""
        text.append(
            f"{detector.name}: {detector.pot:.3g} protons on target, {search.assumption}; "
            f"signal as Q^{detector.exponent} at small Q; {reached}{note}."
        )
    figure = reach_lines_figure(
        curves,
        x_label=r"$m_\chi$ [GeV]",
        y_label="$Q$, lower edge of the expected reach",
        y_range=(0.3 * lowest, min(1.0, max(30 * highest, 10 * lowest))),
        mock=ctx.book.mock,
    )
    caption = "Expected reach for millicharged particles; energy loss before the detector is neglected."
    return report.Section(
        "Reach for millicharged particles",
        text,
        [titled("reach_millicharge", caption, figure)],
        error_tables(ctx, planes),
    )


def reach_sections(ctx: Context, made: Products) -> list[report.Section]:
    """Return one section per detector."""
    planes = made.planes or {}
    return [_section(ctx, name, search, planes[name]) for name, search in (made.searches or {}).items()]


def _section(ctx: Context, name: str, search: Search, plane: SignalPlane) -> report.Section:
    section = ctx.steering.infer
    own = None if section is None or section.existing_limits is None else ctx.base / section.existing_limits
    named = model_of(ctx).labels
    known = _known(ctx, named, own)
    reached = np.isfinite(search.reach.edges).all(axis=1)
    options: dict[str, Any] = {
        "mock": ctx.book.mock,
        "cl": search.limit.cl,
        "limits": [limit.curve for limit in known],
    }
    options["plane"] = _plane(ctx, named, None if reached.any() or section is None else section.coupling)
    label = f"Expected reach, {search.detector.name}"
    recast = named.limits == "recast" and any(limit.kind == "recast" for limit in known)
    note = f"; {RECAST_NOTE}" if recast else ""
    grey = f"Grey: {report.citations(known)}{note}." if known else NO_LIMITS[named.limits]
    mass, domain, theory = plane.mass, domain_of(plane), _from_theory(ctx)
    contours = _theory_contours(search) if theory else _contours(search, domain)
    figure = report.reach_figure(contours, pot=search.detector.pot, yields=_yields(ctx, plane), **options)
    split = "from theory alone: nothing was measured" if theory else "split into measured and extrapolated"
    caption = f"{label}, {split}, with the signal expected. {grey}"
    figures = [titled(f"reach_{name}", caption, figure)]
    if domain is not None:
        limit = float(search.limit.expected[2])
        figure = report.domain_figure(
            domain,
            mock=ctx.book.mock,
            limit=limit,
            title=search.detector.name,
            axes_labels=(named.mass_axis, named.coupling_axis),
        )
        caption = (
            "Measured part of the accepted signal, hatched below 50 % and crossed below 5 %; error of "
            "the signal from its extrapolated part (below). Line: expected limit."
        )
        figures.append(titled(f"domain_{name}", caption, figure))
    others = _others(search)
    if len(others) > 1 and reached.any():
        figure = report.reach_figure(others, pot=search.detector.pot, **options)
        caption = f"Discoveries and other protons on target, {search.detector.name}. {grey}"
        figures.append(titled(f"projections_{name}", caption, figure))
    if search.levels is not None and len(mass) > 1:
        seen = search.levels[:, 0] if np.isfinite(search.levels[:, 0]).all() else None
        figure = limit_figure(
            mass,
            search.levels[:, 1:],
            mock=ctx.book.mock,
            observed=seen,
            cl=search.limit.cl,
            mass_label=named.mass_axis,
        )
        caption = f"Limit at the coupling of the largest signal against mass, {search.detector.name}."
        figures.append(titled(f"limit_{name}", caption, figure))
    if search.impacts is not None and search.impacts.names:
        figures.append(_impacts(ctx, name, search, search.impacts))
    _numbers(ctx, search)
    text = _text(search, reached, theory=theory)
    return report.Section(label, text, figures, _tables(search, theory=theory))


def _from_theory(ctx: Context) -> bool:
    """Return whether the rate is that of theory channels, so that no signal was measured."""
    return ctx.steering.predict is not None and ctx.steering.predict.source == "theory"


def _known(ctx: Context, named: predict.Labels, own: Path | None) -> list[report.ExistingLimit]:
    """Return published limits for the plane of the model, and those of the user that name this plane."""
    kinds, predicting = ("observed", "recast"), ctx.steering.predict
    found = [] if named.limits != "published" else report.existing_limits(kinds=kinds)
    if named.limits == "recast" and predicting is not None:
        found = recast_limits(predicting, ctx.code)
    if own is None:
        return found
    planes = dict.fromkeys(name for name in (named.plane, predicting and predicting.model) if name)
    shipped = {limit.name for limit in report.existing_limits(kinds=kinds)}
    mine = [limit for plane in planes for limit in report.existing_limits(plane, directory=own, kinds=kinds)]
    return found + [limit for limit in mine if limit.name not in shipped]


def _plane(ctx: Context, named: predict.Labels, couplings: tuple[float, float] | None) -> report.Plane:
    """Return the plane of the model; theory has no threshold."""
    plane = report.Plane(
        coupling_range=couplings, mass_label=named.mass_axis, coupling_label=named.coupling_axis
    )
    predicting = ctx.steering.predict
    return replace(plane, threshold=None) if predicting and predicting.source == "theory" else plane


def domain_of(plane: SignalPlane) -> report.DomainMap | None:
    """Return the measured part of the signal over the plane; None for theory, which measured nothing."""
    beyond = plane.effect(EXTRAPOLATION)
    if len(plane.mass) < 2 or beyond is None:
        return None
    return report.DomainMap(plane.mass, plane.coupling, plane.signal, plane.in_domain, beyond.values)


def _theory_contours(search: Search) -> list[report.Contour]:
    """Return the contours of a run without data: no measured part, and no panel of its share."""
    contours = [report.Contour("theory: all signal", search.reach, "expected", bands=search.reach.bands)]
    if search.observed is not None:
        contours.append(report.Contour("observed", search.observed, "observed"))
    return contours


def _contours(search: Search, domain: report.DomainMap | None) -> list[report.Contour]:
    contours = [
        report.Contour(
            "extrapolated: all signal",
            search.reach,
            "extrapolated",
            bands=search.reach.bands,
            fraction=search.fraction,
            domain=domain,
        ),
        report.Contour("measured domain only", search.measured, "measured"),
    ]
    if search.observed is not None:
        contours.append(report.Contour("observed", search.observed, "observed"))
    return contours


def _yields(ctx: Context, plane: SignalPlane) -> report.Yields:
    """Return the signal over the plane where enough sampled particles stand behind it."""
    few = 0.0 if ctx.steering.infer is None else ctx.steering.infer.min_effective
    signal = np.where(plane.n_effective >= few, plane.signal, np.nan)
    return report.Yields(plane.mass, plane.coupling, signal)


def _others(search: Search) -> list[report.Contour]:
    """Return thin contours: expected limit, discoveries, other protons on target."""
    cl = f"{100 * search.limit.cl:.3g} % CL limit"
    found = [report.Contour(f"{cl}, {power_of_ten(search.detector.pot)} POT", search.reach, "expected")]
    found += [
        report.Contour(rf"{z:g}$\sigma$ discovery", reach, "expected")
        for z, reach in search.discovery.items()
    ]
    found += [
        report.Contour(f"{cl}, {power_of_ten(pot)} POT", reach, "expected")
        for pot, reach in search.projections.items()
    ]
    return found


def _impacts(ctx: Context, name: str, search: Search, ranking: Ranking) -> tuple[str, Any]:
    figure = impact_figure(
        ranking.names,
        ranking.pull,
        ranking.constraint,
        ranking.impact,
        mock=ctx.book.mock,
        title=f"lower edge at {search.impact_mass:.3g} GeV",
        coupling=model_of(ctx).labels.coupling_symbol,
    )
    data = "the observed count" if search.observed is not None else "the median expected count"
    caption = (
        f"Pulls at the limit and impacts on log10 of the coupling, {search.detector.name}, lower edge at "
        f"{search.impact_mass:.3g} GeV, with {data}."
    )
    return titled(f"impacts_{name}", caption, figure)


def _text(search: Search, reached: Any, *, theory: bool) -> list[str]:
    limit: Limit = search.limit
    first = (
        f"{search.detector.pot:.3g} protons on target, {search.assumption}; expected limit "
        f"{limit.expected[2]:.3f} events at {100 * limit.cl:.0f} % CL ({limit.method})."
    )
    text = [first]
    if search.observed is not None:
        text.append(f"Observed limit {limit.observed:.3f} events; significance {search.significance:.2f}.")
    else:
        text.append("The observation is masked, or from mock data: there is no observed result.")
    if search.background == 0:
        text.append("No discovery is claimed: without a number for the background one event would do.")
    if search.spreads:
        parts = [f"{name} {100 * np.expm1(np.median(s)):.2g} %" for name, s in search.spreads.items()]
        text.append(f"Uncertainties of the signal beside protons on target (medians): {', '.join(parts)}.")
    if not reached.any():
        return [
            *text,
            f"Nothing is reached: at most {np.nanmax(search.reach.signal):.2g} events are expected.",
        ]
    measured = (
        f"The measured part of the signal on the edges is between {np.nanmin(search.fraction):.2g} and "
        f"{np.nanmax(search.fraction):.2g}. The low-mass side is clipped at 2 m_mu, where the spectrum begins"
    )
    measured = "The rate is that of theory channels: nothing was measured" if theory else measured
    text.append(
        f"Of {len(np.unique(search.reach.mass))} masses {len(np.unique(search.reach.mass[reached]))} are "
        f"{masses_reached(search.reach.intervals)}. {measured}; the upper edge ends where too few sampled "
        "particles populate it."
    )
    if search.reach.errors is not None and np.isfinite(search.reach.errors).any():
        total = np.sqrt((search.reach.errors**2).sum(axis=2))
        text.append(
            f"Numerical errors of the edges: median {np.nanmedian(total):.2g}, at most "
            f"{np.nanmax(total):.2g} decades (sample, toys, interpolation in quadrature)."
        )
    return text


def _tables(search: Search, *, theory: bool) -> list[report.Table]:
    """Return what each contour needs and reaches."""
    parts = {"expected limit": search.reach}
    parts |= {} if theory else {"measured domain": search.measured}
    parts |= {"observed": search.observed} if search.observed is not None else {}
    parts |= {f"{z:g} sigma discovery": reach for z, reach in search.discovery.items()}
    parts |= {f"{pot:.3g} POT": reach for pot, reach in search.projections.items()}
    columns: dict[str, list[Any]] = {"contour": [], "events": [], "masses": [], "lowest coupling": []}
    for name, reach in parts.items():
        columns["contour"].append(name)
        columns["events"].append(_events(reach))
        good = np.isfinite(reach.edges[:, 0])
        columns["masses"].append(len(np.unique(reach.mass[good])))
        columns["lowest coupling"].append(f"{reach.edges[good, 0].min():.3g}" if good.any() else "-")
    return [report.Table(columns, caption="Events at the present exposure that each contour needs")]


def _events(reach: Reach) -> str:
    levels = np.atleast_1d(np.asarray(reach.limit, dtype=np.float64))
    low, high = float(levels.min()), float(levels.max())
    return f"{low:.3f}" if high - low < 1e-3 * low else f"{low:.3f} to {high:.3f}"


def _numbers(ctx: Context, search: Search) -> None:
    name = search.detector.name
    ctx.book.numbers[f"expected limit, {name}"] = f"{search.limit.expected[2]:.3f} events"
    ctx.book.numbers[f"reach, {name}"] = masses_reached(search.reach.intervals)
    if np.isfinite(search.significance):
        ctx.book.numbers[f"observed significance, {name}"] = f"{search.significance:.2f}"


def acceptance_section(ctx: Context, made: Products) -> report.Section:
    """Return acceptance against lifetime, one figure per detector."""
    figures = []
    for name, plane in (made.planes or {}).items():
        known = plane.curves
        rows = () if known is None else zip(known.mass, known.acceptance, known.error, strict=True)
        curves = {float(mass): (curve, error) for mass, curve, error in rows}
        part = _measured_part(plane)
        if part is not None and ctx.steering.spectrum is not None:
            ctx.book.numbers[f"measured part of the largest signal per mass, {name}"] = part
        if known is not None and any((curve > 0).any() for curve, _ in curves.values()):
            figure = acceptance_figure(
                known.ctau,
                {mass: curve for mass, (curve, _) in curves.items()},
                mock=ctx.book.mock,
                errors={mass: error for mass, (_, error) in curves.items()},
            )
            with_members = " and spread of the bootstrap replicas" if plane.effect(FLOW) is not None else ""
            caption = (
                f"Acceptance of {name} against the decay length, per produced particle. Band: error of the "
                f"finite sample{with_members}."
            )
            figures.append(titled(f"acceptance_{name}", caption, figure))
    text = ["Decays in flight, per produced particle.", *conditions(ctx, ACCEPTANCE)]
    tables = error_tables(ctx, made.planes or {})
    return report.Section("Acceptance of long-lived particles", text, figures, tables)


def _measured_part(plane: SignalPlane) -> str | None:
    """Return the range over masses of the measured part, each at the coupling of its largest signal."""
    signal, inside = plane.signal, plane.in_domain
    rows, best = np.arange(len(signal)), signal.argmax(axis=1)
    total = signal[rows, best]
    part = inside[rows, best][total > 0] / total[total > 0]
    return f"{part.min():.2g} to {part.max():.2g}" if len(part) else None
