"""Forward folding: exact input, pulls at ω and φ, where unfolding into cells cannot resolve the peaks."""

import numpy as np
import pytest
from builders import counted, matched_pairs
from scipy.stats import norm

from gammastar import unfold
from gammastar.core.axes import filled, regular
from gammastar.core.errors import UserError
from gammastar.core.records import Response, Spectrum
from gammastar.core.sampling import stream
from gammastar.physics.hadrons import cocktail_components

RECO, FINE = (regular("mass", 45, 0.2125, 1.1125),), (regular("mass", 200, 0.2, 1.2),)
COMPONENTS = cocktail_components((0.2, 1.2), smooth=0)
YIELDS = {"eta_dalitz": 9e4, "eta_prime_dalitz": 1.5e3, "omega_dalitz": 5e4, "rho": 2.5e4}
YIELDS |= {"omega": 3e4, "phi": 8e3}
TRUE = np.array([YIELDS[c.name] for c in COMPONENTS])


@pytest.fixture(scope="module")
def response():
    m = FINE[0].centers
    migration = np.diff(norm.cdf(RECO[0].edges[:, None], m, 0.03), axis=0) * (0.02 + 0.2 * m**2)
    prior = np.stack([c.cells(FINE[0].edges) for c in COMPONENTS], axis=1) @ TRUE
    return Response(migration, migration.sum(axis=0), np.zeros(45), RECO, FINE, prior, np.zeros((0, 45, 200)))


def test_line_shapes_are_normalised():
    edges = np.linspace(0.2, 1.6, 1401)
    for component in COMPONENTS:
        expected = 1.0 if component.name not in ("omega", "phi") else pytest.approx(1, abs=0.02)
        assert component.cells(edges).sum() == pytest.approx(expected, abs=0.02)


def test_exact_data_give_the_yields_back(response):
    found = unfold.forward_fold(counted(response.migration @ response.prior, RECO), response, COMPONENTS)
    np.testing.assert_allclose(found.yields, TRUE, rtol=1e-6)
    assert found.chi2 == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(found.spectrum(FINE[0]).values, response.prior, rtol=1e-6)
    peak, sigma = found.density(np.array([0.7827, 1.0195]))
    assert (peak > 10 * sigma).all()


def test_pulls_at_the_peaks(response):
    rng = stream(1, "line shape")
    expected = response.migration @ response.prior
    pulls, chi2 = [], []
    for _ in range(50):
        found = unfold.forward_fold(
            counted(rng.poisson(expected).astype(float), RECO),
            response,
            COMPONENTS,
            ratios={("omega_dalitz", "omega"): (5 / 3, 0.5)},
        )
        pulls.append((found.yields - TRUE) / np.sqrt(np.diag(found.cov)))
        chi2.append(found.chi2 / found.ndf)
    pulls = np.array(pulls)
    assert np.abs(pulls.mean(axis=0)).max() < 0.4
    assert pulls.std(axis=0).mean() == pytest.approx(1, abs=0.15)
    assert np.mean(chi2) == pytest.approx(1, abs=0.1)


def test_smeared_preset_is_wrong_by_factors_where_this_is_right(response):
    """A cell of 4 MeV on the ω: the data, corrected for efficiency alone, hold a third of the truth."""
    narrow = regular("mass", 1, 0.7787, 0.7867)
    truth = sum(n * c.cells(narrow.edges)[0] for n, c in zip(TRUE, COMPONENTS, strict=True))
    measured = counted(response.migration @ response.prior, RECO)
    found = unfold.forward_fold(measured, response, COMPONENTS).spectrum(narrow).values[0]
    density = np.interp(0.7827, RECO[0].centers, measured.values / 0.02) / (0.02 + 0.2 * 0.7827**2)
    assert found == pytest.approx(truth, rel=1e-4)
    assert density * 0.008 < 0.4 * truth


def test_reweighted_and_fiducial_simulation():
    rng = stream(2, "fiducial")
    n = 40_000
    true = np.stack([rng.uniform(0.2, 1.2, n), rng.gamma(2, 0.3, n), np.full(n, 20.0)], axis=1)
    reco = np.where((rng.random(n) < 0.1 + 0.8 * (true[:, 1] > 0.3))[:, None], true, np.nan)
    matched = matched_pairs(true, reco)
    axes = (regular("mass", 4, 0.2, 1.2), regular("pt", 2, 0, 0.6))
    y, variance = np.array([[4.0, 1.0]] * 4) * 1e3, np.ones(8)
    domain = np.array([[False, True]] * 4)
    target = Spectrum(filled(axes, y, variance.reshape(4, 2)), np.eye(8), "counts", None, domain)
    full = Spectrum(target.hist, target.cov, "counts", None, np.ones((4, 2), bool))
    cells = np.histogram2d(
        *true[:, :2].T, [a.edges for a in axes], weights=unfold.simulation.reweighted(matched, full).weight
    )
    np.testing.assert_allclose(cells[0] / cells[0].sum(), y / y.sum(), rtol=1e-9)
    inside = unfold.simulation.fiducial(matched, target)
    assert inside.true[:, 1].min() >= 0.3
    assert len(inside.fakes) == int(
        np.sum(matched.reconstructed & ~((true[:, 1] >= 0.3) & (true[:, 1] < 0.6)))
    )
    fraction = unfold.simulation.fiducial_fraction(matched, target, axes[0])
    np.testing.assert_allclose(fraction, np.mean((true[:, 1] >= 0.3) & (true[:, 1] < 0.6)), atol=0.03)
    np.testing.assert_array_equal(unfold.simulation.reweighted(matched, weight=np.full(n, 2.0)).weight, 2.0)
    with pytest.raises(UserError, match="either"):
        unfold.simulation.reweighted(matched)


def test_refuses(response):
    measured = counted(response.migration @ response.prior, RECO)
    with pytest.raises(UserError, match="look alike"):
        unfold.forward_fold(measured, response, [COMPONENTS[0], COMPONENTS[0]])
    with pytest.raises(UserError, match="tie"):
        unfold.forward_fold(measured, response, COMPONENTS, ratios={("omega", "psi"): (1, 1)})
    with pytest.raises(UserError, match="no component 'psi'"):
        unfold.forward_fold(measured, response, COMPONENTS)["psi"]
