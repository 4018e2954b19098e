"""The figures of the letter that our inputs allow, and the two that go beyond it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import alp
import control_samples
import likelihood
import numpy as np
import plane
from cuts import Search
from from_dimuons import Calibration, DataDriven, Kinematics
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from meson_study import Decays, Verdict, share_allowed
from published_edges import DIGITISED, OBSERVED, vertices
from relic import relic_coupling
from search_figures import (
    alp_figure,
    background_figure,
    calibration_figure,
    detector_figure,
    domain_figure,
    mesons_figure,
    plane_maps,
    region_figure,
    vertex_figure,
)

from gammastar import report
from gammastar.core.records import FloatArray, Reach
from gammastar.report.style import COLOURS

BREM = ("bremsstrahlung",)
ALL_MESONS = "all mesons at our yield: more than published"
LABEL = {"ee": "$e^+e^-$", "mumu": r"$\mu^+\mu^-$"}


def limits() -> list[tuple[str, FloatArray]]:
    """Return the existing limits that may be shipped, as polygons."""
    return [
        ("FASER", vertices("na62_overlay_faser")),
        ("SN1987A", vertices("na62_overlay_sn1987a")),
    ]


def save(figure: Figure, folder: Path, name: str) -> None:
    """Write PNG and PDF."""
    report.save_figure(figure, folder / name)


def layout(search: Search, folder: Path) -> None:
    """Draw figure 1: the dump, the volume and the planes from the side."""
    detector = search.detector
    _, y, z = detector.target.position
    volume = detector.volume
    outlines = {
        "TAX": [np.array([(z, y - 0.3), (z + 3.2, y - 0.3), (z + 3.2, y + 0.3), (z, y + 0.3)])],
        "fiducial volume": [
            np.array([(volume.z0, -1.0), (volume.z1, -1.0), (volume.z1, 1.0), (volume.z0, 1.0)])
        ],
    }
    planes = {}
    for p in detector.planes:
        half = min(p.half_x, p.r_max)
        planes[p.name] = (p.z, -half, half)
    figure = detector_figure(outlines, mock=False, planes=planes, title="NA62, beam-dump mode")
    figure.axes[0].set_ylabel("$y$ [m]")
    save(figure, folder, "fig1_layout")


def control(search: Search, estimate: control_samples.Estimate, folder: Path) -> None:
    """Draw figures 2 and 3, from MOCK control samples, and the posterior of the background."""
    position, _ = search.vertex(estimate.pairs)
    low, high = search.numbers["vertex"]["z"]
    fiducial = [(low, 0.0), (high, 0.0), (high, 1.05), (low, 1.05)]
    rho = np.hypot(position[:, 0], position[:, 1])
    title = "ee pairs of halo muons that interact"
    save(
        vertex_figure(position[:, 2], rho, fiducial=fiducial, mock=True, title=title), folder, "fig2_vertices"
    )
    z, cda = search.tax(estimate.pairs)
    seen = search.visible(estimate.pairs, "ee")
    region, outer = search.numbers["signal_region"]["ee"], search.numbers["control_region"]
    figure = region_figure(
        z[seen],
        cda[seen],
        ellipse=(region["z"], region["half_z"], region["cda"]),
        control=(*outer["z"], outer["cda"]),
        masked=bool(search.numbers["masked"]),
        mock=True,
        title="ee pairs without the vetoes",
    )
    save(figure, folder, "fig3_regions")


def posterior(draws: dict[str, FloatArray], folder: Path) -> None:
    """Draw the background of the ee channel: published shape and MOCK control sample."""
    figure = background_figure(draws, published=(2.2e-3, 9.4e-3, 30.0e-3), mock=True)
    save(figure, folder, "fig_background")


def exclusion(made: plane.Plane, found: dict[str, Reach], isolation: dict[str, Reach], folder: Path) -> None:
    """Draw figure 4: the observation of the letter on our yields, beside what the letter excludes.

    Bremsstrahlung alone is the recast; the line with all mesons lies beyond the published limit and is drawn
    as a line. `isolation` holds the contour of ee at both sides of the range of the isolation.
    """
    wide = report.Plane(mass_range=(0.01, 0.75), coupling_range=(8e-8, 2e-4), threshold=None)
    near = report.Plane(mass_range=(0.2, 0.7), coupling_range=(1.5e-7, 8e-6), threshold=None)
    for name, states in (("ee", ("ee",)), ("mumu", ("mumu",)), ("combined", ("ee", "mumu"))):
        expected = likelihood.expected_contour(made, states, modes=BREM)
        contours = [
            report.Contour("expected, bremsstrahlung", expected, "expected", bands=expected.bands),
            report.Contour("recast, bremsstrahlung alone", found[f"{name} bremsstrahlung"], "observed"),
            report.Contour(ALL_MESONS, found[f"{name} all mesons"], "expected"),
        ]
        if name == "combined":
            alone = found["mumu bremsstrahlung"]
            contours.append(report.Contour(r"recast, $\mu\mu$, bremsstrahlung", alone, "observed"))
        frame = near if name == "mumu" else wide
        figure = report.reach_figure(contours, mock=False, pot=plane.POT, limits=limits(), plane=frame)
        ax = figure.axes[0]
        extra = [_published(ax, state) for state in states]
        if name == "ee":
            extra.append(_isolation(ax, isolation))
        if name != "mumu":
            masses = np.geomspace(0.01, 0.75, 300)
            extra += ax.plot(
                masses, relic_coupling(masses), color="0.35", linestyle=":", label="relic density (card)"
            )
        handles = [*ax.get_legend().legend_handles, *extra]
        labels = [text.get_text() for text in ax.get_legend().get_texts()]
        labels += [str(handle.get_label()) for handle in extra]
        ax.legend(handles, labels, loc="upper right", fontsize=8.5)
        save(figure, folder, f"fig4_{name}")


def _published(ax: Axes, state: str) -> Line2D:
    """Draw the published contour of a channel: ee as a line, mumu as the points that are cited."""
    points, label = vertices(OBSERVED[state]), f"NA62 {LABEL[state]}, published"
    if state == "ee":
        return ax.plot(*np.vstack([points, points[:1]]).T, "k-.", linewidth=1.5, label=label)[0]
    look = {"markersize": 4.0, "markerfacecolor": "white", "zorder": 6}
    return ax.plot(*points.T, "ko", label=f"{label} (points)", **look)[0]


def _isolation(ax: Axes, sides: dict[str, Reach]) -> PolyCollection:
    """Fill between the edges for the two sides of the range of the isolation."""
    mass = sides["low"].mass
    patch = None
    for k in (0, 1):
        edges = [sides[side].edges[:, k] for side in ("low", "high")]
        look = {"color": COLOURS[5], "alpha": 0.45, "linewidth": 0, "zorder": 5}
        patch = ax.fill_between(mass, *edges, label="isolation, range of its card", **look)
    return patch


def mesons(made: Decays, verdicts: list[Verdict], folder: Path) -> None:
    """Draw what the published lower edge holds of our mesons, and what is left by each explanation."""
    shares: dict[str, list[tuple[float, float, float]]] = {}
    for (state, mass), found in made.items():
        for group in ("pi0", "others"):
            if group in found and (group == "pi0" or mass > 0.13):
                name = r"$\pi^0$" if group == "pi0" else r"$\eta$ and heavier"
                label = f"{name}, {LABEL[state]}"
                shares.setdefault(label, []).append((mass, *share_allowed(found, state, mass, (group,))))
    shares = {label: [row for row in rows if row[2] < 0.4] for label, rows in shares.items()}
    keys = list(made)
    lines = {}
    for verdict in verdicts:
        reading = verdict.explanation
        number = f": {verdict.value:.3g} {reading.unit}".rstrip() if len(reading.values) > 1 else ""
        name = reading.name.replace("π⁰", r"$\pi^0$").replace("E₀", "$E_0$")
        lines[f"{name}{number}"] = verdict.residual[:, 0]
    figure = mesons_figure(
        {label: np.array(rows).T for label, rows in shares.items()},
        lines,
        points=(np.array([m for _, m in keys]), np.array([s == "mumu" for s, _ in keys])),
        digitised=DIGITISED,
    )
    save(figure, folder, "fig11_mesons")


def alps(events: float, folder: Path) -> dict[str, float]:
    """Draw figure 5; return the smallest product of branching ratios per mass."""
    detector = replace(alp.loose_detector(), cuts=Search.read().detector.cuts)
    curves, best = {}, {}
    for mass in alp.card()["masses"]:
        label = f"{1e3 * mass:g} MeV"
        curves[label] = alp.product_limit(mass, alp.LIFETIMES, events, plane.POT, detector)
        best[label] = float(np.nanmin(curves[label]))
    charm = vertices("na62_alp_charm_m220")
    others = {"CHARM, 220 MeV (ALPINIST)": (charm[:, 0], charm[:, 1])}
    save(alp_figure(alp.LIFETIMES, curves, others=others, pot=plane.POT), folder, "fig5_alp")
    return best


def maps(made: plane.Plane, folder: Path) -> None:
    """Draw figures 6, 7 and 8: efficiency, yield and mass resolution, of both channels."""
    for state in plane.STATES:
        part = made.mass > plane.THRESHOLD[state]
        mass = made.mass[part]

        def take(attribute: str, factor: float = 1.0, state: str = state, part=part) -> dict[str, FloatArray]:
            layers = {}
            for mode in plane.MODES:
                layer = made.layers[mode, state]
                populated = layer.signal[part] > 1e-3
                values = factor * getattr(layer, attribute)[part]
                layers[f"{mode}, {LABEL[state]}"] = np.where(populated, values, np.nan)
            return layers

        label = "selection efficiency of decays in the volume"
        figure = plane_maps(mass, made.coupling, take("efficiency"), label=label)
        save(figure, folder, f"fig6_efficiency_{state}")
        save(
            plane_maps(
                mass,
                made.coupling,
                take("signal"),
                label="expected events",
                log=True,
                limits=(1e-2, 1e4),
            ),
            folder,
            f"fig7_yield_{state}",
        )
        label = "mass resolution [MeV]"
        figure = plane_maps(mass, made.coupling, take("resolution", 1e3), label=label)
        save(figure, folder, f"fig8_resolution_{state}")


def dimuons(found: DataDriven, theory: dict[str, Reach], folder: Path) -> None:
    """Draw the contour from MOCK dimuons, split by where dimuons were measured, over the published one."""
    nothing = not np.isfinite(found.measured_reach.edges).any()
    contours = [
        report.Contour("from MOCK dimuons, extrapolated", found.reach, "extrapolated"),
        report.Contour("the same, measured kinematics only", found.measured_reach, "measured"),
        report.Contour("theory, bremsstrahlung alone", theory["bremsstrahlung"], "expected"),
        report.Contour(f"theory, {ALL_MESONS}", theory["all mesons"], "expected"),
    ]
    frame = report.Plane(mass_range=(0.1, 1.1), coupling_range=(8e-8, 2e-4))
    figure = report.reach_figure(contours, mock=True, pot=plane.POT, limits=limits()[:1], plane=frame)
    ax = figure.axes[0]
    published = [_published(ax, state) for state in ("ee", "mumu")]
    legend = ax.get_legend()
    handles = [*(legend.legend_handles if legend else []), *published]
    labels = [text.get_text() for text in legend.get_texts()] if legend else []
    labels += [str(line.get_label()) for line in published]
    ax.legend(handles, labels, loc="upper right", fontsize=9)
    if nothing:
        note = "no accepted $A'$ has kinematics in which\ndimuons were measured: all is extrapolated"
        ax.text(0.03, 0.87, note, transform=ax.transAxes, fontsize=9.5, va="top")
    save(figure, folder, "fig9_dimuons")


def calibrations(found: dict[str, Calibration], folder: Path) -> None:
    """Draw what a dimuon run needs."""
    curves = {name: (c.theta_min, c.fraction, c.pot) for name, c in found.items()}
    save(calibration_figure(curves, share=0.9, precision=0.10), folder, "fig10_calibration")


def kinematics(found: Kinematics, folder: Path) -> None:
    """Draw what the dumps accept beside what the dimuons measured."""
    figure = domain_figure(
        found.accepted,
        energy_edges=found.energy_edges,
        pt_edges=found.pt_edges,
        domain=found.domain,
        mock=True,
    )
    save(figure, folder, "fig9_kinematics")
