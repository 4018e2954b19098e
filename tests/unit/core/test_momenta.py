"""Columns of four-momenta against vector's own arrays."""

from __future__ import annotations

import numpy as np
import pytest
import vector

from gammastar.core.records import Momenta


def test_every_quantity_is_that_of_vector() -> None:
    p = np.random.default_rng(3).normal(0.0, 5.0, (3, 50))
    energy = np.sqrt(np.sum(p**2, axis=0) + 0.25)
    ours = Momenta(*p, energy)
    theirs = vector.array({"px": p[0], "py": p[1], "pz": p[2], "E": energy})
    for name in ("px", "py", "pz", "E", "pt", "p", "mass", "eta", "phi", "theta", "costheta", "rapidity"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-14, err_msg=name)
    some = np.flatnonzero(p[0] > 0)
    np.testing.assert_array_equal(ours[some].phi, theirs[some].phi)
    np.testing.assert_array_equal((ours[:5] + ours[5:10]).mass, (theirs[:5] + theirs[5:10]).mass)
    np.testing.assert_array_equal((ours[:5] + theirs[5:10]).E, energy[:5] + energy[5:10])
    assert len(ours[some]) == len(some)
    with pytest.raises(AttributeError):
        ours.nonsense  # noqa: B018
