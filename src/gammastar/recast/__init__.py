"""Semi-visible dark photons in searches for missing momentum: BaBar, NA64; events of DarkNews."""

from __future__ import annotations

from gammastar.recast.babar import BaBar, load_babar
from gammastar.recast.cosmology import Cosmology, cmb_limit, load_cosmology, omega, relic_target
from gammastar.recast.curves import (
    Benchmark,
    Published,
    benchmark_names,
    correction,
    load_benchmark,
    published,
    read_limit,
)
from gammastar.recast.displaced import DisplacedSearch, displaced_plane, load_displaced
from gammastar.recast.missing_momentum import Missing, allowed, excluded_plane, intervals
from gammastar.recast.na64 import NA64, load_na64
from gammastar.recast.plane import Options, Plane, scan
from gammastar.recast.rare import prompt_missing

__all__ = [
    "NA64",
    "BaBar",
    "Benchmark",
    "Cosmology",
    "DisplacedSearch",
    "Missing",
    "Options",
    "Plane",
    "Published",
    "allowed",
    "benchmark_names",
    "cmb_limit",
    "correction",
    "displaced_plane",
    "excluded_plane",
    "intervals",
    "load_babar",
    "load_benchmark",
    "load_cosmology",
    "load_displaced",
    "load_na64",
    "omega",
    "prompt_missing",
    "published",
    "read_limit",
    "relic_target",
    "scan",
]
