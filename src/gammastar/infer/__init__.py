"""From background and observation to limits, HistFactory files and the reach."""

from __future__ import annotations

from gammastar.infer.channel_limits import (
    CLs,
    StrengthLimit,
    asymptotic_cls,
    asymptotic_limit,
    exact_cls,
    exact_limit,
    fft_cls,
    zero_event_cls,
)
from gammastar.infer.channels import Channel, binned_channel, counting_channel, unbinned_channel
from gammastar.infer.contours import reach, with_errors
from gammastar.infer.counting import (
    Nuisance,
    count_probabilities,
    counting_cls,
    counting_limit,
    expected_limits,
)
from gammastar.infer.coverage import Coverage, coverage
from gammastar.infer.denser import more_masses
from gammastar.infer.discovery import (
    discovery_yield,
    expected_strengths,
    observed_significance,
    projected_yields,
)
from gammastar.infer.histfactory.hs3 import from_hs3, hs3_nll, to_hs3
from gammastar.infer.histfactory.likelihoods import Likelihood, read_likelihood
from gammastar.infer.histfactory.modifiers import (
    covariance_shapes,
    ensemble_shapes,
    log_normal,
    paired_shape,
    poisson_counts,
    shape_modifiers,
)
from gammastar.infer.histfactory.patchsets import patch_names, patchset
from gammastar.infer.histfactory.workspaces import (
    POT_NUISANCES,
    assemble,
    channels_of,
    combine,
    in_domain_samples,
    like_sign_channel,
    sample,
    workspace,
    write_xml,
)
from gammastar.infer.impacts import Ranking, ranking
from gammastar.infer.limits import Method, limits_at, signal_spread, tabulated, upper_limit
from gammastar.infer.refine import RefinedReach, refined_reach
from gammastar.infer.scanning import ScanPoint, scan, write_hs3
from gammastar.infer.toys import Convention, lint_names

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
