"""Posterior weights: projections against the signed weights, the truth at low purity, and the mean pt."""

import numpy as np
import pytest

from gammastar import select, subtract
from gammastar.core.pairs import Pairs
from gammastar.core.records import regular
from gammastar.core.sampling import stream
from gammastar.subtract.fields import disagreement, signal_shares

AXES = (regular("mass", 12, 0.2, 1.4), regular("pt", 5, 0.0, 2.5), regular("energy", 2, 5, 85))


def mock(rng, n_signal, b_over_s, asymmetry=1.4):
    """Signal with <pt> = 0.75 GeV at every mass, soft background, like-sign pairs of the same shape."""

    def signal(n):
        mass = np.where(rng.random(n) < 0.5, 0.22 + rng.exponential(0.2, n), rng.normal(0.776, 0.05, n))
        return mass, rng.gamma(2.5, 0.3, n)

    def background(n):
        return 0.22 + rng.gamma(2, 0.18, n), rng.gamma(2, 0.18, n)

    n_b = int(b_over_s * n_signal)
    counts = [rng.poisson(n) for n in (n_signal, n_b, n_b / 2 * asymmetry**0.5, n_b / 2 / asymmetry**0.5)]
    parts = [signal(counts[0])] + [background(n) for n in counts[1:]]
    charge = np.repeat(np.array([0, 0, 2, -2], np.int8), counts)
    mass, pt = (np.concatenate([part[k] for part in parts]) for k in range(2))
    n = len(mass)
    pairs = Pairs(mass, pt, 5 + rng.exponential(20, n), charge, np.ones(n), np.arange(n))
    inside = (mass < 1.4) & (pt < 2.5) & (pairs.energy < 85)
    return pairs.select(inside), (np.arange(n) < counts[0])[inside].astype(float)


def subtracted(pairs, method="likelihood"):
    hists = select.fill((pairs,), AXES)
    ratio = subtract.ChargeRatio(1.0, 0.0)
    return hists, subtract.combinatorial(hists, ratio, method=method)


@pytest.mark.long
@pytest.mark.parametrize(("b_over_s", "method"), [(0.5, "regions"), (2.0, "likelihood"), (6.0, "likelihood")])
def test_sum_and_projections(b_over_s, method):
    pairs, truth = mock(stream(1, "posterior", str(b_over_s)), 15_000, b_over_s)
    hists, found = subtracted(pairs, method)
    weight, signed = subtract.posterior_weights(pairs, hists, found.spectrum), found.sign(pairs)
    assert (weight >= 0).all()
    assert not weight[~pairs.os].any()
    assert weight.sum() == pytest.approx(found.spectrum.values.sum(), rel=1e-9)
    assert disagreement(hists, found.spectrum, signal_shares(hists, found.spectrum)) == ""
    for axis in AXES:
        column = getattr(pairs, axis.name)
        a, b, v, true = (
            np.histogram(column, axis.edges, weights=w)[0] for w in (signed, weight, signed**2, truth)
        )
        assert np.mean((a - b)[v > 0] ** 2 / v[v > 0]) < 1
        assert np.mean((true - b)[v > 0] ** 2 / v[v > 0]) < 2
    for low, high in ((0.2, 0.4), (0.4, 0.7), (0.7, 0.85), (0.85, 1.4)):  # four ranges of the mass
        inside = (pairs.mass > low) & (pairs.mass < high)
        assert abs(weight[inside].sum() - truth[inside].sum()) < 3 * np.sqrt(np.sum(signed[inside] ** 2))
        plain, cured = (np.average(pairs.pt[inside], weights=w[inside]) for w in (1.0 * pairs.os, weight))
        true = np.average(pairs.pt[inside], weights=truth[inside])
        assert abs(cured - true) < 0.5 * abs(plain - true) + 0.02


@pytest.mark.long
def test_without_background_the_weights_are_the_pairs():
    pairs, _ = mock(stream(2, "pure"), 1000, 0.0)
    hists, found = subtracted(pairs, "regions")
    weight = subtract.posterior_weights(pairs, hists, found.spectrum)
    np.testing.assert_allclose(weight, found.sign(pairs), rtol=1e-6)


@pytest.mark.long
def test_a_background_that_is_too_large_disagrees():
    pairs, _ = mock(stream(3, "large"), 5000, 2.0)
    hists = select.fill((pairs,), AXES)
    found = subtract.combinatorial(hists, subtract.ChargeRatio(1.5, 0.0), method="likelihood").spectrum
    assert "mass (χ²" in disagreement(hists, found, signal_shares(hists, found))
