"""Vertices of pairs: decays are found where they happened, and closest approach is the closest one."""

import awkward as ak
import numpy as np
import pytest
from scipy.optimize import minimize

from gammastar import select
from gammastar.core.constants import M_MU
from gammastar.core.errors import SteeringError

N = 300


def events(p, offset):
    """Return events of two muons from momenta (n, 2, 3) and offsets (n, 2, 2)."""
    flat, place = p.reshape(-1, 3), offset.reshape(-1, 2)
    record = ak.zip(
        {
            "px": flat[:, 0],
            "py": flat[:, 1],
            "pz": flat[:, 2],
            "mass": np.full(2 * len(p), M_MU),
            "charge": np.tile([1.0, -1.0], len(p)),
            "dx": place[:, 0],
            "dy": place[:, 1],
        }
    )
    fields = {
        "lepton": ak.unflatten(record, np.full(len(p), 2)),
        "event": np.arange(len(p)),
        "weight": np.ones(len(p)),
    }
    return ak.zip(fields, depth_limit=1)


def momenta(rng):
    return np.stack(
        [rng.normal(0, 0.5, (N, 2)), rng.normal(0, 0.5, (N, 2)), rng.uniform(3, 60, (N, 2))], axis=2
    )


def test_a_decay_is_found_where_it_happened():
    rng = np.random.default_rng(1)
    p = momenta(rng)
    total = p.sum(axis=1)
    z = rng.exponential(2e4, N)  # um
    decay = total * (z / total[:, 2])[:, None]
    offset = decay[:, None, :2] - p[:, :, :2] / p[:, :, 2:] * z[:, None, None]
    found, _ = select.pairs(events(p, offset), select.Cuts(vertex=("dx", "dy")))
    np.testing.assert_allclose(found.columns["vertex_z"], z, rtol=1e-6, atol=1e-3)
    assert found.columns["vertex_distance"].max() < 1e-4
    assert found.columns["vertex_impact"].max() < 1e-6


def test_closest_approach_against_a_search():
    rng = np.random.default_rng(2)
    p, offset = momenta(rng)[:20], rng.normal(0, 60, (20, 2, 2))
    found, _ = select.pairs(events(p, offset), select.Cuts(vertex=("dx", "dy")))
    for i in range(len(p)):
        points = np.c_[offset[i], [0.0, 0.0]]
        unit = p[i] / np.linalg.norm(p[i], axis=1)[:, None]

        def apart(t, points=points, unit=unit):
            return np.sum((points[0] + t[0] * unit[0] - points[1] - t[1] * unit[1]) ** 2)

        best = minimize(
            apart, [0.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-4, "fatol": 1e-9, "maxiter": 5000}
        )
        z = 0.5 * (best.x @ unit[:, 2])
        assert found.columns["vertex_z"][i] == pytest.approx(z, abs=0.5)
        assert found.columns["vertex_distance"][i] == pytest.approx(np.sqrt(best.fun), abs=0.01)


def test_vertex_quantities_can_be_cut_on():
    rng = np.random.default_rng(3)
    chunk = events(momenta(rng), rng.normal(0, 60, (N, 2, 2)))
    every, _ = select.pairs(chunk, select.Cuts(vertex=("dx", "dy")))
    some, _ = select.pairs(chunk, select.Cuts(vertex=("dx", "dy"), pair={"vertex_distance": (0.0, 50.0)}))
    assert 0 < len(some) == int((every.columns["vertex_distance"] < 50).sum()) < N


def test_faults():
    rng = np.random.default_rng(4)
    chunk = events(momenta(rng), rng.normal(0, 60, (N, 2, 2)))
    with pytest.raises(SteeringError, match="no column 'd0'; see lepton_columns of the schema"):
        select.pairs(chunk, select.Cuts(vertex=("d0", "dy")))
    with pytest.raises(SteeringError, match="must name two lepton columns"):
        select.Cuts(vertex=("dx",))
    with pytest.raises(SteeringError, match="vertex_z: unknown quantity"):
        select.pairs(chunk, select.Cuts(pair={"vertex_z": (0.0, 1.0)}))


def test_parallel_tracks_have_no_vertex():
    p = np.tile([0.1, 0.2, 10.0], (1, 2, 1))
    found, _ = select.pairs(events(p, np.array([[[0.0, 0.0], [5.0, 0.0]]])), select.Cuts(vertex=("dx", "dy")))
    assert np.isnan(found.columns["vertex_z"]).all()
