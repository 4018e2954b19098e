"""Normalisation, extrapolation and the histogram sampler."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats as scipy_stats

from gammastar.core.errors import PhysicsError, UserError
from gammastar.core.records import Exposure, Spectrum, filled, regular, variable
from gammastar.core.sampling import stream
from gammastar.spectrum import (
    HistSampler,
    extrapolate,
    in_domain,
    mass_density,
    per_pot,
    relative_shifts,
)
from gammastar.spectrum.normalise import EfficiencyMap

BEAM = Exposure(beam_energy=400.0, target_a=9.0, target_z=4.0, thickness=0.1, pot=1e10, pot_sigma=0.05)
AXES = (
    variable("mass", [0.2, 0.4, 0.7, 1.1]),
    regular("pt", 4, 0.0, 2.0),
    variable("energy", [0.0, 1.0, 2.0, 20.0, 100.0, 450.0]),
)
SHAPE = (3, 4, 5)


def make_spectrum(values=None, domain=None, exposure=BEAM, seed=1):
    rng = stream(seed, "spectrum")
    values = rng.uniform(50, 100, SHAPE) if values is None else values
    root = rng.normal(size=(60, 60))
    cov = np.diag(values.ravel()) + root @ root.T
    domain = np.ones(SHAPE, bool) if domain is None else domain
    return Spectrum(filled(AXES, values, np.diag(cov)), cov, "counts", exposure, domain)


def test_per_pot_scales_values_and_covariance():
    counts = make_spectrum()
    narrow = np.zeros(SHAPE, bool)
    narrow[0] = True
    result = per_pot(counts, BEAM, narrow)
    np.testing.assert_allclose(result.values * 1e10, counts.values)
    np.testing.assert_allclose(result.cov * 1e20, counts.cov)
    assert result.quantity == "per_pot"
    assert result.exposure is BEAM
    assert result.domain.sum() == 20
    with pytest.raises(PhysicsError, match="already 'per_pot'"):
        per_pot(result, BEAM)
    with pytest.raises(UserError, match="shape"):
        per_pot(counts, BEAM, np.ones(3, bool))


def test_mass_density_splits_into_measured_and_extrapolated():
    domain = stream(2, "domain").random(SHAPE) < 0.5
    spectrum = make_spectrum(domain=domain)
    mass, whole, cov = mass_density(spectrum)
    np.testing.assert_allclose(mass, [0.3, 0.55, 0.9])
    np.testing.assert_allclose(whole * [0.2, 0.3, 0.4], spectrum.values.sum(axis=(1, 2)))
    blocks = spectrum.cov.reshape(3, 20, 3, 20).sum(axis=(1, 3))
    np.testing.assert_allclose(cov * np.outer([0.2, 0.3, 0.4], [0.2, 0.3, 0.4]), blocks)
    parts = [mass_density(spectrum, part)[1] for part in ("measured", "extrapolated")]
    np.testing.assert_allclose(sum(parts), whole)


def test_extrapolation_keeps_the_simulated_ratio_and_propagates_errors():
    domain = stream(3, "domain").random(SHAPE) < 0.6
    domain[2] = False
    spectrum = make_spectrum(domain=domain)
    prior = filled(AXES, stream(3, "prior").uniform(1, 5, SHAPE), np.ones(SHAPE))
    result = extrapolate(spectrum, prior)
    np.testing.assert_array_equal(result.domain, domain)
    np.testing.assert_array_equal(result.values[domain], spectrum.values[domain])
    p = prior.values()
    for m in (0, 1):
        measured, inside = spectrum.values[m][domain[m]].sum(), p[m][domain[m]].sum()
        np.testing.assert_allclose(result.values[m][~domain[m]], p[m][~domain[m]] * measured / inside)
    assert not result.values[2].any()  # nothing measured at this mass
    # the operator written out cell by cell
    operator = np.zeros((60, 60))
    flat, mass = domain.ravel(), np.repeat(np.arange(3), 20)
    for o in range(60):
        inner = flat & (mass == mass[o])
        operator[o] = (
            (np.arange(60) == o)
            if flat[o]
            else (inner * p.ravel()[o] / p.ravel()[inner].sum() if inner.any() else 0)
        )
    np.testing.assert_allclose(result.cov, operator @ spectrum.cov @ operator.T, atol=1e-9)


def test_named_sources_follow_the_cells():
    """A source of 10 % of each measured cell is 10 % of filled cells and of the masses."""
    domain = stream(5, "domain").random(SHAPE) < 0.6
    counts = make_spectrum(domain=domain)
    own = np.where(domain, counts.values, 0.0)
    counts = replace(counts, shifts={"trigger": 0.1 * own.ravel()})
    prior = filled(AXES, stream(5, "prior").uniform(1, 5, SHAPE), np.ones(SHAPE))
    exposure = Exposure(400.0, 207.2, 82, 0.01, 1e13, 0.1)
    for spectrum in (
        extrapolate(per_pot(counts, exposure), prior),
        per_pot(extrapolate(counts, prior), exposure),
    ):
        np.testing.assert_allclose(spectrum.shifts["trigger"], 0.1 * spectrum.values.ravel(), rtol=1e-12)
        np.testing.assert_allclose(relative_shifts(spectrum)["trigger"], 0.1)
    with pytest.raises(PhysicsError, match=r"Spectrum\.shifts"):
        replace(counts, shifts={"trigger": np.ones(3)})


def test_extrapolation_of_the_truth_returns_the_truth():
    truth = stream(4, "truth").uniform(50, 100, SHAPE)
    domain = np.ones(SHAPE, bool)
    domain[:, :, 4] = False
    spectrum = make_spectrum(np.where(domain, truth, 0), domain)
    np.testing.assert_allclose(extrapolate(spectrum, filled(AXES, truth, truth)).values, truth)
    with pytest.raises(UserError, match="not negative"):
        extrapolate(spectrum, filled(AXES, -truth, truth))
    with pytest.raises(UserError, match="axes"):
        extrapolate(spectrum, filled(AXES[:2], truth.sum(axis=2), np.ones((3, 4))))


def test_sampler_follows_the_cells_where_all_are_physical():
    axes = (AXES[0], regular("pt", 4, 0.0, 2.0), variable("energy", [5.0, 20.0, 100.0, 300.0]))
    values = stream(5, "cells").uniform(0, 10, (3, 4, 3))
    spectrum = Spectrum(filled(axes, values, values), np.eye(36), "counts", BEAM, np.ones((3, 4, 3), bool))
    sampler = HistSampler(spectrum)
    assert sampler.mass_range == (0.2, 1.1)
    rng = stream(5, "draw")
    mass = rng.uniform(0.4, 0.7, 60_000)
    pt, energy = sampler.sample(mass, rng)
    seen = np.histogram2d(pt, energy, [axes[1].edges, axes[2].edges])[0]
    expected = values[1] / values[1].sum() * len(mass)
    assert scipy_stats.chisquare(seen.ravel(), expected.ravel()).pvalue > 0.001
    inside = (pt < 0.5) & (energy < 20)  # uniform inside a cell
    assert scipy_stats.kstest(pt[inside], "uniform", args=(0, 0.5)).pvalue > 0.001
    assert scipy_stats.kstest(energy[inside], "uniform", args=(5, 15)).pvalue > 0.001


def test_sampler_respects_the_physical_limits_and_fills_the_rest_uniformly():
    sampler = HistSampler(make_spectrum(np.ones(SHAPE)))
    rng = stream(6, "draw")
    mass = np.full(200_000, 0.9)
    pt, energy = sampler.sample(mass, rng)
    assert (energy >= np.hypot(mass, pt)).all()
    assert (energy < 400).all()
    assert energy.max() > 399.9
    # the cell pt 0-0.5, energy 0-1 is physical only above the hyperbola: compare with plain rejection
    cell = (pt < 0.5) & (energy < 1)
    trial = rng.uniform([0, 0], [0.5, 1], (400_000, 2))
    kept = trial[trial[:, 1] >= np.hypot(0.9, trial[:, 0])]
    assert scipy_stats.ks_2samp(pt[cell], kept[:, 0]).pvalue > 0.001
    assert scipy_stats.ks_2samp(energy[cell], kept[:, 1]).pvalue > 0.001
    # the cells pt > 0.5, energy < 1 and pt > 1.79, energy < 2 cannot hold this mass
    assert not ((pt > 0.5) & (energy < 1)).any()


def test_sampler_ignores_negative_cells_and_bridges_empty_mass_bins():
    values = np.ones(SHAPE)
    values[0, 0] = -5
    values[1] = -1
    sampler = HistSampler(make_spectrum(values))
    rng = stream(7, "draw")
    pt, _ = sampler.sample(np.full(1000, 0.3), rng)
    assert (pt >= 0.5).all()
    pt, energy = sampler.sample(np.full(1000, 0.55), rng)
    assert np.isfinite(pt + energy).all()


def test_sampler_refuses_what_it_cannot_draw():
    sampler = HistSampler(make_spectrum())
    rng = stream(8, "draw")
    with pytest.raises(PhysicsError, match="leave the range"):
        sampler.sample(np.array([0.3, 1.2]), rng)
    with pytest.raises(PhysicsError, match="no exposure"):
        HistSampler(make_spectrum(exposure=None))
    with pytest.raises(PhysicsError, match=r"no cell.*\[select\]"):
        HistSampler(make_spectrum(-np.ones(SHAPE)))
    flat = Spectrum(filled(AXES[:1], np.ones(3), np.ones(3)), np.eye(3), "counts", BEAM, np.ones(3, bool))
    with pytest.raises(PhysicsError, match="needs the axes"):
        HistSampler(flat)
    pt, energy = sampler.sample(np.zeros(0), rng)
    assert pt.shape == energy.shape == (0,)
    assert HistSampler(make_spectrum(exposure=None), beam_energy=120.0).beam_energy == 120


def test_order_of_axes_does_not_matter():
    spectrum = make_spectrum()
    turned = Spectrum(
        filled(AXES[::-1], spectrum.values.transpose(), np.ones(60)),
        np.eye(60),
        "counts",
        BEAM,
        np.ones((5, 4, 3), bool),
    )
    mass = np.linspace(0.25, 1.05, 500)
    one, two = (HistSampler(s).sample(mass, stream(9, "draw")) for s in (spectrum, turned))
    np.testing.assert_array_equal(one, two)


def test_domain_lookup():
    domain = np.zeros(SHAPE, bool)
    domain[1, 2, 3] = True
    spectrum = make_spectrum(domain=domain)
    mass, pt, energy = np.array([[0.5, 1.2, 50], [0.5, 0.2, 50], [0.1, 1.2, 50], [0.5, 1.2, 900]]).T
    assert in_domain(spectrum, mass, pt, energy).tolist() == [True, False, False, False]


def test_weights_are_on_average_one_over_the_efficiency():
    """The mean of 1/ε exceeds one over ε by the variance of an estimate; of Γ(n)/n it is n/(n − 1)."""
    n, shape = 26.0, (20, 20, 20)
    values = 0.4 * stream(10, "efficiency").gamma(n, 1 / n, shape)
    low, high = np.array([0.2, 0.2, 2.0]), np.array([1.0, 1.2, 4.0])
    found = EfficiencyMap(low, high, np.minimum(values, 1.0), np.full(shape, n))
    centres = [a + (b - a) * (np.arange(20) + 0.5) / 20 for a, b in zip(low, high, strict=True)]
    mass, root, rapidity = (x.ravel() for x in np.meshgrid(*centres, indexing="ij"))
    weight = found.weights(mass, root**2, np.hypot(mass, root**2) * np.cosh(rapidity))
    assert weight.mean() == pytest.approx(
        1 / 0.4, abs=4 * weight.std() / np.sqrt(weight.size) + 1 / 0.4 / n**2
    )
