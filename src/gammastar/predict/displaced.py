"""Dark photons that decay behind a thin target, seen by a vertex telescope: what prompt pairs say of them.

A pair of a virtual photon and one of a dark photon of the same mass have the same kinematics. So the pairs
measured at a mass are the sample of the signal: each stands for dark photons with its momentum, whose decay
adds an exponential path to the vertex that was measured for it. Protons on target, cross sections,
acceptance and efficiency of prompt pairs cancel; how the efficiency changes with the place of the decay does
not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from gammastar.core.errors import PhysicsError
from gammastar.core.pairs import VertexPairs
from gammastar.core.records import FloatArray
from gammastar.physics.detector import VertexTelescope

MAX_PAIRS = 2_000  # measured pairs that stand for the kinematics of one mass
MIN_PAIRS = 20


def displaced_shares(
    pairs: VertexPairs,
    telescope: VertexTelescope,
    cuts: npt.ArrayLike,
    *,
    mass: float,
    half_window: float,
    ctau: npt.ArrayLike,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return which share of the dark photons of a mass is found behind the cut, and before its mirror image.

    Notes
    -----
    The resolution is that of pairs measured in front of the interaction, where nothing decays, and its mirror
    image: what lies behind the target is not looked at. Of more than 2000 such pairs every so many in the
    order of their momentum are taken.
    """
    near = pairs.select(np.abs(pairs.mass - mass) < half_window)
    total = near.weight.sum()
    near = near.select(near.good & (near.z < 0))
    kept = near.weight.sum()
    if len(near) < MIN_PAIRS or not min(kept, total) > 0:
        raise PhysicsError(
            f"displaced_shares: {len(near)} pairs within {half_window:g} GeV of {mass:g} GeV with a vertex "
            f"before the interaction, {kept:.4g} after subtraction; at least {MIN_PAIRS} are needed"
        )
    order = np.argsort(near.pz, kind="stable")
    near = near.select(order[:: max(1, -(-len(near) // MAX_PAIRS))])
    path = near.pz[:, None] / mass * np.asarray(ctau, dtype=np.float64)
    share = near.weight * (kept / (near.weight.sum() * total))
    first, last = telescope.fiducial
    behind, before, error = [], [], []
    flight = _Flight(*telescope.efficiency_steps(), 1.0 / path)
    # the vertex as it was measured, and its mirror image: which decays end behind `last`, on either side
    ends = [np.maximum(last - prompt, 0.0) for prompt in (near.z, -near.z)]
    starts = [np.maximum(-last - prompt, 0.0) for prompt in (near.z, -near.z)]
    all_after, all_ahead = (flight.seen(one) + flight.seen(two) for one, two in (ends, starts))
    for cut in np.asarray(cuts, dtype=np.float64):
        least = np.maximum(cut * near.sigma, first)
        after, ahead = all_after.copy(), -all_ahead
        for prompt, end, start in zip((near.z, -near.z), ends, starts, strict=True):
            flight.add(after, np.minimum(np.maximum(least - prompt, 0.0), end), -1.0)
            flight.add(ahead, np.maximum(-least - prompt, start), 1.0)
        behind.append(share @ after)
        before.append(share @ ahead)
        error.append(np.sqrt(share**2 @ (after - 2.0 * ahead) ** 2))
    return np.array(behind), np.array(before), np.array(error)


@dataclass(frozen=True, slots=True, eq=False)
class _Flight:
    """Decays of pairs along their flight, seen with an efficiency that is constant between places."""

    edges: FloatArray  # (s + 1,) [m]; the first is the interaction
    value: FloatArray  # (s,), over that at the interaction
    rate: FloatArray  # (n, k), one over the mean decay length along the beam, (p_z/m) cτ [1/m]

    def seen(self, z: FloatArray) -> FloatArray:
        """Return the share of decays before z that is seen, shape (n, k): ∫₀ᶻ (dz/λ) e^{−z/λ} η(z)."""
        total = np.zeros(self.rate.shape)
        self.add(total, z, 1.0)
        return total

    def add(self, total: FloatArray, z: FloatArray, sign: float) -> None:
        """Add `sign` times the share before z ≥ 0 to `total`: the steps of η, each with its own beginning."""
        z = np.minimum(z, self.edges[-1])
        steps = np.diff(self.value, prepend=0.0)
        last = np.clip(np.searchsorted(self.edges, z, side="right") - 1, 0, len(steps) - 1)
        rows = np.flatnonzero(z > 0)
        if not len(rows):
            return
        rate = self.rate if len(rows) == len(z) else self.rate[rows]
        found = np.expm1(rate * -z[rows, None])
        found *= -sign * self.value[last[rows], None]
        for step, edge in zip(steps[1:], self.edges[1:-1], strict=True):
            beyond = np.flatnonzero(z[rows] > edge)
            if len(beyond):
                found[beyond] += sign * step * np.expm1(rate[beyond] * -edge)
        if len(rows) == len(z):
            total += found
        else:
            total[rows] += found


def best_cut(signal: FloatArray, limit: FloatArray) -> npt.NDArray[np.intp]:
    """Return the cut of each mass with the largest signal over the expected limit at any coupling.

    Notes
    -----
    Both are expectations: the pairs behind the cut are not looked at.
    """
    return np.asarray((signal.max(axis=2) / limit).argmax(axis=1))


@dataclass(frozen=True, slots=True, eq=False)
class DisplacedYields:
    """What a search behind the target expects, over n masses, c cuts and k couplings."""

    mass: FloatArray  # shape (n,) [GeV]
    coupling: FloatArray  # shape (k,)
    cuts: FloatArray  # In standard deviations of the vertex, shape (c,)
    # Expected dark photons behind the cut, and in front of its mirror image: as many more does their own
    # prompt tail make the background expect, shape (n, c, k)
    behind: FloatArray
    before: FloatArray
    # Standard deviation of `behind` less twice `before` from the finite number of pairs, shape (n, c, k)
    error: FloatArray
    signal_sigma: FloatArray  # Relative error of the signal, shape (n,)
    # Expected pairs without signal and their standard deviation, shape (n, c)
    background: FloatArray
    background_sigma: FloatArray
    names: npt.NDArray[np.str_]  # Origins of the background, shape (p,)
    parts: FloatArray  # Background by origin, shape (n, p, c)
    supported: FloatArray  # Pull from which on the tail of measured pairs is extrapolated, shape (n,)
    count: FloatArray  # Pairs found; nan while masked, shape (n, c)
    # Pairs behind the target over their prediction below the cuts of the search, and its error, shape (2,)
    sides: FloatArray

    @property
    def signal(self) -> FloatArray:
        """Expected signal in excess of what its own prompt tail adds to the background, shape (n, c, k).

        Zero where that tail is more than half of it, or not surely less, to three standard deviations of the
        finite number of pairs: such dark photons are not displaced, or a few pairs stand for them. Signed
        weights may leave less than nothing of a tail: it adds nothing to the signal.
        """
        own = self.behind - 2.0 * self.before > 3.0 * self.error
        return np.where(own, np.maximum(self.behind - np.maximum(self.before, 0.0), 0.0), 0.0)

    @property
    def log_sigma(self) -> FloatArray:
        """Standard deviation of the logarithm of the background, shape (n, c).

        Both sides of the interaction differ by no more than was found below the cuts, within its error.
        """
        ratio = self.background_sigma / np.maximum(self.background, 1e-12)
        return np.asarray(np.sqrt(np.log1p(ratio**2) + (self.sides[0] - 1.0) ** 2 + self.sides[1] ** 2))

    def times(self, factor: float) -> DisplacedYields:
        """Return the expectations for a multiple of the data; relative errors stay, nothing is counted."""
        names = ("behind", "before", "error", "background", "background_sigma", "parts")
        scaled = {name: factor * getattr(self, name) for name in names}
        return replace(self, **scaled, count=np.full_like(self.count, np.nan))

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return plain arrays by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Return the record of such arrays."""
        return cls(**{field.name: arrays[field.name] for field in fields(cls)})
