"""Trees on bins: those that scikit-learn grows from the features themselves."""

import numpy as np
import pytest
import sklearn
from sklearn.ensemble import HistGradientBoostingClassifier

from gammastar.unfold.omnifolding import fit_trees


def sample(n, rng):
    label = rng.integers(2, size=n)
    x = np.column_stack([rng.normal(0.5 * label), rng.gamma(2.0 + label), np.round(rng.normal(label), 1)])
    weight = np.where(rng.random(n) < 0.02, 0.0, rng.exponential(size=n))
    return x, label, weight


def trees(**changes):
    options = {"max_iter": 12, "max_leaf_nodes": 8, "early_stopping": False, "random_state": 3}
    return HistGradientBoostingClassifier(**options | changes)


@pytest.mark.skipif(
    tuple(map(int, sklearn.__version__.split(".")[:2])) < (1, 8), reason="bins without the weights"
)
@pytest.mark.parametrize(
    "changes", [{}, {"max_bins": 20}, {"early_stopping": True, "validation_fraction": 0.2}]
)
def test_trees_are_those_of_the_features(changes):
    rng = np.random.default_rng(1)
    x, label, weight = sample(3000, rng)
    plain = trees(**changes).fit(x, label, sample_weight=weight)
    binned = fit_trees(trees(**changes), x, label, weight)
    assert binned.edges is not None
    points = sample(2000, rng)[0]
    np.testing.assert_array_equal(binned.decision_function(points), plain.decision_function(points))
    assert binned.model.n_iter_ == plain.n_iter_


def test_bins_have_equal_weight():
    rng = np.random.default_rng(2)
    x, label, weight = sample(20_000, rng)
    edges = fit_trees(trees(max_bins=10), x, label, weight).edges
    for column, edge in zip(x.T[:2], edges, strict=False):
        shares = np.histogram(column, [-np.inf, *edge, np.inf], weights=weight)[0] / weight.sum()
        assert shares == pytest.approx(0.1, abs=5 / len(x) * weight.max() / weight.mean())


def test_what_has_no_bins_is_left_to_the_library():
    rng = np.random.default_rng(3)
    x, label, weight = sample(400, rng)
    x[3, 0] = np.nan
    found = fit_trees(trees(), x, label, weight)
    assert found.edges is None
    plain = trees().fit(x, label, sample_weight=weight)
    np.testing.assert_array_equal(found.decision_function(x), plain.decision_function(x))
