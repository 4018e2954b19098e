"""CHARM and NuCal recomputed: ``python3 analysis/beam_dumps/recompute.py [--write]``.

Dark photons from proton bremsstrahlung and meson decays, to e⁺e⁻ and μ⁺μ⁻ in the detectors of
``data/detectors/``. Nothing is tuned to the published curves, which are not shipped: name a folder that holds
them in ``GAMMASTAR_CURVES``. ``--write`` stores the recomputed limits in ``data/bounds/``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT / "analysis")]

from _venv import reenter  # noqa: E402

MASSES = (0.01, 1.4, 76)  # GeV: beyond the end of both areas
RESONANCE = (0.74, 0.82, 17)  # GeV: the time-like form factor of the proton follows the narrow ω
EVENTS = 100_000  # per mass and channel
AT = (0.05, 0.1, 0.2, 0.3, 0.4)
TITLES = {"charm": "CHARM", "nucal": "NuCal"}
COMPARE = {
    "charm": {"default": ("charm", "charm_tsai"), "flux": ("charm",), "open": ("charm_tsai",)},
    "nucal": {
        "default": ("nucal", "nucal_tsai"),
        "paper brem": ("nucal_brem",),
        "paper pi0": ("nucal_pi0",),
        "paper point-like": ("nucal_brem",),
    },
}
LABELS = {
    "charm": "arXiv:1204.3583, as in 1311.3870",
    "nucal": "arXiv:1311.3870",
    "charm_tsai": "arXiv:1908.07525",
    "nucal_tsai": "arXiv:1908.07525",
}
REFERENCE = {"charm": "Phys. Lett. B 157 (1985) 458", "nucal": "Z. Phys. C 51 (1991) 341"}
NOTES = {
    "charm": "fluxes of mesons from pp fits and a power of A",
    "nucal": "above 0.6 GeV by the time-like form factor of the proton alone: none with a point-like one",
}
HEAD = """# Limit of {title} on dark photons, 90 % CL, recomputed by analysis/beam_dumps/recompute.py --write.
name = "{title} (recomputed)"
plane = "dark_photon" # kinetic mixing epsilon, not squared
kind = "recomputed"
citation = "{title}, {reference}, recomputed with this package"
reference = "{reference}"
assumption = "recomputed: bremsstrahlung and mesons of the first interaction"
source = "recomputed: {source}"
licence = "BSD-3-Clause"
changes = "own computation from 10 MeV; first interaction of each proton only; {note}"
closed = true
"""


def grid():
    """Return the masses, denser about the ω."""
    import numpy as np

    return np.union1d(np.geomspace(*MASSES), np.linspace(*RESONANCE))


def outline(reach) -> list[tuple[float, float]]:
    """Return the excluded region as a polygon: lower edges forwards, upper edges backwards."""
    import numpy as np

    good = np.isfinite(reach.edges).all(axis=1)
    mass, edges = reach.mass[good], reach.edges[good]
    lowest, first = np.unique(mass, return_index=True)
    lower, upper = edges[first, 0], np.array([edges[mass == m, 1].max() for m in lowest])
    return [*zip(lowest, lower, strict=True), *zip(lowest[::-1], upper[::-1], strict=True)]


def write(name: str, reach) -> Path:
    """Write the limit as a file of a bound."""
    points = outline(reach)
    target = ROOT / "data" / "bounds" / f"dark_photon_{name}_recomputed.toml"
    source = "bremsstrahlung with the kernel of arXiv:1311.3870 and decays of mesons; analysis/beam_dumps"
    text = HEAD.format(title=TITLES[name], reference=REFERENCE[name], source=source, note=NOTES[name])
    for key, column in (("mass", 0), ("coupling", 1)):
        values = [f"{point[column]:.5g}" for point in points]
        lines = [", ".join(values[i : i + 10]) for i in range(0, len(values), 10)]
        text += f"{key} = [{' # GeV' if key == 'mass' else ''}\n" + "".join(f"  {line},\n" for line in lines)
        text += "]\n"
    target.write_text(text)
    return target


def draw(name: str, reach, pot: float) -> None:
    """Draw the recomputed limit, the published ones, and ours with inputs inferred from a published one.

    Bars: what all inputs together move the edges, in quadrature.
    """
    import curves
    import dump_yields
    import numpy as np
    import sensitivity

    from gammastar import report

    figure = report.reach_figure(
        [report.Contour(f"{TITLES[name]} recomputed", reach, "observed")],
        mock=False,
        pot=pot,
        plane=report.Plane(mass_range=(MASSES[0], MASSES[1]), coupling_range=(1e-8, 1e-3), threshold=None),
    )
    ax = figure.axes[0]
    ax.plot([], [], color="#5790fc", linewidth=3.0, label=f"{TITLES[name]} recomputed")
    masses = np.array(sensitivity.MASSES[name])
    middle = dump_yields.edges(dump_yields.variant(name), masses)
    down, up = sensitivity.reaches(sensitivity.shifts(name, n=EVENTS // 2))
    for k in (0, 1):
        centre = 10 ** middle[:, k]
        sides = [centre * (1 - 10 ** -down[:, k]), centre * (10 ** up[:, k] - 1)]
        look = {"color": "#5790fc", "capsize": 4, "linewidth": 1.6, "zorder": 6}
        ax.errorbar(
            masses, centre, sides, fmt="none", label=None if k else "its inputs in quadrature", **look
        )
    for key, colour, line in ((name, "black", "--"), (f"{name}_tsai", "0.45", "-.")):
        points = curves.polygon(key)
        if points is not None:
            ax.plot(*np.vstack([points, points[:1]]).T, line, color=colour, linewidth=1.4, label=LABELS[key])
    for kind in ("flux",) if name == "charm" else ("paper point-like", "paper pi0"):
        case = dump_yields.variant(name, kind)
        here = np.array(outline(dump_yields.reach(case, np.geomspace(0.01, MASSES[1], 40))))
        label = None if kind == "paper pi0" else "ours, inputs inferred from the curve of 1311.3870"
        ax.plot(*np.vstack([here, here[:1]]).T, ":", color="#d1495b", linewidth=1.8, label=label)
    ax.legend(loc="upper right", fontsize=13)
    report.save_figure(figure, ROOT / "results" / "beam_dumps" / name)
    print(f"{TITLES[name]}: results/beam_dumps/{name}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="store the limits in data/bounds")
    options = parser.parse_args()
    reenter("all")
    import curves
    import dump_yields

    for name in TITLES:
        case = dump_yields.variant(name)
        reach = dump_yields.reach(case, grid(), EVENTS)
        draw(name, reach, case.detector.exposure)
        if options.write:
            print(f"written: {write(name, reach).relative_to(ROOT)}")
        for kind, published in COMPARE[name].items():
            found = dump_yields.edges(dump_yields.variant(name, kind), AT)
            print(f"{name}, {kind}: log10 of lower {found[:, 0].round(3)}, upper {found[:, 1].round(3)}")
            for key in published:
                wanted = curves.edges(key, AT)
                if wanted is not None:
                    print(f"  {key}: lower {wanted[:, 0].round(3)}, upper {wanted[:, 1].round(3)}")


if __name__ == "__main__":
    main()
