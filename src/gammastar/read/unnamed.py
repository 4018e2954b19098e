"""Branches that look like weights and that the schema does not name."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from gammastar.read.events import open_tree
from gammastar.read.files import opened
from gammastar.read.schema import Schema

FIRST = 20_000  # rows that are read
LIKE_WEIGHT = re.compile(r"weight|wgt|presc|scale_?factor|^(w|wt|sf)$", re.IGNORECASE)


def unnamed_weights(file: str | Path, schema: Schema, *, truth: bool = False) -> dict[str, float]:
    """Return the mean of each branch of one number per row that is named as a weight, unused, and not one."""
    known, found = set(schema.branches(truth=truth)), {}
    with opened(str(file)) as source:
        tree = open_tree(source, schema.tree, str(file))
        for name in map(str, tree.keys(recursive=False)):
            if name in known or not LIKE_WEIGHT.search(name):
                continue
            try:
                values = np.asarray(tree[name].array(entry_stop=FIRST, library="np"))
            except (ValueError, TypeError, NotImplementedError):
                continue  # no plain numbers
            if values.ndim == 1 and values.dtype.kind in "iuf" and len(values) and (values != 1).any():
                found[name] = float(values.mean())
    return found
