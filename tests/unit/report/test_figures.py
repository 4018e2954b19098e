"""Every figure: labels with units, the word MOCK, and what it must show or refuse."""

from __future__ import annotations

import numpy as np
import pytest
from hist import Hist
from hist.storage import Weight

from gammastar.core.errors import PhysicsError
from gammastar.core.records import Reach, Response, Spectrum, regular
from gammastar.report import Contour, Plane, reach_figure
from gammastar.report.figures.kinematics import flow_plane, flow_vs_data, kl_figure, training_figure
from gammastar.report.figures.measured import (
    correlation_matrix,
    efficiency_figure,
    mass_migration,
    mass_projection,
    migration_matrix,
    unfolded_spectrum,
)
from gammastar.report.figures.signal import acceptance_figure, rate_figure

N = 12
EDGES = np.linspace(0.2, 1.1, N + 1)
CENTRES = 0.5 * (EDGES[1:] + EDGES[:-1])
MASS = np.geomspace(0.22, 0.7, 9)
COUPLING = np.logspace(-8, -4, 20)
DIMENSIONLESS = ("acceptance", "efficiency", "in domain [%]", "/ data", "/ truth", "comb.", "varepsilon")
COUNTED = ("pairs / ", "epoch", "stays in bin", "P(", "cell", "correlation", "events")


def _hist(values, variances=None):
    result = Hist(regular("mass", N, 0.2, 1.1), storage=Weight())
    result.view()["value"] = values
    result.view()["variance"] = values if variances is None else variances
    return result


def _reach(lower, upper, signal=10.0):
    reached = upper > lower
    edges = np.where(reached[:, None], np.stack([lower, upper], axis=1), np.nan)
    n = len(MASS)
    return Reach(MASS, edges, np.full(n, signal), np.full(n, 2.3), reached, ("",) * n)


LOWER, UPPER = 2e-7 * (MASS / 0.2) ** 0.8, 3e-6 * (MASS / 0.2) ** -1.9
BANDS = np.stack([np.stack([LOWER * f, UPPER / f], axis=1) for f in (0.6, 0.8, 1.0, 1.3, 1.7)], axis=1)
BANDS[BANDS[..., 1] <= BANDS[..., 0]] = np.nan


def _kinematics(rng, n):
    return rng.gamma(2, 0.25, n), 10 + rng.gamma(3, 25, n), np.ones(n)


@pytest.fixture(scope="module")
def response():
    """A Gaussian resolution of 50 MeV and an efficiency that rises with the mass."""
    matrix = np.exp(-0.5 * ((CENTRES[:, None] - CENTRES) / 0.05) ** 2)
    efficiency = 0.02 + 0.1 * CENTRES
    matrix *= efficiency / matrix.sum(axis=0)
    axes = (regular("mass", N, 0.2, 1.1),)
    replicas = np.stack([matrix * (1 + 0.1 * s) for s in (-1, 0, 1)])
    return Response(matrix, efficiency, np.zeros(N), axes, axes, np.ones(N), replicas)


@pytest.fixture(scope="module")
def drawings(response):
    """One function of `mock` per figure."""
    rng = np.random.default_rng(1)
    pp, mm, signal = np.full(N, 70.0), np.full(N, 50.0), np.linspace(900.0, 100.0, N)
    variance = signal + 2 * np.sqrt(pp * mm) + pp + mm
    ms, data, model = [0.3], [_kinematics(rng, 2000)], [_kinematics(rng, 8000)]
    quantiles = np.tile([-0.04, -0.02, 0.0, 0.02, 0.04], (N, 1))
    contours = [
        Contour("measured", _reach(LOWER, UPPER), "measured", BANDS),
        Contour("all", _reach(LOWER / 2, UPPER * 2), "extrapolated", fraction=np.full((len(MASS), 2), 0.4)),
    ]
    ctau = np.logspace(-3, 2, 20)
    return {
        "unfolded": lambda mock: unfolded_spectrum(
            EDGES, signal, 0.1 * signal, mock=mock, references={"truth": signal}, measured=CENTRES < 0.9
        ),
        "correlation": lambda mock: correlation_matrix(np.diag(variance), EDGES, mock=mock),
        "efficiency": lambda mock: efficiency_figure(response, mock=mock),
        "migration": lambda mock: migration_matrix(response, mock=mock),
        "flow_vs_data": lambda mock: flow_vs_data(ms, data, {"flow": model}, mock=mock, window=0.03),
        "flow_plane": lambda mock: flow_plane(ms, data, model, mock=mock, n_bins=8),
        "kl": lambda mock: kl_figure(CENTRES, np.zeros(N), quantiles, mock=mock, p_value=0.4),
        "training": lambda mock: training_figure([3.0, 2.0, 1.9], [3.1, 2.1, 2.2], mock=mock, best_epoch=1),
        "rate": lambda mock: rate_figure(
            CENTRES, signal, 0.6 * signal, mock=mock, comparisons={"brems": 2 * signal}
        ),
        "acceptance": lambda mock: acceptance_figure(ctau, {0.3: np.exp(-1 / ctau)}, mock=mock),
        "reach": lambda mock: reach_figure(contours, mock=mock, pot=1e18),
    }


@pytest.fixture(scope="module")
def figures(drawings):
    """Every figure from mock data."""
    return {name: draw(True) for name, draw in drawings.items()}


NAMES = [
    "unfolded",
    "correlation",
    "efficiency",
    "migration",
    "flow_vs_data",
    "flow_plane",
    "kl",
    "training",
    "rate",
    "acceptance",
    "reach",
]


def _texts(figure):
    titles = [ax.get_title(loc=where) for ax in figure.axes for where in ("left", "center", "right")]
    return [text.get_text() for ax in figure.axes for text in ax.texts] + titles


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_axes_have_labels_with_units(figures, name):
    labels = [label for ax in figures[name].axes for label in (ax.get_xlabel(), ax.get_ylabel()) if label]
    assert len(labels) >= 2
    for label in labels:
        known = any(word in label for word in (*DIMENSIONLESS, *COUNTED, "POT", "sigma"))
        assert "[" in label or known, label


def test_every_figure_is_checked(figures):
    assert set(NAMES) == set(figures)


@pytest.mark.parametrize("name", NAMES)
def test_mock_is_written_into_figures_of_mock_data_only(figures, drawings, name):
    assert "MOCK" in _texts(figures[name])
    if name in ("unfolded", "reach", "rate"):
        assert not any("MOCK" in text for text in _texts(drawings[name](False)))


def test_the_reach_is_never_called_an_exclusion(figures):
    words = " ".join(_texts(figures["reach"])).lower()
    assert "expected reach" in words
    assert "exclu" not in words


def test_mock_data_cannot_show_an_observed_contour():
    with pytest.raises(PhysicsError, match="mock data exclude nothing"):
        reach_figure([Contour("limit", _reach(LOWER, UPPER), "observed")], mock=True, pot=1e18)


def test_an_empty_reach_says_why():
    empty = Contour("measured", _reach(UPPER, LOWER[::-1] * 1e-3, signal=1.2))
    assert empty.empty
    figure = reach_figure([empty], mock=True, pot=1e12, plane=Plane(log_mass=False))
    words = " ".join(_texts(figure))
    assert "No coupling is reached" in words
    assert "1.2 events" in words
    assert "2.3 are needed" in words


def test_no_contour_at_all_says_so():
    assert "No coupling" in " ".join(_texts(reach_figure([], mock=True, pot=1e12)))


def test_figures_leave_no_state_behind():
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    correlation_matrix(np.eye(3), mock=True)
    assert dict(mpl.rcParams) == before


def test_mass_projection_keeps_correlations():
    axes = (regular("mass", 2, 0, 1), regular("pt", 2, 0, 1))
    hist = Hist(*axes, storage=Weight())
    hist.view()["value"] = [[1, 2], [3, 4]]
    cov = np.full((4, 4), 0.5) + np.eye(4)
    _, values, projected = mass_projection(Spectrum(hist, cov, "counts", None, np.ones((2, 2), bool)))
    np.testing.assert_allclose(values, [3, 7])
    np.testing.assert_allclose(projected, [[4, 2], [2, 4]])  # sums of the 2×2 blocks


def test_mass_migration_averages_cells_with_the_prior():
    axes = (regular("mass", 1, 0, 1), regular("pt", 2, 0, 1))
    matrix = np.diag([0.2, 0.8])
    response = Response(
        matrix, np.array([0.2, 0.8]), np.zeros(2), axes, axes, np.array([3.0, 1.0]), np.empty((0, 2, 2))
    )
    np.testing.assert_allclose(mass_migration(response), [[(3 * 0.2 + 0.8) / 4]])


def test_mass_migration_columns_sum_to_the_efficiency(response):
    np.testing.assert_allclose(mass_migration(response).sum(axis=0), response.efficiency)


def test_a_spectrum_without_mass_is_refused():
    hist = Hist(regular("pt", 2, 0, 1), storage=Weight())
    with pytest.raises(PhysicsError, match="'mass' is needed"):
        mass_projection(Spectrum(hist, np.eye(2), "counts", None, np.ones(2, bool)))


def test_an_empty_window_is_refused():
    none = (np.empty(0), np.empty(0), np.empty(0))
    with pytest.raises(PhysicsError, match="0 pairs"):
        flow_vs_data([0.3], [none], {}, mock=True)


def test_samples_must_match_the_masses():
    with pytest.raises(PhysicsError, match="0 samples for 1 masses"):
        flow_plane([0.3], [], [], mock=True)


def test_figures_without_content_say_why():
    nothing = np.full((3, 5), np.nan)
    for figure, words in (
        (acceptance_figure(MASS, {0.3: 0 * MASS}, mock=True), "No particle"),
        (kl_figure(MASS[:3], nothing[:, 0], nothing, mock=True), "No window"),
    ):
        assert any(words in text for text in _texts(figure))


@pytest.mark.parametrize("values", [np.zeros(N), np.resize([3.0, -1.0, 0.0, 2.0], N)])
def test_few_pairs_and_negative_cells_are_drawn(values):
    variance = np.abs(values)
    assert "MOCK" in _texts(unfolded_spectrum(EDGES, values, variance, mock=True, measured=values > 9))
    assert "MOCK" in _texts(rate_figure(CENTRES, values, variance, mock=True))


def test_a_training_without_epochs_is_refused():
    with pytest.raises(PhysicsError, match="no epoch"):
        training_figure([], [], mock=True)


def test_wrong_shapes_are_named():
    with pytest.raises(PhysicsError, match="errors has shape"):
        unfolded_spectrum(EDGES, np.ones(N), np.ones(3), mock=True)
