"""Published likelihoods tested exactly, asymptotically, or as the number of events asks; the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.stats import poisson

from gammastar.cli import app
from gammastar.core.errors import PhysicsError, SteeringError
from gammastar.infer import (
    Likelihood,
    counting_cls,
    from_hs3,
    log_normal,
    patchset,
    poisson_counts,
    read_likelihood,
    sample,
    scan,
    to_hs3,
    workspace,
)

POT = float(np.log(1.2))


def likelihood(observed, background=0.5, sigma=0.3):
    space = workspace("c", background, sigma, observed, pot_search_sigma=POT)
    patches = patchset(space, [0.3, 0.3], [1e-6, 2e-6], [2.5, 5.0])
    named = {p["metadata"]["name"]: p["patch"] for p in patches["patches"]}
    return Likelihood(space, named, {}, ())


def test_exact_scan_is_the_enumeration():
    found = list(scan(likelihood([1]), method="exact"))
    for point, signal in zip(found, (2.5, 5.0), strict=True):
        wanted = counting_cls(signal, 1, 0.5, signal_sigma=POT, background_sigma=0.3)
        assert point.observed == pytest.approx(float(wanted), abs=4 * point.error + 1e-3)
        assert "exact CLs" in point.method
        assert (np.diff(point.expected) >= 0).all()


def test_expected_bands_of_one_bin_without_nuisances():
    """Quantiles of a count: CLs(n) = P(≤ n | s + b)/P(≤ n | b) at the quantiles of n."""
    space = workspace("c", 3.0, 0.0, [3])
    space["channels"][0]["samples"][0]["data"] = [4.0]
    (point,) = scan(Likelihood(space, {}, {}, ()), method="exact", rng=np.random.default_rng(3))
    counts = poisson.ppf([0.022750, 0.158655, 0.5, 0.841345, 0.977250], 3.0)
    wanted = poisson.cdf(counts, 7.0) / poisson.cdf(counts, 3.0)
    np.testing.assert_allclose(point.expected, wanted, rtol=0.06, atol=2e-3)


def test_auto_follows_events_and_nuisances():
    few = next(scan(likelihood([1]), method="auto"))
    assert few.method.startswith("exact")
    assert "exact below 20" in few.method
    many = next(scan(likelihood([60], background=55.0), method="auto"))
    assert many.method.startswith("asymptotic")
    assert "asymptotic from 20" in many.method
    assert next(scan(likelihood([1]), method="auto", asymptotic_from=0.2)).method.startswith("asymptotic")
    space = workspace("c", [0.5, 0.4], 0.3, [1, 0])
    space["channels"][0]["samples"] = [
        sample("signal", [1.0, 1.0], log_normal("pot", POT), signal=True),
        sample("background", [0.5, 0.4], poisson_counts("like_sign", [0.5, 0.4], [0.05, 0.04])),
    ]
    (point,) = scan(Likelihood(space, {}, {}, ()), method="auto")
    assert point.method.startswith("asymptotic")
    assert "too few for asymptotic formulae" in point.method
    assert "like_sign" in point.method
    with pytest.raises(PhysicsError, match="like_sign"):
        next(scan(Likelihood(space, {}, {}, ()), method="exact"))


def test_a_masked_likelihood_has_no_observed_cls_in_any_method():
    for method in ("asymptotic", "exact"):
        point = next(scan(likelihood("masked", background=2.0), method=method))
        assert np.isnan(point.observed)
        assert np.isfinite(point.expected).all()


def test_command_line(tmp_path):
    space = likelihood([1]).workspace
    space["channels"][0]["samples"][0]["data"] = [2.5]
    (tmp_path / "model.json").write_text(json.dumps(to_hs3(space)))
    arguments = ["scan", str(tmp_path / "model.json"), "--method", "auto", "--hs3", str(tmp_path / "out")]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    assert "exact CLs" in done.output
    written = json.loads((tmp_path / "out" / "workspace.json").read_text())
    assert (
        from_hs3(written)["observations"]
        == read_likelihood(tmp_path / "model.json").workspace["observations"]
    )


SMALL = Path(__file__).parents[2] / "analysis" / "na60_dimuon" / "small.toml"


def steering(path, method, events=20.0):
    keys = f'[infer]\nmethod = "{method}"\nasymptotic_from = {events}\n'
    path.write_text(SMALL.read_text().replace("[infer]\n", keys))
    return str(path)


def scanned(folder, *arguments):
    space = likelihood([1]).workspace
    space["channels"][0]["samples"][0]["data"] = [2.5]
    (folder / "model.json").write_text(json.dumps(space))
    done = CliRunner().invoke(app, ["scan", str(folder / "model.json"), *arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.output


def test_scan_follows_the_convention_of_the_steering(tmp_path):
    """Averaged toys are the marginalised enumeration, fixed ones the plug-in; they differ by 0.02 here."""
    options = {"signal_sigma": POT, "background_sigma": 0.3}
    wanted = {
        "exact": float(counting_cls(2.5, 1, 0.5, nuisance="plug-in", **options)),
        "marginalised": float(counting_cls(2.5, 1, 0.5, nuisance="marginalised", **options)),
    }
    assert abs(wanted["exact"] - wanted["marginalised"]) > 0.004
    path = tmp_path / "steering.toml"
    for method, label in (("exact", "fixed auxiliaries"), ("marginalised", "averaged over nuisances")):
        said = scanned(tmp_path, "--steering", steering(path, method))
        assert label in said
        assert float(said.split("CLs ")[1].split()[0]) == pytest.approx(wanted[method], abs=4e-3)
    assert "asymptotic from 0.2" in scanned(tmp_path, "--steering", steering(path, "auto", 0.2))
    assert "fixed auxiliaries" in scanned(tmp_path, "--steering", str(path), "--method", "exact")


def test_scan_takes_statistic_and_toys(tmp_path):
    said = scanned(tmp_path, "--method", "exact", "--statistic", "qtilde", "--auxiliary", "randomised")
    assert "q̃μ, nuisances profiled, randomised auxiliaries" in said
    assert "asymptotic CLs" in scanned(tmp_path)
    with pytest.raises(SteeringError, match="cannot take 'fixed' toys"):
        scanned(tmp_path, "--method", "marginalised", "--auxiliary", "fixed")
    (tmp_path / "bare.toml").write_text('[analysis]\nname = "bare"\n')
    with pytest.raises(SteeringError, match=r"bare.toml: has no \[infer\]"):
        scanned(tmp_path, "--steering", str(tmp_path / "bare.toml"))
