"""Replicas of subtracted pairs scatter as a subtraction does."""

from __future__ import annotations

import numpy as np
import pytest

from gammastar.core.records import regular
from gammastar.core.sampling import stream
from gammastar.unfold.omnifolding import subtracted_replicas


def test_replicas_of_subtracted_pairs_scatter_as_the_subtraction() -> None:
    """Of 400 pairs less 100 of like sign: 300 ± √500, not ± √400, nor ± √225 of the posterior weights."""
    os, ss, n = 400, 100, 400
    pairs = np.tile([0.5, 0.3, 50.0], (os + ss, 1))
    signed = np.repeat([1.0, -1.0], [os, ss])
    posterior = np.repeat([(os - ss) / os, 0.0], [os, ss])
    found = subtracted_replicas(
        pairs,
        signed=signed,
        posterior=posterior,
        event=np.arange(os + ss),
        axes=(regular("mass", 1, 0.2, 1.2),),
        rng=stream(5, "replicas"),
        n_replicas=n,
    ).sum(axis=1)
    # standard errors of mean and variance, 4 of them
    assert found.mean() == pytest.approx(os - ss, abs=4 * np.sqrt((os + ss) / n))
    assert found.var() == pytest.approx(os + ss, rel=4 * np.sqrt(2 / n))
