"""In-situ signal and bump hunt against calculations by hand; mechanism; targets; uncertainties."""

from __future__ import annotations

import numpy as np
import pytest
from builders import particles

from gammastar.core.constants import ALPHA, M_MU
from gammastar.core.errors import PhysicsError
from gammastar.core.records import Sample
from gammastar.physics.qed import kappa
from gammastar.predict.in_situ import (
    bump_hunt,
    fit_fraction,
    pairs_to_exclude,
    per_observed_pair,
    signal_over_background,
    signal_per_coupling,
    template,
)
from gammastar.predict.target import OMITTED, in_depth, on_nucleus


def test_signal_over_background_is_the_textbook_ratio() -> None:
    ratio = signal_over_background(0.9, 0.03, 1.0, M_MU)
    assert ratio == pytest.approx(3 * np.pi / (2 * ALPHA) * 0.9 / 0.03, rel=2e-3)
    direct = signal_per_coupling([0.9], [1e6], [0.3], M_MU)[0] / (1e6 * 0.03)
    assert direct == pytest.approx(signal_over_background(0.9, 0.03, 0.3, M_MU), rel=1e-12)


def test_reach_by_hand_at_one_mass() -> None:
    """Flat background b per GeV, known: σ_S² = 2√π σ b, limit 1.645 σ_S, ε² = limit 2κ/(m b BR)."""
    b, sigma, m, br = 2e5, 0.03, 0.6, 0.33
    edges = np.arange(0.3, 0.9, 0.002)
    pairs = np.full(len(edges) - 1, b * 0.002)
    signal = signal_per_coupling([m], [b], [br], M_MU)
    found = bump_hunt(edges, pairs, [m], signal, sigma, degree=None)
    by_hand = 1.6448536 * np.sqrt(2 * np.sqrt(np.pi) * sigma * b) * 2 * kappa(m, M_MU) / (m * b * br)
    assert found.epsilon2[0] == pytest.approx(by_hand, rel=2e-3)
    assert found.background[0] == pytest.approx(2.8 * sigma * b, rel=0.03)


def test_a_fitted_background_costs_what_it_should() -> None:
    b, sigma, w = 1e6, 0.02, 6.0
    edges = np.arange(0.2, 1.4, 0.001)
    pairs = np.full(len(edges) - 1, b * 0.001)
    flat = bump_hunt(edges, pairs, [0.8], [1.0], sigma, degree=0, half_window=w).sigma[0]
    by_hand = np.sqrt(b / (1 / (2 * np.sqrt(np.pi) * sigma) - 1 / (2 * w * sigma)))
    assert flat == pytest.approx(by_hand, rel=5e-3)
    scan = [bump_hunt(edges, pairs, [0.8], [1.0], sigma, degree=d).sigma[0] for d in (None, 0, 2, 4)]
    assert (np.diff(scan) > 0).all()
    odd = bump_hunt(edges, pairs, [0.8], [1.0], sigma, degree=3).sigma[0]
    assert odd == pytest.approx(scan[2], rel=1e-3)  # an odd term does not look like a peak


def test_fitted_signal_of_toys_has_the_expected_spread() -> None:
    rng = np.random.default_rng(1)
    edges = np.linspace(0.5, 1.1, 121)
    centre = 0.5 * (edges[1:] + edges[:-1])
    mean = 3000 * np.exp(-3 * centre)
    found = bump_hunt(edges, mean, [0.8], [1.0], 0.03, degree=3, half_window=6)
    x = (centre - 0.8) / 0.18
    inside = abs(x) <= 1
    design = np.stack([np.exp(-0.5 * ((centre - 0.8) / 0.03) ** 2), *(x**k for k in range(4))], axis=1)[
        inside
    ]
    design[:, 0] *= 0.005 / (0.03 * np.sqrt(2 * np.pi))
    weight = 1 / mean[inside]
    solve = np.linalg.solve(design.T @ (weight[:, None] * design), design.T * weight)
    fitted = rng.poisson(mean[inside], (4000, inside.sum())) @ solve[0]
    assert fitted.std() == pytest.approx(found.sigma[0], rel=0.05)
    assert fitted.mean() == pytest.approx(0.0, abs=0.1 * found.sigma[0])


def test_a_peak_in_the_data_is_found() -> None:
    edges = np.linspace(0.4, 1.2, 401)
    centre = 0.5 * (edges[1:] + edges[:-1])
    peak = 0.002 / (0.02 * np.sqrt(2 * np.pi)) * np.exp(-0.5 * ((centre - 0.8) / 0.02) ** 2)
    pairs = 1000 * np.exp(-2 * centre) + 400 * peak
    found = bump_hunt(edges, pairs, [0.7, 0.8], [1.0, 1.0], 0.02, half_window=5, degree=3)
    assert found.fitted[1] == pytest.approx(400, rel=0.03)
    assert found.observed[1] > 400 + found.sigma[1]
    quiet = bump_hunt(edges, 1000 * np.exp(-2 * centre), [0.8], [1.0], 0.02, degree=3)
    assert quiet.fitted[0] == pytest.approx(0.0, abs=0.05 * quiet.sigma[0])
    assert quiet.observed[0] == pytest.approx(quiet.limit[0], rel=0.05)
    assert np.isnan(bump_hunt(edges, pairs, [0.8], [1.0], 0.02, degree=None).fitted[0])


def test_bump_hunt_refuses_bad_input() -> None:
    edges = np.linspace(0.5, 1.1, 13)
    with pytest.raises(PhysicsError, match="too few"):
        bump_hunt(edges, np.ones(12), [0.8], [1.0], 0.01)
    with pytest.raises(PhysicsError, match="non-negative"):
        bump_hunt(edges, -np.ones(12), [0.8], [1.0], 0.1)
    with pytest.raises(PhysicsError, match="resolution"):
        bump_hunt(edges, np.ones(12), [0.8], [1.0], 0.0)


def test_dark_photons_per_observed_pair_do_not_know_the_protons() -> None:
    mass, pairs = np.array([0.3, 0.5, 0.7]), np.array([100.0, 50.0, 20.0])
    options = {"bin_width": 0.2, "m_lepton": M_MU, "efficiency": [0.1, 0.2, 0.3]}
    rate, cov = per_observed_pair(mass, pairs, np.diag(pairs), **options)
    more, _ = per_observed_pair(mass, 7 * pairs, np.diag(pairs), **options)
    np.testing.assert_allclose(rate, more)
    expected = mass / (2 * kappa(mass, M_MU)) * pairs / 0.2 / (pairs @ [0.1, 0.2, 0.3])
    np.testing.assert_allclose(rate, expected)
    # A common scale of all pairs has no effect on the ratio.
    _, flat = per_observed_pair(mass, pairs, np.outer(pairs, pairs), **options)
    assert abs(flat).max() < 1e-12 * rate.max() ** 2
    assert (np.diag(cov) > 0).all()
    with pytest.raises(PhysicsError, match="holds none"):
        per_observed_pair(mass, 0 * pairs, np.diag(pairs), **options)


EDGES = {"energy_edges": np.geomspace(1, 400, 13), "pt_edges": np.linspace(0, 3, 7)}


def _templates() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    n = 200_000
    soft = template(rng.exponential(20, n) + 1, rng.exponential(0.4, n), np.ones(n), **EDGES)
    hard = template(40 * 9 ** rng.uniform(size=n), rng.exponential(0.4, n), np.ones(n), **EDGES)
    return soft, hard


def test_fraction_is_found_with_its_error() -> None:
    rng = np.random.default_rng(3)
    hadrons, brem = _templates()
    true = 0.2
    toys = rng.multinomial(2000, true * brem + (1 - true) * hadrons, size=400)
    fit = fit_fraction(toys, hadrons, brem, tested=0.3)
    pull = (fit.fraction - true) / fit.error
    assert abs(pull.mean()) < 0.2
    assert pull.std() == pytest.approx(1.0, abs=0.1)
    assert np.median(fit.q) > 4
    assert fit_fraction(2000 * hadrons, hadrons, brem).fraction[0] < 1e-6


def test_pairs_needed_are_those_that_exclude_in_half_of_the_toys() -> None:
    rng = np.random.default_rng(4)
    hadrons, brem = _templates()
    needed = pairs_to_exclude(hadrons, brem, [0.05, 0.2, 0.8])
    assert (np.diff(needed) < 0).all()
    toys = rng.poisson(needed[0] * hadrons, size=(400, hadrons.size))
    fit = fit_fraction(toys, hadrons, brem, tested=0.05)
    assert np.median(np.sqrt(fit.q)) == pytest.approx(1.645, rel=0.15)
    asimov = fit_fraction(needed[0] * hadrons, hadrons, brem, tested=0.05)
    assert np.sqrt(asimov.q[0]) == pytest.approx(1.645, rel=1e-3)


def test_templates_are_checked() -> None:
    hadrons, brem = _templates()
    assert hadrons.sum() == pytest.approx(1.0)
    with pytest.raises(PhysicsError, match="no particle"):
        template([500.0], [0.1], [1.0], **EDGES)
    with pytest.raises(PhysicsError, match="empty cell"):
        fit_fraction(np.ones(hadrons.size), 0 * hadrons, brem)
    with pytest.raises(PhysicsError, match="do not fit"):
        fit_fraction(np.ones(3), hadrons, brem)
    with pytest.raises(PhysicsError, match="above 0"):
        pairs_to_exclude(hadrons, brem, 0.0)


def _sample(n: int) -> Sample:
    return particles(np.random.default_rng(5).exponential(0.5, n), 0.0, 20.0, 0.5)


def test_depth_of_the_first_interaction() -> None:
    rng = np.random.default_rng(6)
    dump = in_depth(_sample(100_000), np.inf, 0.165, rng)
    assert dump.origin[:, 2].mean() == pytest.approx(0.165, rel=0.02)
    thin = in_depth(_sample(100_000), 0.01, 0.176, rng)
    assert thin.origin[:, 2].max() <= 0.01 * 0.176 * (1 + 1e-9)
    assert thin.origin[:, 2].mean() == pytest.approx(0.005 * 0.176, rel=0.02)
    assert "cascades" in OMITTED
    with pytest.raises(PhysicsError, match="interaction length"):
        in_depth(_sample(10), 1.0, 0.0, rng)


def test_dependence_on_the_nucleus_rises_with_pt() -> None:
    sample = _sample(1000)
    moved, relative = on_nucleus(
        sample, 207.2, 63.5, lambda pt: 0.8 + 0.1 * pt, alpha_inelastic=0.71, alpha_sigma=0.02
    )
    factor = (63.5 / 207.2) ** (0.8 + 0.1 * sample.p4.pt - 0.71)
    np.testing.assert_allclose(moved.weight / sample.weight, factor)
    assert relative == pytest.approx(0.02 * np.log(207.2 / 63.5))
    same, zero = on_nucleus(sample, 207.2, 207.2, np.zeros_like, alpha_inelastic=0.71)
    np.testing.assert_allclose(same.weight, sample.weight)
    assert zero == 0.0
