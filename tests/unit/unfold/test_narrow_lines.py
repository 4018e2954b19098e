"""A narrow line in a wide bin: photons migrate from where the line is, not from the whole bin."""

import numpy as np
import pytest

from gammastar import unfold
from gammastar.core.pairs import MatchedPairs
from gammastar.core.records import Spectrum, filled, regular, variable
from gammastar.unfold.likelihood_fit import FineResponse, narrow_lines, with_lines
from gammastar.unfold.response_matrix import gathered

AXIS = regular("mass", 12, 0.5, 1.1)
OMEGA, WIDTH = 0.78266, 0.00868


def seen(mass, rng):
    """Measure a mass: 1 % about it, and losses by radiation of 5 % for every third photon."""
    lost = np.where(rng.random(len(mass)) < 0.3, rng.exponential(0.05, len(mass)), 0.0)
    return mass * (1 - lost) * (1 + 0.01 * rng.normal(size=len(mass)))


def simulated(n, rng):
    mass = rng.uniform(0.4, 1.3, n)
    true = np.stack([mass, np.ones(n), np.full(n, 20.0)], axis=1)
    reco = true.copy()
    reco[:, 0] = seen(mass, rng)
    return MatchedPairs(true, reco, np.ones(n), np.arange(n), np.empty((0, 3)), np.empty(0))


def pulls(seed, *, own):
    """Unfold an ω on a falling continuum; return pulls of the bins of AXIS."""
    rng = np.random.default_rng(seed)
    mc = simulated(200_000, rng)
    continuum = 0.4 + rng.exponential(0.25, 6000)
    line = OMEGA + 0.5 * WIDTH * rng.standard_cauchy(6500)
    line = line[np.abs(line - OMEGA) < 0.25][:6000]
    mass = np.concatenate([continuum, line])
    counts = np.histogram(seen(mass, rng), AXIS.edges)[0].astype(float)
    measured = Spectrum(filled((AXIS,), counts, counts), np.diag(counts), "counts", None, np.ones(12, bool))
    plain = FineResponse(unfold.response(mc, (AXIS,), WIDE, n_replicas=0), (AXIS,), lambda part: part)
    known = unfold.fine_response(mc, (AXIS,), (AXIS,)) if own else plain
    found = unfold.likelihood(measured, known, observed=(counts, counts))
    grid = np.linspace(0.5, 1.1, 12 * 50 + 1)
    lorentz = np.diff(np.exp(-(grid - 0.4) / 0.25)) * -6000
    truth = lorentz.reshape(12, 50).sum(axis=1) + np.histogram(line, AXIS.edges)[0]
    return (found.values - truth) / np.sqrt(np.diag(found.cov) + truth), known, (measured, counts, truth)


WIDE = (variable("mass", [0.4, 0.45, *np.asarray(AXIS.edges).tolist(), 1.2, 1.3]),)


@pytest.mark.long
def test_neighbours_of_a_line_are_right_with_a_cell_of_its_own():
    plain, own = (np.array([pulls(seed, own=own)[0] for seed in range(4)]) for own in (False, True))
    near = slice(3, 8)  # 6000 photons of the line among some 800 a bin, a third of which radiate
    before, after = (np.sqrt(np.mean(rows[:, near] ** 2)) for rows in (plain, own))
    assert before > 3.5  # the migration of the whole bin puts the losses of the line elsewhere
    assert after < 0.6 * before
    assert np.sqrt(np.mean(own[:, 5:8] ** 2)) < 1.5


@pytest.mark.long
def test_intervals_of_bins_are_summed_over_their_parts():
    """Within three standard deviations of 36 cells; the bins of the line hold hundreds of pairs."""
    held = []
    for seed in range(3):
        _, known, (measured, counts, truth) = pulls(seed, own=True)
        ends = unfold.cell_intervals(measured, known, observed=(counts, counts))
        held.append((ends[:, 0] <= truth) & (truth <= ends[:, 1]))
    assert np.mean(held) == pytest.approx(0.683, abs=3 * np.sqrt(0.217 / 36))


def test_bins_of_lines_leave_the_edges_that_are_there():
    lines = narrow_lines((AXIS,), [simulated(20_000, np.random.default_rng(1))])
    assert [round(line.pole, 2) for line in lines] == [0.55, 0.78, 1.02]
    (fine,) = with_lines((AXIS,), lines)
    assert set(np.round(AXIS.edges, 9)) <= set(np.round(fine.edges, 9))
    place = np.searchsorted(fine.edges, OMEGA) - 1
    assert fine.edges[place + 1] - fine.edges[place] < 0.06
    sums = gathered((fine, regular("pt", 2, 0, 1)), (AXIS, regular("pt", 2, 0, 1)))
    np.testing.assert_allclose(sums.sum(axis=0), 1)
    np.testing.assert_allclose(
        sums.sum(axis=1).reshape(12, 2)[:, 0], np.histogram(fine.centers, AXIS.edges)[0]
    )


def test_an_axis_without_mass_has_no_lines():
    axes = (regular("energy", 3, 0, 30),)
    assert not narrow_lines(axes, [])
    assert with_lines(axes, []) == axes


@pytest.mark.parametrize("low", [0.5, 0.45])
def test_cells_beyond_the_axes_are_left_out(low):
    wide = (variable("mass", [low, *np.asarray(AXIS.edges).tolist()[1:], 1.4]),)
    sums = gathered(wide, (AXIS,))
    assert sums.shape == (12, 13)
    assert sums.sum() == 12 if low == 0.5 else 11
