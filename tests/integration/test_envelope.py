"""The figures of theory beside data from the files of a run."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from builders import ROOT

from gammastar.core import records
from gammastar.core.files import data_path
from gammastar.core.records import Exposure, Spectrum, filled
from gammastar.mock import generate_pairs, load_card
from gammastar.store.manifest import write_histograms, write_spectrum

FOLDER = ROOT / "analysis" / "na60_dimuon"


@pytest.mark.slow
def test_every_figure_is_drawn(tmp_path, monkeypatch) -> None:
    card = load_card(data_path("cards/na60_mock.toml"))
    pairs = generate_pairs(card, 60_000, np.random.default_rng(1))
    edges = (
        records.regular("mass", 36, 0.2125, 1.1125),
        records.variable("pt", [0.0, 0.3, 0.6, 1.0, 6.0]),
        records.variable("energy", [0.2, 6.0, 12.0, 20.0, 30.0, 45.0, 80.0, 400.0]),
    )
    table = np.stack([pairs.mass, pairs.pt, pairs.energy], axis=1)
    values, _ = np.histogramdd(table, [a.edges for a in edges], weights=pairs.weight)
    variances = values.ravel() * pairs.weight.mean()
    exposure = Exposure(400.0, 207.2, 82, 0.01, 1e13, 0.1)
    hist = filled(edges, values.ravel(), variances)
    spectrum = Spectrum(hist, np.diag(variances), "per_pot", exposure, np.ones(values.shape, dtype=bool))
    write_spectrum(tmp_path / "spectrum.json", spectrum)
    per_mass = values.sum(axis=(1, 2)) / pairs.weight.mean()
    counts = filled((edges[0],), per_mass, per_mass)
    write_histograms(tmp_path / "spectrum.root", {"mass_counts": counts})
    monkeypatch.setattr(sys, "path", [str(FOLDER), *sys.path])
    from envelope_parts import draw

    numbers = draw(tmp_path, tmp_path, mock=True)
    names = {path.stem for path in tmp_path.glob("*.png")}
    figures = {"envelope", "fig2_dark_photons", "fig3_millicharged_pairs", "fig6_phase_space"}
    assert figures | {"millicharge_reach"} <= names
    # The cocktail without acceptance: 4.33e-6 pairs of light χ per proton on target (independent sum).
    assert numbers["millicharge"]["pairs per POT and Q2"]["0.01"] == pytest.approx(4.33e-6, rel=0.1)
    assert "0.1 < z < 0.9" in numbers["envelope"]["bremsstrahlung"]
