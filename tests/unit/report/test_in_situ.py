"""The section on the search in situ: gaps, limits of others in the frame, MOCK."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gammastar.core.errors import PhysicsError
from gammastar.core.sources import Source, Sources
from gammastar.physics.detector import MassResolution
from gammastar.predict import make_model
from gammastar.predict.in_situ import Background, Templates, search_in_situ
from gammastar.report.dark import View, in_situ_section
from gammastar.report.figures.limits import ExistingLimit, coupling_figure, frame
from gammastar.report.style import png_bytes

MASSES = np.array([0.5, 0.55, 0.6, 0.7, 0.78])


@pytest.fixture(scope="module")
def section():
    edges = np.linspace(0.4, 1.0, 91)
    gaussian = MassResolution.gaussian(0.8, 0.02)
    smooth, line = np.full(90, 300.0), 6000 * gaussian.cells([0.78], edges)[0]
    nothing = np.zeros((0, 90))
    known = Background(2, smooth, line[None], np.array([0.78]), np.array([0.05]), nothing, ("omega",))
    templates = Templates(edges, smooth + line, known, gaussian, 4.0)
    sources = Sources((Source.shifted("measurement", "spectrum", np.full(5, 1e5)),))
    found = search_in_situ(templates, MASSES, np.full(5, 2e6), sources)
    expected = np.sqrt(found.expected(["spectrum"], 0.9))
    expected[found.blind(0.95)] = np.nan
    polygon = np.array([[0.45, 1e-2], [0.9, 1e-2], [0.9, 1.0], [0.45, 1.0]])
    inside = ExistingLimit("MOCK limit", "dark_photon", "observed", "-", "-", "-", "-", polygon)
    far = replace(inside, name="elsewhere", polygon=polygon * [1.0, 1e-6])

    def make(known=(inside, far), observed=None):
        view = View(
            make_model("dark_photon", Path()).labels, theory=False, mock=observed is None, known=known
        )
        return in_situ_section(found, expected, view, cl=0.9, observed=observed, method="a method")

    return make


def test_what_is_drawn_and_said(section):
    made = section()
    (caption, first), _ = made.figures
    ax = first.axes[0]
    texts = [text.get_text() for text in (*ax.texts, *ax.get_legend().get_texts())]
    assert "MOCK" in texts
    assert "MOCK limit" in texts
    assert "elsewhere" not in texts
    assert "expected median, 100 % measured" in texts
    median = ax.lines[0].get_ydata()
    assert np.isnan(median[4])
    assert np.isfinite(median[:4]).all()
    assert "0.780 GeV" in caption
    assert any("masked" in line for line in made.paragraphs)
    assert len(png_bytes(first)) > 10_000


def test_observed_limits_are_for_data_alone(section):
    made = section(observed=np.full(5, 0.01))
    assert any("Largest local significance" in line for line in made.paragraphs)
    bands = np.full((5, 5), 0.01)
    with pytest.raises(PhysicsError, match="mock data have no observed limit"):
        coupling_figure(MASSES, bands, mock=True, observed=bands[:, 0])
    assert frame(np.full((5, 5), np.nan)) == (1e-4, 1.0)
    assert "Known here and not drawn: BaBar" in str(section(known=()).figures[0][0])
