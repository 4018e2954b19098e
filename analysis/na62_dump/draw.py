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
from matplotlib.figure import Figure
from relic import relic_coupling
from search_figures import (
    alp_figure,
    background_figure,
    calibration_figure,
    detector_figure,
    domain_figure,
    plane_maps,
    region_figure,
    vertex_figure,
)

from gammastar import report
from gammastar.core.files import data_path
from gammastar.core.records import FloatArray, Reach

BREM = ("bremsstrahlung",)
LABEL = {"ee": "$e^+e^-$", "mumu": r"$\mu^+\mu^-$"}


def polygon(name: str) -> FloatArray:
    """Return a shipped curve, shape (n, 2)."""
    lines = data_path(f"measurements/{name}.csv").read_text().splitlines()
    rows = [line.split(",") for line in lines if line and line[0].isdigit()]
    return np.array(rows, dtype=np.float64)


def limits() -> list[tuple[str, FloatArray]]:
    """Return the existing limits that may be shipped, as polygons."""
    return [
        ("FASER", polygon("na62_overlay_faser")),
        ("SN1987A", polygon("na62_overlay_sn1987a")),
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


def exclusion(made: plane.Plane, found: dict[str, Reach], folder: Path) -> None:
    """Draw figure 4: ee, and both channels, each with and without mesons."""
    frame = report.Plane(mass_range=(0.01, 0.75), coupling_range=(8e-8, 2e-4), threshold=None)
    for name, states in (("ee", ("ee",)), ("combined", ("ee", "mumu"))):
        expected = likelihood.expected_contour(made, states, modes=BREM)
        contours = [
            report.Contour("expected, bremsstrahlung", expected, "expected", bands=expected.bands),
            report.Contour("ours, bremsstrahlung", found[f"{name} bremsstrahlung"], "observed"),
            report.Contour("ours, with mesons", found[f"{name} all"], "observed"),
        ]
        if name == "combined":
            alone = found["mumu bremsstrahlung"]
            contours.append(report.Contour(r"ours, $\mu\mu$, bremsstrahlung", alone, "observed"))
        figure = report.reach_figure(contours, mock=False, pot=plane.POT, limits=limits(), plane=frame)
        ax = figure.axes[0]
        line = polygon("na62_dump_ee_observed")
        ax.plot(*np.vstack([line, line[:1]]).T, color="black", linestyle="-.", linewidth=1.5)
        masses = np.geomspace(0.01, 0.75, 300)
        ax.plot(masses, relic_coupling(masses), color="0.35", linestyle=":", linewidth=1.5)
        handles = [*ax.get_legend().legend_handles]
        labels = [text.get_text() for text in ax.get_legend().get_texts()]
        extra = [ax.lines[-2], ax.lines[-1]]
        ax.legend(
            [*handles, *extra],
            [*labels, "NA62 ee, published", "relic density (card)"],
            loc="upper right",
            fontsize=9,
        )
        save(figure, folder, f"fig4_{name}")


def alps(events: float, folder: Path) -> dict[str, float]:
    """Draw figure 5; return the smallest product of branching ratios per mass."""
    detector = replace(alp.loose_detector(), cuts=Search.read().detector.cuts)
    curves, best = {}, {}
    for mass in alp.card()["masses"]:
        label = f"{1e3 * mass:g} MeV"
        curves[label] = alp.product_limit(mass, alp.LIFETIMES, events, plane.POT, detector)
        best[label] = float(np.nanmin(curves[label]))
    charm = polygon("na62_alp_charm_m220")
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


def dimuons(found: DataDriven, theory: Reach, folder: Path) -> None:
    """Draw the contour from MOCK dimuons, split by where dimuons were measured, over the published one."""
    nothing = not np.isfinite(found.measured_reach.edges).any()
    contours = [
        report.Contour("from MOCK dimuons, extrapolated", found.reach, "extrapolated"),
        report.Contour("the same, measured kinematics only", found.measured_reach, "measured"),
        report.Contour("bremsstrahlung and mesons (theory)", theory, "expected"),
    ]
    frame = report.Plane(mass_range=(0.1, 1.1), coupling_range=(8e-8, 2e-4))
    figure = report.reach_figure(contours, mock=True, pot=plane.POT, limits=limits()[:1], plane=frame)
    ax = figure.axes[0]
    line = polygon("na62_dump_ee_observed")
    (published,) = ax.plot(*np.vstack([line, line[:1]]).T, color="black", linestyle="-.", linewidth=1.5)
    legend = ax.get_legend()
    handles = [*(legend.legend_handles if legend else []), published]
    labels = [*([text.get_text() for text in legend.get_texts()] if legend else []), "NA62 ee, published"]
    ax.legend(handles, labels, loc="upper right", fontsize=10)
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
