"""A MOCK spectrum at 120 GeV serves DarkQuest and nobody at 400 GeV, and the other way round."""

from __future__ import annotations

import numpy as np
import pytest
from builders import ROOT, csv_rows

from gammastar.config.checks import examine_file
from gammastar.core.errors import GammastarError
from gammastar.core.files import data_path
from gammastar.core.sampling import stream
from gammastar.mock import generate_pairs, load_card
from gammastar.mock.cocktail import mode_rates
from gammastar.pipeline.run import run
from gammastar.store.manifest import read_json, read_spectrum

FOLDER = ROOT / "analysis" / "seaquest_dimuon"
NA60 = (ROOT / "analysis" / "na60_dimuon" / "small.toml").read_text()
SHORTER = [
    ("n_pairs = 40_000", "n_pairs = 6_000"),
    ("n_response = 200_000", "n_response = 20_000"),
    ("bins = 30, low = 0.2125, high = 1.1125", "bins = 7, low = 0.2125, high = 0.9125"),
    ("0.2, 0.4, 0.6, 0.9, 1.4, 6.0", "0.5, 6.0"),
    ("5.0, 8.0, 12.0, 16.0, 20.0, 24.0, 28.0, 32.0, 38.0, 46.0, 60.0,", "16.0, 24.0, 38.0,"),
    ('r_factor = "simulation"', 'weights = "signed"\nr_factor = 1.61\nr_factor_sigma = 0.03'),
    ("n_masses = 40", "n_masses = 6"),
    ("acceptance_masses = [0.3, 0.77]\n", ""),
    ("n_sample = 60_000", "n_sample = 2_000"),
    ("n_couplings = 121", "n_couplings = 41"),
    ("\n[report]\n", ""),
]


def shorter() -> str:
    text = (FOLDER / "steering.toml").read_text()
    text = text.replace("../na60_dimuon", str(ROOT / "analysis" / "na60_dimuon"))
    for old, new in SHORTER:
        assert old in text, old
        text = text.replace(old, new)
    return text


def written(folder, text):
    path = folder / "steering.toml"
    path.write_text(text)
    return path


def test_dimuons_at_120_gev_reach_darkquest(tmp_path):
    """The whole chain: a closed reach, measured in part, and MOCK wherever it is named."""
    out = run(written(tmp_path, shorter()), output=tmp_path / "out")
    rows = [row for row in csv_rows(out / "reach.csv") if row["part"] == "all" and row["coupling_low"]]
    assert len(rows) >= 4
    assert all(1e-8 < float(row["coupling_low"]) < float(row["coupling_high"]) < 1e-4 for row in rows)
    assert max(float(row["fraction_in_domain_low"]) for row in rows) > 0.1
    assert read_json(out / "manifest.json")["mock"] is True
    card = load_card(data_path("cards/seaquest_mock.toml"))
    assert card.beam.energy == 120.0
    assert "MOCK" in card.name
    measured = read_spectrum(out / "spectrum.json")
    pairs = generate_pairs(card, 200_000, stream(2, "truth"))
    cells = np.stack([pairs.mass, pairs.pt, pairs.energy], axis=1)
    counts, _ = np.histogramdd(cells, bins=[axis.edges for axis in measured.hist.axes])
    per_pair = sum(mode_rates(card).values()) * card.target.interactions / 200_000
    inside = measured.domain.ravel().astype(float)
    found, truth = inside @ measured.values.ravel(), inside @ counts.ravel() * per_pair
    error = np.sqrt(inside @ measured.cov @ inside)
    assert error < 0.1 * truth
    assert abs(found - truth) < 4 * error


@pytest.mark.parametrize(
    ("own", "detector", "stands", "beam"),
    [("seaquest", "shadows_like", "400 GeV", "120 GeV"), ("na60", "darkquest", "120 GeV", "400 GeV")],
)
def test_another_beam_is_refused_before_and_by_the_run(tmp_path, own, detector, stands, beam):
    text = shorter() if own == "seaquest" else NA60
    asked = '["darkquest"]' if own == "seaquest" else '["na62_dump", "ship_ecn3"]'
    folder = str(ROOT / "analysis" / "na60_dimuon")
    text = text.replace(asked, f'["{detector}"]').replace('"schema.toml"', f'"{folder}/schema.toml"')
    path = written(tmp_path, text)
    found = [entry for entry in examine_file(path)[1] if entry.level == "error"]
    assert [entry.where for entry in found] == ["accept.detectors"]
    assert f"{detector}.toml stands at {stands}" in found[0].message
    assert f"spectrum.beam_energy is {beam}" in found[0].message
    with pytest.raises(GammastarError, match=f"stands at {stands}"):
        run(path, output=tmp_path / "out")
    assert not (tmp_path / "out" / "stages").exists()
