"""Figures of the flow: they draw what they are given and refuse wrong shapes."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from builders import ROOT

from gammastar.core.errors import PhysicsError
from gammastar.report.figures.kinematics import flow_plane, flow_vs_data, training_figure
from gammastar.report.style import png_bytes

sys.path.insert(0, str(ROOT / "analysis" / "na60_dimuon"))

from kinematics_figures import (
    acceptance_curves,
    difference_map,
    flow_contours,
    kl_size_figure,
    phase_space_figure,
)

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


@pytest.mark.long
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


def test_every_curve_is_drawn_however_many():
    ones = np.ones((1, CTAU.size))
    curves = {f"sample {k}": (0.1 * k * ones, 0.01 * ones) for k in range(1, 9)}
    figure = acceptance_curves((0.3,), CTAU, curves, mock=True)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(curves)
    looks = {(line.get_color(), line.get_linestyle()) for line in figure.axes[0].get_lines()}
    assert len(looks) == 8


def test_the_map_of_differences_says_what_its_lines_are():
    values = np.outer([0.05, 0.2], np.ones(7))
    values[0, 0] = np.nan
    pulls = {"a": np.outer([1.0, 3.0], np.ones(7))}
    figure = difference_map(
        np.array([0.3, 0.5]), CTAU, {"a": values}, mock=True, pulls=pulls, empty="acceptance too small"
    )
    said = [text.get_text() for text in figure.legends[0].get_texts()]
    assert said == ["difference of 10 %", "two standard deviations of the members", "acceptance too small"]
    line = next(c for c in figure.axes[0].collections if getattr(c, "levels", [0])[0] == 2.0)
    at = np.concatenate([path.vertices[:, 0] for path in line.get_paths() if len(path.vertices)])
    np.testing.assert_allclose(at, 0.4)  # between 1σ at 0.3 GeV and 3σ at 0.5 GeV
    with pytest.raises(PhysicsError, match="shape"):
        difference_map(np.array([0.3, 0.5]), CTAU, {"a": values}, mock=True, pulls={"a": np.ones(2)})


def test_the_plane_shows_the_spread_of_the_members():
    rng = np.random.default_rng(5)
    n = 200_000
    sample = (rng.gamma(3.0, 0.2, n), rng.normal(50.0, 8.0, n), np.ones(n))
    # a density that differs by ±10 % between the halves in energy; the sum of weights stays
    weights = 1.0 + np.array([-0.1, 0.0, 0.1])[:, None] * np.sign(sample[1] - 50.0)
    figure = flow_plane((0.7,), [sample], [sample], mock=True, members=[weights], n_bins=8)
    panel = figure.axes[3]
    assert panel.get_title(loc="left") == "replicas"
    shown = np.asarray(panel.collections[0].get_array().compressed())
    edge = np.linspace(*panel.get_ylim(), 9)
    near = (edge[:-1] < 50.0) & (edge[1:] > 50.0)  # the bin with both halves
    assert np.quantile(shown, 0.7) == pytest.approx(10.0, abs=0.6)
    assert near.sum() == 1
    assert len(flow_plane((0.7,), [sample], [sample], mock=True).axes) == 5  # without members: no panel


def test_losses_of_replicas_share_their_lowest_value():
    train, held_out = [3.0, 2.5, 2.4, 2.3], [2.9, 2.6, 2.5, 2.55]
    members = [([4.0, 3.4, 3.3, 3.2], [3.9, 3.6, 3.5, 3.6]), ([2.0, 1.6], [1.8, 1.7])]  # shifts −1, +0.8
    figure = training_figure(train, held_out, mock=True, best_epoch=2, members=members)
    bands = [path for band in figure.axes[0].collections for path in band.get_paths()]
    ends = [path.vertices[path.vertices[:, 0] == 1.0, 1] for path in bands]
    np.testing.assert_allclose([(one.min(), one.max()) for one in ends], [(2.4, 2.4), (2.5, 2.6)])
    assert "2 replicas" in [text.get_text() for text in figure.axes[0].get_legend().get_texts()]


def test_refused_shapes():
    with pytest.raises(PhysicsError, match="truth"):
        acceptance_curves((0.3,), CTAU, {"truth": (np.ones((2, 7)), np.ones((2, 7)))}, mock=True)


def test_phase_space_contours_hold_their_shares():
    rng = np.random.default_rng(1)
    samples = {
        "one": (np.exp(rng.normal(3, 0.5, 20_000)), np.exp(rng.normal(-1, 0.5, 20_000)), np.ones(20_000)),
        "two": (np.exp(rng.normal(5, 0.3, 20_000)), np.exp(rng.normal(-1, 0.5, 20_000)), np.ones(20_000)),
    }
    figure = phase_space_figure(samples, title="m = 0.7 GeV", mock=True)
    axes = figure.axes[0]
    texts = {text.get_text() for text in [*axes.texts, *axes.get_legend().get_texts()]}
    assert {"MOCK", "one", "two"} <= texts
    inner = max(c.levels[-1] for c in axes.collections if hasattr(c, "levels"))
    assert inner > 0
