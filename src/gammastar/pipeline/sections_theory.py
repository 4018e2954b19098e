"""Report sections of production: rate beside theory, errors by source, millicharged particles."""

from __future__ import annotations

from typing import Any

import numpy as np

from gammastar import predict, report
from gammastar.core.records import FloatArray
from gammastar.pipeline.charge_limits import ChargeSearch
from gammastar.pipeline.checkpoint import Arrays
from gammastar.pipeline.context import Context
from gammastar.pipeline.producing import model_of, theory_channel
from gammastar.pipeline.results import titled
from gammastar.pipeline.signal_parts import in_use
from gammastar.pipeline.yield_errors import rate_error, rate_sources, relative_errors
from gammastar.report.theory_figures import Band, Points, band_figure, reach_lines_figure

__all__ = ["conditions", "error_tables", "millicharge_sections", "rate_section"]

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


def conditions(ctx: Context, keys: tuple[str, ...] = PRODUCTION) -> list[str]:
    """Return the conventions and assumptions whose names begin so, one line each."""
    found = {key: text for key, text in ctx.book.methods.items() if key.startswith(keys)}
    return [f"{key[0].upper()}{key[1:]}: {text}." for key, text in found.items()]


def rate_section(ctx: Context, made: Any) -> report.Section:
    """Return dark particles per proton on target and squared coupling, beside theory with its bands."""
    predicted, section = made.predicted, ctx.steering.predict
    if predicted is None or section is None:
        return report.Section("Rate", ["No rate was predicted."])
    mass, rate = predicted["mass"], predicted["rate"]
    errors = rate_error(predicted)
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
        figure = report.rate_figure(
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


def _measured_rate(predicted: Arrays) -> FloatArray | None:
    """Return the rate where dileptons were measured with its lower and upper edge, shape (n, 3)."""
    if "measured_part" not in predicted:
        return None
    error = np.sqrt(np.clip(np.diag(rate_sources(predicted).total()), 0, None))
    rate = predicted["rate"]
    edges = np.stack([np.clip(rate - error, 0.0, None), rate, rate + error], axis=1)
    found: FloatArray = edges * predicted["measured_part"][:, None]
    return found


def _rate_table(predicted: Arrays) -> report.Table:
    rows = np.unique(np.linspace(0, len(predicted["mass"]) - 1, 8).astype(int))
    rows = rows[predicted["rate"][rows] > 0]
    columns: dict[str, Any] = {"mass [GeV]": predicted["mass"][rows]}
    measured = _measured_rate(predicted)
    if measured is not None:
        columns["rate, measured part"] = measured[rows, 1]
    columns["rate"] = predicted["rate"][rows]
    for part in rate_sources(predicted).parts:
        columns[part.name] = np.sqrt(np.clip(np.diag(part.cov)[rows], 0.0, None)) / predicted["rate"][rows]
    if "extrapolation" in predicted:
        columns["extrapolation"] = predicted["extrapolation"][rows]
    columns["total"] = rate_error(predicted)[rows] / predicted["rate"][rows]
    plain = {name: [float(x) for x in values] for name, values in columns.items()}
    return report.Table(plain, caption="Relative errors of the rate by source")


def _theory_figure(ctx: Context, predicted: Arrays) -> Any:
    mass, rate = predicted["mass"], predicted["rate"]
    errors = np.stack([rate - predicted["low"], predicted["high"] - rate])
    bands = []
    for i, (key, value) in enumerate((k, v) for k, v in predicted.items() if k.startswith("channel|")):
        name = key.partition("|")[2]
        bands.append(Band(NAMES.get(name, name), mass, value, value, value, i))
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
    interaction = float(-np.expm1(-exposure.thickness))
    common = (section, ctx.code, exposure.beam_energy, interaction)
    brem = theory_channel("bremsstrahlung", *common)
    if not isinstance(brem, predict.Bremsstrahlung):
        return {}
    known = mass <= brem.kernel.largest_mass(exposure.beam_energy)
    band = np.full((len(mass), 3), np.nan)  # nothing is drawn where the kernel says nothing
    if known.any():
        central, low, high = brem.envelope(mass[known])
        band[known] = np.stack([low, central, high], axis=1)
    decays = predict.Mixture(tuple(theory_channel(name, *common) for name in COMPARED))
    rate, cov = decays.rate(mass)
    sigma = np.sqrt(np.diag(cov))
    return {
        f"bremsstrahlung, {brem.kernel.name}": band,
        "meson decays, illustrative": np.stack([np.clip(rate - sigma, 0, None), rate, rate + sigma], axis=1),
    }


def error_tables(ctx: Context, predicted: Arrays, accepted: dict[str, Arrays]) -> list[report.Table]:
    """Return the relative errors of the yields by source, one table per detector.

    "total" adds all sources in quadrature, "in the limit" those that [infer] nuisances names.
    """
    section, spectrum, mass = ctx.steering.infer, ctx.steering.spectrum, predicted["mass"]
    typed = None if section is None else section.extrapolation_sigma
    extrapolate = spectrum is None or spectrum.extrapolate
    tables = []
    at = np.linspace(mass[0], mass[-1], 6)
    for name, arrays in accepted.items():
        used = in_use(arrays, extrapolate=extrapolate, extrapolation_sigma=typed)
        columns = relative_errors(predicted, used, at, () if section is None else section.nuisances)
        if section is None:
            del columns["in the limit"]
        if columns["mass"]:
            caption = f"Relative errors of the yield at the best coupling, {name}"
            named = {"mass [GeV]" if key == "mass" else key: value for key, value in columns.items()}
            tables.append(report.Table(named, caption=caption))
    return tables


def millicharge_sections(ctx: Context, made: Any) -> list[report.Section]:
    """Return pairs per proton on target and the reach in mass and charge; nothing without the section."""
    if made.millicharge is None:
        return []
    found = [_pairs_section(ctx, made.millicharge)]
    if made.millicharge_inferred:
        accepted = made.millicharge_accepted or {}
        found.append(_charge_section(ctx, made.millicharge_inferred, accepted, made.millicharge))
    return found


def _pairs_section(ctx: Context, predicted: Arrays) -> report.Section:
    mass, rate = predicted["mass"], predicted["rate"]
    errors = np.stack([rate - predicted["low"], predicted["high"] - rate])
    bands = []
    for i, (key, value) in enumerate((k, v) for k, v in predicted.items() if k.startswith("channel|")):
        name = key.partition("|")[2]
        bands.append(Band(NAMES.get(name, name), mass, value, value, value, i))
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
    ctx: Context, searches: dict[str, ChargeSearch], accepted: dict[str, Arrays], predicted: Arrays
) -> report.Section:
    mass = predicted["mass"]
    curves, text, lowest, highest = {}, [], 1.0, 0.0
    for search in searches.values():
        edges = np.full(len(mass), np.nan)
        for m, pair in zip(search.reach.mass, search.reach.edges, strict=True):
            row = int(np.argmin(np.abs(mass - m)))
            edges[row] = np.fmin(edges[row], pair[0])
        curves[search.detector.name] = (mass, edges)
        if np.isfinite(edges).any():
            lowest, highest = min(lowest, float(np.nanmin(edges))), max(highest, float(np.nanmax(edges)))
        reached = "nothing is reached" if np.isnan(edges).all() else f"Q > {np.nanmin(edges):.2g} at best"
        ctx.book.numbers[f"reach, {search.detector.name}"] = reached
        note = "; illustrative numbers" if search.detector.illustrative else ""
        text.append(
            f"{search.detector.name}: {search.detector.pot:.3g} protons on target, {search.assumption}; "
            f"signal as Q^{search.detector.exponent} at small Q; {reached}{note}."
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
        error_tables(ctx, predicted, accepted),
    )
