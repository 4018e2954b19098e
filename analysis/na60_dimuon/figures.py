"""Figure 1 of the paper from the MOCK: mass spectrum by source, pt of the mesons, three-body line shapes.

``python3 analysis/na60_dimuon/figures.py [--engine pythia] [--output FOLDER]``
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "analysis"))

from _venv import reenter  # noqa: E402

POT = 1e13
LABELS = {
    "eta_dalitz": r"$\eta\to\mu\mu\gamma$",
    "omega_dalitz": r"$\omega\to\mu\mu\pi^0$",
    "eta_prime_dalitz": r"$\eta'\to\mu\mu\gamma$",
    "rho": r"$\rho\to\mu\mu$",
    "omega_2body": r"$\omega\to\mu\mu$",
    "phi_2body": r"$\phi\to\mu\mu$",
}


def pairs(events, sign):
    """Return mass, process and weight of the pairs of two-muon events with this sum of charges."""
    import awkward as ak
    import numpy as np

    from gammastar.core.constants import M_MU
    from gammastar.mock import pair_kinematics

    muon = events.branches["Muon"]
    two = ak.to_numpy((ak.num(muon) == 2) & (ak.sum(muon.charge, axis=1) == sign))
    p = np.stack([ak.to_numpy(muon[two][c]).astype(np.float64) for c in ("px", "py", "pz")])
    p = np.concatenate([p, np.sqrt(np.sum(p**2, axis=0, keepdims=True) + M_MU**2)])
    weight = (events.branches["weight"] * events.branches["prescale"])[two]
    return pair_kinematics(p[..., 0], p[..., 1])[0], events.branches["gen_process"][two], weight


def engine_name(made):
    """Return the engine as the figures call it."""
    if made.name != "pythia":
        return "toy mesons"
    meta = made.meta()
    return f"mesons of Pythia {meta['pythia8mc']}, {meta['pythia_system']}"


def mass_figure(card, made, n):
    """Return the measured spectrum by source for 10¹³ protons on target, and its parts."""
    import numpy as np

    from gammastar import mock
    from gammastar.report import style

    edges = np.linspace(0.2, 1.4, 61)
    width = edges[1] - edges[0]
    parts = {}
    mc = mock.simulate_events(card, n, kind="mc", engine=made, seed=1)
    mass, process, weight = pairs(mc, 0)
    for key in (key for key in LABELS if key in card.modes):
        mine = process == card.modes[key].process
        parts[key] = np.histogram(mass[mine], edges, weights=weight[mine] * POT / mc.meta["N_POT"])[0] / width
    for kind in ("background", "charm"):
        sample = mock.simulate_events(card, n // 8, kind=kind, engine=made, seed=2)
        mass, _, weight = pairs(sample, 0)
        parts[kind] = np.histogram(mass, edges, weights=weight * POT / sample.meta["N_POT"])[0] / width
    figure, axes = style.new_figure(size=(8.4, 5.8))
    ax = axes.flat[0]
    style.steps(ax, edges, sum(parts.values()), color="black", linewidth=2.0, label="sum")
    style.steps(
        ax,
        edges,
        parts["background"],
        color=style.GREY,
        histtype="fill",
        label=r"combinatorial ($\pi$, K decays)",
    )
    style.steps(ax, edges, parts["charm"], color="black", linestyle=":", linewidth=1.8, label="open charm")
    for i, key in enumerate(LABELS):
        line = style.LINES[0] if i < 3 else style.LINES[1]
        style.steps(ax, edges, parts[key], color=style.COLOURS[i % 3], linestyle=line, label=LABELS[key])
    top = max(sum(parts.values()))
    ax.set(yscale="log", ylim=(top * 1e-3, top * 12), xlim=(0.2, 1.4))
    ax.set(xlabel=r"measured $m_{\mu\mu}$ [GeV]", ylabel="recorded opposite-sign pairs per GeV")
    ax.legend(ncols=3, fontsize=11, loc="upper right")
    style.mark_mock(ax, True)
    what = f"{card.beam.energy:g} GeV p-A, {style.power_of_ten(POT)} protons on target, {engine_name(made)}"
    style.header(figure, what)
    return figure


def pt_figure(card, made, n):
    """Return the pt of mesons against the card's target form."""
    import numpy as np

    from gammastar.core import constants
    from gammastar.report import style

    rng = np.random.default_rng(3)
    edges = np.concatenate([np.arange(0.0, 1.2, 0.1), np.arange(1.2, 2.7, 0.3)])
    centres, width = 0.5 * (edges[1:] + edges[:-1]), np.diff(edges)
    fine = np.linspace(0.0, edges[-1], 400)
    figure, axes = style.new_figure(2, 1, size=(7.2, 6.6), heights=(3.0, 1.2), share_x=True)
    ax, below = axes.flat
    for i, (key, name) in enumerate(
        (("eta", r"$\eta$"), ("rho", r"$\rho$"), ("omega", r"$\omega$"), ("phi", r"$\phi$"))
    ):
        meson = card.mesons[key]
        mode = next(m for m in card.modes.values() if m.meson == key)
        p = made.mesons(card, mode, np.full(n, constants.mass(meson.pdg)), rng)
        share = np.histogram(np.hypot(p[0], p[1]), edges)[0] / n
        drawn = len(made.soft.arrays[f"{meson.pdg}_pt"]) if made.name == "pythia" else n
        error = np.sqrt(share * (1.0 - share) / min(drawn, n))  # mesons are used again, their number counts
        target = -np.diff((1.0 + (edges / meson.p0) ** 2) ** (1.0 - meson.n))
        scale, look = 10.0**-i, {"color": style.COLOURS[i], "fmt": "os^D"[i], "ms": 4, "lw": 1.2}
        label = rf"{name} $\times 10^{{{-i}}}$" if i else name
        density = 2.0 * (meson.n - 1.0) / meson.p0**2 * fine * (1.0 + (fine / meson.p0) ** 2) ** -meson.n
        ax.errorbar(centres, share / width * scale, error / width * scale, label=label, **look)
        ax.plot(fine, density * scale, color="black", ls="--", lw=1.0)
        shift = 0.012 * (i - 1.5)
        below.errorbar(centres + shift, share / target, error / target, **look)
    ax.plot([], [], color="black", ls="--", lw=1.0, label="target of the card")
    ax.set(yscale="log", ylabel=r"$(1/N)\,\mathrm{d}N/\mathrm{d}p_T$ [GeV$^{-1}$]", ylim=(3e-7, 20))
    ax.legend(ncols=2, fontsize=11)
    below.axhline(1.0, color="black", lw=0.8)
    below.set(xlabel=r"$p_T$ [GeV]", ylabel="over target", ylim=(0.6, 1.4), xlim=(0.0, edges[-1]))
    style.mark_mock(ax, True, position=(0.03, 0.10))
    style.header(figure, f"{card.beam.energy:g} GeV, {engine_name(made)}")
    return figure


def shape_figure(card, n):
    """Return the line shapes of the three-body decays, generated and exact, with and without form factor."""
    import numpy as np

    from gammastar import mock
    from gammastar.report import style

    edges = np.linspace(0.2, 0.98, 79)
    fine = np.linspace(0.2115, 0.957, 800)
    figure, axes = style.new_figure(size=(7.6, 5.6))
    ax = axes.flat[0]
    rng = np.random.default_rng(4)
    for i, key in enumerate(("eta_dalitz", "omega_dalitz", "eta_prime_dalitz")):
        mode = card.modes[key]
        pdg = card.mesons[mode.meson].pdg
        sample = mock.generate_pairs(card.model_copy(update={"modes": {key: mode}}), n, rng)
        counts = np.histogram(sample.mass, edges)[0] / n / np.diff(edges)
        style.steps(ax, edges, counts, color=style.COLOURS[i], label=LABELS[key])
        density = mock.mass_density(mode, pdg, fine)
        ax.plot(fine, np.where(density > 0, density, np.nan), color="black", lw=0.9)
        plain = mode.model_copy(update={"form_factor": "pointlike"})
        density = mock.mass_density(plain, pdg, fine)
        ax.plot(fine, np.where(density > 0, density, np.nan), color=style.COLOURS[i], ls=":", lw=1.6)
    ax.plot([], [], color="black", lw=0.9, label="Kroll-Wada with form factor")
    ax.plot([], [], color="0.3", ls=":", lw=1.6, label="pointlike")
    ax.set(yscale="log", ylim=(2e-3, 60), xlim=(0.2, 0.98))
    ax.set(xlabel=r"$m_{\mu\mu}$ [GeV]", ylabel=r"$(1/N)\,\mathrm{d}N/\mathrm{d}m$ [GeV$^{-1}$]")
    ax.legend(ncols=2, fontsize=11, loc="upper right")
    style.mark_mock(ax, True)
    style.header(figure, "three-body decays, before the detector")
    return figure


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", choices=["toy", "pythia"], default="toy")
    parser.add_argument("--card", default="na60_full", help="name of a shipped card, or a file")
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "na60_dimuon" / "figures")
    parser.add_argument("-n", type=int, default=400_000, help="simulated dimuons")
    options = parser.parse_args()
    reenter("all")
    from gammastar import mock
    from gammastar.core.files import data_path
    from gammastar.report import save_figure
    from gammastar.report.style import house_style

    shipped = data_path(f"cards/{options.card}.toml")
    card = mock.load_card(shipped if shipped.is_file() else options.card)
    events = max(options.n // 4, 20_000)
    made = mock.ToyEngine() if options.engine == "toy" else mock.pythia_engine(card, events, seed=1)
    with house_style():
        figures = {
            "mass_by_source": mass_figure(card, made, options.n),
            "meson_pt": pt_figure(card, made, options.n),
            "line_shapes": shape_figure(card, options.n),
        }
    for name, figure in figures.items():
        print(save_figure(figure, options.output / name)[0])
    return 0


if __name__ == "__main__":
    sys.exit(main())
