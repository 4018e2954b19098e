"""Figures of the flow: they draw what they are given and refuse wrong shapes."""

from __future__ import annotations

import numpy as np
import pytest

from gammastar.core.errors import PhysicsError
from gammastar.report.check_figures import kl_size_figure
from gammastar.report.flow_contours import flow_contours
from gammastar.report.flow_figures import flow_vs_data
from gammastar.report.lifetime_figures import acceptance_curves, difference_map
from gammastar.report.saving import png_bytes

CTAU = np.geomspace(0.01, 10.0, 7)


def test_contours_hold_their_content():
    rng = np.random.default_rng(1)
    n = 60_000
    sample = (rng.normal(5.0, 1.0, n), rng.normal(50.0, 8.0, n), np.ones(n))
    figure = flow_contours(0.7, {"flow": sample}, mock=True)
    ax = figure.axes[0]
    paths = [path for collection in ax.collections for path in collection.get_paths() if len(path.vertices)]
    points = np.column_stack([sample[1], sample[0]])
    inside = sorted(path.contains_points(points).mean() for path in paths)
    # the frame ends at the upper 1.5 %, so the outer region is open there
    assert min(abs(x - 0.683) for x in inside) < 0.04
    assert png_bytes(figure, dpi=40)


def test_bands_are_the_spread_of_the_members():
    rng = np.random.default_rng(3)
    n = 40_000
    sample = (rng.gamma(3.0, 0.2, n), rng.normal(50.0, 8.0, n), np.ones(n))
    weights = 1.0 + np.array([-0.02, 0.0, 0.02])[:, None] * (sample[1] - 50.0) / 8.0
    figure = flow_vs_data((0.7,), [sample], {"flow": [sample]}, mock=True, members={"flow": [weights]})
    low = figure.axes[3]
    band = next(p for p in low.patches if p.get_alpha() == 0.25)
    top, _, bottom = band.get_data()
    energy = np.array(band.get_data().edges)
    centre = 0.5 * (energy[1:] + energy[:-1])
    middle = np.abs(centre - 50.0) < 16.0
    np.testing.assert_allclose(
        (0.5 * (top - bottom))[middle], 0.02 * np.abs(centre - 50.0)[middle] / 8.0, atol=3e-3
    )
    bare = flow_contours(0.7, {"flow": sample}, mock=True)
    drawn = flow_contours(0.7, {"flow": sample}, mock=True, members={"flow": weights})
    assert len(drawn.axes[0].collections) > len(bare.axes[0].collections)
    with pytest.raises(PhysicsError, match="no weight"):
        flow_contours(0.7, {"flow": (sample[0], sample[1], np.zeros(n))}, mock=True)


def test_sizes_and_lifetimes():
    n_pairs = np.array([1e3, 1e4, 1e5])
    band = np.sort(np.random.default_rng(2).normal(size=(2, 5)), axis=1)
    figure = kl_size_figure((0.3, 0.7), n_pairs, np.ones((2, 3)), 0.1 * np.ones((2, 3)), band, mock=True)
    assert [line.get_label() for line in figure.axes[0].lines].count("flow vs data") == 1
    mean = np.outer([0.3, 0.2], np.exp(-0.1 / CTAU))
    curves = {"truth": (mean, 0.01 * mean), "flow": (1.1 * mean, 0.02 * mean)}
    figure = acceptance_curves((0.3, 0.7), CTAU, curves, mock=True)
    ratio = figure.axes[2].lines[1].get_ydata()
    np.testing.assert_allclose(ratio, 1.1)
    figure = difference_map(np.array([0.3, 0.5]), CTAU, {"a": np.full((2, 7), 0.05)}, mock=True)
    assert png_bytes(figure, dpi=40)


def test_refused_shapes():
    with pytest.raises(PhysicsError, match="truth"):
        acceptance_curves((0.3,), CTAU, {"truth": (np.ones((2, 7)), np.ones((2, 7)))}, mock=True)
