"""What the joint likelihood of pairs and search is made of: the record that a pipeline fills with arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from gammastar.core.errors import EmptyWindowError, PhysicsError
from gammastar.core.records import ENERGY, MASS, PT, FloatArray, PairHists, ReprMixin, Response, variable
from gammastar.infer.toys import lint_names

CHARGES = "charge_ratio"
"""Nuisance that is the ratio of −− to ++ pairs, as good as free."""
WIDEST = 2.0  # ln κ: beyond, code 4 of HistFactory is no power any more (1.5 % off here)
FREE = 1.0  # ln κ of that ratio's root: e² either way for the ratio


@dataclass(frozen=True, slots=True, eq=False)
class JointEffect:
    """What one standard deviation of one source does; the name is that of its modifier."""

    name: str
    # Shift of `JointModel.response`, opposite for minus one standard deviation, shape (i, j)
    response: FloatArray | None = None
    signal: float | FloatArray = 0.0  # ln κ of the signal of each cell, shape (j,)
    r_factor: float = 0.0  # ln κ of the opposite-sign background over like-sign pairs
    background: float = 0.0  # ln κ of the background of the search
    templates: Mapping[str, float] = field(default_factory=dict)  # ln κ of templates by their names


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class JointModel(ReprMixin):
    """Pairs of one mass window, and a search whose signal they predict.

    True cells j of (q_T, E[, m]) have free contents n_j ≥ 0. With them the opposite-sign pairs of bin i
    are Σ_j n_j (R_ij + μ S_ij) + T_i + 2 R f_i, the like-sign ones f_i √ρ^∓1 with free f_i ≥ 0, and
    the search expects μ Σ_j n_j A_jb + B_b. Every bin is Poisson.
    """

    pairs: FloatArray  # Contents n_j at which their factors are one: any positive scale, shape (j,)
    # Opposite-sign pairs per true pair, and its variance from the size of the simulation, shape (i, j)
    response: FloatArray
    variance: FloatArray
    counts: FloatArray  # Measured +−, ++ and −− pairs, shape (3, i)
    # Events of the search per true pair at μ = 1: acceptance times Eq. 6 of Allison and Blinov (2025). b = 0
    # for a search in the pairs themselves, shape (j, b)
    signal: FloatArray
    background: FloatArray  # shape (b,)
    observed: FloatArray | None = None  # None while the search is masked, shape (b,)
    # R of the combinatorial pairs: +− over twice the geometric mean of ++ and −−, shape (i,)
    r_factor: float | FloatArray = 1.0
    charges: float = 1.0  # Nominal ratio ρ of −− to ++ pairs; the nuisance ``charge_ratio`` moves it
    # Opposite-sign pairs that are no virtual photons: open charm, η → l⁺l⁻, shape (i,)
    templates: Mapping[str, FloatArray] = field(default_factory=dict)
    # Signal in the opposite-sign pairs themselves per true pair at μ = 1, shape (i, j)
    in_situ: FloatArray | None = None
    effects: tuple[JointEffect, ...] = ()

    def __post_init__(self) -> None:
        i, j = np.shape(self.response)
        b = len(np.atleast_1d(self.background))
        shapes: list[tuple[str, object, tuple[int, ...]]] = [
            ("pairs", self.pairs, (j,)),
            ("response", self.response, (i, j)),
            ("variance", self.variance, (i, j)),
            ("counts", self.counts, (3, i)),
            ("signal", self.signal, (j, b)),
            ("background", self.background, (b,)),
            *((f"templates {name!r}", values, (i,)) for name, values in self.templates.items()),
        ]
        shapes += [] if self.in_situ is None else [("in_situ", self.in_situ, (i, j))]
        shapes += [] if self.observed is None else [("observed", self.observed, (b,))]
        for name, values, shape in shapes:
            _check(name, values, shape)
        for name, values in (("counts", self.counts), ("observed", self.observed)):
            if values is not None and not np.array_equal(values, np.rint(values)):
                raise PhysicsError(f"JointModel.{name}: counts must be whole numbers")
        if not np.all(np.asarray(self.r_factor) > 0) or not self.charges > 0:
            raise PhysicsError(
                f"JointModel: r_factor {self.r_factor} and charges {self.charges} must be positive"
            )
        if not (self.pairs > 0).all():
            raise EmptyWindowError(
                f"JointModel.pairs: the content of cell {int(np.argmin(self.pairs))} must be positive"
            )
        blind = np.flatnonzero(self.response.sum(axis=0) <= 0)
        if blind.size:
            raise EmptyWindowError(
                f"JointModel: no bin sees cell {blind[0]}: its content has no limit; leave the cell out"
            )
        if not self.signal.any() and (self.in_situ is None or not self.in_situ.any()):
            raise EmptyWindowError("JointModel: there is no signal in any cell")
        self._check_effects(i, j)

    def _check_effects(self, i: int, j: int) -> None:
        names = [effect.name for effect in self.effects]
        twice = sorted({name for name in [*names, CHARGES, "mu"] if [*names, CHARGES, "mu"].count(name) > 1})
        if twice:
            raise PhysicsError(f"JointModel: two nuisances are called {twice[0]!r}; name them apart")
        lint_names(names)
        for effect in self.effects:
            found = np.broadcast_to(effect.signal, (j,)) if np.ndim(effect.signal) == 0 else effect.signal
            shift = np.zeros((i, j)) if effect.response is None else effect.response
            unknown = set(effect.templates) - set(self.templates)
            numbers = [effect.r_factor, effect.background, *effect.templates.values()]
            if np.shape(found) != (j,) or np.shape(shift) != (i, j) or unknown:
                more = f"; there is no template {sorted(unknown)[0]!r}" if unknown else ""
                raise PhysicsError(
                    f"JointModel: effect {effect.name!r} does not fit {i} bins, {j} cells{more}"
                )
            if not all(np.isfinite(x).all() for x in (found, shift, np.asarray(numbers))):
                raise PhysicsError(f"JointModel: effect {effect.name!r} holds values that are not finite")
            largest = max(float(np.abs(found).max()), *(abs(x) for x in numbers), 0.0)
            if largest > WIDEST:
                raise PhysicsError(
                    f"JointModel: effect {effect.name!r} has ln κ = {largest:.3g}, more than {WIDEST:g}"
                )

    @property
    def data(self) -> JointData:
        """The measured data as one data set."""
        if self.observed is None:
            raise PhysicsError(
                "JointModel: the search is masked: ask for expected limits, or give `observed`"
            )
        return self.with_search(self.observed)

    def with_search(self, events: npt.ArrayLike) -> JointData:
        """Return the measured pairs with given events in the search, shape (b,) or (n, b)."""
        rows = np.atleast_2d(np.asarray(events, dtype=np.float64))
        if rows.shape[1] != len(self.background):
            rows = rows.reshape(-1, len(self.background))
        pairs = np.broadcast_to(self.counts[None], (len(rows), *self.counts.shape))
        return JointData(
            pairs, rows, np.zeros((len(rows), len(self.effects) + 1)), np.ones((len(rows), pairs.shape[2]))
        )

    def exposed(self, factor: float) -> JointModel:
        """Return the model of a search with `factor` times its exposure, and the same measured pairs.

        Its background grows with it, relative errors stay. It is masked, unless the factor is one.
        """
        if self.in_situ is not None:
            raise PhysicsError(
                "JointModel.exposed: a search in the measured pairs themselves has no exposure of its own"
            )
        if factor == 1.0:
            return self
        background = factor * self.background
        return replace(self, signal=factor * self.signal, background=background, observed=None)

    def scaled(self, factor: float) -> JointModel:
        """Return the model whose μ = 1 is `factor` times that of this one."""
        own = None if self.in_situ is None else factor * self.in_situ
        return replace(self, signal=factor * self.signal, in_situ=own)


@dataclass(frozen=True, slots=True, eq=False)
class JointData:
    """Data sets: n of them."""

    pairs: FloatArray  # +−, ++ and −− pairs, shape (n, 3, i)
    search: FloatArray  # shape (n, b)
    # Measurements of the nuisances [standard deviations], that of the charge ratio last, shape (n, k)
    auxiliary: FloatArray
    simulated: FloatArray  # Measurements of the factors of the response, one by definition, shape (n, i)

    def __len__(self) -> int:
        return len(self.pairs)

    def part(self, index: npt.NDArray[np.intp] | slice) -> JointData:
        """Return some of the data sets."""
        return JointData(*(a[index] for a in (self.pairs, self.search, self.auxiliary, self.simulated)))


def _check(name: str, values: object, shape: tuple[int, ...]) -> None:
    found = np.asarray(values, dtype=np.float64)
    if found.shape != shape:
        raise PhysicsError(f"JointModel.{name} has shape {found.shape}, expected {shape}")
    if not np.isfinite(found).all() or (found < 0).any():
        raise PhysicsError(f"JointModel.{name} must be finite and not negative")


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
        raise PhysicsError(
            "joint likelihood: its bins are Poisson, and pairs carry weights; take likelihood = 'two-step'"
        )
    opposite, like = _units(sums[:1], squares[:1]), _units(sums[1:], squares[1:])
    counts = np.rint(sums / np.stack([opposite, like, like]))
    rows, columns = response.migration.sum(axis=1) > 0, response.efficiency >= setting.least
    if not rows.any() or not columns.any():
        raise EmptyWindowError(
            f"joint likelihood: no cell of the window is seen with an efficiency of {setting.least:g}"
        )
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
