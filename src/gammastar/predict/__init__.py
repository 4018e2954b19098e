"""Rates and kinematics of dark particles from the spectrum of virtual photons, and theory beside them."""

from gammastar.predict.channel import Channel, check_exclusive
from gammastar.predict.channels import (
    Bremsstrahlung,
    JPsi,
    MesonChannel,
    Outside,
    PionDalitz,
    PseudoscalarDalitz,
    ReplicaWeights,
    VectorDalitz,
    VectorMixing,
    VirtualPhoton,
    interpolate_rate,
    produce,
    rate,
)
from gammastar.predict.in_situ import (
    BumpHunt,
    bump_hunt,
    per_observed_pair,
    signal_over_background,
    signal_per_coupling,
)
from gammastar.predict.mechanism import FractionFit, fit_fraction, pairs_to_exclude, template
from gammastar.predict.millicharge import (
    Joint,
    PairCloud,
    Trained,
    VirtualPhotons,
    by_rejection,
    chi_rate,
    conditional,
    from_generator,
)
from gammastar.predict.mixture import (
    Mixture,
    Scaled,
    describe,
    envelope,
    joined,
    recoupled_channels,
    shares_of,
)
from gammastar.predict.model import Labels, Model
from gammastar.predict.models import DarkPhoton, VectorModel, rate_ratio, recoupled
from gammastar.predict.pairs import chi_from_channel, chi_from_resonances, chi_pairs, resonance_rate
from gammastar.predict.processes import held
from gammastar.predict.recast import displaced, prompt
from gammastar.predict.target import OMITTED, in_depth, on_nucleus
from gammastar.predict.uncertainty import Budget, budget

__all__ = [
    "OMITTED",
    "Bremsstrahlung",
    "Budget",
    "BumpHunt",
    "Channel",
    "DarkPhoton",
    "FractionFit",
    "JPsi",
    "Joint",
    "Labels",
    "MesonChannel",
    "Mixture",
    "Model",
    "Outside",
    "PairCloud",
    "PionDalitz",
    "PseudoscalarDalitz",
    "ReplicaWeights",
    "Scaled",
    "Trained",
    "VectorDalitz",
    "VectorMixing",
    "VectorModel",
    "VirtualPhoton",
    "VirtualPhotons",
    "budget",
    "bump_hunt",
    "by_rejection",
    "check_exclusive",
    "chi_from_channel",
    "chi_from_resonances",
    "chi_pairs",
    "chi_rate",
    "conditional",
    "describe",
    "displaced",
    "envelope",
    "fit_fraction",
    "from_generator",
    "held",
    "in_depth",
    "interpolate_rate",
    "joined",
    "on_nucleus",
    "pairs_to_exclude",
    "per_observed_pair",
    "produce",
    "prompt",
    "rate",
    "rate_ratio",
    "recoupled",
    "recoupled_channels",
    "resonance_rate",
    "shares_of",
    "signal_over_background",
    "signal_per_coupling",
    "template",
]
