"""The gap between prompt searches and dumps as a figure and as a section."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest

from gammastar.infer import reach
from gammastar.report.dark import View, displaced_section
from gammastar.report.figures.limits import gap_figure

MASS, COUPLING = np.linspace(0.3, 0.9, 7), np.geomspace(1e-7, 1e-3, 81)
PROMPT = MASS, np.where(MASS < 0.8, 3e-3, np.nan)
PEAK = np.exp(-(np.log(COUPLING / 1e-5) ** 2)) * np.linspace(3.0, 0.5, 7)[:, None]


@pytest.mark.parametrize("strength", [1.0, 1e-4])
def test_figure(strength):
    found = reach(MASS, COUPLING, strength * PEAK, 1.0)
    figure = gap_figure(PROMPT, (MASS, COUPLING, strength * PEAK), {"all": found}, mock=True)
    (ax,) = figure.axes
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert ("displaced, expected reach" in labels) == (strength == 1.0)
    assert len(ax.patches) == (strength == 1.0)  # one island, closed
    assert any("MOCK" in text.get_text() for text in ax.texts)
    assert ax.get_ylim() == pytest.approx((1e-7, 0.18))
    plt.close(figure)


def test_section_says_what_is_not_reached():
    found = SimpleNamespace(
        mass=MASS,
        coupling=COUPLING,
        cuts=np.array([3.0, 5.0]),
        signal=1e-3 * np.stack([PEAK, PEAK], axis=1),
        names=np.array(["vertex tails of measured pairs"]),
        parts=np.full((7, 1, 2), 0.2),
        log_sigma=np.full((7, 2), 0.3),
    )
    search = SimpleNamespace(
        found=found,
        best=np.ones(7, int),
        limits=np.full((7, 5), 2.3),
        reaches={"all": reach(MASS, COUPLING, 1e-3 * PEAK, 2.3)},
    )
    view = View(SimpleNamespace(plane="dark_photon", limits="published"), theory=False, mock=True)
    section = displaced_section(search, PROMPT, view, method="exact counting")
    assert "Nothing is reached: at most 0.0013 of the expected limit, at 0.300 GeV" in section.paragraphs[-1]
    assert "vertex tails of measured pairs" in section.tables[0].columns
