"""Tuning a card to a spectrum and to forms in pt; electrons below the muon threshold; resumed runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from validation._simulate_more import row

from gammastar.core.constants import M_MU
from gammastar.core.data import data_path
from gammastar.pipeline.commands import simulate_file
from gammastar.simulate import Card, load_card, mass_spectrum, simulate_events, tune_card
from gammastar.simulate.species import _opposite


def rows(card: Card, *, quick: bool) -> Iterator[dict]:
    yield from _yields(card, 20_000 if quick else 100_000)
    yield from _resumed()
    yield from _electrons(20_000 if quick else 60_000)


def _yields(card: Card, n: int) -> Iterator[dict]:
    """Fit the nominal card to a data-like sample of other yields, made with another seed."""
    truth = {"eta_dalitz": 0.8, "omega_2body": 1.2, "phi_2body": 1.3}
    modes = dict(card.modes)
    for key, factor in truth.items():
        modes[key] = modes[key].model_copy(update={"branching": modes[key].branching * factor})
    data = simulate_events(card.model_copy(update={"modes": modes}), n, seed=21)
    edges = np.linspace(0.2, 1.4, 61)
    counts = np.histogram(_opposite(data, M_MU)[0], edges)[0].astype(float)
    background = data.meta["decay_length"] / card.background.decay_length
    nominal = simulate_events(card, 1000, seed=1).meta["decay_length"] / card.background.decay_length
    known = {"combinatorial": ((background / nominal) ** 2, 0.05)}
    _, fit = tune_card(card, edges, counts, float(data.meta["N_POT"]), constraints=known, n=4 * n, seed=22)
    for key, factor in truth.items():
        source = "yields of the MOCK; 3 σ of the fit"
        yield row(f"fitted factor of {key}", fit.factor[key], factor, 3 * fit.error[key], source)
    ndof = fit.ndof
    yield row("χ²/ndf of the fitted spectrum", fit.chi2 / ndof, 1.0, 4 * np.sqrt(2 / ndof), "4 σ")


def _resumed() -> Iterator[dict]:
    """Run the command twice into different files, the second from the blocks of the first."""
    with TemporaryDirectory() as folder:
        options = {"kind": "mc", "seed": 5, "cache": Path(folder) / "blocks"}
        lines = [simulate_file("na60_mock", 150_000, Path(folder) / f"{i}.root", **options) for i in (0, 1)]
    content = [next(line for line in found if "sha256" in line) for found in lines]
    yield row("content digest of a resumed run, equal (1 = yes)", content[0] == content[1], 1, 0, "exact")


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
