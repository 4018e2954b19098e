"""Pulls and impacts against the closed form, their figure, existing limits, outlines clipped on two sides."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gammastar.core.errors import InputFileError, PhysicsError
from gammastar.core.records import Reach
from gammastar.infer import counting_channel, ranking
from gammastar.report import png_bytes
from gammastar.report.figures.limits import (
    citations,
    existing_limits,
    impact_figure,
    limit_figure,
    read_limit,
)
from gammastar.report.figures.reach import islands, outline

POT = float(np.log(1.2))


def example():
    channel = counting_channel(
        "ee",
        signal=1.0,
        background=0.3,
        observed=0,
        signal_sigma={"efficiency": 0.03, "pot": POT},
        background_sigma={"b": 0.5},
    )
    return ranking([channel])


def test_no_event_in_closed_form():
    """Fixing POT at ±1 σ scales the limit by 1.2, on the lower edge (N ~ ε⁴) by 1.2^¼ in ε."""
    found = example()
    assert found.names == ("pot", "efficiency", "b")
    np.testing.assert_allclose(found.impact[0], np.array([1, -1]) * np.log10(1.2) / 4, rtol=1e-3)
    np.testing.assert_allclose(found.impact[2], 0.0, atol=1e-5)  # b drops out
    # θ̂ = −σ ŝ with ŝ = ln 10 at the limit
    assert found.pull[0] == pytest.approx(-POT * np.log(10), rel=1e-3)
    width = 1 / np.sqrt(1 + POT**2 * np.log(10))
    assert found.constraint[0] == pytest.approx(width, rel=2e-2)


def test_ranking_refuses():
    with pytest.raises(PhysicsError, match="exponent"):
        ranking([counting_channel("c", signal=1.0, background=1.0, observed=0)], exponent=0.0)


@pytest.mark.long
def test_figures():
    found = example()
    assert png_bytes(impact_figure(found, mock=True))
    mass, bands = np.array([0.3, 0.5, 0.8]), np.tile([1.0, 2.0, 3.0, 4.0, 6.0], (3, 1))
    assert png_bytes(limit_figure(mass, bands, mock=False, observed=np.array([3.0, 2.0, 5.0])))
    with pytest.raises(PhysicsError, match="mock"):
        limit_figure(mass, bands, mock=True, observed=np.ones(3))
    with pytest.raises(PhysicsError, match="no nuisance"):
        impact_figure(replace(found, names=()), mock=True)


def test_shipped_limits_have_sources_that_may_be_shipped():
    limits = existing_limits()
    assert citations(limits) == "FASER [arXiv:2308.05587]; NA62 [arXiv:2312.12055]"
    for limit in limits:
        assert limit.licence in {"MIT", "BSD-3-Clause", "CC0-1.0"}
        assert limit.source
        assert len(limit.polygon) > 20
    polygon = limits[1].polygon  # NA62, A' → ee: at 200 MeV from 4.6e-7 to 8e-6
    near = polygon[np.abs(polygon[:, 0] / 0.2 - 1) < 0.05, 1]
    assert near.min() == pytest.approx(4.6e-7, rel=0.1)
    assert near.max() == pytest.approx(7e-6, rel=0.2)


def test_limits_of_a_user(tmp_path):
    text = 'name = "Mine"\nplane = "dark_photon"\nkind = "observed"\ncitation = "us"\nreference = "arXiv:0"\n'
    text += 'source = "us"\nlicence = "own"\nclosed = false\nmass = [0.1, 0.2]\ncoupling = [1e-3, 2e-3]\n'
    (tmp_path / "mine.toml").write_text(text)
    assert [limit.name for limit in existing_limits(directory=tmp_path)] == ["FASER", "NA62", "Mine"]
    np.testing.assert_array_equal(read_limit(tmp_path / "mine.toml").polygon[-1], [0.1, 1.0])
    for old, new, match in (
        ("0.1, 0.2", "0.1", "equal lists|two positive"),
        ('source = "us"', 'source = ""', "source"),
        ("closed = false", "closed = false\ncolour = 1", "unknown keys"),
        ("1e-3", "-1e-3", "positive"),
    ):
        (tmp_path / "bad.toml").write_text(text.replace(old, new))
        with pytest.raises(InputFileError, match=match):
            read_limit(tmp_path / "bad.toml")
    with pytest.raises(InputFileError, match="no such directory"):
        existing_limits(directory=tmp_path / "nothing")


def test_outline_hides_both_clipped_edges():
    mass, one = np.array([0.3, 0.4, 0.5]), np.ones(3)
    reach = Reach(
        mass, np.array([[1e-7, 1e-5]] * 3), one, one, np.array([True, False, True]), ("", "lower, upper", "")
    )
    _, lines, _ = outline(reach, islands(reach)[0])
    assert np.isnan(lines[0][1]).all()
    assert np.isnan(lines[1][1]).all()
    assert np.isfinite(lines[0][[0, 2]]).all()
