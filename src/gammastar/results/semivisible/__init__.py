"""A model of semi-visible dark photons, from its file to tables and figures."""

from __future__ import annotations

from gammastar.results.semivisible.recast import Recast, Wanted, recast, recast_file, wanted

__all__ = ["Recast", "Wanted", "recast", "recast_file", "wanted"]
