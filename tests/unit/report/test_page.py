"""The page, the tables, the files, and the outlines of contours."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.figure import Figure

from gammastar.core.errors import PhysicsError, StoreError
from gammastar.core.files import write_whole
from gammastar.core.records import Reach
from gammastar.report import (
    Contour,
    Provenance,
    Section,
    Table,
    page,
    png_bytes,
    save_figure,
    style,
)
from gammastar.report.figures.measured import correlation_matrix
from gammastar.report.figures.reach import islands, outline, region
from gammastar.report.pages import Lead, typeset
from gammastar.report.style import header


@pytest.fixture(scope="module")
def figure():
    return correlation_matrix(np.eye(3), np.array([0.2, 0.4, 0.6, 0.8]), mock=True)


@pytest.fixture(scope="module")
def text(figure):
    sections = [
        Section("Mass & <spectra>", ["m < 1 GeV"], [("A & B", figure), ("second", figure)]),
        Section("Numbers", tables=[Table({"a<b": [1, 2]}, 'c "d"')]),
    ]
    provenance = Provenance(
        versions={"gammastar": "0.1"},
        digests={"spectrum": "ab" * 32},
        methods={"limit": "exact <Poisson>"},
        placeholders=["flat efficiency"],
        seeds={"unfold": 7},
    )
    return page("A <run>", sections, mock=True, provenance=provenance, dpi=40)


class _Checker(HTMLParser):
    """Collects tags and reports those that are not closed."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self):
        super().__init__()
        self.open, self.attributes, self.ids = [], [], []

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, key, value) for key, value in attrs]
        self.ids += [value for key, value in attrs if key == "id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def parsed(text):
    checker = _Checker()
    checker.feed(text)
    return checker


@pytest.mark.long
def test_the_page_is_well_formed(parsed):
    assert parsed.open == []
    assert len(set(parsed.ids)) == len(parsed.ids)


def test_the_page_needs_nothing_outside_itself(text, parsed):
    words = re.sub(r"base64,[A-Za-z0-9+/=]+", "", text)
    assert not re.search(r"https?:|//[a-z]|<script|<link|@import|url\(", words)
    sources = [value for _, key, value in parsed.attributes if key in ("src", "href")]
    assert all(value.startswith(("data:image/png;base64,", "#")) for value in sources)


def test_links_lead_to_sections(parsed):
    targets = [value[1:] for tag, key, value in parsed.attributes if tag == "a" and key == "href"]
    assert set(targets) <= set(parsed.ids)


def test_the_page_holds_every_figure_with_its_caption(parsed, figure):
    images = [value for tag, key, value in parsed.attributes if (tag, key) == ("img", "src")]
    assert len(images) == 2
    assert base64.b64decode(images[0].split(",")[1]) == png_bytes(figure, dpi=40)
    captions = [value for tag, key, value in parsed.attributes if (tag, key) == ("img", "alt")]
    assert captions == ["A & B", "second"]


def test_the_page_escapes_text(text):
    for raw in ("<run>", "<spectra>", "<Poisson>", "a<b", "m < 1"):
        assert raw not in text
    for escaped in ("A &lt;run&gt;", "Mass &amp; &lt;spectra&gt;", "exact &lt;Poisson&gt;", "a&lt;b"):
        assert escaped in text


def test_the_page_states_its_provenance(text):
    for words in ("0.1", "ab" * 32, "unfold", "flat efficiency", "MOCK", "expected reach, not an exclusion"):
        assert words in text
    assert "prefers-color-scheme: dark" in text
    assert 'name="viewport"' in text


def test_equal_inputs_give_equal_pages(figure):
    twice = [page("x", [Section("s", figures=[("f", figure)])], mock=False, dpi=30) for _ in range(2)]
    assert twice[0] == twice[1]
    assert "MOCK" not in twice[0]


@pytest.mark.long
def test_files_are_written_whole(tmp_path, figure):
    png, pdf = save_figure(figure, tmp_path / "figures" / "matrix.v2", dpi=30)
    assert (png.name, pdf.name) == ("matrix.v2.png", "matrix.v2.pdf")
    assert png.read_bytes().startswith(b"\x89PNG")
    assert pdf.read_bytes().startswith(b"%PDF")
    assert sorted(path.name for path in png.parent.iterdir()) == ["matrix.v2.pdf", "matrix.v2.png"]


def test_a_file_that_cannot_be_written_is_named_and_leaves_nothing(tmp_path):
    (tmp_path / "r.html").mkdir()
    with pytest.raises(StoreError, match=r"r\.html"):
        write_whole(tmp_path / "r.html", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["r.html"]


def test_header_stands_above_the_axes():
    figure = correlation_matrix(np.eye(2), mock=True)
    header(figure, "400 GeV p Be")
    assert figure.axes[0].get_title(loc="right") == "400 GeV p Be"


def test_tables_need_columns_of_equal_length():
    with pytest.raises(PhysicsError, match="different lengths"):
        Table({"a": [1], "b": [1, 2]})


MASS = np.array([0.3, 0.4, 0.5, 0.6])


def _ends(n, tips):
    """Ends of islands by entry and side; nan where an island goes on."""
    ends = np.full((n, 2, 2), np.nan)
    for (entry, side), at in tips.items():
        ends[entry, side] = at
    return ends


def _reach(edges, tips=None, sides=None):
    edges = np.asarray(edges, dtype=np.float64)
    n = len(edges)
    mass = np.resize(MASS, n)
    ends = _ends(n, tips or {})
    return Reach(mass, edges, np.ones(n), np.ones(n), np.ones(n, bool), sides or ("",) * n, ends=ends)


NAN = [np.nan, np.nan]


def test_overlapping_intervals_make_one_island():
    reach = _reach([[1e-7, 1e-5], [2e-7, 5e-6], [4e-7, 1e-6], NAN])
    assert [list(chain) for chain in islands(reach)] == [[0, 1, 2]]


def test_a_gap_in_mass_separates_islands():
    reach = _reach([[1e-7, 1e-5], NAN, [1e-7, 1e-5], [1e-7, 1e-5]])
    assert sorted(map(list, islands(reach))) == [[0], [2, 3]]


def test_two_intervals_at_one_mass_are_two_islands():
    reach = _reach([[1e-7, 1e-6]] * 4 + [[1e-4, 1e-3]] * 4)
    assert sorted(map(list, islands(reach))) == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_the_tip_joins_both_edges():
    reach = _reach([[1e-7, 1e-5], [2e-7, 5e-6], [4e-7, 1e-6], NAN], tips={(2, 1): (0.55, 6e-7)})
    polygon, lines, _ = outline(reach, islands(reach)[0])
    assert polygon[:, 0].max() == 0.55
    assert all(tuple(line[-1]) == (0.55, 6e-7) for line in lines[:2])


def test_every_island_runs_into_its_own_tips():
    """Two islands that overlap in mass: each ends at its own masses, on both sides."""
    both = [NAN, [1e-7, 1e-6], [1e-7, 1e-6], NAN], [[1e-4, 1e-3], [1e-4, 1e-3], [1e-4, 1e-3], NAN]
    tips = {(1, 0): (0.35, 3e-7), (2, 1): (0.52, 3e-7), (6, 1): (0.58, 3e-4)}
    reach = _reach([*both[0], *both[1]], tips=tips)
    first, second = sorted(islands(reach), key=lambda chain: chain[0])
    polygon = outline(reach, first)[0]
    assert (polygon[:, 0].min(), polygon[:, 0].max()) == (0.35, 0.52)
    polygon = outline(reach, second)[0]
    assert (polygon[:, 0].min(), polygon[:, 0].max()) == (0.3, 0.58)


def test_an_edge_outside_the_scan_is_not_drawn():
    reach = _reach([[1e-7, 1e-5]] * 4, sides=("upper",) * 4)
    _, lines, _ = outline(reach, islands(reach)[0])
    assert np.isfinite(lines[0]).all()
    assert np.isnan(lines[1]).all()


def test_bands_close_where_the_edges_meet():
    # the width in decades falls 2, 1, 0.5; its square would vanish after a third of a step more
    polygon = region(MASS, np.array([[1e-7, 1e-5], [3e-7, 3e-6], [1e-6 / 1.78, 1.78e-6], NAN]))[0]
    assert polygon[:, 0].max() == pytest.approx(0.5 + 0.1 / 3, abs=1e-3)
    tip = polygon[np.argmax(polygon[:, 0])]
    assert tip[1] == pytest.approx(1e-6, rel=0.1)


def test_bands_end_blunt_at_the_end_of_the_scan():
    polygon = region(MASS, np.array([[1e-7, 1e-5]] * 4))[0]
    assert polygon[:, 0].max() == 0.6
    assert len(polygon) == 8


def test_a_contour_checks_its_bands():
    with pytest.raises(PhysicsError, match="bands"):
        Contour("x", _reach([[1e-7, 1e-5]] * 4), bands=np.ones((4, 3, 2)))


def test_edges_run_into_the_tip_like_a_square_root():
    # N(m, ln g) = c − m − (ln g)²: the edges are ±√(c − m), and the fold between scan and tip is exact
    mass = np.array([0.0, 0.5, 1.0, 1.5])
    half = np.sqrt(np.clip(1.2 - mass, 0, None))
    edges = np.where(half[:, None] > 0, np.exp(np.outer(half, [-1.0, 1.0])), np.nan)
    reach = Reach(mass, edges, mass, mass, mass > -1, ("",) * 4, ends=_ends(4, {(2, 1): (1.2, 1.0)}))
    polygon, *_ = outline(reach, islands(reach)[0])
    np.testing.assert_allclose(np.log(polygon[:, 1]) ** 2, 1.2 - polygon[:, 0], atol=1e-12)
    band = region(mass, edges)[0]
    np.testing.assert_allclose(np.log(band[:, 1]) ** 2, 1.2 - band[:, 0], atol=1e-12)


@pytest.fixture(scope="module")
def folded(figure):
    sections = [
        Section("Data", ["chi2 = 3"], [("a", figure), ("b", figure), ("c", figure)], notes=["2 m_mu"]),
        Section("Reach", figures=[("flagship", figure)], warnings=["p = 1e-05"]),
    ]
    cards = [("Protons", "6e+20", ""), ("Pairs", "12", "+- pairs"), ("Limit", "2.3", ""), ("Masses", "1", "")]
    lead = Lead(section=1, cards=cards, links={"Explorer": "explorer.html"})
    found = Provenance(placeholders=["flat efficiency"])
    return page("x", sections, mock=False, provenance=found, lead=lead, dpi=30)


@pytest.mark.long
def test_the_page_opens_with_flagship_cards_and_explorer(folded):
    top, below = folded.split("<nav", 1)
    assert top.count('class="card"') == 4
    assert 'id="flagship"' in top
    assert 'alt="flagship"' in top
    assert '<a href="explorer.html">Explorer</a>' in top
    assert 'alt="flagship"' not in below
    assert 'href="#flagship"' in below
    assert "6\u00a0×\u00a010²⁰" in top  # no line breaks within
    assert "+− pairs" in top


def test_diagnostics_and_provenance_are_folded(folded):
    outside = re.sub(r"<details>.*?</details>", "", folded, flags=re.DOTALL)
    assert [name in outside for name in ('alt="a"', 'alt="b"', 'alt="c"')] == [True, True, False]
    assert 'alt="c"' in folded
    assert "flat efficiency" not in outside
    assert folded.count("flat efficiency") == 1
    assert "p = 10⁻⁵" in outside
    assert "<i>m</i><sub>μ</sub>" in folded
    assert "χ² = 3" in outside


def test_figures_enlarge_without_script(folded):
    figures = re.findall(r'<figure id="(.*?)">(.*?)</figure>', folded, flags=re.DOTALL)
    assert len(figures) == 4
    for name, content in figures:
        assert f'<a class="enlarge" href="#{name}"' in content
        assert re.search(r'class="close" href="#(top|s\d)"', content)
    assert "figure:target" in folded


@pytest.mark.parametrize("text", ["ab12e5f0", "--resume", "arXiv:0902.2547", "box-40", "2026-11-23", "a--b"])
def test_names_are_not_typeset(text):
    assert typeset(text) == text


def test_a_figure_that_cannot_be_drawn_says_why():
    class Broken(Figure):
        def savefig(self, *_, **__):
            raise RuntimeError("no such pen")

    files, reason = style.files_of(Broken(), ("svg",))
    assert reason == "RuntimeError: no such pen"
    assert len(files["svg"]) > len(style.files_of(Figure(), ("svg",))[0]["svg"])


def test_a_drawing_function_fails_with_an_error_and_in_a_report_with_its_reason():
    @style.styled
    def figure():
        raise PhysicsError("a window of $x 0$ pairs")

    with pytest.raises(PhysicsError):
        figure()
    with style.spared():
        found = figure()
    assert found.reason == "a window of $x 0$ pairs"
    assert "not drawn: a window" in found.axes[0].texts[0].get_text()
    assert style.png_bytes(found).startswith(b"\x89PNG")
