"""The pairs of a training: checks, held-out events, weights by mass."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from gammastar.core.axes import effective_size
from gammastar.core.errors import PhysicsError
from gammastar.core.records import BoolArray, FloatArray
from gammastar.flow.network import Gaussianiser, inside_limits
from gammastar.flow.options import FlowOptions, PairTable

__all__ = ["Table", "flattened", "split", "validated"]

_LOG = logging.getLogger(__name__)
_MIN_EFFECTIVE = 200.0
_MAX_BOOST = 30.0  # largest relative weight that `mass_flattening` gives
_THIN = 50.0  # effective pairs in a window of mass below which it is logged


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Weighted pairs as float64 columns."""

    mass: FloatArray
    pt: FloatArray
    energy: FloatArray
    weight: FloatArray
    event: npt.NDArray[np.int64]

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
        msg = f"pairs: mass, pt, energy, weight, event have different lengths {lengths}"
        raise PhysicsError(msg)
    if options.mass_range is not None:
        low, high = options.mass_range
        table = table.select((table.mass >= low) & (table.mass <= high))
    if not np.isfinite(table.weight).all():
        msg = f"{int((~np.isfinite(table.weight)).sum())} weights are not finite; drop these pairs"
        raise PhysicsError(msg)
    outside = ~inside_limits(table.mass, table.pt, table.energy, beam_energy)
    if outside.any():
        first = int(np.argmax(outside))
        msg = (
            f"{int(outside.sum())} of {len(outside)} pairs lie outside the physical limits (0 < pt, "
            f"√(mass² + pt²) < energy < {beam_energy:g} GeV); the first has (mass, pt, energy) = "
            f"({table.mass[first]:.6g}, {table.pt[first]:.6g}, {table.energy[first]:.6g}) GeV; "
            "drop them with flow.inside_limits"
        )
        raise PhysicsError(msg)
    size = effective_size(table.weight)
    if size < _MIN_EFFECTIVE:
        msg = (
            f"flow: effective sample size {size:.1f} ({len(outside)} weighted pairs); at least "
            f"{_MIN_EFFECTIVE:.0f} needed; take more data, or no [flow] and predict.sampler = 'histogram'"
        )
        raise PhysicsError(msg)
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
    size = np.divide(total**2, square, out=np.zeros(n), where=square > 0)
    thin = np.flatnonzero(size < max(options.min_window_pairs, _THIN))
    if not thin.size:
        return
    worst = int(thin[np.argmin(size[thin])])
    text = (
        f"{thin.size} of {n} windows of {1e3 * options.window:g} MeV hold fewer than "
        f"{max(options.min_window_pairs, _THIN):g} pairs (effective), down to {size[worst]:.3g} at "
        f"{edges[worst]:.4g} to {edges[worst + 1]:.4g} GeV"
    )
    if (size < options.min_window_pairs).any():
        msg = f"{text}; narrow mass_range, widen the window or lower min_window_pairs"
        raise PhysicsError(msg)
    _LOG.warning("training sample: %s: the flow interpolates there", text)


def split(table: Table, fraction: float, rng: np.random.Generator) -> tuple[Table, Table]:
    """Return the pairs of the training events and of the held-out events; raise `PhysicsError`."""
    unique, index = np.unique(table.event, return_inverse=True)
    held_out: BoolArray = (rng.permutation(len(unique)) < fraction * len(unique))[index]
    parts = table.select(~held_out), table.select(held_out)
    for name, part in zip(("training", "validation"), parts, strict=True):
        if not part.weight.sum() > 0:
            msg = (
                f"the weights of the {name} sample ({len(part.mass)} pairs) sum to {part.weight.sum():.4g}; "
                "the sum must be positive: check the background subtraction"
            )
            raise PhysicsError(msg)
    return parts


def flattened(table: Table, context: Gaussianiser, options: FlowOptions) -> Table:
    """Return the pairs with weights raised where the masses are rare."""
    if options.mass_flattening == 0:
        return table
    score, log_slope = context.forward(table.mass)
    log_rarity = options.mass_flattening * (0.5 * score**2 - log_slope)
    boost = np.exp(np.minimum(log_rarity - np.median(log_rarity), np.log(_MAX_BOOST)))
    return replace(table, weight=table.weight * boost)
