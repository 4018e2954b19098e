"""From particles to expected events: decay probabilities, lepton acceptance, signal yields."""

from gammastar.accept.decay import decay_probability, decay_weight, forced_decay, inverse_decay_length
from gammastar.accept.response import lepton_pair, position_at, seen
from gammastar.accept.scan import LifetimeScan, lifetime_scan
from gammastar.accept.yields import AcceptedYield, LongLived, Measured, acceptance_curve, yields

__all__ = [
    "AcceptedYield",
    "LifetimeScan",
    "LongLived",
    "Measured",
    "acceptance_curve",
    "decay_probability",
    "decay_weight",
    "forced_decay",
    "inverse_decay_length",
    "lepton_pair",
    "lifetime_scan",
    "position_at",
    "seen",
    "yields",
]
