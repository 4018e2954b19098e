"""Figures of the beam-dump search hold what they were given."""

import sys

import numpy as np
import pytest
from builders import ROOT

from gammastar.core.errors import PhysicsError
from gammastar.report.style import png_bytes

sys.path.insert(0, str(ROOT / "analysis" / "na62_dump"))

from search_figures import (
    alp_figure,
    background_figure,
    calibration_figure,
    detector_figure,
    domain_figure,
    mesons_figure,
    plane_maps,
    region_figure,
    vertex_figure,
)

RNG = np.random.default_rng(1)


def _texts(figure):
    legends = [ax.get_legend() for ax in figure.axes]
    return [text.get_text() for legend in legends if legend for text in legend.get_texts()]


def test_vertices_with_and_without_pairs():
    corners = [(105, 0), (180, 0), (180, 1), (105, 1)]
    figure = vertex_figure(RNG.uniform(100, 180, 500), RNG.uniform(0, 1, 500), fiducial=corners, mock=True)
    assert "fiducial volume" in _texts(figure)
    assert any(text.get_gid() == "mock" for text in figure.axes[0].texts)
    empty = vertex_figure(np.zeros(0), np.zeros(0), fiducial=corners, mock=False)
    assert any("no pair" in text.get_text() for text in empty.axes[0].texts)


@pytest.mark.long
@pytest.mark.parametrize("masked", [True, False])
def test_regions_say_whether_they_are_masked(masked):
    signal = (23 + 1.6 * RNG.standard_normal(4000), np.abs(0.003 * RNG.standard_normal(4000)))
    figure = region_figure(
        np.array([60.0]),
        np.array([0.2]),
        ellipse=(23, 12, 0.03),
        control=(-4, 50, 0.15),
        masked=masked,
        mock=True,
        signal=signal,
    )
    assert ("control region, masked" in _texts(figure)) is masked
    assert "signal, 68 and 95 %" in _texts(figure)
    assert len(png_bytes(figure)) > 10_000


def test_maps_share_one_scale_and_refuse_wrong_shapes():
    mass, coupling = np.geomspace(0.01, 0.6, 7), np.geomspace(1e-7, 1e-4, 9)
    one = RNG.uniform(0.1, 0.5, (7, 9))
    one[0, 0] = np.nan
    figure = plane_maps(mass, coupling, {"a": one, "b": 2 * one}, label="efficiency")
    assert len(figure.axes) == 3
    norms = {(ax.collections[0].norm.vmin, ax.collections[0].norm.vmax) for ax in figure.axes[:2]}
    assert len(norms) == 1
    logarithmic = plane_maps(mass, coupling, {"a": 0 * one}, label="events", log=True)
    assert png_bytes(logarithmic)
    with pytest.raises(PhysicsError, match="shape"):
        plane_maps(mass, coupling, {"a": one.T}, label="x")


def test_curves():
    draws = {"one": RNG.lognormal(-4, 1, 1000)}
    assert "P(0)" in _texts(background_figure(draws, published=(2e-3, 9e-3, 3e-2), mock=True))[0]
    tau = np.geomspace(1, 1e6, 20)
    others = {"CHARM": (tau, np.full(20, 1e-4))}
    figure = alp_figure(tau, {"220 MeV": np.full(20, 1e-6)}, others=others, pot=1.4e17)
    assert _texts(figure) == ["CHARM", "220 MeV"]
    angle = np.geomspace(1e-3, 1e-2, 5)
    pot = np.array([1e9, 2e9, 1e10, np.inf, np.inf])
    curves = {str(i): (angle, np.linspace(1, 0, 5), pot) for i in range(6)}
    figure = calibration_figure(curves, share=0.9, precision=0.1)
    assert _texts(figure) == [str(i) for i in range(6)]


def test_domain_cells_are_drawn_beside_the_accepted_signal():
    accepted = {"NA62": (RNG.uniform(5, 300, 500), RNG.uniform(0, 1, 500), np.ones(500))}
    domain = np.array([[True, False], [False, True]])
    figure = domain_figure(
        accepted,
        energy_edges=np.array([2.0, 20.0, 80.0]),
        pt_edges=np.array([0.0, 0.5, 1.0]),
        domain=domain,
        mock=True,
    )
    assert len(figure.axes[0].patches) == 2
    assert "dimuons measured" in _texts(figure)


def test_a_detector_of_mock_data_says_so():
    volume = [np.array([(5.0, 0.2), (10.0, 0.4), (10.0, 1.0), (5.0, 0.5)])]
    drawn = [detector_figure({"volume": volume}, mock=mock).axes[0] for mock in (True, False)]
    assert [any(text.get_gid() == "mock" for text in ax.texts) for ax in drawn] == [True, False]
    assert all("[" in label for label in (drawn[0].get_xlabel(), drawn[0].get_ylabel()))


def test_mesons_show_both_channels_and_every_reading():
    shares = {"pions": np.array([[0.05, 0.1], [0.1, 0.02], [0.02, 0.02]])}
    lines = {f"reading {k}": 0.02 * k + np.zeros(3) for k in range(8)}
    points = (np.array([0.05, 0.1, 0.3]), np.array([False, False, True]))
    figure = mesons_figure(shares, lines, points=points, digitised=0.02)
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["digitisation", *lines]
    assert [len(ax.lines[-1].get_xdata()) for ax in figure.axes[1:]] == [2, 1]
