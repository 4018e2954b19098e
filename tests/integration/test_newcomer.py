"""A newcomer with ntuples, a detector and a vector of his own, by what the docs show and nothing else.

Only the training and the grids are smaller. The ntuples are MOCK: rows of pairs in MeV, which no other test
takes through a whole run.
"""

import json
import shlex
import shutil

import jsonpatch
import numpy as np
import pytest
from builders import ntuple
from matplotlib.figure import Figure
from pages import blocks, call, commands, files_of, fill, shrink
from PIL import Image

import gammastar as gs
from gammastar.core.errors import UserError
from gammastar.core.records import Reach

pytestmark = pytest.mark.flow

ROWS = 3_000
UNLIKE = 2_500  # of them; the others are like-sign


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory):
    """Return the folder in which the page was followed to its end, and what each command said."""
    folder = tmp_path_factory.mktemp("newcomer")
    ntuple(folder / "run1.root", ROWS, 1)
    ntuple(folder / "sim.root", ROWS, 2, truth=True)
    for name, text in files_of("detector", "model").items():
        (folder / name).write_text(text)
    said = {}
    for words in commands("start"):
        said.setdefault(words[1], []).append(call(words, folder))
        if words[1] == "init":
            assert fill("start", folder) <= 12  # lines of TOML beyond what it writes
            steering = folder / "mine" / "steering.toml"
            shrink(steering)
            steering.write_text(steering.read_text().replace("mock = false", "mock = true"))
    return folder, said


def test_every_step_of_the_page_says_what_it_promises(newcomer):
    folder, said = newcomer
    assert list(said) == ["init", "check", "keys", "run", "reinterpret", "overlay", "show", "scan"]
    assert said["init"][0].splitlines()[0] == "wrote mine/steering.toml; 5 values to fill in, marked with ?"
    assert said["check"][0].startswith("mine/steering.toml: ok")
    assert "interaction lengths" in said["keys"][1]
    assert said["overlay"][0].splitlines()[:2] == ["Example dump detector", "My dump"]
    assert "Example dump detector" in said["show"][0]
    tested = json.loads(said["scan"][0])
    assert (tested["strength"], tested["cl"]) == (0.5, 0.95)
    assert len(tested["signals"]) > 0
    with Image.open(folder / "overlay" / "overlay.png") as image:
        assert min(image.size) > 500


def test_the_spectrum_counts_what_is_in_the_file(newcomer):
    """Every simulated pair was seen, so that unfolding keeps the number of pairs: unlike less like signs."""
    found = gs.load(newcomer[0] / "results" / "mine")
    like_sign = ROWS - UNLIKE
    pairs = float(found.spectrum.values.sum()) * 1e12  # the protons on target that the page fills in
    assert pairs == pytest.approx(UNLIKE - like_sign, abs=4 * np.sqrt(ROWS))


def test_too_few_pairs_for_a_check_in_windows_are_said_and_stop_nothing(newcomer):
    notes = gs.load(newcomer[0] / "results" / "mine").manifest["notes"]
    assert any("not checked in windows of mass: kl_scan: no window of ±0.015 GeV" in note for note in notes)


def test_own_detector_and_own_vector(newcomer):
    mine, mydump, myvector = (gs.load(newcomer[0] / "results" / n) for n in ("mine", "mydump", "myvector"))
    assert list(mydump.reach) == ["mydump"]
    for found in (mine.reach["detector"], mydump.reach["mydump"]):
        assert isinstance(found, Reach)
        assert np.isfinite(found.edges).any()
    np.testing.assert_array_equal(mydump.rate.value, mine.rate.value)  # the measured half stays
    vector = myvector.reach["detector"]
    assert vector.about["model"]["coupling"] == "g"
    assert vector.mass[-1] <= 1.03  # where its hadronic width ends, as the page says


def test_a_reach_draws_where_its_signal_was_measured_as_the_report_does(newcomer):
    """The hatching follows the measured part over the plane, not the contour."""
    found = gs.load(newcomer[0] / "results" / "mine")
    signal, reach = found.signal["detector"], found.reach["detector"]
    ax = reach.plot()
    hatched = [one for one in ax.collections if getattr(one, "hatches", None)]
    inside = (signal.coupling > np.nanmin(reach.edges)) & (signal.coupling < np.nanmax(reach.edges))
    least = np.nanmin(signal.in_domain_fraction[:, inside])
    assert bool(hatched) == bool(least < 0.5)
    assert hatched


def test_the_flow_draws_one_quantity_into_given_axes(newcomer):
    found = gs.load(newcomer[0] / "results" / "mine")
    left, right = Figure().subplots(1, 2)
    assert found.flow.plot(n=500, quantity="pt", ax=left) is left
    assert found.flow.plot([0.4], n=500, quantity="energy", ax=right) is right
    assert "[GeV]" in left.get_xlabel()
    assert left.get_xlim()[1] < right.get_xlim()[1]  # transverse momenta and energies
    for wrong in ({"ax": left}, {"quantity": "mass"}):
        with pytest.raises(UserError, match="give 'pt' or 'energy', one panel"):
            found.flow.plot(n=500, **wrong)


def test_scans_of_the_page_on_limits(newcomer, tmp_path):
    """Every line of the block on the newcomer's likelihood, with one of its signals."""
    mine = newcomer[0] / "results" / "mine"
    for name in ("workspace.json", "patchset.json"):
        shutil.copy(mine / name, tmp_path)
    shutil.copytree(newcomer[0] / "mine", tmp_path, dirs_exist_ok=True)
    found = gs.load(mine)
    patch = next(iter(found.patches))
    patched = jsonpatch.apply_patch(dict(found.workspace), found.patches[patch])
    (tmp_path / "model.json").write_text(json.dumps(patched))
    *_, block = blocks("limits", "bash")  # those before are of a joint likelihood
    lines = [shlex.split(line, comments=True) for line in block.splitlines()]
    assert lines[0][2] == "likelihood.tar.gz"  # that of another experiment: tests/unit/infer reads such ones
    for words in lines[1:]:
        one = ["--patch", patch] if "--patches" in words else []
        said = call([*words, *one], tmp_path)
        assert "CLs" in said or '"cls"' in said
    assert list((tmp_path / "out").glob("*.json"))


def test_design_as_written(newcomer, tmp_path):
    (line,) = blocks("design", "console")
    words = shlex.split(line)
    words[2], words[words.index("-n") + 1] = str(newcomer[0] / "results" / "mine"), "1000"
    said = call(words, tmp_path)
    assert "0.3" in said
    assert (tmp_path / "design" / "design_shadows_like.json").is_file()
    assert (tmp_path / "design" / "design_shadows_like.png").is_file()


def test_notebook_use_as_written(newcomer, monkeypatch):
    folder, _ = newcomer
    monkeypatch.chdir(folder)
    names = {}
    for code in blocks("start", "python"):
        exec(compile(code, "start.md", "exec"), names)  # noqa: S102
    assert (folder / "reach.png").stat().st_size > 10_000
    assert set(names["table"].columns) >= {"part", "mass", "coupling_low", "coupling_high"}
    np.testing.assert_allclose(names["mass"].values().sum(), names["found"].spectrum.values.sum())
