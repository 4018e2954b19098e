"""How far each input moves each edge of CHARM and NuCal: ``python3 analysis/beam_dumps/sensitivity.py``.

Prints one table per experiment: log10 of the coupling by which the lower and the upper edge move when an
input goes to the sides of its range, everything else as on the card. The same random numbers serve all sides,
so that statistical fluctuations largely cancel in the differences.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT / "analysis")]

from _venv import reenter  # noqa: E402

MASSES = {  # GeV: CHARM ends below 0.3 GeV
    "charm": (0.03, 0.05, 0.1, 0.15, 0.2),
    "nucal": (0.05, 0.1, 0.2, 0.3, 0.4),
}
SMALL = 0.015  # log10: inputs that move an edge less are named, not tabulated
TITLES = {"charm": "CHARM", "nucal": "NuCal"}


@dataclass(frozen=True)
class Side:
    """One side of the range of an input: the variant, and factors on the yield of groups of channels."""

    case: object
    factors: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Input:
    """An input with both sides of its range, "low" and "high", as said in `change`."""

    name: str
    change: str
    sides: tuple[Side, Side]


def inputs(experiment: str) -> Iterator[Input]:
    """Yield the inputs of an experiment with their ranges."""
    import dump_yields
    import numpy as np

    from gammastar.physics import bremsstrahlung
    from gammastar.physics.hadrons import FORM_FACTORS

    base = dump_yields.variant(experiment)
    detector = base.detector

    def seen(**changes) -> Side:
        return Side(replace(base, detector=replace(detector, **changes)))

    def table(**scale) -> Side:
        made = dump_yields.channels(detector)
        found = [made[0]]
        for channel in made[1:]:
            mesons = {
                key: replace(m, **{name: getattr(m, name) * value for name, value in scale.items()})
                for key, m in channel.table.mesons.items()
            }
            found.append(replace(channel, table=replace(channel.table, mesons=mesons)))
        return Side(replace(base, channels=tuple(found)))

    def kernel(**changes) -> Side:
        chosen = replace(bremsstrahlung.preset(dump_yields.KERNEL), **changes)
        return Side(replace(base, channels=(replace(base.channels[0], kernel=chosen), *base.channels[1:])))

    groups = {"π⁰": ("PionDalitz",), "η and η′": ("PseudoscalarDalitz",), "ω and the like": ("VectorDalitz",)}
    for name, kinds in groups.items():
        sides = tuple(Side(base, dict.fromkeys(kinds, factor)) for factor in (0.5, 2.0))
        yield Input(f"yield of {name}", "× 0.5, × 2", sides)
    yield Input("rapidity width of mesons", "−10 %, +10 %", (table(y_width=0.9), table(y_width=1.1)))
    yield Input("mean pT of mesons", "−15 %, +15 %", (table(p0=0.85), table(p0=1.15)))
    bare = kernel(form_factor=FORM_FACTORS["pointlike"])
    yield Input("form factor of the proton", "none, ρ and ω", (bare, Side(base)))
    low = base.channels[0].kernel.z_range[0]
    ends = tuple(kernel(z_range=(low, high)) for high in (0.8, 0.95))
    yield Input("bremsstrahlung, largest z", "0.8, 0.95", ends)
    yield Input("bremsstrahlung, largest pT", "0.67, 1.5 GeV", (kernel(pt_max=0.67), kernel(pt_max=1.5)))
    low = replace(detector.cuts, min_energy_sum=3.0)
    high = replace(detector.cuts, min_energy_sum=1.5 * detector.cuts.min_energy_sum)
    change = f"{high.min_energy_sum:g} GeV, 3 GeV"
    yield Input("least energy", change, (seen(cuts=high), seen(cuts=low)))
    if experiment == "charm":
        cuts = detector.cuts
        tighter, without = (replace(cuts, max_energy_sum=top) for top in (30.0, np.inf))
        yield Input("largest energy", "30 GeV, none", (seen(cuts=tighter), seen(cuts=without)))
        x, y, z = detector.target.position
        moved = [seen(target=replace(detector.target, position=(x, f * y, z))) for f in (1.1, 0.9)]
        yield Input("distance from the beam line", "+10 %, −10 %", tuple(moved))
    z0, z1 = detector.volume.z0, detector.volume.z1
    step = 0.1 * (z1 - z0)
    volumes = [replace(detector.volume, z0=z0 + sign * step) for sign in (1, -1)]
    yield Input(
        "start of the volume", f"+{step:.1f} m, −{step:.1f} m", tuple(seen(volume=v) for v in volumes)
    )
    flat = dump_yields.Variant(detector, base.channels, states=("ee",), limit=base.limit)
    yield Input("muon pairs", "not counted, counted", (Side(flat), Side(base)))
    few, many = (replace(base, limit=base.limit * f) for f in (1.5, 1 / 1.5))
    yield Input("protons, efficiency or limit", "× 0.67, × 1.5 in events", (Side(few), Side(many)))


def shifts(experiment: str, n: int = 100_000) -> dict:
    """Return log10 shifts by name of the input: shape (sides, masses, edges), low and high side."""
    import dump_yields
    import numpy as np

    made, masses = {}, MASSES[experiment]
    base = edges(Side(dump_yields.variant(experiment)), masses, n, made)
    return {
        (each.name, each.change): np.array([edges(side, masses, n, made) - base for side in each.sides])
        for each in inputs(experiment)
    }


def reaches(found: dict):
    """Return how far down and up all inputs move the edges, in quadrature: shape (masses, edges) each."""
    import numpy as np

    sides = np.array(list(found.values()))
    return tuple(
        np.sqrt(np.square(np.maximum(sign * sides, 0.0).max(axis=1)).sum(axis=0)) for sign in (-1.0, 1.0)
    )


def edges(side: Side, masses, n: int, made: dict):
    """Return log10 of the lowest and highest excluded coupling, shape (masses, 2).

    `made` holds the yields found so far, by detector, final states and channel.
    """
    import dump_yields
    import numpy as np

    from gammastar import infer

    total = np.zeros((len(masses), dump_yields.COUPLINGS[2]))
    for channel in side.case.channels:
        key = repr((side.case.detector, side.case.states, channel))
        if key not in made:
            made[key] = dump_yields.events(replace(side.case, channels=(channel,)), masses, n)
        total += side.factors.get(type(channel).__name__, 1.0) * made[key]
    found = infer.reach(np.asarray(masses, dtype=float), dump_yields.couplings(), total, side.case.limit)
    rows = []
    for mass in masses:
        here = found.edges[np.isclose(found.mass, mass)]
        rows.append([np.nanmin(here[:, 0]), np.nanmax(here[:, 1])])
    return np.log10(np.array(rows))


def markdown(experiment: str, found: dict) -> str:
    """Return the table of an experiment: shift of the lower and upper edge at each mass, both sides."""
    import numpy as np

    masses = MASSES[experiment]
    head = " | ".join(f"{1e3 * mass:g} MeV" for mass in masses)
    text = ""
    for k, side in enumerate(("lower", "upper")):
        text += f"\n| {TITLES[experiment]}, {side} edge | range | {head} |\n|---|---|{'---|' * len(masses)}\n"
        small = [name for (name, _), shift in found.items() if np.abs(shift[:, :, k]).max() < SMALL]
        for (name, change), shift in found.items():
            if name in small:
                continue
            cells = " | ".join(f"{a:+.2f}, {b:+.2f}" for a, b in shift[:, :, k].T)
            text += f"| {name} | {change} | {cells} |\n"
        down, up = reaches(found)
        total = " | ".join(f"−{a:.2f}, +{b:.2f}" for a, b in zip(down[:, k], up[:, k], strict=True))
        text += f"| all in quadrature | down, up | {total} |\n"
        text += f"\nBelow {SMALL} at every mass: {'; '.join(small)}.\n"
    return text.replace("-", "−").replace("|−−−", "|---").replace("+0.00", "0.00").replace("−0.00", "0.00")


def main() -> None:
    reenter("all")
    for experiment in TITLES:
        print(markdown(experiment, shifts(experiment)))


if __name__ == "__main__":
    main()
