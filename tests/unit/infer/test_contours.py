"""Contours of yields whose edges and tip are known in closed form."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.special import lambertw

from gammastar.core.errors import PhysicsError
from gammastar.core.records import Limit
from gammastar.infer import reach, upper_limit

LIMIT = 2.4857
NORM, FALL, SCALE = 2e28, 0.12, 1e-13  # N = NORM e^{−m/FALL} u² e^{−u/u₀}, u = g², u₀ = SCALE/m²


def _signal(mass, coupling):
    u = coupling**2
    return NORM * np.exp(-mass / FALL) * u**2 * np.exp(-u * mass**2 / SCALE)


def _edges(mass, limit=LIMIT):
    """The two real branches of the Lambert function."""
    u0 = SCALE / mass**2
    argument = -np.sqrt(limit / (NORM * np.exp(-mass / FALL))) / (2 * u0)
    return np.sqrt(-2 * u0 * np.array([lambertw(argument, 0).real, lambertw(argument, -1).real])).T


def _peak(mass):
    return 4 * NORM * np.exp(-mass / FALL - 2) * (SCALE / mass**2) ** 2


TIP = brentq(lambda m: _peak(m) - LIMIT, 0.2, 3.0)
MASS = np.linspace(0.21, 1.6, 40)
COUPLING = np.geomspace(1e-9, 1e-4, 101)
GRID = _signal(MASS[:, None], COUPLING)


def test_grid_is_fit_for_the_tests():
    assert 0.5 < TIP < 1.3


@pytest.mark.parametrize(("signal", "tolerance"), [(GRID, 3e-3), (_signal, 1e-9)], ids=["grid", "function"])
def test_both_edges(signal, tolerance):
    found = reach(MASS, COUPLING, signal, LIMIT)
    reached = np.isfinite(found.edges[:, 0])
    assert found.mass == pytest.approx(MASS)
    assert np.array_equal(reached, MASS < TIP)
    error = np.log10(found.edges[reached] / _edges(MASS[reached]))
    assert np.abs(error).max() < tolerance
    assert found.signal == pytest.approx(_peak(MASS), rel=1e-2)


@pytest.mark.parametrize("signal", [GRID, _signal], ids=["grid", "function"])
def test_tip(signal):
    tip = reach(MASS, COUPLING, signal, LIMIT).tip
    assert tip is not None
    assert tip[0] == pytest.approx(TIP, abs=1e-3)
    assert np.log10(tip[1]) == pytest.approx(np.log10(np.sqrt(2 * SCALE) / TIP), abs=0.01)


def test_coarse_scan_meets_the_bar():
    """Within 0.01 of a decade from 750 yields."""
    mass, coupling = np.linspace(0.21, TIP - 0.02, 25), np.geomspace(1e-8, 1e-5, 30)
    found = reach(mass, coupling, _signal(mass[:, None], coupling), LIMIT)
    assert np.abs(np.log10(found.edges / _edges(mass))).max() < 0.01


def test_first_mass_is_clipped():
    found = reach(MASS, COUPLING, GRID, LIMIT)
    assert found.clipped_side[0] == "lower mass"
    assert not found.closed[0]
    assert found.closed[1:].all()


def test_threshold():
    mass = np.linspace(0.15, 1.0, 18)
    found = reach(mass, COUPLING, _signal(mass[:, None], COUPLING), LIMIT, threshold=0.2113)
    below = found.mass < 0.2113
    assert below.sum() == 2
    assert np.isnan(found.edges[below]).all()
    assert found.clipped_side[2] == "lower mass"


def test_clipped_in_coupling():
    middle = np.geomspace(2e-7, 1e-6, 40)
    found = reach([0.3], middle, _signal(np.array([[0.3]]), middle), LIMIT)
    assert found.clipped_side == ("lower, upper",)
    assert found.edges[0] == pytest.approx([2e-7, 1e-6])
    from_low = np.geomspace(1e-9, 1e-6, 60)
    found = reach([0.3], from_low, _signal(np.array([[0.3]]), from_low), LIMIT)
    assert found.clipped_side == ("upper",)
    assert not found.closed[0]


def test_stops_with_populated_energies():
    last = 1.2e-6
    reliable = np.broadcast_to(last > COUPLING, GRID.shape)
    found = reach(MASS, COUPLING, GRID, LIMIT, reliable=reliable)
    exact = _edges(MASS[0])
    assert found.edges[0] == pytest.approx([exact[0], COUPLING[last > COUPLING][-1]], rel=1e-2)
    assert found.clipped_side[0] == "upper"
    nothing = reach(MASS, COUPLING, GRID, LIMIT, reliable=np.zeros_like(reliable))
    assert np.isnan(nothing.edges).all()


def test_narrow_island_between_couplings():
    """A peak narrower than the scan, below the limit at every point of it."""

    def narrow(mass, coupling):
        return 4.0 * np.exp(-((np.log10(coupling) + 6.0) ** 2) / (2 * 0.05**2)) + 0.0 * mass

    scan = 10.0 ** np.linspace(-7.1, -4.9, 12)
    assert narrow(1.0, scan).max() < LIMIT
    found = reach([0.3], scan, narrow, LIMIT)
    half = 0.05 * np.sqrt(2 * np.log(4.0 / LIMIT))
    assert np.log10(found.edges[0]) == pytest.approx([-6 - half, -6 + half], abs=1e-6)
    assert found.signal == pytest.approx([4.0], rel=1e-6)


def test_two_islands():
    x = np.log10(COUPLING)
    two = 50 * np.exp(-(((x + 7) / 0.3) ** 2)) + 20 * np.exp(-(((x + 5) / 0.2) ** 2))
    found = reach([0.3, 0.4], COUPLING, [two, 0.01 * two], LIMIT)
    assert found.mass == pytest.approx([0.3, 0.3, 0.4])
    assert found.edges[0, 1] < found.edges[1, 0]
    assert found.signal[:2] == pytest.approx([50, 20], rel=1e-3)
    half = 0.2 * np.sqrt(np.log(20 / LIMIT))
    assert np.log10(found.edges[1]) == pytest.approx([-5 - half, -5 + half], abs=1e-3)


def test_bands_follow_the_expected_limits():
    limit = upper_limit(0.0094, np.log(4), "masked", signal_sigma=np.log(1.2))
    found = reach(MASS, COUPLING, GRID, limit)
    assert found.bands.shape == (len(found.mass), 5, 2)
    for column, value in enumerate(limit.expected):
        reached = np.isfinite(found.bands[:, column, 0])
        assert np.array_equal(reached, _peak(MASS) > value)
        exact = _edges(MASS[reached], value)
        assert np.abs(np.log10(found.bands[reached, column] / exact)).max() < 3e-3
    assert found.limit == pytest.approx(np.full(len(MASS), limit.expected[2]))
    assert np.allclose(found.bands[:, 2], found.edges, equal_nan=True)
    assert (np.diff(found.bands[:10, :, 0], axis=1) > 0).all()


def test_observed_beats_expected():
    limit = Limit(5.0, np.array([2.0, 2.2, 2.4, 3.0, 4.0]), 0.9, "exact", 0.0)
    assert reach(MASS, COUPLING, GRID, limit).limit[0] == 5.0


def test_nothing_reached():
    found = reach(MASS, COUPLING, np.zeros_like(GRID), LIMIT, expected=np.full(5, LIMIT))
    assert np.isnan(found.edges).all()
    assert np.isnan(found.bands).all()
    assert not found.signal.any()
    assert found.tip is None
    assert set(found.clipped_side) == {""}


def test_empty_cells_above_the_upper_edge():
    """No particle left at large couplings: the edge stays between the last two points."""
    cut = np.where(COUPLING < 2e-6, GRID, 0.0)
    found = reach(MASS[:1], COUPLING, cut[:1], LIMIT)
    last = np.searchsorted(COUPLING, 2e-6)
    assert COUPLING[last - 1] <= found.edges[0, 1] <= COUPLING[last]


@pytest.mark.long
@settings(max_examples=30, deadline=None)
@given(st.floats(0.5, 100.0), st.floats(1.01, 3.0))
def test_weaker_limit_smaller_reach(limit, factor):
    wide = reach(MASS[:15], COUPLING, GRID[:15], limit)
    tight = reach(MASS[:15], COUPLING, GRID[:15], limit * factor)
    both = np.isfinite(tight.edges[:, 0])
    assert np.isfinite(wide.edges[both]).all()
    assert (tight.edges[both, 0] > wide.edges[both, 0]).all()
    assert (tight.edges[both, 1] < wide.edges[both, 1]).all()


@pytest.mark.parametrize(
    ("mass", "coupling", "signal", "limit", "options"),
    [
        (MASS[::-1], COUPLING, GRID, LIMIT, {}),
        (MASS, COUPLING[::-1], GRID, LIMIT, {}),
        (MASS, -COUPLING, GRID, LIMIT, {}),
        (MASS, COUPLING, GRID.T, LIMIT, {}),
        (MASS, COUPLING, -GRID, LIMIT, {}),
        (MASS, COUPLING, np.full_like(GRID, np.nan), LIMIT, {}),
        (MASS, COUPLING, GRID, 0.0, {}),
        (MASS, COUPLING, GRID, np.nan, {}),
        (MASS, COUPLING, GRID, [1.0, 2.0], {}),
        (MASS, COUPLING, GRID, LIMIT, {"expected": [1.0, 2.0]}),
        (MASS, COUPLING, GRID, LIMIT, {"reliable": [True]}),
    ],
)
def test_refused(mass, coupling, signal, limit, options):
    with pytest.raises(PhysicsError, match="reach:"):
        reach(mass, coupling, signal, limit, **options)


def _hill(mass, coupling, at, width, height):
    """An island whose edges and ends are closed: ln N is a parabola in mass and in log10 of the coupling."""
    log = np.log10(coupling)
    return height * np.exp(-(((mass - at[0]) / width[0]) ** 2) - ((log - at[1]) / width[1]) ** 2)


CASES = {  # masses of the scan and hills: (mass, log10 g), widths, height; several reach beyond the scan
    "apart": ((0.2, 1.4), [((0.45, -7.0), (0.12, 0.4), 30.0), ((1.0, -5.0), (0.15, 0.4), 30.0)]),
    "overlap in mass": ((0.2, 1.6), [((0.6, -7.5), (0.2, 0.3), 30.0), ((1.0, -5.0), (0.2, 0.3), 40.0)]),
    "one inside the other": ((0.2, 1.6), [((0.8, -7.5), (0.4, 0.3), 30.0), ((0.8, -5.0), (0.1, 0.3), 90.0)]),
    "one ends where another begins": (
        (0.2, 1.4),
        [((0.5, -7.0), (0.15, 0.4), 30.0), ((1.0, -5.0), (0.15, 0.4), 30.0)],
    ),
    "clipped on both sides": (
        (0.5, 1.1),
        [((0.45, -7.0), (0.1, 0.4), 30.0), ((1.1, -5.0), (0.15, 0.4), 9.0)],
    ),
    "three, the last clipped": (
        (0.2, 1.2),
        [((0.3, -6.0), (0.05, 0.4), 9.0), ((0.7, -6.0), (0.1, 0.4), 9.0), ((1.2, -6.5), (0.1, 0.4), 9.0)],
    ),
}


def _true_intervals(bounds, signal, limit):
    """Intervals of mass from a dense grid of its own: where the largest signal exceeds the limit."""
    mass = np.linspace(*bounds, 4001)
    above = signal(mass[:, None], np.geomspace(1e-9, 1e-3, 601)).max(axis=1) > limit
    step = np.flatnonzero(np.diff(np.r_[False, above, False].astype(int)))
    return [(mass[a], mass[b - 1]) for a, b in zip(step[::2], step[1::2], strict=True)]


@pytest.mark.long
@pytest.mark.parametrize("per_coupling", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_every_interval_of_masses(case, per_coupling):
    bounds, hills = CASES[case]

    def signal(mass, coupling):
        return sum(_hill(mass, coupling, *hill) for hill in hills)

    mass, coupling = np.linspace(*bounds, 31), np.geomspace(1e-9, 1e-3, 121)
    limit = np.full((31, 121), LIMIT) if per_coupling else LIMIT
    found = reach(mass, coupling, signal(mass[:, None], coupling), limit)
    wanted = _true_intervals(bounds, signal, LIMIT)
    assert len(found.intervals) == len(wanted)
    for interval, (low, high) in zip(found.intervals, wanted, strict=True):
        assert (interval.low, interval.high) == pytest.approx((low, high), abs=1e-3)
        assert interval.low_closed == (low > bounds[0])
        assert interval.high_closed == (high < bounds[1])
    last = found.intervals[-1]
    assert found.tip == ((last.high, last.high_coupling) if last.high_closed else None)
    tops = [hill[0][1] for hill in hills]
    for interval in found.intervals:
        assert min(abs(np.log10(interval.high_coupling) - top) for top in tops) < 0.05


def test_each_island_has_its_own_ends():
    """Of two islands that overlap in mass, the one that ends first ends at its own tip."""
    _, hills = CASES["overlap in mass"]
    mass, coupling = np.linspace(0.2, 1.6, 31), np.geomspace(1e-9, 1e-3, 121)
    found = reach(mass, coupling, sum(_hill(mass[:, None], coupling, *hill) for hill in hills), LIMIT)
    for (centre, log), width, height in hills:
        half = width[0] * np.sqrt(np.log(height / LIMIT))
        own = np.isfinite(found.edges[:, 0]) & (np.abs(np.log10(found.peak) - log) < 0.5)
        ends = found.ends[own]
        assert np.isfinite(ends[:, :, 0]).sum() == 2
        assert ends[0, 0] == pytest.approx([centre - half, 10**log], rel=1e-2)
        assert ends[-1, 1] == pytest.approx([centre + half, 10**log], rel=1e-2)


def test_an_end_at_the_last_coupling_is_not_closed():
    """The hill goes on beyond the couplings that were looked at: the scan ends there, not the contour."""
    mass, coupling = np.linspace(0.2, 1.4, 31), np.geomspace(1e-9, 1e-7, 61)
    found = reach(mass, coupling, _hill(mass[:, None], coupling, (0.8, -6.8), (0.2, 0.4), 30.0), LIMIT)
    (interval,) = found.intervals
    assert not interval.low_closed
    assert not interval.high_closed
    assert found.tip is None


def test_masses_without_reliable_yields_clip():
    mass, coupling = np.linspace(0.2, 1.4, 31), np.geomspace(1e-9, 1e-5, 61)
    grid = _hill(mass[:, None], coupling, (0.8, -7.0), (0.3, 0.4), 30.0)
    reliable = np.ones_like(grid, dtype=bool)
    reliable[mass > 0.9] = False
    (interval,) = reach(mass, coupling, grid, LIMIT, reliable=reliable).intervals
    assert interval.low_closed
    assert not interval.high_closed
    assert interval.high == pytest.approx(mass[mass <= 0.9][-1])


def test_each_edge_has_its_own_limit():
    """Where the limit changes along the coupling, the yield at an edge is the limit there."""
    mass, coupling = np.array([0.5, 0.6]), np.geomspace(1e-9, 1e-5, 161)
    limit = 2.3 * (coupling / 1e-7) ** 0.25 * np.ones((2, 1))
    grid = _hill(mass[:, None], coupling, (0.5, -7.0), (0.3, 0.6), 60.0)
    found = reach(mass, coupling, grid, limit)
    signal = _hill(found.mass[:, None], found.edges, (0.5, -7.0), (0.3, 0.6), 60.0)
    assert found.edge_limits == pytest.approx(signal, rel=5e-3)
    assert (found.edge_limits[:, 1] > 1.5 * found.edge_limits[:, 0]).all()
    assert found.limit == pytest.approx(2.3 * (found.peak / 1e-7) ** 0.25, rel=1e-6)
    plain = reach(mass, coupling, grid, LIMIT)
    assert plain.edge_limits == pytest.approx(np.full((2, 2), LIMIT))


def test_a_narrow_island_that_moves_between_masses_is_one():
    """Islands of neighbouring masses share no coupling; the hill goes on between them, above the limit."""
    mass, coupling = np.linspace(0.3, 0.7, 5), np.geomspace(1e-7, 1e-5, 161)

    def signal(m, g):
        return 1.25 * LIMIT * np.exp(-0.5 * ((np.log(g) - np.log(1e-6) + 6.0 * (m - 0.5)) / 0.4) ** 2)

    found = reach(mass, coupling, signal(mass[:, None], coupling), LIMIT)
    assert (found.edges[:-1, 0] > found.edges[1:, 1]).all()
    assert [(one.low, one.high) for one in found.intervals] == [(0.3, 0.7)]
    assert np.isnan(found.ends).all()  # no island has a tip: each goes on to the next mass


def test_roots_do_not_ask_for_the_scan_again():
    """Yields of simulations are dear: brackets of edges are points of the scan, whose yields are known."""
    mass, coupling, asked = np.array([0.3, 0.4]), np.geomspace(1e-8, 1e-5, 14), []

    def signal(m, g):
        asked.extend(np.abs(np.log(g[:, None] / coupling)).min(axis=1))
        return _signal(m, g)

    found = reach(mass, coupling, signal, LIMIT)
    assert np.abs(np.log10(found.edges / _edges(mass))).max() < 1e-9
    assert np.sum(np.array(asked) < 1e-9) == mass.size * coupling.size
