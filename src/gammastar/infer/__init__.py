"""From background and observation to limits, HistFactory files and the reach."""

from __future__ import annotations

from gammastar.infer.exact import (
    Nuisance,
    count_probabilities,
    counting_cls,
    counting_limit,
    expected_limits,
)
from gammastar.infer.limit import Method, upper_limit
from gammastar.infer.patchset import patch_names, patchset
from gammastar.infer.reach import reach
from gammastar.infer.template import shape_modifiers
from gammastar.infer.workspace import workspace

__all__ = [
    "Method",
    "Nuisance",
    "count_probabilities",
    "counting_cls",
    "counting_limit",
    "expected_limits",
    "patch_names",
    "patchset",
    "reach",
    "shape_modifiers",
    "upper_limit",
    "workspace",
]
