"""PHENIX' observed limit, recomputed: ``python3 analysis/phenix_2015/observed_limit.py [-o FOLDER]``.

From the published e⁺e⁻ spectrum of p+p and the published numbers of candidates to ε²(m) with one free
constant, beside the published ε². Figures, ``limit.csv`` and ``numbers.json``.
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


def figure(limit):
    """Return observed and expected ε² with its bands, the published ε², and their ratio."""
    from gammastar.report import style

    with style.house_style():
        drawn, axes = style.new_figure(2, size=(7.6, 7.0), heights=(3.0, 1.0), share_x=True)
        above, below = axes[:, 0]
        m = 1e3 * limit.mass
        for k, shade, name in (
            (2, style.BAND95, r"expected $\pm2\sigma$"),
            (1, style.BAND68, r"expected $\pm1\sigma$"),
        ):
            above.fill_between(
                m, limit.bands[:, 2 - k], limit.bands[:, 2 + k], color=shade, linewidth=0, label=name
            )
        above.plot(m, limit.bands[:, 2], color="black", linestyle="--", label="expected, ours")
        above.plot(m, limit.observed, color=style.COLOURS[0], label="observed, ours")
        above.plot(
            m,
            limit.published,
            "o",
            color=style.COLOURS[2],
            markersize=4,
            fillstyle="none",
            label="observed, published",
        )
        above.set(yscale="log", ylim=(7e-7, 3e-5), ylabel=r"$\varepsilon^2$, 90 % CL")
        above.legend(loc="upper left", ncols=2)
        below.axhspan(0.95, 1.05, color="0.9", linewidth=0)
        below.axhline(1, color="0.5", linewidth=1)
        below.plot(m, limit.observed / limit.published, color=style.COLOURS[0])
        below.set(xlabel="$m_{A′}$ [MeV]", ylim=(0.9, 1.1), xlim=(m[0], m[-1]))
        below.set_ylabel("ours / published", fontsize=12)
        style.header(drawn, "PHENIX, p+p and d+Au 200 GeV, arXiv:1409.0851")
    return drawn


def spectrum_figure():
    """Return m dN/dm with the bins as printed and as they must be, and the smooth curve of each."""
    import numpy as np
    from phenix_tables import best, candidates, spectrum

    from gammastar.report import style

    with style.house_style():
        drawn, axes = style.new_figure(size=(7.6, 5.4))
        ax = axes[0, 0]
        mass = np.linspace(0.012, 0.1, 300)
        for k, even in enumerate((False, True)):
            edges, value, error = spectrum(even=even)
            centre = 0.5 * (edges[1:] + edges[:-1])
            smooth = best([c for c in candidates() if c.even is even])
            name = "bins of 5 MeV" if even else "bins as printed"
            colour = style.COLOURS[(2, 0)[k]]
            show = centre > 0.012
            ax.errorbar(
                1e3 * centre[show],
                (centre * value)[show],
                yerr=(centre * error)[show],
                fmt="so"[k],
                color=colour,
                markersize=5,
                label=name,
            )
            curve = np.exp(smooth.log_density(mass)) * mass
            ax.plot(
                1e3 * mass,
                curve,
                color=colour,
                linestyle=style.LINES[1 - k],
                label=f"smooth, left-out points at {smooth.score:.1f}σ",
            )
        ax.set(
            xlabel="$m_{ee}$ [MeV]",
            yscale="log",
            xlim=(10, 100),
            ylim=(1e-6, 1e-5),
            ylabel="$m\\, dN/dm$ per event",
        )
        ax.legend(loc="lower left")
        style.header(drawn, "PHENIX, p+p 200 GeV, arXiv:0912.0244")
    return drawn


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "results" / "phenix_2015")
    options = parser.parse_args()
    reenter("all")
    from phenix_tables import numbers, recomputed

    from gammastar import report

    options.output.mkdir(parents=True, exist_ok=True)
    found, limit = numbers(), recomputed()
    (options.output / "numbers.json").write_text(json.dumps(found, indent=1) + "\n")
    with (options.output / "limit.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["mass_GeV", "observed", "published", "m2", "m1", "median", "p1", "p2"])
        rows = zip(limit.mass, limit.observed, limit.published, *limit.bands.T, strict=True)
        writer.writerows([f"{x:.6g}" for x in row] for row in rows)
    report.save_figure(figure(limit), options.output / "limit")
    report.save_figure(spectrum_figure(), options.output / "spectrum")
    print(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    sys.exit(main())
