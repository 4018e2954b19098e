"""The search behind the target in small runs on MOCK pairs: files, sides of an island, mistakes."""

import numpy as np
import pytest
from builders import csv_rows

from gammastar import config
from gammastar.config.checks import check_steering, listing
from gammastar.core.errors import SteeringError
from gammastar.core.files import data_path
from gammastar.mock import load_card, simulate_events
from gammastar.pipeline.run import run
from gammastar.predict.in_situ import DisplacedYields
from gammastar.store.events import write_tree
from gammastar.store.manifest import read_json

STEERING = """
[analysis]
name = "behind"
mock = true
[read]
files = ["data.root"]
response = ["mc.root"]
schema = "schema.toml"
[select]
vertex = ["dx", "dy"]
mass = { bins = 12, low = 0.2125, high = 1.1125 }
pt = [0.0, 6.0]
energy = [0.2, 14.0, 400.0]
[subtract]
weights = "signed"
r_factor = 1.158
r_factor_sigma = 0.05
[unfold]
n_replicas = 5
scan = []
[spectrum]
beam_energy = 400.0
target_a = 207.2
target_z = 82.0
thickness = 0.01
pot = 1e10
[in_situ]
masses = [0.4, 0.5]
[in_situ.displaced]
telescope = "fine.toml"
cuts = [3, 8, 20, 40]
projections = [1e7]
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory, mock_schema):
    folder = tmp_path_factory.mktemp("displaced")
    card = load_card(data_path("cards/na60_full.toml"))
    fine = {"offset_constant": 5.0, "offset_scattering": 50.0, "offset_tail": 0.0, "kink": 1.0}
    card = card.model_copy(update={"charm": None, "spectrometer": card.spectrometer.model_copy(update=fine)})
    for name, kind, n, seed in (("data", "data", 12_000, 1), ("mc", "mc", 8_000, 2)):
        sample = simulate_events(card, n, kind=kind, seed=seed, engine="toy")
        write_tree(folder / f"{name}.root", {"events": sample.branches, "meta": sample.meta_branches()})
    (folder / "schema.toml").write_text(mock_schema)
    (folder / "steering.toml").write_text(STEERING)
    telescope = data_path("cards/na60_telescope.toml").read_text()
    telescope = telescope.replace("resolution = 25e-6", "resolution = 5e-6")
    (folder / "fine.toml").write_text(telescope.replace("scattering = 450e-6", "scattering = 50e-6"))
    return folder


@pytest.fixture(scope="module")
def results(base):
    return run(base / "steering.toml", output=base / "run")


def test_files(results):
    rows = csv_rows(results / "reach_displaced.csv")
    assert {row["part"] for row in rows} == {"all", "projection, 1e+07 times the pairs"}
    content = read_json(results / "reach_displaced.json")
    assert content["mock"]
    assert content["label"].startswith("MOCK")
    assert [entry["mass"] for entry in content["background"]] == [0.4, 0.5]
    for entry in content["background"]:
        parts = [entry[f"vertex tails of {what} pairs"] for what in ("measured", "random")]
        assert entry["expected"] == pytest.approx(sum(parts))
        assert entry["expected"] > 0
    manifest = read_json(results / "manifest.json")
    assert any(name.endswith("fine.toml") for name in manifest["inputs"])


def test_a_run_of_so_few_pairs_reaches_nothing_and_many_an_island_with_two_sides(results):
    rows = csv_rows(results / "reach_displaced.csv")
    assert all(row["coupling_low"] == "" for row in rows if row["part"] == "all")
    found = [row for row in rows if row["part"] != "all" and row["coupling_low"]]
    assert found
    for row in found:
        assert 1e-7 < float(row["coupling_low"]) < float(row["coupling_high"]) < 1e-3
        assert row["clipped_side"] in ("", "lower mass", "upper mass")


def test_what_is_kept(results):
    kept = DisplacedYields.from_arrays(dict(np.load(results / "stages" / "displaced.npz")))
    assert np.isnan(kept.count).all()  # masked: nobody looked
    assert abs(kept.sides[0] - 1) < 5 * kept.sides[1]
    assert (kept.signal >= 0).all()
    short = kept.behind[:, 0, -1], kept.before[:, 0, -1]  # prompt decays: as many before as behind
    np.testing.assert_allclose(*short, rtol=0.02)


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ('vertex = ["dx", "dy"]', "", "in_situ.displaced: pairs have no vertex"),
        ('vertex = ["dx", "dy"]', 'vertex = ["d0", "dy"]', "select.vertex: the leptons have no column 'd0'"),
        ('"fine.toml"', '"no_telescope"', "in_situ.displaced.telescope"),
        ('"fine.toml"', '"card.toml"', "begins inside the target"),
        ("cuts = [3, 8", "cuts = [9, 8", "must increase"),
        ("cuts = [3, 8", "cuts = [-3, 8", "greater than 0"),
        ("masses = [0.4,", "masses = [0.1,", "in_situ.masses: 0.1 GeV"),
        ('vertex = ["dx", "dy"]', 'vertex = ["dx"]', "name two lepton columns"),
    ],
)
def test_mistakes_are_found_before_the_run(base, old, new, text):
    card = data_path("cards/na60_telescope.toml").read_text()
    (base / "card.toml").write_text(card.replace("fiducial = [0.002", "fiducial = [0.0001"))
    path = base / "wrong.toml"
    path.write_text(STEERING.replace(old, new))
    with pytest.raises(SteeringError) as caught:
        raise SteeringError(listing(check_steering(config.load(path), base)))
    assert text in str(caught.value)
