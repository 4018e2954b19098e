"""Leptons through the spectrometer and back: closure, resolutions, acceptance, regions."""

import sys
from dataclasses import replace

import numpy as np
import pytest
from builders import ROOT

from gammastar import accept
from gammastar.core.errors import PhysicsError, SteeringError
from gammastar.core.files import data_path
from gammastar.core.sampling import stream
from gammastar.physics.detector import load_detector

sys.path.insert(0, str(ROOT / "analysis" / "na62_dump"))
import cuts
import production
from simulated_decays import signal_events, signal_scan
from tracking import load_spectrometer, measure

SEARCH = cuts.Search.read()
EDGES = {0.05: 5.48e-7, 0.1: 5.71e-7, 0.2: 4.65e-7, 0.3: 4.70e-7}  # lower edge of the published contour
SEEN = {0.05: 0.133, 0.1: 0.151, 0.2: 0.140, 0.3: 0.156}


def _events(mass, state, n=40_000, card=SEARCH.card, detector=SEARCH.detector):
    rng = stream(1, "tracking", state, str(mass))
    sample = production.bremsstrahlung(mass, n, rng)
    return signal_events(sample, mass, state, detector, card, rng=rng)


def _pairs(events):
    return cuts.as_pairs(events.positive, events.negative, events.weight)


def test_without_smearing_everything_comes_back():
    sharp = replace(
        SEARCH.card, momentum=(0.0, 0.0), angle=(0.0, 0.0), position=0.0, beam_spot=0.0, depth=0.0
    )
    events = _events(0.3, "mumu", 5000, sharp)
    pairs = _pairs(events)
    position, distance = SEARCH.vertex(pairs)
    assert np.allclose(position, events.vertex, atol=1e-4)
    assert distance.max() < 1e-9
    z, cda = SEARCH.tax(pairs)
    good = events.momentum < 300
    assert np.allclose(z[good], 23.07, atol=0.02)
    assert cda.max() < 1e-5
    _, mass = SEARCH.selected(pairs, "mumu")
    assert np.allclose(mass, 0.3, atol=1e-9)


@pytest.mark.long
@pytest.mark.parametrize("mass", [0.1, 0.3])
def test_selected_part_of_decays_agrees_with_an_independent_simulation(mass, model):
    events = _events(mass, "ee", 100_000)
    passed, reconstructed = SEARCH.selected(_pairs(events), "ee")
    scan = signal_scan(events, passed, reconstructed, model.ctau(mass, [EDGES[mass]]))
    assert scan.efficiency[0] == pytest.approx(SEEN[mass], abs=0.006)
    assert 1e-3 < scan.resolution[0] < 4e-3


def test_scan_without_selection_equals_the_fast_yield(model):
    """Same apertures and no resolution: the tracking chain and the fast scan count the same decays."""
    detector = replace(SEARCH.detector, cuts=replace(SEARCH.detector.cuts, min_momentum=0.0))
    planes = tuple(replace(plane, min_separation=0.0) for plane in detector.planes[:2])
    detector = replace(detector, planes=planes)
    rng = stream(2, "fast")
    sample = production.bremsstrahlung(0.2, 100_000, rng)
    ctau = model.ctau(0.2, [1e-6, 1e-5])
    fast = accept.lifetime_scan(sample, 0.2, ctau, detector, states={"ee": 1.0}, rng=rng)
    full = replace(SEARCH.detector, planes=(*planes, *SEARCH.detector.planes[2:]))
    card = replace(SEARCH.card, beam_spot=0.0, depth=0.0)
    events = signal_events(sample, 0.2, "ee", full, card, rng=rng)
    slow = signal_scan(events, np.ones(len(events), dtype=bool), np.full(len(events), 0.2), ctau)
    error = np.hypot(fast.mc_error, slow.mc_error)
    assert (np.abs(fast.accepted - slow.selected) < 4 * error).all()


@pytest.mark.parametrize(("state", "low", "high"), [("ee", 0.994, 0.9995), ("mumu", 0.997, 1.0)])
def test_signal_region_contains_the_signal(state, low, high, model):
    events = _events(0.3, state)
    pairs = _pairs(events)
    passed, mass = SEARCH.selected(pairs, state)
    z, cda = SEARCH.tax(pairs)
    before = passed | (
        np.logical_and.reduce([cut(pairs) for cut in SEARCH.before_region(state)])
        & ~SEARCH.in_signal_region(z, cda, state)
    )
    ctau = model.ctau(0.3, [1e-6])
    scans = [signal_scan(events, keep, mass, ctau) for keep in (passed, before)]
    assert low <= scans[0].selected[0] / scans[1].selected[0] <= high
    either = SEARCH.in_signal_region(z, cda, state) | SEARCH.in_control_region(z, cda, state)
    assert either[before].mean() > 0.999


def test_identification_of_electrons_muons_pions():
    rng = np.random.default_rng(3)
    n = 4000
    vertex = np.tile([0.0, 0.25, 170.0], (n, 1))
    p = np.zeros((4, n))
    p[2] = rng.uniform(15, 100, n)
    p[3] = p[2]
    found = {}
    for kind in ("e", "mu", "pi"):
        tracks, inside = measure(vertex, p, 1, kind, SEARCH.detector, SEARCH.card, rng)
        labels = SEARCH.identify(tracks.select(inside))
        found[kind] = {name: float(mask.mean()) for name, mask in labels.items()}
    assert found["e"]["e"] > 0.95
    assert found["mu"]["mu"] > 0.98
    assert found["pi"]["pi"] > 0.8
    assert found["mu"]["e"] < 0.01
    assert found["pi"]["mu"] < 0.03


def test_blinding_hides_both_regions_and_nothing_else():
    pairs = _pairs(_events(0.2, "ee", 5000))
    assert SEARCH.numbers["masked"] == ["SR", "CR"]
    z, cda = SEARCH.tax(pairs)
    hidden = SEARCH.in_signal_region(z, cda, "ee") | SEARCH.in_control_region(z, cda, "ee")
    assert (SEARCH.visible(pairs, "ee") == ~hidden).all()
    assert hidden.any()
    unmasked = replace(SEARCH, numbers=SEARCH.numbers | {"masked": []})
    assert unmasked.visible(pairs, "ee").all()


def test_faults(tmp_path):
    card = data_path("cards/na62_spectrometer.toml").read_text()
    bad = tmp_path / "card.toml"
    for text in (card + '\nunknown = "x"\n', card.replace("depth = 0.165", "depth = -1.0")):
        bad.write_text(text if "unknown" not in text else 'unknown = "x"\n' + card)
        with pytest.raises(SteeringError):
            load_spectrometer(bad)
    bad.write_text(card.replace('depth = "3.2', 'deep = "3.2'))
    with pytest.raises(SteeringError, match="no source"):
        load_spectrometer(bad)
    with pytest.raises(PhysicsError, match="state"):
        _events(0.3, "pipi", 10)
    other = load_detector(data_path("detectors/appendix_b.toml"))
    with pytest.raises(PhysicsError, match="no plane"):
        _events(0.3, "ee", 10, detector=replace(SEARCH.detector, planes=other.planes))


@pytest.fixture(scope="module")
def model():
    from gammastar.physics.qed import RTable
    from gammastar.predict import DarkPhoton

    return DarkPhoton(RTable.read(data_path("measurements/r_ratio.csv")))
