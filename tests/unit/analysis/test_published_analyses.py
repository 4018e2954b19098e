"""Published tables of NA60, STAR and PHENIX: fits, the partial rate, subtraction, a limit."""

import json
import sys

import numpy as np
import pyhf
import pytest
from builders import ROOT
from scipy.integrate import quad
from scipy.stats import norm

from gammastar.config.checks import examine_file
from gammastar.core.constants import ALPHA, M_MU
from gammastar.core.constants import mass as mass_of
from gammastar.pipeline.run import run
from gammastar.predict import check_exclusive
from gammastar.testing import check_channel

for _name in ("na60_2016", "star_dielectrons", "phenix_2015"):
    sys.path.insert(0, str(ROOT / "analysis" / _name))

import combined as phenix_combined  # noqa: E402
import phenix_tables  # noqa: E402
import star_tables  # noqa: E402
from form_factors import PUBLISHED, FormFactor2, dimuon_fraction, fit_pole  # noqa: E402
from measured_dalitz import channel, partial_rate  # noqa: E402

M_ETA = mass_of(221)


def pole_table(inverse, error=0.02):
    """Points of an exact pole at the centres of narrow bins."""
    edges = np.linspace(0.2113, 0.48, 136)
    centre = 0.5 * (edges[1:] + edges[:-1])
    value = (1 - centre**2 * inverse) ** -2
    return FormFactor2("eta", edges[:-1], edges[1:], value, error * value)


@pytest.mark.parametrize(("meson", "points"), [("eta", 14), ("omega", 22)])
def test_pole_of_the_points_lies_within_the_published_errors(meson, points):
    measured = FormFactor2.read(meson)
    fit, free = fit_pole(measured), fit_pole(measured, free_norm=True)
    value, *errors = PUBLISHED[meson]
    assert fit.ndf == points - 1
    assert abs(fit.value[0] - value) < np.hypot(*errors)
    assert 0.2 < fit.chi2 / fit.ndf < 1.5
    assert abs(free.value[1] - 1) < free.error[1]
    assert free.cov[0, 1] < 0 < np.linalg.eigvalsh(free.cov).min()


def test_an_exact_pole_is_found_and_interpolated():
    table = pole_table(1.7)
    assert fit_pole(table).value[0] == pytest.approx(1.7, rel=1e-3)
    m = np.linspace(*table.mass_range, 57)
    np.testing.assert_allclose(table.at(m), (1 - 1.7 * m**2) ** -2, rtol=2e-4)
    sigma = np.sqrt(np.diag(table.relative_cov(0.5 * (table.low + table.high))))
    np.testing.assert_allclose(sigma, 0.02)  # at a point its own error, between two of them a mean
    assert np.sqrt(table.relative_cov(0.5 * (table.low[3] + table.high[4]))[0, 0]) < 0.015


def test_points_pass_through_the_table_and_their_errors_too():
    for meson in PUBLISHED:
        table = FormFactor2.read(meson)
        centre = 0.5 * (table.low + table.high)
        np.testing.assert_allclose(table.at(centre), table.value, rtol=1e-12)
        np.testing.assert_allclose(
            np.sqrt(np.diag(table.relative_cov(centre))), table.error / table.value, rtol=1e-9
        )


def test_dimuon_fraction_is_the_integral_of_kroll_and_wada():
    table = pole_table(1.934)
    ours = dimuon_fraction(table, fit_pole(table))

    def density(m):
        x = (M_MU / m) ** 2
        leptons = (1 + 2 * x) * np.sqrt(1 - 4 * x)
        return (
            2
            * m
            * 2
            * ALPHA
            / (3 * np.pi)
            / m**2
            * (1 - (m / M_ETA) ** 2) ** 3
            * leptons
            / (1 - 1.934 * m * m) ** 2
        )

    exact = table.photons.value * quad(density, 2 * M_MU, M_ETA)[0]
    assert ours.value == pytest.approx(exact, rel=5e-4)
    assert ours.common == pytest.approx(0.02 * ours.value, rel=0.02)
    assert ours.points == pytest.approx(ours.common / np.sqrt(135), rel=0.25)


def test_measured_eta_decays_give_the_fraction_of_the_tables():
    table = FormFactor2.read("eta")
    ours = dimuon_fraction(table, fit_pole(table))
    assert abs(ours.value - 2.98e-4) < 2 * np.hypot(ours.error, 0.13e-4)  # Particle Data Group 2026
    assert ours.beyond < 0.01 * ours.value


@pytest.mark.parametrize("meson", ["eta", "omega"])
def test_channel_keeps_the_contract_and_is_zero_outside_its_points(meson):
    made = channel(meson)
    low, high = made.mass_range
    check_channel(made, masses=(low + 0.01, high - 0.01), n=500)
    rate, cov = made.rate([low - 1e-3, 0.3, high + 1e-3])
    assert rate[0] == rate[2] == 0 < rate[1]
    assert cov[0, 0] == cov[2, 2] == 0 < cov[1, 1]
    assert "PARTIAL" in made.describe()
    for missing in ("rho", "bremsstrahlung", "Drell-Yan"):
        assert missing in made.describe()
    assert "(partial)" in made.group


def test_rate_of_eta_is_multiplicity_times_fraction_times_points():
    made, m = channel("eta", "lead"), np.array([0.25, 0.35, 0.45])
    per_lead = 0.30 * 207.2**0.88 * 32.9 / 1724
    expected = per_lead * 2 * 0.3936 * (1 - (m / M_ETA) ** 2) ** 3 * made.measured.at(m)
    np.testing.assert_allclose(made.rate(m)[0], expected, rtol=1e-6)


def test_partial_rate_adds_the_powers_of_a_and_all_else_in_quadrature():
    m = np.array([0.3])
    total, error = partial_rate(m)
    parts = [channel(name) for name in ("eta", "omega")]
    check_exclusive(parts)
    rates, covs = zip(*(part.rate(m) for part in parts), strict=True)
    assert total[0] == pytest.approx(rates[0][0] + rates[1][0])
    apart = np.sqrt(covs[0][0, 0] + covs[1][0, 0])
    power = [rate[0] * part.relative["power of A"] for rate, part in zip(rates, parts, strict=True)]
    assert error[0] ** 2 == pytest.approx(apart**2 + 2 * power[0] * power[1])


def test_steering_of_the_partial_rate_is_whole_and_holds_no_mock():
    path = ROOT / "analysis" / "na60_2016" / "steering.toml"
    steering, findings = examine_file(path)
    assert steering is not None
    assert not findings
    assert not steering.analysis.mock
    assert steering.simulate is None
    assert steering.analysis.title.startswith("PARTIAL")


@pytest.mark.parametrize("table", [star_tables.gold_19, star_tables.gold_200])
def test_star_signal_agrees_to_rounding_in_every_bin(table):
    found = table()
    assert np.abs(found.residual).max() <= 1
    assert np.median(found.error / found.published_error) == pytest.approx(1, abs=2e-3)


def test_star_subtraction_without_r_is_wrong_and_said_so():
    found = star_tables.gold_200()
    at = np.argmin(np.abs(found.low - 0.2))
    assert found.without_r[at] > 2 * found.published[at]


def test_errors_of_the_background_know_r():
    mass, r, _ = star_tables.r_from_errors()
    np.testing.assert_allclose(r[1:], star_tables.acceptance(mass)[0][1:], rtol=5e-3)
    assert r.max() - r.min() > 0.05


def test_like_over_mixed_is_flat_and_does_not_follow_one_over_r():
    found = star_tables.mixed_events()
    assert found["chi2 of constant"] < 0.2 * found["chi2 of constant/R"]
    assert 1e-3 < found["mean departure, 0.15 to 1 GeV"] < 1e-2


@pytest.mark.long
def test_phenix_limit_from_spectrum_and_candidates():
    found = phenix_tables.recomputed()
    ratio = found.observed / found.published
    assert len(ratio) == 61
    assert (np.abs(ratio - 1) <= 0.05).mean() >= 0.9
    assert (np.diff(found.bands, axis=1) > 0).all()


@pytest.mark.long
def test_phenix_smoothing_never_sees_the_published_limit(monkeypatch):
    read = phenix_tables.published

    def blind(table):
        assert "fig5" not in table
        assert "fig3" not in table
        return read(table)

    monkeypatch.setattr(phenix_tables, "published", blind)
    chosen = phenix_tables.best(phenix_tables.candidates.__wrapped__())
    assert chosen.even
    assert chosen.score < 1.5


@pytest.mark.long
def test_phenix_and_a_mock_search_make_one_limit():
    """The product of two normal likelihoods, by hand, has the limit of the workspace of both."""
    found = phenix_combined.combined(np.array([0.08]))
    assert (found.both < found.phenix).all()
    assert (found.both < found.mock).all()
    np.testing.assert_allclose(found.both, found.normal, rtol=0.01)
    limit = phenix_tables.recomputed()
    np.testing.assert_allclose(found.phenix, np.interp(found.mass, limit.mass, limit.observed), rtol=0.005)


@pytest.mark.long
def test_the_combined_likelihood_is_the_product_of_both():
    counted = phenix_combined.counted()
    search = phenix_combined.mock_search(counted.mass[[20]])
    spaces = phenix_combined.workspaces(counted, search, 20, 0, 2e-6)
    values = []
    for space in spaces:
        model = pyhf.Workspace(space).model()
        data = pyhf.Workspace(space).data(model)
        fits = [
            pyhf.infer.mle.fixed_poi_fit(mu, data, model, return_fitted_val=True)[1] for mu in (0.2, 1.0, 1.8)
        ]
        values.append(np.array(fits, dtype=float))
    np.testing.assert_allclose(values[0] + values[1] - values[2], 0.0, atol=0.01)
    assert np.ptp(values[2]) > 1  # and it is no constant


def test_candidates_come_back_from_observed_and_expected_limits():
    """The published bands are those of a normal estimate, within a quarter but for the lowest."""
    counted, bands = phenix_combined.counted(), phenix_combined.bands()
    z = counted.fitted / counted.sigma
    limits = counted.sigma * (z + norm.ppf(1 - 0.1 * norm.cdf(z)))
    np.testing.assert_allclose(
        limits, phenix_tables.published("phenix_2015/fig3d").columns[0].values, rtol=1e-6
    )
    assert (np.abs(bands[:, 1:] - 1) < 0.25).all()
    assert np.abs(np.median(bands, axis=0) - 1).max() < 0.2


def test_phenix_constant_cancels_and_candidates_scale():
    edges, value, _ = phenix_tables.spectrum(even=True)
    assert edges[-1] == pytest.approx(0.1)
    assert len(value) == 20
    smooth = phenix_tables.best(phenix_tables.candidates())
    inside = (edges[:-1] > 0.02) & (edges[1:] < 0.099)
    centre = 0.5 * (edges[1:] + edges[:-1])[inside]
    np.testing.assert_allclose(np.exp(smooth.log_density(centre)), value[inside], rtol=0.04)


def test_run_of_the_partial_rate_says_partial_in_its_record(tmp_path):
    text = (ROOT / "analysis" / "na60_2016" / "steering.toml").read_text()
    folder = ROOT / "analysis" / "na60_2016"
    for name in ("measured_dalitz.py", "form_factors.py", "card.toml"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    path = tmp_path / "steering.toml"
    path.write_text(text.split("[accept]")[0].replace("n_masses = 40", "n_masses = 6"))
    record = (run(path, output=tmp_path / "out") / "manifest.json").read_text()
    manifest = json.loads(record)
    lines = [value for key, value in manifest["methods"].items() if key.startswith("production, ")]
    assert len(lines) == 2
    assert all(line.startswith("PARTIAL") and "Missing: rho, omega and phi" in line for line in lines)
    assert "MOCK" not in record
