"""From background and observation to limits, HistFactory files and the reach."""

from __future__ import annotations

from gammastar.infer.assembly import assemble, in_domain_samples, like_sign_channel, sample
from gammastar.infer.asymptotic import asymptotic_cls, asymptotic_limit
from gammastar.infer.channel import Channel, binned_channel, counting_channel, unbinned_channel
from gammastar.infer.combine import channels_of, combine, write_xml
from gammastar.infer.compound import fft_cls
from gammastar.infer.coverage import Coverage, coverage
from gammastar.infer.denser import more_masses
from gammastar.infer.discovery import (
    discovery_yield,
    expected_strengths,
    observed_significance,
    projected_yields,
)
from gammastar.infer.effects import (
    covariance_shapes,
    ensemble_shapes,
    log_normal,
    paired_shape,
    poisson_counts,
)
from gammastar.infer.ensemble import Convention, lint_names
from gammastar.infer.exact import (
    Nuisance,
    count_probabilities,
    counting_cls,
    counting_limit,
    expected_limits,
)
from gammastar.infer.hs3 import to_hs3
from gammastar.infer.hs3_read import from_hs3
from gammastar.infer.hs3_value import hs3_nll
from gammastar.infer.likelihood import Likelihood, read_likelihood
from gammastar.infer.limit import Method, upper_limit
from gammastar.infer.patchset import patch_names, patchset
from gammastar.infer.ranking import Ranking, ranking
from gammastar.infer.reach import reach
from gammastar.infer.refine import RefinedReach, refined_reach
from gammastar.infer.scanning import ScanPoint, scan, write_hs3
from gammastar.infer.spread import limits_at, signal_spread, tabulated
from gammastar.infer.template import shape_modifiers
from gammastar.infer.unbinned import CLs, StrengthLimit, exact_cls, exact_limit, zero_event_cls
from gammastar.infer.vertices import with_errors
from gammastar.infer.workspace import POT_NUISANCES, workspace

__all__ = [
    "POT_NUISANCES",
    "CLs",
    "Channel",
    "Convention",
    "Coverage",
    "Likelihood",
    "Method",
    "Nuisance",
    "Ranking",
    "RefinedReach",
    "ScanPoint",
    "StrengthLimit",
    "assemble",
    "asymptotic_cls",
    "asymptotic_limit",
    "binned_channel",
    "channels_of",
    "combine",
    "count_probabilities",
    "counting_channel",
    "counting_cls",
    "counting_limit",
    "covariance_shapes",
    "coverage",
    "discovery_yield",
    "ensemble_shapes",
    "exact_cls",
    "exact_limit",
    "expected_limits",
    "expected_strengths",
    "fft_cls",
    "from_hs3",
    "hs3_nll",
    "in_domain_samples",
    "like_sign_channel",
    "limits_at",
    "lint_names",
    "log_normal",
    "more_masses",
    "observed_significance",
    "paired_shape",
    "patch_names",
    "patchset",
    "poisson_counts",
    "projected_yields",
    "ranking",
    "reach",
    "read_likelihood",
    "refined_reach",
    "sample",
    "scan",
    "shape_modifiers",
    "signal_spread",
    "tabulated",
    "to_hs3",
    "unbinned_channel",
    "upper_limit",
    "with_errors",
    "workspace",
    "write_hs3",
    "write_xml",
    "zero_event_cls",
]
