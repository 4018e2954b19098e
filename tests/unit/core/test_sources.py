"""Sources of uncertainty: one name each, covariances that add up."""

from __future__ import annotations

import numpy as np
import pytest

from gammastar.config import parse
from gammastar.core.errors import PhysicsError, SteeringError
from gammastar.core.sources import RESERVED, Source, Sources


def test_total_is_the_sum_of_the_parts_with_their_correlations():
    """Drawn: independent sources of 4 masses; the covariance of their sum over 200 000 throws."""
    rng = np.random.default_rng(2)
    shift, ends = rng.normal(size=4), rng.normal(size=(2, 4))
    members = rng.normal(size=(7, 4))
    found = Sources(
        (
            Source.shifted("charm", "spectrum", shift),
            Source.ranged("spin", "polarisation", ends),
            Source.spread("flow", "kinematics", members),
        )
    )
    theta = rng.standard_normal((200_000, 9))
    centred = (members - members.mean(axis=0)) / np.sqrt(6)
    thrown = theta[:, :1] * shift + theta[:, 1:2] * (ends[1] - ends[0]) / 2 + theta[:, 2:] @ centred
    np.testing.assert_allclose(np.cov(thrown, rowvar=False), found.total(), atol=0.03)
    assert found.named("charm").kind == "spectrum"
    assert found.of(["polarisation", "kinematics"]).names == ("spin", "flow")
    np.testing.assert_allclose(found.scaled([1, 0, 2, 3]).total()[3, 2], 6 * found.total()[3, 2])
    assert Sources().total().shape == (0, 0)


@pytest.mark.parametrize("other", ["polarisation", "Polarisation", " polarisation_"])
def test_a_name_is_refused_twice(other):
    one, two = Source.shifted("polarisation", "spectrum", [0.08]), Source.shifted(other, "pot", [0.001])
    with pytest.raises(PhysicsError, match="two sources of uncertainty"):
        Sources((one, two))
    with pytest.raises(PhysicsError, match="two sources of uncertainty"):
        Sources((one,)) + Sources((two,))


def test_sources_that_make_no_sense_are_refused():
    for arguments in (("", "pot", np.eye(2)), ("x", "luck", np.eye(2)), ("x", "pot", np.ones((2, 3)))):
        with pytest.raises(PhysicsError, match="source"):
            Source(*arguments)
    with pytest.raises(PhysicsError, match="finite"):
        Source.shifted("x", "pot", [np.nan])
    with pytest.raises(PhysicsError, match=r"\(1, 3\), expected \(at least 2"):
        Source.spread("x", "pot", np.ones((1, 3)))
    with pytest.raises(PhysicsError, match=r"\(3, 3\), expected \(2"):
        Source.ranged("x", "pot", np.ones((3, 3)))
    with pytest.raises(PhysicsError, match="different shapes"):
        Sources((Source("a", "pot", np.eye(2)), Source("b", "pot", np.eye(3))))
    with pytest.raises(PhysicsError, match="no source 'c'; there are a"):
        Sources((Source("a", "pot", np.eye(2)),)).named("c")


def steering(*names):
    corrections = [{"name": name, "files": ["x.root"], "pairs": 3.0, "sigma": 1.0} for name in names]
    content = {
        "analysis": {"name": "x", "seed": 1},
        "read": {"files": ["a.root"], "response": ["b.root"], "schema": "s.toml"},
        "select": {"mass": [0.2, 0.5, 1.0]},
        "subtract": {"corrections": corrections},
    }
    return parse(content).subtract


@pytest.mark.parametrize(
    "name", [*RESERVED, "Protons on Target", "finite_sample", "FLOW", "scaling with a", "-"]
)
def test_built_in_names_are_refused_before_any_work(name):
    with pytest.raises(SteeringError) as caught:
        steering(name)
    assert "corrections.0.name" in str(caught.value)
    assert name in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_two_corrections_of_one_name_are_refused():
    with pytest.raises(SteeringError, match="need different names"):
        steering("K decays", "k_decays")
    assert [c.name for c in steering("K decays", "eta to mu mu gamma").corrections] == [
        "K decays",
        "eta to mu mu gamma",
    ]
