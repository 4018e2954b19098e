"""In-situ signal and peak search against calculations by hand; mechanism; targets; uncertainties."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from builders import ROOT, particles
from scipy.optimize import minimize
from scipy.stats import norm

from gammastar.core.constants import ALPHA, M_MU
from gammastar.core.errors import PhysicsError
from gammastar.core.records import Sample
from gammastar.core.sources import Source, Sources
from gammastar.physics.detector import MassResolution
from gammastar.physics.qed import kappa
from gammastar.predict.in_situ import (
    Background,
    InSitu,
    PeakFits,
    Templates,
    cls_limits,
    expected_limits,
    peak_search,
    search_in_situ,
    signal_per_coupling,
)
from gammastar.predict.mixture import OMITTED, in_depth, on_nucleus

sys.path.append(str(ROOT / "analysis" / "na60_dimuon"))
from mechanism import pairs_to_exclude, template


def test_signal_over_background_is_the_textbook_ratio() -> None:
    """B. Batell, M. Pospelov and A. Ritz, Phys. Rev. D 79 (2009) 115008, far above threshold."""
    ratio = signal_per_coupling([0.9], [1e6], [0.3], M_MU)[0] / (1e6 * 0.03)
    assert ratio == pytest.approx(3 * np.pi / (2 * ALPHA) * 0.9 / 0.03 * 0.3, rel=2e-3)


def test_reach_by_hand_at_one_mass() -> None:
    """Flat background b per GeV, known: σ_S² = 2√π σ b, limit 1.645 σ_S, ε² = limit 2κ/(m b BR)."""
    b, sigma, m, br = 2e5, 0.03, 0.6, 0.33
    edges = np.arange(0.3, 0.9, 0.002)
    pairs = np.full(len(edges) - 1, b * 0.002)
    signal = signal_per_coupling([m], [b], [br], M_MU)
    gaussian = MassResolution.gaussian(m, sigma)
    found = peak_search(edges, pairs, [m], gaussian, background=Background(None))
    by_hand = 1.6448536 * np.sqrt(2 * np.sqrt(np.pi) * sigma * b) * 2 * kappa(m, M_MU) / (m * b * br)
    assert expected_limits(found.sigma)[0, 2] / signal[0] == pytest.approx(by_hand, rel=2e-3)
    assert found.background[0] == pytest.approx(2.8 * sigma * b, rel=0.03)
    assert np.isnan(found.fitted[0])


def test_reach_goes_with_the_root_of_the_exposure() -> None:
    """Background and signal grow with L, so that ε² goes as 1/√L, ε as its fourth root."""
    edges, gaussian = np.linspace(0.4, 1.2, 161), MassResolution.gaussian(0.8, 0.02)
    levels = []
    for luminosity in (1.0, 16.0):
        pairs = luminosity * np.full(160, 900.0)
        sigma = peak_search(edges, pairs, [0.8], gaussian).sigma
        levels.append(expected_limits(sigma)[0] / (luminosity * 1e7))
    np.testing.assert_allclose(levels[0] / levels[1], 4.0, rtol=1e-9)


def test_a_fitted_background_costs_what_it_should() -> None:
    b, sigma, w = 1e6, 0.02, 6.0
    edges = np.arange(0.2, 1.4, 0.001)
    pairs = np.full(len(edges) - 1, b * 0.001)
    gaussian = MassResolution.gaussian(0.8, sigma)

    def error(degree: int | None) -> float:
        known = Background(degree)
        return float(peak_search(edges, pairs, [0.8], gaussian, background=known, half_window=w).sigma[0])

    by_hand = np.sqrt(b / (1 / (2 * np.sqrt(np.pi) * sigma) - 1 / (2 * w * sigma)))
    assert error(0) == pytest.approx(by_hand, rel=5e-3)
    scan = [error(degree) for degree in (None, 0, 2, 4)]
    assert (np.diff(scan) > 0).all()
    assert error(3) == pytest.approx(scan[2], rel=1e-3)  # an odd term does not look like a peak


def _with_peak(mass: float, pairs: float, sigma: float = 0.02) -> tuple[np.ndarray, np.ndarray]:
    edges = np.linspace(0.4, 1.2, 161)
    centre = 0.5 * (edges[1:] + edges[:-1])
    return edges, 3000 * np.exp(-2 * centre) + pairs * np.diff(norm.cdf((edges - mass) / sigma))


def test_an_injected_mock_peak_comes_back_with_unit_pulls() -> None:
    """Closure: 400 toys of a smooth background with 300 pairs at 0.8 GeV."""
    edges, mean = _with_peak(0.8, 300.0)
    toys = np.random.default_rng(1).poisson(mean, (400, len(mean)))
    found = peak_search(edges, toys, np.full(400, 0.8), MassResolution.gaussian(0.8, 0.02), half_window=5)
    pull = (found.fitted - 300.0) / found.error
    assert abs(pull.mean()) < 3 / np.sqrt(400)
    assert pull.std(ddof=1) == pytest.approx(1.0, abs=3 / np.sqrt(800))
    one = peak_search(edges, mean, [0.7, 0.8], MassResolution.gaussian(0.8, 0.02), half_window=5)
    assert one.fitted[1] == pytest.approx(300.0, rel=1e-3)
    assert cls_limits(one.fitted, one.error)[1] > 300 + one.error[1]


def test_sigma_is_the_poisson_one() -> None:
    """Maximum of the Poisson likelihood by another minimiser, with its curvature."""
    edges, mean = _with_peak(0.8, 0.0)
    toy = np.random.default_rng(5).poisson(0.03 * mean).astype(float)
    gaussian = MassResolution.gaussian(0.8, 0.02)
    found = peak_search(edges, toy, [0.8], gaussian, half_window=5, background=Background(1))
    centre = 0.5 * (edges[1:] + edges[:-1])
    inside = abs(centre - 0.8) <= 0.1
    peak = np.diff(norm.cdf((edges - 0.8) / 0.02))[inside]
    x = (centre[inside] - 0.8) / 0.1

    def nll(p: np.ndarray) -> float:
        rate = p[0] * peak + p[1] + p[2] * x
        return float((rate - toy[inside] * np.log(np.maximum(rate, 1e-9))).sum())

    best = minimize(
        nll,
        [0.0, toy[inside].mean(), 0.0],
        method="Nelder-Mead",
        options={"xatol": 1e-6, "fatol": 1e-9, "maxiter": 4000},
    )
    assert found.fitted[0] == pytest.approx(best.x[0], abs=0.05 * found.error[0])


def test_a_line_of_free_yield_blinds_its_own_mass_alone() -> None:
    edges = np.linspace(0.4, 1.2, 161)
    gaussian = MassResolution.gaussian(0.8, 0.02)
    line = 5000 * gaussian.cells([0.78], edges)[0]
    known = Background(2, None, line[None], np.array([0.78]), np.array([0.1]), np.zeros((0, 160)), ("omega",))
    mass = np.array([0.55, 0.72, 0.75, 0.78])
    found = peak_search(edges, 500.0 + line, mass, gaussian, background=known)
    bare = peak_search(edges, 500.0 + 0 * line, mass, gaussian, background=Background(2))
    assert (abs(found.fitted[:3]) < 1e-3 * found.sigma[:3]).all()
    assert (found.correlation[:3] < 0.7).all()
    assert found.correlation[3] > 0.999
    assert found.sigma[3] > 20 * bare.sigma[3]
    assert found.sigma[0] == pytest.approx(bare.sigma[0], rel=1e-3)
    ignored = peak_search(edges, 500.0 + line, mass, gaussian, background=Background(2))
    assert abs(ignored.fitted[2]) > 3 * ignored.sigma[2]


def test_a_shift_of_the_lines_is_a_nuisance() -> None:
    """A line that stands 2 MeV off is no peak beside it once its place is uncertain by as much."""
    edges, gaussian = np.linspace(0.4, 1.2, 161), MassResolution.gaussian(0.8, 0.02)
    line, moved = (5000 * gaussian.cells([m], edges)[0] for m in (0.78, 0.782))
    free = (line[None], np.array([0.78]), np.array([0.1]))
    fixed = Background(2, None, *free, np.zeros((0, 160)), ("omega",))
    loose = Background(2, None, *free, (moved - line)[None], ("omega",))
    one, other = (peak_search(edges, 500.0 + moved, [0.81], gaussian, background=b) for b in (fixed, loose))
    assert abs(one.fitted[0]) > 2 * one.error[0]
    assert abs(other.fitted[0]) < 0.5 * other.error[0]
    assert other.sigma[0] > 1.5 * one.sigma[0]


def test_limits_are_those_of_the_formula_and_cover() -> None:
    s, sigma = np.array([-1.5, 0.0, 2.0]), 2.0
    by_hand = s + sigma * norm.ppf(1 - 0.1 * norm.cdf(s / sigma))
    np.testing.assert_allclose(cls_limits(s, sigma), by_hand, rtol=1e-9)
    # an error of the signal: √q = √q_A = z at the median, S = z √(σ² + S²δ²)
    z, delta = norm.ppf(0.95), 0.2
    median = expected_limits(np.array([sigma]), delta)[0, 2]
    assert median == pytest.approx(z * sigma / np.sqrt(1 - (z * delta) ** 2), rel=1e-9)
    assert np.isinf(cls_limits(0.0, 1.0, 0.7))
    true, n = 1.8 * sigma, 4000
    drawn = np.random.default_rng(7).normal(true, sigma, n)
    covered = float((cls_limits(drawn, sigma) >= true).mean())
    assert covered > 0.9 - 3 * np.sqrt(0.09 / n)


def test_peak_search_refuses_bad_input() -> None:
    edges, gaussian = np.linspace(0.5, 1.1, 13), MassResolution.gaussian(0.8, 0.01)
    with pytest.raises(PhysicsError, match="too few"):
        peak_search(edges, np.ones(12), [0.8], gaussian)
    with pytest.raises(PhysicsError, match="non-negative"):
        peak_search(edges, -np.ones(12), [0.8], gaussian)
    with pytest.raises(PhysicsError, match="widths"):
        MassResolution.gaussian(0.8, 0.0)
    with pytest.raises(PhysicsError, match="cl"):
        cls_limits(0.0, 1.0, cl=1.0)


def _templates(degree: int = 2) -> tuple[Templates, np.ndarray]:
    edges = np.linspace(0.4, 1.2, 161)
    gaussian = MassResolution.gaussian(0.8, 0.02)
    centre = 0.5 * (edges[1:] + edges[:-1])
    smooth, line = 2000 * np.exp(-3 * centre), 3000 * gaussian.cells([0.78], edges)[0]
    shifts = 3000 * gaussian.cells([0.782], edges) - line
    known = Background(degree, smooth, line[None], np.array([0.78]), np.array([0.05]), shifts, ("omega",))
    return Templates(edges, smooth + line, known, gaussian, 5.0), smooth + line


def test_what_the_model_leaves_is_an_error() -> None:
    templates, truth = _templates()
    mass = np.array([0.55, 0.6])
    centre = 0.5 * (templates.edges[1:] + templates.edges[:-1])
    bent = truth * (1 + 0.1 * np.exp(-0.5 * ((centre - 0.55) / 0.03) ** 2))
    sources = Sources((Source.shifted("measurement", "spectrum", [0.1, 0.2]),))
    found = search_in_situ(
        templates, mass, np.array([1.0, 2.0]), sources, truths=[truth, bent], resolution_error=0.1
    )
    direct = templates.fits(bent, mass).fitted
    assert found.spurious[0] == pytest.approx(abs(direct[0]), rel=1e-9)
    np.testing.assert_allclose(found.sigma, np.hypot(found.fits.sigma, found.spurious))
    assert found.relative(["spectrum"])[0] == pytest.approx(0.1)
    # a peak of 1.1 times the width, seen as one of the nominal width beside three polynomials
    inside = abs(centre - 0.55) <= 0.1
    smooth, peaks = (
        templates.background.smooth,
        [norm.cdf((templates.edges - 0.55) / w) for w in (0.02, 0.022)],
    )
    nominal, wide = (np.diff(peak)[inside] for peak in peaks)
    columns = [nominal, *(smooth[inside] * ((centre[inside] - 0.55) / 0.1) ** k for k in range(3))]
    root = np.sqrt(smooth[inside])
    seen = np.linalg.lstsq((np.array(columns) / root).T, wide / root, rcond=None)[0][0]
    width = np.sqrt(found.sources.named("mass resolution").cov[0, 0])
    assert width == pytest.approx(1.0 - seen, rel=0.03)
    assert width > 1.0 - np.sqrt(2 / (1 + 1.1**2))  # over a known background
    plain = search_in_situ(templates, mass, np.array([1.0, 2.0]), sources)
    assert (plain.spurious == 0).all()
    again = InSitu.from_arrays(found.to_arrays())
    np.testing.assert_array_equal(again.expected(["spectrum"], 0.9), found.expected(["spectrum"], 0.9))
    assert again.templates.background.names == ("omega",)


EDGES = {"energy_edges": np.geomspace(1, 400, 13), "pt_edges": np.linspace(0, 3, 7)}


def _mechanisms() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    n = 200_000
    soft = template(rng.exponential(20, n) + 1, rng.exponential(0.4, n), np.ones(n), **EDGES)
    hard = template(40 * 9 ** rng.uniform(size=n), rng.exponential(0.4, n), np.ones(n), **EDGES)
    return soft, hard


def test_pairs_needed_are_those_that_exclude_in_half_of_the_toys() -> None:
    """√q of the tested share in toys without bremsstrahlung, by a scan of the likelihood."""
    rng = np.random.default_rng(4)
    hadrons, brem = _mechanisms()
    needed = pairs_to_exclude(hadrons, brem, [0.05, 0.2, 0.8])
    assert (np.diff(needed) < 0).all()
    shares = np.linspace(0.0, 0.05, 51)
    log = np.log(hadrons + shares[:, None] * (brem - hadrons))
    toys = rng.poisson(needed[0] * hadrons, size=(400, hadrons.size))
    q = 2 * ((toys @ log.T).max(axis=1) - toys @ log[-1])
    assert np.median(np.sqrt(q)) == pytest.approx(1.645, rel=0.15)
    asimov = 2 * needed[0] * float(hadrons @ (log[0] - log[-1]))
    assert np.sqrt(asimov) == pytest.approx(1.645, rel=1e-3)


def test_templates_are_checked() -> None:
    hadrons, brem = _mechanisms()
    assert hadrons.sum() == pytest.approx(1.0)
    with pytest.raises(PhysicsError, match="no particle"):
        template([500.0], [0.1], [1.0], **EDGES)
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


def test_observed_limits_cover_what_the_background_model_leaves() -> None:
    """A signal of any size is excluded in a tenth of all experiments, the bias of the model drawn as well."""
    rng, n, statistics, model, signal = np.random.default_rng(8), 4000, 30.0, 60.0, 400.0
    fitted = signal + statistics * rng.standard_normal(n) + model * rng.standard_normal(n)
    mass, one = np.linspace(0.3, 1.0, n), np.ones(n)
    fits = PeakFits(mass, statistics * one, fitted, statistics * one, one, 0 * one, one[:, None])
    templates, _ = _templates()
    found = InSitu(templates, 2.0 * one, Sources(()), fits, model * one)
    excluded = np.mean(2.0 * found.observed((), 0.9) < signal)
    assert excluded == pytest.approx(0.1, abs=3 * np.sqrt(0.09 / n))
    assert found.significance.std() == pytest.approx(1.0, abs=3 / np.sqrt(2 * n))
