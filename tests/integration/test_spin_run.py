"""A run that measures the spin density of MOCK pairs and uses it: record, detectors, reinterpretation."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gammastar.config.checks import examine_file
from gammastar.core.constants import M_MU
from gammastar.core.errors import SteeringError
from gammastar.core.files import data_path
from gammastar.core.signal import SignalPlanes
from gammastar.core.sources import SPIN
from gammastar.mock import load_card, simulate_events
from gammastar.mock.card import Polarisation
from gammastar.physics.polarisation import SpinDensities
from gammastar.pipeline.cache import load_arrays
from gammastar.pipeline.record import read_record
from gammastar.pipeline.run import run
from gammastar.pipeline.stages.flow import read_spin
from gammastar.results.export import efficiency_table, export
from gammastar.results.start import reinterpret
from gammastar.store.events import write_tree
from gammastar.store.manifest import read_json

pytestmark = [pytest.mark.flow, pytest.mark.usefixtures("untested_flow")]

TRUTH = -0.8
STEERING = """
[analysis]
name = "spin"
seed = 1
mock = true
[read]
files = ["data.root"]
response = ["mc.root"]
schema = "schema.toml"
[select]
mass = { bins = 9, low = 0.2125, high = 1.1125 }
pt = [0.0, 6.0]
energy = [0.2, 14.0, 400.0]
[subtract]
r_factor = 1.162
weights = "signed"
[unfold]
n_replicas = 5
scan = []
[spectrum]
beam_energy = 400.0
target_a = 207.2
target_z = 82.0
thickness = 0.01
pot = 1e10
[flow]
bins = 6
hidden = 8
layers = 1
epochs = 1
epoch_size = 4000
n_draws = 10
window = 0.3
angles = [0.6, 1.1125]
[predict]
masses = [0.7, 0.9]
n_sample = 4000
[predict.millicharge]
masses = [0.3]
n_sample = 2000
[accept]
detectors = ["na62_dump"]
millicharge_detectors = ["mcp_bars"]
target_scaling = "per_interaction"
acceptance_masses = [0.77]
[infer]
coupling = [1e-8, 1e-4]
n_couplings = 21
"""


def silent(*_):
    """Report nothing."""


@pytest.fixture(scope="module")
def base(tmp_path_factory, mock_schema) -> Path:
    folder = tmp_path_factory.mktemp("spin")
    card = load_card(data_path("cards/na60_mock.toml"))
    state = Polarisation(theta=TRUTH, frame="laboratory")
    vectors = ("rho", "omega_2body", "phi_2body")
    modes = {k: m.model_copy(update={"polarisation": state}) for k, m in card.modes.items() if k in vectors}
    polarised = card.model_copy(update={"modes": modes})
    for name, kind, which, n, seed in (
        ("data", "data", polarised, 10_000, 1),
        ("mc", "mc", card, 40_000, 2),
    ):
        sample = simulate_events(which, n, kind=kind, seed=seed)
        write_tree(folder / f"{name}.root", {"events": sample.branches, "meta": sample.meta_branches()})
    (folder / "schema.toml").write_text(mock_schema)
    (folder / "steering.toml").write_text(STEERING)
    return folder


@pytest.fixture(scope="module")
def results(base) -> Path:
    return run(base / "steering.toml", output=base / "run")


def signals(folder):
    return SignalPlanes.from_arrays(load_arrays(folder / "stages" / "accept.npz")).by_detector["na62_dump"]


def test_the_spin_of_the_data_is_found_and_told_with_its_frame(results):
    found = read_spin(results)
    values, errors = found.coefficients(M_MU)
    assert abs(values[0, 0] - TRUTH) < 4 * errors[0, 0]
    assert values[0, 0] < -4 * errors[0, 0]  # not unpolarised
    manifest = read_json(results / "manifest.json")
    said = manifest["methods"]["spin state of the decays"]
    assert "spin density of the measured pairs, frame laboratory" in said
    name = "λθ, λφ, λθφ of mu pairs, 0.6 to 1.1125 GeV, frame laboratory"
    assert manifest["numbers"][name].startswith(f"{values[0, 0]:.2f} ± {errors[0, 0]:.2f}")
    assert "spin_density.safetensors" in manifest["files"]


def test_yields_follow_the_measured_spin(base, results):
    """The same run with the share of helicity zero that the truth has, and unpolarised."""
    ours = signals(results)
    plain = STEERING.replace("angles = [0.6, 1.1125]\n", "")
    ratio = {}
    for name, lines in (
        ("true", f"longitudinal = {_share():.6f}\n"),
        ("unpolarised", ""),
    ):
        text = plain.replace("[infer]\n", f"{lines}[infer]\n").replace(
            "acceptance_masses", "# acceptance_masses"
        )
        (base / f"{name}.toml").write_text(f"{text}\n[systematics]\nspin = 0.0\n")
        shutil.copytree(results, base / name)  # the measured half is the same
        other = signals(run(base / f"{name}.toml", output=base / name, resume=True))
        best = ours.signal.argmax(axis=1)
        rows = np.arange(len(best))
        ratio[name] = other.signal[rows, best] / ours.signal[rows, best]
        assert other.effect("spin state of the decays") is None
    ends = ours.effect("spin state of the decays").values
    low, high = ends[:, rows, best] / ours.signal[rows, best]
    error = 0.5 * (high - low)
    assert (error > 0).all()
    assert (error < 0.1).all()
    assert (np.abs(ratio["true"] - 1) < 4 * error + 0.01).all()
    assert (np.abs(ratio["unpolarised"] - 1) > np.abs(ratio["true"] - 1)).all()


def _share():
    """Longitudinal share of λθ for muons of 0.8 GeV."""
    from gammastar.physics.polarisation import longitudinal_fraction

    return float(longitudinal_fraction(TRUTH, 0.8, M_MU))


def test_a_resumed_run_takes_it_and_a_reinterpretation_reads_it(base, results):
    before = signals(results)
    sha = read_json(results / "manifest.json")["files"]["spin_density.safetensors"]
    run(base / "steering.toml", output=base / "run", resume=True)
    assert read_json(results / "manifest.json")["files"]["spin_density.safetensors"] == sha
    folder = reinterpret(results, output=base / "again", tell=silent)
    after = signals(folder)
    np.testing.assert_array_equal(after.signal, before.signal)
    np.testing.assert_array_equal(after.effect(SPIN).values, before.effect(SPIN).values)
    assert "spin density of the measured pairs" in str(read_json(folder / "manifest.json")["methods"])
    millicharge = dict(np.load(results / "stages" / "accept_millicharge.npz"))
    again = dict(np.load(folder / "stages" / "accept_millicharge.npz"))
    np.testing.assert_array_equal(again["by_detector|0|signal"], millicharge["by_detector|0|signal"])


def test_exported_efficiencies_follow_it_and_say_so(base, results):
    record = read_record(results)
    detector = record.detectors()["na62_dump"]
    table = [
        efficiency_table(one, "na62_dump", detector, [0.8], final_state="ee", n=4000)["efficiency"]
        for one in (record, replace(record, spin=None), replace(record, spin=SpinDensities.known([0.0] * 3)))
    ]
    assert table[0].max() > 1.02 * table[1].max()  # longitudinal photons share their energy evenly
    np.testing.assert_allclose(table[2], table[1])
    export(results, output=base / "tables", n=200, tell=silent)
    assert "frame laboratory" in read_json(base / "tables" / "export.json")["spin state of the decays"]


def test_exports_take_the_spin_state_of_the_steering(base, results, monkeypatch):
    record = replace(read_record(results), spin=None)
    section = record.steering.accept.model_copy(update={"longitudinal": 0.9})
    given = replace(record, steering=record.steering.model_copy(update={"accept": section}))
    detector = record.detectors()["na62_dump"]
    found = [
        efficiency_table(one, "na62_dump", detector, [0.8], final_state="ee", n=4000)["efficiency"].max()
        for one in (record, given)
    ]
    assert found[1] > 1.02 * found[0]  # longitudinal photons share their energy evenly
    monkeypatch.setattr("gammastar.results.export.read_record", lambda _: given)
    export(results, output=base / "given", n=200, tell=silent)
    text = read_json(base / "given" / "export.json")["spin state of the decays"]
    assert text == "0.9 longitudinal, frame laboratory"


def test_contradictions_are_told_before_work(base):
    path = base / "wrong.toml"
    for old, new, text in (
        ("[infer]\n", "longitudinal = 0.2\n[infer]\n", r"drop one of them"),
        ("[infer]\n", "spin_frame = 'helicity'\n[infer]\n", r"spin_frame"),
        (
            'r_factor = 1.162\nweights = "signed"',
            "method = 'mixed events'",
            r"'mixed events' has none, take 'regions'",
        ),
        ("angles = [0.6, 1.1125]", "angles = [0.6]", r"flow\.angles"),
        ("angles = [0.6, 1.1125]", "angles = [0.6, 0.5]", r"flow\.angles"),
    ):
        path.write_text(STEERING.replace(old, new))
        with pytest.raises(SteeringError, match=text):
            run(path, output=base / "wrong")


def test_a_region_with_too_few_pairs_is_named(base, results):
    path = base / "narrow.toml"
    path.write_text(STEERING.replace("[0.6, 1.1125]", "[0.6, 1.1, 1.1002]"))
    shutil.copytree(results, base / "narrow")
    with pytest.raises(SteeringError, match=r"flow\.angles: spin density from 1\.1 to 1\.1002 GeV"):
        run(path, output=base / "narrow", resume=True)


CHARM = """
[subtract.charm]
template = ["charm.root"]
offset = ["dx", "dy"]
edges = [0, 60, 120, 180, 260, 400, 2000]
[[subtract.corrections]]
name = "eta to mu mu"
kind = "eta to mu mu"
n_dalitz = 600
n_dalitz_sigma = 60
resolution = 0.03
[unfold]
"""


def test_open_charm_is_taken_from_the_angles_too(tmp_path, mock_schema, with_charm):
    with_charm(tmp_path)
    (tmp_path / "schema.toml").write_text(mock_schema)
    text = STEERING[: STEERING.index("[predict]")].replace("r_factor = 1.162", "r_factor = 1.173")
    found, kept = {}, {}
    for name, steering in (
        ("charm", text.replace('weights = "signed"\n', "").replace("[unfold]\n", CHARM)),
        ("plain", text),
    ):
        (tmp_path / f"{name}.toml").write_text(steering)
        folder = run(tmp_path / f"{name}.toml", output=tmp_path / name)
        found[name] = read_spin(folder)
        kept[name] = dict(np.load(folder / "stages" / "subtract.npz"))
        notes = read_json(folder / "manifest.json")["notes"]
        assert any("eta to mu mu: known without decay angles" in note for note in notes) == (name == "charm")
    removed = kept["charm"]["removed_angles"]
    assert not kept["plain"]["removed_angles"].size
    assert set(removed[6]) == {0.0}  # open charm is the first, eta to mu mu has no angles
    assert removed[5].sum() == pytest.approx(kept["charm"]["removed"][0, 0], rel=1e-6)
    inside = (removed[0] >= 0.6) & (removed[0] < 1.1125)
    less = found["plain"].pairs[0] - found["charm"].pairs[0]
    assert less == pytest.approx(removed[5, inside].sum(), rel=1e-6)
    assert less > 0
    assert not np.allclose(found["plain"].moments, found["charm"].moments)
    # the error of the amount of charm is in it
    assert (np.diagonal(found["charm"].cov[0]) > np.diagonal(found["plain"].cov[0])).all()
    values, errors = found["charm"].coefficients(M_MU)
    assert (np.abs(values) < 4 * errors).all()


def test_masses_beside_the_regions_are_told(base):
    path = base / "beside.toml"
    path.write_text(STEERING.replace("masses = [0.7, 0.9]", "masses = [0.4, 0.9]"))
    _, found = examine_file(path)
    said = [finding for finding in found if finding.where == "flow.angles"]
    assert [finding.level for finding in said] == ["warning"]
    assert "0.4" in said[0].message
