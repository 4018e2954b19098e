"""Draw the figures of docs/idea.md: ``python3 docs/figures/idea.py results/na60_dimuon``."""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import uproot

import gammastar as gs
from gammastar.core.files import data_path
from gammastar.physics.qed import RTable, kappa
from gammastar.predict import DarkPhoton
from gammastar.report import house_style

HERE = Path(__file__).parent
BLUE, ORANGE, GREY, RED = "#3f6fd8", "#e8851a", "0.55", "#d62f3c"
LEPTON = 0.1056583755  # GeV, of the muons that were measured


def wave(ax: plt.Axes, start: tuple[float, float], end: tuple[float, float], *, colour: str) -> None:
    """Draw a wavy line, as photons have it in diagrams."""
    along = np.linspace(0, 1, 200)
    a, b = np.array(start), np.array(end)
    normal = np.array([-(b - a)[1], (b - a)[0]]) / np.hypot(*(b - a))
    points = a + along[:, None] * (b - a) + 0.07 * np.sin(12 * np.pi * along)[:, None] * normal
    ax.plot(*points.T, color=colour, linewidth=2)


def diagram() -> plt.Figure:
    """Draw the two processes side by side: the same collision, and only the last step differs."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.0), layout="constrained")
    shown = (
        (
            axes[0],
            BLUE,
            r"virtual photon $\gamma^*$",
            r"$\mu^+$",
            r"$\mu^-$",
            "seen: a muon pair of mass $m$",
        ),
        (axes[1], ORANGE, r"dark photon $A^\prime$", r"$e^+,\ \mu^+$", r"$e^-,\ \mu^-$", ""),
    )
    for ax, colour, name, plus, minus, text in shown:
        ax.set(xlim=(-0.1, 5.7), ylim=(-1.1, 1.4), aspect="equal")
        ax.axis("off")
        ax.annotate("", (1.0, 0.0), (0.0, 0.0), arrowprops={"arrowstyle": "->", "linewidth": 2})
        ax.text(0.02, 0.13, "proton")
        ax.add_patch(plt.Circle((1.25, 0), 0.27, color="0.75"))
        ax.text(1.0, -0.5, "nucleus", ha="right", fontsize=11)
        for slope in (-1.2, -0.9, 0.9, 1.2):
            ax.plot([1.42, 1.95], [0.2 * slope, 0.2 * slope + 0.5 * slope], color=GREY, linewidth=1)
        ax.text(2.05, -0.85, "hadrons: the same in both", color="0.35", fontsize=10)
        end = 3.3 if text else 4.2
        wave(ax, (1.52, 0), (end, 0), colour=colour)
        ax.text(0.5 * (1.7 + end), 0.24, name, ha="center", color=colour)
        for sign, label in ((1, plus), (-1, minus)):
            ax.plot([end, end + 0.8], [0, 0.45 * sign], color="black", linewidth=1.6)
            ax.text(end + 0.85, 0.45 * sign, label, va="center")
        ax.text(
            2.7, 1.15, text or "not seen here: it decays far away, behind shielding", ha="center", fontsize=12
        )
    return figure


def spectra(folder: Path, found: gs.Results) -> plt.Figure:
    """Draw pairs, virtual photons and dark photons of the run below each other's arrows."""
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13.5, 4.2), layout="constrained")
    with uproot.open(folder / "pairs.root") as file:
        plus_minus, edges = file["opposite_sign"].to_numpy()
        like = 2 * np.sqrt(file["plus_plus"].values() * file["minus_minus"].values())
    left.stairs(plus_minus, edges, color="black", label="opposite sign: $+-$")
    left.stairs(like, edges, color=GREY, fill=True, alpha=0.5, label=r"chance pairs: $2\sqrt{N_{++}N_{--}}$")
    left.set(yscale="log", ylabel="pairs per bin", ylim=(100, 1.5e5))
    left.set_title("1  Measured pairs", loc="left")
    table = found.spectrum.to_pandas().groupby(["mass_low", "mass_high"])["value"].sum().reset_index()
    edges = np.append(table["mass_low"], table["mass_high"].iloc[-1])
    density = table["value"].to_numpy() / np.diff(edges)
    middle.stairs(density, edges, color=BLUE, linewidth=2)
    middle.set(yscale="log", ylabel="photons per proton and GeV")
    middle.set_title("2  Virtual photons", loc="left")
    rate = found.rate
    right.plot(rate.mass, rate.value, color=ORANGE, linewidth=2, label="rate of the run")
    centre = 0.5 * (edges[1:] + edges[:-1])
    right.plot(
        centre,
        density * centre / (2 * kappa(centre, LEPTON)),
        "o",
        color=BLUE,
        markersize=5,
        label=r"panel 2 $\times\ m/2\kappa(m)$",
    )
    right.set(yscale="log", ylabel=r"dark photons per proton / $\varepsilon^2$")
    right.set_title("3  Dark photons", loc="left")
    for ax in (left, middle, right):
        ax.set_xlabel("mass [GeV]")
        ax.text(0.97, 0.96, "MOCK", transform=ax.transAxes, ha="right", va="top", color=RED, weight="bold")
    left.legend(loc="upper center", fontsize=10, bbox_to_anchor=(0.45, 1.0))
    right.legend(loc="lower left", fontsize=10)
    return figure


def edges(found: gs.Results, detector: str, mass: float) -> plt.Figure:
    """Draw where a dark photon of one mass decays, and the events of a detector, against the coupling."""
    figure, (upper, lower) = plt.subplots(2, 1, figsize=(7, 6.2), sharex=True, layout="constrained")
    model = DarkPhoton(RTable.read(data_path("measurements/r_ratio.csv")))
    plane = found.signal[detector]
    at = int(np.argmin(np.abs(plane.rate.mass - mass)))
    coupling, mass = plane.coupling, float(plane.rate.mass[at])
    start, end, energy = 10.0, 30.0, 15.0  # m, m, GeV: of the drawing
    length = np.array([model.at(mass, one).ctau for one in coupling]) * np.sqrt((energy / mass) ** 2 - 1)
    before, beyond = 1 - np.exp(-start / length), np.exp(-end / length)
    upper.plot(coupling, before, color=GREY, label="before the detector")
    upper.plot(coupling, 1 - before - beyond, color=ORANGE, linewidth=2.5, label="inside")
    upper.plot(coupling, beyond, color=BLUE, label="beyond it")
    upper.set(xscale="log", ylabel="where it decays", ylim=(0, 1.35))
    upper.legend(ncols=3, fontsize=10, loc="upper center")
    events = plane.signal[at]
    lower.plot(coupling, events, color="black", linewidth=2)
    lower.axhline(2.3, color=RED, linestyle="--")
    lower.text(2.8e-5, 3.2, "2.3 events", color=RED, fontsize=11, ha="right")
    inside = coupling[events > 2.3]
    lower.axvspan(inside[0], inside[-1], color=ORANGE, alpha=0.2)
    lower.text(np.sqrt(inside[0] * inside[-1]), 0.02, "within reach", ha="center", color="#a85a00")
    lower.set(
        yscale="log",
        ylim=(0.01, 10 * events.max()),
        ylabel="events seen",
        xlim=(3e-9, 3e-5),
        xlabel=r"coupling $\varepsilon$",
    )
    lower.text(0.97, 0.95, "MOCK", transform=lower.transAxes, ha="right", va="top", color=RED, weight="bold")
    upper.set_title(f"mass {mass:.2f} GeV", loc="right", fontsize=11)
    return figure


def main(folder: Path) -> None:
    """Draw and save all three."""
    found = gs.load(folder)
    with house_style():
        drawn = {"diagram": diagram(), "spectra": spectra(folder, found)}
        drawn["edges"] = edges(found, "shadows_like", 0.3)
        for name, figure in drawn.items():
            figure.savefig(HERE / f"idea_{name}.png", dpi=80)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
