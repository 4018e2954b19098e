"""Least squares, Tikhonov and the checks that a user runs on a response: known limits and coverage."""

from functools import partial

import numpy as np
import pytest
from builders import counted, matched_pairs
from hist import Hist, axis
from hist.storage import Weight
from scipy.stats import norm

from gammastar import unfold
from gammastar.core.errors import UserError
from gammastar.core.records import Response, Spectrum, filled, regular
from gammastar.core.sampling import stream

RECO, TRUE = (regular("mass", 40, 0.2, 1.2),), (regular("mass", 20, 0.2, 1.2),)
TILT = np.linspace(-1, 1, 20)


def dimuons(n, slope=0.25):
    """Return the exact response of a continuum with two peaks, 30 MeV resolution."""
    fine = np.linspace(0.2, 1.2, 2001)
    m = (fine[1:] + fine[:-1]) / 2
    density = 0.6 * np.exp(-(m - 0.2) / slope) / slope + 0.33 * 0.06 / np.pi / ((m - 0.776) ** 2 + 0.06**2)
    density = (density + 0.07 * norm.pdf(m, 1.019, 0.004)) * n * np.diff(fine)
    chance = np.diff(norm.cdf(RECO[0].edges[:, None], m, 0.03), axis=0)
    chance *= (0.15 + 0.55 * (1 - np.exp(-((m / 0.5) ** 2)))) * 0.7
    cell = np.searchsorted(TRUE[0].edges, m, "right") - 1
    prior = np.bincount(cell, density, 20)
    migration = np.stack([np.bincount(cell, row * density, 20) for row in chance]) / prior
    return Response(migration, migration.sum(axis=0), np.zeros(40), RECO, TRUE, prior, np.zeros((0, 40, 20)))


def expected(response):
    y = response.migration @ response.prior
    return counted(y, RECO)


def test_exact_data_come_back_from_least_squares_and_from_their_own_start():
    response = dimuons(1e5)
    found = unfold.least_squares(expected(response), response)
    np.testing.assert_allclose(found.values, response.prior, rtol=1e-8)
    for penalty in ("size", "difference", "curvature"):
        found = unfold.tikhonov(expected(response), response, tau=1.0, penalty=penalty, start=response.prior)
        np.testing.assert_allclose(found.values, response.prior, rtol=1e-6)


def test_covariance_of_least_squares_is_the_inverse_of_the_information():
    response = dimuons(1e5)
    measured = expected(response)
    exact = np.linalg.inv(response.migration.T @ np.linalg.inv(measured.cov) @ response.migration)
    np.testing.assert_allclose(unfold.least_squares(measured, response).cov, exact, rtol=1e-6)


def test_regularisation_lowers_the_error_and_the_correlation():
    response = dimuons(1e5)
    measured = expected(response)
    best = unfold.regularised.least_correlated(measured, response).best
    loose, tight = (unfold.tikhonov(measured, response, tau=t) for t in (0.0, best))
    assert np.trace(tight.cov) < np.trace(loose.cov)
    assert (
        unfold.regularised.global_correlation(tight.cov).mean()
        < unfold.regularised.global_correlation(loose.cov).mean()
    )


def test_curvature_leaves_straight_lines_alone_in_two_dimensions():
    axes = (regular("mass", 5, 0, 1), regular("pt", 4, 0, 1))
    rows = unfold.regularised.penalty_matrix(axes, "curvature")
    plane = (2 + np.arange(5)[:, None] - 3 * np.arange(4)).ravel()
    assert rows.shape == (3 * 4 + 5 * 2, 20)
    np.testing.assert_allclose(rows @ plane, 0, atol=1e-12)
    np.testing.assert_allclose(unfold.regularised.penalty_matrix(axes, "difference") @ np.ones(20), 0)
    used = np.arange(20) != 7
    assert not np.abs(unfold.regularised.penalty_matrix(axes, "curvature", used)[:, 7]).any()


@pytest.mark.slow
def test_coverage_with_as_many_simulated_pairs_as_data():
    """The acceptance of the project: 0.66 to 0.70 with Monte Carlo statistics on."""
    response = dimuons(1e5)
    study = unfold.closure(
        response, partial(unfold.iterative, n_iterations=30), rng=stream(3, "closure"), n_toys=300
    )
    assert 0.66 < study.coverage.mean() < 0.70
    assert 0.95 < study.width.mean() < 1.05
    assert study.coverage.min() > 0.58
    assert 0.9 < study.chi2_ndf < 1.15
    assert 0.7 < study.refolding_ndf < 1.3
    assert "coverage" in str(study)


@pytest.mark.long
def test_without_monte_carlo_statistics_the_toys_know_the_response():
    study = unfold.closure(
        dimuons(1e5), unfold.least_squares, rng=stream(4, "exact"), n_toys=300, mc_statistics=False
    )
    assert study.coverage.mean() == pytest.approx(0.683, abs=0.02)
    assert study.chi2_ndf == pytest.approx(1, abs=0.08)


def test_few_iterations_pull_towards_the_prior_and_the_scan_sees_it():
    response = dimuons(1e5)
    other = dimuons(1e5, slope=0.4).prior
    measured = unfold.folding.asimov(other, expected(response), response)
    candidates = {str(n): partial(unfold.iterative, n_iterations=n) for n in (1, 4, 30)}
    found = unfold.scan(measured, response, candidates, alternatives={"slope": other})
    bias = [c.bias for c in found]
    error = [c.error for c in found]
    assert bias[0] > 1 > bias[-1]
    assert error == sorted(error)
    assert unfold.methods.best_candidate(found, most_bias=0.25).name == found[-1].name
    slope, _ = unfold.linearity(response, candidates["1"], np.cos(8 * TILT))
    exact, offset = unfold.linearity(response, unfold.least_squares, np.cos(8 * TILT))
    assert slope < 0.95
    assert exact == pytest.approx(1, abs=1e-9)
    assert offset == pytest.approx(0, abs=1e-9)


@pytest.mark.long
def test_stress_and_bottom_line():
    response = dimuons(1e5)
    tilted = response.prior * (1 + 0.15 * TILT)
    ten = partial(unfold.iterative, n_iterations=10)
    study = unfold.closure(response, ten, truth=tilted, rng=stream(5, "stress"), n_toys=70)
    assert np.abs(study.bias).mean() < 0.3
    assert study.coverage.mean() > 0.64
    measured = unfold.folding.asimov(tilted, expected(response), response)
    unfolded = unfold.least_squares(measured, response)
    before, after = unfold.bottom_line(measured, unfolded, response, {"prior": response.prior})["prior"]
    assert after == pytest.approx(before, rel=1e-3)
    assert before > 100


def test_response_from_a_histogram_is_that_of_the_pairs():
    rng = stream(6, "hist")
    n = 20_000
    true = np.stack([rng.uniform(0.1, 1.3, n), rng.gamma(2, 0.35, n), np.full(n, 20.0)], axis=1)
    reco = true + rng.standard_normal((n, 3)) * np.array([0.03, 0.05, 0.0])
    reco[rng.random(n) < 0.4] = np.nan
    fakes = np.stack([rng.uniform(0.2, 1.2, 500), rng.gamma(2, 0.3, 500), np.full(500, 20.0)], axis=1)
    pairs = matched_pairs(true, reco, fakes=fakes)
    axes = (regular("mass", 10, 0.2, 1.2), regular("pt", 3, 0, 2))
    direct = unfold.response(pairs, axes, axes, n_replicas=50, rng=stream(7))
    names = [
        regular(f"{kind}_{a.name}", len(a), *a.edges[[0, -1]]) for kind in ("reco", "true") for a in axes
    ]
    migration = Hist(*names, storage=Weight())
    seen = pairs.reconstructed
    migration.fill(*reco[seen][:, :2].T, *true[seen][:, :2].T)
    miss, fake = (Hist(*part, storage=Weight()) for part in (names[2:], names[:2]))
    miss.fill(*true[~seen][:, :2].T)
    fake.fill(*fakes[:, :2].T)
    found = unfold.from_hist(migration, 2, miss=miss, fake=fake, n_replicas=50, rng=stream(8))
    for name in ("migration", "efficiency", "fakes", "prior"):
        np.testing.assert_allclose(getattr(found, name), getattr(direct, name), rtol=1e-9)
    ratio = found.cov_replicas.std(axis=0).sum() / direct.cov_replicas.std(axis=0).sum()
    assert ratio == pytest.approx(1, abs=0.05)


def test_refuses_what_cannot_be_unfolded():
    response = dimuons(1e3)
    with pytest.raises(UserError, match="tau"):
        unfold.tikhonov(expected(response), response, tau=-1.0)
    with pytest.raises(UserError, match="penalty"):
        unfold.regularised.penalty_matrix(TRUE, "entropy")
    swapped = Response(
        response.migration.T / 10, response.migration.sum(axis=1) / 10, np.zeros(20), TRUE, RECO,
        np.ones(40), np.zeros((0, 20, 40)),
    )  # fmt: skip
    y = np.ones(20)
    few = counted(y, TRUE)
    with pytest.raises(UserError, match="do not fix 40 true cells"):
        unfold.least_squares(few, swapped)
    with pytest.raises(UserError, match="n_reco"):
        unfold.from_hist(Hist(*TRUE, storage=Weight()), 1, n_replicas=0)
    with pytest.raises(UserError, match="candidate"):
        unfold.methods.best_candidate([])


def test_systematic_sources_add_their_shifts_to_the_covariance():
    response = dimuons(1e5)
    measured = expected(response)
    up, down = (unfold.systematics.scaled_response(response, f) for f in (1.02, 0.98))
    more = Spectrum(filled(RECO, measured.values * 1.01, measured.values), measured.cov, "counts", None,
                    measured.domain)  # fmt: skip
    variations = [
        unfold.Variation("efficiency", response=up),
        unfold.Variation("efficiency", response=down),
        unfold.Variation("R", measured=more),
    ]
    found, sources = unfold.with_systematics(measured, response, unfold.least_squares, variations)
    assert [s.name for s in sources] == ["efficiency", "R"]
    assert sources[0].total == pytest.approx(-0.02, rel=1e-3)
    assert sources[1].total == pytest.approx(0.01, rel=1e-6)
    assert sources[1].mean == pytest.approx(0.01, rel=1e-6)
    extra = sum(np.outer(s.shift, s.shift) for s in sources)
    plain = unfold.least_squares(measured, response).cov
    np.testing.assert_allclose(found.cov, plain + extra, rtol=1e-9, atol=1e-6)
    np.testing.assert_allclose(unfold.systematics.scaled_response(response, 1e9).efficiency, 1)
    with pytest.raises(UserError, match="'R' needs"):
        unfold.with_systematics(measured, response, unfold.least_squares, [unfold.Variation("R")])
    with pytest.raises(UserError, match="positive"):
        unfold.systematics.scaled_response(response, 0.0)


def test_spectrum_of_a_histogram_takes_a_covariance_and_leaves_flow_out():
    filled_once = Hist(axis.Regular(3, 0, 3, name="mass")).fill([-1, 0.5, 1.5, 1.6, 9])
    found = unfold.spectrum_from_hist(filled_once)
    assert found.values.tolist() == [1, 2, 0]
    assert np.diag(found.cov).tolist() == [1, 2, 0]
    cov = np.array([[2, 1, 0], [1, 3, 0], [0, 0, 1.0]])
    found = unfold.spectrum_from_hist(filled_once, cov=cov, domain=[True, True, False])
    assert found.hist.variances().tolist() == [2, 3, 1]
    assert found.cov.tolist() == cov.tolist()
    assert found.domain.tolist() == [True, True, False]
    for wrong in (np.eye(2), np.triu(np.ones((3, 3)))):
        with pytest.raises(UserError, match="symmetric"):
            unfold.spectrum_from_hist(filled_once, cov=wrong)
