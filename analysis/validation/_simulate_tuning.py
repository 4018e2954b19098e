"""Yields of a card fitted to a spectrum; electrons below the muon threshold."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from na60_dimuon.card_yields import _opposite, fit_yields, mass_templates
from validation._rows import row

from gammastar.core.constants import M_MU
from gammastar.core.files import data_path
from gammastar.mock import Card, load_card, mass_spectrum, simulate_events

SEEDS = (21, 31, 41, 51)


def rows(card: Card, *, quick: bool) -> Iterator[dict]:
    yield from _yields(card, 20_000 if quick else 100_000)
    yield from _electrons(20_000 if quick else 60_000)


def _yields(card: Card, n: int) -> Iterator[dict]:
    """Fit the nominal card to data-like samples of other yields, made with other seeds."""
    truth = {"eta_dalitz": 0.8, "omega_2body": 1.2, "phi_2body": 1.3}
    modes = dict(card.modes)
    for key, factor in truth.items():
        modes[key] = modes[key].model_copy(update={"branching": modes[key].branching * factor})
    other = card.model_copy(update={"modes": modes})
    edges = np.linspace(0.2, 1.4, 61)
    templates, variance = mass_templates(card, edges, 1.0, n=10 * n, seed=22)
    fits = []
    for seed in SEEDS:
        data = simulate_events(other, n, seed=seed)
        counts = np.histogram(_opposite(data, M_MU)[0], edges)[0].astype(float)
        pot = float(data.meta["N_POT"])
        scaled = {key: shape * pot for key, shape in templates.items()}
        fits.append(fit_yields(counts, scaled, variance={k: v * pot**2 for k, v in variance.items()}))
    for key, factor in truth.items():
        common = np.sqrt(variance[key].sum()) / templates[key].sum() * factor
        ours = np.mean([fit.factor[key] for fit in fits])
        error = np.sqrt(np.mean([fit.error[key] ** 2 for fit in fits]) / len(fits) + common**2)
        source = f"yields of the MOCK, {len(fits)} samples; 3 σ of fit and templates"
        yield row(f"fitted factor of {key}", ours, factor, 3 * error, source)
    chi2, ndof = sum(fit.chi2 for fit in fits), sum(fit.ndof for fit in fits)
    yield row("χ²/ndf of the fitted spectra", chi2 / ndof, 1.0, 4 * np.sqrt(2 / ndof), "4 σ")


def _electrons(n: int) -> Iterator[dict]:
    """Count simulated e⁺e⁻ pairs below 2 m_μ, where dimuons cannot say anything."""
    card = load_card(data_path("cards/na45_mock.toml"))
    mc = simulate_events(card, n, kind="mc", seed=1)
    total = mc.branches["weight"] * mc.branches["prescale"]
    fine = np.geomspace(0.01, 2 * M_MU, 4001)
    expected = np.trapezoid(mass_spectrum(card, fine), fine)
    inside = (mc.branches["gen_mll"] > 0.01) & (mc.branches["gen_mll"] < 2 * M_MU)
    ours = total[inside].sum() / mc.meta["N_POT"]
    error = np.sqrt((total[inside] ** 2).sum()) / mc.meta["N_POT"]
    label = "e⁺e⁻ pairs per POT, 10 MeV to 2 m_μ"
    yield row(label, ours, expected, 4 * error, "Kroll-Wada integral of the card; 4 σ")
