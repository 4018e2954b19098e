"""Envelope figure, Figs. 2 and 3 of the paper."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
from envelope_run import BREMSSTRAHLUNG, MESONS, RATE, Inputs, brem, light_mesons, mesons, sigma

from gammastar import report
from gammastar.core.constants import M_MU, M_PI0
from gammastar.core.files import data_path
from gammastar.core.records import FloatArray
from gammastar.physics.bremsstrahlung import band, preset
from gammastar.physics.mesons import MesonTable
from gammastar.physics.millicharge import from_dark_photons
from gammastar.predict.millicharge import chi_rate, resonance_rate
from gammastar.predict.theory import JPsi
from gammastar.report.figures.signal import (
    Band,
    Points,
    band_figure,
)
from gammastar.report.style import header


def _relative(label: str, x: FloatArray, y: FloatArray, sigma: float, colour: int) -> Band:
    return Band(label, x, y, (1 - sigma) * y, (1 + sigma) * y, colour)


def envelope(run: Inputs, table: MesonTable, output: Path, mock: bool) -> dict:
    """Today's predictions per interacting proton, and the measured rate."""
    lines = data_path("measurements/ap_yield_400gev.csv").read_text().splitlines()
    rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    column = {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}
    mass = np.geomspace(0.02, 1.5, 400)
    central, low, high = brem(run, 1.0).envelope(mass)
    decays, error = mesons(run, table, 1.0, mass)
    bands = [
        Band(
            "EventCalc, lower to upper (p-Mo)",
            column["mass_GeV"],
            column["central"],
            column["lower"],
            column["upper"],
            None,
        ),
        Band(BREMSSTRAHLUNG, mass, central, low, high, 2),
        Band(MESONS, mass, decays, decays - error, decays + error, 0),
    ]
    bands += _real()
    scale = 1.0 / run.interaction
    points = Points(run.name, run.mass, run.rate.value * scale, sigma(run) * scale)
    figure = band_figure(
        points,
        bands,
        x_label="$m_{A′}$ [GeV]",
        y_label=r"$N_{A′}$ / interacting proton / $\varepsilon^2$",
        x_range=(0.02, 1.6),
        y_range=(1e-5, 1e4),
        mock=mock,
    )
    header(figure, "400 GeV protons")
    masses = [0.3, 0.5, 0.77, 1.02]
    spread = np.interp(masses, column["mass_GeV"], column["upper"] / column["lower"])
    style = {"va": "center", "fontsize": 11, "color": "0.25", "zorder": 8}
    figure.axes[0].text(0.26, 2.5e-5, "upper / lower:", ha="right", **style)
    for m, factor in zip(masses, spread, strict=True):
        text = f"×{factor:.1f}" if factor < 2 else f"×{factor:.0f}"
        figure.axes[0].text(m, 2.5e-5, text, ha="center", **style)
    report.save_figure(figure, output / "envelope")
    ours = np.interp(masses, run.mass, run.rate.relative())
    return {
        "upper over lower of EventCalc": dict(zip(map(str, masses), spread.round(2).tolist(), strict=True)),
        "relative error of the rate": dict(zip(map(str, masses), ours.round(3).tolist(), strict=True)),
        "by source at 0.5 GeV": {
            source: round(float(np.interp(0.5, run.mass, run.rate.relative(source))), 3)
            for source in run.rate.sources.names
        },
        "bremsstrahlung": brem(run, 1.0).describe(),
        "mesons": table.source,
    }


def _real() -> list[Band]:
    """Return the partial rate from NA60's published form factors; none in a copy without that analysis."""
    folder = Path(__file__).resolve().parents[1] / "na60_2016"
    if not (folder / "measured_dalitz.py").is_file():
        return []
    sys.path.insert(0, str(folder))
    from measured_dalitz import partial_rate

    mass = np.linspace(0.2125, 0.63, 80)
    rate, error = partial_rate(mass, "lead")
    return [Band("PARTIAL, real: NA60 η and ω Dalitz", mass, rate, rate - error, rate + error, 1)]


def dark_photons(run: Inputs, table: MesonTable, output: Path, mock: bool) -> dict:
    """Fig. 2: the yield per proton on target beside bremsstrahlung."""
    mass = np.geomspace(run.edges[0], run.edges[-1], 400)
    central, low, high = brem(run, run.interaction).envelope(mass)
    decays, error = mesons(run, table, run.interaction, mass)
    bands = [
        Band(BREMSSTRAHLUNG, mass, central, low, high, 2),
        Band(MESONS, mass, decays, decays - error, decays + error, 0),
    ]
    points = Points(run.name, run.mass, run.rate.value, sigma(run))
    figure = band_figure(
        points,
        bands,
        x_label="$m_{A′}$ [GeV]",
        y_label=RATE,
        x_range=(run.edges[0], run.edges[-1]),
        y_range=(1e-7, 30.0),
        mock=mock,
    )
    header(figure, f"400 GeV p, A = {run.exposure.target_a:.0f}, {run.exposure.thickness:g} λ")
    report.save_figure(figure, output / "fig2_dark_photons")
    return {"mass": run.mass.tolist(), "rate": run.rate.value.tolist(), "sigma": sigma(run).tolist()}


def millicharge(run: Inputs, table: MesonTable, output: Path, mock: bool) -> dict:
    """Fig. 3: pairs per proton on target and Q² against the mass of χ."""
    chi = np.geomspace(0.005, 1.5, 120)
    pairs, cov = run.density * np.diff(run.edges), run.cov * np.outer(np.diff(run.edges), np.diff(run.edges))
    value, error = chi_rate(run.edges, pairs, cov, chi, M_MU)
    spread = np.sqrt(np.diag(error) + (run.exposure.pot_sigma * value) ** 2)
    beam, p = run.exposure.beam_energy, run.interaction
    pion, *others = light_mesons(run, table)
    from_pions = from_dark_photons(lambda m: pion.rate(m)[0], chi, M_PI0)
    lighter = from_dark_photons(lambda m: sum(c.rate(m)[0] for c in others), chi, 2 * M_MU)
    onia = resonance_rate(JPsi(table, beam, p), chi)
    curves = []
    few = np.geomspace(0.005, 1.45, 80)
    for kernel in (preset("qra_v2"), *band(preset("qra_v2"))):
        grid = np.geomspace(2 * few[0], 3.0, 3000)
        tabulated = p * kernel.rate(grid, beam)
        curves.append(
            from_dark_photons(lambda m, t=tabulated, g=grid: np.interp(m, g, t), few, 3.0, panels=400)
        )
    dalitz = r"$\eta,\eta',\omega$ Dalitz, $m_{\chi\chi}<2m_\mu$"
    bands = [
        _relative(r"$\pi^0\to\gamma\chi\bar\chi$", chi, from_pions, table.mesons["pi0"].sigma, 0),
        _relative(dalitz, chi, lighter, table.mesons["eta"].sigma, 1),
        _relative(r"$J/\psi\to\chi\bar\chi$", chi, onia, table.mesons["jpsi"].sigma, 3),
        Band(BREMSSTRAHLUNG, few, *curves, 2),
    ]
    points = Points("MOCK dimuons, Eq. 8" if mock else "dimuons, Eq. 8", chi, value, spread, line=True)
    figure = band_figure(
        points,
        bands,
        x_label=r"$m_\chi$ [GeV]",
        y_label=r"$N_{\chi\bar\chi}$ / POT / $Q^2$",
        x_range=(0.005, 1.6),
        y_range=(1e-11, 1e-2),
        mock=mock,
    )
    header(figure, f"pairs; 400 GeV p, A = {run.exposure.target_a:.0f}, {run.exposure.thickness:g} λ")
    report.save_figure(figure, output / "fig3_millicharged_pairs")
    at = [0.01, 0.1, 0.3, 0.5]
    return {"pairs per POT and Q2": {str(m): float(np.interp(m, chi, value)) for m in at}}
