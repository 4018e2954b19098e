"""Commands of the pages on mock data, the flow and semi-visible dark photons; only with less statistics."""

from __future__ import annotations

import importlib.util
import re
import runpy
import shlex
import shutil
import sys

import forks
import numpy as np
import pytest
import uproot
from builders import ROOT
from pages import HOWTO, blocks, call, commands, fill, shrink

from gammastar.core.files import data_path

NA60 = ROOT / "analysis" / "na60_dimuon"

pytestmark = pytest.mark.slow


def smaller(words, **values):
    """Return a command with other values of its options; options that it lacks are added."""
    words = list(words)
    for name, value in values.items():
        option = f"-{name}" if len(name) == 1 else f"--{name.replace('_', '-')}"
        if option in words:
            words[words.index(option) + 1] = str(value)
        else:
            words += [option, str(value)]
    return words


def test_mock_data_as_written(tmp_path):
    (command,) = commands("mock")
    call(smaller(command, n=20_000), tmp_path)
    with uproot.open(tmp_path / "mock.root") as file:
        names, pot = set(file["events"].keys()), float(file["meta"]["N_POT"].array()[0])
        muon = {key: file["events"][key].array() for key in ("Muon_px", "Muon_py", "Muon_pz", "Muon_charge")}
    text = (HOWTO / "mock.md").read_text()
    promised = re.search(r"(\| tree `events`.*?)\n\n", text, re.DOTALL)[1]
    sure = re.sub(r"\([^)]*\)", "", promised)  # in brackets: with a section of the card
    listed = {n for n in re.findall(r"`(\w+)`", sure) if n not in {"events", "fsr"} and "gen" not in n}
    listed -= {"Muon_motherPdg", "Muon_motherIdx", "Muon_decayZ", "Muon_fsr"}  # truth: not in data
    assert len(listed) > 12
    assert listed <= names
    assert not {n for n in names if "gen_" in n or "mother" in n}
    # the yields of a card, fitted to the spectrum of the file just made
    p = np.stack([np.asarray(muon[f"Muon_p{k}"][:, :2], dtype=float) for k in "xyz"])
    opposite = np.asarray(muon["Muon_charge"][:, 0] * muon["Muon_charge"][:, 1]) < 0
    energy = np.sqrt((p**2).sum(axis=0) + 0.1056584**2).sum(axis=1)
    mass = np.sqrt(energy**2 - (p.sum(axis=2) ** 2).sum(axis=0))[opposite]
    counts, edges = np.histogram(mass, np.linspace(0.2, 1.2, 26))
    rows = [f"{a:.4f},{b:.4f},{n}" for a, b, n in zip(edges[:-1], edges[1:], counts, strict=True)]
    (tmp_path / "mass.csv").write_text("\n".join(["low,high,entries", *rows]) + "\n")
    factors = (
        "python3 analysis/na60_dimuon/card_yields.py CARD mass.csv --pot 1e13 --known combinatorial 1.0 0.05"
    )
    assert factors in text
    script, *told = factors.replace("CARD", "na60_full").replace("1e13", f"{pot:.6g}").split()[1:]
    said = forks.server.run(str(ROOT / script), *told, "-n", "20000", cwd=tmp_path)
    assert "phi_2body" in said.stdout


@pytest.mark.flow
def test_flow_as_written(tmp_path):
    text = (NA60 / "small.toml").read_text().replace("epochs = 4", "epochs = 1\nmembers = 2")
    (tmp_path / "steering.toml").write_text(text)
    shutil.copy(NA60 / "schema.toml", tmp_path)
    shutil.copytree(data_path("mock/na60_data.root").parent, tmp_path / "mock")
    call(["gammastar", "run", "steering.toml", "--output", "results/na60"], tmp_path)
    page = (tmp_path / "results/na60/report.html").read_text()
    for words in (
        "spread of 2 bootstrap replicas",
        "the spread of the replicas",
        "draws of the flow and of replicas",
    ):
        assert words in page  # every figure of the flow says what its band is
    caption = "error of the finite sample and spread of the bootstrap replicas"
    assert page.count(f"{caption}.</figcaption>") == 2  # two detectors
    for command in commands("flow"):
        call(smaller(command, n=2000), tmp_path)
    for name in ("photons.parquet", "dark.hepmc", "mcp.lhe.gz"):
        assert (tmp_path / name).stat().st_size > 500, name
    block, decays = blocks("flow", "python")
    script = f"""
from pathlib import Path
import numpy as np

folder, rng = Path("results/na60"), np.random.default_rng(1)
mass = np.full(2000, 0.6)
edges = np.linspace(0.0, 400.0, 6)
yields = lambda pt, energy, weight: np.histogram(energy, edges, weights=weight)[0]


class Given:
    def sample(self, mass, rng):
        return found.nominal.sample(mass, rng)


{block.split("found = ")[0]}
found = {block.split("found = ")[1].split("pt, energy")[0]}
nominal = yields(*found.nominal.sample(mass, np.random.default_rng(1)), np.ones(2000))
{block}
assert weight.shape == (2, 2000)
assert shifts.shape[1] == len(nominal)
assert np.isfinite(shifts).all()
{decays}
assert spin.moments[0, 0] > 0.5  # massless fermions show more than muons
"""
    forks.server.run("-c", script, cwd=tmp_path, check=True)


def test_semivisible_as_written(tmp_path, monkeypatch, capsys):
    text = "\n".join(blocks("semivisible", "python"))
    for many, few in (("50_000", "5_000"), ("20_000", "1_000"), ("n=5_000", "n=500")):
        assert many in text
        text = text.replace(many, few)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "page.py").write_text(text)
    monkeypatch.syspath_prepend(str(ROOT / "analysis" / "semivisible"))
    names = runpy.run_path("page.py")
    p = names["p"]
    assert ((p.low <= p.value) & (p.value <= p.high)).all()
    assert p.value[0] > 0.5 > p.value[-1]  # long-lived at small couplings, seen at large ones
    shape = names["plane"].babar.shape
    assert np.asarray(names["excluded"]).shape[:2] == shape[:2]
    momentum = names["pairs"][0] if isinstance(names["pairs"], tuple) else names["pairs"]
    assert len(getattr(momentum, "parent", momentum)) == 1000
    assert "inf" in capsys.readouterr().out  # no s-wave annihilation


def test_own_dark_sector_as_written(tmp_path):
    """The file and the command of the page, with fewer masses and events."""
    page = (HOWTO / "semivisible.md").read_text()
    (line,) = re.findall(r"^    (gammastar semivisible .*)$", page, re.MULTILINE)
    (text,) = (block for block in blocks("semivisible", "toml") if block.startswith("# in four.toml"))
    (tmp_path / "four.toml").write_text(text.replace("n_mass = 12", "n_mass = 3\nn_epsilon = 15"))
    (tmp_path / "FOLDER").mkdir()
    said = call(smaller(shlex.split(line), events=300), tmp_path)
    assert "results in semivisible_four" in said
    assert (tmp_path / "semivisible_four" / "plane.png").is_file()
    bad = forks.gammastar("semivisible", "i2DM-tolk", cwd=tmp_path, check=False)
    assert bad.returncode == 2
    assert "choose one of iDM-040" in bad.stderr


def test_darknews_as_written(tmp_path, monkeypatch):
    pytest.importorskip("pyarrow")
    page = (HOWTO / "semivisible.md").read_text()
    (line,) = re.findall(r"^    (python3 analysis/semivisible/darknews\.py .*)$", page, re.MULTILINE)
    path = ROOT / "tests" / "unit" / "semivisible" / "test_darknews.py"
    spec = importlib.util.spec_from_file_location("mock_of_darknews", path)
    helper = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(helper)
    helper.write_parquet(tmp_path / "FILE.parquet", helper.mock())
    words = shlex.split(line)[1:]
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT / "analysis"))
    import _venv

    monkeypatch.setattr(_venv, "reenter", lambda *_: None)
    monkeypatch.setattr(sys, "argv", [*words, "--output", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(ROOT / words[0]), run_name="__main__")
    assert stop.value.code == 0
    assert list((tmp_path / "out").glob("*workspace*.json"))


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory):
    """Return the folder in which the tutorial was followed up to its run, with a smaller training."""
    folder = tmp_path_factory.mktemp("newcomer")
    for name in ("na60_data.root", "na60_mc.root"):
        shutil.copy(data_path(f"mock/{name}"), folder)
    done = commands("../tutorial")
    done = done[: [words[1] for words in done].index("run") + 1]
    (schema,) = blocks("../tutorial", "text")
    for words in done:
        said = call(words, folder)
        assert words[1] != "inspect" or schema in said
        assert words[1] != "keys" or "protons on target" in said.lower()
        if words[1] == "init":
            assert fill("../tutorial", folder) <= 12  # lines of TOML beyond what it writes
            shrink(folder / "mine" / "steering.toml")
    return folder


@pytest.mark.flow
def test_tutorial_as_written(newcomer, monkeypatch):
    monkeypatch.chdir(newcomer)
    (code,) = blocks("../tutorial", "python")
    exec(compile(code, "tutorial.md", "exec"), {})  # noqa: S102
    assert (newcomer / "reach.png").stat().st_size > 10_000
    rest = commands("../tutorial")
    rest = rest[[words[1] for words in rest].index("run") + 1 :]
    assert [words[1] for words in rest] == ["show", "reinterpret", "show", "overlay"]
    said = [call(words, newcomer) for words in rest]
    assert "Example dump detector" in said[0]
    assert said[-1].splitlines()[:2] == ["Example dump detector", "Off-axis dump detector (SHADOWS-like)"]


@pytest.mark.flow
def test_gallery_as_written(newcomer, monkeypatch):
    """Every picture is there, and every line draws one; that of a search in situ needs another run."""
    monkeypatch.chdir(newcomer)
    page = (HOWTO / ".." / "gallery.md").read_text()
    assert all((HOWTO / ".." / name).is_file() for name in re.findall(r"\]\((figures/\S+)\)", page))
    names = {}
    for code in blocks("../gallery", "python"):
        if '"in_situ"' not in code:
            mine = code.replace("results/na60_dimuon", "results/mine").replace("shadows_like", "detector")
            exec(compile(mine, "gallery.md", "exec"), names)  # noqa: S102
    assert names["found"].mock


@pytest.mark.flow
def test_readme_as_written(newcomer, monkeypatch):
    monkeypatch.chdir(newcomer)
    names = {}
    for code in blocks("../../README", "python"):
        mine = code.replace("results/na60_dimuon", "results/mine").replace("shadows_like", "detector")
        exec(compile(mine, "README.md", "exec"), names)  # noqa: S102
    assert names["state"].ctau > 0
    assert len(names["energy"]) == 100_000
    assert names["energy"].min() > 0.3
