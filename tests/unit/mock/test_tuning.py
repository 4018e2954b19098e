"""A card that names a measured spectrum: yields fitted to it; the command line and its mistakes."""

import awkward as ak
import numpy as np
import pytest
import uproot
from click.testing import CliRunner

from gammastar.cli import app
from gammastar.core.constants import M_MU
from gammastar.core.errors import InputFileError, PhysicsError, SteeringError
from gammastar.core.files import data_path
from gammastar.mock import load_card, mass_templates, samples, simulate_events, tune_card
from gammastar.mock.tuning import _opposite
from gammastar.pipeline.stages.simulate import read_counts, tuned

TEXT = data_path("cards/na60_mock.toml").read_text(encoding="utf-8")
CARD = load_card(data_path("cards/na60_mock.toml"))
TUNING = """
[tuning]
spectrum = "{name}"
pot = {{ value = 2.0e12, tag = "placeholder", source = "illustrative" }}
n = {{ value = 30000, tag = "placeholder", source = "illustrative" }}

[tuning.constraints.combinatorial]
factor = {{ value = 1.0, tag = "placeholder", source = "illustrative" }}
error = {{ value = 0.05, tag = "placeholder", source = "illustrative" }}
"""


@pytest.fixture(scope="module")
def spectrum():
    """Expected entries of the card with 1.5 times the φ and 0.7 times the η."""
    edges = np.linspace(0.2, 1.2, 26)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(samples, "PILOT", 50_000)  # of the background, which is not asked for
        templates, _ = mass_templates(CARD, edges, 2e12, n=40_000, seed=9)
    factors = {"phi_2body": 1.5, "eta_dalitz": 0.7}
    return edges, np.round(sum(factors.get(key, 1.0) * shape for key, shape in templates.items()))


def written(folder, name, edges, counts):
    path = folder / name.partition(":")[0]
    if path.suffix == ".root":
        with uproot.recreate(path) as file:
            file["mass"] = (counts, edges)
            file["other"] = (counts, edges)
    else:
        rows = [f"{a:.6f},{b:.6f},{c:.0f}" for a, b, c in zip(edges[:-1], edges[1:], counts, strict=True)]
        path.write_text("# MOCK\n" + "\n".join(["low,high,entries", *rows]))
    (folder / "card.toml").write_text(TEXT + TUNING.format(name=name), encoding="utf-8")
    return folder / "card.toml"


@pytest.mark.usefixtures("small_pilots")
@pytest.mark.parametrize("name", ["mass.csv", "mass.root:mass"])
def test_yields_follow_the_spectrum(tmp_path, spectrum, name):
    path = written(tmp_path, name, *spectrum)
    card, inputs, notes = tuned(str(path), tmp_path, 1)
    ratio = {key: card.modes[key].branching / mode.branching for key, mode in CARD.modes.items()}
    assert ratio["phi_2body"] == pytest.approx(1.5, rel=0.12)
    assert ratio["eta_dalitz"] == pytest.approx(0.7, rel=0.12)
    assert card.tuning is None  # not twice
    assert card.name.endswith("(tuned)")
    assert [str(path) for path in inputs] == [str(tmp_path / name.partition(":")[0])]
    assert "phi_2body × 1." in notes[0]
    assert "tuning.pot" in " ".join(load_card(path).placeholders())


def test_untuned_cards_are_left_alone(tmp_path):
    card, inputs, notes = tuned("na60_mock", tmp_path, 1)
    assert (card, inputs, notes) == (CARD, {}, [])
    assert load_card(data_path("cards/na60_mock.toml")).digest == CARD.digest


def test_spectrum_files_and_their_mistakes(tmp_path, spectrum):
    written(tmp_path, "mass.root:mass", *spectrum)
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
    for old, new, match in (
        ("spectrum =", "spektrum =", "tuning.spektrum: unknown key"),
        ("value = 2.0e12", "value = -1.0", "tuning.pot"),
    ):
        text = TEXT + TUNING.format(name="mass.csv").replace(old, new)
        (tmp_path / "card.toml").write_text(text, encoding="utf-8")
        with pytest.raises(SteeringError, match=match):
            tuned("card.toml", tmp_path, 1)


@pytest.mark.usefixtures("small_pilots")
def test_command_writes_both_layouts_with_one_content(tmp_path):
    content = {}
    for layout in ("ttree", "rntuple"):
        out = tmp_path / f"{layout}.root"
        run = CliRunner().invoke(
            app,
            ["simulate", "na60_mock", "-n", "2000", "--kind", "mc", "-o", str(out), "--format", layout],
            catch_exceptions=False,
        )
        assert run.exit_code == 0
        assert "placeholders of the card: background" in run.output
        content[layout] = next(line for line in run.output.splitlines() if "sha256" in line)
        with uproot.open(out) as file:
            assert ak.all(file["events"].arrays().Muon_decayZ == 0.0)
    assert content["ttree"] == content["rntuple"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rntuple.root", "ttree.root"]


@pytest.mark.parametrize("number", ["0", "-3"])
def test_command_refuses_no_events(tmp_path, number):
    run = CliRunner().invoke(app, ["simulate", "na60_mock", "-n", number, "-o", str(tmp_path / "a.root")])
    assert run.exit_code == 2
    assert "not in the range" in run.output


def test_command_cannot_make_the_folder(tmp_path):
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "a.root"
    run = CliRunner().invoke(app, ["simulate", "na60_mock", "-n", "10", "-o", str(out)])
    assert "cannot be written" in str(run.exception)


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
