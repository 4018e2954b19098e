"""The whole plane of the NA62 search from simulated tracks, and one limit with an observed event."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

from gammastar import infer
from gammastar.core.sampling import stream

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "analysis" / "na62_dump"))
import likelihood
import plane
from cuts import Search


def rows() -> Iterator[dict]:
    start = time.process_time()
    made = plane.full_plane(Search.read())
    elapsed = time.process_time() - start
    cells = made.mass.size * made.coupling.size
    yield {
        "claim": f"NA62 plane: {cells} points, two channels, two modes, tracks and selection",
        "measured": elapsed,
        "goal": 120.0,
        "unit": " CPU s",
        "higher": False,
    }
    start = time.process_time()
    likelihood.contour(made, ("ee", "mumu"), modes=plane.MODES)
    yield {
        "claim": "NA62 combined contour: profiled toys around the observed event, closed form elsewhere",
        "measured": time.process_time() - start,
        "goal": 60.0,
        "unit": " CPU s",
        "higher": False,
    }
    channels = [likelihood.channel(state, 1.25, 0.409, 2.5e-3) for state in ("ee", "mumu")]
    start = time.process_time()
    infer.exact_cls(channels, rng=stream(1, "benchmark"), n_toys=20_000)
    yield {
        "claim": "2e4 + 2e4 profiled toys of two channels with an observed event",
        "measured": time.process_time() - start,
        "goal": 4.0,
        "unit": " CPU s",
        "higher": False,
    }
