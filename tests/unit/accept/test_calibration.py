"""The designed calibration run measures what it promises: thrown runs, own decays, exact sums."""

import numpy as np
import pytest
from builders import box_detector, particles

from gammastar.accept import yields
from gammastar.accept.calibration import (
    Cells,
    Windows,
    WindowScan,
    central_interval,
    dimuons_in_windows,
    in_cells,
    protons_needed,
    scan_windows,
)
from gammastar.core.constants import M_MU
from gammastar.core.errors import PhysicsError
from gammastar.physics.geometry import Cone

MASS, BEAM, SHIELD = 0.5, 400.0, 5.0
PER_PROTON = 2e-9  # dimuons of the mass bin per proton on target


def photons(n, rng):
    """Return px, py, pz, E of virtual photons, by a law of the test."""
    theta, phi = rng.gamma(2.0, 0.02, n), rng.uniform(-np.pi, np.pi, n)
    energy = np.minimum(MASS + rng.gamma(2.5, 12.0, n), 390.0)
    p = np.sqrt(energy**2 - MASS**2)
    across = p * np.sin(theta)
    return np.stack([across * np.cos(phi), across * np.sin(phi), p * np.cos(theta), energy])


def muons(p, rng):
    """Return both muons of isotropic decays: back to back at rest, then boosted by matrices."""
    n = p.shape[1]
    direction = rng.normal(size=(3, n))
    direction /= np.linalg.norm(direction, axis=0)
    star = np.sqrt(MASS**2 / 4 - M_MU**2)
    beta, gamma = p[:3] / p[3], p[3] / MASS
    found = []
    for sign in (1, -1):
        q, e = sign * star * direction, MASS / 2
        along = np.sum(beta * q, axis=0)
        factor = gamma**2 / (gamma + 1) * along + gamma * e
        found.append(np.concatenate([q + factor * beta, [gamma * (e + along)]]))
    return found


def seen(p, rng, low, high, least):
    """Return which pairs have both muons between two angles and above a momentum."""
    good = np.ones(p.shape[1], dtype=bool)
    for q in muons(p, rng):
        theta = np.arctan2(np.hypot(q[0], q[1]), q[2])
        good &= (theta > low) & (theta < high) & (np.linalg.norm(q[:3], axis=0) > least)
    return good


class Model:
    """Decays after 0.1 m of proper flight at coupling 0.1."""

    def ctau(self, _, coupling):
        return 1e-3 / np.asarray(coupling) ** 2

    def branching(self, _):
        return {"mumu": 1.0}


@pytest.fixture(scope="module")
def designed():
    """Return cells, signal of each, pairs per proton of each in a spectrometer, and protons for 10 %."""
    rng = np.random.default_rng(3)
    p = photons(40_000, rng)
    volume = Cone(0.035, 0.120, SHIELD, np.inf, spherical=True)
    detector = box_detector(volume=volume, efficiency={"mumu": 1.0})
    sample, cells = particles(*p[:3], MASS), Cells.below(BEAM)
    cell, n_cells = cells.index(p), int(np.prod(cells.shape))

    def run(part, _):
        return yields(part, MASS, [0.1], Model(), detector, final_states=["mumu"], rng=rng)

    signal, parts = in_cells(sample, cell, n_cells, run)
    whole = np.mean([part.signal for part in parts], axis=0)
    assert signal.mean(axis=0).sum(axis=0) == pytest.approx(whole, rel=1e-12)
    windows = Windows(np.array([0.01]), np.array([0.2]), 3.0)
    weight = np.full(p.shape[1], PER_PROTON / p.shape[1])
    found = dimuons_in_windows((p, MASS, weight), cell, n_cells, windows, rng)
    produced = np.bincount(cell, weight, n_cells)
    share, protons, covered = scan_windows(signal, produced, found, floor=0.1, precision=0.1)
    known = signal.mean(axis=0)[:, 0] * covered[:, 0, 0]
    return (
        cells,
        known,
        np.where(covered, found, 0.0)[:, 0, 0],
        float(protons[0, 0, 0]),
        float(share[0, 0, 0]),
    )


def test_thrown_runs_of_that_size_know_the_signal_to_the_wanted_precision(designed):
    """Poisson pairs by another generator and other decays; yields from their counts in the cells."""
    cells, signal, pairs, protons, share = designed
    assert share > 0.8
    rng, found = np.random.default_rng(4), []
    response = np.divide(signal, pairs * protons, out=np.zeros_like(signal), where=pairs > 0)
    for _ in range(300):
        p = photons(rng.poisson(protons * PER_PROTON), rng)
        p = p[:, seen(p, rng, 0.01, 0.2, 3.0)]
        found.append(response[cells.index(p)].sum())
    pull = (np.array(found) / signal.sum() - 1) / 0.1
    assert abs(pull.mean()) < 4 / np.sqrt(300) + 0.1  # the sample of the design is finite, too
    assert pull.std(ddof=1) == pytest.approx(1.0, abs=4 / np.sqrt(600))


def test_signal_of_the_cells_is_that_of_the_formula():
    """Behind a spherical shield with an open end every particle has its own e^(−L m/(cτ p))."""
    rng = np.random.default_rng(5)
    p = photons(20_000, rng)
    theta, momentum = np.arctan2(np.hypot(p[0], p[1]), p[2]), np.linalg.norm(p[:3], axis=0)
    expected = np.exp(-SHIELD * MASS / (0.1 * momentum)) * (theta > 0.035) * (theta < 0.120)
    detector = box_detector(
        volume=Cone(0.035, 0.120, SHIELD, np.inf, spherical=True), efficiency={"mumu": 1.0}
    )
    cells = Cells.below(BEAM)
    cell = cells.index(p)

    def run(part, _):
        return yields(part, MASS, [0.1], Model(), detector, final_states=["mumu"], rng=rng)

    signal, _ = in_cells(particles(*p[:3], MASS), cell, int(np.prod(cells.shape)), run)
    wanted = np.bincount(cell, expected / 20_000, int(np.prod(cells.shape))) * 1e15 * 0.01
    assert signal.mean(axis=0)[:, 0] == pytest.approx(wanted, rel=1e-9, abs=1e-9)


def test_pairs_in_a_window_are_those_of_other_decays():
    rng = np.random.default_rng(6)
    p = photons(20_000, rng)
    windows = Windows(np.array([1e-9, 0.01, 0.03]), np.array([0.06, 0.2, 3.2]), 2.0)
    one = np.zeros(p.shape[1], dtype=int)
    table = dimuons_in_windows((p, MASS, np.full(p.shape[1], 1 / p.shape[1])), one, 1, windows, rng)[0]
    for i, low in enumerate(windows.theta_min):
        for j, high in enumerate(windows.theta_max):
            share = np.mean([seen(p, rng, low, high, 2.0).mean() for _ in range(5)])
            assert table[i, j] == pytest.approx(share, abs=4 * np.sqrt(0.25 / 20_000))
    every = Windows(np.array([0.0]), np.array([3.2]), 0.0)
    assert dimuons_in_windows((p, MASS, np.ones(p.shape[1])), one, 1, every, rng) == pytest.approx(20_000)


def test_squares_are_free_of_the_noise_of_the_sample():
    """Twenty cells of equal signal, each known to 60 % only: 1.36 times too many protons, but in batches."""
    rng = np.random.default_rng(7)
    pairs, exact = np.full(20, 1e-8), 5e8  # 1/(20 ν 0.1²)
    batches = 1 + 0.6 * np.sqrt(8) * rng.normal(size=(2000, 8, 20))
    plain = np.mean([protons_needed(b.mean(axis=0), pairs, 0.1) for b in batches[:1000]])
    assert protons_needed(np.ones(20), pairs, 0.1) == pytest.approx(exact)
    unbiased = np.array([protons_needed(b, pairs, 0.1) for b in batches])
    assert plain == pytest.approx(1.36 * exact, rel=0.05)
    assert np.nanmean(unbiased) == pytest.approx(exact, rel=0.05)


def test_equation_18_by_hand():
    assert protons_needed([3.0, 1.0], [1e-6, 1e-8], 0.1) == pytest.approx((9e6 + 1e8) / 16 / 0.01)
    assert protons_needed([3.0, 1.0], [1e-6, 0.0], 0.1) == pytest.approx(1e6 / 0.01)  # that cell is left out
    assert protons_needed([1.0], [1e-6], 0.1, background=0.5) == pytest.approx(2e8)
    assert protons_needed([1e-200], [1e-6], 0.1) == pytest.approx(1e8)
    assert np.isinf(protons_needed([1.0], [0.0], 0.1))
    with pytest.raises(PhysicsError, match="precision = 0 must be positive"):
        protons_needed([1.0], [1.0], 0)
    with pytest.raises(PhysicsError, match="not of the same cells"):
        protons_needed([1.0, 2.0], [1.0], 0.1)


def test_the_narrowest_spectrometer_that_covers_enough():
    windows = Windows(np.array([1e-3, 1e-2]), np.array([2e-2, 2e-1]), 3.0)
    share = np.array([[[0.5, 0.95], [0.4, 0.91]]])
    scan = WindowScan(windows, share, np.ones_like(share))
    assert scan.narrowest(0.9) == (1, 1)
    assert scan.narrowest(0.93) == (0, 1)
    assert scan.narrowest(0.3) == (1, 0)
    assert scan.narrowest(0.99) == (0, 1)  # nearly all that any of them covers


def test_central_intervals_and_cells():
    edges = np.geomspace(1.0, 1e4, 5)
    assert central_interval(edges, np.ones(4), 0.9) == pytest.approx((10**0.2, 10**3.8))
    assert np.isnan(central_interval(edges, np.zeros(4), 0.9)).all()
    cells = Cells(np.array([1e-3, 1e-2, 1e-1]), np.array([1.0, 10.0, 100.0]))
    p = np.array([[0.0, 0.0, 2.0, 0.0], [0.0, 1.0, 0.0, 0.0], [5.0, 50.0, 20.0, 500.0], [5, 50, 20, 500.0]])
    assert cells.index(p).tolist() == [0, 3, 3, 1]
