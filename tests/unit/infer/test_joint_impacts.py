"""Impacts of the joint likelihood: refits and curvature of pyhf, closed forms, contents at zero."""

from dataclasses import replace

import numpy as np
import pyhf
import pytest
from data_sets import joint_nll
from joint_models import MODELS, as_pyhf, model, peer, slopes_of

from gammastar.core.errors import PhysicsError
from gammastar.infer.discovery import Ranking
from gammastar.infer.joint.discovery import joint_impacts
from gammastar.infer.joint.expectation import Point, arrays_of, fit
from gammastar.report.figures.limits import impact_figure
from gammastar.report.style import png_bytes

WINDOW = model(60.0)
KINDS = (
    "cell_5",
    "like_sign_6",
    "simulation_7",
    "pot",
    "efficiency",
    "r_factor",
    "charm_norm",
    "background_norm",
)


@pytest.fixture(scope="module")
def found():
    """Return the impacts on the observed data, three events."""
    return joint_impacts(WINDOW, data=WINDOW.data, most=50)


@pytest.fixture(scope="module")
def fitted():
    """Return model and data of pyhf, and our fit as its parameters."""
    point = fit(arrays_of(WINDOW), WINDOW.data, most=100.0).point
    built, data = peer(WINDOW)
    return built, data, as_pyhf(WINDOW, built, point.core[0], point.like[0], point.gamma[0])


def place(built, name):
    """Return the index of a parameter of pyhf by our name."""
    kind, _, number = name.rpartition("_")
    if kind in ("like_sign", "simulation"):
        return built.config.par_slice(kind).start + int(number)
    return built.config.par_slice(name).start


@pytest.mark.long
@pytest.mark.parametrize("name", KINDS)
def test_impacts_are_those_of_refits_with_pyhf(found, fitted, name):
    """The parameter is fixed where the impact says, and pyhf fits all others again."""
    built, data, at = fitted
    k, index = found.names.index(name), place(built, name)
    free = at[built.config.poi_index]
    assert found.strength == pytest.approx(free, rel=1e-5)
    step = np.array([-1.0, 1.0]) * found.error[k]
    content = np.isnan(found.pull[k]) or name.startswith("simulation")
    values = at[index] * np.exp(step / at[index]) if content else at[index] + step
    for value, shift in zip(values, found.postfit[k], strict=True):
        start, held = at.copy(), built.config.suggested_fixed()
        start[index], held[index] = value, True
        with slopes_of(WINDOW):
            best = pyhf.infer.mle.fit(data, built, init_pars=start.tolist(), fixed_params=held)
        assert best[built.config.poi_index] - free == pytest.approx(shift, abs=3e-3 * free)


@pytest.mark.long
def test_errors_after_the_fit_are_those_of_the_curvature_of_pyhf(found, fitted):
    """The inverse of second differences of its likelihood, but for the contents that rest at zero."""
    built, data, at = fitted
    bounded = np.array([low >= 0 for low, _ in built.config.suggested_bounds()])
    free = np.flatnonzero(~bounded | (at > 1e-6))
    step, n = 1e-4 * np.eye(len(at))[free], len(free)

    def nll(x):
        return -float(built.logpdf(x, data)[0])

    hessian = np.zeros((n, n))
    for i in range(n):
        for j in range(i + 1):
            both, apart = step[i] + step[j], step[i] - step[j]
            second = nll(at + both) - nll(at + apart) - nll(at - apart) + nll(at - both)
            hessian[i, j] = hessian[j, i] = second / 4e-8
    errors = dict(zip(free.tolist(), np.sqrt(np.diag(np.linalg.inv(hessian))), strict=True))
    for name in KINDS:
        assert found.error[found.names.index(name)] == pytest.approx(errors[place(built, name)], rel=1e-5)


def test_a_factor_of_the_signal_moves_the_strength_by_itself():
    """The pairs know nothing of it: e^∓0.18 before and after the fit."""
    found = joint_impacts(WINDOW, 2.0)
    assert found.strength == pytest.approx(2.0, rel=1e-6)
    k = found.names.index("pot")
    exact = 2.0 * (np.exp([0.18, -0.18]) - 1.0)
    assert found.postfit[k] == pytest.approx(exact, rel=2e-4)
    assert found.prefit[k] == pytest.approx(exact, rel=2e-4)
    assert found.pull[k] == pytest.approx(0.0, abs=1e-6)
    assert found.constraint[k] == pytest.approx(1.0, abs=1e-6)
    largest = np.abs(found.postfit).max(axis=1)
    assert (np.diff(largest) <= 0).all()


def test_pairs_constrain_what_they_measure():
    """The ratio of −− to ++ pairs is as good as free before the fit, and is what they say after it."""
    found = joint_impacts(WINDOW, 2.0, most=50)
    k = found.names.index("charge_ratio")
    assert found.constraint[k] < 0.5
    assert np.abs(found.prefit[k]).max() > 2 * np.abs(found.postfit[k]).max()
    free = found.names.index("cell_5")
    assert np.isnan(found.prefit[free]).all()
    assert np.isnan(found.pull[free])


def test_many_pairs_leave_an_error_of_one_over_their_root():
    """One cell and one bin: the content is known to 1/√n, and the strength follows it inversely."""
    cell, n = np.ones((1, 1)), 400.0
    one = replace(
        MODELS["no effects"],
        pairs=np.array([n]),
        response=cell,
        variance=0 * cell,
        counts=np.array([[n], [0.0], [0.0]]),
        signal=0.01 * cell,
        background=np.array([0.5]),
        r_factor=1.0,
        templates={},
    )
    found = joint_impacts(one, 1.5)
    k = found.names.index("cell_0")
    assert found.error[k] == pytest.approx(1 / np.sqrt(n), rel=1e-4)
    assert found.postfit[k] == pytest.approx(1.5 * (np.exp([0.05, -0.05]) - 1.0), rel=1e-3)


def test_a_content_at_zero_moves_up_to_where_the_likelihood_is_half_lower():
    found = joint_impacts(WINDOW, data=WINDOW.data, most=50)
    at = [k for k, name in enumerate(found.names) if name.startswith("cell_") and found.value[k] < 1e-6]
    assert at
    arrays, data = arrays_of(WINDOW), WINDOW.data
    best = fit(arrays, data, most=100.0)
    for k in at:
        assert found.postfit[k, 0] == 0.0
        core, held = best.point.core.copy(), np.zeros_like(best.point.core)
        column = 1 + int(found.names[k].removeprefix("cell_"))
        core[0, column], held[0, column] = found.error[k], 1.0
        nothing = np.zeros_like(best.point.like)
        point = Point(core, best.point.like, best.point.gamma)
        moved = fit(arrays, data, None, point, most=100.0, held=Point(held, nothing, nothing))
        assert moved.point.core[0, column] == found.error[k]
        rise = joint_nll(arrays, moved.point, data) - joint_nll(arrays, best.point, data)
        assert float(rise[0]) == pytest.approx(0.5, abs=0.15)


@pytest.mark.long
def test_figure_outlines_what_was_known_before_the_fit(found):
    """Free contents have bars, but neither outline nor pull."""
    size = len(found.names)
    figure = impact_figure(
        Ranking(found.names, found.pull, found.constraint, found.postfit, found.prefit), mock=True
    )
    below = figure.axes[0]
    outlines = [bar for bar in below.patches if not bar.get_fill()]
    assert len(below.patches) - len(outlines) == len(outlines) == 2 * size
    drawn = sum(np.isfinite(bar.get_width()) for bar in outlines)
    assert drawn == 2 * np.isfinite(found.pull).sum() < 2 * size
    assert below.get_xlim()[1] > np.nanmax(np.abs(found.prefit))
    assert png_bytes(figure)


def test_without_signal_there_are_no_impacts():
    with pytest.raises(PhysicsError, match="finds no signal"):
        joint_impacts(WINDOW, data=WINDOW.with_search([0.0]))
    with pytest.raises(PhysicsError, match="give `data`"):
        joint_impacts(MODELS["in situ"])
    assert joint_impacts(MODELS["in situ"], data=MODELS["in situ"].data).strength > 0
