"""Pythia 8.3 as engine: yields, the like-sign ratio, shares; skipped where pythia8mc is absent."""

import os
import signal
import sys

import numpy as np
import pytest
import scipy.optimize
import scipy.stats

from gammastar.core.errors import GammastarError, PhysicsError, UserError
from gammastar.core.files import data_path
from gammastar.mock import (
    accepted,
    engines,
    generate_pairs,
    load_card,
    pythia,
    pythia_engine,
    simulate_events,
)
from gammastar.mock.card import PythiaCard
from gammastar.mock.combinatorial import charge_sums, like_sign_ratio, muon_pairs
from gammastar.mock.pythia import make_pool
from gammastar.physics.mesons import beam_frame

CARD = load_card(data_path("cards/na60_mock.toml"))


def with_pythia(**options):
    return CARD.model_copy(update={"pythia": PythiaCard(**options)})


@pytest.fixture(scope="module")
def engine():
    pytest.importorskip("pythia8mc")
    return pythia_engine(CARD, 10_000, seed=1, workers=2)


def test_absent_generator_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pythia8mc", None)
    with pytest.raises(UserError, match=r"gammastar\[simulate\]"):
        simulate_events(CARD, 100, engine="pythia")


def test_unknown_names():
    with pytest.raises(PhysicsError, match="engine = 'herwig'"):
        simulate_events(CARD, 100, engine="herwig")
    with pytest.raises(PhysicsError, match="system = 'pBe'"):
        pythia.settings(400.0, system="pBe")
    with pytest.raises(PhysicsError, match="process = 'bottom'"):
        pythia.settings(400.0, process="bottom")


@pytest.mark.long
def test_multiplicities_and_cross_section(engine):
    """Pythia 8.317, inelastic pp at 400 GeV on a target at rest."""
    soft = engine.soft
    assert soft.sigma == pytest.approx(32.88, rel=2e-3)
    for pdg, mean in {221: 0.579, 113: 0.660, 223: 0.657, 333: 0.0241, 331: 0.062}.items():
        error = np.sqrt(mean / soft.n_events)
        assert soft.multiplicity(pdg) == pytest.approx(mean, abs=6 * error + 0.01 * mean)


def mean_square(pt):
    """Return ⟨pt²⟩ of the best power law pt (1 + (pt/p₀)²)^−n: that of the sample hangs on its tail."""

    def loss(p0, n):
        return np.mean(n * np.log1p((pt / p0) ** 2)) - np.log(2 * (n - 1) / p0**2)

    p0, n = np.exp(scipy.optimize.minimize(lambda x: loss(*np.exp(x)), np.log([1.0, 5.0])).x)
    return p0**2 / (n - 2)


@pytest.mark.long
def test_spectra_are_those_of_the_card(engine):
    """The toy's p₀ and n were fitted to Pythia: ⟨pt²⟩ = p₀²/(n − 2)."""
    for name in ("eta", "rho", "omega"):
        meson = CARD.mesons[name]
        arrays = engine.soft.arrays
        assert mean_square(arrays[f"{meson.pdg}_pt"].astype(float)) == pytest.approx(
            meson.p0**2 / (meson.n - 2), rel=0.06
        )


@pytest.mark.long
def test_acceptance_of_the_omega(engine):
    one = CARD.model_copy(update={"modes": {"omega_2body": CARD.modes["omega_2body"]}})
    d = generate_pairs(one, 50_000, np.random.default_rng(1), mesons=engine.mesons)
    seen = accepted(d.plus, CARD.detector) & accepted(d.minus, CARD.detector)
    assert seen.mean() == pytest.approx(0.0900, abs=0.006)
    assert ((d.plus[3] > 3) & (d.minus[3] > 3)).mean() == pytest.approx(0.503, abs=0.015)


@pytest.mark.long
def test_like_sign_ratio(engine):
    """Same event: charge conservation; mixed: one by construction."""
    rng = np.random.default_rng(2)
    muons = engine.decay_muons(CARD, 60_000, rng)
    found = {}
    for pairing in ("same-event", "mixed"):
        pairs = muon_pairs(muons, rng, pairing=pairing)
        found[pairing] = like_sign_ratio(charge_sums(pairs, pairs.weight))
    assert found["same-event"][0] == pytest.approx(1.23, abs=0.06)
    assert found["mixed"][0] == pytest.approx(1.0, abs=4 * found["mixed"][1])


@pytest.mark.long
def test_data_sample_and_yields_of_the_generator(engine):
    data = simulate_events(CARD, 2000, engine=engine, seed=1)
    assert data.meta["engine"] == "pythia"
    assert data.meta["pythia_events"] == engine.soft.n_events
    natural = simulate_events(with_pythia(normalisation="generator"), 2000, engine=engine, seed=1)
    # 0.579 η per pp event of Pythia against 0.30 of NA27: more dimuons per proton
    assert data.meta["N_POT"] / natural.meta["N_POT"] == pytest.approx(1.85, rel=0.1)


@pytest.mark.slow  # muon pairs are in the default run
def test_electron_pairs_of_pythia(monkeypatch):
    """Neutral pions give the pairs below 2 m_μ and the single electrons, whose signs are independent."""
    pytest.importorskip("pythia8mc")
    monkeypatch.setitem(pythia.SHARE, "pp", 4_000)
    card = load_card(data_path("cards/na45_mock.toml"))
    engine = pythia_engine(card, 4_000, seed=1)
    assert engine.soft.process == "electrons"
    assert engine.soft.multiplicity(111) == pytest.approx(4.85, rel=0.04)
    data = simulate_events(card, 1_000, engine=engine, seed=1)
    sums = data.meta["sum_weights"]
    assert sums["pi0_dalitz"] > 0.8 * sum(value for key, value in sums.items() if key != "combinatorial")
    assert data.meta["r_pool"] == pytest.approx(1.0, abs=4 * data.meta["r_pool_sigma"])
    mothers = engine.decay_muons(card, 4_000, np.random.default_rng(1)).mother
    assert set(np.unique(mothers)) == {-111, 111}


def test_bad_requests():
    pytest.importorskip("pythia8mc")
    with pytest.raises(PhysicsError, match="n = 0"):
        make_pool(CARD, 0)
    with pytest.raises(UserError, match="'Tune:nonsense = 1' is not known"):
        make_pool(with_pythia(settings=("Tune:nonsense = 1",)), 10)


def same(one, two):
    return one.keys() == two.keys() and all(np.array_equal(one[key], two[key]) for key in one)


@pytest.mark.long
@pytest.mark.parametrize(
    ("system", "process", "size"),
    [
        ("pp", "charm", 300),
        pytest.param("pp", "soft", 1_000, marks=pytest.mark.slow),
        pytest.param("pp", "electrons", 1_000, marks=pytest.mark.slow),
        pytest.param("pp", "drell_yan", 500, marks=pytest.mark.slow),
        pytest.param("pPb", "soft", 50, marks=pytest.mark.slow),
    ],
)
def test_a_share_depends_on_its_number_alone(monkeypatch, system, process, size):
    """To the last bit: copies of one initialised process, or each with a Pythia of its own.

    Pythia as it is left by one share does not give the next one (see `pythia._shares`).
    """
    pytest.importorskip("pythia8mc")
    for key in pythia.SHARE:
        monkeypatch.setitem(pythia.SHARE, key, size)
    card, options = with_pythia(system=system), {"process": process, "seed": 3}
    copies = make_pool(card, 3 * size, workers=2, **options).arrays
    lines = pythia.settings(400.0, system=system, process=process)
    shares = [pythia.generate(lines, process, size, 3, number) for number in range(3)]
    assert not same(shares[0], shares[2])
    assert same(copies, pythia._joined(shares))


@pytest.mark.slow
def test_where_processes_are_not_copied(monkeypatch):
    pytest.importorskip("pythia8mc")
    monkeypatch.setitem(pythia.SHARE, "pp", 500)
    one = make_pool(CARD, 1_000, seed=3).arrays
    monkeypatch.setattr(pythia, "COPIES", False)
    assert same(one, make_pool(CARD, 1_000, seed=3, workers=2).arrays)


def test_a_killed_process_is_an_error(monkeypatch):
    """And one that fails says why."""
    pytest.importorskip("pythia8mc")
    monkeypatch.setitem(pythia.SHARE, "pp", 100)
    monkeypatch.setattr(pythia, "initialised", lambda _lines: None)
    monkeypatch.setattr(pythia._Job, "made", lambda _job, _ready: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(GammastarError, match="share 0 was ended from outside"):
        make_pool(CARD, 200, workers=2)

    def full(_job, _ready):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pythia._Job, "made", full)
    with pytest.raises(OSError, match="No space left"):
        make_pool(CARD, 200, workers=2)


def test_events_conserve_energy_and_those_that_do_not_are_left_out(engine):
    """Pythia's own check is off; ours finds none to leave out, and finds one that is broken."""
    assert engine.soft.system == "pp"
    made = pythia.initialised(pythia.settings(400.0))  # of which those of the engine are copies
    event, columns, weights = pythia._batch(made, 500)
    pythia.initialised.cache_clear()
    assert len(weights) == 500
    assert pythia._sound(columns, event, 500, 400.0).all()
    first = np.flatnonzero((event == 7) & (columns["status"] > 0))[0]
    for key in ("px", "py", "pz", "e"):
        broken = {**columns, key: columns[key].copy()}
        broken[key][first] += 0.1
        assert np.flatnonzero(~pythia._sound(broken, event, 500, 400.0)) == [7]


def test_mirror_image_of_a_collision():
    """Rapidity reversed in the centre of mass, transverse mass as it was; twice is nothing."""
    rng = np.random.default_rng(1)
    y_cm = beam_frame(400.0)[1]
    mt, y = rng.uniform(0.3, 4.0, 1000), y_cm + rng.uniform(-3.0, 3.0, 1000)
    pz, energy = mt * np.sinh(y), mt * np.cosh(y)
    chosen = rng.random(1000) < 0.5
    pz2, energy2 = engines._mirrored(pz, energy, y_cm, chosen)
    assert np.arctanh(pz2 / energy2) == pytest.approx(np.where(chosen, 2 * y_cm - y, y), abs=1e-7)
    assert np.sqrt(energy2**2 - pz2**2) == pytest.approx(mt, rel=1e-7)
    assert engines._mirrored(pz2, energy2, y_cm, chosen)[1] == pytest.approx(energy, rel=1e-9)


def test_pythia_does_not_tell_the_ends_of_a_collision(engine):
    """What lets a meson of pp serve mirrored: as many forward as backward, with the same pt."""
    y_cm = beam_frame(400.0)[1]
    for pdg in (221, 113, 223):
        y, pt = (engine.soft.arrays[f"{pdg}_{key}"].astype(float) for key in ("y", "pt"))
        forward = y > y_cm
        assert forward.sum() == pytest.approx(len(y) / 2, abs=4 * np.sqrt(len(y)) / 2)
        assert scipy.stats.ks_2samp(pt[forward], pt[~forward]).pvalue > 1e-3
        assert scipy.stats.ks_2samp((y - y_cm)[forward], (y_cm - y)[~forward]).pvalue > 1e-3


@pytest.mark.slow
def test_weighted_events_of_proton_lead():
    """Angantyr: weights differ from event to event and are carried; R is nearer to one than in pp."""
    pytest.importorskip("pythia8mc")
    card = with_pythia(system="pPb")
    engine = pythia_engine(card, 4_000, seed=1)
    weight = engine.soft.arrays["event_weight"]
    assert weight.std() / weight.mean() > 0.05
    assert engine.soft.multiplicity(221) == pytest.approx(1.08, rel=0.08)
    muons = engine.decay_muons(card, 20_000, np.random.default_rng(1))
    assert muons.weight.sum() / muons.n_events == pytest.approx(4.34e-3, rel=0.15)
