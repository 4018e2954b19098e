"""What the joint likelihood of pairs and search is made of: the record that a pipeline fills with arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray, Shown
from gammastar.infer.toys import lint_names

__all__ = ["CHARGES", "JointData", "JointEffect", "JointModel"]

CHARGES = "charge_ratio"
"""Nuisance that is the ratio of −− to ++ pairs, as good as free."""
WIDEST = 2.0  # ln κ: beyond, code 4 of HistFactory is no power any more (1.5 % off here)
FREE = 1.0  # ln κ of that ratio's root: e² either way for the ratio


@dataclass(frozen=True, slots=True, eq=False)
class JointEffect:
    """What one standard deviation of one source does; the name is that of its modifier.

    Attributes
    ----------
    name : str
    response : NDArray, shape (i, j), or None
        Shift of `JointModel.response`, opposite for minus one standard deviation.
    signal : float or NDArray, shape (j,)
        ln κ of the signal of each cell.
    r_factor : float
        ln κ of the opposite-sign background over like-sign pairs.
    background : float
        ln κ of the background of the search.
    templates : mapping of str to float
        ln κ of templates by their names.
    """

    name: str
    response: FloatArray | None = None
    signal: float | FloatArray = 0.0
    r_factor: float = 0.0
    background: float = 0.0
    templates: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class JointModel(Shown):
    """Pairs of one mass window, and a search whose signal they predict.

    True cells j of (q_T, E[, m]) have free contents n_j ≥ 0. With them the opposite-sign pairs of bin i
    are Σ_j n_j (R_ij + μ S_ij) + T_i + 2 R f_i, the like-sign ones f_i √ρ^∓1 with free f_i ≥ 0, and
    the search expects μ Σ_j n_j A_jb + B_b. Every bin is Poisson.

    Attributes
    ----------
    pairs : NDArray, shape (j,)
        Contents n_j at which their factors are one: any positive scale.
    response, variance : NDArray, shape (i, j)
        Opposite-sign pairs per true pair, and its variance from the size of the simulation.
    counts : NDArray, shape (3, i)
        Measured +−, ++ and −− pairs.
    signal : NDArray, shape (j, b)
        Events of the search per true pair at μ = 1: acceptance times Eq. 6 of Allison and Blinov (2025).
        b = 0 for a search in the pairs themselves.
    background : NDArray, shape (b,)
    observed : NDArray, shape (b,), or None
        None while the search is masked.
    r_factor : float or NDArray, shape (i,)
        R of the combinatorial pairs: +− over twice the geometric mean of ++ and −−.
    charges : float
        Nominal ratio ρ of −− to ++ pairs; the nuisance ``charge_ratio`` moves it.
    templates : mapping of str to NDArray, shape (i,)
        Opposite-sign pairs that are no virtual photons: open charm, η → l⁺l⁻.
    in_situ : NDArray, shape (i, j), or None
        Signal in the opposite-sign pairs themselves per true pair at μ = 1.
    effects : tuple of JointEffect

    Raises
    ------
    PhysicsError
        For shapes that do not fit, values that are negative or not finite, counts that are not whole, a cell
        that no bin sees, or names that differ in spelling only.
    """

    pairs: FloatArray
    response: FloatArray
    variance: FloatArray
    counts: FloatArray
    signal: FloatArray
    background: FloatArray
    observed: FloatArray | None = None
    r_factor: float | FloatArray = 1.0
    charges: float = 1.0
    templates: Mapping[str, FloatArray] = field(default_factory=dict)
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
                msg = f"JointModel.{name}: counts must be whole numbers"
                raise PhysicsError(msg)
        if not (self.pairs > 0).all() or not np.all(np.asarray(self.r_factor) > 0) or not self.charges > 0:
            msg = "JointModel: pairs, r_factor and charges must be positive"
            raise PhysicsError(msg)
        blind = np.flatnonzero(self.response.sum(axis=0) <= 0)
        if blind.size:
            msg = f"JointModel: no bin sees cell {blind[0]}: its content has no limit; leave the cell out"
            raise PhysicsError(msg)
        if not self.signal.any() and (self.in_situ is None or not self.in_situ.any()):
            msg = "JointModel: there is no signal in any cell"
            raise PhysicsError(msg)
        self._check_effects(i, j)

    def _check_effects(self, i: int, j: int) -> None:
        names = [effect.name for effect in self.effects]
        twice = sorted({name for name in [*names, CHARGES, "mu"] if [*names, CHARGES, "mu"].count(name) > 1})
        if twice:
            msg = f"JointModel: two nuisances are called {twice[0]!r}; name them apart"
            raise PhysicsError(msg)
        lint_names(names)
        for effect in self.effects:
            found = np.broadcast_to(effect.signal, (j,)) if np.ndim(effect.signal) == 0 else effect.signal
            shift = np.zeros((i, j)) if effect.response is None else effect.response
            unknown = set(effect.templates) - set(self.templates)
            numbers = [effect.r_factor, effect.background, *effect.templates.values()]
            if np.shape(found) != (j,) or np.shape(shift) != (i, j) or unknown:
                msg = f"JointModel: effect {effect.name!r} does not fit {i} bins, {j} cells" + (
                    f"; there is no template {sorted(unknown)[0]!r}" if unknown else ""
                )
                raise PhysicsError(msg)
            if not all(np.isfinite(x).all() for x in (found, shift, np.asarray(numbers))):
                msg = f"JointModel: effect {effect.name!r} holds values that are not finite"
                raise PhysicsError(msg)
            largest = max(float(np.abs(found).max()), *(abs(x) for x in numbers), 0.0)
            if largest > WIDEST:
                msg = f"JointModel: effect {effect.name!r} has ln κ = {largest:.3g}, more than {WIDEST:g}"
                raise PhysicsError(msg)

    @property
    def data(self) -> JointData:
        """The measured data as one data set.

        Raises
        ------
        PhysicsError
            While the search is masked.
        """
        if self.observed is None:
            msg = "JointModel: the search is masked: ask for expected limits, or give `observed`"
            raise PhysicsError(msg)
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

        Raises
        ------
        PhysicsError
            For a search in the pairs themselves, which has no exposure of its own.
        """
        if self.in_situ is not None:
            msg = "JointModel.exposed: a search in the measured pairs themselves has no exposure of its own"
            raise PhysicsError(msg)
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
    """Data sets: n of them.

    Attributes
    ----------
    pairs : NDArray, shape (n, 3, i)
        +−, ++ and −− pairs.
    search : NDArray, shape (n, b)
    auxiliary : NDArray, shape (n, k)
        Measurements of the nuisances [standard deviations], that of the charge ratio last.
    simulated : NDArray, shape (n, i)
        Measurements of the factors of the response, one by definition.
    """

    pairs: FloatArray
    search: FloatArray
    auxiliary: FloatArray
    simulated: FloatArray

    def __len__(self) -> int:
        return len(self.pairs)

    def part(self, index: npt.NDArray[np.intp] | slice) -> JointData:
        """Return some of the data sets."""
        return JointData(*(a[index] for a in (self.pairs, self.search, self.auxiliary, self.simulated)))

    @staticmethod
    def concatenate(parts: Sequence[JointData]) -> JointData:
        """Return several lots of data sets as one."""
        names = ("pairs", "search", "auxiliary", "simulated")
        return JointData(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def _check(name: str, values: object, shape: tuple[int, ...]) -> None:
    found = np.asarray(values, dtype=np.float64)
    if found.shape != shape:
        msg = f"JointModel.{name} has shape {found.shape}, expected {shape}"
        raise PhysicsError(msg)
    if not np.isfinite(found).all() or (found < 0).any():
        msg = f"JointModel.{name} must be finite and not negative"
        raise PhysicsError(msg)
