"""Arrays of a stage: kept as they are, or refused."""

import numpy as np
import pytest

from gammastar.core.errors import StoreError
from gammastar.pipeline.cache import load_arrays, open_book


def test_kept_arrays_are_the_computed_ones_and_nothing_else(tmp_path):
    made = {"mass": np.linspace(0.2, 1.0, 5), "name": np.array(["a", "bc"]), "n": np.array(3)}
    book = open_book(tmp_path, resume=False, seed=1, mock=True)
    assert book.arrays("select", "key", lambda: made) is made
    found = load_arrays(tmp_path / "stages" / "select.npz")
    assert sorted(found) == sorted(made)
    again = open_book(tmp_path, resume=True, seed=1, mock=True)
    kept = again.arrays("select", "key", lambda: pytest.fail("computed twice"))
    for name, array in made.items():
        np.testing.assert_array_equal(kept[name], array)


def test_objects_are_not_pickled(tmp_path):
    book = open_book(tmp_path, resume=False, seed=1, mock=True)
    with pytest.raises(StoreError, match="select: axes"):
        book.arrays("select", "key", lambda: {"axes": np.array([{}, None], dtype=object)})
    assert not list(tmp_path.rglob("*.npz"))
