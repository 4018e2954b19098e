"""Figures of theory beside data: what is drawn, the word MOCK, wrong shapes."""

from __future__ import annotations

import numpy as np
import pytest

from gammastar.core.errors import PhysicsError
from gammastar.core.signal import Rate
from gammastar.core.sources import Sources
from gammastar.report.dark import pair_rate_section
from gammastar.report.figures.limits import reach_lines_figure
from gammastar.report.figures.signal import Band, Points, band_figure
from gammastar.report.style import png_bytes

X = np.geomspace(0.1, 1.0, 20)


def _texts(figure) -> list[str]:
    axes = figure.axes[0]
    legend = axes.get_legend()
    return [t.get_text() for t in [*axes.texts, *legend.get_texts()]]


@pytest.mark.parametrize("line", [True, False])
def test_bands_and_points(line: bool) -> None:
    bands = [
        Band("theory", X, X, 0.5 * X, 2 * X, 0),
        Band("table", X[::5], X[::5], 0.1 * X[::5], 10 * X[::5], None),
        Band("no band", X, X**2, X**2, X**2, 1),
    ]
    points = Points("data", X, X**3, 0.1 * X**3, line=line)
    figure = band_figure(
        points, bands, x_label="m", y_label="N", y_range=(1e-4, 10), x_range=(0.1, 1.0), mock=True
    )
    texts = _texts(figure)
    assert "MOCK" in texts
    assert [t for t in texts if t != "MOCK"] == ["data", "theory", "table", "no band"]
    assert figure.axes[0].get_xscale() == figure.axes[0].get_yscale() == "log"
    with pytest.raises(PhysicsError, match="shape"):
        band_figure(
            points,
            [Band("short", X, X[1:], X, X)],
            x_label="m",
            y_label="N",
            y_range=(1e-4, 10),
            x_range=(0.1, 1.0),
            mock=False,
        )


def test_reach_lines() -> None:
    figure = reach_lines_figure({"a": (X, X), "b": (X, 2 * X)}, y_label="Q", y_range=(0.01, 10), mock=False)
    assert _texts(figure) == ["a", "b"]
    assert len(figure.axes[0].lines) == 2


def test_pairs_that_no_channel_makes() -> None:
    none = Rate(np.array([4000.0, 5000.0]), np.zeros(2), np.zeros((2, 2)), Sources(()))
    section = pair_rate_section(none, mock=True)
    assert "No channel makes pairs" in section.warnings[0]
    assert png_bytes(section.figures[0][1])
