"""Decay volumes: chords against points along the line, limits, and the detector files."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import ROOT
from pydantic import TypeAdapter, ValidationError
from scipy.spatial.transform import Rotation

from gammastar.core.errors import InputFileError, PhysicsError, PortabilityError, SteeringError
from gammastar.core.records import Exposure
from gammastar.physics.detector import load_detector, target_factor
from gammastar.physics.geometry import Box, Cone, Cylinder, Frustum, Geometry, Volume
from gammastar.physics.millicharge import load_millicharge_detector

DETECTORS = ROOT / "data" / "detectors"


def inside(volume: Geometry, x: np.ndarray) -> np.ndarray:
    """Membership of points, written independently of the intervals."""
    if isinstance(volume, Cone):
        local = x - np.array([0, 0, volume.apex])
        theta = np.arctan2(np.hypot(local[..., 0], local[..., 1]), local[..., 2])
        along = np.linalg.norm(local, axis=-1) if volume.spherical else x[..., 2]
        shell = (theta > volume.theta_min) & (theta < volume.theta_max)
        return shell & (along > volume.z_min) & (along < volume.z_max)
    if isinstance(volume, Box):  # turned back by two rotations: about the vertical, then about the edge
        climb = math.atan(math.tan(volume.angle_y) * math.cos(volume.angle_x))
        turn = Rotation.from_euler("YX", [volume.angle_x, -climb])
        local = turn.inv().apply((x - [volume.x, volume.y, volume.z0]).reshape(-1, 3)).reshape(x.shape)
        end = (volume.z1 - volume.z0) / turn.apply([0.0, 0.0, 1.0])[2]
        wide = (np.abs(local[..., 0]) < volume.half_x) & (np.abs(local[..., 1]) < volume.half_y)
        return wide & (local[..., 2] > 0) & (local[..., 2] < end)
    z = x[..., 2]
    between = (z > volume.z0) & (z < volume.z1)
    dx, dy = x[..., 0] - volume.x, x[..., 1] - volume.y
    if isinstance(volume, Cylinder):
        return between & (np.hypot(dx, dy) < volume.radius)
    f = (z - volume.z0) / (volume.z1 - volume.z0)
    half_x = volume.half_x0 + f * (volume.half_x1 - volume.half_x0)
    half_y = volume.half_y0 + f * (volume.half_y1 - volume.half_y0)
    return between & (np.abs(dx) < half_x) & (np.abs(dy) < half_y)


VOLUMES = [
    Cone(0.035, 0.12, 5.0),
    Cone(0.035, 0.12, 5.0, 30.0),
    Cone(0.035, 0.12, 5.0, 30.0, spherical=True),
    Cone(0.0, 0.3, -2.0, 8.0, apex=1.0),
    Frustum(33.5, 83.5, 0.645, 1.495, 2.145, 3.145),
    Frustum(4.0, 9.0, 2.0, 1.0, 0.5, 0.7, x=0.3, y=-0.2),
    Box(10.0, 30.0, 1.25, 1.25, x=2.25),
    Box(10.0, 30.0, 1.25, 0.75, x=0.6, y=-0.3, angle_x=0.0624),
    Box(8.0, 12.0, 0.8, 0.5, x=0.5, angle_x=-0.4, angle_y=0.3),
    Cylinder(1.2, 5.0, 40.0, x=0.4),
    Cylinder(math.inf, 5.0, 40.0),
]


@pytest.mark.long
@pytest.mark.parametrize("volume", VOLUMES, ids=lambda v: f"{v.kind}")
def test_chord_agrees_with_membership_along_the_line(volume: Geometry) -> None:
    rng = np.random.default_rng(11)
    n = 3000
    origin = rng.normal(0, [0.02, 0.02, 0.05], (n, 3))
    theta, phi = rng.uniform(0, 0.16, n), rng.uniform(-np.pi, np.pi, n)
    direction = np.stack([np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)], axis=1)
    chord = volume.chord(origin, 7.0 * direction)
    t = np.linspace(1e-6, 120, 301)
    member = inside(volume, origin[:, None] + t[:, None] * direction[:, None])
    predicted = (t > chord[:, :1]) & (t < chord[:, 1:])  # nan compares false
    assert (member != predicted).sum() == 0
    assert member.any()


@pytest.mark.long
@pytest.mark.parametrize("volume", VOLUMES[3:10], ids=lambda v: f"{v.kind}")
def test_chord_from_everywhere_and_backwards(volume: Geometry) -> None:
    rng = np.random.default_rng(12)
    n = 2000
    origin = rng.normal(0, [1.0, 1.0, 10.0], (n, 3)) + np.array([0, 0, 5.0])
    direction = rng.normal(0, 1, (n, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    chord = volume.chord(origin, direction)
    t = np.linspace(1e-6, 100, 1001)
    member = inside(volume, origin[:, None] + t[:, None] * direction[:, None])
    predicted = (t > chord[:, :1]) & (t < chord[:, 1:])
    assert (member != predicted).sum() == 0


def test_cone_from_its_apex_has_closed_form() -> None:
    theta = np.array([0.034, 0.036, 0.119, 0.121])
    direction = np.stack([np.sin(theta), 0 * theta, np.cos(theta)], axis=1)
    planes = Cone(0.035, 0.12, 5.0).chord(np.zeros((4, 3)), direction)
    np.testing.assert_allclose(planes[1:3, 0], 5.0 / np.cos(theta[1:3]), rtol=1e-12)
    shells = Cone(0.035, 0.12, 5.0, spherical=True).chord(np.zeros((4, 3)), direction)
    np.testing.assert_allclose(shells[1:3, 0], 5.0, rtol=1e-12)
    for chord in (planes, shells):
        assert np.isinf(chord[1:3, 1]).all()
        assert np.isnan(chord[[0, 3]]).all()


def test_parallel_lines_and_origins_inside() -> None:
    cylinder = Cylinder(1.0, 5.0, 10.0)
    origin = np.array([[0.5, 0, 0], [1.5, 0, 0], [0.5, 0, 7.0], [0.5, 0, 12.0]])
    chord = cylinder.chord(origin, np.tile([0.0, 0.0, 1.0], (4, 1)))
    np.testing.assert_array_equal(chord[[0, 2]], [[5.0, 10.0], [0.0, 3.0]])
    assert np.isnan(chord[[1, 3]]).all()
    sideways = cylinder.chord(np.array([[-2.0, 0, 6.0], [-2.0, 0, 4.0]]), np.tile([3.0, 0, 0], (2, 1)))
    np.testing.assert_allclose(sideways[0], [1.0, 3.0], rtol=1e-12)
    assert np.isnan(sideways[1]).all()
    on_surface = Cone(0.0, 0.1, 1.0, 2.0).chord(np.zeros((1, 3)), np.array([[math.tan(0.1), 0.0, 1.0]]))
    assert on_surface.shape == (1, 2)


def test_two_pieces_are_refused_with_advice() -> None:
    shell = Cone(0.1, 0.2, 1.0, 10.0)
    across = np.array([[-5.0, 0.0, 5.0]])
    with pytest.raises(PhysicsError, match="re-enter the shell; divide the volume"):
        shell.chord(across, np.array([[1.0, 0.0, 0.0]]))


@pytest.mark.parametrize(
    ("data", "match"),
    [
        ({"kind": "sphere"}, "'cone', 'frustum', 'box', 'cylinder'"),
        (
            {"kind": "cylinder", "radius": 1.0, "z0": 1.0, "z1": 2.0, "lenght": 1.0},
            r"cylinder\.lenght",
        ),
        ({"kind": "cylinder", "radius": 1.0, "z0": 1.0}, r"cylinder\.z1"),
        ({"kind": "cylinder", "radius": "wide", "z0": 1.0, "z1": 2.0}, r"cylinder\.radius"),
        ({"kind": "cylinder", "radius": 1.0, "z0": 3.0, "z1": 2.0}, "before z1"),
        ({"kind": "cone", "theta_min": 0.2, "theta_max": 0.1, "z_min": 1.0}, "theta_min < theta_max"),
        (
            {"kind": "frustum", "z0": 0, "z1": 1, "half_x0": 0, "half_y0": 1, "half_x1": 1, "half_y1": 1},
            "half_x0",
        ),
        ({"kind": "box", "z0": 3.0, "z1": 2.0, "half_x": 1.0, "half_y": 1.0}, "z0 = 3.0 must lie before z1"),
        ({"kind": "box", "z0": 1.0, "z1": 2.0, "half_x": -1.0, "half_y": 1.0}, r"Box\.half_x = -1\.0 m must"),
        (
            {"kind": "box", "z0": 1.0, "z1": 2.0, "half_x": 1.0, "half_y": math.inf},
            r"Box\.half_y = inf m must",
        ),
        (
            {"kind": "box", "z0": 1.0, "z1": 2.0, "half_x": 1.0, "half_y": 1.0, "angle_x": 3.1},
            r"Box\.angle_x = 3\.1 rad must lie between",
        ),
        ({"kind": "box", "z0": 1.0, "z1": 2.0, "half_x": 1.0}, r"box\.half_y"),
    ],
)
def test_bad_volumes_name_the_key(data: dict[str, Any], match: str) -> None:
    with pytest.raises((ValidationError, PhysicsError), match=match):
        TypeAdapter(Volume).validate_python(data)


def test_bad_lines_are_refused() -> None:
    cylinder = Cylinder(radius=1.0, z0=5.0, z1=10.0)
    with pytest.raises(PhysicsError, match="shape"):
        cylinder.chord(np.zeros((2, 3)), np.zeros((3, 3)))
    with pytest.raises(PhysicsError, match="length"):
        cylinder.chord(np.zeros((1, 3)), np.zeros((1, 3)))


def test_range_in_z_is_that_of_the_corners() -> None:
    box = Box(8.0, 12.0, 0.8, 0.5, x=0.5, angle_x=-0.4, angle_y=0.3)
    climb = math.atan(math.tan(0.3) * math.cos(-0.4))
    turn = Rotation.from_euler("YX", [-0.4, -climb])
    length = 4.0 / turn.apply([0.0, 0.0, 1.0])[2]
    corners = np.stack(np.meshgrid([-0.8, 0.8], [-0.5, 0.5], [0.0, length]), axis=-1).reshape(-1, 3)
    z = 8.0 + turn.apply(corners)[:, 2]
    assert box.z_range == pytest.approx((z.min(), z.max()), rel=1e-12)
    shell = Cone(0.1, 0.4, 5.0, 30.0, apex=1.0, spherical=True)
    angle, length = np.linspace(0.1, 0.4, 50), np.linspace(5.0, 30.0, 50)[:, None]
    z = 1.0 + length * np.cos(angle)
    assert shell.z_range[0] == pytest.approx(z.min(), rel=1e-12)
    assert shell.z_range[1] >= z.max()


@pytest.mark.parametrize("name", ["appendix_b", "na62_dump", "shadows_like", "ship_ecn3"])
def test_shipped_detectors_load(name: str) -> None:
    detector = load_detector(DETECTORS / f"{name}.toml")
    assert detector.beam_energy == 400.0
    assert {"ee", "mumu"} <= set(detector.efficiency)
    assert all(plane.z > detector.volume.z1 for plane in detector.planes)


def test_numbers_of_the_detectors() -> None:
    ship = load_detector(DETECTORS / "ship_ecn3.toml").volume
    for z, half_x, half_y in [(ship.z0, ship.half_x0, ship.half_y0), (ship.z1, ship.half_x1, ship.half_y1)]:
        f = (z - 33.5) / 50
        assert half_x == pytest.approx(0.645 + 1.5 * f)
        assert half_y == pytest.approx(1.495 + 1.65 * f)
    na62 = load_detector(DETECTORS / "na62_dump.toml")
    assert na62.target.position[2] == 23.07
    assert na62.target.interaction_probability == pytest.approx(1.0, abs=1e-8)


TABLE = {  # beam, protons, decays from and to behind the target, planes behind the target, kick of the magnet
    "bebc": (400, 2.72e18, 404.65, 405.9, [405.9], None),
    "charm": (400, 2.4e18, 480, 515, [515], None),
    "darkquest": (120, 1.44e18, 5, 6.16, [6.16, 18.5, 18.79], 0.3 * 3 * 0.4),
    "nucal": (70, 1.7e18, 64, 87, [87], None),
    "shadows_like": (400, 5e19, 10, 30, [33, 33 + 2.5, 33 + 2.5 + 0.5], 0.3 * 1.5),
    "ship_ecn3": (400, 6e20, 33.5 + 1, 83.5 - 1, [84.05, 93.6], 0.3 * 4 * 0.1625),
    "vertex_telescope": (400, 1e13, 0.01, 0.066, [6.136], None),
}


@pytest.mark.parametrize("name", TABLE)
def test_detectors_are_those_of_the_tables(name: str) -> None:
    beam, pot, first, last, planes, kick = TABLE[name]
    detector = load_detector(DETECTORS / f"{name}.toml")
    assert (detector.beam_energy, detector.pot) == (beam, pot)
    assert detector.volume.z_range == pytest.approx((first, last))
    assert [plane.z for plane in detector.planes] == pytest.approx(planes)
    assert (detector.magnet.kick if detector.magnet else None) == pytest.approx(kick)


@pytest.mark.parametrize("path", sorted(DETECTORS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_shipped_card_loads_as_what_it_is(path) -> None:
    load = load_millicharge_detector if path.stem.startswith("mcp_") else load_detector
    card = load(path)
    assert card.source
    assert ("illustrative" in card.name) == getattr(card, "illustrative", "illustrative" in card.name)


def test_detectors_at_the_lhc_and_at_dune() -> None:
    faser, faser2 = (load_detector(DETECTORS / f"{name}.toml") for name in ("faser", "faser2"))
    assert (faser.luminosity, faser2.luminosity) == (27e3, 3000e3)
    assert set(faser.efficiency) == {"ee"}  # the search asks for electrons alone
    assert faser.volume.z_range == pytest.approx((476, 477.5))
    assert (faser.cuts.min_momentum, faser.cuts.min_energy_sum) == (20, 500)
    assert faser2.volume.z_range == pytest.approx((620, 630))
    dune = load_detector(DETECTORS / "dune_nd_gas.toml")
    assert (dune.beam_energy, dune.pot, dune.volume.z_range) == (120, 1.1e21, pytest.approx((580, 584)))
    formosa = load_millicharge_detector(DETECTORS / "mcp_formosa.toml")
    assert (formosa.front.z, formosa.luminosity, formosa.exponent) == (620, 3e6, 2 + 2 * 4)


BESIDE = "half_y = 1.25\nx = 2.25"


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        (
            [("z0 = 10.0", "z0 = -1.0"), (BESIDE, "half_y = 1.25")],
            r"volume: holds the target at \(0, 0, 0\) m, a dump of 19\.6 interaction lengths",
        ),
        ([("z0 = 10.0", "z0 = 0.0"), (BESIDE, "half_y = 1.25")], "begin behind it or beside it"),
        (
            [("19.6 #", "19.6\nposition = [0.0, 0.0, 40.0] #")],
            r"ends at z = 30 m, before the target at \(0, 0, 40\) m",
        ),
        ([("19.6 #", "19.6\nposition = [0.0, inf, 0.0] #")], r"target\.position = .* must be finite"),
        ([("z = 33.0", "z = 9.0")], "plane 'tracker first': z = 9 m lies before .* begins at 10 m"),
        ([("z = 33.0", "z = 33.0\ny = nan")], "plane 'tracker first': y = nan must be finite"),
        ([("kick = 0.45", "kick = nan")], r"magnet\.kick = nan must be finite"),
        ([("z1 = 30.0", "z1 = 9.0")], r"z0 = 10\.0 must lie before z1 = 9\.0"),
        ([("z1 = 30.0", "z1 = nan")], r"z0 = 10\.0 must lie before z1 = nan"),
        ([("half_x = 1.25", "half_x = 0.0")], r"Box\.half_x = 0\.0 m must be positive"),
    ],
)
def test_misplaced_parts_name_file_and_key(tmp_path: Path, changes: Any, match: str) -> None:
    text = (DETECTORS / "shadows_like.toml").read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    text = text.replace("[sources]", '[sources]\n"target.position" = "test"\nplanes = "test"')
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(SteeringError, match=match) as caught:
        load_detector(path)
    assert str(path) in str(caught.value)


def test_a_thin_target_may_stand_in_the_volume() -> None:
    """A search beside the target of a spectrometer; a dump hides what decays in it."""
    telescope = load_detector(DETECTORS / "vertex_telescope.toml")
    around = replace(telescope, volume=Cylinder(math.inf, -0.01, 0.066))
    assert around.volume.holds(around.target.position)
    with pytest.raises(PhysicsError, match="a dump of 1 interaction lengths"):
        replace(around, target=replace(around.target, thickness=1.0))


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("pot = 1.4e17", "pot = -1.0", "pot = -1.0 must be positive"),
        ("z1 = 180.0", "z1 = 180.0\nlength = 75.0", r"cylinder\.length"),
        ("r_max = 1.21", 'r_max = "wide"', r"planes\.2\.r_max"),
        ("[cuts]", "[cutz]", "no source.*cutz.min_momentum"),
        ('magnet = "ALPINIST', 'magnets = "ALPINIST', r"no source for \['magnet\.z', 'magnet\.kick'\]"),
        ("ee = 1.0", "ee = 1.2", "efficiency.ee = 1.2"),
        ('accept_on = "daughters"', 'accept_on = "parent"', "act on leptons"),
    ],
)
def test_bad_detectors_name_file_and_key(tmp_path: Path, old: str, new: str, match: str) -> None:
    text = (DETECTORS / "na62_dump.toml").read_text()
    assert old in text
    path = tmp_path / "bad.toml"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(SteeringError, match=match) as caught:
        load_detector(path)
    assert str(path) in str(caught.value)


def test_unreadable_detector_files(tmp_path: Path) -> None:
    (tmp_path / "broken.toml").write_text("name = ")
    for name in ("absent.toml", "broken.toml"):
        with pytest.raises(InputFileError, match=name):
            load_detector(tmp_path / name)


def test_target_factor_counts_interactions() -> None:
    thin = Exposure(beam_energy=400, target_a=207.2, target_z=82, thickness=0.01, pot=1e13)
    na62 = load_detector(DETECTORS / "na62_dump.toml")
    assert target_factor(thin, na62) == pytest.approx(100.5, rel=1e-4)  # (1 − e^−19.6)/(1 − e^−0.01)
    assert target_factor(thin, load_detector(DETECTORS / "appendix_b.toml")) == pytest.approx(1.0, rel=1e-12)
    scaled = target_factor(thin, na62, scaling="power", alpha=0.9, alpha_inelastic=0.7)
    assert scaled / target_factor(thin, na62) == pytest.approx((63.55 / 207.2) ** 0.2)
    with pytest.raises(PhysicsError, match="needs alpha"):
        target_factor(thin, na62, scaling="power", alpha=0.9)
    with pytest.raises(PhysicsError, match="no exponents"):
        target_factor(thin, na62, alpha=0.9)


def test_another_beam_energy_is_refused() -> None:
    darkquest = Exposure(beam_energy=120, target_a=56, target_z=26, thickness=1.0, pot=1e18)
    with pytest.raises(PortabilityError, match=r"measured at 120 GeV.*stands at 400 GeV"):
        target_factor(darkquest, load_detector(DETECTORS / "na62_dump.toml"))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("min_energy_sum = 10.0", "min_energy_sum = nan", "cuts.min_energy_sum = nan"),
        ("min_energy_sum = 10.0", "min_energy_sum = 500.0", "above 500 GeV are asked of a beam of 70 GeV"),
        ("min_energy_sum = 10.0", "min_energy_sum = 20.0\nmax_energy_sum = 5.0", "nothing lies between"),
        ("min_energy_sum = 10.0", "min_energy_sum = 10.0\nmin_momentum = -1.0", "cuts.min_momentum = -1.0"),
        ("pot = 1.7e18", "pot = true", "pot is true or false"),
        ("ee = 0.7", "ee = true", "efficiency.ee is true or false"),
        ("ee = 0.7", "EE = 0.7", "efficiency.EE: final states are in small letters"),
        ("pot = 1.7e18", "pot = 1.7e18\npot_sigma = nan", "pot_sigma = nan"),
        ("pot = 1.7e18", "pot = 1.7e18\nbackground = -3.5", "background = -3.5"),
        ("pot = 1.7e18", "pot = 1.7e18\nbackground_sigma = inf", "background_sigma = inf"),
    ],
)
def test_numbers_of_a_detector_that_would_silence_it(tmp_path, old, new, said) -> None:
    """Legal TOML with which every lepton fails a cut, or an error or a state counts as something else."""
    path, text = tmp_path / "nucal.toml", (DETECTORS / "nucal.toml").read_text()
    for key in ("pot_sigma", "background", "background_sigma"):
        text = text.replace("[sources]\n", f'[sources]\n{key} = "here"\n') if f"\n{key}" not in text else text
    assert load_detector(_written(path, text)).name == "NuCal"
    changed = text.replace(old, new, 1)
    assert changed != text
    with pytest.raises(SteeringError, match=said):
        load_detector(_written(path, changed))


def _written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path
