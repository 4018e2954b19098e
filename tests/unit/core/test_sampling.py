"""Random streams are named and independent; a sample is as large as its weights say."""

import numpy as np
import pytest

from gammastar.core.axes import effective_size
from gammastar.core.sampling import stream


def test_streams_are_reproducible_and_independent():
    assert stream(1, "a").random() == stream(1, "a").random()
    assert stream(1, "a").random() != stream(1, "b").random()
    assert stream(1, "a").random() != stream(2, "a").random()


def test_effective_size():
    assert effective_size(np.ones(10)) == pytest.approx(10)
    assert effective_size(np.zeros(0)) == 0
