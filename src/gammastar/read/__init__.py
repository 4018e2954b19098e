"""Read dilepton ntuples: TTree and RNTuple, any layout, through schemas that are data."""

from __future__ import annotations

from gammastar.read.events import open_events
from gammastar.read.flat import open_flat
from gammastar.read.inspect import TreeSummary, inspect
from gammastar.read.integrity import expand, sha256, verify
from gammastar.read.mc import matched, open_matched
from gammastar.read.meaning import examine
from gammastar.read.propose import Proposal, propose, propose_schema
from gammastar.read.schema import RowFilter, Schema, Truth, builtin, builtin_names, load_schema
from gammastar.read.trial import Description, describe, to_toml, write_schema

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
    "inspect",
    "load_schema",
    "matched",
    "open_events",
    "open_flat",
    "open_matched",
    "propose",
    "propose_schema",
    "sha256",
    "to_toml",
    "verify",
    "write_schema",
]
