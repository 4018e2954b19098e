"""A model of a user in a file, to tables and figures: the example of the page, and files that are wrong."""

from __future__ import annotations

import csv
import json
import re
from itertools import pairwise

import numpy as np
import pytest
from builders import ROOT

from gammastar import semivisible
from gammastar.core.errors import GammastarError, InputFileError, SteeringError
from gammastar.results.recast import recast, recast_file, regions, wanted
from gammastar.semivisible import babar
from gammastar.semivisible.models import from_majorana, mediator_widths

PAGE = (ROOT / "docs" / "howto" / "semivisible.md").read_text()
(EXAMPLE,) = re.findall(r"```toml\n# in four.toml\n(.*?)```", PAGE, re.DOTALL)
STATES = """alpha_d = 0.3
[states]
masses = [0.1, 0.25]
couplings = [{ states = [1, 2], vector = 0.9, axial = 0.1 }, { states = [1, 1], axial = 0.2 }]
"""


def table(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module", autouse=True)
def coarse():
    """Few events behind the importance sampling: how well it does is not asked here."""
    with pytest.MonkeyPatch.context() as patch:
        for name, few in (("PER_NODE", 20), ("COPIES", 8), ("CELLS", 6), ("PILOT", 20)):
            patch.setattr(babar, name, few)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    base = tmp_path_factory.mktemp("semivisible")
    text = re.sub(r"n_mass = \d+", "n_mass = 3\nn_epsilon = 31", EXAMPLE)
    (base / "four.toml").write_text(re.sub(r"(?m)^mass = \[0.2, 6.0\]", "mass = [0.5, 3.0]", text))
    lines = recast_file(str(base / "four.toml"), output=base / "out", events=300)
    return base, lines


@pytest.mark.long
def test_the_example_of_the_page(folder):
    base, lines = folder
    names = {path.name for path in (base / "out").iterdir()}
    assert names == {
        *("plane.png", "plane.pdf", "lifetimes.png", "lifetimes.pdf", "recast.json"),
        *("excluded.csv", "allowed.csv", "probabilities.csv", "states.csv"),
    }
    for name in names - {"recast.json"}:
        assert name.rpartition(".")[0] in PAGE
    assert "four states: states of" in lines[0]
    assert any("few shipped points" in text for text in lines)
    about = json.loads((base / "out" / "recast.json").read_text())
    assert about["plane"]["events"] == 300
    assert any("recalled" in text for text in about["unverified inputs"])
    grid = table(base / "out" / "probabilities.csv")
    assert len(grid) == 3 * 31
    assert all(float(row["babar_low"]) <= float(row["babar"]) <= float(row["babar_high"]) for row in grid)


@pytest.mark.long
def test_allowed_and_excluded_fill_the_scan(folder):
    """Above the masses of NA64 BaBar alone decides: what it does not exclude is allowed, edge on edge."""
    out = folder[0] / "out"
    above = [row for row in table(out / "allowed.csv") if float(row["mass_GeV"]) > 1.0]
    barred = [
        row
        for row in table(out / "excluded.csv")
        if row["search"] == "BaBar" and float(row["mass_GeV"]) > 1.0
    ]
    assert {row["mass_GeV"] for row in above} == {"1.22474", "3"}
    for mass in {row["mass_GeV"] for row in above}:
        edges = sorted(
            (float(row["epsilon_low"]), float(row["epsilon_high"]))
            for row in (*above, *barred)
            if row["mass_GeV"] == mass
        )
        assert edges[0][0] == pytest.approx(1e-5)
        assert edges[-1][1] == pytest.approx(0.1)
        for (_, end), (begin, _) in pairwise(edges):
            assert end == pytest.approx(begin, rel=1e-4)


@pytest.mark.long
def test_states_of_the_file_are_those_of_the_matrix(folder):
    """Masses from the matrix by numpy; ψ₁ decays by its mixing alone, ψ₄ in none that is longer."""
    base, _ = folder
    rows = table(base / "out" / "states.csv")
    matrix = np.array(
        [[0.28, 0.08, 0.05, 0.03], [0.08, 0.4, 0.1j, 0.04], [0.05, 0.1j, 0.45, 0.06], [0.03, 0.04, 0.06, 0.6]]
    )
    expected = 0.5 * np.sort(np.linalg.svd(matrix)[1])
    found = [float(row["state_mass_GeV"]) for row in rows[:4]]
    assert found == pytest.approx(expected, rel=1e-5)
    model = semivisible.load_benchmark(base / "four.toml")
    ours, other = (
        mediator_widths(sector)[1]
        for sector in (
            model.sector(2.0),
            from_majorana("x", 2.0 * matrix, [0, 1, -1, 0.5], mediator=2.0, alpha_d=0.2),
        )
    )
    assert ours == pytest.approx(other)
    assert [mixing.state for mixing in model.neutrino] == [0, 1]
    lengths = {(row["mass_GeV"], row["state"]): float(row["ctau_at_epsilon_1_m"]) for row in rows}
    assert 0 < lengths["0.5", "4"] < lengths["0.5", "2"] < lengths["0.5", "1"] < np.inf


def test_states_and_benchmarks_in_files(tmp_path):
    file = tmp_path / "two.toml"
    file.write_text(STATES)
    sector = semivisible.load_benchmark(file).sector(1.0)
    g, d = sector.strengths()
    assert g[0, 1] == pytest.approx(0.9**2 + 0.1**2)
    assert d[0, 1] == pytest.approx(0.9**2 - 0.1**2)
    assert g[0, 0] == pytest.approx(0.04)
    parameters = "{ ratio = 0.3333333333333333, splitting = 0.4 }"
    file.write_text(f'alpha_d = 0.5\n[benchmark]\nkind = "idm"\nparameters = {parameters}\n')
    shipped = semivisible.load_benchmark("iDM-040").sector(2.0)
    assert semivisible.load_benchmark(file).sector(2.0).masses == pytest.approx(shipped.masses)


@pytest.mark.long
def test_what_is_drawn_is_what_is_excluded(tmp_path):
    """Above zero where a search excludes: ε² P > ε_lim²."""
    file = tmp_path / "two.toml"
    file.write_text(STATES + "[plane]\nmass = [0.5, 6.0]\nn_mass = 3\nn_epsilon = 13\nevents = 300\n")
    model = semivisible.load_benchmark(file)
    found = recast(model, wanted(model, file))
    plane = found.plane
    expected = [
        semivisible.excluded_plane(plane.epsilon, p, semivisible.published(name).at(plane.mass))
        for p, name in (
            (plane.babar, "babar"),
            (plane.strict, "na64_2016_18"),
            (plane.inclusive, "na64_2016_18"),
        )
    ]
    drawn = regions(found)
    assert len(drawn) == len(expected)
    for region, excluded in zip(drawn, expected, strict=True):
        assert ((region.excess > 0) == excluded).all()
        assert excluded.any()
    assert not expected[-1].all()


@pytest.mark.parametrize("coupling", ["vector = 0.0", "vector = 1e-9"])
def test_without_mixing_nothing_is_open(tmp_path, coupling):
    """The limit of no coupling: no dark decay, nothing missed, everything allowed, and it says so."""
    file = tmp_path / "none.toml"
    file.write_text(
        f"alpha_d = 0.3\n[states]\nmasses = [0.1, 0.25]\ncouplings = [{{ states = [1, 2], {coupling} }}]\n"
        "[plane]\nmass = [0.5, 2.0]\nn_mass = 2\nn_epsilon = 5\nevents = 200\n"
    )
    model = semivisible.load_benchmark(file)
    found = recast(model, wanted(model, file))
    assert np.nanmax(found.plane.babar[:, 1:]) < 1e-3
    assert found.free.edges.tolist() == [pytest.approx([1e-5, 0.1])] * 2
    assert any("visibly" in text for text in found.warnings)
    assert found.closed.all() == (coupling == "vector = 0.0")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("charges = [0, 1, -1, 0.5]", "charges = [0, 1]"), "2 charges for 4 fields"),
        (('field = "majorana"', 'field = "weyl"'), "'majorana' or 'dirac'"),
        (("[0.03, 0.04, 0.06, 0.60]", "[0.03, 0.04, 0.07, 0.60]"), "must be symmetric"),
        (('"0.1j", 0.45', '"one", 0.45'), "complex"),
        (("alpha_d = 0.2", "alpha_d = -0.2"), "alpha_d"),
        (("alpha_d = 0.2", ""), "alpha_d: Field required"),
        (("alpha_d = 0.2", "alpha_D = 0.2"), "alpha_d: Field required"),
        (('unit = "mediator"', 'unit = "MeV"'), "unit: Input should be 'GeV' or 'mediator'"),
        (("state = 1", "state = 0"), "neutrino.0.state: Input should be greater than or equal to 1"),
        (("state = 2", "state = 5"), "there are 4 states"),
        (("squared = 1e-3", "squared = -1e-3"), "must be >= 0"),
        (("[matrix]", "[states]"), "states.masses: Field required"),
        (("epsilon = [1e-5, 0.1]", "epsilon = [0.1, 1e-5]"), "the smaller one first"),
        (("n_mass = 12", "n_masses = 12"), "n_masses: unknown"),
        (("events = 5_000", "events = 5"), "at least 100"),
    ],
)
def test_what_a_file_cannot_say(tmp_path, change, said):
    assert change[0] in EXAMPLE
    file = tmp_path / "four.toml"
    file.write_text(EXAMPLE.replace(*change))
    with pytest.raises(SteeringError, match=re.escape(said)) as stop:
        recast_file(str(file), output=tmp_path / "out")
    assert str(file) in str(stop.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "couplings",
    [
        "{ states = [1, 3], vector = 1.0 }",
        "{ states = [1, 2], vector = 1.0 }, { states = [2, 1], axial = 1.0 }",
        "{ states = [1, 1], vector = 1.0 }",
        "{ states = [1, 2, 2], vector = 1.0 }",
        "{ pair = [1, 2], vector = 1.0 }",
        "{ states = [1, 2], vector = [1] }",
    ],
)
def test_couplings_that_cannot_be(tmp_path, couplings):
    file = tmp_path / "two.toml"
    file.write_text(f"alpha_d = 0.3\n[states]\nmasses = [0.1, 0.25]\ncouplings = [{couplings}]\n")
    with pytest.raises(SteeringError):
        semivisible.load_benchmark(file)


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(InputFileError):
        semivisible.load_benchmark(tmp_path / "no.toml")
    with pytest.raises(GammastarError, match=r"MODEL\.toml"):
        semivisible.load_benchmark("no-such-point")
