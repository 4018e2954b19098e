"""From particles to expected events: decay probabilities, lepton acceptance, signal yields."""

from gammastar.accept.decay import decay_probability, decay_weight, forced_decay, inverse_decay_length
from gammastar.accept.millicharge import millicharge_yields, signal_exponent
from gammastar.accept.response import angular_weights, lepton_pair, position_at, seen
from gammastar.accept.scan import LifetimeScan, Replicated, lifetime_scan
from gammastar.accept.signal_events import (
    SignalEvents,
    SignalScan,
    signal_events,
    signal_scan,
    track_collection,
)
from gammastar.accept.tracking import Spectrometer, Tracks, extrapolate, inside, load_spectrometer, measure
from gammastar.accept.yields import AcceptedYield, LongLived, Measured, acceptance_curve, width_shift, yields

__all__ = [
    "AcceptedYield",
    "LifetimeScan",
    "LongLived",
    "Measured",
    "Replicated",
    "SignalEvents",
    "SignalScan",
    "Spectrometer",
    "Tracks",
    "acceptance_curve",
    "angular_weights",
    "decay_probability",
    "decay_weight",
    "extrapolate",
    "forced_decay",
    "inside",
    "inverse_decay_length",
    "lepton_pair",
    "lifetime_scan",
    "load_spectrometer",
    "measure",
    "millicharge_yields",
    "position_at",
    "seen",
    "signal_events",
    "signal_exponent",
    "signal_scan",
    "track_collection",
    "width_shift",
    "yields",
]
