"""The computations behind the figures: planes, P_miss, scale of NA64, and the page that shows them."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import belle2
import cosmology
import exact_brem
import figures
import numpy as np
import verdict
import verdict_figures

from gammastar import report, semivisible
from gammastar.core.files import data_path
from gammastar.core.sampling import stream
from gammastar.physics.qed import RTable
from gammastar.semivisible import babar, gm2
from gammastar.semivisible.decays import decay_table
from gammastar.store.manifest import versions, write_text

M = 1.25
NEEDED = 2.1e-2  # ε of the talk's example at 1.25 GeV
NOT_MODELLED = (
    "LDMX, T2K and SBN: the sources at hand give no numbers; no line is drawn",
    "relic density: departure of the dark states from equilibrium with each other",
    "Belle II: background, efficiency of displaced tracks and of the trigger, later steps of a cascade",
    "spin correlations of the ψ, tracking efficiency, photon conversions, beam-energy mixture of BaBar",
    "electron showers beyond the first generation, positron annihilation (marked in the figures)",
    "electroweak precision ceiling, ε < 3e-2 (recalled, not drawn)",
    "W and Z exchange in ψ → ν ee",
)


def everything(options, models: dict, visible: dict, tell) -> dict:
    """Draw all figures, write the page and return the numbers."""
    folder = options.output / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    limits = {name: _published(name, options.curves) for name in ("babar", "na64_2016_18", "na64_2016_22")}
    numbers: dict[str, object] = {"full curves": {name: limit.full for name, limit in limits.items()}}
    sections, notes = [], []
    tell("(g−2)μ panels")
    panels = figures.muon_panels(np.geomspace(0.01, 8.0, 200), limits, _visible(options.curves, visible))
    sections.append(_section("Visible and invisible dark photons", [("Explanations of (g−2)μ.", panels)]))
    planes = []
    for name, title in models.items():
        tell(f"plane of {name}")
        plane = _plane(name, options, limits)
        planes.append((name, plane))
        notes += plane.warnings[:1]
        more = _more(name, plane, options)
        where = exact_brem.annihilation_masses(semivisible.load_na64())
        figure = figures.exclusion_plane(plane, title, limits, where, more)
        caption = f"{name}: excluded couplings; dark and light blue are the ends of BaBar's band."
        sections.append(_section(name, [(caption, figure)]))
        numbers[name] = _numbers(plane, limits) | _lines(plane, more)
        _write_intervals(options.output / f"excluded_{name}.csv", plane, limits)
    tell("P_miss")
    sections.append(_section("Missing momentum at BaBar", _missing(options, numbers)))
    sections.append(_seesaw(limits, options, numbers, tell))
    tell("NA64: check of scale")
    sections.append(_section("Scale of NA64", [_scale(limits, numbers)]))
    names = ("gm2", *(f"plane_{name}" for name in models), "pmiss_threshold", "pmiss_mass", "leptons")
    names += ("seesaw_coupling", "seesaw_masses", "seesaw_mediators", "seesaw_neutrinos")
    drawn = [figure for section in sections for _, figure in section.figures]
    for name, figure in zip((*names, "na64_scale"), drawn, strict=True):
        report.save_figure(figure, folder / name)
    sections.append(report.Section("Not modelled", NOT_MODELLED))
    cards = (
        semivisible.load_babar(),
        semivisible.load_na64(),
        cosmology.load_cosmology(),
        belle2.load_displaced(),
    )
    unverified = [text for card in cards for text in card.unverified]
    unverified += [f"(g−2)μ: {gm2.reference(name).source}" for name in _unverified_moments()]
    unverified += [f"benchmark {name}: {semivisible.load_benchmark(name).source}" for name in models]
    source = report.Provenance(
        versions=versions(),
        seeds={"planes": 1, "P_miss": 2, "inverse seesaw": 5},
        methods={
            "BaBar": "ε² P_miss(M, ε) > ε_lim(M)²; flight by analytic survival",
            "NA64": "ε² P(M, ε) > ε_lim(M)²; energies from bremsstrahlung in a thick target",
            "(g−2)μ": gm2.reference().source,
            "relic density": "coannihilation ψψ → A′*, chemical equilibrium of the ψ, ± 2.5 % in ε",
            "Belle II": "photon and one displaced pair, no background",
        },
        placeholders=[*unverified, *notes],
    )
    text = report.page("Semi-visible dark photons", sections, mock=False, provenance=source)
    write_text(options.output / "report.html", text)
    numbers["unverified"] = unverified
    return numbers


def _section(heading: str, drawn: list) -> report.Section:
    return report.Section(heading, figures=drawn)


def _published(name: str, folders: list[Path]):
    for folder in folders:
        found = semivisible.published(name, folder)
        if found.full:
            return found
    return semivisible.published(name)


def _visible(folders: list[Path], files: dict) -> list:
    """Return the limits on visible dark photons that the folders hold (columns mass_GeV, eps_lower)."""
    curves = []
    for folder in folders:
        for name, label in files.items():
            if (folder / name).is_file():
                lines = (folder / name).read_text().splitlines()
                rows = csv.DictReader(line for line in lines if not line.startswith("#"))
                table = np.array([(float(row["mass_GeV"]), float(row["eps_lower"])) for row in rows])
                curves.append((label, table[table[:, 1] < 1.0]))
    return curves


def _events(point, *, quick: bool) -> int:
    """Return events per mass: cascades of several decays take longer per event."""
    several = point.kind == "inverse_seesaw"
    return 8_000 if quick else 20_000 if several else 60_000


def _plane(name: str, options, limits):
    """Scan a plane; masses of shipped points are among its masses."""
    quick = options.quick
    point = semivisible.load_benchmark(name)
    first = 0.4 if point.mediator else 0.02
    own = [limit.mass for limit in limits.values() if not limit.full]
    every = np.concatenate([np.geomspace(first, 7.9, 16 if quick else 32), *own])
    every = np.unique(every[(every >= first) & (every <= 7.9)].round(12))
    mass = every[np.append(np.diff(np.log(every)) > 1e-6, True)]
    epsilon = np.geomspace(1e-5, 0.1, 41 if quick else 61)
    setting = semivisible.Options(
        n=_events(point, quick=quick), polarised=options.polarised, s_channel=options.s_channel
    )
    return semivisible.scan(point.sector, mass, epsilon, options=setting)


def _unverified_moments() -> list[str]:
    return [name for name in gm2.reference_names() if not gm2.reference(name).verified]


def _more(name: str, plane, options):
    """Return the lines of cosmology and the projection of Belle II."""
    point = semivisible.load_benchmark(name)
    n = 4_000 if options.quick else 20_000
    setting = semivisible.Options(n=n)
    events = belle2.displaced_plane(point.sector, plane.mass, plane.epsilon, options=setting)
    over = events / belle2.load_displaced().events
    if point.mediator:  # its lightest state decays or is a neutrino's partner: no dark matter
        return figures.More(displaced=over)
    coarse = np.geomspace(plane.mass[0], plane.mass[-1], 8 if options.quick else 24)
    hadrons = RTable.read(data_path("measurements/r_ratio.csv"))
    target = cosmology.relic_target(point.sector, coarse, r_table=hadrons)
    relic = np.exp(np.interp(np.log(plane.mass), np.log(coarse), np.log(target)))
    cmb = np.array([cosmology.cmb_limit(point.sector(float(m))) for m in plane.mass])
    return figures.More(relic=relic, cmb=cmb, displaced=over)


def _lines(plane, more) -> dict:
    """Return the lines of cosmology as numbers."""
    found = {}
    for label, line in (("relic target", more.relic), ("CMB limit", more.cmb)):
        if line is not None and np.isfinite(line).any():
            found[label] = {f"{m:.3g}": float(f"{e:.4g}") for m, e in zip(plane.mass, line, strict=True)}
    return found


def _numbers(plane, limits) -> dict:
    """Return the free part of the (g−2)μ band of 2020, by mass, for the ends of BaBar's band."""
    known = limits["babar"].known(plane.mass)
    mass = plane.mass[known]
    band = gm2.reference("wp20").band(mass)
    hidden = semivisible.excess(plane.epsilon, plane.strict[known], limits["na64_2016_18"].at(mass))
    free = {"mass": mass.round(4).tolist()}
    for label, p in (("nominal", plane.babar), ("low", plane.babar_low), ("high", plane.babar_high)):
        height = semivisible.excess(plane.epsilon, p[known], limits["babar"].at(mass))
        free[label] = semivisible.allowed(band, plane.epsilon, height, hidden).round(3).tolist()
    return {"free part of the 2020 band": free, "warnings": list(plane.warnings[:3])}


def _write_intervals(path: Path, plane, limits) -> None:
    """Write the excluded intervals of every search as a table."""
    lines = ["search,mass_GeV,epsilon_low,epsilon_high,clipped_side"]
    cases = (
        ("BaBar", plane.babar, "babar"),
        ("BaBar, low end of the band", plane.babar_low, "babar"),
        ("BaBar, high end of the band", plane.babar_high, "babar"),
        ("NA64 strict", plane.strict, "na64_2016_18"),
        ("NA64 inclusive", plane.inclusive, "na64_2016_18"),
    )
    for label, p, name in cases:
        known = limits[name].known(plane.mass)
        mass = plane.mass[known]
        reach = semivisible.intervals(mass, plane.epsilon, p[known], limits[name].at(mass))
        for m, (low, high), side in zip(reach.mass, reach.edges, reach.clipped_side, strict=True):
            if np.isfinite(low):
                lines.append(f'"{label}",{m:.6g},{low:.6g},{high:.6g},"{side}"')
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _missing(options, numbers: dict) -> list:
    n = 40_000 if options.quick else 300_000
    card = replace(semivisible.load_babar(), radius=np.inf)
    thresholds = np.linspace(0.0, 0.25, 26)
    named = {
        "iDM-040": "iDM, Δ = 0.4",
        "iDM-010": "iDM, Δ = 0.1",
        "scalar-040": "scalar, Δ = 0.4",
        "i2DM-talk": "i2DM, Δ = 0.4",
        "AHP2020-B": "inverse seesaw B",
    }
    edges = np.geomspace(1e-3, 10.0, 61)
    curves, spectra, table = {}, {}, {}
    for name, label in named.items():
        events = babar.cascades(
            decay_table(semivisible.load_benchmark(name).sector(M)), card, n, stream(2, name)
        )
        found = [
            babar.missing(events, replace(card, threshold=t), [1.0], stream(2), band=False)
            for t in thresholds
        ]
        curves[label] = tuple(np.array([getattr(p, key)[0] for p in found]) for key in ("value", "error"))
        harder = np.maximum(events.particle[..., 3], events.antiparticle[..., 3])[events.filled]
        spectra[label] = np.histogram(harder, edges)[0]
        table[name] = {f"{1e3 * t:g} MeV": found[k].value[0] for k, t in enumerate(thresholds) if k % 5 == 0}
    numbers["P_miss, prompt, 1.25 GeV"] = table
    mass = np.geomspace(0.3, 7.9, 8 if options.quick else 16)
    by_mass = {}
    for name in ("iDM-040", "i2DM-talk"):
        model, rng = semivisible.load_benchmark(name).sector, stream(3, name)
        found = [semivisible.prompt_missing(decay_table(model(float(m))), card, n // 30, rng) for m in mass]
        by_mass[named[name]] = tuple(
            np.array([getattr(p, k)[0] for p in found]) for k in ("value", "low", "high")
        )
    needed = float(_published("babar", options.curves).at(M) / NEEDED) ** 2
    return [
        ("P_miss against the threshold.", figures.missing_against_threshold(thresholds, curves, needed, M)),
        ("P_miss against the mass.", figures.missing_against_mass(mass, by_mass)),
        ("Energy of the harder lepton.", figures.lepton_energies(edges, spectra, M)),
    ]


def _seesaw(limits, options, numbers: dict, tell) -> report.Section:
    """Return what an inverse seesaw needs to explain the anomaly of 2020."""
    found = verdict.everything(limits, quick=options.quick, tell=tell)
    limit = float(limits["babar"].at(M))
    points = found["points"]
    first = points[0]
    drawn = [
        ("P_miss of inverse seesaws against α_D.", verdict_figures.against_coupling(points, limit, M)),
        ("Smallest α_D over splitting and mixing.", verdict_figures.over_masses(found["maps"], limit, M)),
        ("What (g−2)μ leaves over mass and α_D.", verdict_figures.over_mediators(found["masses"])),
        (
            "P_miss against the mixing of ψ₁ with neutrinos.",
            verdict_figures.against_neutrinos(found["neutrinos"], first.point.label, limit, M),
        ),
    ]
    columns = {
        "point": [one.point.label.replace("$", "") for one in points],
        "BR(11), BR(12)": [
            f"{one.share.get((0, 0), 0):.3f}, {one.share.get((0, 1), 0):.3f}" for one in points
        ],
        **{
            f"P_miss, prompt, above {1e3 * t:g} MeV": [_pm(*one.prompt[t]) for one in points]
            for t in first.prompt
        },
        **{f"P_miss at α_D = {a:g}": [_pm(*one.missing[a]) for one in points] for a in first.missing},
        "smallest α_D (centre)": [_least(one.least["centre", "value"]) for one in points],
        "with the low end of BaBar's band": [_least(one.least["centre", "low"]) for one in points],
        "with its high end": [_least(one.least["centre", "high"]) for one in points],
    }
    ends = {name: verdict.needed(e, limit) for name, e in verdict.couplings().items()}
    numbers["inverse seesaw, 1.25 GeV"] = {
        "P_miss needed": {name: float(f"{p:.4g}") for name, p in ends.items()},
        "table": columns,
    }
    caption = f"Needed at 1.25 GeV: {', '.join(f'{p:.2e} ({name})' for name, p in ends.items())}."
    return report.Section(
        "What an inverse seesaw needs",
        figures=drawn,
        tables=[report.Table(columns, caption)],
        open_tables=True,
    )


def _pm(value: float, error: float) -> str:
    """Return a probability and its statistical error."""
    power = int(np.floor(np.log10(max(value, 1e-12))))
    return f"({value / 10.0**power:.2f} ± {error / 10.0**power:.2f})e{power}"


def _least(alpha: float) -> str:
    if not np.isfinite(alpha):
        return "none"
    return "any" if alpha <= verdict.ALPHA_D[0] else f"{alpha:.2g}"


def _scale(limits, numbers: dict) -> tuple:
    card = semivisible.load_na64()
    low = max(limits["na64_2016_18"].mass[0], limits["na64_2016_22"].mass[0], 0.004)
    points = [limit.mass for name, limit in limits.items() if name.startswith("na64") and not limit.full]
    mass = np.unique(np.concatenate([np.geomspace(low, 0.9, 30), *points]).round(12))
    mass = mass[(mass >= low) & (mass <= 0.9)]
    ours = {}
    for name, eot in (("na64_2016_18", 2.84e11), ("na64_2016_22", 9.37e11)):
        selection = replace(card, eot=eot)
        ours[name, eot] = np.array([exact_brem.invisible_limit(float(m), selection) for m in mass])
        known = limits[name].known(mass)
        ratio = (ours[name, eot][known] / limits[name].at(mass[known])) ** 2
        numbers[f"implied efficiency, {name}"] = {
            f"{m:.3g}": round(float(r), 3) for m, r in zip(mass[known], ratio, strict=True)
        }
    figure = figures.na64_scale(mass, ours, limits, exact_brem.annihilation_masses(card))
    return ("Published limits over bremsstrahlung with efficiency one; green: 0.25 to 0.8.", figure)
