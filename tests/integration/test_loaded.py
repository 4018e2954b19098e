"""``gs.load``: a finished run as an object. What it gives is what the files of the run hold."""

import json
import re
import shutil

import jsonpatch
import numpy as np
import pyhf
import pytest
from click.testing import CliRunner
from hist import Hist
from injection import shared
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import gammastar as gs
from gammastar import cli
from gammastar.core.errors import GammastarError, PhysicsError, StoreError, UserError
from gammastar.core.records import Reach, Spectrum, filled, regular
from gammastar.results.show import overlay_files
from gammastar.results.views import LoadedSpectrum
from gammastar.store.manifest import file_sha256, read_manifest, write_manifest

STEERING = """
[analysis]
name = "loaded"
mock = true

[spectrum]
beam_energy = 400.0
target_a = 207.2
target_z = 82
thickness = 0.01
pot = 1e12

[spectrum.table]
file = "mass.csv"
quantity = "counts"
content = "counts"
kinematics = "na60_mock"

[predict]
mass_dependence = "bins"
n_masses = 5
n_sample = 1500

[accept]
detectors = ["na62_dump", "shadows_like"]
target_scaling = "per_interaction"
acceptance_masses = [0.3]

[infer]
coupling = [1e-9, 1e-3]
n_couplings = 31
min_effective = 1.0
discovery = []
max_patches = 20
submission = false
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Run on a MOCK table of masses; return the results."""
    folder = tmp_path_factory.mktemp("loaded")
    edges = np.linspace(0.25, 0.55, 13)
    counts = 1e7 * np.exp(-5 * edges[:-1])
    rows = [
        f"{a:.4f},{b:.4f},{n:.1f},{n**0.5:.2f}" for a, b, n in zip(edges, edges[1:], counts, strict=False)
    ]
    (folder / "mass.csv").write_text(
        "mass_GeV_low,mass_GeV_high,counts,counts stat\n" + "\n".join(rows) + "\n"
    )
    (folder / "steering.toml").write_text(STEERING)
    return gs.run(str(folder / "steering.toml"), output=str(folder / "out"))


def test_spectrum_and_rate(found):
    content = json.loads((found.folder / "spectrum.json").read_text())
    spectrum = found.spectrum
    assert isinstance(spectrum, Spectrum)  # any room takes it
    np.testing.assert_array_equal(spectrum.to_hist().values(), Hist(content).values())
    table = spectrum.to_pandas()
    assert table["value"].sum() == pytest.approx(np.sum(content["storage"]["values"]))
    assert (table["mass_high"] > table["mass_low"]).all()
    rate = found.rate
    one = rate.to_pandas().iloc[0]
    # N/POT over ε² = dN/dm m/(2κ): the smallest mass lies in the first bin
    x = (0.1056583755 / one["mass"]) ** 2
    kappa = 1 / 137.035999 / (3 * np.pi) * np.sqrt(1 - 4 * x) * (1 + 2 * x)
    density = spectrum.values.reshape(12, -1).sum(axis=1)[0] / 0.025
    assert one["rate"] == pytest.approx(density * one["mass"] / (2 * kappa), rel=0.1)


def test_sums_of_cells_have_the_full_covariance():
    axes = (regular("mass", 3, 0.2, 0.5), regular("pt", 2, 0, 2), regular("energy", 4, 0, 80))
    values = np.arange(1.0, 25.0)
    pot = 0.1 * values
    cov = np.diag(values) + np.outer(pot, pot)
    inside = np.arange(24).reshape(3, 2, 4) < 12
    hist = filled(axes, values, np.diag(cov))
    spectrum = LoadedSpectrum(hist, cov, "per_pot", None, inside, shifts={"pot": pot}, mock=True)
    mass, rows = spectrum.project("mass"), np.repeat(np.eye(3), 8, axis=1)
    assert isinstance(mass, LoadedSpectrum)
    np.testing.assert_allclose(mass.cov, rows @ cov @ rows.T)
    np.testing.assert_allclose(mass.values, rows @ values)
    np.testing.assert_allclose(mass.hist.variances(), np.diag(mass.cov))
    np.testing.assert_allclose(mass.shifts["pot"], 0.1 * mass.values)
    np.testing.assert_array_equal(mass.domain, [True, True, False])
    np.testing.assert_array_equal(spectrum.project("energy", "pt", "mass").cov, cov)
    with pytest.warns(UserWarning, match=r"1.5 times too small.*project\('mass'\)"):
        spectrum.to_hist()
    with pytest.raises(PhysicsError, match="no axes"):
        spectrum.project("theta")


def test_reaches_are_those_of_the_files(found):
    assert list(found.reach) == ["na62_dump", "shadows_like"]
    reach = found.reach["na62_dump"]
    assert isinstance(reach, Reach)
    rows = json.loads((found.folder / "reach.json").read_text())["rows"]
    all_signal = [row for row in rows if row["part"] == "all"]
    np.testing.assert_array_equal(reach.mass, [row["mass"] for row in all_signal])
    expected = np.array([row["coupling_low"] or np.nan for row in all_signal], dtype=float)
    np.testing.assert_array_equal(reach.edges[:, 0], expected)
    assert np.isfinite(expected).any()
    assert len(reach.to_pandas()) == len(rows)
    signal = found.signal["na62_dump"]
    at = int(np.argmax(signal.signal.max(axis=1)))
    assert signal.signal[at].max() <= reach.signal.max() * 1.2  # the largest along a finer coupling
    with pytest.raises(KeyError, match="there are na62_dump, shadows_like"):
        found.reach["ship"]


def test_the_likelihood_is_that_of_pyhf(found):
    workspace, patches = found.workspace, found.patches
    (channel,) = workspace.pyhf().channels  # the detector's name
    assert channel.replace("_", "").isalnum()
    assert channel != "counting"
    table = patches.to_pandas()
    assert len(table) == len(patches) <= 20
    name = table.index[0]
    files = [str(found.folder / "workspace.json"), "--patches", str(found.folder / "patchset.json")]
    words = ["scan", *files, "--patch", name, "--strength", "0.5", "--json", "--method", "asymptotic"]
    out = CliRunner().invoke(cli.app, words, catch_exceptions=False)
    document = json.loads(out.stdout)
    (tested,) = document["signals"]
    assert (document["strength"], document["cl"]) == (0.5, 0.9)
    assert tested["cls"] is None  # masked
    assert tested["excluded"] is None
    patched = jsonpatch.apply_patch(dict(workspace), patches[name])
    model = pyhf.Workspace(patched).model(measurement_name=None)
    data = pyhf.Workspace(patched).data(model)
    expected = pyhf.infer.hypotest(0.5, data, model, test_stat="qtilde", return_expected=True)[1]
    assert tested["cls_expected"][2] == pytest.approx(float(expected), rel=1e-6)


def test_every_part_draws_itself_and_fits_on_a_screen(found):
    parts = (found.spectrum, found.rate, found.reach["na62_dump"])
    for part in parts:
        axes = part.plot()
        assert isinstance(axes, Axes)
        assert any(text.get_text() == "MOCK" for ax in axes.figure.axes for text in ax.texts)
        assert len(repr(part).splitlines()) <= 24
        assert max(map(len, repr(part).splitlines())) <= 130
    assert "<table>" in found.spectrum._repr_html_()
    assert ".reach of na62_dump, shadows_like" in repr(found)
    assert "no flow" in repr(found)
    assert "virtual photons per POT" not in repr(found)
    assert "modelled by the MOCK card" in found.summary()
    assert "report.html" in found._repr_html_()


def test_summary_says_the_essentials_without_a_page(found):
    """The steering has no [report], which puts numbers into the manifest."""
    text = str(found.summary())
    reach = found.reach["na62_dump"]
    content = json.loads((found.folder / "reach.json").read_text())
    ends = content["mass_intervals"]["all"]
    low, high = min(end["low"] for end in ends), max(end["high"] for end in ends)
    (line,) = [line for line in text.splitlines() if line.startswith("  NA62 dump, ")]
    assert "protons on target, 90 % CL" in line
    assert f"masses from {low:.3g} to {high:.3g} GeV" in line
    assert line.endswith(f"expected limit {reach.expected_limit[2]:.3g} events")
    assert f"{found.spectrum.values.sum():.4g}" in text


def test_every_part_draws_itself_into_given_axes(found):
    figure = Figure()
    parts = (found.spectrum, found.rate, found.reach["na62_dump"])
    for part, ax in zip(parts, figure.subplots(len(parts)), strict=True):
        assert part.plot(ax=ax) is ax
        assert ax.has_data()
        assert "MOCK" in [text.get_text() for text in ax.texts]
    assert len(figure.axes) == len(parts)  # and nothing beside them
    assert found.reach["na62_dump"].plot().figure is not figure


def test_overlay_of_several_reaches(found, tmp_path):
    words = ["overlay", str(found.folder), "--output", str(tmp_path / "o")]
    out = CliRunner().invoke(cli.app, words)
    assert out.exit_code == 0, out.output
    assert out.stdout.splitlines()[:2] == ["NA62 dump", "Off-axis dump detector (SHADOWS-like)"]
    rows = (tmp_path / "o" / "overlay.csv").read_text().splitlines()
    assert len(rows) == 1 + sum(len(found.reach[name].mass) for name in found.reach)
    assert (tmp_path / "o" / "overlay.png").stat().st_size > 10_000
    assert (tmp_path / "o" / "explorer.html").is_file()
    for more, message in (
        (["--detector", "x"], "no reach of x; there are"),
        (["--part", "y"], "has no contour 'y', only all, measured domain"),
    ):
        with pytest.raises(UserError, match=message):
            CliRunner().invoke(cli.app, [*words, *more], catch_exceptions=False)


def explored(page):
    return json.loads(re.search(r'id="data">(.*?)</script>', page.read_text()).group(1))


@pytest.mark.usefixtures("undrawn")
def test_explorer_of_several_runs_shows_the_reaches_of_the_files(found, tmp_path):
    """Where events cross the limit in the page there is the edge of the contour, at 90 % CL."""
    copy = tmp_path / "copy"
    shutil.copytree(found.folder, copy)
    overlay_files([found, copy], output=tmp_path / "o")
    data = explored(tmp_path / "o" / "explorer.html")
    assert data["mock"]
    assert data["cl"] == [0.9, 0.95]
    assert data["coupling_label"] == "ε"
    assert [name.partition(": ")[0] for name in data["detectors"]] == ["out", "out", "copy", "copy"]
    content = data["detectors"]["copy: NA62 dump"]
    reach, coupling = found.reach["na62_dump"], np.log(content["coupling"])
    compared = 0
    for mass, (low, high), logs in zip(reach.mass, reach.edges, content["log_signal"], strict=True):
        assert min(abs(np.array(content["mass"]) - mass)) < 1e-6
        over = np.array([-30.0 if x is None else x for x in logs]) - np.log10(content["limit"][0])
        inside = np.flatnonzero(over > 0)
        for edge, i, k in ((low, inside[:1] - 1, inside[:1]), (high, inside[-1:], inside[-1:] + 1)):
            if len(i) and np.isfinite(edge):
                t = over[i] / (over[i] - over[k])
                crossing = np.exp(coupling[i] + t * (coupling[k] - coupling[i]))
                assert crossing == pytest.approx(edge, rel=0.2)  # a fifth of a step of the grid of 31
                compared += 1
    assert compared >= 4


@pytest.mark.usefixtures("undrawn")
def test_a_run_without_its_planes_is_left_out_of_the_explorer_and_named(found, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(found.folder, copy)
    (copy / "stages" / "accept.npz").unlink()
    said = overlay_files([found, copy], output=tmp_path / "o")
    lines = [line for line in said if line.startswith("not in the explorer: copy: ")]
    assert len(lines) == 2
    assert "accept.npz: is not here" in lines[0]
    assert len(explored(tmp_path / "o" / "explorer.html")["detectors"]) == 2
    said = overlay_files([copy], output=tmp_path / "none")
    assert not (tmp_path / "none" / "explorer.html").exists()
    assert len(said) == 4


def test_what_is_not_there_is_named(found, tmp_path):
    with pytest.raises(UserError, match=r"wrote no flow\.json"):
        found.flow  # noqa: B018
    with pytest.raises(UserError, match="it holds the results out"):
        gs.load(found.folder.parent)
    with pytest.raises(UserError, match=r"wrote no workspace_x\.json"):
        found.likelihood("x")
    with pytest.raises(GammastarError, match="neither a steering file"):
        gs.run("nothing/here", output=tmp_path)


def test_a_changed_file_is_refused(found, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in found.folder.glob("*.json"):
        (copy / path.name).write_text(path.read_text())
    text = (copy / "reach_shadows_like.json").read_text()
    (copy / "reach_shadows_like.json").write_text(re.sub(r'"signal": \d', '"signal": 9', text))
    again = gs.load(copy)
    assert again.reach["na62_dump"].mock
    with pytest.raises(StoreError, match="was changed or damaged"):
        again.reach["shadows_like"]


def test_every_part_is_compared_with_the_manifest_and_odd_ones_are_named(found, tmp_path):
    """Other numbers, pipes and devices in the place of files, and documents that say nothing."""
    changed, odd = shared.campaign(found.folder, tmp_path)
    assert (changed.wrong, odd.wrong) == ([], [])
    assert changed.n > 50
    assert odd.n > 20


def test_an_odd_plane_of_a_record_is_named_by_the_overlay(found, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(found.folder, copy)
    content = json.loads((copy / "reach.json").read_text())
    content["explored"]["limit"] = None
    (copy / "reach.json").write_text(json.dumps(content))
    known = read_manifest(found.folder)
    known["files"]["reach.json"] = file_sha256(copy / "reach.json")
    write_manifest(copy, {key: value for key, value in known.items() if key != "digest"})
    try:
        said = overlay_files([copy], output=tmp_path / "o")
    except StoreError as error:
        said = [str(error)]
    assert any("is not what a run of this version writes" in line for line in said)


def test_names_of_the_package():
    assert {"load", "run", "reinterpret", "read", "infer", "report"} <= set(dir(gs))
    assert gs.read.load_schema is not None
    with pytest.raises(AttributeError, match="no attribute 'laod'"):
        gs.laod  # noqa: B018
