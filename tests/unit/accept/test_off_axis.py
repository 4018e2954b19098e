"""A volume and planes beside the beam: moved together nothing changes, and plain decays are counted alike."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from builders import ROOT, particles

from gammastar import accept
from gammastar.core.constants import M_MU
from gammastar.physics.detector import Detector, load_detector

MASS, CTAU = 0.5, 0.2
OFF_AXIS = load_detector(ROOT / "data" / "detectors" / "shadows_like.toml")


def flying(n: int):
    """Return particles between 20 and 300 mrad beside the beam, towards the detector and away from it."""
    rng = np.random.default_rng(3)
    momentum, theta = 5.0 + rng.exponential(15.0, n), rng.uniform(0.02, 0.3, n)
    phi = rng.uniform(-0.8, 0.8, n)
    side = momentum * np.sin(theta)
    return particles(side * np.cos(phi), side * np.sin(phi), momentum * np.cos(theta), MASS)


def seen(detector: Detector, sample) -> accept.LifetimeScan:
    rng = np.random.default_rng(4)
    return accept.lifetime_scan(sample, MASS, CTAU, detector, states={"mumu": 1.0}, rng=rng)


def test_only_the_place_relative_to_the_target_counts() -> None:
    """The frame of the detector, with the beam beside it, gives what the frame of the beam gives."""
    step = np.array([-2.25, 0.4, 23.07])
    volume = OFF_AXIS.volume
    moved = replace(
        OFF_AXIS,
        target=replace(OFF_AXIS.target, position=tuple(step)),
        volume=replace(
            volume, x=volume.x + step[0], y=step[1], z0=volume.z0 + step[2], z1=volume.z1 + step[2]
        ),
        planes=tuple(replace(p, x=p.x + step[0], y=step[1], z=p.z + step[2]) for p in OFF_AXIS.planes),
        magnet=replace(OFF_AXIS.magnet, z=OFF_AXIS.magnet.z + step[2]),
    )
    sample = flying(4000)
    here, there = seen(OFF_AXIS, sample), seen(moved, sample)
    assert here.accepted[0] > 0
    np.testing.assert_allclose(there.accepted, here.accepted, rtol=1e-9)


def test_plain_decays_are_counted_alike() -> None:
    """Decays wherever they happen, muons on straight lines bent once: no chord and no weight in it."""
    sample = flying(250_000)
    ours = seen(OFF_AXIS, sample)
    rng = np.random.default_rng(5)
    p = np.stack([np.asarray(c) for c in (sample.p4.px, sample.p4.py, sample.p4.pz)], axis=1)
    total = np.linalg.norm(p, axis=1)
    along = p / total[:, None]
    vertex = along * (rng.exponential(1.0, len(p)) * CTAU * total / MASS)[:, None]
    box, beside = OFF_AXIS.volume, vertex - [2.25, 0.0, 20.0]
    alive = (np.abs(beside) < [box.half_x, box.half_y, 10.0]).all(axis=1)
    p, total, along, vertex = p[alive], total[alive], along[alive], vertex[alive]
    # two muons back to back in the rest frame, boosted along the flight
    back = rng.normal(size=p.shape)
    back *= (np.sqrt(MASS**2 / 4 - M_MU**2) / np.linalg.norm(back, axis=1))[:, None]
    gamma, velocity = np.hypot(total, MASS) / MASS, total / np.hypot(total, MASS)
    parallel = (back * along).sum(axis=1)
    good, places, energies = np.ones(len(p), bool), [], []
    for sign in (1, -1):
        push = (gamma - 1) * sign * parallel + gamma * velocity * MASS / 2
        muon = sign * back + push[:, None] * along
        energy = np.sqrt((muon**2).sum(axis=1) + M_MU**2)
        energies.append(energy)
        good &= (np.linalg.norm(muon, axis=1) > 1.0) & (muon[:, 2] > 0)
        where = []
        for plane in OFF_AXIS.planes:
            x, y = (vertex[:, i] + muon[:, i] / muon[:, 2] * (plane.z - vertex[:, 2]) for i in (0, 1))
            x = x + sign * 0.45 / muon[:, 2] * max(plane.z - 34.25, 0.0)
            good &= (np.abs(x - 2.25) < 1.25) & (np.abs(y) < 1.25)
            where.append((x, y))
        places.append(where[-1])
    good &= np.hypot(places[0][0] - places[1][0], places[0][1] - places[1][1]) > 0.1
    good &= energies[0] + energies[1] > 3.0
    share = good.sum() / 250_000
    error = np.hypot(np.sqrt(good.sum()) / 250_000, ours.mc_error[0])
    assert good.sum() > 300
    assert abs(share - ours.accepted[0]) < 4 * error
