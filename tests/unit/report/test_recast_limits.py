"""Limits on dark photons recast for other vectors, as the reach figures draw them."""

from pathlib import Path

import numpy as np
import pytest

from gammastar.config import Predict
from gammastar.physics.vectors import E_CHARGE
from gammastar.pipeline.stages.report import recast_limits
from gammastar.report import existing_limits
from gammastar.report.figures.limits import edges_of


def _section(model: str) -> Predict:
    return Predict(
        source="theory", model=model, beam_energy=400.0, channels=["pion_dalitz"], masses=[0.1], n_sample=10
    )


def test_edges_of_a_polygon():
    square = np.array([[0.1, 1e-6], [0.4, 1e-6], [0.4, 1e-4], [0.1, 1e-4]])
    edges = edges_of(square, np.array([0.05, 0.2, 0.3, 0.5]))
    assert np.isnan(edges[[0, 3]]).all()
    np.testing.assert_allclose(edges[1:3], [[1e-6, 1e-4]] * 2)
    tilted = edges_of(np.array([[0.1, 1e-6], [0.3, 1e-4], [0.1, 1e-4]]), np.array([0.2]))
    np.testing.assert_allclose(tilted, [[1e-5, 1e-4]])  # logarithmic between vertices


def test_b_minus_l_below_the_pions_is_a_dark_photon_with_neutrinos():
    """There g = e ε in production; three neutrinos shorten the life by 5/2 and take 3/5 of the decays."""
    known = {limit.name: limit for limit in existing_limits()}
    found = {limit.name: limit for limit in recast_limits(_section("b_minus_l"), Path())}
    assert set(found) == {f"{name} (recast)" for name in ("FASER", "NA62", "CHARM", "NuCal")}
    for name, old in (("NA62", "NA62"), ("NuCal", "NuCal (recomputed)")):
        limit = found[f"{name} (recast)"]
        assert limit.plane == "b_minus_l"
        assert limit.kind == "recomputed"  # ours: grey is what others published
        assert limit.assumption
        assert limit.reference == known[old].reference
        before, after = (edges_of(x.polygon, np.array([0.05]))[0] for x in (known[old], limit))
        # far lower edge: N goes as g^2 times Gamma(ee), the same as for a dark photon of g = e eps
        assert after[0] == pytest.approx(E_CHARGE * before[0], rel=0.1)
        assert E_CHARGE * before[1] * np.sqrt(0.25) < after[1] < E_CHARGE * before[1]


def test_vectors_without_electrons_have_no_recast_limit_from_electrons():
    assert recast_limits(_section("lmu_ltau"), Path()) == []
