"""The smooth efficiency of pairs: closure against a known function, errors, domain."""

from __future__ import annotations

import numpy as np
import pytest
from builders import matched_pairs

from gammastar.core.errors import UserError
from gammastar.spectrum import efficiency_map


def simulation(n, rng, *, scale=0.35):
    mass = rng.uniform(0.22, 1.1, n)
    pt = rng.gamma(2.0, scale, n)
    rapidity = rng.normal(4.0, 0.6, n)
    energy = np.hypot(mass, pt) * np.cosh(rapidity)
    return np.stack([mass, pt, energy], axis=1)


def truth(values):
    mass, pt, energy = values.T
    rapidity = np.arccosh(energy / np.hypot(mass, pt))
    window = 1.0 / (1.0 + np.exp(-(rapidity - 3.4) / 0.12)) / (1.0 + np.exp((rapidity - 4.6) / 0.12))
    return 0.02 + 0.5 * window * (1.0 - 0.7 * np.exp(-(pt**2) / 0.3)) * (0.5 + 0.5 * mass)


def matched(values, rng):
    seen = rng.random(len(values)) < truth(values)
    reco = np.where(seen[:, None], values, np.nan)
    return matched_pairs(values, reco)


@pytest.fixture(scope="module")
def closure():
    rng = np.random.default_rng(1)
    found = efficiency_map(matched(simulation(1_000_000, rng), rng))
    return found, simulation(40_000, rng, scale=0.3)  # another prior


@pytest.mark.long
def test_closure_on_another_prior(closure):
    found, values = closure
    expected = truth(values)
    seen = np.random.default_rng(2).random(len(values)) < expected
    ratio = found(*values[seen].T) / expected[seen]
    assert abs(np.median(ratio) - 1.0) < 0.01
    well_known = found.relative_error(*values[seen].T) < 0.1
    assert well_known.mean() > 0.85
    assert ratio[well_known].std() < 0.12
    # what a training uses: sums of 1/ε over found pairs estimate the number of all
    domain = found.weights(*values.T) > 0
    weight = found.weights(*values[seen].T)
    assert domain.mean() > 0.8
    assert weight.sum() / domain.sum() == pytest.approx(1.0, abs=0.03)
    # window by window against the exact correction of the same pairs
    rapidity = np.arccosh(values[:, 2] / np.hypot(values[:, 0], values[:, 1]))[seen]
    for low, high in ((3.0, 3.4), (3.4, 4.0), (4.0, 4.6), (4.6, 5.2)):
        inside = (rapidity > low) & (rapidity < high) & (weight > 0)
        exact = np.sum(1.0 / expected[seen][inside])
        assert weight[inside].sum() / exact == pytest.approx(1.0, abs=0.04)


@pytest.mark.long
def test_errors_cover_the_scatter(closure):
    found, values = closure
    expected = truth(values)
    pull = (found(*values.T) / expected - 1.0) / found.relative_error(*values.T)
    good = found.relative_error(*values.T) < 0.1
    assert 0.4 < np.std(pull[good]) < 1.6


@pytest.mark.long
def test_outside_the_map(closure):
    found, _ = closure
    outside = np.array([[0.5, 0.2, 390.0], [3.0, 0.2, 50.0]])
    assert (found(*outside.T) == 0).all()
    assert (found.weights(*outside.T) == 0).all()
    assert (
        np.isinf(found.relative_error(*outside.T)).all() or (found.relative_error(*outside.T) > 1e100).all()
    )


def test_refused_input(closure):
    rng = np.random.default_rng(3)
    with pytest.raises(UserError, match="simulate more"):
        efficiency_map(matched(simulation(500, rng), rng))
    with pytest.raises(UserError, match="smoothing"):
        efficiency_map(matched(simulation(50_000, rng), rng), smoothing=0.0)
    with pytest.raises(UserError, match="floor"):
        closure[0].weights(*closure[1].T, floor=0.0)
