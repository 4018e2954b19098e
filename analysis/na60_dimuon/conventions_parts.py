"""Yields of `conventions.py`: dimuons and the conventions of today's tools, where dimuons were measured."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from gammastar import accept, flow, infer, report
from gammastar.accept.expected_events import Sight
from gammastar.accept.plane import importance_of, watched
from gammastar.core.files import data_path
from gammastar.core.records import FloatArray, Sample
from gammastar.core.sampling import stream
from gammastar.physics.bremsstrahlung import preset
from gammastar.physics.mesons import MesonTable
from gammastar.pipeline.stages.accept import measured_of
from gammastar.pipeline.stages.predict import model_of
from gammastar.predict.channel import Channel
from gammastar.predict.production import scan_masses
from gammastar.predict.theory import Bremsstrahlung, PseudoscalarDalitz, VectorDalitz, VectorMixing
from gammastar.report.style import COLOURS, LINES, log_mass_axis, mark_mock, new_figure, say, styled
from gammastar.results.design import OpenRun, carried, open_run
from gammastar.store.manifest import write_table

POINTS = ("lower edge", "largest signal")
N_MASSES, COUPLINGS = 24, np.geomspace(1e-9, 1e-3, 121)
LIMIT = 2.3026  # events at 90 % CL without background
FEW, LEAST = 30.0, 0.01  # effective particles of either prediction, and measured part, of a comparison
LAMBDAS = (1.0, 1.5, 2.0)  # GeV, the three tables of bremsstrahlung that FORESEE ships
CONVENTIONS = {
    "foresee": "FORESEE-like: mesons + bremsstrahlung of 2108.05900, Λ = 1 – 2 GeV",
    "eventcalc": "EventCalc-like: its yield and envelope, p-Mo",
}


@dataclass(frozen=True)
class Row:
    """One detector, mass and point of the contour. Ratios (low, central, high) are to the dimuons.

    `error`: relative, of the dimuons: spectrum, protons on target, replicas of the flow, finite sample.
    """

    detector: str
    point: str
    mass: float
    coupling: float
    measured: float
    events: float
    error: float
    foresee: tuple[float, float, float]
    eventcalc: tuple[float, float, float]
    known: bool


@dataclass(frozen=True)
class Found:
    """All rows; `names` by detector; `mock` of the run."""

    rows: list[Row]
    names: dict[str, str]
    mock: bool


def compare(results: Path, detectors: Sequence[str], n: int, n_masses: int = N_MASSES) -> Found:
    """Return the yields of all detectors at all masses."""
    runs = [open_run(results, name) for name in detectors]
    first, table = runs[0], eventcalc()
    low, high = first.production.mass_range
    inside = [m for m in table if low < m < high]
    grid = scan_masses(first.production.parts[0], low + 0.02, min(high, 1.1), n_masses)
    masses = np.unique(np.round(np.concatenate([grid, inside]), 6))
    members = flow.load_variations(results)
    rows: list[Row] = []
    for mass in (float(m) for m in masses):
        views = [View(run, mass) for run in runs]
        made = Made.at(views, n, members)
        for view in views:
            rows += _rows(view, made, table.get(mass))
    names = {run.name: run.detector.name for run in runs}
    return Found(rows, names, first.ctx.cache.mock)


def eventcalc() -> dict[float, tuple[float, float, float]]:
    """Return lower, central and upper yield per proton and ε² at the masses of the table [GeV]."""
    lines = data_path("measurements/ap_yield_400gev.csv").read_text().splitlines()
    rows = csv.DictReader(line for line in lines if not line.startswith("#"))
    return {float(r["mass_GeV"]): tuple(float(r[k]) for k in ("lower", "central", "upper")) for r in rows}


class View:
    """What one detector sees of particles of one mass."""

    def __init__(self, run: OpenRun, mass: float) -> None:
        self.run, self.mass = run, mass
        states = run.ctx.steering.accept.final_states
        self.states = tuple(s for s in states if s in run.detector.efficiency) or states
        self.measured = measured_of(run.ctx, run.production)

    def sight(self, couplings: FloatArray, *, data: bool = True) -> Sight:
        """Return the view at some couplings; `data`: of the measured target, else per proton of its own."""
        measured, detector = self.measured if data else None, self.run.detector
        return Sight.of(self.mass, couplings, model_of(self.run.ctx), detector, self.states, measured)

    def __call__(
        self, sample: Sample, couplings: FloatArray, *, data: bool = False, replicas: FloatArray | None = None
    ) -> accept.AcceptedYield:
        """Return yields, with those of replicas of the kinematics."""
        sight = self.sight(couplings, data=data)
        rng = stream(self.run.ctx.seed, "conventions", self.run.name, f"{self.mass:.6f}", int(data))
        found, _ = watched(sight, sample, rng)
        return sight.expected(found, None if replicas is None else replicas[:, found.index])


@dataclass(frozen=True)
class Made:
    """Dark photons of one mass from the dimuons and from the channels of theory, per interacting proton.

    `replicas`: weights (r, n) of the flow's replicas; `error`: relative, of the rate.
    """

    mass: float
    dimuons: Sample
    replicas: FloatArray | None
    error: float
    mesons: tuple[tuple[Sample, float], ...]
    bremsstrahlung: tuple[Sample, ...]

    @classmethod
    def at(cls, views: Sequence[View], n: int, members: flow.FlowVariations | None) -> Made:
        """Return the samples of a mass, the dimuons with more particles where the detectors see them."""
        run, mass = views[0].run, views[0].mass
        production, beam, name = run.production, run.production.exposure.beam_energy, f"{mass:.6f}"
        photon, seed = production.parts[0], run.ctx.seed
        sights = [view.sight(COUPLINGS) for view in views]
        importance = importance_of(sights, stream(seed, "conventions", "importance", name))
        dimuons = photon.focused(mass, n=n, rng=stream(seed, "conventions", name), importance=importance)
        value, cov = photon.rate([mass])
        error = np.hypot(np.sqrt(cov[0, 0]) / value[0], production.exposure.pot_sigma)
        replicas = None
        if members is not None:
            pt, energy = (np.asarray(c, dtype=np.float64) for c in (dimuons.p4.pt, dimuons.p4.E))
            replicas = members.weights(np.full(n, mass), pt, energy)
        table = MesonTable.read(data_path("measurements/mesons_400gev.toml"))
        mesons = []
        for leaf in (PseudoscalarDalitz, VectorDalitz, VectorMixing):
            channel = leaf(table, beam)
            rate, rate_cov = channel.rate([mass])
            if rate[0] > 0:
                sample = _drawn(run, channel, mass, n)
                mesons.append((sample, float(np.sqrt(rate_cov[0, 0]) / rate[0])))
        kernel = preset("qra_v1")
        brem = [Bremsstrahlung(replace(kernel, off_shell=scale), beam) for scale in LAMBDAS]
        samples = tuple(_drawn(run, channel, mass, n) for channel in brem)
        return cls(mass, dimuons, replicas, float(error), tuple(mesons), samples)


def _drawn(run: OpenRun, channel: Channel, mass: float, n: int) -> Sample:
    """Return particles of a theory channel that know where dimuons were measured."""
    rng = stream(run.ctx.seed, "conventions", channel.group, f"{mass:.6f}")
    sample = channel.produce(mass, n=n, rng=rng)
    pt, energy = (np.asarray(c, dtype=np.float64) for c in (sample.p4.pt, sample.p4.E))
    return replace(sample, in_domain=run.state.training.in_domain(np.full(n, mass), pt, energy))


def _rows(view: View, made: Made, total: tuple[float, float, float] | None) -> list[Row]:
    """Return the rows of one detector at one mass; none where no dark photon reaches it."""
    run, mass = view.run, made.mass
    depth = stream(run.ctx.seed, "conventions", run.name, "depth", f"{mass:.6f}")
    dimuons = carried(run, run.detector, made.dimuons, depth)
    whole = view(dimuons, COUPLINGS, data=True).signal
    edges = infer.reach([mass], COUPLINGS, whole[np.newaxis], LIMIT).edges
    if not whole.max() > 0:
        return []
    points = [np.nanmin(edges[:, 0]) if np.isfinite(edges).any() else np.nan, COUPLINGS[np.argmax(whole)]]
    at = np.array([p for p in points if np.isfinite(p)])
    names = [name for name, p in zip(POINTS, points, strict=True) if np.isfinite(p)]
    every = view(dimuons, at, data=True)
    part = every.in_domain_fraction
    own = dimuons.in_domain
    if not own.any():
        return [_nothing(run, names[k], mass, at[k]) for k in range(len(at))]
    replicas = None if made.replicas is None else made.replicas[:, own]
    data = view(dimuons.part(own), at, data=True, replicas=replicas)
    spread = 0.0 if data.replicas is None else np.std(data.replicas, axis=0, ddof=1)
    predicted, fewest = _theory(view, made, at)
    rows = []
    for k, name in enumerate(names):
        events = float(data.signal[k])
        if not part[k] >= LEAST or min(float(data.n_effective[k]), fewest[k]) < FEW:
            rows.append(_nothing(run, name, mass, at[k], float(part[k])))
            continue
        finite = np.broadcast_to(spread, at.shape)[k], data.mc_error[k]
        error = float(np.linalg.norm([made.error, *(x / events for x in finite)]))
        per_rate = predicted[1, k] / predicted[3, k]  # the table is a rate: kinematics are ours
        table = (np.nan,) * 3 if total is None else tuple(t * per_rate / events for t in total)
        ratios = tuple(float(x) for x in predicted[:3, k] / events)
        rows.append(
            Row(run.name, name, mass, float(at[k]), float(part[k]), events, error, ratios, table, True)
        )
    return rows


def _nothing(run: OpenRun, point: str, mass: float, coupling: float, measured: float = 0.0) -> Row:
    """Return a row without a comparison: nothing, or too little, of the signal was measured."""
    none = (np.nan,) * 3
    return Row(run.name, point, mass, float(coupling), measured, 0.0, np.nan, none, none, False)


def _theory(view: View, made: Made, at: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return low, central, high events and the rate per interaction (4, k), and effective particles (k,)."""
    chance = view.run.detector.target.interaction_probability
    found, square, effective, rate = np.zeros(len(at)), np.zeros(len(at)), np.zeros(len(at)), 0.0
    for sample, sigma in made.mesons:
        if sample.in_domain.any():
            seen = view(sample.part(sample.in_domain), at)
            found, square = found + seen.signal, square + (sigma * seen.signal) ** 2
            effective = np.maximum(effective, seen.n_effective)
        rate += float(sample.weight.sum())
    ends = []
    for sample in made.bremsstrahlung:
        own = sample.in_domain
        ends.append(view(sample.part(own), at).signal if own.any() else np.zeros(len(at)))
    rate += float(made.bremsstrahlung[1].weight.sum())
    low, central, high = (np.array(end) for end in ends)
    down, up = (np.sqrt(square + (end - central) ** 2) for end in (low, high))
    middle = found + central
    return np.stack(
        [*(chance * x for x in (middle - down, middle, middle + up)), np.full(len(at), rate)]
    ), effective


@styled
def _figure(found: Found):
    """Return the ratios over the mass, a row per detector, a column per point."""
    names = [name for name in found.names if any(r.known for r in found.rows if r.detector == name)]
    figure, axes = new_figure(
        max(len(names), 1), 2, size=(11.5, 1.9 + 3.1 * max(len(names), 1)), share_x=True
    )
    colours = {"foresee": COLOURS[0], "eventcalc": COLOURS[2]}
    for name, line in zip(names, axes, strict=False):
        for point, ax in zip(POINTS, line, strict=True):
            rows = sorted(
                (r for r in found.rows if (r.detector, r.point) == (name, point) and r.known),
                key=lambda r: r.mass,
            )
            ax.set_title(f"{found.names[name]}: {point}", fontsize=11)
            ax.set(yscale="log", ylim=(0.05, 800.0), xlim=(0.22, 1.12))
            log_mass_axis(ax)
            mark_mock(ax, found.mock, position=(0.03, 0.06))
            if not rows:
                say(ax, "no contour,\nor less than 1 % of it measured")
                continue
            mass, error = np.array([r.mass for r in rows]), np.array([r.error for r in rows])
            ax.fill_between(mass, 1 - error, 1 + error, color="0.75", linewidth=0, label="dimuons, ± 1σ")
            ax.axhline(1.0, color="black", linewidth=1.4)
            band = np.array([r.foresee for r in rows])
            label = CONVENTIONS["foresee"]
            ax.fill_between(mass, band[:, 0], band[:, 2], color=colours["foresee"], alpha=0.3, linewidth=0)
            ax.plot(mass, band[:, 1], color=colours["foresee"], linestyle=LINES[0], label=label)
            other = np.array([[r.mass, *r.eventcalc] for r in rows if np.isfinite(r.eventcalc[1])])
            if len(other):
                bars = [other[:, 2] - other[:, 1], other[:, 3] - other[:, 2]]
                ax.errorbar(
                    *(other[:, 0], other[:, 2], bars),
                    fmt="o",
                    color=colours["eventcalc"],
                    markersize=4,
                    label=CONVENTIONS["eventcalc"],
                )
    for ax in axes[:, 0]:
        ax.set_ylabel("yield over that of dimuons")
    for ax in axes[-1]:
        ax.set_xlabel("$m_{A′}$ [GeV]")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    without = [title for name, title in found.names.items() if name not in names]
    note = f"nothing measured: {', '.join(without)}" if without else ""
    title = "yields from kinematics in which dimuons were measured" + (f"; {note}" if note else "")
    figure.legend(handles, labels, loc="outside upper center", ncols=3, fontsize=10, title=title)
    return figure


def draw(found: Found, stem: Path) -> None:
    """Write the figure."""
    report.save_figure(_figure(found), stem)


def write(found: Found, path: Path) -> list[str]:
    """Write the table, and return a summary line per detector and point."""

    def text(value: float) -> str:
        return "" if not np.isfinite(value) else f"{value:.4g}"

    rows = sorted(found.rows, key=lambda r: (r.detector, r.point, r.mass))
    columns = {
        "data": ["MOCK" if found.mock else "measured"] * len(rows),
        "detector": [r.detector for r in rows],
        "point": [r.point for r in rows],
        "mass_GeV": [f"{r.mass:.6g}" for r in rows],
        "coupling": [text(r.coupling) for r in rows],
        "measured_part": [text(r.measured) for r in rows],
        "events_in_domain": [text(r.events) if r.known else "" for r in rows],
        "relative_error": [text(r.error) for r in rows],
    }
    for key in CONVENTIONS:
        for k, end in enumerate(("low", "central", "high")):
            columns[f"{key}_{end}_over_dimuons"] = [text(getattr(r, key)[k]) for r in rows]
    write_table(path, columns)
    lines = []
    for name, title in found.names.items():
        for point in POINTS:
            mine = [r for r in rows if (r.detector, r.point) == (name, point)]
            known = [r for r in mine if r.known]
            if not known:
                top = max((r.measured for r in mine), default=0.0)
                lines.append(f"{title}, {point}: at most {top:.2%} measured, no comparison")
                continue
            part = [r.measured for r in known]
            spans = []
            for key in CONVENTIONS:
                values = [getattr(r, key)[1] for r in known if np.isfinite(getattr(r, key)[1])]
                middle = np.median(values) if values else np.nan
                spans.append(f"{key} {min(values):.2g} to {max(values):.2g}, median {middle:.2g}")
            lines.append(
                f"{title}, {point}: {known[0].mass:.2f} to {known[-1].mass:.2f} GeV, "
                f"{min(part):.0%} to {max(part):.0%} measured; over dimuons: {'; '.join(spans)}"
            )
    return [f"{'MOCK: ' if found.mock else ''}{line}" for line in lines]
