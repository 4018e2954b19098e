"""Read dilepton ntuples: TTree and RNTuple, any layout, through schemas that are data."""

from __future__ import annotations

from gammastar.read.events import open_events
from gammastar.read.integrity import expand, sha256, verify
from gammastar.read.schema import RowFilter, Schema, Truth, builtin, builtin_names, load_schema

__all__ = [
    "RowFilter",
    "Schema",
    "Truth",
    "builtin",
    "builtin_names",
    "expand",
    "load_schema",
    "open_events",
    "sha256",
    "verify",
]
