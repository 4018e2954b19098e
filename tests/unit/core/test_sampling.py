"""Random streams are named and independent; a sample is as large as its weights say."""

import numpy as np
import pytest
import scipy.stats

from gammastar.core import sampling
from gammastar.core.records import effective_size
from gammastar.core.sampling import event_seeds, replica_weights, stream


def test_streams_are_reproducible_and_independent():
    assert stream(1, "a").random() == stream(1, "a").random()
    assert stream(1, "a").random() != stream(1, "b").random()
    assert stream(1, "a").random() != stream(2, "a").random()


def test_effective_size():
    assert effective_size(np.ones(10)) == pytest.approx(10)
    assert effective_size(np.zeros(0)) == 0


def test_bootstrap_weights_are_quantiles_of_poisson():
    """Of the table's first bits and of all of them alike; the law to its rarest counts."""
    weights = replica_weights(event_seeds(np.arange(200_001)), range(3, 8))
    counts = np.bincount(weights.ravel().astype(int), minlength=9)[:9]
    expected = scipy.stats.poisson(1.0).pmf(np.arange(9)) * weights.size
    assert ((counts - expected) ** 2 / expected).sum() < 30
    words = np.concatenate(
        [
            np.random.default_rng(1).integers(2**64, size=100_000, dtype=np.uint64),
            (sampling._CUMULATIVE[:, None] * 2.0**64 + np.arange(-3, 4) * 2.0**11).clip(0, 2.0**64 - 2.0**11)
            .astype(np.uint64).ravel(),
        ]
    )  # fmt: skip
    found = np.searchsorted(sampling._CUMULATIVE, sampling.uniform(words), side="right")
    np.testing.assert_array_equal(sampling._poisson(words), found)
