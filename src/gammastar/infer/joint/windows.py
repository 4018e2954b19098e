"""The joint likelihood of one mass window from histograms, response and the signal of each cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from gammastar.core.axes import ENERGY, MASS, PT, variable
from gammastar.core.errors import EmptyWindowError, PhysicsError
from gammastar.core.records import FloatArray, PairHists, Response
from gammastar.infer.joint.model import JointEffect, JointModel

WEIGHTED = 1e-9  # from the next whole number
ENOUGH = 20.0  # effective pairs of a bin, from which its weights have a mean of their own


def window_axes(
    low: float, high: float, pt: Sequence[float], energy: Sequence[float], *, side: float
) -> tuple[object, object, object]:
    """Return the axes of a window, true and measured ones: side band, signal, side band in mass."""
    mass = [max(low - side, 0.05 * low), low, high, high + side]
    return variable(MASS, mass), variable(PT, list(pt)), variable(ENERGY, list(energy))


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """A model whose signal is that of one coupling, and the signal of all of them."""

    model: JointModel  # With the signal and the effects of no coupling in particular
    # Events of the search per true pair of each kept cell, over the couplings, shape (j, k)
    signal: FloatArray

    @property
    def events(self) -> FloatArray:
        """Expected events at the nominal contents, shape (k,)."""
        return np.asarray(self.model.pairs @ self.signal, dtype=np.float64)

    def at(self, coupling: int, effects: Sequence[JointEffect] = ()) -> JointModel:
        """Return the model of one coupling, with more effects."""
        every = (*self.model.effects, *effects)
        return replace(self.model, signal=self.signal[:, coupling, None], effects=every)


@dataclass(frozen=True, slots=True, eq=False)
class Setting:
    """What a window needs beside its pairs and its response."""

    background: float  # Of the search [events]
    observed: float | None = None  # Events of the search; None while it is masked
    least: float = 1e-3  # Efficiency below which a true cell is left out: its content would be anything
    # As for `JointModel`
    r_factor: float = 1.0
    charges: float = 1.0
    # Opposite-sign pairs on the measured axes
    templates: Mapping[str, FloatArray] = field(default_factory=dict)
    # Of each source one response at +1 standard deviation, or two, at +1 and −1
    varied: Mapping[str, Sequence[Response]] = field(default_factory=dict)
    effects: tuple[JointEffect, ...] = ()  # Of all couplings alike


def window_model(
    hists: PairHists, response: Response, cells: tuple[FloatArray, FloatArray], setting: Setting
) -> Window:
    """Return the joint likelihood of a mass window.

    Notes
    -----
    Expected pairs are Σ_j R_ij n_j/(1 − f_i) with the fraction f_i of fakes: pairs from outside the true axes
    follow those from inside, as in the unfolding. Bins that the simulation leaves empty are left out.

    Sums of prescaled pairs scatter more than their number. In units of s = Σw²/Σw they have the mean and the
    variance of Poisson counts (G. Bohm and G. Zech, Nucl. Instrum. Meth. A 748 (2014) 1): counts, rounded,
    and expectations are in these units, one for opposite and one for like sign in each bin; bins of few pairs
    take that of all. Without prescales s is one.
    """
    every = (hists.os, hists.pp, hists.mm)
    sums, squares = (
        np.stack([np.asarray(getattr(h, name)()).ravel() for h in every]) for name in ("values", "variances")
    )
    if np.abs(sums - np.rint(sums)).max(initial=0.0) > WEIGHTED * max(sums.max(initial=1.0), 1.0):
        msg = "joint likelihood: its bins are Poisson, and pairs carry weights; take likelihood = 'two-step'"
        raise PhysicsError(msg)
    opposite, like = _units(sums[:1], squares[:1]), _units(sums[1:], squares[1:])
    counts = np.rint(sums / np.stack([opposite, like, like]))
    rows, columns = response.migration.sum(axis=1) > 0, response.efficiency >= setting.least
    if not rows.any() or not columns.any():
        msg = f"joint likelihood: no cell of the window is seen with an efficiency of {setting.least:g}"
        raise EmptyWindowError(msg)
    scale = 1.0 / (np.maximum(1.0 - response.fakes, 1e-3) * opposite)

    def cut(matrix: FloatArray) -> FloatArray:
        return np.asarray((matrix * scale[:, None])[np.ix_(rows, columns)], dtype=np.float64)

    spread = np.zeros_like(response.migration)
    if len(response.cov_replicas) > 1:
        spread = response.cov_replicas.astype(np.float64).std(axis=0, ddof=1)
    pairs, signal = cells
    model = JointModel(
        pairs[columns],
        cut(response.migration),
        cut(spread) ** 2,
        counts[:, rows],
        signal[columns].max(axis=1, keepdims=True),
        np.array([setting.background]),
        None if setting.observed is None else np.array([setting.observed]),
        (setting.r_factor * like / opposite)[rows],
        setting.charges,
        {name: (np.asarray(values) / opposite)[rows] for name, values in setting.templates.items()},
        effects=(
            *(JointEffect(n, cut(_shift(response, r))) for n, r in setting.varied.items()),
            *setting.effects,
        ),
    )
    return Window(model, signal[columns])


def _units(sums: FloatArray, squares: FloatArray) -> FloatArray:
    """Return Σw²/Σw of each bin, shape (i,), or of all where a bin has few pairs, from (charges, i)."""
    total, square = sums.sum(axis=0), squares.sum(axis=0)
    all_bins = square.sum() / total.sum() if total.sum() > 0 else 1.0
    own = np.divide(square, total, out=np.ones_like(total), where=total > 0)
    effective = np.divide(total, own)
    return np.where(effective >= ENOUGH, own, max(all_bins, 1.0))


def _shift(response: Response, varied: Sequence[Response]) -> FloatArray:
    """Return what one standard deviation makes of the migration: one-sided, or half of up less down."""
    if len(varied) == 1:
        return varied[0].migration - response.migration
    return 0.5 * (varied[0].migration - varied[1].migration)
