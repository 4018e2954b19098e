"""Report sections of the reach: contours, discoveries and projections, limits against mass, impacts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gammastar import predict, report
from gammastar.core.records import Limit, Reach
from gammastar.infer.impacts import Ranking
from gammastar.pipeline.checkpoint import Arrays
from gammastar.pipeline.context import Context
from gammastar.pipeline.producing import model_of
from gammastar.pipeline.products import Products
from gammastar.pipeline.reach_files import masses_reached
from gammastar.pipeline.recast_limits import RECAST_NOTE, recast_limits
from gammastar.pipeline.results import titled
from gammastar.pipeline.search import Search
from gammastar.report.style import power_of_ten

__all__ = ["reach_sections"]

NO_LIMITS = {
    "published": "No published limit is drawn: none is at hand.",
    "recast": "No published limit is drawn: those on dark photons, recast by ratios, exclude nothing here.",
    "none": "No published limit is drawn: those on dark photons were not recast to this model.",
}


def reach_sections(ctx: Context, made: Products) -> list[report.Section]:
    """Return one section per detector."""
    mass = np.empty(0) if made.predicted is None else made.predicted["mass"]
    accepted = made.accepted or {}
    return [_section(ctx, n, search, mass, accepted[n]) for n, search in (made.inferred or {}).items()]


def _section(ctx: Context, name: str, search: Search, mass: Any, arrays: Arrays) -> report.Section:
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
    domain, theory = domain_of(mass, arrays), _from_theory(ctx)
    contours = _theory_contours(search) if theory else _contours(search, domain)
    figure = report.reach_figure(
        contours, pot=search.detector.pot, yields=_yields(ctx, mass, arrays), **options
    )
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
        figure = report.limit_figure(
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


def domain_of(mass: Any, arrays: Arrays) -> report.DomainMap | None:
    """Return the measured part of the signal over the plane; None for theory, which measured nothing."""
    if len(mass) < 2 or "extrapolation" not in arrays:
        return None
    signal, inside = arrays["signal"], arrays["in_domain_signal"]
    return report.DomainMap(mass, arrays["couplings"], signal, inside, arrays["extrapolation"])


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


def _yields(ctx: Context, mass: Any, arrays: Arrays) -> report.Yields:
    """Return the signal over the plane where enough sampled particles stand behind it."""
    few = 0.0 if ctx.steering.infer is None else ctx.steering.infer.min_effective
    signal = np.where(arrays["n_effective"] >= few, arrays["signal"], np.nan)
    return report.Yields(mass, arrays["couplings"], signal)


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
    figure = report.impact_figure(
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
