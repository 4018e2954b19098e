"""Unfolding: closure with other spectra, errors with Monte Carlo statistics, limits and refusals."""

import numpy as np
import pytest
from builders import counted, matched_pairs

from gammastar import unfold
from gammastar.core.errors import UserError
from gammastar.core.pairs import MatchedPairs
from gammastar.core.records import regular, variable
from gammastar.core.sampling import stream
from gammastar.unfold.iterative_bayes import unfold_values

MASS = (regular("mass", 20, 0.2, 1.2),)
KINEMATICS = (regular("mass", 10, 0.2, 1.2), variable("pt", [0, 0.5, 1, 3]), variable("energy", [0, 30, 100]))
NONE = np.empty((0, 3))


def simulate(rng, n, *, slope=0.25, resonance=0.33, fakes=0):
    """A falling continuum and a resonance at 0.78 GeV, 30 MeV resolution, efficiency of mass and pt."""
    wide = rng.random(n) > resonance
    mass = np.where(wide, 0.2 + rng.exponential(slope, n), 0.776 + 0.05 * rng.standard_normal(n))
    true = np.stack([mass, rng.gamma(2, 0.35, n), 5 + rng.exponential(25, n)], axis=1)
    chance = (0.15 + 0.55 * (1 - np.exp(-((mass / 0.5) ** 2)))) * (1 - 0.4 * np.exp(-true[:, 1] / 0.3))
    reco = true + rng.standard_normal((n, 3)) * np.array([0.03, 0.02, 0.5])
    reco[rng.random(n) > chance] = np.nan
    fake = np.stack([rng.uniform(0.2, 1.2, fakes), rng.gamma(2, 0.3, fakes), np.full(fakes, 20.0)], axis=1)
    return matched_pairs(true, reco, fakes=fake)


def histogram(rows, axes):
    columns = [("mass", "pt", "energy").index(axis.name) for axis in axes]
    return np.histogramdd(rows[:, columns], [axis.edges for axis in axes])[0]


def counts(sample, axes):
    rows = np.concatenate([sample.reco[sample.reconstructed], sample.fakes])
    y = histogram(rows, axes)
    return counted(y, axes, domain=y > 0)


def half_width(pulls):
    """Half of the interval that holds the middle 68.3 %: few cells far off do not count."""
    return np.diff(np.quantile(pulls, [0.1587, 0.8413]))[0] / 2


@pytest.mark.long
def test_closure_with_another_spectrum_and_independent_simulation():
    """Every toy has its own data and its own simulation, whose spectrum differs."""
    rng = stream(1, "closure")
    n = 20_000
    expected = histogram(simulate(rng, 40 * n).true, MASS) / 40
    pulls, chi2, refolded = [], [], []
    for _ in range(25):
        mc = simulate(rng, n, slope=0.29, resonance=0.38)
        response = unfold.response(mc, MASS, MASS, n_replicas=40, rng=rng)
        measured = counts(simulate(rng, n), MASS)
        result = unfold.iterative(measured, response, n_iterations=20)
        difference = result.values - expected
        value, ndf = unfold.folding.chi2(difference, result.cov)
        chi2.append(value / ndf)
        pulls.append(difference / np.sqrt(np.diag(result.cov)))
        value, ndf = unfold.refolding(result, measured, response)
        refolded.append(value / ndf)
    pulls = np.array(pulls)
    # 40 seeds: median χ² 1.11 ± 0.09 (40 replicas of 20 cells), mean -0.06 ± 0.02, width 1.01 ± 0.05, share
    # within one 0.67 ± 0.02; cells that fluctuate down to zero have errors that are too small, 0.3 % of them
    assert np.median(chi2) == pytest.approx(1.1, abs=0.4)
    assert abs(pulls.mean()) < 0.15
    assert half_width(pulls) == pytest.approx(1, abs=0.2)
    assert np.mean(np.abs(pulls) < 1) == pytest.approx(0.683, abs=0.09)
    assert np.mean(np.abs(pulls) > 4) < 0.02
    assert np.mean(refolded) < 1.1


@pytest.mark.long
def test_errors_without_monte_carlo_statistics_are_too_small():
    rng = stream(2, "mc")
    n = 15_000
    expected = histogram(simulate(rng, 4 * n).true, MASS) / 4  # widths do not depend on it
    widths = []
    for n_replicas in (0, 40):
        pulls = []
        for _ in range(25):  # widths to 0.045 and 0.032
            response = unfold.response(simulate(rng, n), MASS, MASS, n_replicas=n_replicas, rng=rng)
            result = unfold.iterative(counts(simulate(rng, n), MASS), response, n_iterations=20)
            pulls.append((result.values - expected) / np.sqrt(np.diag(result.cov)))
        widths.append(half_width(pulls - np.mean(pulls, axis=0)) * np.sqrt(25 / 24))
    assert widths[0] == pytest.approx(np.sqrt(2), abs=0.3)  # N_data = N_MC
    assert widths[1] == pytest.approx(1, abs=0.2)


def test_three_dimensions_close_in_every_projection():
    rng = stream(3, "3d")
    n = 40_000
    response = unfold.response(
        simulate(rng, 2 * n, slope=0.27), KINEMATICS, KINEMATICS, n_replicas=40, rng=rng
    )
    expected = histogram(simulate(rng, 10 * n).true, KINEMATICS) / 10
    chi2 = []
    for _ in range(6):
        result = unfold.iterative(counts(simulate(rng, n), KINEMATICS), response, n_iterations=10)
        difference = np.where(result.domain, result.values - expected, 0).ravel()
        for position in range(3):
            label = np.indices(result.domain.shape)[position].ravel()
            total = (np.arange(result.domain.shape[position])[:, None] == label).astype(float)
            value, ndf = unfold.folding.chi2(total @ difference, total @ result.cov @ total.T)
            chi2.append(value / ndf)
    assert np.median(chi2) == pytest.approx(1, abs=0.7)  # 6 toys of 15 cells, one simulation in common


def test_derivative_is_the_slope_of_the_result():
    rng = stream(4, "slope")
    response = unfold.response(simulate(rng, 30_000), MASS, MASS, n_replicas=0)
    y = counts(simulate(rng, 30_000), MASS).values
    _, derivative = unfold_values(y, response, response.prior, 5)
    numeric = np.empty_like(derivative)
    for j, step in enumerate(1e-4 * y + 1e-3):
        shift = np.eye(len(y))[j] * step
        up, down = (unfold_values(y + s, response, response.prior, 5)[0] for s in (shift, -shift))
        numeric[:, j] = (up - down) / (2 * step)
    np.testing.assert_allclose(derivative, numeric, rtol=1e-5, atol=1e-7 * np.abs(derivative).max())


def test_perfect_detector_returns_the_data_with_their_covariance():
    rng = stream(5, "perfect")
    sample = simulate(rng, 20_000)
    perfect = MatchedPairs(sample.true, sample.true, sample.weight, sample.event, NONE, np.empty(0))
    response = unfold.response(perfect, MASS, MASS, n_replicas=0)
    values = rng.normal(0, 30, 20)  # negative cells, as a subtraction leaves them
    cov = np.diag(np.full(20, 900.0)) + 50
    measured = counted(values, MASS, cov=cov)
    result = unfold.iterative(measured, response, n_iterations=3)
    np.testing.assert_allclose(result.values, values, rtol=1e-9)
    np.testing.assert_allclose(result.cov, cov, rtol=1e-9)


def test_same_spectrum_comes_back_exactly():
    """Data equal to the simulation, with fakes and misses: any number of iterations returns the truth."""
    sample = simulate(stream(6, "same"), 50_000, fakes=3000)
    response = unfold.response(sample, MASS, MASS, n_replicas=0)
    assert response.fakes.max() > 0.05
    for n_iterations in (1, 7):
        result = unfold.iterative(counts(sample, MASS), response, n_iterations=n_iterations)
        np.testing.assert_allclose(result.values, response.prior, rtol=1e-9)
    assert unfold.refolding(result, counts(sample, MASS), response)[0] == pytest.approx(0, abs=1e-9)


def test_replicas_keep_the_pairs_of_an_event_together():
    sample = simulate(stream(7, "replica"), 5000)
    twice = MatchedPairs.concatenate([sample, sample])
    one, two = (unfold.response(s, MASS, MASS, n_replicas=5, rng=stream(8, "draw")) for s in (sample, twice))
    np.testing.assert_allclose(one.cov_replicas, two.cov_replicas, rtol=1e-12)
    spread = one.cov_replicas.sum(axis=1).std(axis=0, ddof=1)
    binomial = np.sqrt(one.efficiency * (1 - one.efficiency) / one.prior)
    assert np.mean(spread / binomial) == pytest.approx(1, abs=0.25)


def test_smeared_preset_divides_by_the_efficiency_of_the_cell():
    rng = stream(9, "smeared")
    sample, data = simulate(rng, 60_000), simulate(rng, 60_000)
    response = unfold.response(unfold.simulation.unsmeared(sample), MASS, MASS, n_replicas=0)
    assert np.count_nonzero(response.migration - np.diag(np.diag(response.migration))) == 0
    measured = counts(data, MASS)
    result = unfold.iterative(measured, response, n_iterations=1)
    np.testing.assert_allclose(result.values, measured.values / response.efficiency, rtol=1e-9)


def test_cells_below_the_efficiency_floor_leave_the_domain():
    sample = simulate(stream(10, "floor"), 50_000)
    response = unfold.response(sample, MASS, MASS, n_replicas=0)
    floor = float(np.median(response.efficiency))
    result = unfold.iterative(counts(sample, MASS), response, efficiency_floor=floor)
    outside = ~result.domain
    assert np.array_equal(outside, response.efficiency < floor)
    assert not result.values[outside].any()
    assert not result.cov[outside].any()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n_iterations": 0}, "n_iterations"),
        ({"efficiency_floor": 0.0}, "efficiency_floor"),
        ({"prior": -np.ones(20)}, "prior"),
        ({"prior": np.ones(3)}, "prior"),
    ],
)
def test_refuses_wrong_options(change, words):
    sample = simulate(stream(12, "refuse"), 2000)
    response = unfold.response(sample, MASS, MASS, n_replicas=0)
    with pytest.raises(UserError, match=words):
        unfold.iterative(counts(sample, MASS), response, **change)


def test_refuses_other_axes_and_empty_simulation():
    sample = simulate(stream(13, "axes"), 2000)
    response = unfold.response(sample, MASS, MASS, n_replicas=0)
    other = (regular("mass", 10, 0.2, 1.2),)
    with pytest.raises(UserError, match=r"mass\(10\)"):
        unfold.iterative(counts(sample, other), response)
    with pytest.raises(UserError, match="none of 2000 true pairs"):
        unfold.response(sample, MASS, (regular("mass", 10, 200, 1200),), n_replicas=0)
    with pytest.raises(UserError, match="none of mass, pt, energy"):
        unfold.response(sample, (regular("theta", 2, 0, 1),), MASS, n_replicas=0)
    with pytest.raises(UserError, match="random generator"):
        unfold.response(sample, MASS, MASS)
