"""Sections of the report on dark particles: production, signal yields, reaches, what others exclude."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gammastar.core.records import BoolArray, FloatArray, Limit, Reach
from gammastar.core.signal import Rate, SignalPlane
from gammastar.core.sources import EXTRAPOLATION, FLOW, POT
from gammastar.report.figures import limits, signal
from gammastar.report.figures import limits as figures
from gammastar.report.figures.limits import ExistingLimit, told
from gammastar.report.figures.reach import Contour, Plane, Yields, reach_figure
from gammastar.report.figures.signal import Band, DomainMap, Points
from gammastar.report.pages import Section, Table, masses_reached, titled, words
from gammastar.report.style import power_of_ten

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
    "published": "No published limit at hand lies in this frame.",
    "recast": "No published limit is drawn: those on dark photons, recast by ratios, exclude nothing here.",
    "none": "No published limit is drawn: those on dark photons were not recast to this model.",
}
RECAST_NOTE = (
    " Recast at one effective momentum, with shares of the processes from the theory channels at 400 GeV."
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

    def others(self, figure: Any) -> str:
        """Return which limits of others a figure shows, and which known ones it does not."""
        text = told(figure, self.known, self.labels.plane) or NO_LIMITS[self.labels.limits]
        return text + (RECAST_NOTE if self.known and self.labels.limits == "recast" else "")

    def plane(self, *, reached: bool) -> Plane:
        """Return the plane of the model; theory has no threshold."""
        labels, couplings = self.labels, None if reached else self.coupling
        axes = {"mass_label": labels.mass_axis, "coupling_label": labels.coupling_axis}
        plane = Plane(coupling_range=couplings, **axes)
        return replace(plane, threshold=None) if self.theory else plane


def rate_section(
    predicted: Rate,
    view: View,
    *,
    comparisons: Mapping[str, FloatArray] | None = None,
    conditions: Sequence[str] = (),
) -> Section:
    """Return dark particles per proton on target and squared coupling, beside theory with its bands."""
    mass, rate, errors, labels = predicted.mass, predicted.value, predicted.error(), view.labels
    low, what = int(np.argmin(mass)), labels.particles
    part = _measured_rate(predicted)
    numbers = {}
    number = f"{what} per {view.per} and squared coupling at {mass[low]:.3f} GeV"
    if part is not None and np.isfinite(part[low]).all():
        value, error = part[low, 1], part[low, 2] - part[low, 1]
        numbers[f"{number}, where dileptons were measured"] = f"{value:.3g} ± {error:.2g}"
    numbers[number] = f"{rate[low]:.3g} ± {errors[low]:.2g}"
    if view.theory:
        text = "Channels of theory, exclusive of each other, with the errors that they state and no others."
        figure = _theory_figure(predicted, view)
    else:
        text = words("rate")
        own = ({} if part is None else {"measured domain": part}) | dict(comparisons or {})
        count = rf"$N_{{{labels.particle.replace('_', '')}}}$ / POT / ${labels.coupling_symbol}^2$"
        options: dict[str, Any] = {"mock": view.mock, "label": "full phase space", "comparisons": own}
        figure = signal.rate_figure(mass, rate, errors, axes_labels=(labels.mass_axis, count), **options)
    caption = f"{what[0].upper()}{what[1:]} per {view.per} and squared coupling."
    drawn, tables = [titled("rate", caption, figure)], [_rate_table(predicted, view.unit)]
    return Section(f"Rate of {what}", [text], drawn, tables, numbers, notes=conditions)


def _measured_rate(predicted: Rate) -> FloatArray | None:
    """Return the rate where dileptons were measured with its lower and upper edge, shape (n, 3)."""
    if predicted.measured_part is None:
        return None
    error = np.sqrt(np.clip(np.diag(predicted.sources.total()), 0, None))
    rate = predicted.value
    edges = np.stack([np.clip(rate - error, 0.0, None), rate, rate + error], axis=1)
    return np.asarray(edges * predicted.measured_part[:, None])


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
    top = float(rate.max()) or 1.0
    bottom = float(rate[rate > 0].min()) if (rate > 0).any() else 1e-6 * top
    counted = "cross section [pb]" if view.unit == "pb" else f"particles / {view.per}"
    return signal.band_figure(
        Points("sum of the channels", mass, rate, _errors(predicted), line=True),
        _bands(predicted),
        x_label="mass [GeV]",
        y_label=f"{counted} / squared coupling",
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
    """Return the errors of the yields by source in percent, one table for each name of a detector."""
    tables = []
    for name, plane in planes.items():
        at = np.linspace(plane.mass[0], plane.mass[-1], 6)
        columns = relative_errors(plane, at, nuisances or ())
        if nuisances is None:
            del columns["in the limit"]
        if masses := columns.pop("mass"):
            exposure = "luminosity" if name in luminous else POT
            percent = {key: [_short(100 * x) for x in value] for key, value in columns.items()}
            shown = {key.replace(POT, exposure): value for key, value in percent.items()}
            caption = f"Errors of the yield at the best coupling [%], {name}"
            tables.append(Table({"mass [GeV]": [_short(x, 4) for x in masses]} | shown, caption=caption))
    return tables


def pair_rate_section(
    predicted: Rate, *, mock: bool, unit: str = "proton", conditions: Sequence[str] = ()
) -> Section:
    """Return millicharged pairs per proton on target and squared charge, or in pb, with the channels."""
    mass, rate = predicted.mass, predicted.value
    positive = rate[rate > 0] if (rate > 0).any() else np.ones(1)
    per_charge = r"$\sigma_{\chi\bar\chi}$ [pb]" if unit == "pb" else r"$N_{\chi\bar\chi}$ / POT"
    figure = signal.band_figure(
        Points("all channels", mass, rate, _errors(predicted), line=True),
        _bands(predicted),
        x_label=r"$m_\chi$ [GeV]",
        y_label=rf"{per_charge} / $Q^2$",
        y_range=(0.02 * float(positive.min()), 300 * float(positive.max())),
        x_range=(0.9 * float(mass[0]), 1.1 * float(mass[-1])),
        mock=mock,
    )
    none = "No channel makes pairs at any of these masses: see [predict.millicharge]."
    counted = "Cross section [pb] of millicharged pairs over" if unit == "pb" else PAIRS
    return Section(
        "Millicharged pairs",
        [words("millicharged")],
        [titled("millicharged_pairs", f"{counted} squared charge.", figure)],
        [_rate_table(predicted, unit)],
        warnings=[] if (rate > 0).any() else [none],
        notes=conditions,
    )


def charge_section(
    searches: Mapping[str, Any], tables: Sequence[Table], known: Sequence[ExistingLimit] = (), *, mock: bool
) -> Section:
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
        found = {"assumption": search.assumption, "reached": reached}
        text.append(words("millicharge_search", detector=detector, **found))
    figure = limits.reach_lines_figure(
        curves,
        x_label=r"$m_\chi$ [GeV]",
        y_label="$Q$, lower edge of the expected reach",
        y_range=(0.3 * lowest, min(1.0, max(30 * highest, 10 * lowest))),
        mock=mock,
        limits=[limit.curve for limit in known],
    )
    caption = "Expected reach for millicharged particles; energy loss before the detector is neglected. "
    caption += told(figure, known, "millicharge")
    drawn = [titled("reach_millicharge", caption, figure)]
    return Section("Reach for millicharged particles", text, drawn, tables, numbers)


def reach_section(name: str, search: Any, plane: SignalPlane, view: View) -> Section:
    """Return contours, measured domain, other exposures, limits and impacts of one detector."""
    labels, published, detector = view.labels, view.known, search.detector.name
    reached = np.isfinite(search.reach.edges).all(axis=1)
    common: dict[str, Any] = {"mock": view.mock, "title": detector}
    options: dict[str, Any] = {"mock": view.mock, "cl": search.limit.cl, "pot": _exposed(search)}
    options["limits"] = [limit.curve for limit in published]
    options["plane"] = replace(view.plane(reached=bool(reached.any())), title=detector)
    mass, domain, theory = plane.mass, domain_of(plane), view.theory
    contours = _contours(search, domain, theory=theory)
    signal_events = np.where(plane.reliable(view.min_effective), plane.signal, np.nan)
    figure = reach_figure(contours, yields=Yields(mass, plane.coupling, signal_events), **options)
    split = "from theory alone: no lepton pair was measured"
    split = split if theory else "split into measured and extrapolated"
    label = f"Expected reach, {detector}"
    caption = f"{label}, {split}, with the signal expected. {view.others(figure)}"
    figures = [titled(f"reach_{name}", caption, figure)]
    if domain is not None:
        axes = labels.mass_axis, labels.coupling_axis
        limit = float(search.limit.expected[2])
        figure = signal.domain_figure(domain, limit=limit, axes_labels=axes, **common)
        figures.append(titled(f"domain_{name}", words("domain"), figure))
    others = _others(search)
    if len(others) > 1 and reached.any():
        figure = reach_figure(others, **options)
        caption = f"Discoveries and other protons on target, {detector}. {view.others(figure)}"
        figures.append(titled(f"projections_{name}", caption, figure))
    if search.levels is not None and len(mass) > 1:
        common |= {"cl": search.limit.cl, "mass_label": labels.mass_axis}
        if np.isfinite(search.levels[:, 0]).all():
            common["observed"] = search.levels[:, 0]
        figure = limits.limit_figure(mass, search.levels[:, 1:], **common)
        caption = f"Limit at the coupling of the largest signal against mass, {detector}."
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
    couplings = float(edges[reached, 0].min()), float(edges[reached, 1].max())
    return float(np.min(ends)), float(np.max(ends)), *couplings


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
    limit = search.limit
    values = {"cl": limit.cl, "limit": limit.expected[2], "span": _span(search)}
    return words("sentence", detector=search.detector, **values)


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


def _contours(search: Any, domain: DomainMap | None, *, theory: bool) -> list[Contour]:
    """Return the contours of all signal, of its measured part where there are data, and the observed one."""
    reach, options = search.reach, {"fraction": search.fraction, "domain": domain}
    if theory:
        contours = [Contour("signal of the channels", reach, "expected", bands=reach.bands)]
    else:
        every = Contour("extrapolated: all signal", reach, "extrapolated", bands=reach.bands, **options)
        contours = [every, Contour("measured domain only", search.measured, "measured")]
    if search.observed is not None:
        contours.append(Contour("observed", search.observed, "observed"))
    return contours


def _others(search: Any) -> list[Contour]:
    """Return thin contours: expected limit, discoveries, other protons on target."""
    cl = f"{100 * search.limit.cl:.3g} % CL limit"
    reaches = {f"{cl}, {_exposed(search)}": search.reach}
    reaches |= {rf"{z:g}$\sigma$ discovery": reach for z, reach in search.discovery.items()}
    reaches |= {f"{cl}, {_exposed(search, pot)}": reach for pot, reach in search.projections.items()}
    return [Contour(label, reach, "expected") for label, reach in reaches.items()]


def _impacts(name: str, search: Any, view: View) -> tuple[str, Any]:
    ranking = search.impacts
    figure = limits.impact_figure(
        ranking,
        mock=view.mock,
        title=f"{search.detector.name}: lower edge at {search.impact_mass:.3g} GeV",
        coupling=view.labels.coupling_symbol,
    )
    data = "the observed count" if search.observed is not None else "the median expected count"
    prefit = ranking.prefit is not None
    values = {"mass": search.impact_mass, "basis": ranking.basis or data, "prefit": prefit}
    return titled(f"impacts_{name}", words("impacts", name=search.detector.name, **values), figure)


def _text(search: Any, reached: Any, *, theory: bool) -> list[str]:
    limit: Limit = search.limit
    most = None if reached.any() else float(np.nanmax(search.reach.signal))
    values = {"limit": limit.expected[2], "cl": limit.cl, "method": limit.method, "most": most}
    text = [words("expected", detector=search.detector, assumption=search.assumption, **values)]
    if search.observed is not None:
        text.append(words("observed", limit=limit.observed, significance=search.significance))
    else:
        text.append(words("no_observation"))
    if search.background == 0:
        text.append(words("no_discovery"))
    if reached.any():
        mass, intervals = search.reach.mass, masses_reached(search.reach.intervals)
        counts = {"n": len(np.unique(mass)), "n_reached": len(np.unique(mass[reached]))}
        measured = None
        if not theory:
            low, high = np.nanmin(search.fraction), np.nanmax(search.fraction)
            measured = "Nothing" if high == 0 else f"Between {_percent(low)} and {_percent(high)} %"
        text.append(words("reached", intervals=intervals, measured=measured, **counts))
    return text


def _precision(search: Any) -> list[str]:
    """Return the uncertainties of the signal and the numerical errors of the edges."""
    text = []
    if search.spreads:
        parts = [f"{name} {100 * np.expm1(np.median(s)):.2g} %" for name, s in search.spreads.items()]
        text.append(f"Uncertainties of the signal beside protons on target (medians): {', '.join(parts)}.")
    if search.reach.errors is not None and np.isfinite(search.reach.errors).any():
        total = np.sqrt((search.reach.errors**2).sum(axis=2))
        text.append(words("precision", median=np.nanmedian(total), largest=np.nanmax(total)))
    return text


def _tables(search: Any, *, theory: bool) -> list[Table]:
    """Return what each contour needs and reaches."""
    parts = {"expected limit": search.reach}
    parts |= {} if theory else {"measured domain": search.measured}
    parts |= {"observed": search.observed} if search.observed is not None else {}
    parts |= {f"{z:g} sigma discovery": reach for z, reach in search.discovery.items()}
    parts |= {f"{pot:.3g} POT": reach for pot, reach in search.projections.items()}
    lower = [reach.edges[np.isfinite(reach.edges[:, 0]), 0] for reach in parts.values()]
    columns: dict[str, list[Any]] = {
        "contour": list(parts),
        "events": [_events(reach) for reach in parts.values()],
        "masses": [len(np.unique(r.mass[np.isfinite(r.edges[:, 0])])) for r in parts.values()],
        "lowest coupling": [f"{edges.min():.3g}" if len(edges) else "-" for edges in lower],
    }
    return [Table(columns, caption="Events at the present exposure that each contour needs")]


def _percent(share: float) -> str:
    if share < 5e-5:
        return "0"
    return f"{100 * share:.2g}" if share < 0.995 else f"{100 * share:.0f}"


def _events(reach: Reach) -> str:
    low, high = float(np.min(reach.limit)), float(np.max(reach.limit))
    return f"{low:.3f}" if high - low < 1e-3 * low else f"{low:.3f} to {high:.3f}"


def _numbers(search: Any) -> dict[str, str]:
    name = search.detector.name
    numbers = {f"expected limit, {name}": f"{search.limit.expected[2]:.3f} events"}
    numbers[f"reach, {name}"] = masses_reached(search.reach.intervals)
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
    """Return acceptance against lifetime, one figure per detector; `measured` tells of its measured part."""
    figures, numbers = [], {}
    for stem, plane in planes.items():
        name = (names or {}).get(stem, stem)
        curves = plane.curves
        masses = [] if curves is None else curves.mass.tolist()
        acceptance = {} if curves is None else dict(zip(masses, curves.acceptance, strict=True))
        errors = {} if curves is None else dict(zip(masses, curves.error, strict=True))
        part = _measured_part(plane)
        if part is not None and measured:
            numbers[f"measured part of the largest signal per mass, {name}"] = part
        if curves is not None and any((curve > 0).any() for curve in acceptance.values()):
            figure = signal.acceptance_figure(curves.ctau, acceptance, mock=mock, errors=errors)
            figure.axes[0].set_title(name, loc="left", fontsize=13)
            caption = words("acceptance", name=name, replicas=plane.effect(FLOW) is not None)
            figures.append(titled(f"acceptance_{stem}", caption, figure))
    text = ["The part of the produced particles whose decay in flight the detector sees."]
    more: dict[str, Any] = {"notes": conditions, "shown": 0}
    return Section("Acceptance of long-lived particles", text, figures, tables, numbers, **more)


def _measured_part(plane: SignalPlane) -> str | None:
    """Return the range over masses of the measured part, each at the coupling of its largest signal."""
    best = np.arange(len(plane.signal)), plane.signal.argmax(axis=1)
    total, inside = plane.signal[best], plane.in_domain[best]
    part = inside[total > 0] / total[total > 0]
    return f"{_percent(part.min())} to {_percent(part.max())} %" if len(part) else None


ROWS = 12  # masses of the table


def in_situ_section(
    scan: Any, expected: FloatArray, view: View, *, cl: float, observed: FloatArray | None, method: str
) -> Section:
    """Return the reach of the search for prompt decays in the measured pairs."""
    mass = scan.mass
    missing: BoolArray = np.isnan(expected.sum(axis=1)) | np.isinf(expected.sum(axis=1))
    levels = np.where(missing[:, None], np.nan, expected)
    seen = None if observed is None else np.where(missing, np.nan, observed)
    curves = [limit.curve for limit in view.known]
    figure = figures.coupling_figure(mass, levels, mock=view.mock, cl=cl, observed=seen, limits=curves)
    gaps = _gaps(mass, missing)
    without = f" Gaps, {gaps}: a line of free yield looks like the peak there." if gaps else ""
    measured = "Reach of the search in situ, 100 % measured: the signal is that of the pairs themselves."
    caption = f"{measured}{without} {view.others(figure)}"
    templates, smooth = scan.templates, scan.templates.background.smooth
    if smooth is not None and smooth.sum() < 0.01 * templates.pairs.sum():
        smooth = None  # the shape that a polynomial multiplies, no pairs
    lines = dict(zip(templates.background.names, templates.background.lines, strict=True))
    spectrum = figures.peak_background_figure(templates.edges, templates.pairs, smooth, lines, mock=view.mock)
    outcome = words("no_observation")
    if seen is not None:
        z = np.where(missing, -np.inf, scan.significance)
        best = int(np.argmax(z))
        at = f"{z[best]:.2f} standard deviations at {mass[best]:.3f} GeV"
        outcome = f"Largest local significance of a peak: {at}."
    text = [words("prompt"), f"{method[0].upper()}{method[1:]}.", outcome]
    templates_caption = "Opposite-sign pairs of the search with the templates of its background."
    return Section(
        "Search in situ: prompt decays to the measured pairs",
        text,
        [titled("reach_in_situ", caption, figure), titled("in_situ_pairs", templates_caption, spectrum)],
        [_table(scan, levels)],
    )


def _gaps(mass: FloatArray, missing: BoolArray) -> str:
    """Return the intervals of masses without a limit."""
    runs = np.split(np.arange(len(mass)), np.flatnonzero(np.diff(missing.astype(int))) + 1)
    return ", ".join(
        f"{mass[run[0]]:.3f} to {mass[run[-1]]:.3f} GeV" if len(run) > 1 else f"{mass[run[0]]:.3f} GeV"
        for run in runs
        if missing[run[0]]
    )


def _table(scan: Any, levels: FloatArray) -> Table:
    rows = np.unique(np.linspace(0, len(scan.mass) - 1, ROWS).astype(int))
    resolution = scan.templates.resolution.sigma(scan.mass)
    columns = {
        "mass [GeV]": scan.mass,
        "resolution [GeV]": resolution,
        "pairs in ±1.4 resolutions": scan.fits.background,
        "error of the peak": scan.fits.sigma,
        "of the model": scan.spurious,
        "signal per squared coupling": scan.signal,
        "expected limit on the coupling": levels[:, 2],
    }
    errors = {part.name: np.sqrt(np.clip(np.diag(part.cov), 0.0, None)) for part in scan.sources.parts}
    columns |= {f"relative error, {name}": error / scan.signal for name, error in errors.items()}
    cells = ((name, values[rows]) for name, values in columns.items())
    plain = {name: [float(x) if np.isfinite(x) else "-" for x in values] for name, values in cells}
    return Table(plain, caption="Search in situ: pairs, errors [pairs] and limits")


def displaced_section(
    search: Any, prompt: tuple[FloatArray, FloatArray], view: View, *, method: str
) -> Section:
    """Return the reach of the search for decays behind the target."""
    scan, best, limits = search.found, search.best, search.limits[:, 2]
    rows = np.arange(len(best))
    ratio = scan.signal[rows, best] / limits[:, None]
    plane, curves = (scan.mass, scan.coupling, ratio), [limit.curve for limit in view.known]
    figure = figures.gap_figure(prompt, plane, search.reaches, mock=view.mock, limits=curves)
    outcome = "The filled area is reached."
    if not np.isfinite(search.reaches["all"].edges).any():
        i, k = np.unravel_index(int(ratio.argmax()), ratio.shape)
        largest = {"mass": scan.mass[i], "coupling": scan.coupling[k]}
        outcome = words("not_displaced", most=ratio[i, k], **largest)
    some = np.unique(np.linspace(0, len(best) - 1, ROWS).astype(int))
    columns = {
        "mass [GeV]": scan.mass,
        "cut [standard deviations]": scan.cuts[best],
        **{name: scan.parts[rows, k, best] for k, name in enumerate(scan.names.tolist())},
        "relative error of the background": scan.log_sigma[rows, best],
        "expected limit": limits,
        "largest signal": scan.signal[rows, best].max(axis=1),
    }
    table = Table(
        {name: [float(x) for x in values[some]] for name, values in columns.items()},
        caption="Search behind the target: cut, background and limits [pairs]",
    )
    text = [words("displaced"), f"{method[0].upper()}{method[1:]}.", outcome]
    caption = "Prompt decays, decays behind the target, and published limits: the gap between them. "
    gap = titled("reach_displaced", caption + view.others(figure), figure)
    return Section("Search in situ: decays behind the target", text, [gap], [table])
