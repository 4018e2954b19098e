"""From background and observation to limits, the reach and HistFactory files, in the order of use."""

from __future__ import annotations

from gammastar.infer.channels import Channel, counting_channel, binned_channel, unbinned_channel
from gammastar.infer.toys import Convention
from gammastar.infer.counting import upper_limit
from gammastar.infer.counting import counting_limit, expected_limits
from gammastar.infer.channel_limits import exact_cls, exact_limit, asymptotic_limit
from gammastar.infer.contours import reach
from gammastar.infer.counting_search import CountingSearch, Search
from gammastar.infer.discovery import discovery_yield, projected_yields, observed_significance
from gammastar.infer.discovery import ranking
from gammastar.infer.histfactory.workspaces import workspace, combine, write_xml
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
    "upper_limit",
    "counting_limit",
    "expected_limits",
    "exact_cls",
    "exact_limit",
    "asymptotic_limit",
    "reach",
    "CountingSearch",
    "Search",
    "discovery_yield",
    "projected_yields",
    "observed_significance",
    "ranking",
    "workspace",
    "combine",
    "patchset",
    "to_hs3",
    "write_xml",
    "read_likelihood",
    "scan",
]
