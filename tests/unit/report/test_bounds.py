"""Limits of others: the shipped set, a folder of the user, and what figures and captions make of them."""

import os
import tomllib
from pathlib import Path

import numpy as np
import pytest

from gammastar.core.errors import InputFileError
from gammastar.core.files import data_path, folder_names
from gammastar.report.figures.limits import (
    KINDS,
    PUBLISHED,
    coupling_figure,
    edges_of,
    existing_limits,
    known_limits,
    read_limit,
    told,
)

NAMES = folder_names("bounds")
EVERY = (*KINDS, "projection")
OWN = """name = "Mine"
plane = "dark_photon"
kind = "observed"
citation = "us"
reference = "arXiv:0"
source = "us"
licence = "own"
closed = false
mass = [0.1, 0.2]
coupling = [1e-3, 2e-3]
"""
NA48 = "# mass lower\n0.01 9e-4\n0.05 5e-4\n0.1 1e5\n0.11 2e-3\n"  # MOCK, in Darkcast's layout
E141 = "# MOCK\nmass_GeV,eps_lower,eps_upper\n0.002,2e-5,9e-3\n0.01,5e-5,9e-4\n"


def test_the_set_is_complete():
    assert len(NAMES) >= 25
    assert {read_limit(data_path(f"bounds/{name}.toml")).plane for name in NAMES} == {
        "dark_photon",
        "millicharge",
    }


@pytest.mark.parametrize("name", NAMES)
def test_each_limit_says_where_it_is_from(name):
    text = data_path(f"bounds/{name}.toml").read_text(encoding="utf-8")
    content, limit = tomllib.loads(text), read_limit(data_path(f"bounds/{name}.toml"))
    assert limit.kind in EVERY
    assert limit.licence in {"MIT", "BSD-3-Clause", "CC0-1.0"}
    assert name.startswith(limit.plane)
    assert "darkcast" not in text.lower()
    if limit.kind == "recomputed":
        assert limit.assumption
        return
    assert "recomputed" not in name
    for key in ("bibtex", "attribution", "digitised", "changes"):
        assert content[key], key
    number = limit.reference.removeprefix("arXiv:").partition(",")[0]
    assert f"eprint = {{{number}}}" in limit.bibtex
    assert limit.bibtex.count("{") == limit.bibtex.count("}")
    if limit.reference in ("arXiv:2105.07077", "arXiv:2305.13383"):  # the paper is not known
        assert limit.kind == "projection"
        assert "as distributed by" in limit.citation


@pytest.mark.parametrize(
    ("plane", "name", "mass", "edge"),
    [  # printed in the papers
        ("dark_photon", "NA62", 0.2, 4.6e-7),
        ("millicharge", "LEP", 20.0, 0.24),  # invisible width of the Z
        ("millicharge", "CMS", 100.0, 1 / 3),
        ("millicharge", "milliQan demonstrator", 0.02, 0.006),
        ("millicharge", "SUBMET", 1.4, 1.5e-3),
    ],
)
def test_a_number_of_the_paper(plane, name, mass, edge):
    limit = next(one for one in existing_limits(plane, kinds=EVERY) if one.name == name)
    polygon = limit.polygon if limit.kind != "projection" else np.vstack([limit.polygon, [[mass, 1.0]]])
    assert edges_of(polygon, np.array([mass]))[0, 0] == pytest.approx(edge, rel=0.15)


def test_phenix_is_the_root_of_its_table():
    """ε² of figure 5 at 90 % CL: 2.7611e-6 at 30 MeV; no row lost."""
    limit = next(one for one in existing_limits() if one.name == "PHENIX")
    assert len(limit.polygon) == 61 + 2
    assert limit.polygon[0] == pytest.approx([0.030, np.sqrt(2.7611e-6)], rel=1e-5)


def test_limits_of_a_user(tmp_path):
    (tmp_path / "mine.toml").write_text(OWN)
    assert [limit.name for limit in existing_limits(directory=tmp_path)][-1] == "Mine"
    np.testing.assert_array_equal(read_limit(tmp_path / "mine.toml").polygon[-1], [0.1, 1.0])
    for old, new, match in (
        ("0.1, 0.2", "0.1", "equal lists|two positive"),
        ('source = "us"', 'source = ""', "source"),
        ('"observed"', '"seen"', "'seen' is none of observed"),
        ("closed = false", "closed = false\ncolour = 1", "unknown keys"),
        ("1e-3", "-1e-3", "positive"),
    ):
        (tmp_path / "bad.toml").write_text(OWN.replace(old, new))
        with pytest.raises(InputFileError, match=match):
            read_limit(tmp_path / "bad.toml")
    with pytest.raises(InputFileError, match="no such directory"):
        existing_limits(directory=tmp_path / "nothing")


def test_a_folder_in_the_layout_of_darkcast(tmp_path):
    (tmp_path / "NA48_Batley2015lha.lmt").write_text(NA48)
    (tmp_path / "darkcast_E141_Riordan1987aw.csv").write_text(E141)
    (tmp_path / "Unknown_2020abc.lmt").write_text("0.1 1e-3\n")  # may be of another model: not drawn
    new = {limit.name: limit for limit in existing_limits(directory=tmp_path)}
    assert new.keys() - {limit.name for limit in existing_limits()} == {"NA48/2", "E141"}
    assert (new["NA48/2"].reference, new["E141"].kind) == ("arXiv:1504.00607", "recast")
    edges = edges_of(new["NA48/2"].polygon, np.array([0.0100001, 0.05, 0.1099]))
    np.testing.assert_allclose(edges[:, 0], [9e-4, 5e-4, 2e-3], rtol=0.1)
    np.testing.assert_allclose(edges[:, 1], 1.0)
    assert np.isnan(edges_of(new["NA48/2"].polygon, np.array([0.1]))).all()  # 1e5: no limit
    np.testing.assert_allclose(edges_of(new["E141"].polygon, np.array([0.002]))[0], [2e-5, 9e-3])
    for text in ("0.1 -1e-3\n", "0.1 1e-3 x\n", "0.1 1e-3\n0.2\n", "# nothing\n"):
        (tmp_path / "NA48_Batley2015lha.lmt").write_text(text)
        with pytest.raises(InputFileError, match="NA48_Batley"):
            existing_limits(directory=tmp_path)


@pytest.mark.skipif("GAMMASTAR_DARKCAST" not in os.environ, reason="needs a folder of Darkcast's limits")
def test_the_limits_of_darkcast():
    """Values of the published figures, and the frames of our list."""
    folder = Path(os.environ["GAMMASTAR_DARKCAST"])
    found = {limit.name: limit for limit in existing_limits(directory=folder)}
    assert found["NA48/2"].polygon[:, 1].min() == pytest.approx(4.3e-4, rel=0.05)
    assert found["BaBar"].polygon[:, 1].min() == pytest.approx(5.4e-4, rel=0.5)
    named = {known.name: known.polygon for known in known_limits().values()}
    read = [limit for limit in found.values() if str(folder) in limit.source]
    assert len(read) > 15
    for limit in read:
        real = limit.polygon[limit.polygon[:, 1] < 1.0]
        frame = named[limit.name]
        assert frame[:, 0].min() <= 1.02 * real[:, 0].min(), limit.name
        assert frame[:, 0].max() >= 0.98 * real[:, 0].max(), limit.name
        assert frame[:, 1].min() <= 1.02 * real[:, 1].min(), limit.name
        assert frame[:, 1].max() >= 0.98 * real[:, 1].max(), limit.name
        if frame[:, 1].max() < 1.0:  # upper edges of dumps fall as 1/mass at least
            inside = real[:, 1] <= 1.02 * frame[0, 0] * frame[:, 1].max() / real[:, 0]
            assert (inside | (real[:, 1] < 1.5 * frame[0, 1])).all(), limit.name


def _figure(mass, expected, kinds=KINDS, directory=None):
    limits = existing_limits(kinds=kinds, directory=directory)
    bands = np.outer(np.full(len(mass), expected), [0.5, 0.7, 1.0, 1.4, 2.0])
    figure = coupling_figure(mass, bands, mock=False, limits=[limit.curve for limit in limits])
    return figure, told(figure, limits, "dark_photon")


def test_a_caption_names_what_is_in_the_frame(tmp_path):
    """In situ at ε ≈ 5e-3: no dump is there; BaBar, LHCb and KLOE are known and not at hand."""
    mass = np.geomspace(0.25, 1.0, 20)
    _, text = _figure(mass, 5e-3)
    assert text.startswith("Known here and not drawn: ")
    for name in ("BaBar [arXiv:1406.2980]", "LHCb prompt [arXiv:1910.06926]", "KLOE [", "A1 ["):
        assert name in text
    assert not any(name in text for name in ("FASER", "NA62", "PHENIX", "E137", "NuCal", "NA48"))
    (tmp_path / "BaBar_Lees2014xha.lmt").write_text("0.02 1e-3\n10 1e-3\n")
    _, text = _figure(mass, 5e-3, directory=tmp_path)
    assert text.startswith("Grey: BaBar [arXiv:1406.2980]. Known here")
    assert text.count("BaBar") == 1
    (tmp_path / "BaBar_Lees2014xha.lmt").write_text("0.02 0.9\n10 0.9\n")  # MOCK, above the frame
    _, text = _figure(mass, 5e-3, directory=tmp_path)
    assert "Grey" not in text


def test_grey_is_what_was_published():
    figure, text = _figure(np.geomspace(0.02, 0.4, 20), 3e-6, EVERY)
    ax = figure.axes[0]
    grey = {patch.get_gid().partition(": ")[2] for patch in ax.patches if patch.get_gid()}
    lines = {line.get_gid().partition(": ")[2]: line for line in ax.lines if line.get_gid()}
    limits = {limit.name: limit for limit in existing_limits(kinds=EVERY)}
    assert {"FASER", "NA62"} <= grey
    assert {"CHARM (recomputed)", "NuCal (recomputed)", "SeaQuest"} <= lines.keys()
    assert {limits[name].kind for name in grey} <= set(PUBLISHED)
    assert {limits[name].kind for name in lines} == {"recomputed", "projection"}
    dashed = [line for name, line in lines.items() if limits[name].kind == "recomputed"]
    assert {line.get_linestyle() for line in dashed} == {"--"}
    ours = next(line for line in ax.lines if str(line.get_label()).startswith("expected median"))
    assert ours.get_color() not in {line.get_color() for line in dashed}
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert texts.count(limits["CHARM (recomputed)"].assumption) == 1
    assert texts.count("projections of others") == 1
    assert "Grey: FASER [arXiv:2308.05587]; NA62 [arXiv:2312.12055]" in text
    assert "Dashed, recomputed here: CHARM (recomputed) [" in text
    assert "SN1987A" not in text  # below the frame
