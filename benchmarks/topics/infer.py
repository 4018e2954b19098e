"""Exact limits of a scan against pyhf's asymptotic test per point, on the same points in the same run."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pyhf

from gammastar.infer import counting_cls, counting_limit, reach, workspace

POT, BACKGROUND, SIGMA = float(np.log(1.2)), 2.0, 0.3


def rows() -> Iterator[dict]:
    mass, coupling = np.linspace(0.22, 1.0, 40), np.geomspace(1e-8, 1e-5, 60)
    signal = 2e28 * np.exp(-mass[:, None] / 0.12) * coupling**4
    signal = signal * np.exp(-(coupling**2) * mass[:, None] ** 2 / 1e-13)
    points = signal.ravel()
    peer_points = points[(points > 0.3) & (points < 30)][::40]

    spec = workspace("counting", BACKGROUND, SIGMA, [2], pot_search_sigma=POT)
    start = time.perf_counter()
    for value in peer_points:
        spec["channels"][0]["samples"][0]["data"] = [float(value)]
        model_workspace = pyhf.Workspace(spec)
        model = model_workspace.model()
        pyhf.infer.hypotest(1.0, model_workspace.data(model), model, test_stat="qtilde")
    peer = (time.perf_counter() - start) / len(peer_points)

    start = time.perf_counter()
    counting_cls(peer_points, 2, BACKGROUND, signal_sigma=POT, background_sigma=SIGMA)
    ours = (time.perf_counter() - start) / len(peer_points)
    yield {
        "claim": f"exact CLs per point, against pyhf's asymptotic hypotest ({1e3 * peer:.1f} ms)",
        "measured": peer / ours,
        "goal": 20.0,
    }

    start = time.perf_counter()
    limit = counting_limit(2, BACKGROUND, signal_sigma=POT, background_sigma=SIGMA)
    reach(mass, coupling, signal, float(limit))
    ours = (time.perf_counter() - start) / points.size
    yield {
        "claim": f"contour with both edges from exact limits, per point of a {points.size}-point scan",
        "measured": peer / ours,
        "goal": 100.0,
    }
