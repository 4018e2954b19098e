"""The search as a system: ntuples, control samples, contours, axion-like particles, calibration run."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
from builders import ROOT

from gammastar import infer
from gammastar.core.sampling import stream
from gammastar.store.events import write_tree

sys.path.insert(0, str(ROOT / "analysis" / "na62_dump"))
import alp
import control_samples
import cuts
import from_dimuons
import likelihood
import meson_study
import plane
import production
import published_edges
from simulated_decays import signal_events

SEARCH = cuts.Search.read()


def test_selection_of_the_ntuple_equals_the_selection_in_memory(tmp_path):
    rng = stream(1, "ntuple")
    sample = production.bremsstrahlung(0.25, 10_000, rng)
    events = signal_events(sample, 0.25, "mumu", SEARCH.detector, SEARCH.card, rng=rng)
    path = tmp_path / "signal.root"
    write_tree(path, {"events": events.branches()})
    found, cutflow = control_samples.selected_pairs(SEARCH, path, "mumu", blind=False)
    pairs = cuts.as_pairs(events.positive, events.negative, events.weight)
    expected = np.logical_and.reduce([cut(pairs) for cut in SEARCH.before_region("mumu")])
    assert len(found) == expected.sum()
    assert found.weight.sum() == pytest.approx(events.weight[expected].sum())
    assert "fiducial" in str(cutflow)
    hidden, _ = control_samples.selected_pairs(SEARCH, path, "mumu")
    assert len(hidden) < 0.01 * len(found)  # the signal lies in the masked regions


def test_mock_control_sample_gives_a_background_with_its_posterior(tmp_path):
    path = tmp_path / "control.root"
    control_samples.prompt_sample(SEARCH, path, n=4000)
    found = control_samples.prompt_estimate(SEARCH, path, n=50_000)
    assert found.counts["mue"] > found.counts["ee"] > 0
    low, high = found.signal_region.interval
    assert low < found.signal_region.median < high
    total = sum(f.total for f in found.fractions.values()) / len(found.fractions)
    assert total == found.counts["ee"]
    mean = found.counts["ee"] * np.prod(
        [(f.passed + 1) / (f.total + 2) for f in (found.fractions[n] for n in ("LAV", "ANTI0", "SR"))]
    )
    assert found.signal_region.draws.mean() == pytest.approx(mean, rel=0.05)


@pytest.mark.long
def test_random_pairs_are_rare():
    found = control_samples.combinatorial_estimate(SEARCH, n_max=20_000)
    assert found["SR"][0] <= found["CR"][0] <= found["FV"][0] < 1.0


@pytest.fixture(scope="module")
def small_plane():
    masses = np.array([0.1, 0.3, 0.411, 0.5])
    couplings = np.geomspace(1e-7, 1e-4, 61)
    return plane.full_plane(SEARCH, masses=masses, couplings=couplings, n=10_000)


@pytest.mark.long
def test_plane_has_the_expected_layers(small_plane):
    brem = small_plane.layers["bremsstrahlung", "ee"]
    mesons = small_plane.layers["mesons", "ee"]
    assert (brem.efficiency[1:, :30] > np.nan_to_num(mesons.efficiency[1:, :30])).mean() > 0.9
    assert small_plane.signal("mumu")[0].max() == 0.0
    assert np.nanmax(small_plane.resolution("ee")) < 0.01
    assert plane.efficiency_sigma() == pytest.approx(0.02915, abs=1e-5)
    total = small_plane.total_sigma("ee")
    assert 0.02 < total[1, 20] < 0.2


@pytest.mark.long
def test_contours_of_both_channels_and_of_their_combination(small_plane):
    found = {
        states: likelihood.contour(small_plane, states, modes=plane.MODES, precision=0.1)
        for states in (("ee",), ("mumu",), ("ee", "mumu"))
    }
    edges = {states: likelihood.edges_at(f.reach, 0.3) for states, f in found.items()}
    assert edges["ee", "mumu"][0] < min(edges["ee",][0], edges["mumu",][0])
    limit = found["mumu",].limit
    assert limit[2].max() > 1.3 * likelihood.zero_event_limit()  # at the observed event
    assert limit[1].max() == pytest.approx(likelihood.zero_event_limit())


def test_histfactory_of_one_point_is_valid_and_agrees():
    pyhf = pytest.importorskip("pyhf")
    content = likelihood.histfactory({"ee": 1.2, "mumu": 1.2}, 0.3, {"ee": 2.5e-3, "mumu": 2e-3})
    workspace = pyhf.Workspace(json.loads(json.dumps(content["workspace"])))
    model = workspace.model()
    assert {"pot", "b_ee", "b_mumu", "mu"} <= set(model.config.par_order)
    data = workspace.data(model)
    start = model.config.suggested_init()
    nominal = model.expected_actualdata(start)
    assert nominal.sum() == pytest.approx(2.4 + 0.0094 + 0.016, rel=1e-2)
    assert np.isfinite(model.logpdf(start, data))
    assert "asymptotic" in content["warning"]


def test_alp_limit_has_a_minimum_and_scales_with_exposure():
    detector = alp.loose_detector()
    times = np.array([100.0, 800.0, 20_000.0])
    one = alp.product_limit(0.22, times, 2.3, 1e18, detector, n=20_000)
    ten = alp.product_limit(0.22, times, 2.3, 1e19, detector, n=20_000)
    assert one.argmin() == 1
    assert np.allclose(one / ten, 10)


def test_calibration_run_sees_more_with_a_smaller_hole():
    found = from_dimuons.calibration(0.3, 1e-6, n=10_000)
    assert (np.diff(found.fraction) <= 1e-9).all()
    assert 5e-4 < found.needed() < 5e-3
    assert found.protons() > 1e7


def test_background_densities_are_normalised():
    x = np.linspace(0.0, 5.0, 2_000_001)
    assert np.trapezoid(likelihood.roo_landau(x), x) == pytest.approx(1.0, abs=2e-3)
    m = np.linspace(*likelihood.BERNSTEIN_RANGE, 10_001)
    assert np.trapezoid(likelihood.bernstein(m), m) == pytest.approx(1.0, abs=1e-6)


def test_isolation_of_the_card_is_that_of_the_detectors_and_its_range_orders_the_yield():
    for name, least in zip(("STRAW1", "LKr"), SEARCH.isolation, strict=True):
        for detector in (SEARCH.detector, _generator_level()):
            assert {p.name: p.min_separation for p in detector.planes}[name] == least
    events = [
        meson_study.accepted(SEARCH.isolated_by(side), "bremsstrahlung", "ee", 0.015, n=6_000).signal()
        for side in ("low", "nominal", "high")
    ]
    k = int(np.searchsorted(meson_study.COUPLINGS, 3e-6))
    assert events[0][k] > 1.3 * events[1][k] > 1.3 * events[2][k]
    with pytest.raises(KeyError):
        SEARCH.isolated_by("middle")


@pytest.fixture(scope="module")
def decays():
    return meson_study.decays(SEARCH, {"ee": (0.05, 0.2), "mumu": (0.3,)}, n=15_000)


def test_edges_agree_with_those_of_the_reach(decays):
    signal = np.stack([a.signal() for a in decays["ee", 0.05].values()])
    limit = likelihood.zero_event_limit()
    masses = 0.01 * np.arange(1, len(signal) + 1)
    found = infer.reach(masses, meson_study.COUPLINGS, signal, limit)
    edges = meson_study.edges_of(signal)
    for mass, ours in zip(masses, edges, strict=True):
        assert np.log10(likelihood.edges_at(found, mass)) == pytest.approx(ours, abs=2e-3)
    nothing = meson_study.edges_of(1e-6 * signal)
    assert (nothing[:, 0] == nothing[:, 1]).all()


def test_published_edge_holds_a_tenth_of_the_pions_and_no_eta(decays):
    found = decays["ee", 0.05]
    share, error = meson_study.share_allowed(found, "ee", 0.05, ("pi0",))
    assert share == pytest.approx(0.10, abs=2 * error)
    assert error < 0.03
    assert "pi0" not in decays["ee", 0.2]
    for key in (("ee", 0.2), ("mumu", 0.3)):
        share, error = meson_study.share_allowed(decays[key], *key, ("others",))
        assert abs(share) < 3 * error < 0.25


@pytest.mark.long
def test_pointing_and_vertex_remove_bremsstrahlung_as_they_remove_mesons(decays):
    found = {e.name: meson_study.fit(e, decays) for e in meson_study.EXPLANATIONS}
    for name, verdict in found.items():
        brem, mesons = verdict.kept
        if name.startswith(("pointing", "vertex")):
            assert brem < 0.5
            assert mesons == pytest.approx(brem, rel=0.35)
    factor = found["one factor on all mesons"]
    assert factor.kept == pytest.approx((1.0, factor.value), rel=1e-4)
    best = min(found.values(), key=lambda verdict: verdict.chi2)
    assert best.explanation.name.startswith(("one factor", "softer", "π⁰ alone"))
    assert found["all mesons at our yield"].chi2 > 10 * best.chi2


def test_notch_of_a_triangle():
    mass = np.linspace(0.40, 0.42, 201)
    triangle = np.maximum(0.1 * (1 - np.abs(mass - 0.411) / 0.004), 0.0)
    for sign in (1, -1):
        depth, width = likelihood.notch(mass, 4e-7 * 10 ** (sign * triangle), (0.40, 0.42))
        assert depth == pytest.approx(0.1, rel=1e-6)
        assert width == pytest.approx(0.004, rel=1e-3)


def test_published_edges_are_those_of_the_vertices():
    low, high = published_edges.edges("ee", 0.1)
    assert (10**low, 10**high) == pytest.approx((5.71e-7, 1.49e-5), rel=0.02)
    low, _ = published_edges.edges("mumu", 0.411)
    assert low - published_edges.edges("mumu", 0.40)[0] == pytest.approx(0.11, abs=0.02)
    assert np.isnan(published_edges.edges("mumu", 0.7)).all()


def test_geometry_of_the_two_detector_files_agrees():
    assert replace(SEARCH.detector.target, position=(0.0, 0.0, 23.07)) == _generator_level().target
    assert SEARCH.detector.planes == _generator_level().planes


def _generator_level():
    from gammastar.core.files import data_path
    from gammastar.physics.detector import load_detector

    return load_detector(data_path("detectors/na62_dump.toml"))
