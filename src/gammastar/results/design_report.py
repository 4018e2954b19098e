"""What ``gammastar design`` says: a row per point, the proposed run, sentences and a figure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from gammastar.accept.calibration import Cells, Origins, WindowScan, central_interval
from gammastar.core.records import BoolArray, FloatArray
from gammastar.physics.detector import DetectorLike
from gammastar.report.figures.kinematics import ProductionMap, production_figure
from gammastar.report.tables import Table, text_table

NOTHING = 1e-3  # part of a signal that counts as none
FEW = 30.0  # effective particles below which the protons of a point are not known


def rows_of(at: Origins, cells: Cells, chosen: tuple[int, int]) -> list[dict[str, Any]]:
    """Return what is known of each point of one mass."""
    rows: list[dict[str, Any]] = []
    maps = at.signal.reshape(*cells.shape, -1)
    for k, name in enumerate(at.names):
        over_theta, over_energy = maps[:, :, k].sum(axis=1), maps[:, :, k].sum(axis=0)
        theta = {s: central_interval(cells.theta, over_theta, s) for s in (0.68, 0.9)}
        energy = central_interval(cells.energy, over_energy, 0.9)
        protons = float(at.protons[k, *chosen])
        known = np.isfinite(protons) and at.n_effective[k] >= FEW
        rows.append(
            {
                "mass_GeV": at.mass,
                "point": name,
                "coupling": float(at.couplings[k]),
                "events": float(at.events[k]),
                "n_effective": float(at.n_effective[k]),
                "measured": float(at.measured[k]),
                "theta_68_mrad": [1e3 * angle for angle in theta[0.68]],
                "theta_90_mrad": [1e3 * angle for angle in theta[0.9]],
                "energy_90_GeV": list(energy),
                "covered": float(at.share[k, *chosen]),
                "protons": protons if known else None,
                "pairs_of_the_mass_bin": protons * at.pairs if known else None,
            }
        )
    return rows


def proposal_of(
    detector: DetectorLike,
    scan: WindowScan,
    chosen: tuple[int, int],
    rows: list[dict[str, Any]],
    asked: dict[str, Any],
) -> dict[str, Any]:
    """Return the spectrometer, the target and the protons of the run that would measure the signal.

    `asked` is what the user wants, by option.
    """
    (i, j), target = chosen, detector.target
    known = [row["protons"] for row in rows if row["protons"] is not None]
    energies = np.array([row["energy_90_GeV"] for row in rows])
    return {
        "given": asked["angles"] is not None,
        "theta_min_mrad": 1e3 * float(scan.windows.theta_min[i]),
        "theta_max_mrad": 1e3 * float(scan.windows.theta_max[j]),
        "energy_GeV": [float(energies[:, 0].min()), float(energies[:, 1].max())],
        "beam_energy_GeV": detector.beam_energy,
        "target_a": target.a,
        "target_z": target.z,
        "covers": float(scan.share[:, i, j].min()),
        "protons": {"least": min(known), "most": max(known)} if known else None,
        "points_without_protons": len(rows) - len(known),
        **{key: asked[key] for key in ("share", "precision", "thickness", "min_momentum", "background")},
    }


def table_of(rows: list[dict[str, Any]], coupling: str) -> str:
    """Return the rows as text."""

    def span(row: dict[str, Any], key: str) -> str:
        return f"{row[key][0]:.3g} – {row[key][1]:.3g}"

    return text_table(
        Table(
            {
                "m [GeV]": [row["mass_GeV"] for row in rows],
                "point": [row["point"] + (" *" if row["n_effective"] < FEW else "") for row in rows],
                coupling: [f"{row['coupling']:.3g}" for row in rows],
                "events": [f"{row['events']:.3g}" for row in rows],
                "measured": [f"{row['measured']:.1%}" for row in rows],
                "θ, 68 % [mrad]": [span(row, "theta_68_mrad") for row in rows],
                "θ, 90 % [mrad]": [span(row, "theta_90_mrad") for row in rows],
                "E, 90 % [GeV]": [span(row, "energy_90_GeV") for row in rows],
                "covered": [f"{row['covered']:.0%}" for row in rows],
                "protons": ["–" if row["protons"] is None else f"{row['protons']:.2g}" for row in rows],
            }
        )
    )


def sentences(detector: DetectorLike, proposal: dict[str, Any], rows: list[dict[str, Any]]) -> list[str]:
    """Return the sentences below the table."""
    parts = np.array([row["measured"] for row in rows])
    if parts.max() < NOTHING:
        measured = (
            f"no measured pair lies in the region of {detector.name}: its whole signal is extrapolated, "
            "and what follows rests on that extrapolation"
        )
    else:
        measured = f"measured: {parts.min():.1%} to {parts.max():.1%} of the signal"
        measured += "; the rest of the map is extrapolated" if parts.min() < 1 - NOTHING else ""
    low, high = proposal["theta_min_mrad"], proposal["theta_max_mrad"]
    first, last = proposal["energy_GeV"]
    word, covered = "given" if proposal["given"] else "proposed", proposal["covers"]
    spectrometer = (
        f"{word}: both leptons between {low:g} and {high:g} mrad and "
        f"above {proposal['min_momentum']:g} GeV, pairs of {first:.3g} to {last:.3g} GeV; protons of "
        f"{detector.beam_energy:g} GeV on {proposal['thickness']:g} interaction lengths of A = "
        f"{detector.target.a:g}"
    )
    covers = (
        f"it covers {covered:.1%} of the signal at the least (cells of angle and energy of which it sees a "
        "tenth of the pairs)"
    )
    if covered < proposal["share"]:
        why = "other angles would cover more" if proposal["given"] else "softer leptons would have to be seen"
        covers += f"; less than the wanted {proposal['share']:.1%}: {why}"
    lines = [measured, spectrometer, covers]
    protons, number = proposal["protons"], "unknown"
    if protons is not None:
        ends = dict.fromkeys(f"{protons[end]:.2g}" for end in ("least", "most"))
        number = " to ".join(ends)
    lines.append(
        f"protons on target to know the signal to {100 * proposal['precision']:.3g} % from the number of "
        f"pairs: {number}" + ("" if proposal["background"] else "; random pairs multiply them by 1 + 2 B/S")
    )
    if any(row["n_effective"] < FEW for row in rows):
        lines.append(
            f"* fewer than {FEW:g} effective particles behind this point: raise -n to know its protons"
        )
    return lines


def figure_of(
    found: Sequence[Origins],
    cells: Cells,
    proposal: dict[str, Any],
    measured: Callable[[float, FloatArray, FloatArray], BoolArray],
    *,
    mock: bool,
    title: tuple[str, str],
) -> Figure:
    """Return the figure: maps of the signal of at most three masses, what was measured, the spectrometer.

    `title`: name of the detector, and symbol of the coupling.
    """
    name_of_detector, symbol = title
    chosen = found if len(found) <= 3 else [found[0], found[len(found) // 2], found[-1]]
    angles, energies = (np.geomspace(x[0], x[-1], 240) for x in (cells.theta, cells.energy))
    rows = []
    for at in chosen:
        domain = measured(at.photon_mass, angles, energies)
        maps = at.signal.reshape(*cells.shape, -1)
        rows.append(
            [
                ProductionMap(
                    f"{at.mass:g} GeV, {name}, {symbol} = {at.couplings[k]:.2g}",
                    maps[:, :, k],
                    at.measured[k],
                    domain,
                )
                for k, name in enumerate(at.names)
            ]
        )
    corner = 2 * proposal["min_momentum"]
    box = (1e-3 * proposal["theta_min_mrad"], 1e-3 * proposal["theta_max_mrad"]), corner
    return production_figure(
        rows,
        (cells.theta, cells.energy),
        (angles, energies),
        box,
        mock=mock,
        title=name_of_detector,
    )
