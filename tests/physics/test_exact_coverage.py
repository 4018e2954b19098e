"""True signals are excluded at most as often as the level says."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from builders import ROOT
from scipy.special import pdtr
from scipy.stats import norm, poisson

from gammastar.core.errors import PhysicsError
from gammastar.infer import Convention, binned_channel, counting_channel, counting_limit, exact_limit

sys.path.insert(0, str(ROOT / "analysis"))

from validation import toy_coverage
from validation.toy_coverage import coverage


def channel():
    return binned_channel(
        "c",
        signal=[1.0, 1.5, 0.5],
        background=[1.0, 0.5, 2.0],
        observed="masked",
        signal_sigma={"pot": 0.18, "efficiency": 0.03},
        background_sigma={"b": 0.3},
    )


@pytest.mark.long
@pytest.mark.parametrize("statistic", ["ratio", "qtilde"])
def test_level_at_nominal_nuisances(statistic):
    found = coverage(
        [channel()],
        rng=np.random.default_rng(1),
        convention=Convention(statistic, "randomised"),
        experiments=5_000,
        n_toys=15_000,
        fitted=False,
    )
    assert abs(found.clsb - 0.10) < 4 * found.error
    assert found.cls <= found.clsb


@pytest.mark.long
def test_level_with_toys_at_fitted_nuisances():
    found = coverage(
        [channel()],
        rng=np.random.default_rng(2),
        convention=Convention("qtilde", "randomised"),
        truth={"pot": 1.0},
        experiments=4_000,
        n_toys=15_000,
    )
    assert abs(found.clsb - 0.10) < 0.01 + 3 * found.error
    assert "fitted" in found.method
    with pytest.raises(PhysicsError, match="true values"):
        coverage([channel()], rng=np.random.default_rng(1), truth={"other": 1.0})


@pytest.mark.long
@pytest.mark.parametrize(("count", "background", "sigma"), [(0, 0.0094, np.log(4)), (4, 2.0, 0.3)])
def test_toys_averaged_over_nuisances_against_integrals(count, background, sigma):
    pot = np.log(1.2)
    counted = counting_channel(
        "c",
        signal=1.0,
        background=background,
        observed=count,
        signal_sigma={"pot": pot},
        background_sigma={"b": sigma},
    )
    convention = Convention("ratio", "averaged")
    found = exact_limit([counted], rng=np.random.default_rng(1), convention=convention, precision=0.01)
    exact = counting_limit(count, background, signal_sigma=pot, background_sigma=sigma, method="marginalised")
    assert abs(found.events - exact) < 4 * found.error
    assert "averaged" in found.method


def counted_below(signal, background, sigma, treatment):
    """P(CLs+b < 0.1) of one bin whose signal has a measured factor, by sums and integrals: no toys."""
    a = np.linspace(-6.0, 6.0, 2401)
    n = np.arange(60.0)[:, None]
    if treatment == "averaged":
        theta, weight = np.polynomial.hermite_e.hermegauss(41)
        rate = signal * np.exp(sigma * (a[:, None] + theta)) + background
        p = pdtr(n[:, :, None], rate) @ (weight / weight.sum())
    else:
        low, high = a - 30.0 * sigma * signal, a + 3.0 * sigma * (n + 3.0)
        for _ in range(60):
            middle = 0.5 * (low + high)
            rate = signal * np.exp(sigma * middle)
            rising = sigma * rate * (1.0 - n / (rate + background)) + middle - a > 0
            low, high = np.where(rising, low, middle), np.where(rising, middle, high)
        p = pdtr(n, rate + background)
    true = poisson.pmf(n, signal + background) * norm.pdf(a) * (a[1] - a[0])
    return np.sum(true * (p < 0.1))


@pytest.mark.long
@pytest.mark.parametrize("signal", [1.6, 6.4])
@pytest.mark.parametrize("treatment", ["fixed", "averaged"])
def test_toys_that_keep_measurements_against_sums(treatment, signal, monkeypatch):
    monkeypatch.setattr(toy_coverage, "GROUPS", 150)
    counted = counting_channel(
        "c", signal=signal, background=0.1, observed="masked", signal_sigma={"pot": 0.2}
    )
    found = coverage(
        [counted],
        rng=np.random.default_rng(3),
        convention=Convention("ratio", treatment),
        experiments=1_500,
        n_toys=10_000,
    )
    assert abs(found.clsb - counted_below(signal, 0.1, 0.2, treatment)) < 4 * found.error
    assert found.cls <= found.clsb


def test_nominal_toys_need_randomised_measurements():
    with pytest.raises(PhysicsError, match="randomised"):
        coverage([channel()], rng=np.random.default_rng(1), convention=Convention(), fitted=False)
