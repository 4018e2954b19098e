"""``gammastar init``: what is written passes the check once the marked values are filled in."""

import re
import tomllib
from pathlib import Path

import awkward as ak
import numpy as np
import pytest
import uproot
from builders import ROOT, ntuple

from gammastar.config.checks import examine_file
from gammastar.core.errors import UserError
from gammastar.results import start
from gammastar.results.start import begin

FIRST = {"beam_energy": "400.0", "target_a": "207.2", "target_z": "82.0", "thickness": "0.01", "pot": "1e13"}


def fill(path, values):
    text = path.read_text()
    for key, value in values.items():
        text = re.sub(rf'(?m)^{key} = "\?"', f"{key} = {value}", text)
    path.write_text(text)


def test_what_is_written_for_a_file_passes_the_check_when_filled_in(tmp_path):
    mass, pt, energy = ntuple(tmp_path / "run1.root", 3000, 1)
    ntuple(tmp_path / "sim.root", 3000, 2, truth=True)
    said = list(begin(tmp_path / "mine", source=tmp_path / "run1.root", simulation=tmp_path / "sim.root"))
    steering = tmp_path / "mine" / "steering.toml"
    assert said[0] == f"wrote {steering}; 5 values to fill in, marked with ?"
    _, found = examine_file(steering)
    assert {f.where for f in found} == {f"spectrum.{key}" for key in FIRST}
    assert any("is to be filled in: Energy of the proton beam [GeV]" in f.message for f in found)
    fill(steering, FIRST)
    _, found = examine_file(steering)
    (left,) = [f for f in found if f.level == "error"]
    assert left.message.endswith('marked with "?": beam_energy, pot')
    fill(tmp_path / "mine" / "detector.toml", {"beam_energy": "400.0", "pot": "1e18"})
    result, found = examine_file(steering)
    assert not found
    # the axes hold what was measured: independent of how they were chosen
    axes = result.select
    for edges, values in ((axes.mass, mass), (axes.pt, pt), (axes.energy, energy)):
        inside = (values >= edges[0]) & (values < edges[-1])
        assert inside.mean() > 0.97
        counts = np.histogram(values, edges)[0]
        assert counts.min() > 20
    schema = tomllib.loads((tmp_path / "mine" / "schema.toml").read_text())
    assert schema["unit"] == 1e-3
    assert schema["truth"] == {"mass": "genMass", "pt": "gen_qT", "energy": "true_energy"}


def test_files_that_are_there_stay(tmp_path):
    (tmp_path / "schema.toml").write_text("mine")
    with pytest.raises(UserError, match=r"schema\.toml would be overwritten; .*--force"):
        list(begin(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["schema.toml"]
    list(begin(tmp_path, replace=True))
    assert (tmp_path / "schema.toml").read_text() != "mine"


def test_without_a_file_every_open_value_is_named(tmp_path):
    list(begin(tmp_path))
    _, found = examine_file(tmp_path / "steering.toml")
    expected = {f"spectrum.{key}" for key in FIRST} | {"read.files", "read.response"}
    assert {f.where for f in found} == expected


def test_a_published_table_needs_no_schema(tmp_path):
    table = ROOT / "data" / "published" / "phenix_2010" / "fig25.csv"
    list(begin(tmp_path, source=table, lepton="e"))
    assert not (tmp_path / "schema.toml").exists()
    steering = tmp_path / "steering.toml"
    fill(steering, FIRST | {"kinematics": '"na60_mock"'})
    content = tomllib.loads(steering.read_text())
    assert set(content) == {"analysis", "spectrum", "predict", "accept", "infer", "systematics", "report"}
    _, found = examine_file(steering)  # of another beam and another lepton than the card
    assert not [f for f in found if "filled in" in f.message and "detector.toml" not in f.message]
    assert any("21314.8" in f.message or "card" in f.message for f in found)


def test_a_file_without_leptons_is_refused(tmp_path):
    with uproot.recreate(tmp_path / "x.root") as file:
        file["t"] = {"a": np.ones(3)}
    with pytest.raises(UserError, match=r"no schema proposed|no tree"):
        list(begin(tmp_path / "new", source=tmp_path / "x.root"))
    assert not (tmp_path / "new").exists()


@pytest.mark.long
def test_axes_leave_out_what_is_hardly_seen_and_a_small_simulation_has_its_price(tmp_path):
    """Efficiency 0.8 above 30 GeV, 0.0002 below, where most photons are; written without our reader."""
    rng = np.random.default_rng(3)

    def file(path, n, *, data):
        energy = np.where(rng.random(n) < 0.97, rng.uniform(10, 30, n), rng.uniform(30, 120, n))
        mass, pt = rng.uniform(0.3, 1.1, n), rng.rayleigh(0.5, n)
        half, k = np.sqrt(energy**2 - mass**2 - pt**2) / 2, np.sqrt(mass**2 / 4 - 0.1056583755**2)
        seen = rng.random(n) < np.where(energy > 30, 0.8, 0.0002)
        counts = np.where(seen, 2, 0)
        legs = np.stack([[pt / 2, k, half], [pt / 2, -k, half]])
        kept = legs[:, :, seen].transpose(2, 0, 1).reshape(-1, 3)
        columns = {
            name: ak.unflatten(kept[:, i], counts) for i, name in enumerate(("trk_px", "trk_py", "trk_pz"))
        }
        columns |= {"trk_q": ak.unflatten(np.tile([1, -1], seen.sum()), counts), "event": np.arange(n)}
        if not data:
            columns |= {"gen_mass": mass, "gen_pt": pt, "gen_energy": energy}
        with uproot.recreate(path) as out:
            out["events"] = columns
        return int(seen.sum())

    n_data = file(tmp_path / "data.root", 80_000, data=True)
    n_simulated = file(tmp_path / "sim.root", 120_000, data=False)
    said = list(
        begin(tmp_path / "mine", source=tmp_path / "data.root", simulation=tmp_path / "sim.root", lepton="mu")
    )
    written = tomllib.loads((tmp_path / "mine" / "steering.toml").read_text())
    assert written["select"]["energy"][0] == 0  # what is not seen still counts for the rate
    assert 20 < written["select"]["energy"][1] < 31  # lower, the first cells are below the floor of 0.01
    (axes,) = [line for line in said if line.startswith("axes: ")]
    held, spectrum = (float(x) for x in re.findall(r"([\d.]+)%", axes))
    assert held > 97
    assert 3 < spectrum < 40
    (warning,) = [line for line in said if line.startswith("warning: the simulation has ")]
    assert f"has {n_simulated} pairs, {n_simulated / n_data:.2g} times the {n_data} photons" in warning


def test_a_detector_of_the_package_is_found_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert start._shared_states(Path("shadows_like"), ("mumu", "pions")) == ("mumu",)
    with pytest.raises(UserError, match="shadow_like"):
        start._shared_states(Path("shadow_like"), ("mumu",))
