"""What the training takes, pairs with their checks and options, and what it reports."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np

from gammastar.core.errors import PhysicsError, require
from gammastar.core.records import BoolArray, FloatArray, IntArray, Rng, divided, effective_size
from gammastar.flow.network import Gaussianiser, inside_limits

_LOG = logging.getLogger(__name__)
_MIN_EFFECTIVE = 200.0
_MAX_BOOST = 30.0  # largest relative weight that `mass_flattening` gives
_MOST_HELD_OUT = 20_000  # pairs
_THIN = 50.0  # effective pairs in a window of mass below which it is logged


class Cloud(Protocol):
    """Weighted points: arrays of shape (n,), masses and energies in GeV."""

    @property
    def mass(self) -> FloatArray:
        """Invariant mass [GeV]."""

    @property
    def pt(self) -> FloatArray:
        """Transverse momentum [GeV]."""

    @property
    def energy(self) -> FloatArray:
        """Energy [GeV]."""

    @property
    def weight(self) -> FloatArray:
        """Weight, of either sign."""


class PairTable(Cloud, Protocol):
    """What a table of pairs must have beside the columns of `Cloud`."""

    @property
    def event(self) -> IntArray:
        """Identifier of the event: its pairs stay together in the split."""


@dataclass(frozen=True, slots=True)
class NetworkOptions:
    """What every training of a flow needs."""

    # Spline bins, width and number of the hidden layers, which both factors share
    bins: int = 16
    hidden: int = 64
    layers: int = 2
    # Length of the training, and pairs per step
    epochs: int = 20
    batch: int = 1024
    learning_rate: float = 3e-3  # Largest rate of the schedule

    def __post_init__(self) -> None:
        self._positive("bins hidden layers epochs batch learning_rate")

    def _positive(self, names: str) -> None:
        for name in names.split():
            if not getattr(self, name) > 0:
                raise PhysicsError(f"{type(self).__name__}.{name} = {getattr(self, name)!r} must be positive")


@dataclass(frozen=True, slots=True)
class FlowOptions(NetworkOptions):
    """Architecture and training of the conditional flow; see `NetworkOptions` for what is common to all.

    Attributes
    ----------
    octaves : int
        Octaves of sine and cosine of the mass among the features.
    epoch_size : int
        An epoch is `epoch_size` pairs, at most one pass, drawn in proportion to |weight| by going through the
        shuffled sample again and again.
    weight_decay : float
        Adam's.
    prior : float
        Precision of a Gaussian prior of the weights around zero, where the splines are the identity: adds
        prior / (pairs of the training) to the decay, so that small samples are not learned by heart.
    validation : float
        Fraction of the events that decides which epoch is kept, some 20 000 pairs at most.
    patience : int
        Epochs without a better validation loss after which the training stops.
    mass_flattening : float
        0: as the data. Up to 1: weights times (mass density)^−mass_flattening, capped, so that masses with
        few pairs (high masses) count more; p(pt, energy | mass) is unchanged by it.
    mass_range : (float, float) or None
        Range of masses to learn [GeV]; None: that of the sample.
    schedule : {"one-cycle", "constant"}
        Course of the learning rate.
    clip : float
        Largest norm of the gradient; 0: no limit.
    min_window_pairs, window : float, float [GeV]
        Smallest effective number of pairs in each window of mass; 0: a thin window is only logged.
    device : str
        Where the training runs: "cpu", "cuda", or "auto" for a CUDA device if there is one. A flow that is
        loaded or trained draws on the processor; see `KinematicFlow.on`.
    """

    octaves: int = 5
    epoch_size: int = 80_000
    weight_decay: float = 1e-5
    prior: float = 30.0
    validation: float = 0.2
    patience: int = 8
    mass_flattening: float = 0.0
    mass_range: tuple[float, float] | None = None
    schedule: Literal["one-cycle", "constant"] = "one-cycle"
    clip: float = 5.0
    min_window_pairs: float = 0.0
    window: float = 0.03
    device: str = "cpu"

    def __post_init__(self) -> None:
        NetworkOptions.__post_init__(self)
        self._positive("epoch_size patience window")
        require(self.prior >= 0, f"FlowOptions.prior = {self.prior!r} must not be negative")
        if not 0 < self.validation < 1:
            raise PhysicsError(f"FlowOptions.validation = {self.validation!r} must lie between 0 and 1")
        if not 0 <= self.mass_flattening <= 1:
            raise PhysicsError(f"FlowOptions.mass_flattening = {self.mass_flattening!r} must lie in [0, 1]")
        if self.schedule not in {"one-cycle", "constant"}:
            raise PhysicsError(f"FlowOptions.schedule = {self.schedule!r} is none of one-cycle, constant")


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """What is known about a training."""

    n_pairs: int
    effective_size: float  # (Σw)²/Σw² of all weights as used in the training
    negative_fraction: float  # Σ|w| of the negative weights over the sum of the positive ones
    # −Σw ln p(pt, energy | mass) / Σw per epoch, p in GeV⁻²
    train_loss: tuple[float, ...]
    validation_loss: tuple[float, ...]
    best_epoch: int  # Epoch whose parameters were kept, from 0
    # Smallest slope of the two marginal maps in units of their standard slope; nan for the paper's preset
    min_slope: float
    stopped: str = ""  # Why the training ended before its last epoch; "" if it did not

    @classmethod
    def from_mapping(cls, entries: Mapping[str, Any]) -> TrainingReport:
        """Return the report of a card."""
        return cls(
            n_pairs=int(entries["n_pairs"]),
            effective_size=float(entries["effective_size"]),
            negative_fraction=float(entries["negative_fraction"]),
            train_loss=tuple(float(loss) for loss in entries["train_loss"]),
            validation_loss=tuple(float(loss) for loss in entries["validation_loss"]),
            best_epoch=int(entries["best_epoch"]),
            min_slope=float(entries["min_slope"]),
            stopped=str(entries.get("stopped", "")),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Weighted pairs as float64 columns."""

    mass: FloatArray
    pt: FloatArray
    energy: FloatArray
    weight: FloatArray
    event: IntArray

    def select(self, mask: BoolArray) -> Table:
        """Return the pairs of a mask."""
        return Table(self.mass[mask], self.pt[mask], self.energy[mask], self.weight[mask], self.event[mask])


def validated(
    pairs: PairTable, beam_energy: float, options: FlowOptions
) -> tuple[Table, tuple[float, float]]:
    """Return the pairs with a weight inside the range of masses, and the range; raise `PhysicsError`."""
    mass, pt, energy, weight = (
        np.asarray(a, dtype=np.float64) for a in (pairs.mass, pairs.pt, pairs.energy, pairs.weight)
    )
    table = Table(mass, pt, energy, weight, np.asarray(pairs.event, dtype=np.int64))
    lengths = [len(a) for a in (mass, pt, energy, weight, table.event)]
    if len(set(lengths)) != 1:
        raise PhysicsError(f"pairs: mass, pt, energy, weight, event have different lengths {lengths}")
    if options.mass_range is not None:
        low, high = options.mass_range
        table = table.select((table.mass >= low) & (table.mass <= high))
    if not np.isfinite(table.weight).all():
        msg = f"{int((~np.isfinite(table.weight)).sum())} weights are not finite; drop these pairs"
        raise PhysicsError(msg)
    outside = ~inside_limits(table.mass, table.pt, table.energy, beam_energy)
    if outside.any():
        first = int(np.argmax(outside))
        raise PhysicsError(
            f"{int(outside.sum())} of {len(outside)} pairs lie outside the physical limits (0 < pt, "
            f"√(mass² + pt²) < energy < {beam_energy:g} GeV); the first has (mass, pt, energy) = "
            f"({table.mass[first]:.6g}, {table.pt[first]:.6g}, {table.energy[first]:.6g}) GeV; "
            "drop them with flow.inside_limits"
        )
    size = effective_size(table.weight)
    if size < _MIN_EFFECTIVE:
        raise PhysicsError(
            f"flow: effective sample size {size:.1f} ({len(outside)} weighted pairs); at least "
            f"{_MIN_EFFECTIVE:.0f} needed; take more data, or no [flow] and predict.sampler = 'histogram'"
        )
    table = table.select(table.weight != 0)
    mass_range = (float(table.mass.min()), float(table.mass.max()))
    mass_range = mass_range if options.mass_range is None else options.mass_range
    _check_windows(table, mass_range, options)
    return table, mass_range


def _check_windows(table: Table, mass_range: tuple[float, float], options: FlowOptions) -> None:
    """Log or refuse windows of mass with too few pairs."""
    n = max(int(np.ceil((mass_range[1] - mass_range[0]) / options.window - 1e-9)), 1)
    edges = np.linspace(*mass_range, n + 1) if mass_range[1] > mass_range[0] else np.array(mass_range)
    place = np.clip(np.searchsorted(edges, table.mass, "right") - 1, 0, n - 1)
    total, square = (np.bincount(place, table.weight**k, n) for k in (1, 2))
    size = divided(total**2, square)
    refused = bool((size < options.min_window_pairs).any())
    least = options.min_window_pairs if refused else max(options.min_window_pairs, _THIN)
    thin = np.flatnonzero(size < least)
    if not thin.size:
        return
    worst = int(thin[np.argmin(size[thin])])
    text = (
        f"{thin.size} of {n} windows of {1e3 * options.window:g} MeV hold fewer than {least:g} pairs "
        f"(effective), down to {size[worst]:.3g} at {edges[worst]:.4g} to {edges[worst + 1]:.4g} GeV"
    )
    if refused:
        msg = f"flow: {text}; take fewer masses, widen [flow] window or lower its min_window_pairs"
        raise PhysicsError(msg)
    _LOG.warning("training sample: %s: the flow interpolates there", text)


def ranks(event: IntArray) -> tuple[int, IntArray]:
    """Return the number of different events and the place of each pair's among them in order, shape (n,)."""
    first = int(event.min()) if len(event) else 0
    if not len(event) or int(event.max()) - first > 8 * len(event):
        unique, index = np.unique(event, return_inverse=True)
        return len(unique), index
    there = np.zeros(int(event.max()) - first + 1, dtype=np.bool_)
    there[event - first] = True
    return int(there.sum()), (np.cumsum(there) - 1)[event - first]


def split(table: Table, fraction: float, rng: Rng) -> tuple[Table, Table]:
    """Return the pairs of training and of held-out events, some 20 000 at most, which tell 1e-4 nat."""
    n, index = ranks(table.event)
    fraction = min(fraction, _MOST_HELD_OUT / len(table.mass))
    held_out: BoolArray = (rng.permutation(n) < fraction * n)[index]
    parts = table.select(~held_out), table.select(held_out)
    for name, part in zip(("training", "validation"), parts, strict=True):
        if not part.weight.sum() > 0:
            raise PhysicsError(
                f"the weights of the {name} sample ({len(part.mass)} pairs) sum to {part.weight.sum():.4g}; "
                "the sum must be positive: check the background subtraction"
            )
    return parts


def flattened(table: Table, context: Gaussianiser, options: FlowOptions) -> Table:
    """Return the pairs with weights raised where the masses are rare."""
    if options.mass_flattening == 0:
        return table
    score, log_slope = context.forward(table.mass)
    log_rarity = options.mass_flattening * (0.5 * score**2 - log_slope)
    boost = np.exp(np.minimum(log_rarity - np.median(log_rarity), np.log(_MAX_BOOST)))
    return replace(table, weight=table.weight * boost)
