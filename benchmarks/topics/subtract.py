"""Signed weights of many pairs against a fill of the three charge histograms of the same pairs."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

from gammastar.core.pairs import Pairs
from gammastar.core.records import regular
from gammastar.core.sampling import stream
from gammastar.select import fill
from gammastar.subtract import event_weights, same_sign

AXES = (regular("mass", 36, 0.2, 1.1), regular("pt", 5, 0, 2.5), regular("energy", 6, 5, 125))


def rows() -> Iterator[dict]:
    rng, n = stream(1, "subtract"), 1_000_000
    charge = rng.choice(np.array([0, 2, -2], np.int8), size=n, p=[0.8, 0.12, 0.08])
    kinematics = (rng.uniform(0.2, 1.1, n), rng.gamma(2, 0.35, n), 5 + rng.exponential(25, n))
    pairs = Pairs(*kinematics, charge, np.ones(n), np.arange(n))
    start = time.process_time()
    same_sign(fill(pairs, AXES))
    event_weights(pairs, AXES)
    used = time.process_time() - start
    claim = "1e6 pairs to 1080 subtracted cells and signed weights, CPU time"
    yield {"claim": claim, "measured": used, "goal": 5, "higher": False, "unit": " s"}
