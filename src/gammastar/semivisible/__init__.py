"""Semi-visible dark photons: models, widths, cascades; BaBar, NA64."""

from __future__ import annotations

from gammastar.semivisible.babar import BaBar, load_babar, prompt_missing
from gammastar.semivisible.benchmarks import Benchmark, Published, benchmark_names, load_benchmark, published
from gammastar.semivisible.missing_momentum import allowed, excess, excluded_plane, intervals
from gammastar.semivisible.na64 import NA64, load_na64
from gammastar.semivisible.plane import Options, Plane, scan

__all__ = [  # noqa: RUF022 - in the order in which one uses them
    "benchmark_names",
    "load_benchmark",
    "Benchmark",
    "load_babar",
    "BaBar",
    "load_na64",
    "NA64",
    "scan",
    "Options",
    "Plane",
    "published",
    "Published",
    "excess",
    "excluded_plane",
    "intervals",
    "allowed",
    "prompt_missing",
]
