"""The mock: spectra against closed forms, acceptance and rates against Pythia, R and background."""

from __future__ import annotations

from collections.abc import Iterator

import awkward as ak
import numpy as np
from scipy.special import gamma
from validation import _simulate_more as more
from validation import _simulate_tuning as tuning
from validation._rows import row as _row
from validation._simulate_charm import rows as charm_rows

from gammastar.core.constants import M_MU
from gammastar.core.files import data_path
from gammastar.mock import (
    Card,
    accepted,
    generate_pairs,
    load_card,
    mass_spectrum,
    measured_r,
    mode_rates,
    pair_kinematics,
    simulate_events,
)
from gammastar.mock.cocktail import sample_pt

PYTHIA = "Pythia 8.317, pp at 400 GeV"
# multiplicities per inelastic pp event of Pythia 8.317; η → μμγ with the 3.1e-4 used there
PYTHIA_YIELDS = {"eta": 0.579, "rho": 0.660, "omega": 0.657, "phi": 0.0241, "eta_prime": 0.062}
ACCEPTANCE = {
    "eta_dalitz": (0.411, 0.0449),
    "rho": (0.506, 0.0907),
    "omega_2body": (0.503, 0.0900),
    "omega_dalitz": (0.422, 0.0523),
    "phi_2body": (0.576, 0.1295),
    "eta_prime_dalitz": (0.454, 0.0706),
}
SHARES = {
    "eta_dalitz": 0.461,
    "omega_dalitz": 0.236,
    "omega_2body": 0.155,
    "rho": 0.094,
    "phi_2body": 0.025,
    "eta_prime_dalitz": 0.020,
}


def rows(*, quick: bool) -> Iterator[dict]:
    card = load_card(data_path("cards/na60_mock.toml"))
    n = 200_000 if quick else 1_000_000
    yield from _moments(card, n)
    yield from _spectrum(card, n)
    yield from _pythia(card, n)
    yield from _recorded(card, quick=quick)
    full = load_card(data_path("cards/na60_full.toml"))
    yield from more.decays()
    yield from more.polarisation(card, n // 2)
    engine, found = more.pythia(card, 20_000 if quick else 60_000)
    yield from found
    yield from more.frames(card, 400_000, engine)
    yield from more.charm(full, 200_000, engine)
    yield from charm_rows(full, 200_000, engine)
    yield from tuning.rows(card, quick=quick)


def _moments(card: Card, n: int) -> Iterator[dict]:
    rng = np.random.default_rng(1)
    for name, meson in card.mesons.items():
        p0, k = meson.p0, meson.n
        pt = sample_pt(p0, k, rng.random(n))
        mean, square = p0 * np.sqrt(np.pi) / 2 * gamma(k - 1.5) / gamma(k - 1.0), p0**2 / (k - 2.0)
        fourth = 2.0 * p0**4 / ((k - 2.0) * (k - 3.0))
        spread = np.sqrt((square - mean**2) / n), np.sqrt((fourth - square**2) / n)
        yield _row(f"⟨pt⟩ of {name} [GeV]", pt.mean(), mean, 4 * spread[0], "closed form, 4 σ")
        yield _row(f"⟨pt²⟩ of {name} [GeV²]", np.mean(pt**2), square, 4 * spread[1], "closed form, 4 σ")


def _spectrum(card: Card, n: int) -> Iterator[dict]:
    dimuons = generate_pairs(card, n, np.random.default_rng(2))
    edges = np.linspace(0.22, 1.2, 99)
    fine = np.linspace(edges[:-1], edges[1:], 129)
    expected = np.trapezoid(mass_spectrum(card, fine), fine, axis=0) * n / dimuons.weight.sum()
    chi2 = np.sum((np.histogram(dimuons.mass, edges)[0] - expected) ** 2 / expected) / len(expected)
    yield _row("χ²/bin, masses against the exact spectrum", chi2, 1.0, 4 * np.sqrt(2 / 98), "4 σ, 98 bins")
    for name, mean in {"eta_dalitz": 0.3035, "omega_dalitz": 0.3867, "eta_prime_dalitz": 0.5200}.items():
        mass = dimuons.mass[dimuons.process == card.modes[name].process]
        tolerance = 5e-5 + 4 * mass.std() / np.sqrt(len(mass))
        yield _row(f"⟨m⟩ of {name} [GeV]", mass.mean(), mean, tolerance, "Kroll-Wada integral, 4 σ")


def _like_pythia(card: Card) -> Card:
    """Return the card with the yields and the branching fractions of the Pythia run."""
    mesons = {
        key: meson.model_copy(update={"multiplicity": PYTHIA_YIELDS[key], "a_factor": 1.0})
        for key, meson in card.mesons.items()
    }
    modes = {key: mode.model_copy(update={"enabled": True}) for key, mode in card.modes.items()}
    modes["eta_dalitz"] = modes["eta_dalitz"].model_copy(update={"branching": 3.1e-4})
    return card.model_copy(update={"mesons": mesons, "modes": modes})


def _pythia(card: Card, n: int) -> Iterator[dict]:
    pythia = _like_pythia(card)
    dimuons = generate_pairs(pythia, n, np.random.default_rng(3))
    energetic = (dimuons.plus[3] > 3.0) & (dimuons.minus[3] > 3.0)
    seen = accepted(dimuons.plus, card.detector) & accepted(dimuons.minus, card.detector)
    for name, (wide, narrow) in ACCEPTANCE.items():
        mine = dimuons.process == card.modes[name].process
        for cut, passed, expected, model in (
            ("both E > 3 GeV", energetic[mine], wide, 0.06),
            ("E > 3 GeV, 35–120 mrad", seen[mine], narrow, 0.15),
        ):
            tolerance = model * expected + 3 * np.sqrt(expected * (1 - expected) / len(passed))
            source = f"{PYTHIA}; toy spectra to {model:.0%}, and 3 σ"
            yield _row(f"{name}: {cut}", passed.mean(), expected, tolerance, source)
    source = f"{PYTHIA}, its yields"
    wide, narrow = float(dimuons.weight[energetic].sum()), float(dimuons.weight[seen].sum())
    yield _row("dimuons per POT, E > 3 GeV", wide, 1.60e-6, 0.06 * 1.60e-6, source)
    yield _row("dimuons per POT, E > 3 GeV, 35–120 mrad", narrow, 2.15e-7, 0.15 * 2.15e-7, source)
    for name, share in SHARES.items():
        mine = energetic & (dimuons.process == card.modes[name].process)
        ours = float(dimuons.weight[mine].sum()) / wide
        yield _row(f"share of {name}, E > 3 GeV", ours, share, 0.08 * share, source)


def _pair_masses(muons: ak.Array) -> np.ndarray:
    p = np.stack([ak.to_numpy(muons[c]).astype(np.float64) for c in ("px", "py", "pz")])
    p = np.concatenate([p, np.sqrt(np.sum(p**2, axis=0, keepdims=True) + M_MU**2)])
    return pair_kinematics(p[..., 0], p[..., 1])[0]


def _recorded(card: Card, *, quick: bool) -> Iterator[dict]:
    mc = simulate_events(card, 200_000 if quick else 1_000_000, kind="mc", prior="varied", seed=1)
    two = ak.to_numpy(ak.num(mc.branches["Muon"])) == 2
    chosen = two & (mc.branches["gen_process"] == card.modes["omega_2body"].process)
    error = _pair_masses(mc.branches["Muon"][chosen]) - mc.branches["gen_mll"][chosen]
    yield _row("mass resolution at the ω [GeV]", error.std(), 0.030, 0.003, "Allison and Blinov (2025)")
    total = mc.branches["weight"] * mc.branches["prescale"]
    expected = sum(mode_rates(card.with_prior("varied")).values()) * card.target.thickness
    spread = np.sqrt(total.sum() * (mc.meta["miss_prescale"] - 1)) / mc.meta["N_POT"]
    yield _row(
        "Σ weights of simulation per POT", total.sum() / mc.meta["N_POT"], expected, 4 * spread, "exact, 4 σ"
    )
    interactions = 100_000 if quick else 400_000
    r, _ = measured_r(card, interactions, np.random.default_rng(4), recorded=False)
    source = "Pythia 8.317 Angantyr, p-Pb; 2 σ of its 3 % statistical error"
    yield _row("R of accepted same-event pairs", r, 1.156, 2 * 0.03 * 1.156, source)
    r, sigma = measured_r(card, interactions, np.random.default_rng(5), pairing="mixed")
    yield _row("R of mixed pairs", r, 1.0, 4 * sigma, "exact, 4 σ")
    n = 20_000 if quick else 100_000
    data = simulate_events(card, n, seed=2)
    pairs = ak.combinations(data.branches["Muon"].charge, 2, fields=["a", "b"])
    charge = ak.to_numpy(ak.flatten(pairs.a + pairs.b))
    os, pp, mm = (float(np.sum(charge == q)) for q in (0, 2, -2))
    ours = data.meta["r_factor"] * 2.0 * np.sqrt(pp * mm) / os
    tolerance = 0.002 + 3 * ours / np.sqrt(pp + mm)
    yield _row("background among opposite-sign pairs", ours, card.background.fraction, tolerance, "card")
