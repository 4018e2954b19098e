"""What NA60's form factors of 2016 say of A' at 400 GeV: ``python3 analysis/na60_2016/rates.py [RESULTS]``.

Writes form factors with their fits, branching fractions and the PARTIAL rate beside theory: figures,
``rate_*.csv`` and ``numbers.json``. With RESULTS of ``gammastar run analysis/na60_2016/steering.toml`` also
the reach of both dumps.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "analysis"))

from _venv import reenter  # noqa: E402

LABEL = {"eta": r"$\eta\to\gamma\mu^+\mu^-$", "omega": r"$\omega\to\pi^0\mu^+\mu^-$"}
PARTIAL = r"$\eta,\omega$ Dalitz: measured $|F|^2$ (PARTIAL)"
DUMPS = {
    "shadows_like": ("reach.csv", "off-axis, SHADOWS-like"),
    "na62_dump": ("reach_na62_dump.csv", "NA62 dump"),
}


def fits() -> dict:
    """Return the pole fits and branching fractions as plain numbers."""
    from form_factors import DECAYS, PUBLISHED, FormFactor2, dimuon_fraction, fit_pole

    from gammastar.core import constants

    found = {}
    for meson, (value, statistical, systematic) in PUBLISHED.items():
        measured = FormFactor2.read(meson)
        fixed, free = fit_pole(measured), fit_pole(measured, free_norm=True)
        dimuon, table = dimuon_fraction(measured, fixed), constants.BRANCHING[DECAYS[meson][1]]
        found[meson] = {
            "inverse Lambda2 [GeV^-2]": [float(fixed.value[0]), float(fixed.error[0])],
            "published": [value, statistical, systematic],
            "chi2, ndf": [fixed.chi2, fixed.ndf],
            "free norm: inverse Lambda2, N": free.value.tolist(),
            "free norm: covariance": free.cov.tolist(),
            DECAYS[meson][1]: [dimuon.value, dimuon.points, dimuon.common, dimuon.photons],
            "Particle Data Group": [table.value, table.error],
        }
    return found


def form_factor_figure():
    """Return the points of both mesons over their fitted pole, and the published one."""
    import numpy as np
    from form_factors import PUBLISHED, FormFactor2, fit_pole

    from gammastar.physics.hadrons import eta2
    from gammastar.report import style

    with style.house_style():
        figure, axes = style.new_figure(2, 2, size=(10.4, 6.6), heights=(2.6, 1.0), share_x=True)
        for column, (meson, (value, *errors)) in enumerate(PUBLISHED.items()):
            measured = FormFactor2.read(meson)
            fit, edges = fit_pole(measured), np.append(measured.low, measured.high[-1])
            mass = np.linspace(*measured.mass_range, 300)
            above, below = axes[:, column]
            sigma = float(np.hypot(*errors))
            low, high = (eta2(mass**2, value + k * sigma) for k in (-1, 1))
            own, centre = fit.at(mass), 0.5 * (edges[1:] + edges[:-1])
            band = rf"published, $\Lambda^{{-2}}$ = {value} ± {errors[0]} ± {errors[1]}"
            above.fill_between(mass, low, high, color=style.BAND68, linewidth=0, label=band)
            line = rf"fit of the points, {fit.value[0]:.3f} ± {fit.error[0]:.3f} GeV$^{{-2}}$"
            above.plot(mass, own, color=style.COLOURS[0], label=line)
            style.points(above, edges, measured.value, measured.error, label="NA60 2016, total errors")
            below.fill_between(mass, low / own, high / own, color=style.BAND68, linewidth=0)
            below.axhline(1, color=style.COLOURS[0])
            scale = fit.at(centre)
            style.points(below, edges, measured.value / scale, measured.error / scale)
            above.set(yscale="log", ylim=(0.6, 40 if meson == "eta" else 900), title=LABEL[meson])
            below.set(xlabel=r"$m_{\mu\mu}$ [GeV]", ylim=(0.4, 1.6), xlim=measured.mass_range)
            above.legend(loc="upper left", fontsize=10)
        axes[0, 0].set_ylabel("$|F|^2$")
        axes[1, 0].set_ylabel("points / fit")
        style.header(figure, "p-A, 400 GeV, arXiv:1608.07898")
    return figure


def rate_figure():
    """Return the PARTIAL rate on lead beside theory, per interacting proton."""
    import numpy as np
    from measured_dalitz import partial_rate

    from gammastar.core.files import data_path
    from gammastar.physics.bremsstrahlung import preset
    from gammastar.physics.mesons import MesonTable
    from gammastar.predict import Bremsstrahlung, PseudoscalarDalitz, VectorDalitz, VectorMixing
    from gammastar.report.figures.signal import Band, Points, band_figure
    from gammastar.report.style import header

    table = MesonTable.read(data_path("measurements/mesons_400gev.toml"))
    lines = data_path("measurements/ap_yield_400gev.csv").read_text().splitlines()
    rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    event_calc = [
        np.array([float(row[name]) for row in rows]) for name in ("mass_GeV", "central", "lower", "upper")
    ]
    mass = np.geomspace(0.1, 1.2, 400)
    brem = Bremsstrahlung(preset("qra_v2"), 400.0).envelope(mass)
    channels = [leaf(table, 400.0).rate(mass) for leaf in (PseudoscalarDalitz, VectorDalitz, VectorMixing)]
    all_mesons = sum(rate for rate, _ in channels)
    spread = np.sqrt(sum(np.diag(cov) for _, cov in channels))
    own = np.linspace(0.2125, 0.6375, 86)
    bands = [
        Band("EventCalc, lower to upper (p-Mo)", *event_calc, None),
        Band(r"bremsstrahlung, $\Lambda$ = 0.75 – 3 GeV", mass, *brem, 2),
        Band("all mesons, p-Pb, modelled", mass, all_mesons, all_mesons - spread, all_mesons + spread, 0),
    ]
    figure = band_figure(
        Points(PARTIAL, own, *partial_rate(own, "lead"), line=True),
        bands,
        x_label="$m_{A′}$ [GeV]",
        y_label=r"$N_{A′}$ / interacting proton / $\varepsilon^2$",
        x_range=(0.1, 1.2),
        y_range=(1e-4, 1e3),
        mock=False,
    )
    header(figure, "400 GeV protons; ours on lead")
    return figure


def reach_figure(results: Path):
    """Return the regions that both dumps reach with the PARTIAL rate, over existing limits."""
    import numpy as np

    from gammastar import report
    from gammastar.report import style

    with style.house_style():
        figure, axes = style.new_figure(size=(7.6, 6.0))
        ax = axes[0, 0]
        for limit in report.existing_limits(kinds=("observed", "recomputed")):
            polygon = limit.polygon
            ax.fill(polygon[:, 0], polygon[:, 1], color=style.GREY, linewidth=0)
        ax.fill([], [], color=style.GREY, label="NA62 2023, PHENIX 2014; CHARM, NuCal recomputed")
        for k, (file, name) in enumerate(DUMPS.values()):
            lines = csv.DictReader((results / file).read_text().splitlines())
            rows = [row for row in lines if row["part"] == "all" and row["coupling_low"]]
            mass, low, high = (
                np.array([float(row[key]) for row in rows])
                for key in ("mass", "coupling_low", "coupling_high")
            )
            ends = np.array(
                ["upper" not in row["clipped_side"] for row in rows]
            )  # too few particles beyond, if not
            colour = style.COLOURS[(0, 2)[k]]
            ax.fill_between(mass, low, high, facecolor=colour, alpha=0.2, linewidth=0)
            ax.plot(mass, low, color=colour, linestyle=style.LINES[k], label=name)
            ax.plot(mass, np.where(ends, high, np.nan), color=colour, linestyle=style.LINES[k])
        ax.set(
            yscale="log", xlim=(0.2, 0.8), ylim=(2e-8, 2e-5), xlabel=style.MASS_DARK, ylabel=r"$\varepsilon$"
        )
        style.log_mass_axis(ax)
        ax.legend(loc="upper right", title=PARTIAL, alignment="left")
        style.header(figure, "expected, 90 % CL")
    return figure


def table(folder: Path, nucleus: str) -> None:
    """Write the rate of both decays with its errors by source."""
    import numpy as np
    from measured_dalitz import KINDS, MISSING, channel, partial_rate

    mass = np.round(np.arange(0.2125, 0.6376, 0.005), 4)
    total, error = partial_rate(mass, nucleus)
    columns = {"mass_GeV": mass, "rate": total, "error": error}
    for meson in KINDS:
        made = channel(meson, nucleus)
        columns[meson] = made.by_decay(mass)[0]
        columns |= {f"{meson}, {key}": np.sqrt(np.diag(cov)) for key, cov in made.errors(mass).items()}
    with (folder / f"rate_{nucleus}.csv").open("w", newline="") as stream:
        stream.write(
            f"# PARTIAL: A' per proton that interacts in {nucleus}, per epsilon^2; 400 GeV; absolute errors\n"
        )
        stream.write(f"# missing: {'; '.join(MISSING)}\n")
        writer = csv.writer(stream)
        writer.writerow(columns)
        writer.writerows(zip(*([f"{x:.6g}" for x in column] for column in columns.values()), strict=True))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", nargs="?", type=Path, help="results of the steering file, for the reach")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "results" / "na60_2016_rates")
    options = parser.parse_args()
    reenter("all")
    from gammastar import report

    options.output.mkdir(parents=True, exist_ok=True)
    found = fits()
    (options.output / "numbers.json").write_text(json.dumps(found, indent=1) + "\n")
    for nucleus in ("copper", "lead"):
        table(options.output, nucleus)
    report.save_figure(form_factor_figure(), options.output / "form_factors")
    report.save_figure(rate_figure(), options.output / "rate")
    if options.results is not None:
        report.save_figure(reach_figure(options.results), options.output / "reach")
    print(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    sys.exit(main())
