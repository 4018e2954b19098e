"""Arrays and records of a stage: kept as they are, or refused."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gammastar.core.errors import StoreError
from gammastar.pipeline.cache import load_arrays, open_cache


def test_kept_arrays_are_the_computed_ones_and_nothing_else(tmp_path):
    made = {"mass": np.linspace(0.2, 1.0, 5), "name": np.array(["a", "bc"]), "n": np.array(3)}
    cache = open_cache(tmp_path, resume=False, seed=1, mock=True)
    here = cache.arrays("select", "key", lambda: made)
    assert all(here[name] is array for name, array in made.items())
    found = load_arrays(tmp_path / "stages" / "select.npz")
    assert sorted(found) == sorted(made)
    again = open_cache(tmp_path, resume=True, seed=1, mock=True)
    kept = again.arrays("select", "key", lambda: pytest.fail("computed twice"))
    for name, array in made.items():
        np.testing.assert_array_equal(kept[name], array)


def test_a_run_sums_in_the_order_of_a_resumed_one(tmp_path):
    """Sums of an array in another order differ in their last digit, and so do digests of what they enter."""
    turned = np.random.default_rng(1).random((3, 4, 5)).transpose(2, 0, 1)
    made = open_cache(tmp_path, resume=False, seed=1, mock=True).arrays(
        "x", "key", lambda: {"turned": turned}
    )
    kept = load_arrays(tmp_path / "stages" / "x.npz")
    assert made["turned"].strides == kept["turned"].strides
    np.testing.assert_array_equal(made["turned"], turned)


def test_objects_are_not_pickled(tmp_path):
    cache = open_cache(tmp_path, resume=False, seed=1, mock=True)
    with pytest.raises(StoreError, match="select: axes"):
        cache.arrays("select", "key", lambda: {"axes": np.array([{}, None], dtype=object)})
    assert not list(tmp_path.rglob("*.npz"))


@dataclass(frozen=True, eq=False)
class Curve:
    """A record with numbers, text and an array that may have gaps."""

    label: str
    mass: np.ndarray
    limit: np.ndarray

    def to_arrays(self):
        return {"label": np.array(self.label), "mass": self.mass, "limit": self.limit}

    @classmethod
    def from_arrays(cls, arrays):
        return cls(str(arrays["label"]), arrays["mass"], arrays["limit"])


@pytest.mark.long
@settings(max_examples=30, deadline=None)
@given(
    label=st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0"), max_size=20),
    mass=arrays(np.float64, st.integers(0, 5), elements=st.floats(0.01, 10.0)),
    limit=arrays(np.float64, st.integers(0, 5)),
)
def test_a_record_comes_back_as_it_was(tmp_path_factory, label, mass, limit):
    folder = tmp_path_factory.mktemp("run")
    record = Curve(label, mass, limit)
    cache = open_cache(folder, resume=False, seed=1, mock=True)
    first = cache.keep("select", "key", lambda: record, Curve)
    again = open_cache(folder, resume=True, seed=1, mock=True)
    second = again.keep("select", "key", lambda: pytest.fail("computed twice"), Curve)
    for found in (first, second):
        assert found.label == record.label
        np.testing.assert_array_equal(found.mass, record.mass)
        np.testing.assert_array_equal(found.limit, record.limit)
    assert again.stages == cache.stages


def test_a_kept_record_without_an_array_names_the_file(tmp_path):
    cache = open_cache(tmp_path, resume=False, seed=1, mock=True)
    cache.arrays("select", "key", lambda: {"label": np.array("x")})
    again = open_cache(tmp_path, resume=True, seed=1, mock=True)
    with pytest.raises(StoreError, match=r"select\.npz: the kept stage has no array 'mass'"):
        again.keep("select", "key", lambda: pytest.fail("computed twice"), Curve)
