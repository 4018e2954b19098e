"""The rate at exact masses: lines between bins, thresholds, errors; truth from closed forms and integrals."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from builders import counted
from scipy.integrate import quad
from scipy.special import ndtr

from gammastar import mock, predict
from gammastar.core.constants import M_E, M_MU, M_PI0, mass, width
from gammastar.core.errors import PhysicsError, SteeringError
from gammastar.core.files import data_path
from gammastar.core.pairs import MatchedPairs
from gammastar.core.records import variable
from gammastar.mock.cocktail import mass_spectrum
from gammastar.physics import hadrons
from gammastar.physics.detector import MassResolution
from gammastar.physics.mesons import MesonTable, dark_photon_branching
from gammastar.physics.millicharge import bin_factors
from gammastar.physics.qed import dark_photon_rate, lepton_factor, pseudoscalar_dalitz, vector_dalitz
from gammastar.pipeline.stages.predict import _tell_shape, mass_dependence, photons_of
from gammastar.predict.production import scan_masses
from gammastar.spectrum import fit_mass_shape, mass_counts, relative_shifts
from gammastar.spectrum.mass_shape import resolution_of, without_fakes

PAIRS = 1.6e10  # protons on target: some 60 000 dimuons
EDGES = np.linspace(0.2125, 1.1125, 37)
LINES = np.linspace(0.74, 1.06, 321)


def spectrum(contents, edges=EDGES, cov=None):
    axes = (variable("mass", edges),)
    cov = np.diag(np.maximum(contents, 1.0)) if cov is None else cov
    return counted(contents, axes, cov=cov)


def integrals(density, edges=EDGES, points=2001):
    grid = np.linspace(edges[:-1], edges[1:], points, axis=1)
    return np.trapezoid(density(grid), grid, axis=1)


def cocktail(m):
    return PAIRS * mass_spectrum(mock.load_card(data_path("cards/na60_mock.toml")), m)


def other(m):
    """Spectrum of shapes that are not the fit's: a ρ of constant width, ω and φ as such, 1/m³ beside them."""
    m = np.asarray(m, dtype=np.float64)
    bw = 0.0
    for pdg, n in ((113, 6e3), (223, 8e3), (333, 2e3)):
        pole, gamma = mass(pdg), width(pdg)
        bw = bw + n * 2 * m / np.pi * pole * gamma / ((m**2 - pole**2) ** 2 + (pole * gamma) ** 2)
    q2 = m**2
    eta = pseudoscalar_dalitz(q2, mass(221), M_MU, hadrons.pointlike)
    omega = vector_dalitz(q2, mass(223), M_PI0, M_MU, hadrons.omega2)
    return lepton_factor(q2, M_MU) * (bw + 50 / m**3) + 2 * m * (6e7 * eta + 1.7e7 * omega)


@pytest.mark.parametrize(("density", "limit"), [(cocktail, 1e-4), (other, 0.03)])
def test_exact_contents_of_bins_give_the_rate_on_and_beside_the_lines(density, limit):
    contents = integrals(density)
    found = fit_mass_shape(spectrum(contents), m_lepton=M_MU)
    assert found.flagged == (density is other)  # a shape that is far off still tells what lies between
    distance = np.log10(found.density(LINES)[0] / density(LINES))
    assert np.sqrt(np.mean(distance**2)) < limit
    centres, means = 0.5 * (EDGES[1:] + EDGES[:-1]), contents / np.diff(EDGES)
    straight = np.log10(np.interp(LINES, centres, means) / density(LINES))
    assert np.sqrt(np.mean(straight**2)) > 0.2  # what it replaces


@pytest.mark.long
def test_pulls_of_exact_masses_are_normal():
    """Poisson contents of the bins: mean and width of pulls at exact masses, lines included.

    Where the components are right, a residual that is not there makes errors wider than they need be.
    """
    rng, truth, pulls = np.random.default_rng(1), integrals(cocktail), []
    m = np.array([0.22, 0.3, 0.45, 0.6, 0.7, 0.77, mass(223), 0.8, 0.9, 1.0, mass(333), 1.03, 1.08])
    for _ in range(16):
        found = fit_mass_shape(spectrum(rng.poisson(truth).astype(float)), m_lepton=M_MU)
        value, cov = found.density(m)
        pulls.append((value - cocktail(m)) / np.sqrt(np.diag(cov)))
    pulls = np.array(pulls)
    assert abs(pulls.mean()) < 0.25  # Poisson errors from the contents pull down a little
    assert 0.65 < np.std(pulls, axis=0).mean() < 1.1
    assert np.abs(pulls).max() < 3.5  # 5e-4 each, 208 of them
    assert (np.abs(pulls.mean(axis=0)) < 0.7).all()


def test_sources_move_on_to_exact_masses():
    contents = integrals(cocktail)
    found = fit_mass_shape(spectrum(contents), m_lepton=M_MU)
    value = found.density(LINES)[0]
    np.testing.assert_allclose(found.shifted(LINES, np.full(36, 0.03)), 0.03 * value, rtol=1e-6)
    near = np.where(np.abs(0.5 * (EDGES[1:] + EDGES[:-1]) - mass(333)) < 0.02, 0.1, 0.0)
    moved = found.shifted([mass(333), 0.4], near)
    assert moved[0] / found.density([mass(333)])[0][0] == pytest.approx(0.1, rel=0.2)
    assert abs(moved[1]) < 0.01 * found.density([0.4])[0][0]
    fine, cov = found.binned(EDGES)
    np.testing.assert_allclose(fine, contents, rtol=4e-4)  # steps of 0.5 MeV at the ends of decays
    assert cov.shape == (36, 36)


@pytest.mark.parametrize(
    ("edges", "match"),
    [
        (np.linspace(0.2125, 3.2, 60), r"reach to 3\.2 GeV"),
        (np.linspace(0.2125, 1.1125, 10), "wider than"),
        (np.linspace(0.7, 1.0, 7), "too few"),
    ],
)
def test_bins_that_tell_no_line_are_refused_or_averaged(edges, match):
    plain = spectrum(integrals(cocktail, np.minimum(edges, 1.49)), edges)
    with pytest.raises(PhysicsError, match=match):
        fit_mass_shape(plain, m_lepton=M_MU)
    with pytest.raises(SteeringError, match=r"predict.mass_dependence = 'lines'"):
        photons_of(plain, M_MU, Everywhere(), None, mass_dependence="lines")
    photon = photons_of(plain, M_MU, Everywhere(), None)
    assert photon.shape is None
    alarms, methods = [], {}
    cache = SimpleNamespace(alarm=alarms.append, methods=methods)
    steering = SimpleNamespace(predict=SimpleNamespace(mass_dependence=None), unfold=None)
    _tell_shape(SimpleNamespace(cache=cache, steering=steering), photon)
    assert "no lines" in methods["mass dependence"]
    assert [("omega" in text, "exact masses" in text) for text in alarms] == [(True, True)]
    steering.predict.mass_dependence = "bins"  # chosen, so no alarm
    _tell_shape(SimpleNamespace(cache=cache, steering=steering), photon)
    assert len(alarms) == 1


def test_lines_are_fitted_in_bins_that_reach_beyond_them():
    """A wide state at 1.45 GeV that no component describes, in bins up to 1.9 GeV."""

    def wide(m):
        return cocktail(m) + 0.05 * cocktail(np.array([1.1])) * np.exp(-0.5 * ((m - 1.45) / 0.12) ** 2)

    edges = np.linspace(0.2125, 1.9, 61)
    found = fit_mass_shape(spectrum(integrals(wide, edges), edges), m_lepton=M_MU)
    value, cov = found.density(LINES)
    assert np.abs((value - wide(LINES)) / np.sqrt(np.diag(cov))).max() < 3.0
    assert np.sqrt(np.mean(np.log10(value / wide(LINES)) ** 2)) < 0.03


class Everywhere:
    mass_range = (0.2, 1.2)
    beam_energy = 400.0


@pytest.mark.parametrize("name", ["eta", "omega"])
def test_dalitz_decays_give_their_dark_photons_at_exact_masses(name):
    """η → γA′ and ω → π⁰A′ from 25 MeV bins of dimuons, against the branching ratios in closed form."""
    table = MesonTable.read(data_path("measurements/mesons_400gev.toml"))
    kinds = {"eta": "pseudoscalar_dalitz", "omega": "vector_dalitz"}
    decay = next(d for d in table.decays if d.parent == name and d.kind == kinds[name])
    parent, n = mass(table.mesons[name].pdg), 1e9

    def dimuons(m):
        m = np.asarray(m, dtype=np.float64)
        if name == "eta":
            shape = pseudoscalar_dalitz(m**2, parent, M_MU, hadrons.eta2)
        else:
            shape = vector_dalitz(m**2, parent, M_PI0, M_MU, hadrons.omega2)
        return n * decay.branching * 2 * m * shape

    m = np.array([0.2130, 0.22, 0.25, 0.3, 0.37, 0.45, 0.52])
    expected = n * dark_photon_branching(decay, parent, width(table.mesons[name].pdg), m)
    exact = photons_of(spectrum(integrals(dimuons)), M_MU, Everywhere(), None)
    np.testing.assert_allclose(exact.rate(m)[0], expected, rtol=1e-3)


def test_threshold_bin_has_the_mean_of_kappa():
    """An even rate of dark photons: 25 MeV bins give it back, the centre of the first one is 7 % off."""
    rate = 3e4

    def dimuons(m):
        return rate / dark_photon_rate(np.ones_like(m), m, M_MU)

    contents = np.array([quad(dimuons, a, b)[0] for a, b in pairwise(EDGES)])
    centres, means = 0.5 * (EDGES[1:] + EDGES[:-1]), contents / np.diff(EDGES)
    ours, _ = predict.rate(centres, means, np.eye(36), M_MU, edges=EDGES)
    np.testing.assert_allclose(ours, rate, rtol=2e-4)
    assert predict.rate(centres, means, np.eye(36), M_MU)[0][0] / rate < 0.95
    with pytest.raises(PhysicsError, match="not those of bins"):
        predict.rate(centres, means, np.eye(36), M_MU, edges=EDGES[:-1])


def test_millicharged_pairs_take_the_masses_inside_a_bin():
    """Eq. 8 in fine bins of the fitted shape against its integral over the exact spectrum."""
    found = fit_mass_shape(spectrum(integrals(cocktail)), m_lepton=M_MU)
    fine = np.linspace(EDGES[0], EDGES[-1], 901)
    m_chi = np.array([0.01, 0.1, 0.3885, 0.392, 0.5])
    ours = bin_factors(fine, m_chi, M_MU) @ found.binned(fine)[0]
    coarse = bin_factors(EDGES, m_chi, M_MU) @ integrals(cocktail)
    tiny = np.linspace(EDGES[0], EDGES[-1], 9_001)
    exact = bin_factors(tiny, m_chi, M_MU) @ integrals(cocktail, tiny, 5)
    np.testing.assert_allclose(ours, exact, rtol=2e-3)
    assert np.abs(coarse / exact - 1).max() > 0.01


def test_masses_of_a_scan_follow_lines_and_threshold():
    made = photons_of(spectrum(integrals(cocktail)), M_MU, Everywhere(), None)
    low, high = made.mass_range
    assert (low, high) == (EDGES[0], EDGES[-1])
    found = scan_masses(made, low, high, 60)
    assert len(found) == 60
    assert (np.diff(found) > 0).all()
    assert {found[0], found[-1], mass(223), mass(333)} <= set(found)
    rate = np.log10(made.rate(found)[0])
    assert np.abs(np.diff(rate)).max() < 0.55
    assert np.abs(np.diff(np.log10(made.rate(np.linspace(low, high, 60))[0]))).max() > 0.8
    assert found[1] - found[0] < 0.6 * (high - low) / 59
    plain = photons_of(spectrum(integrals(cocktail)), M_MU, Everywhere(), None, mass_dependence="bins")
    np.testing.assert_allclose(scan_masses(plain, 0.3, 1.0, 5), np.linspace(0.3, 1.0, 5))


def test_electron_pairs_have_a_pion():
    """Below the π⁰ a spectrum of electrons is Dalitz decays of the π⁰, with its end inside a bin."""

    def electrons(m):
        q2 = np.asarray(m, dtype=np.float64) ** 2
        pion = pseudoscalar_dalitz(q2, M_PI0, M_E, hadrons.pi0_2)
        eta = pseudoscalar_dalitz(q2, mass(221), M_E, hadrons.eta2)
        return 2 * m * (1e7 * pion + 1e6 * eta)

    edges = np.linspace(0.01, 0.4, 40)
    found = fit_mass_shape(spectrum(integrals(electrons, edges), edges), m_lepton=M_E)
    m = np.array([0.02, 0.06, 0.1, 0.12, 0.131, 0.14, 0.3])
    np.testing.assert_allclose(found.density(m)[0], electrons(m), rtol=2e-3)


def test_smeared_masses_have_no_lines():
    def steering(preset, asked):
        unfolded = SimpleNamespace(preset=preset)
        return SimpleNamespace(unfold=unfolded, predict=SimpleNamespace(mass_dependence=asked))

    smeared = "smeared mass, as the paper"
    for asked in (None, "lines", "bins"):
        assert mass_dependence(steering("true mass", asked)) == asked
    assert mass_dependence(steering(smeared, None)) == "bins"
    with pytest.raises(SteeringError, match=r"needs true masses; unfold.preset = 'smeared mass"):
        mass_dependence(steering(smeared, "lines"))


def coherent(phase):
    """The cocktail with amplitudes of ρ and ω at a phase, written anew."""

    def density(m):
        card = mock.load_card(data_path("cards/na60_mock.toml"))
        parts = {
            k: PAIRS * mass_spectrum(card.model_copy(update={"modes": {k: card.modes[k]}}), m)
            for k in ("rho", "omega_2body")
        }
        momentum = np.sqrt(np.clip(m**2 / 4 - 0.13957**2, 0, None))
        gamma = 0.1474 * 0.77526 / m * (momentum / np.sqrt(0.77526**2 / 4 - 0.13957**2)) ** 3
        rho = 1 / (0.77526**2 - m**2 - 0.77526j * gamma)
        omega = np.exp(1j * phase) / (0.78266**2 - m**2 - 0.78266j * 0.00868)
        mixed = 2 * np.sqrt(parts["rho"] * parts["omega_2body"])
        return cocktail(m) + mixed * np.cos(np.angle(omega) - np.angle(rho))

    return density


def pairs_of(density, seed, width=0.025):
    """Reconstructed pairs of a quarter of the photons, and their resolution."""
    resolution = replace(MassResolution.gaussian([0.1, 1.6], width), efficiency=np.full(2, 0.25))
    fine = np.linspace(0.2114, 1.5, 12_887)
    share = np.diff(ndtr((EDGES - fine[:, None]) / width), axis=1)
    expected = 0.25 * np.trapezoid(density(fine)[:, None] * share, fine, axis=0)
    return mass_counts(spectrum(np.random.default_rng(seed).poisson(expected).astype(float)), resolution)


def stepped(m):
    return cocktail(m) * np.where(m > 0.9, 0.6, 1.0)


def bumped(m):
    return cocktail(m) + 3600 * np.exp(-0.5 * ((m - 0.62) / 0.05) ** 2) / (0.05 * np.sqrt(2 * np.pi))


@pytest.mark.long
@pytest.mark.parametrize("density", [other, stepped, bumped, *map(coherent, (np.pi / 2, np.pi, -np.pi / 2))])
def test_shapes_that_the_fit_does_not_have_are_within_its_errors(density):
    """Pairs with a resolution of 25 MeV; at the masses of one set few pulls are independent: some 20."""
    m = np.linspace(0.22, 1.1, 60)
    found = fit_mass_shape(spectrum(integrals(density)), m_lepton=M_MU, counts=pairs_of(density, 5))
    value, cov = found.density(m)
    pulls = (value - density(m)) / np.sqrt(np.diag(cov))
    assert np.abs(pulls).max() < 3.7  # 2e-4 each
    assert np.sqrt(np.mean(pulls**2)) < 1.7
    assert (value > 0).all()


def test_a_rate_of_nothing_has_an_error():
    """No pairs above 0.9 GeV: rates are not negative, and as uncertain as the next pair."""
    counts = np.where(EDGES[:-1] < 0.9, integrals(cocktail), 0.0)
    value, cov = fit_mass_shape(spectrum(counts), m_lepton=M_MU).density([0.95, 1.0, mass(333), 1.09])
    sigma = np.sqrt(np.diag(cov))
    assert (value >= 0).all()
    assert (value < 4 * sigma).all()
    assert (sigma * 0.025 > 0.2).all()  # pairs per bin


def test_where_the_continuum_ends_a_rate_is_as_uncertain_as_its_bins():
    """Bins without pairs that are known to 100 of them, as after a large background.

    A residual of 0.7 errors that eight bins share, the longest correlation, is left with 0.7/√(1 + 8·0.7²).
    """
    above, sigma = EDGES[:-1] >= 0.9, 100.0
    counts = np.where(above, 0.0, integrals(cocktail))
    cov = np.diag(np.where(above, sigma**2, np.maximum(counts, 1.0)))
    found = fit_mass_shape(spectrum(counts, cov=cov), m_lepton=M_MU).density([0.95, 0.975, 1.0])[1]
    assert (np.sqrt(np.diag(found)) * 0.025 > 0.7 / np.sqrt(1 + 8 * 0.7**2) * sigma).all()


def test_without_coherence_rho_and_omega_do_not_interfere():
    contents, m = integrals(cocktail), np.array([0.77, 0.8, 0.82])
    errors = [
        np.sqrt(np.diag(fit_mass_shape(spectrum(contents), m_lepton=M_MU, coherence=c).density(m)[1]))
        for c in (0.0, 0.7)
    ]
    assert (errors[1] > 1.05 * errors[0]).any()
    assert (errors[1] > 0.95 * errors[0]).all()


def test_masses_outside_the_measured_ones_are_refused_with_their_section():
    found = fit_mass_shape(spectrum(integrals(cocktail)), m_lepton=M_MU)
    with pytest.raises(PhysicsError, match=r"1\.5 GeV lies outside.*\[predict\]"):
        found.density([0.5, 1.5])


def test_a_named_source_is_carried_and_not_measured_by_the_shape():
    """6 % with a ripple, beside the errors of a regularised unfolding: the rate at exact masses has 6 %."""
    contents, bins = integrals(cocktail), np.arange(len(EDGES) - 1)
    sigma = 0.05 * contents
    smooth = np.exp(-0.5 * ((bins[:, None] - bins) / 2.0) ** 2) + 1e-4 * np.eye(len(bins))
    shift = contents * (0.06 + 0.01 * np.cos(1.7 * bins))
    cov = np.outer(sigma, sigma) * smooth + np.outer(shift, shift)
    plain = spectrum(contents, cov=cov)
    named = replace(plain, shifts={"polarisation": shift})
    m = np.linspace(0.23, 1.1, 60)
    for name, measured in (("plain", plain), ("named", named)):
        found = fit_mass_shape(measured, m_lepton=M_MU)
        value, errors = found.density(m)
        moved = found.shifted(m, shift / contents) / value
        assert np.median(moved) == pytest.approx(0.06, abs=0.01)
        assert np.abs(moved - 0.06).max() < 0.011  # the ripple
        if name == "named":
            assert (np.abs(moved) <= 1.0001 * np.sqrt(np.diag(errors)) / value).all()  # it is in the errors
    assert relative_shifts(named)["polarisation"] == pytest.approx(shift / contents)


def test_efficiency_and_fakes_are_those_of_the_photons_of_a_spectrum():
    """Energies steeper in the data than in the simulation, an efficiency that falls with them, 10 % fakes."""
    rng, n = np.random.default_rng(3), 200_000
    axes = (variable("mass", EDGES), variable("pt", [0, 5]), variable("energy", [5, 20, 100]))
    m, energy = rng.uniform(0.25, 1.05, n), rng.choice([10.0, 50.0], n)
    seen = rng.random(n) < np.where(energy < 20, 0.4, 0.1)
    true = np.stack([m, np.full(n, 0.5), energy], axis=1)
    reco = np.where(seen[:, None], true, np.nan)
    reco[:, 0] += rng.normal(0, 0.02, n)
    fakes = reco[seen][: int(seen.sum() / 9)]
    simulated = MatchedPairs(true, reco, np.ones(n), np.arange(n), fakes, np.ones(len(fakes)))
    inside = (EDGES[:-1] > 0.25) & (EDGES[1:] < 1.05)
    cells = np.where(inside, 1.0, 0.0)[:, None, None] * [[900.0, 100.0]]
    known = counted(cells, axes, cov=np.diag(np.maximum(cells.ravel(), 1.0)))
    found = resolution_of(simulated, known)
    middle = (found.mass > 0.35) & (found.mass < 0.95)
    expected = 0.9 * 0.4 + 0.1 * 0.1
    assert np.abs(found.efficiency[middle] / expected - 1).max() < 5 * found.efficiency_error[middle].max()
    assert found.width[middle] == pytest.approx(0.02, rel=0.15)
    counts = without_fakes(mass_counts(spectrum(np.full(36, 100.0)), found), simulated)
    assert counts.contents[8:30] == pytest.approx(90.0, rel=0.1)
