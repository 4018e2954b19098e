"""Sections of the report on dark particles: production, signal yields, reaches, what others exclude."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gammastar.core.records import FloatArray, Limit, Reach
from gammastar.core.signal import Rate, SignalPlane
from gammastar.core.sources import EXTRAPOLATION, FLOW, POT
from gammastar.report.figures.limits import impact_figure, limit_figure
from gammastar.report.figures.reach import Contour, Plane, Yields, reach_figure
from gammastar.report.figures.signal import (
    Band,
    DomainMap,
    Points,
    acceptance_figure,
    band_figure,
    domain_figure,
    rate_figure,
    reach_lines_figure,
)
from gammastar.report.pages import Section, titled
from gammastar.report.published_limits import ExistingLimit, citations
from gammastar.report.style import power_of_ten
from gammastar.report.tables import Table, masses_reached

NAMES = {
    "virtual_photon": "measured dileptons, Eq. 8",
    "bremsstrahlung": "bremsstrahlung",
    "pion_dalitz": r"$\pi^0\to\gamma\gamma^*$",
    "pseudoscalar_dalitz": r"$\eta,\eta'\to\gamma\gamma^*$",
    "vector_dalitz": r"$\omega,\rho,\phi\to P\gamma^*$",
    "vector_mesons": r"$\rho,\omega,\phi\to\gamma^*$",
    "jpsi": r"$J/\psi\to\gamma^*$",
}
PAIRS = "Millicharged pairs per proton on target and"
NO_LIMITS = {
    "published": "No published limit is drawn: none is at hand.",
    "recast": "No published limit is drawn: those on dark photons, recast by ratios, exclude nothing here.",
    "none": "No published limit is drawn: those on dark photons were not recast to this model.",
}
RECAST_NOTE = (
    "recast by ratios of rate, branching ratio to ee and lifetime at one effective momentum; shares of the "
    "processes from the theory channels at 400 GeV"
)


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """How the sections on dark particles are shown."""

    labels: Any  # What the model is called
    theory: bool  # Whether the rate is that of theory channels, so that no lepton pair was measured
    mock: bool
    known: Sequence[ExistingLimit] = ()  # Of others, for the grey areas
    coupling: tuple[float, float] | None = None  # Range of the axis where nothing is reached
    min_effective: float = 0.0  # Effective number of particles below which no yield is shown
    unit: str = "proton"  # What the rate counts in

    @property
    def per(self) -> str:
        """What the rate is per, beside the squared coupling."""
        if self.unit == "pb":
            return "1/pb"
        return "interacting proton" if self.theory else "POT"

    def plane(self, *, reached: bool) -> Plane:
        """Return the plane of the model; theory has no threshold."""
        named, couplings = self.labels, None if reached else self.coupling
        plane = Plane(
            coupling_range=couplings, mass_label=named.mass_axis, coupling_label=named.coupling_axis
        )
        return replace(plane, threshold=None) if self.theory else plane


def rate_section(
    predicted: Rate,
    view: View,
    *,
    comparisons: Mapping[str, FloatArray] | None = None,
    conditions: Sequence[str] = (),
) -> Section:
    """Return dark particles per proton on target and squared coupling, beside theory with its bands."""
    mass, rate, errors = predicted.mass, predicted.value, predicted.error()
    low = int(np.argmin(mass))
    what = view.labels.particles
    per = view.per
    part = _measured_rate(predicted)
    numbers = {}
    told = f"{what} per {per} and squared coupling at {mass[low]:.3f} GeV"
    if part is not None and np.isfinite(part[low]).all():
        value, error = part[low, 1], part[low, 2] - part[low, 1]
        numbers[f"{told}, where dileptons were measured"] = f"{value:.3g} ± {error:.2g}"
    numbers[told] = f"{rate[low]:.3g} ± {errors[low]:.2g}"
    if view.theory:
        text = "Channels of theory, exclusive of each other, with the errors that they state and no others."
        figure = _theory_figure(predicted, view)
    else:
        text = (
            "Dileptons per proton on target times m/(2 kappa): no model of hadron production enters. Theory "
            "stands beside it for comparison alone."
        )
        own = {} if part is None else {"measured domain": part}
        own |= comparisons or {}
        named = view.labels
        count = rf"$N_{{{named.particle.replace('_', '')}}}$ / POT / ${named.coupling_symbol}^2$"
        figure = rate_figure(
            mass,
            rate,
            errors,
            mock=view.mock,
            label="full phase space",
            comparisons=own,
            axes_labels=(named.mass_axis, count),
        )
    return Section(
        f"Rate of {what}",
        [text],
        figures=[titled("rate", f"{what[0].upper()}{what[1:]} per {per} and squared coupling.", figure)],
        tables=[_rate_table(predicted, view.unit)],
        numbers=numbers,
        notes=conditions,
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


def _rate_table(predicted: Rate, unit: str) -> Table:
    rate = predicted.value
    rows = np.unique(np.linspace(0, len(rate) - 1, 8).astype(int))
    rows = rows[rate[rows] > 0]
    columns: dict[str, Any] = {"mass [GeV]": predicted.mass[rows]}
    measured = _measured_rate(predicted)
    if measured is not None:
        columns["rate, measured part"] = measured[rows, 1]
    columns["rate"] = rate[rows]
    for part in predicted.sources.parts:
        if unit == "pb" and not part.cov.any():
            continue  # there are no protons on target
        columns[f"{part.name} [%]"] = 100 * np.sqrt(np.clip(np.diag(part.cov)[rows], 0.0, None)) / rate[rows]
    if predicted.extrapolation is not None:
        columns["extrapolation [%]"] = 100 * predicted.extrapolation[rows]
    columns["total [%]"] = 100 * predicted.error()[rows] / rate[rows]
    plain = {name: [_short(float(x)) for x in values] for name, values in columns.items()}
    counted = "Cross section [pb] over" if unit == "pb" else "Rate per proton on target and"
    return Table(plain, caption=f"{counted} squared coupling, and its errors by source")


def _bands(predicted: Rate) -> list[Band]:
    """Return the rate of each channel as a line."""
    rows = predicted.channels.items()
    return [Band(NAMES.get(n, n), predicted.mass, row, row, row, i) for i, (n, row) in enumerate(rows)]


def _errors(predicted: Rate) -> FloatArray:
    """Return the distances of the rate to its lower and upper edge, shape (2, n)."""
    rate = predicted.value
    low, high = (rate if edge is None else edge for edge in (predicted.low, predicted.high))
    return np.stack([rate - low, high - rate])


def _theory_figure(predicted: Rate, view: View) -> Any:
    mass, rate = predicted.mass, predicted.value
    errors, bands = _errors(predicted), _bands(predicted)
    points = Points("sum of the channels", mass, rate, errors, line=True)
    top = float(rate.max()) or 1.0
    bottom = float(rate[rate > 0].min()) if (rate > 0).any() else 1e-6 * top
    return band_figure(
        points,
        bands,
        x_label="mass [GeV]",
        y_label=("cross section [pb]" if view.unit == "pb" else f"particles / {view.per}")
        + " / squared coupling",
        y_range=(max(0.02 * bottom, 1e-7 * top), 30 * top),
        x_range=(float(mass[0]), float(mass[-1])),
        mock=view.mock,
    )


def relative_errors(plane: SignalPlane, at: FloatArray, nuisances: Collection[str]) -> dict[str, list[float]]:
    """Return the relative errors of the yield by source at the masses next to the wanted ones."""
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


def _short(value: float, digits: int = 3) -> float:
    return float(f"{value:.{digits}g}")


def error_tables(
    planes: Mapping[str, SignalPlane], nuisances: Collection[str] | None, luminous: Collection[str] = ()
) -> list[Table]:
    """Return the errors of the yields by source in percent, one table for each name of a detector.

    "total" adds all sources in quadrature, "in the limit" those that are nuisances (left out for None).
    The names `luminous` have a luminosity in the place of protons on target.
    """
    tables = []
    for name, plane in planes.items():
        at = np.linspace(plane.mass[0], plane.mass[-1], 6)
        columns = relative_errors(plane, at, nuisances or ())
        if nuisances is None:
            del columns["in the limit"]
        if columns["mass"]:
            caption = f"Errors of the yield at the best coupling [%], {name}"
            masses = {"mass [GeV]": [_short(x, 4) for x in columns.pop("mass")]}
            told = "luminosity" if name in luminous else POT
            percent = {
                key.replace(POT, told): [_short(100 * x) for x in value] for key, value in columns.items()
            }
            tables.append(Table(masses | percent, caption=caption))
    return tables


def pair_rate_section(
    predicted: Rate, *, mock: bool, unit: str = "proton", conditions: Sequence[str] = ()
) -> Section:
    """Return millicharged pairs per proton on target and squared charge, or in pb, with the channels."""
    mass, rate = predicted.mass, predicted.value
    errors, bands = _errors(predicted), _bands(predicted)
    positive = rate[rate > 0] if (rate > 0).any() else np.ones(1)
    figure = band_figure(
        Points("all channels", mass, rate, errors, line=True),
        bands,
        x_label=r"$m_\chi$ [GeV]",
        y_label=(r"$\sigma_{\chi\bar\chi}$ [pb]" if unit == "pb" else r"$N_{\chi\bar\chi}$ / POT")
        + r" / $Q^2$",
        y_range=(0.02 * float(positive.min()), 300 * float(positive.max())),
        x_range=(0.9 * float(mass[0]), 1.1 * float(mass[-1])),
        mock=mock,
    )
    first = (
        "Pairs are counted, two particles each. Without a theory channel for photons lighter than two "
        "leptons the plateau at small mass is a lower bound."
    )
    none = (
        []
        if (rate > 0).any()
        else ["No channel makes pairs at any of these masses: see [predict.millicharge]."]
    )
    counted = "Cross section [pb] of millicharged pairs over" if unit == "pb" else PAIRS
    caption = f"{counted} squared charge."
    return Section(
        "Millicharged pairs",
        [first],
        [titled("millicharged_pairs", caption, figure)],
        [_rate_table(predicted, unit)],
        warnings=none,
        notes=conditions,
    )


def charge_section(searches: Mapping[str, Any], tables: Sequence[Table], *, mock: bool) -> Section:
    """Return the reach of every detector of millicharged particles."""
    numbers = {}
    curves, text, lowest, highest = {}, [], 1.0, 0.0
    for search in searches.values():
        detector, mass = search.detector, search.mass
        edges = np.full(len(mass), np.nan)
        for m, pair in zip(search.reach.mass, search.reach.edges, strict=True):
            row = int(np.argmin(np.abs(mass - m)))
            edges[row] = np.fmin(edges[row], pair[0])
        curves[detector.name] = (mass, edges)
        if np.isfinite(edges).any():
            lowest, highest = min(lowest, float(np.nanmin(edges))), max(highest, float(np.nanmax(edges)))
        reached = "nothing is reached" if np.isnan(edges).all() else f"Q > {np.nanmin(edges):.2g} at best"
        numbers[f"reach, {detector.name}"] = reached
        note = "; illustrative numbers" if detector.illustrative else ""
        text.append(
            f"{detector.name}: {detector.exposure_text}, {search.assumption}; "
            f"signal as Q^{detector.exponent} at small Q; {reached}{note}."
        )
    figure = reach_lines_figure(
        curves,
        x_label=r"$m_\chi$ [GeV]",
        y_label="$Q$, lower edge of the expected reach",
        y_range=(0.3 * lowest, min(1.0, max(30 * highest, 10 * lowest))),
        mock=mock,
    )
    caption = "Expected reach for millicharged particles; energy loss before the detector is neglected."
    return Section(
        "Reach for millicharged particles",
        text,
        [titled("reach_millicharge", caption, figure)],
        tables,
        numbers,
    )


def reach_section(name: str, search: Any, plane: SignalPlane, view: View) -> Section:
    """Return contours, measured domain, other exposures, limits and impacts of one detector."""
    named, known = view.labels, view.known
    reached = np.isfinite(search.reach.edges).all(axis=1)
    options: dict[str, Any] = {
        "mock": view.mock,
        "cl": search.limit.cl,
        "limits": [limit.curve for limit in known],
    }
    options["plane"] = replace(view.plane(reached=bool(reached.any())), title=search.detector.name)
    label = f"Expected reach, {search.detector.name}"
    recast = named.limits == "recast" and any(limit.kind == "recast" for limit in known)
    note = f"; {RECAST_NOTE}" if recast else ""
    grey = f"Grey: {citations(known)}{note}." if known else NO_LIMITS[named.limits]
    mass, domain, theory = plane.mass, domain_of(plane), view.theory
    contours = _theory_contours(search) if theory else _contours(search, domain)
    figure = reach_figure(
        contours, pot=_exposed(search), yields=_yields(plane, view.min_effective), **options
    )
    split = (
        "from theory alone: no lepton pair was measured" if theory else "split into measured and extrapolated"
    )
    caption = f"{label}, {split}, with the signal expected. {grey}"
    figures = [titled(f"reach_{name}", caption, figure)]
    if domain is not None:
        limit = float(search.limit.expected[2])
        figure = domain_figure(
            domain,
            mock=view.mock,
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
        figure = reach_figure(others, pot=_exposed(search), **options)
        caption = f"Discoveries and other protons on target, {search.detector.name}. {grey}"
        figures.append(titled(f"projections_{name}", caption, figure))
    if search.levels is not None and len(mass) > 1:
        seen = search.levels[:, 0] if np.isfinite(search.levels[:, 0]).all() else None
        figure = limit_figure(
            mass,
            search.levels[:, 1:],
            mock=view.mock,
            observed=seen,
            cl=search.limit.cl,
            title=search.detector.name,
            mass_label=named.mass_axis,
        )
        caption = f"Limit at the coupling of the largest signal against mass, {search.detector.name}."
        figures.append(titled(f"limit_{name}", caption, figure))
    if search.impacts is not None and search.impacts.names:
        figures.append(_impacts(name, search, view))
    text = _text(search, reached, theory=theory)
    tables, numbers = _tables(search, theory=theory), _numbers(search)
    return Section(label, text, figures, tables, numbers, notes=_precision(search))


def _span(search: Any) -> tuple[float, float, float, float] | None:
    """Return the lowest and the highest mass and coupling that are reached; None where nothing is."""
    edges = search.reach.edges
    reached = np.isfinite(edges).all(axis=1)
    if not reached.any():
        return None
    ends = [(one.low, one.high) for one in search.reach.intervals] or search.reach.mass[reached]
    return (
        float(np.min(ends)),
        float(np.max(ends)),
        float(edges[reached, 0].min()),
        float(edges[reached, 1].max()),
    )


def _exposed(search: Any, value: float | None = None) -> str:
    """Return the exposure of a search, or another one of its kind, as a figure says it."""
    exposure = search.detector.exposure if value is None else value
    if search.detector.luminosity is None:
        return f"{power_of_ten(exposure)} POT"
    return rf"{exposure / 1e3:.4g} fb$^{{-1}}$"


def _exposure(search: Any) -> tuple[str, str]:
    """Return name and value of the exposure of a search."""
    if search.detector.luminosity is None:
        return "Protons on target", f"{search.detector.exposure:.3g}"
    return "Luminosity", search.detector.exposure_text


def reach_sentence(search: Any) -> str:
    """Return what a search reaches in one sentence."""
    span, cl = _span(search), f"{100 * search.limit.cl:.3g} % CL"
    start = f"{search.detector.name}, {search.detector.exposure_text}, {cl}"
    if span is None:
        return f"{start}: nothing is reached; the limit is {search.limit.expected[2]:.3g} events."
    low, high, weakest, strongest = span
    return (
        f"{start}: reaches masses from {low:.3g} to {high:.3g} GeV and couplings from {weakest:.2g} to "
        f"{strongest:.2g}; the expected limit is {search.limit.expected[2]:.3g} events."
    )


def cards_of(
    search: Any, coupling: str, pairs: str | None, pot: float | None
) -> tuple[tuple[str, str, str], ...]:
    """Return the four cards at the top of a page: protons, pairs, limit, masses and couplings."""
    span, limit = _span(search), search.limit
    data = "" if pot is None else f"; {pot:.3g} in the data"
    reached = ("nothing", "no coupling gives enough events")
    if span is not None:
        low, high, weakest, strongest = span
        reached = f"{low:.2g} to {high:.2g} GeV", f"{coupling} from {weakest:.2g} to {strongest:.2g}"
    source = "no lepton pair was read in this run" if pairs is None else "opposite sign, in the data"
    observed = search.observed is not None
    value = limit.observed if observed else limit.expected[2]
    kind = "observed" if observed else "expected"
    return (
        (*_exposure(search), f"{search.detector.name}{data}"),
        ("Lepton pairs", "–" if pairs is None else f"{int(pairs):,}".replace(",", "\u2009"), source),
        ("Limit on the signal", f"{value:.3g} events", f"{kind}, {100 * limit.cl:.3g} % CL"),
        ("Masses reached", *reached),
    )


def domain_of(plane: SignalPlane) -> DomainMap | None:
    """Return the measured part of the signal over the plane; None for theory, which measured nothing."""
    beyond = plane.effect(EXTRAPOLATION)
    if len(plane.mass) < 2 or beyond is None:
        return None
    return DomainMap(plane.mass, plane.coupling, plane.signal, plane.in_domain, beyond.values)


def _theory_contours(search: Any) -> list[Contour]:
    """Return the contours of a run without data: no measured part, and no panel of its share."""
    contours = [Contour("signal of the channels", search.reach, "expected", bands=search.reach.bands)]
    if search.observed is not None:
        contours.append(Contour("observed", search.observed, "observed"))
    return contours


def _contours(search: Any, domain: DomainMap | None) -> list[Contour]:
    contours = [
        Contour(
            "extrapolated: all signal",
            search.reach,
            "extrapolated",
            bands=search.reach.bands,
            fraction=search.fraction,
            domain=domain,
        ),
        Contour("measured domain only", search.measured, "measured"),
    ]
    if search.observed is not None:
        contours.append(Contour("observed", search.observed, "observed"))
    return contours


def _yields(plane: SignalPlane, few: float) -> Yields:
    """Return the signal over the plane where enough sampled particles stand behind it."""
    signal = np.where(plane.reliable(few), plane.signal, np.nan)
    return Yields(plane.mass, plane.coupling, signal)


def _others(search: Any) -> list[Contour]:
    """Return thin contours: expected limit, discoveries, other protons on target."""
    cl = f"{100 * search.limit.cl:.3g} % CL limit"
    found = [Contour(f"{cl}, {_exposed(search)}", search.reach, "expected")]
    found += [
        Contour(rf"{z:g}$\sigma$ discovery", reach, "expected") for z, reach in search.discovery.items()
    ]
    found += [
        Contour(f"{cl}, {_exposed(search, pot)}", reach, "expected")
        for pot, reach in search.projections.items()
    ]
    return found


def _impacts(name: str, search: Any, view: View) -> tuple[str, Any]:
    ranking = search.impacts
    figure = impact_figure(
        ranking.names,
        ranking.pull,
        ranking.constraint,
        ranking.impact,
        mock=view.mock,
        title=f"{search.detector.name}: lower edge at {search.impact_mass:.3g} GeV",
        coupling=view.labels.coupling_symbol,
        prefit=ranking.prefit,
    )
    data = "the observed count" if search.observed is not None else "the median expected count"
    data = ranking.basis or data
    if ranking.prefit is not None:
        data += (
            "; bars after the fit, outlines before it; contents of cells and bins are free, and have no pull"
        )
    caption = (
        f"Pulls at the limit and impacts on log10 of the coupling, {search.detector.name}, lower edge at "
        f"{search.impact_mass:.3g} GeV, with {data}."
    )
    return titled(f"impacts_{name}", caption, figure)


def _text(search: Any, reached: Any, *, theory: bool) -> list[str]:
    limit: Limit = search.limit
    first = (
        f"{search.detector.exposure_text}, {search.assumption}; expected limit "
        f"{limit.expected[2]:.3f} events at {100 * limit.cl:.0f} % CL ({limit.method})."
    )
    if not reached.any():
        first += f" Nothing is reached: at most {np.nanmax(search.reach.signal):.2g} events are expected."
    text = [first]
    if search.observed is not None:
        text.append(f"Observed limit {limit.observed:.3f} events; significance {search.significance:.2f}.")
    else:
        text.append("The observation is masked, or from mock data: there is no observed result.")
    if search.background == 0:
        text.append("No discovery is claimed: without a number for the background one event would do.")
    if not reached.any():
        return text
    measured = (
        f"{_measured_words(search.fraction)} of the signal on the edges was measured. "
        "The low-mass side is clipped at 2 m_μ, where the spectrum begins"
    )
    measured = "The rate is that of theory channels: no lepton pair was measured" if theory else measured
    text.append(
        f"Of {len(np.unique(search.reach.mass))} masses {len(np.unique(search.reach.mass[reached]))} are "
        f"{masses_reached(search.reach.intervals)}. {measured}; the upper edge ends where too few sampled "
        "particles populate it."
    )
    return text


def _precision(search: Any) -> list[str]:
    """Return the uncertainties of the signal and the numerical errors of the edges."""
    text = []
    if search.spreads:
        parts = [f"{name} {100 * np.expm1(np.median(s)):.2g} %" for name, s in search.spreads.items()]
        text.append(f"Uncertainties of the signal beside protons on target (medians): {', '.join(parts)}.")
    if search.reach.errors is not None and np.isfinite(search.reach.errors).any():
        total = np.sqrt((search.reach.errors**2).sum(axis=2))
        text.append(
            f"Numerical errors of the edges: median {np.nanmedian(total):.2g}, at most "
            f"{np.nanmax(total):.2g} decades (sample, toys, interpolation in quadrature)."
        )
    return text


def _tables(search: Any, *, theory: bool) -> list[Table]:
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
    return [Table(columns, caption="Events at the present exposure that each contour needs")]


def _measured_words(fraction: FloatArray) -> str:
    low, high = float(np.nanmin(fraction)), float(np.nanmax(fraction))
    return "Nothing" if high == 0 else f"Between {_percent(low)} and {_percent(high)} %"


def _percent(share: float) -> str:
    if share < 5e-5:
        return "0"
    return f"{100 * share:.2g}" if share < 0.995 else f"{100 * share:.0f}"


def _events(reach: Reach) -> str:
    levels = np.atleast_1d(np.asarray(reach.limit, dtype=np.float64))
    low, high = float(levels.min()), float(levels.max())
    return f"{low:.3f}" if high - low < 1e-3 * low else f"{low:.3f} to {high:.3f}"


def _numbers(search: Any) -> dict[str, str]:
    name = search.detector.name
    numbers = {
        f"expected limit, {name}": f"{search.limit.expected[2]:.3f} events",
        f"reach, {name}": masses_reached(search.reach.intervals),
    }
    if np.isfinite(search.significance):
        numbers[f"observed significance, {name}"] = f"{search.significance:.2f}"
    return numbers


def acceptance_section(
    planes: Mapping[str, SignalPlane],
    tables: Sequence[Table],
    *,
    names: Mapping[str, str] | None = None,
    conditions: Sequence[str] = (),
    measured: bool,
    mock: bool,
) -> Section:
    """Return acceptance against lifetime, one figure per detector; `measured` tells of its measured part.

    `names` are what the detectors of the planes are called.
    """
    figures, numbers = [], {}
    for stem, plane in planes.items():
        name = (names or {}).get(stem, stem)
        known = plane.curves
        rows = () if known is None else zip(known.mass, known.acceptance, known.error, strict=True)
        curves = {float(mass): (curve, error) for mass, curve, error in rows}
        part = _measured_part(plane)
        if part is not None and measured:
            numbers[f"measured part of the largest signal per mass, {name}"] = part
        if known is not None and any((curve > 0).any() for curve, _ in curves.values()):
            figure = acceptance_figure(
                known.ctau,
                {mass: curve for mass, (curve, _) in curves.items()},
                mock=mock,
                errors={mass: error for mass, (_, error) in curves.items()},
            )
            figure.axes[0].set_title(name, loc="left", fontsize=13)
            with_members = " and spread of the bootstrap replicas" if plane.effect(FLOW) is not None else ""
            caption = (
                f"Acceptance of {name} against the decay length, per produced particle. Band: error of the "
                f"finite sample{with_members}."
            )
            figures.append(titled(f"acceptance_{stem}", caption, figure))
    text = ["The part of the produced particles whose decay in flight the detector sees."]
    return Section(
        "Acceptance of long-lived particles", text, figures, tables, numbers, notes=conditions, shown=0
    )


def _measured_part(plane: SignalPlane) -> str | None:
    """Return the range over masses of the measured part, each at the coupling of its largest signal."""
    signal, inside = plane.signal, plane.in_domain
    rows, best = np.arange(len(signal)), signal.argmax(axis=1)
    total = signal[rows, best]
    part = inside[rows, best][total > 0] / total[total > 0]
    return f"{_percent(part.min())} to {_percent(part.max())} %" if len(part) else None
