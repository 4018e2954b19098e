"""Signal in situ from smeared and selected MOCK pairs against the density that they were drawn from."""

from __future__ import annotations

import numpy as np
import pytest

from gammastar.core.constants import M_MU
from gammastar.core.errors import PhysicsError
from gammastar.core.records import MASS, Spectrum, filled, regular
from gammastar.physics.detector import SHAPES, MassResolution, measured_resolution
from gammastar.physics.hadrons import cocktail_components
from gammastar.spectrum import fit_mass_shape, mass_counts

YIELDS = {"eta_dalitz": 3e5, "omega_dalitz": 5e4, "rho": 8e4, "omega": 1e5, "phi": 3e4}
GRID = np.concatenate([[2 * M_MU], np.linspace(2 * M_MU, 1.3, 40_001)[1:]])
AXIS = regular(MASS, 36, 0.2125, 1.1125)
COMPONENTS = {c.name: c for c in cocktail_components((0.2125, 1.1125)) if c.name in YIELDS}


def width(m: np.ndarray) -> np.ndarray:
    return 0.004 + 0.034 * (m - 0.2)


def efficiency(m: np.ndarray) -> np.ndarray:
    return 0.1 + 0.2 * m


def drawn(yields: dict[str, float], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return true masses, and reconstructed ones that are nan where a pair was lost."""
    true = []
    for name, n in yields.items():
        density = np.maximum(COMPONENTS[name].density(GRID), 0.0)
        passed = np.concatenate([[0.0], np.cumsum(0.5 * (density[1:] + density[:-1]) * np.diff(GRID))])
        true.append(np.interp(rng.uniform(size=rng.poisson(n)) * passed[-1], passed, GRID))
    m = np.concatenate(true)
    reco = m + width(m) * rng.normal(size=len(m))
    return m, np.where(rng.uniform(size=len(m)) < efficiency(m), reco, np.nan)


@pytest.fixture(scope="module")
def resolution() -> MassResolution:
    """From a simulation of other yields than the data have."""
    true, reco = drawn(dict.fromkeys(YIELDS, 1.5e5), np.random.default_rng(2))
    return measured_resolution(true, reco, np.ones(len(true)))


def test_the_resolution_is_that_of_the_simulation(resolution: MassResolution) -> None:
    m = np.array([0.25, 0.4, 0.6, 0.78, 1.02])
    np.testing.assert_allclose(resolution.sigma(m), width(m), rtol=0.04)
    np.testing.assert_allclose(resolution.efficiency_at(m), efficiency(m), rtol=0.04)
    edges = np.linspace(0.5, 1.1, 61)
    gaussian = MassResolution.gaussian(m, width(m)).cells([0.78], edges)[0]
    group = 1.5e5 * len(YIELDS) * 0.2 / SHAPES  # pairs behind a shape, at least
    noise = 3 * np.sqrt(gaussian.max() / group)
    np.testing.assert_allclose(resolution.cells([0.78], edges)[0], gaussian, atol=noise)
    with pytest.raises(PhysicsError, match=r"in_situ\.resolution: .*e\+0. widths lie between 0\.3 and 1 GeV"):
        resolution.scaled(1e-9 / float(resolution.width[0])).steps(0.3, 1.0, 3.0)
    steps = resolution.steps(0.3, 1.0, 3.0)
    per_step = np.diff(steps) / resolution.sigma(0.5 * (steps[1:] + steps[:-1]))
    np.testing.assert_allclose(per_step, 1 / 3, rtol=0.03)


def test_tails_of_light_pairs_are_not_those_of_the_lines():
    # one width at all masses; below 0.5 GeV a twentieth of the pairs come out 0.1 to 0.14 GeV too heavy
    rng, n = np.random.default_rng(8), 200_000
    true = rng.uniform(0.25, 1.05, n)
    tail = (true < 0.5) & (rng.random(n) < 0.05)
    reco = true + np.where(tail, rng.uniform(0.10, 0.14, n), rng.normal(0.0, 0.02, n))
    found = measured_resolution(true, reco, np.ones(n))
    light, heavy = found.cells([0.35], [0.44, 0.50]), found.cells([0.80], [0.88, 0.95])
    # of 200 000 · 0.02/0.8 pairs within ± 10 MeV 0.05 in the tail, and 3.2e-5 beyond 4 σ of a normal one
    assert float(light[0, 0]) == pytest.approx(0.05, abs=0.01)
    assert heavy[0, 0] < 1e-3


def test_folding_is_a_smeared_sample() -> None:
    """Monte Carlo of one component, without the package's folding."""
    true, reco = drawn({"omega": 4e5}, np.random.default_rng(3))
    edges = np.linspace(0.65, 0.9, 11)
    seen = np.histogram(reco[np.isfinite(reco)], edges)[0]
    folded = 4e5 * MassResolution.gaussian(GRID[1::400], width(GRID[1::400])).folded(
        lambda m: COMPONENTS["omega"].density(m) * efficiency(m), edges
    )
    pull = (seen - folded) / np.sqrt(folded)
    assert len(true) > 3.8e5
    assert (pull**2).sum() < 30  # 10 bins


def test_the_signal_is_that_of_the_pairs_at_their_true_mass(resolution: MassResolution) -> None:
    """At and beside ω and φ too, where reconstructed pairs per GeV are wrong by factors."""
    _, reco = drawn(YIELDS, np.random.default_rng(4))
    counts = np.histogram(reco[np.isfinite(reco)], AXIS.edges)[0].astype(float)
    spectrum = Spectrum(filled((AXIS,), counts, counts), np.diag(counts), "counts", None, np.ones(36, bool))
    shape = fit_mass_shape(spectrum, m_lepton=M_MU, counts=mass_counts(spectrum, resolution))
    assert shape.p_value > 0.01
    m = np.array([0.3, 0.45, 0.6, 0.74, 0.7827, 0.83, 1.0195])
    density, cov = shape.density(m)
    selected, error = density * resolution.efficiency_at(m), np.sqrt(np.diag(cov)) * efficiency(m)
    true = sum(n * COMPONENTS[name].density(m) for name, n in YIELDS.items()) * efficiency(m)
    np.testing.assert_allclose(selected, true, rtol=0.08)
    assert (abs(selected - true) < 4 * error + 0.03 * true).all()
    reconstructed = np.interp(m, AXIS.centers, counts / AXIS.widths)
    assert reconstructed[4] < 0.3 * true[4]
    assert reconstructed[5] > 2 * true[5]


def test_too_few_pairs_are_refused() -> None:
    with pytest.raises(PhysicsError, match="at least 30"):
        measured_resolution(np.full(20, 0.5), np.full(20, 0.5), np.ones(20))


def test_photons_that_weigh_nothing_are_refused() -> None:
    """Found by whole runs: a spectrum whose cells are all empty where pairs were simulated."""
    mass = np.linspace(0.3, 0.9, 100)
    with pytest.raises(PhysicsError, match="photons of no mass weigh more than zero"):
        measured_resolution(mass, mass, np.ones(100), np.zeros(100))
