"""Open charm from MOCK templates: yield and error of the fit, what is left without it, corrections."""

import numpy as np
import pytest
from builders import counted

from gammastar.core.constants import branching
from gammastar.core.errors import UserError
from gammastar.core.records import PairHists, filled, regular, variable
from gammastar.core.sampling import stream
from gammastar.subtract import Correction, apply_corrections, eta_dimuon, fit_charm, same_sign
from gammastar.subtract.charm import ETA_DIMUON_RATIO, subtract_component

AXES = (regular("mass", 12, 0.25, 1.45), variable("offset", [0, 30, 60, 100, 150, 250, 500]))
EDGES = [a.edges for a in AXES]
CHARM = 1500.0


def histogram(mass, offset, scale=1.0):
    content, _, _ = np.histogram2d(mass, offset, EDGES)
    return scale * content


def prompt(rng, n):
    mass = np.where(rng.random(n) < 0.4, rng.normal(0.78, 0.04, n), 0.25 + rng.exponential(0.35, n))
    return mass, np.abs(rng.normal(0, 50, n))


def charm(rng, n):
    """Pairs of D mesons: broad in mass, displaced by a few hundred µm before smearing."""
    return 0.25 + rng.gamma(2.2, 0.35, n), np.hypot(rng.exponential(120, n), rng.normal(0, 50, n))


def combinatorial(rng, n):
    return 0.25 + rng.gamma(2, 0.2, n), np.abs(rng.normal(0, 75, n))


@pytest.fixture(scope="module")
def expectation():
    rng, n = stream(1, "charm"), 1_000_000
    parts = [histogram(*make(rng, n)) / n for make in (prompt, charm, combinatorial)]
    inside = CHARM / parts[1].sum()
    return 20_000 * parts[0], inside * parts[1], 4000 * parts[2]


def templates(rng, expectation, n=40_000):
    found = []
    for part in expectation[:2]:
        content = rng.poisson(part / part.sum() * n).astype(float)
        found.append(filled(AXES, np.maximum(content, 0.5), np.maximum(content, 0.5)))
    return found[1], found[0]


def data(rng, expectation):
    s, c, b = expectation
    toys = (rng.poisson(s + c + b), rng.poisson(b / 2 * 1.3), rng.poisson(b / 2 / 1.3))
    return PairHists(*(filled(AXES, n.astype(float), n.astype(float)) for n in toys))


@pytest.mark.long
def test_yield_and_error(expectation):
    rng = stream(2, "toys")
    pulls, prompt_pulls, chi2 = [], [], []
    for _ in range(60):
        found = fit_charm(data(rng, expectation), *templates(rng, expectation))
        pulls.append((found.charm - CHARM) / found.charm_sigma)
        total, error = found.prompt.sum(), np.sqrt(found.prompt_cov.sum())
        prompt_pulls.append((total - expectation[0].sum()) / error)
        chi2.append(found.chi2 / found.ndf)
    assert found.charm_sigma < 0.15 * CHARM
    for values in (pulls, prompt_pulls):
        assert abs(np.mean(values)) < 0.4
        assert np.std(values, ddof=1) == pytest.approx(1, abs=0.25)
    assert np.mean(chi2) == pytest.approx(1, abs=0.15)


@pytest.mark.long
def test_few_simulated_pairs_do_not_bias_the_yield(expectation):
    """With 8000 pairs per template the yield was 0.4σ too large while they were taken as exact shapes."""
    rng, pulls = stream(4, "few"), []
    for _ in range(40):
        toy, shapes = data(rng, expectation), []
        for part in (expectation[1], expectation[0]):
            content = rng.poisson(part / part.sum() * 8000).astype(float)
            shapes.append(filled(AXES, content, content))
        found = fit_charm(toy, *shapes)
        pulls.append((found.charm - CHARM) / found.charm_sigma)
    assert abs(np.mean(pulls)) < 0.3
    assert np.std(pulls, ddof=1) == pytest.approx(1, abs=0.3)


@pytest.mark.long
@pytest.mark.parametrize("pairs", [300, 1000, 5000])
def test_few_pairs_do_not_bias_the_yield(expectation, pairs):
    """With the variances of the like-sign counts it was 0.4σ to 0.7σ too large."""
    share = pairs / sum(part.sum() for part in expectation)
    expected, rng = tuple(share * part for part in expectation), stream(5, "pairs", str(pairs))
    fits = [fit_charm(data(rng, expected), *templates(rng, expected)) for _ in range(120)]
    bias = np.mean([one.charm for one in fits]) - share * CHARM
    sigma = np.mean([one.charm_sigma for one in fits])
    assert abs(bias) < 0.33 * sigma  # known to 0.09σ
    assert np.std([one.charm for one in fits]) == pytest.approx(sigma, rel=0.25)


def test_like_sign_pairs_do_not_see_charm_and_the_template_takes_it_out(expectation):
    rng = stream(3, "left")
    hists = data(rng, expectation)
    found = fit_charm(hists, *templates(rng, expectation))
    mass = (AXES[0],)
    sums = PairHists(*(h.project("mass") for h in (hists.os, hists.pp, hists.mm)))
    before = same_sign(sums)
    truth = expectation[0].sum(axis=1)
    between = slice(6, 8)  # 0.85 to 1.05 GeV
    excess = before.values[between].sum() - truth[between].sum()
    assert excess > 2 * np.sqrt(before.cov[between, between].sum())
    after = subtract_component(
        before, filled(mass, found.per_mass, np.zeros(12)), found.charm, found.charm_sigma
    )
    left = after.values[between].sum() - truth[between].sum()
    assert abs(left) < 3 * np.sqrt(after.cov[between, between].sum())
    assert np.trace(after.cov) > np.trace(before.cov)
    np.testing.assert_allclose(found.per_mass.sum(), found.charm)
    assert np.sqrt(found.per_mass_cov.sum()) >= found.charm_sigma * 0.999


def test_uncertain_r_widens_the_error(expectation):
    rng = stream(4, "r")
    hists, shapes = data(rng, expectation), templates(rng, expectation)
    exact, loose = (fit_charm(hists, *shapes, r_factor_sigma=s) for s in (0.0, 0.2))
    assert loose.charm_sigma > exact.charm_sigma


def test_eta_dimuon_is_sized_by_the_dalitz_decays():
    axis = regular("mass", 40, 0.25, 1.25)
    correction = eta_dimuon(axis, 1e5, resolution=0.03)
    assert correction.amount == pytest.approx(
        1e5 * branching("eta -> mu mu") / branching("eta -> mu mu gamma"), rel=1e-3
    )
    assert correction.sigma / correction.amount == pytest.approx(0.144, abs=0.005)
    assert ETA_DIMUON_RATIO[1] / ETA_DIMUON_RATIO[0] == pytest.approx(0.144, abs=0.005)
    peak = correction.template.values()
    assert axis.edges[peak.argmax()] <= 0.5479 < axis.edges[peak.argmax() + 1]
    flat = np.full(40, 1000.0)
    spectrum = counted(flat, (axis,))
    radiated = Correction("Bethe-Heitler", filled((axis,), flat, 0 * flat), 400.0, 200.0, "MOCK")
    result, applied = apply_corrections(spectrum, [correction, radiated])
    assert result.values.sum() == pytest.approx(40_000 - correction.amount - 400)
    expected = 40_000 + correction.sigma**2 + 200**2
    assert result.cov.sum() == pytest.approx(expected)
    assert [a.name for a in applied] == ["eta to mu mu", "Bethe-Heitler"]
    assert applied[1].fraction == pytest.approx(0.01)


def test_refuses(expectation):
    rng = stream(5, "refuse")
    hists, (charm_hist, prompt_hist) = data(rng, expectation), templates(rng, expectation)
    empty = filled(AXES, np.zeros((12, 6)), np.zeros((12, 6)))
    with pytest.raises(UserError, match="empty"):
        fit_charm(hists, empty, prompt_hist)
    other = filled((AXES[1], AXES[0]), np.ones((6, 12)), np.ones((6, 12)))
    with pytest.raises(UserError, match="axes of the data"):
        fit_charm(hists, other, prompt_hist)
    one = PairHists(*(h.project("mass") for h in (hists.os, hists.pp, hists.mm)))
    with pytest.raises(UserError, match="vertex offset"):
        fit_charm(one, charm_hist, prompt_hist)
    spectrum = same_sign(one)
    double = Correction("a", one.os, 1.0, 1.0, "")
    with pytest.raises(UserError, match="names must differ"):
        apply_corrections(spectrum, [double, double])
    with pytest.raises(UserError, match="resolution"):
        eta_dimuon(AXES[0], 1.0, resolution=0.0)
