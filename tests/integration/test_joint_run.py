"""A joint likelihood from MOCK pairs to the reach: counts by hand, signal of the plane, what it refuses."""

import functools
import re

import numpy as np
import pyhf
import pytest
from builders import ROOT

import gammastar as gs
from gammastar.core.errors import SteeringError, UserError
from gammastar.core.signal import Rate, SignalPlanes
from gammastar.infer import discovery_yield, read_likelihood
from gammastar.infer.counting_search import CountingSearch
from gammastar.infer.joint.limits import couplings_of
from gammastar.pipeline.cache import load_arrays
from gammastar.pipeline.run import run
from gammastar.store.manifest import read_json

SMALL = (ROOT / "analysis" / "na60_dimuon" / "small.toml").read_text()
MASSES, WINDOW = (0.45, 0.6), 0.05
PT, ENERGY = (0.0, 12.0), (0.2, 15.0, 400.0)
JOINT = f"""
[infer.joint]
pt = {list(PT)}
energy = {list(ENERGY)}
window = {WINDOW}
n_couplings = 1
n_replicas = 10
n_toys = 50
"""
LOSSES = """
from dataclasses import replace

import numpy as np

from gammastar.core.sources import OwnSource


def weaker(matched):
    lost = np.arange(len(matched.reco)) % 10 == 5
    return replace(matched, reco=np.where(lost[:, None], np.nan, matched.reco))


losses = OwnSource("losses of pairs", pairs=weaker)
"""


def steering(joint=JOINT, likelihood='likelihood = "joint"\nmethod = "asymptotic"', **more):
    """Return the small analysis with a histogram for the kinematics, two masses and one detector."""
    text = re.sub(r"\[flow\].*?(?=\[predict\])", "", SMALL, flags=re.S).split("[report]")[0]
    text = text.replace("[subtract]", '[subtract]\nweights = "signed"')
    text = text.replace("schema.toml", f"{ROOT}/analysis/na60_dimuon/schema.toml")
    text = text.replace('"mock/', f'"{ROOT}/data/mock/')
    text = text.replace("n_masses = 20", f'sampler = "histogram"\nmasses = {list(MASSES)}')
    text = text.replace('["na62_dump", "ship_ecn3"]', '["na62_dump"]')
    text = text.replace("[infer]", f"[infer]\n{likelihood}").replace("max_patches = 50\n", "")
    for old, new in more.values():
        assert old in text
        text = text.replace(old, new)
    return text.replace("[systematics]", f"{joint}\n[systematics]")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("joint")
    asked = 'min_effective = 3.0\nprojections = [1.4e17, 1e19]\nexports = ["hs3"]'
    (folder / "mine.py").write_text(LOSSES)
    own = ("[systematics]", '[systematics]\nown = ["mine.py:losses"]')
    (folder / "steering.toml").write_text(
        steering(more=("min_effective = 3.0", asked), own=own) + "\n[report]\n"
    )
    return run(folder / "steering.toml", output=folder / "out")


@functools.cache
def likelihoods(folder):
    """Return what `gammastar scan` reads of each mass."""
    found = sorted((folder / "joint_na62_dump").iterdir())
    return {float(path.name[1:].replace("p", ".")): read_likelihood(path) for path in found}


def workspaces(folder):
    return {mass: found.workspace for mass, found in likelihoods(folder).items()}


def events(spec):
    """Return the events of the search by sample."""
    search = next(c for c in spec["channels"] if c["name"] == "search")
    return {s["name"]: s["data"][0] for s in search["samples"]}


def test_every_mass_has_a_workspace_with_the_pairs_of_its_window(results):
    """Counts of the file are those of the selected pairs, binned here by numpy."""
    pairs = load_arrays(results / "stages" / "select.npz")
    found = workspaces(results)
    assert sorted(found) == pytest.approx(MASSES)
    for mass, spec in found.items():
        edges = [mass - 3 * WINDOW, mass - WINDOW, mass + WINDOW, mass + 3 * WINDOW]
        observed = {o["name"]: np.array(o["data"]) for o in spec["observations"]}
        for name, charge in (("opposite_sign", 0), ("plus_plus", 2), ("minus_minus", -2)):
            own = pairs["charge"] == charge
            sample = np.stack([pairs[k][own] for k in ("mass", "pt", "energy")], axis=1)
            by_hand, _ = np.histogramdd(sample, bins=(edges, PT, ENERGY))
            assert observed[name].sum() == by_hand.sum()  # no bin here is without simulation
            assert observed[name].tolist() == by_hand.ravel().tolist()


def test_a_source_is_in_unfolding_rate_yields_joint_likelihood_and_report(results):
    """One record: 10 % fewer reconstructed pairs are 11 % more photons, and 10 % fewer expected pairs."""
    name = "losses of pairs"
    assert name in (results / "systematics.csv").read_text()
    rate = Rate.from_arrays(load_arrays(results / "stages" / "predict.npz"))
    assert np.median(rate.relative(name)) == pytest.approx(1 / 0.9 - 1, abs=0.03)
    plane = SignalPlanes.from_arrays(load_arrays(results / "stages" / "accept.npz")).by_detector["na62_dump"]
    assert name in plane.rate.sources.names
    assert name in (results / "report.html").read_text()
    for spec in workspaces(results).values():
        samples = next(c for c in spec["channels"] if c["name"] == "opposite_sign")["samples"]
        found = [
            sum(m["data"]["hi_data"]) / sum(s["data"])
            for s in samples
            for m in s["modifiers"]
            if m["name"] == "losses_of_pairs"
        ]
        assert np.mean(found) == pytest.approx(0.9, abs=0.03)


def test_patches_hold_the_signal_of_the_plane(results):
    """These cells hold all particles: their signals add up to the yield of the acceptance stage."""
    plane = SignalPlanes.from_arrays(load_arrays(results / "stages" / "accept.npz")).by_detector["na62_dump"]
    for row, found in enumerate(likelihoods(results).values()):
        assert sum(v for k, v in events(found.workspace).items() if k.startswith("signal_")) == 0
        kept = (plane.signal[row] >= 0.1) & (plane.signal[row] <= 1e4)
        assert sorted(found.values[n][1] for n in found.patches) == pytest.approx(plane.coupling[kept])
        assert found.convention["statistic"] == "qtilde"
        for name, (_, coupling) in found.values.items():
            total = sum(v for k, v in events(found.patched(name)).items() if k.startswith("signal_"))
            assert total == pytest.approx(np.interp(coupling, plane.coupling, plane.signal[row]), rel=1e-9)
    numbers = read_json(results / "manifest.json")["numbers"]
    (lost,) = (v for k, v in numbers.items() if k.startswith("signal outside the cells"))
    assert float(lost.rstrip("%")) < 0.1


def test_pyhf_has_the_limit_of_the_run_at_a_patched_grid_point(results):
    """CLs of pyhf at the median limit of the engine is the level: pairs, search and all nuisances."""
    plane = SignalPlanes.from_arrays(load_arrays(results / "stages" / "accept.npz")).by_detector["na62_dump"]
    limit = load_arrays(results / "stages" / "joint_na62_dump_0p45.npz")["expected"][0, 2]
    found = likelihoods(results)[0.45]
    coupling = plane.coupling[couplings_of(plane.signal[0], 1)[0]]
    name = next(n for n, (_, g) in found.values.items() if g == pytest.approx(coupling))
    space = pyhf.Workspace(found.patched(name))
    model = space.model()
    assert {"pot_calibration", "pot_search_NA62_dump", "signal_mc"} <= set(model.config.par_order)
    _, bands = pyhf.infer.hypotest(
        limit, space.data(model), model, test_stat="qtilde", return_expected_set=True
    )
    assert float(bands[2]) == pytest.approx(0.1, rel=1e-3)


def test_submission_says_which_likelihood_it_is_of(results):
    """hepdata-validator took it; its archive has the likelihood of each mass, as the run wrote it."""
    folder = results / "hepdata"
    kept = read_likelihood(folder / "likelihood.tar.gz", region="m0p4500")
    assert kept.workspace == likelihoods(results)[0.45].workspace
    assert kept.patches == likelihoods(results)[0.45].patches
    table = read_json(folder / "contour.yaml")
    qualifiers = {q["name"]: q["value"] for q in table["dependent_variables"][0]["qualifiers"]}
    assert qualifiers["LIKELIHOOD"] == "joint fit of pairs and search"
    assert "fitted together" in (folder / "submission.yaml").read_text()
    methods = read_json(results / "manifest.json")["methods"]
    assert methods["HEPData submission, NA62 dump"].startswith("valid to hepdata-validator")
    published = read_json(results / "manifest.json")["files"]
    assert {"joint_na62_dump/m0p4500/workspace.json", "hepdata/submission.yaml"} <= set(published)


def test_pyhf_fits_the_workspaces(results):
    spec = next(iter(workspaces(results).values()))
    assert spec["measurements"][0]["name"] == "limit_masked"
    space = pyhf.Workspace(spec)
    model = space.model()
    best, value = pyhf.infer.mle.fixed_poi_fit(0.0, space.data(model), model, return_fitted_val=True)
    assert np.isfinite(value)
    assert (best[model.config.par_slice("like_sign")] >= 0).all()
    wanted = {"pot_calibration", "pot_search_NA62_dump", "mass_shape", "r_factor"}
    assert wanted <= set(model.config.par_order)


def test_the_reach_says_which_likelihood_it_is_of(results):
    content = read_json(results / "reach.json")
    rows = [row for row in content["rows"] if row["part"] == "all"]
    assert rows
    assert all(row["method"].startswith("joint: asymptotic") for row in rows)
    methods = read_json(results / "manifest.json")["methods"]
    assert "joint of pairs and search: 1 × 2 cells" in methods["likelihood, NA62 dump"]
    assert not (results / "workspace.json").exists()
    assert not any("not made" in name for name in methods)


def contour(results, part):
    rows = [row for row in read_json(results / "reach.json")["rows"] if row["part"] == part]
    assert rows
    return rows


def test_discoveries_and_projections_have_contours_of_their_own(results):
    """Protons of NA62 are 1.4e17: that projection is the limit to the last digit."""
    limit, same = contour(results, "all"), contour(results, "projection, 1.4e+17 POT")
    assert [row["limit"] for row in same] == [row["limit"] for row in limit]
    more = contour(results, "projection, 1e+19 POT")
    assert all(a["limit"] < b["limit"] / 20 for a, b in zip(more, limit, strict=True))
    assert all(a["coupling_low"] < b["coupling_low"] for a, b in zip(more, limit, strict=True))
    three, five = (contour(results, f"discovery, {z} sigma") for z in (3, 5))
    assert all(a["limit"] < b["limit"] for a, b in zip(three, five, strict=True))
    assert (
        five[0]["method"] == "joint: asymptotic p-values of q0, pairs and search, Asimov data, median 5 sigma"
    )
    assert (results / "hs3.json").exists()
    methods = read_json(results / "manifest.json")["methods"]
    assert "hs3 of the point m0p" in methods["exported likelihood, NA62 dump"]


def test_impacts_of_the_run_are_on_the_coupling(results, monkeypatch):
    """Protons on target of the search, 20 %, move the lower edge by their decades over its exponent."""
    shown, impacts = [], CountingSearch.impacts

    def kept(self, contour):
        shown.append((self.plane, contour, *impacts(self, contour)))
        return shown[-1][2:]

    monkeypatch.setattr(CountingSearch, "impacts", kept)
    run(results.parent / "steering.toml", output=results, resume=True)
    plane, found, ranking, mass = shown[-1]
    edge, signal = found.edges[found.mass == mass][0, 0], plane.signal[plane.mass == mass][0]
    near = np.abs(np.log(plane.coupling / edge)) < 0.3
    exponent = np.polyfit(np.log(plane.coupling[near]), np.log(signal[near]), 1)[0]
    k = ranking.names.index("pot_search_NA62_dump")
    # the exponent of the two couplings next to the edge is 9 % off that of four
    assert ranking.impact[k] == pytest.approx(np.log10([1.2, 1 / 1.2]) / exponent, rel=0.12)
    assert ranking.prefit[k] == pytest.approx(ranking.impact[k], rel=0.05)
    assert any(name.startswith("cell_3 (0.") for name in ranking.names)


def test_loaded_results_give_the_likelihood_of_a_mass(results):
    found = gs.load(results)
    workspace, patches = found.likelihood(mass=0.46)
    assert workspace == likelihoods(results)[0.45].workspace
    assert workspace.mock
    assert len(patches) == len(likelihoods(results)[0.45].patches)
    assert ".likelihood(mass=…)" in repr(found)
    with pytest.raises(UserError, match=r"give mass, one of 0\.45, 0\.6"):
        _ = found.workspace


@pytest.mark.slow
def test_pseudo_experiments_give_a_limit_of_a_few_events(tmp_path):
    (tmp_path / "steering.toml").write_text(
        steering(likelihood='likelihood = "joint"\nmethod = "exact"', m=(str(list(MASSES)), "[0.45]"))
    )
    out = run(tmp_path / "steering.toml", output=tmp_path / "out")
    limit = read_json(out / "reach.json")["expected_limit"]
    # 2.30 without background and error; 50 toys per strength know it to a third
    assert 1.5 < limit[2] < 4.0
    three, five = (contour(out, f"discovery, {z} sigma")[0] for z in (3, 5))
    assert "enumeration, background averaged, signal from 50 pseudo-experiments" in five["method"]
    # two events are needed for three standard deviations, four for five
    counting = [discovery_yield(0.0254, 0.51, significance=z, signal_sigma=0.2) for z in (3, 5)]
    assert five["limit"] / three["limit"] == pytest.approx(counting[1] / counting[0], rel=0.05)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"joint": ""}, r"needs \[infer.joint\]"),
        ({"likelihood": ""}, r"needs \[infer.joint\], which belongs to it"),
        ({"likelihood": 'likelihood = "joint"\nmethod = "marginalised"'}, "marginalised"),
        (
            {
                "a": ('weights = "signed"', 'method = "mixed events"'),
                "b": ("r_factor = 1.162", ""),
                "c": ("r_factor_sigma", "#"),
            },
            "subtract.method = 'mixed events'",
        ),
        (
            {
                "a": (
                    'sampler = "histogram"',
                    'sampler = "histogram"\noutside_domain = ["bremsstrahlung"]',
                )
            },
            "outside",
        ),
        ({"a": ("efficiency_floor = 0.01", 'preset = "smeared mass, as the paper"')}, "smeared"),
        ({"a": ("[spectrum]", "[spectrum]\nextrapolate = false")}, "spectrum.extrapolate = true"),
    ],
)
def test_what_is_of_the_two_steps_is_refused_by_its_key(tmp_path, first_mock, change, words):
    text = steering(**change).replace(f"{ROOT}/data/mock/", f"{first_mock}/")
    (tmp_path / "steering.toml").write_text(text)
    with pytest.raises(SteeringError, match=words):
        run(tmp_path / "steering.toml", output=tmp_path / "out")


@pytest.mark.parametrize(
    "joint",
    [
        f"{JOINT}efficiency_floor = 0.3\n",
        pytest.param(JOINT.replace(str(list(ENERGY)), "[5.0, 6.0, 7.0]"), marks=pytest.mark.slow),
    ],
)
def test_cells_that_nothing_populates_are_an_alarm(tmp_path, joint):
    (tmp_path / "steering.toml").write_text(steering(joint=joint), encoding="utf-8")
    folder = run(tmp_path / "steering.toml", output=tmp_path / "out")
    notes = read_json(folder / "manifest.json")["notes"]
    assert any("100% of the signal" in note and "efficiency_floor" in note for note in notes)
