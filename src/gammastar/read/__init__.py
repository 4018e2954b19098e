"""Read dilepton ntuples: TTree and RNTuple, any layout, through schemas that are data; published tables."""

from __future__ import annotations

from gammastar.read.events import matched, open_events, open_flat, open_matched
from gammastar.read.files import expand, sha256
from gammastar.read.meaning import examine
from gammastar.read.proposal import (
    Description,
    Proposal,
    TreeSummary,
    describe,
    inspect,
    propose,
    to_toml,
)
from gammastar.read.published import hepdata, published_spectrum
from gammastar.read.schema import RowFilter, Schema, Truth, builtin, builtin_names, load_schema

__all__ = [
    "Description",
    "Proposal",
    "RowFilter",
    "Schema",
    "TreeSummary",
    "Truth",
    "builtin",
    "builtin_names",
    "describe",
    "examine",
    "expand",
    "hepdata",
    "inspect",
    "load_schema",
    "matched",
    "open_events",
    "open_flat",
    "open_matched",
    "propose",
    "published_spectrum",
    "sha256",
    "to_toml",
]
