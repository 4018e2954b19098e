"""Yields of a card fitted to a measured mass spectrum: the fit, the script, mistakes of its files."""

import sys

import awkward as ak
import numpy as np
import pytest
import uproot
from builders import ROOT

from gammastar.core.constants import M_MU
from gammastar.core.errors import InputFileError, PhysicsError
from gammastar.core.files import data_path
from gammastar.mock import load_card, samples, simulate_events

sys.path.append(str(ROOT / "analysis" / "na60_dimuon"))
import card_yields
from card_yields import _opposite, fit_yields, mass_templates, read_counts, tune_card

CARD = load_card(data_path("cards/na60_mock.toml"))


@pytest.fixture
def small_pilots(monkeypatch):
    """Pilots of a quarter of the size."""
    monkeypatch.setattr(samples, "PILOT", 50_000)


@pytest.fixture(scope="module")
def spectrum():
    """Expected entries of the card with 1.5 times the φ and 0.7 times the η."""
    edges = np.linspace(0.2, 1.2, 26)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(samples, "PILOT", 50_000)  # of the background, which is not asked for
        templates, _ = mass_templates(CARD, edges, 2e12, n=40_000, seed=9)
    factors = {"phi_2body": 1.5, "eta_dalitz": 0.7}
    return edges, np.round(sum(factors.get(key, 1.0) * shape for key, shape in templates.items()))


def written(path, edges, counts):
    if path.suffix == ".root":
        with uproot.recreate(path) as file:
            file["mass"] = (counts, edges)
            file["other"] = (counts, edges)
    else:
        rows = [f"{a:.6f},{b:.6f},{c:.0f}" for a, b, c in zip(edges[:-1], edges[1:], counts, strict=True)]
        path.write_text("# MOCK\n" + "\n".join(["low,high,entries", *rows]))


@pytest.mark.long
@pytest.mark.usefixtures("small_pilots")
@pytest.mark.parametrize("name", ["mass.csv", "mass.root:mass"])
def test_the_script_prints_the_factors(tmp_path, spectrum, name, monkeypatch, capsys):
    written(tmp_path / name.partition(":")[0], *spectrum)
    words = ["na60_mock", str(tmp_path / name), "--pot", "2e12", "--known", "combinatorial", "1.0", "0.05"]
    monkeypatch.setattr(sys, "argv", ["card_yields.py", *words, "-n", "30000", "--seed", "1"])
    card_yields.main()
    found = dict(part.split(" × ") for part in capsys.readouterr().out.split("; χ²")[0].split(", "))
    assert float(found["phi_2body"].split(" ±")[0]) == pytest.approx(1.5, rel=0.12)
    assert float(found["eta_dalitz"].split(" ±")[0]) == pytest.approx(0.7, rel=0.12)


@pytest.mark.long
def test_spectrum_files_and_their_mistakes(tmp_path, spectrum):
    written(tmp_path / "mass.root", *spectrum)
    edges, counts = read_counts(tmp_path / "mass.root", "mass")
    np.testing.assert_array_equal(counts, spectrum[1])
    np.testing.assert_allclose(edges, spectrum[0])
    for text, match in (
        ("low,high\n0,1\n", "no column of values"),
        ("low,high,entries\n0,1,x\n", "'x'"),
        ("low,high,entries\n0,1,5\n2,3,5\n", "leave a gap between them"),
        ("low,high,entries\n", "holds no table"),
        ("low,high,entries\n1,0,3\n", "upper edge is not above"),
    ):
        (tmp_path / "bad.csv").write_text(text)
        with pytest.raises(InputFileError, match=match):
            read_counts(tmp_path / "bad.csv")
    with pytest.raises(InputFileError, match=r"absent\.csv: cannot be read"):
        read_counts(tmp_path / "absent.csv")
    with pytest.raises(InputFileError, match="there are 1 'mass', 2 'other'"):
        read_counts(tmp_path / "mass.root")


@pytest.mark.long
@pytest.mark.usefixtures("small_pilots")
def test_tuning_finds_the_yields_behind_a_spectrum():
    factor = {"eta_dalitz": 0.7, "omega_2body": 1.4, "phi_2body": 1.8}
    modes = {
        k: m.model_copy(update={"branching": m.branching * factor.get(k, 1.0)}) for k, m in CARD.modes.items()
    }
    data = simulate_events(CARD.model_copy(update={"modes": modes}), 12_000, seed=1)
    assert ak.any(data.branches["Muon"].charge)
    edges = np.linspace(0.2, 1.2, 51)
    counts = np.histogram(_opposite(data, M_MU)[0], edges)[0]
    known = {"combinatorial": (1.2, 0.3), "eta_prime_dalitz": (1.0, 0.3), "omega_dalitz": (1.0, 0.1)}
    tuned, fit = tune_card(CARD, edges, counts, data.meta["N_POT"], constraints=known, n=30_000)
    for key, expected in factor.items():
        assert fit.factor[key] == pytest.approx(expected, abs=4 * fit.error[key] + 0.03 * expected)
    assert fit.chi2 / fit.ndof < 2.0
    ratio = tuned.modes["phi_2body"].branching / CARD.modes["phi_2body"].branching
    assert ratio == pytest.approx(fit.factor["phi_2body"])
    with pytest.raises(PhysicsError, match="51 edges for 49 bins"):
        tune_card(CARD, edges, counts[1:], 1e10)


def test_yield_fit_finds_the_mixture():
    """Poisson template fit: unbiased factors, pulls of unit width; a fixed template stays."""
    shapes = {k: np.diff(1 - np.exp(-np.linspace(0, s, 21))) for k, s in {"a": 2.0, "b": 8.0}.items()}
    templates = {k: 5000 * v / v.sum() for k, v in shapes.items()}
    rng, pulls = np.random.default_rng(8), []
    for _ in range(60):
        counts = rng.poisson(1.3 * templates["a"] + 0.6 * templates["b"])
        fit = fit_yields(counts, templates)
        pulls.append((fit.factor["a"] - 1.3) / fit.error["a"])
    assert abs(np.mean(pulls)) < 0.5
    assert np.std(pulls) == pytest.approx(1.0, abs=0.35)
    assert fit.chi2 / fit.ndof < 2.0
    fixed = fit_yields(counts, templates, fixed={"a": 1.3})
    assert fixed.factor["a"] == 1.3
    with pytest.raises(PhysicsError, match="template 'a' has shape"):
        fit_yields(counts, {"a": np.ones(3)})
