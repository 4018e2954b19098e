"""Vertex telescopes: efficiency of a decay between planes, resolution, bad cards."""

from dataclasses import replace
from pathlib import Path

import awkward as ak
import numpy as np
import pytest

from gammastar import select
from gammastar.core.constants import M_MU
from gammastar.core.errors import GammastarError, InputFileError, PhysicsError, SteeringError
from gammastar.core.files import shipped
from gammastar.core.pairs import Pairs
from gammastar.physics.detector import (
    COLUMNS,
    VertexTelescope,
    load_telescope,
    measured_vertices,
    simulated_vertices,
)

PLAIN = VertexTelescope(
    name="three of four",
    planes=(0.05, 0.1, 0.15, 0.2),
    min_hits=3,
    hit_efficiency=0.9,
    target_end=1e-3,
    fiducial=(2e-3, 0.08),
    resolution=20e-6,
    scattering=400e-6,
    slope=1e-3,
    momentum=0.02,
    sources={},
)


def test_the_shipped_card():
    card = load_telescope(shipped("na60_telescope", Path(), "cards"))
    assert len(card.planes) == 12
    edges, value = card.efficiency_steps()
    assert value[0] == 1.0
    assert edges[1] == card.planes[0] >= card.fiducial[1]
    assert {"planes", "resolution", "fiducial"} <= set(card.sources)


def test_efficiency_against_thrown_hits():
    rng = np.random.default_rng(1)
    edges, value = PLAIN.efficiency_steps()
    assert edges.tolist() == [0.0, 0.05, 0.1]
    hits = rng.random((400_000, 2, 4)) < PLAIN.hit_efficiency
    passed = [(hits[:, :, lost:].sum(axis=2) >= 3).all(axis=1).mean() for lost in (0, 1)]
    assert value == pytest.approx([1.0, passed[1] / passed[0]], rel=5e-3)


def smeared(rng, n, z):
    """Return pairs of one kinematics that decay at z [um], measured with the errors of the telescope."""
    p = np.array([[0.3, 0.1, 12.0], [-0.35, 0.05, 5.0]])
    total = p.sum(axis=0)
    offset = total[:2] / total[2] * z - p[:, :2] / p[:, 2:] * z
    size = np.linalg.norm(p, axis=1)
    sigma = 1e6 * np.hypot(PLAIN.resolution, PLAIN.scattering / size)
    seen = offset + sigma[:, None] * rng.standard_normal((n, 2, 2))
    slope = p[:, :2] / p[:, 2:] + PLAIN.slope * rng.standard_normal((n, 2, 2))
    pz = p[:, 2] * (1 + PLAIN.momentum * rng.standard_normal((n, 2)))
    record = ak.zip(
        {
            "px": (slope[:, :, 0] * pz).ravel(),
            "py": (slope[:, :, 1] * pz).ravel(),
            "pz": pz.ravel(),
            "mass": np.full(2 * n, M_MU),
            "charge": np.tile([1.0, -1.0], n),
            "dx": seen[:, :, 0].ravel(),
            "dy": seen[:, :, 1].ravel(),
        }
    )
    fields = {"lepton": ak.unflatten(record, np.full(n, 2)), "event": np.arange(n), "weight": np.ones(n)}
    return select.pairs(ak.zip(fields, depth_limit=1), select.Cuts(vertex=("dx", "dy")))[0]


def vertices(pairs, **options):
    return measured_vertices(pairs, np.ones(len(pairs)), PLAIN, lepton_mass=M_MU, unit=1e-6, **options)


def test_pulls_of_prompt_pairs_are_normal():
    found = vertices(smeared(np.random.default_rng(2), 40_000, 0.0))
    assert np.std(found.pull) == pytest.approx(1.0, abs=0.02)
    assert abs(np.mean(found.pull)) < 0.02


def test_cuts_keep_the_same_share_wherever_pairs_decay():
    rng = np.random.default_rng(3)

    def share(z, most):
        return vertices(smeared(rng, 20_000, z), most=most).good.mean()

    distance, impact = ([share(z, most) for z in (0.0, 1e4, 4e4)] for most in ((2.0, 9e9), (9e9, 2.0)))
    assert distance == pytest.approx(np.full(3, 0.954), abs=0.01)  # one Gaussian coordinate
    assert impact == pytest.approx(np.full(3, 0.865), abs=0.04)  # two; momenta widen only one of them


def test_prescaled_events_and_parallel_tracks_are_not_searched():
    pairs = smeared(np.random.default_rng(4), 10, 0.0)
    z = pairs.columns["vertex_z"].copy()
    z[0] = np.nan
    pairs = replace(pairs, columns=pairs.columns | {"vertex_z": z}, weight=np.r_[1.0, 10.0, np.ones(8)])
    assert vertices(pairs).good.tolist() == [False, False, *([True] * 8)]


def test_simulated_pairs_are_searched_as_often_as_measured_ones():
    pairs = smeared(np.random.default_rng(5), 100, 0.0)
    named = [pairs.columns[name] for name in COLUMNS]
    rows = np.stack([pairs.mass, pairs.pt, pairs.energy, *named, np.full(100, 0.3), np.zeros(100)])
    options = {"lepton_mass": M_MU, "unit": 1e-6, "most": (2.0, 2.0)}
    found, once = simulated_vertices(rows, PLAIN, 0.8, **options), vertices(pairs, most=(2.0, 2.0))
    assert found.weight.sum() == pytest.approx(30.0)
    assert found.weight[found.good].sum() == pytest.approx(0.8 * 0.3 * once.good.sum())
    np.testing.assert_allclose(found.z[found.good], once.z[once.good])
    assert simulated_vertices(rows[:, :0], PLAIN, 0.8, **options) is None


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"resolution": -1e-5}, "resolution = -1e-05 m must be positive"),
        ({"slope": -1.0}, "slope = -1 rad"),
        ({"fiducial": (5e-4, 0.05)}, "begins inside the target, which ends at target_end = 0.001 m"),
        ({"fiducial": (2e-3, 0.12)}, "end before 0.1 m"),
        ({"fiducial": (0.05, 0.02)}, "must increase"),
        ({"planes": (0.1, 0.05)}, "must be positive and increase"),
        ({"min_hits": 5}, "min_hits = 5 must lie between 1 and 4"),
        ({"hit_efficiency": 1.2}, "hit_efficiency = 1.2"),
    ],
)
def test_bad_numbers(change, text):
    with pytest.raises(PhysicsError, match=text):
        replace(PLAIN, **change)


def test_pairs_without_vertex():
    none = Pairs.empty(("angle",))
    with pytest.raises(PhysicsError, match=r"no column vertex_z.*\[select\] vertex makes them"):
        vertices(none)
    with pytest.raises(PhysicsError, match="unit = 0 must be positive"):
        measured_vertices(none, np.empty(0), PLAIN, lepton_mass=M_MU, unit=0.0)


@pytest.mark.parametrize(
    ("edit", "error", "text"),
    [
        (lambda s: s.replace("min_hits = 5", "hits = 5"), SteeringError, "unknown keys"),
        (lambda s: s.replace("min_hits = 5", ""), SteeringError, "'min_hits'.* missing"),
        (lambda s: s.replace('scattering = "assumed', 'other = "assumed'), SteeringError, "no source for"),
        (lambda s: s.replace("slope = 2.1e-3", 'slope = "2"x'), InputFileError, "cannot be read"),
        (lambda s: s.replace("fiducial = [0.002", "fiducial = [0.001"), SteeringError, "inside the target"),
    ],
)
def test_bad_cards(tmp_path, edit, error, text):
    path = tmp_path / "card.toml"
    path.write_text(edit(shipped("na60_telescope", Path(), "cards").read_text()))
    with pytest.raises(error, match=text):
        load_telescope(path)


def test_no_card(tmp_path):
    with pytest.raises(GammastarError, match=r"none\.toml"):
        load_telescope(tmp_path / "none.toml")
