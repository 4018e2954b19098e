"""OmniFold: the Gaussian benchmark of arXiv:2503.09720 with its acceptance, and dimuons in 3 variables."""

import numpy as np
import pytest
from builders import matched_pairs
from scipy.stats import norm

from gammastar import unfold
from gammastar.core.errors import UserError
from gammastar.core.records import Spectrum, filled, regular
from gammastar.core.sampling import stream

EDGES = np.linspace(-10, 10, 41)
TRUTH = np.diff(norm.cdf(EDGES, 0, 2))


def toy(rng, n, gauss):
    """Return truth and reconstruction (nan: lost) of a Gaussian, or of a Breit-Wigner of half width 1.25."""
    x = rng.normal(0, 2, 3 * n) if gauss else 0.3 + 1.25 * rng.standard_cauchy(3 * n)
    x = x[np.abs(x) < 10][:n]
    seen = rng.random(n) < 0.3 + 0.7 * (x + 10) / 20
    return x, np.where(seen, x + rng.normal(-2.5, 0.2, n), np.nan)


def embed(x):
    zero = np.where(np.isfinite(x), 0.0, np.nan)
    return np.stack([x, zero, zero], axis=1)


def triangular(content):
    p = content / content.sum()
    return 1e3 * 0.5 * np.sum((p - TRUTH) ** 2 / (p + TRUTH))


@pytest.mark.long
def test_gaussian_benchmark():
    rng = stream(1, "omnifold")
    _, reco = toy(rng, 10_000, gauss=True)
    x, y = toy(rng, 40_000, gauss=False)
    data = embed(reco[np.isfinite(reco)])
    found = unfold.omnifold(
        data, matched_pairs(embed(x), embed(y)), rng=rng, columns=("mass",), n_iterations=2
    )
    before = triangular(np.histogram(x, EDGES)[0])
    after = [triangular(np.histogram(x, EDGES, weights=w)[0]) for w in found.history]
    assert before == pytest.approx(55, abs=3)
    assert min(after) < 3.0
    assert found.weight.sum() == pytest.approx(10_000, rel=0.03)
    assert found.effective < len(x)
    assert found.change[1] < found.change[0]


def dimuons(rng, n, slope, pt):
    mass = np.where(rng.random(n) > 0.35, 0.22 + rng.exponential(slope, n), rng.normal(0.78, 0.05, n))
    true = np.stack([mass, rng.gamma(2, pt, n), 5 + rng.exponential(25, n)], axis=1)
    reco = true + rng.standard_normal((n, 3)) * np.array([0.03, 0.02, 0.5])
    chance = 0.3 + 0.4 * (1 - np.exp(-((mass / 0.5) ** 2))) * (1 - 0.4 * np.exp(-true[:, 1] / 0.3))
    reco[rng.random(n) > chance] = np.nan
    return true, reco


@pytest.mark.slow
def test_three_variables_agree_with_truth_and_with_binned_unfolding():
    rng = stream(2, "dimuons")
    true, reco = dimuons(rng, 20_000, 0.25, 0.35)
    matched = matched_pairs(*dimuons(rng, 60_000, 0.29, 0.30))
    data = reco[np.isfinite(reco[:, 0])]
    found = unfold.omnifold(data, matched, rng=rng, n_iterations=2)
    assert found.weight.sum() == pytest.approx(len(true), rel=0.04)
    mean = [np.average(matched.true[:, k], weights=found.weight) for k in range(3)]
    spread = true.std(axis=0) / np.sqrt(len(data))
    for k in range(3):
        assert mean[k] == pytest.approx(true[:, k].mean(), abs=4 * spread[k])
    assert abs(mean[1] - true[:, 1].mean()) < 0.2 * abs(matched.true[:, 1].mean() - true[:, 1].mean())
    axes = (regular("mass", 12, 0.22, 1.18),)
    y = np.histogram(data[:, 0], axes[0].edges)[0].astype(float)
    measured = Spectrum(filled(axes, y, y), np.diag(y), "counts", None, y > 0)
    response = unfold.response(matched, axes, axes, n_replicas=50, rng=rng)
    binned = unfold.iterative(measured, response, n_iterations=10)
    free = np.histogram(matched.true[:, 0], axes[0].edges, weights=found.weight)[0]
    pull = (free - binned.values) / np.sqrt(np.diag(binned.cov))
    assert np.mean(np.abs(pull) < 2) >= 0.9


def test_stops_early_takes_fakes_and_any_classifier():
    rng = stream(4, "callback")
    true, reco = dimuons(rng, 3000, 0.25, 0.35)
    fakes = np.stack([rng.uniform(0.3, 1, 500), rng.gamma(2, 0.3, 500), np.full(500, 30.0)], axis=1)
    matched = matched_pairs(true, reco, fakes=fakes)
    data = np.concatenate([reco[np.isfinite(reco[:, 0])], fakes])

    def normalisation(above, below, rng):
        assert rng is not None
        scale = above[1].sum() / below[1].sum()
        return lambda x: np.full(len(x), scale)

    found = unfold.omnifold(data, matched, rng=rng, classifier=normalisation, n_iterations=9, tolerance=1e-6)
    assert len(found.history) == 1  # nothing to change: data and simulation are the same
    assert found.weight.sum() == pytest.approx(3000)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"columns": ("theta",)}, "columns"),
        ({"n_iterations": 0}, "n_iterations"),
        ({"data_weight": -np.ones(5)}, "posterior"),
        ({"data_weight": np.ones(4)}, "4 weights"),
        ({"data_weight": np.zeros(5)}, "empty"),
    ],
)
def test_refuses(change, words):
    rng = stream(5)
    matched = matched_pairs(*dimuons(rng, 100, 0.25, 0.35))
    with pytest.raises(UserError, match=words):
        unfold.omnifold(np.ones((5, 3)), matched, rng=rng, **change)
