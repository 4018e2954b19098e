"""From background and observation to limits, the reach and HistFactory files, in the order of use."""

from __future__ import annotations

from gammastar.infer.channels import Channel, binned_channel, counting_channel, unbinned_channel
from gammastar.infer.toys import Convention
from gammastar.infer.limits import signal_uncertainties, upper_limit
from gammastar.infer.counting import counting_limit, expected_limits
from gammastar.infer.channel_limits import asymptotic_limit, exact_cls, exact_limit
from gammastar.infer.contours import reach, with_errors
from gammastar.infer.discovery import discovery_yield, observed_significance, projected_yields
from gammastar.infer.impacts import ranking
from gammastar.infer.histfactory.workspaces import assemble, combine, workspace, write_xml
from gammastar.infer.histfactory.patchsets import patchset
from gammastar.infer.histfactory.hs3 import to_hs3
from gammastar.infer.histfactory.likelihoods import read_likelihood
from gammastar.infer.scanning import scan

__all__ = [
    "Channel",
    "counting_channel",
    "binned_channel",
    "unbinned_channel",
    "Convention",
    "signal_uncertainties",
    "upper_limit",
    "counting_limit",
    "expected_limits",
    "exact_cls",
    "exact_limit",
    "asymptotic_limit",
    "reach",
    "with_errors",
    "discovery_yield",
    "projected_yields",
    "observed_significance",
    "ranking",
    "workspace",
    "assemble",
    "combine",
    "patchset",
    "to_hs3",
    "write_xml",
    "read_likelihood",
    "scan",
]
