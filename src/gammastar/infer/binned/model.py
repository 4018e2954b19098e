"""Expected events of all samples of a workspace and their derivatives, as flat arrays without loops.

A cell is one bin of one sample. Its events are max(nominal + Σ shifts(α), 0) Π factors; which parameter moves
which cell is kept in sparse matrices, and the sets of parameters are the last axis of every array within.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray
from gammastar.infer.histfactory.hs3 import staterrors
from gammastar.infer.histfactory.workspaces import MASKED

IntArray = npt.NDArray[np.int64]

LOCAL = 3  # bins, and parameters of a block, up to which parameters are eliminated
LARGEST_FACTOR = 1e100  # of all normsys modifiers of a cell
PAYS = 0.5  # eliminated parameters for each other one, from which it is worth while


@dataclass(frozen=True, slots=True, eq=False)
class SampleTerms:
    """One sample of a channel; integers are numbers of parameters."""

    place: slice  # Of its bins among all bins
    nominal: FloatArray  # shape (bins,)
    # Of each histosys the odd and the even part of its shifts
    shapes: list[tuple[int, FloatArray, FloatArray]]
    norms: list[tuple[int, float, float]]  # Of each normsys its factors at −1 and +1 standard deviation
    factors: list[int]  # Normalisation factors and luminosity
    gammas: list[IntArray]  # Bin-wise factors, shape (bins,)


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Which of p parameters fits eliminate: those in few of b bins alone, in blocks; the others are the core.

    Derivatives are kept where they can differ from zero: between bins and the core (m), and between the s
    parameters and the t bins of each of g blocks.
    """

    core: IntArray  # shape (m,)
    local: IntArray  # p stands for none, shape (g, s)
    rows: IntArray  # b stands for none, shape (g, t)
    places: IntArray  # Of each parameter that in `core`, or m more than that in `local`, shape (p,)
    bins: int

    @property
    def slopes(self) -> int:
        """Number of first derivatives."""
        return int(self.bins * self.core.size + self.rows.size * self.local.shape[1])

    @property
    def bends(self) -> int:
        """Number of second derivatives."""
        return int(
            (self.core.size + self.local.size) * self.core.size + self.local.size * self.local.shape[1]
        )

    def slope(self, bins: IntArray, parameters: IntArray) -> IntArray:
        """Return the places of first derivatives."""
        m, s, place = self.core.size, self.local.shape[1], self.places[parameters]
        if not self.local.size:
            return np.asarray(bins * m + place, dtype=np.int64)
        block, slot = np.divmod(np.maximum(place - m, 0), s)
        row = (self.rows[block] == bins[:, None]).argmax(axis=1)
        behind = self.bins * m + (block * self.rows.shape[1] + row) * s + slot
        return np.asarray(np.where(place < m, bins * m + place, behind), dtype=np.int64)

    def bend(self, one: IntArray, other: IntArray) -> IntArray:
        """Return the places of second derivatives by two parameters, once for both orders."""
        m, s, own = self.core.size, self.local.shape[1], np.stack([self.places[one], self.places[other]])
        high, low = own.max(axis=0), own.min(axis=0)
        cross = m * m + (high - m) * m + low
        block = m * m + self.local.size * m + (high - m) * s + np.mod(low - m, max(s, 1))
        found = np.where(high < m, own[0] * m + own[1], np.where(low < m, cross, block))
        return np.asarray(found, dtype=np.int64)

    def split(self, x: FloatArray, none: float = 0.0) -> tuple[FloatArray, FloatArray]:
        """Return numbers of the core and of the blocks from those of all parameters on the last axis."""
        padded = np.concatenate([x, np.full((*x.shape[:-1], 1), none)], axis=-1)
        return x[..., self.core], padded[..., self.local]

    def joined(self, core: FloatArray, local: FloatArray) -> FloatArray:
        """Return numbers of all parameters, shape (n, p)."""
        found = np.zeros((len(core), self.places.size + 1))
        found[:, self.local] = local
        found[:, self.core] = core
        return found[:, :-1]

    def whole(self, bends: Bends) -> FloatArray:
        """Return a symmetric matrix in all parameters, shape (n, p, p)."""
        found, core = np.zeros((len(bends.core), *(self.places.size + 1,) * 2)), self.core
        found[:, core[:, None], core] = bends.core
        for block, cross, own in zip(
            self.local, bends.cross.swapaxes(0, 1), bends.blocks.swapaxes(0, 1), strict=True
        ):
            found[:, block[:, None], core], found[:, core[:, None], block] = cross, cross.swapaxes(1, 2)
            found[:, block[:, None], block] = own
        return found[:, :-1, :-1]


def layout_of(linear: IntArray, bin_of: IntArray, bins: int, smooth: npt.NDArray[np.bool_]) -> Layout:
    """Return the layout of parameters that are factors of cells, or `smooth`: never eliminated."""
    p = smooth.size
    met = np.zeros((p + 1, bins), dtype=np.bool_)
    met[linear, bin_of[:, None]] = True
    local = np.flatnonzero(~smooth & met[:-1].any(axis=1) & (met[:-1].sum(axis=1) <= LOCAL))
    own = csr_array(met[local].astype(np.int64))
    _, label = connected_components(own @ own.T, directed=False)
    local = local[np.bincount(label)[label] <= LOCAL] if local.size else local
    core = np.setdiff1d(np.arange(p), local)
    if local.size < PAYS * core.size:
        local, core = local[:0], np.arange(p)
    places = np.zeros(p, dtype=np.int64)
    places[core] = np.arange(core.size)
    own = csr_array(met[local].astype(np.int64))
    blocks, label = connected_components(own @ own.T, directed=False) if local.size else (0, local)
    members = [local[label == k] for k in range(blocks)]
    rows = [np.flatnonzero(met[one].any(axis=0)) for one in members]
    block, row = (
        np.full((blocks, max(map(len, listed), default=0)), none)
        for listed, none in ((members, p), (rows, bins))
    )
    for k in range(blocks):
        block[k, : len(members[k])], row[k, : len(rows[k])] = members[k], rows[k]
        places[members[k]] = core.size + k * block.shape[1] + np.arange(len(members[k]))
    return Layout(core, block, row, places, bins)


@dataclass(frozen=True, slots=True, eq=False)
class Bends:
    """A symmetric matrix of n sets of parameters, as the layout has it."""

    core: FloatArray  # shape (n, m, m)
    cross: FloatArray  # shape (n, g, s, m)
    blocks: FloatArray  # shape (n, g, s, s)

    def of(self, rows: IntArray) -> Bends:
        """Return those of some sets."""
        return Bends(self.core[rows], self.cross[rows], self.blocks[rows])


@dataclass(frozen=True, slots=True, eq=False)
class Slopes:
    """Expected events at n sets of parameters, their derivatives, and what second ones are made of."""

    total: FloatArray  # shape (n, b)
    core: FloatArray  # shape (n, b, m)
    local: FloatArray  # shape (n, g, t, s)
    # First and second derivatives of ln of the log-normal factors of each sample, shape (n, k, m)
    logs: FloatArray
    bends: FloatArray
    at: FloatArray  # shape (p, n)
    # Of each cell: template before its cut at zero, log-normal factors, events, shape (c, n); product of all
    # other factors but one each, shape (l, c, n)
    shape: FloatArray
    scale: FloatArray
    events: FloatArray
    others: FloatArray
    linear: FloatArray  # shape (c, l, n)


@dataclass(frozen=True, slots=True, eq=False)
class Expectation:
    """Cells of all samples; p parameters, b bins, c cells, n normsys modifiers of k samples, l factors."""

    parameters: int
    bins: int
    layout: Layout
    nominal: FloatArray  # shape (c,)
    bin_of: IntArray  # shape (c,)
    gather: csr_array  # Sums the cells of a bin, shape (b, c)
    # Parts of the shifts of histosys modifiers, shape (c, p)
    odd: csr_array
    even: csr_array
    # The same, from cells to derivatives, shape (slopes, c); the parameter of each
    odd_slopes: csr_array
    even_slopes: csr_array
    slope_of: IntArray
    linear: IntArray  # Parameters that are factors of a cell; p stands for none, shape (c, l)
    linear_slopes: csr_array  # From cells less one factor each to derivatives, shape (slopes, l c)
    norm_of: IntArray  # Parameters of the normsys modifiers, in order of samples, shape (n,)
    polynomials: FloatArray  # shape (n, 7)
    # ln of their factors, shape (n,)
    high: FloatArray
    low: FloatArray
    # First modifier of each sample that has any, and the sample of each modifier, shape (k,)
    starts: IntArray
    row_of: IntArray
    normed: IntArray  # The sample of each cell, k where it has none, shape (c,)
    samples: csr_array  # shape (k, c)
    pairs: IntArray  # Each cell with each of its normsys modifiers, shape (2, e)
    norm_slopes: csr_array  # shape (slopes, e)
    norm_rows: csr_array  # shape (k m, n)
    # To second derivatives by a shift (odd and even part) and a factor, shape (bends, l c), the parameter of
    # the shift, and by two factors, shape (bends, pairs of columns times c)
    bent_shifts: tuple[csr_array, csr_array]
    bend_of: IntArray
    bent_factors: csr_array
    # To those of each sample with log-normal factors, shape (k m, c) and, core and blocks, (k q, l c)
    sample_shifts: tuple[csr_array, csr_array]
    sample_factors: csr_array

    @property
    def shifted(self) -> bool:
        """Whether any template has another shape somewhere."""
        return bool(self.odd.nnz or self.even.nnz)

    @property
    def numbers(self) -> int:
        """Numbers that the derivatives of one set of parameters take."""
        most = self.layout.slopes, 4 * self.layout.bends, self.starts.size * self.parameters
        return int(max(*most, self.pairs.shape[1], 4 * self.linear.size, 1))

    def cells(self, x: FloatArray) -> FloatArray:
        """Return the events of each cell at parameters (sets, p), shape (c, sets)."""
        at = np.ascontiguousarray(x.T)
        return np.asarray(np.maximum(self._shape(at), 0.0) * self._factor(at))

    def total(self, x: FloatArray) -> FloatArray:
        """Return the events of each bin, shape (sets, b)."""
        return np.ascontiguousarray((self.gather @ self.cells(x)).T)

    def shape(self, x: FloatArray) -> FloatArray:
        """Return the templates before factors, which may be negative, shape (sets, c)."""
        return np.asarray(self._shape(np.ascontiguousarray(x.T)).T)

    def shape_slopes(self, x: FloatArray, cell: IntArray) -> FloatArray:
        """Return the derivatives of one template at each set of parameters, shape (sets, p)."""
        odd, even = (part[cell].toarray() for part in (self.odd, self.even))
        return np.asarray(odd + even * _bend(x)[0])

    def factor(self, x: FloatArray) -> FloatArray:
        """Return what multiplies the templates, shape (sets, c)."""
        return np.asarray(self._factor(np.ascontiguousarray(x.T)).T)

    def with_slopes(self, x: FloatArray) -> Slopes:
        """Return `total` and its derivatives."""
        at, n = np.ascontiguousarray(x.T), len(x)
        shape, linear = self._shape(at), self._linear(at)
        value, slope, second = interpolated(at[self.norm_of], self.polynomials, self.high, self.low)
        safe = np.where(value == 0.0, 1.0, value)
        log, scale = slope / safe, np.broadcast_to(self._scale(value), shape.shape)
        columns = range(linear.shape[1])  # a factor may be zero: the others are multiplied
        others = np.array([np.delete(linear, i, axis=1).prod(axis=1) for i in columns])
        others = others.reshape(len(columns), *shape.shape)
        scaled, product = np.maximum(shape, 0.0) * scale, linear.prod(axis=1)
        events = scaled * product
        flat = self.linear_slopes @ (scaled * others).reshape(-1, n)
        if log.size:
            flat += self.norm_slopes @ (events[self.pairs[0]] * log[self.pairs[1]])
        if self.shifted:
            moved = np.where(shape > 0.0, scale * product, 0.0)
            flat += self.odd_slopes @ moved
            if self.even.nnz:
                flat += (self.even_slopes @ moved) * _bend(at)[0][self.slope_of]
        flat, (g, t), s = np.ascontiguousarray(flat.T), self.layout.rows.shape, self.layout.local.shape[1]
        m = self.layout.core.size
        logs, bends = (
            np.ascontiguousarray((self.norm_rows @ a).T).reshape(n, self.starts.size, m)
            for a in (log, second / safe - log**2)
        )
        return Slopes(
            np.ascontiguousarray((self.gather @ events).T),
            flat[:, : self.bins * m].reshape(n, self.bins, m),
            flat[:, self.bins * m :].reshape(n, g, t, s),
            logs,
            bends,
            at,
            shape,
            scale,
            events,
            others,
            linear,
        )

    def of_samples(self, weight: FloatArray, found: Slopes) -> FloatArray:
        """Return the weighted events of each sample with log-normal factors, weights (n, b), shape (n, k)."""
        return np.asarray((self.samples @ (weight.T[self.bin_of] * found.events)).T)

    def curvature(self, weight: FloatArray, found: Slopes) -> Bends:
        """Return Σ weight ∂²ν over the bins, weights (n, b)."""
        n, k, layout = len(weight), self.starts.size, self.layout
        m, (g, s) = layout.core.size, layout.local.shape
        each = weight.T[self.bin_of] * found.scale
        full = each * np.maximum(found.shape, 0.0)
        own = (self.sample_factors @ (full * found.others).reshape(-1, n)).reshape(k, m + g * s, n)
        flat = np.zeros((layout.bends, n))
        if self.bent_factors.nnz:
            pairs = combinations(range(found.linear.shape[1]), 2)
            left = np.array([np.delete(found.linear, ij, axis=1).prod(axis=1) for ij in pairs])
            flat = self.bent_factors @ (full * left).reshape(-1, n)
        if self.shifted:
            moved = np.where(found.shape > 0.0, each, 0.0)
            full, part = moved * found.linear.prod(axis=1), (moved * found.others).reshape(-1, n)
            flat += self.bent_shifts[0] @ part
            own[:, :m] += (self.sample_shifts[0] @ full).reshape(k, m, n)
            if self.even.nnz:
                slope, bend = _bend(found.at)
                flat += (self.bent_shifts[1] @ part) * slope[self.bend_of]
                own[:, :m] += (self.sample_shifts[1] @ full).reshape(k, m, n) * slope[layout.core]
                flat[: m * m : m + 1] += 0.5 * (bend * (self.even.T @ full))[layout.core]
        flat = np.ascontiguousarray(flat.T)
        half, cross = flat[:, : m * m].reshape(n, m, m), flat[:, m * m : m * (m + g * s)].reshape(n, g, s, m)
        blocks = flat[:, m * (m + g * s) :].reshape(n, g, s, s)
        if k:
            events, logs = self.of_samples(weight, found)[:, :, None], found.logs
            own = np.ascontiguousarray(own.reshape(-1, n).T).reshape(n, k, -1)
            half += np.swapaxes(logs, 1, 2) @ (own[:, :, :m] + 0.5 * events * logs)
            half[:, np.arange(m), np.arange(m)] += 0.5 * (events * found.bends).sum(axis=1)
            if g:
                cross += (np.swapaxes(own[:, :, m:], 1, 2) @ logs).reshape(n, g, s, m)
        return Bends(half + np.swapaxes(half, 1, 2), cross, blocks + np.swapaxes(blocks, 2, 3))

    def _shape(self, at: FloatArray) -> FloatArray:
        """Return the templates, smooth inside ±1 standard deviation and linear outside, shape (c, sets)."""
        if not self.odd.nnz and not self.even.nnz:
            return np.broadcast_to(self.nominal[:, None], (self.nominal.size, at.shape[1]))
        square = np.minimum(at**2, 1.0)
        smooth = np.where(square < 1.0, square * (15.0 - 10.0 * square + 3.0 * square**2) / 8.0, np.abs(at))
        return np.asarray(self.nominal[:, None] + self.odd @ at + self.even @ smooth)

    def _factor(self, at: FloatArray) -> FloatArray:
        scale = self._scale(interpolated(at[self.norm_of], self.polynomials, self.high, self.low)[0])
        return np.asarray(scale * self._linear(at).prod(axis=1))

    def _linear(self, at: FloatArray) -> FloatArray:
        """Return the factors of each cell that are parameters, shape (c, l, sets)."""
        return np.asarray(np.concatenate([at, np.ones((1, at.shape[1]))])[self.linear])

    def _scale(self, value: FloatArray) -> FloatArray:
        """Return the product of the normsys factors of each cell, shape (c, sets) or (1, 1)."""
        if not self.starts.size:
            return np.ones((1, 1))
        with np.errstate(over="ignore"):  # of steps that go too far
            products = np.multiply.reduceat(value, self.starts, axis=0)
        products = np.clip(products, 0.0, LARGEST_FACTOR)  # not below 0, as ROOT
        return np.asarray(np.concatenate([products, np.ones((1, value.shape[1]))])[self.normed])


def _bend(at: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return first and second derivative of the even part of a histosys, shape (p, sets)."""
    square = np.minimum(at**2, 1.0)
    inside = square < 1.0
    first = np.where(inside, at * (30.0 - 40.0 * square + 18.0 * square**2) / 8.0, np.sign(at))
    return first, np.where(inside, (30.0 - 120.0 * square + 90.0 * square**2) / 8.0, 0.0)


def interpolated(
    alpha: FloatArray, polynomials: FloatArray, high: FloatArray, low: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return factors (n, sets) of n normsys modifiers at α, their derivatives and second derivatives.

    Code 4 of HistFactory: a polynomial inside ±1, which `polynomials_of` gives, exponentials outside.
    """
    inside = np.abs(alpha) < 1.0
    a = np.where(inside, alpha, 0.0)
    value = slope = bend = np.zeros(alpha.shape)
    for k in range(6, -1, -1):
        bend, slope = bend * a + 2.0 * slope, slope * a + value
        value = value * a + polynomials[:, k, None]
    if inside.all():
        return value, slope, bend
    up = np.where(alpha > 0.0, high[:, None], -low[:, None])
    outside = np.exp(np.where(inside, 0.0, np.clip(alpha * up, -300.0, 300.0)))
    return tuple(np.where(inside, a, outside * up**k) for k, a in enumerate((value, slope, bend)))  # type: ignore[return-value]


def polynomials_of(low: FloatArray, high: FloatArray) -> FloatArray:
    """Return coefficients (n, 7) whose value, slope and curvature meet the exponentials at ±1."""
    logs = np.log(high), np.log(low)
    ends = [high - 1, low - 1, high * logs[0], -low * logs[1], high * logs[0] ** 2, low * logs[1] ** 2]
    powers = np.arange(1, 7)
    rows = []
    for order in (0, 1, 2):
        scale = np.prod([powers - k for k in range(order)], axis=0) if order else np.ones(6)
        rows += [scale, scale * (-1.0) ** (powers - order)]
    found = np.linalg.solve(np.array(rows, dtype=np.float64), np.array(ends, dtype=np.float64))
    return np.ascontiguousarray(np.vstack([np.ones_like(low), found]).T)


def _sparse(
    rows: npt.ArrayLike, columns: npt.ArrayLike, shape: tuple[int, int], values: FloatArray | None = None
) -> csr_array:
    """Return a sparse matrix, of ones by default, without zeros."""
    at = np.asarray(rows, dtype=np.int64), np.asarray(columns, dtype=np.int64)
    found = csr_array((np.ones(len(at[0])) if values is None else values, at), shape)
    found.eliminate_zeros()
    return found


def expectation_of(samples: Sequence[SampleTerms], bins: int, parameters: int, poi: int) -> Expectation:
    """Return the cells of samples."""
    sizes = np.array([s.nominal.size for s in samples])
    first = np.concatenate([[0], np.cumsum(sizes)])
    total = int(first[-1])
    bin_of = np.concatenate([np.arange(s.place.start, s.place.stop) for s in samples])
    cell, number, odd, even = _shifts(samples, first)
    linear = _factors(samples, first, parameters)
    norm_of = np.array([p for s in samples for p, _, _ in s.norms], dtype=np.int64)
    ends = np.array([pair for s in samples for _, *pair in s.norms], dtype=np.float64).reshape(-1, 2)
    counts = np.array([len(s.norms) for s in samples])
    some = np.flatnonzero(counts)
    k, starts = some.size, np.cumsum(counts[some]) - counts[some]
    row_of = np.repeat(np.arange(k), counts[some])
    row = np.full(len(samples), k)
    row[some] = np.arange(k)
    normed = np.repeat(row, sizes)
    here = np.flatnonzero(normed < k)
    each = np.repeat(here, counts[some][normed[here]])  # a cell for each of its modifiers
    begin = np.repeat(starts[normed[here]], counts[some][normed[here]])
    before = np.cumsum(counts[some][normed[here]]) - counts[some][normed[here]]
    modifier = begin + np.arange(each.size) - np.repeat(before, counts[some][normed[here]])
    smooth = np.zeros(parameters, dtype=np.bool_)
    smooth[np.concatenate([norm_of, number, [poi]])] = True
    layout = layout_of(linear, bin_of, bins, smooth)
    m = layout.core.size
    # each cell with each of its factors, with each of its shifts and factors, with each two factors
    factor, column = np.nonzero(linear < parameters)
    by = linear[factor, column]
    shift, beside = np.nonzero((linear < parameters)[cell])
    other, twice = linear[cell[shift], beside], _twice(linear, parameters)
    keys, bent = (layout.slopes, linear.shape[1] * total), (layout.bends, linear.shape[1] * total)
    to_slopes, to_bends = layout.slope(bin_of[cell], number), layout.bend(number[shift], other)
    slope_of, bend_of = (np.zeros(size, dtype=np.int64) for size in (layout.slopes, layout.bends))
    slope_of[to_slopes], bend_of[to_bends] = number, number[shift]
    own, inside = normed[cell] < k, normed[factor] < k
    return Expectation(
        parameters,
        bins,
        layout,
        np.concatenate([s.nominal for s in samples]),
        bin_of,
        _sparse(bin_of, np.arange(total), (bins, total)),
        _sparse(cell, number, (total, parameters), odd),
        _sparse(cell, number, (total, parameters), even),
        _sparse(to_slopes, cell, (layout.slopes, total), odd),
        _sparse(to_slopes, cell, (layout.slopes, total), even),
        slope_of,
        linear,
        _sparse(layout.slope(bin_of[factor], by), column * total + factor, keys),
        norm_of,
        polynomials_of(ends[:, 0], ends[:, 1]),
        np.log(ends[:, 1]),
        np.log(ends[:, 0]),
        starts,
        row_of,
        normed,
        _sparse(normed[here], here, (k, total)),
        np.stack([each, modifier]),
        _sparse(
            layout.slope(bin_of[each], norm_of[modifier]), np.arange(each.size), (layout.slopes, each.size)
        ),
        _sparse(row_of * m + layout.places[norm_of], np.arange(norm_of.size), (k * m, norm_of.size)),
        (
            _sparse(to_bends, beside * total + cell[shift], bent, odd[shift]),
            _sparse(to_bends, beside * total + cell[shift], bent, even[shift]),
        ),
        bend_of,
        _sparse(layout.bend(twice[2], twice[3]), twice[0] * total + twice[1], (layout.bends, twice[4][0])),
        (
            _sparse(normed[cell[own]] * m + layout.places[number[own]], cell[own], (k * m, total), odd[own]),
            _sparse(normed[cell[own]] * m + layout.places[number[own]], cell[own], (k * m, total), even[own]),
        ),
        _sparse(
            normed[factor[inside]] * (m + layout.local.size) + layout.places[by[inside]],
            column[inside] * total + factor[inside],
            (k * (m + layout.local.size), linear.shape[1] * total),
        ),
    )


def _twice(linear: IntArray, none: int) -> tuple[IntArray, ...]:
    """Return of each two factors of a cell: number of the two columns, cell, both parameters."""
    columns = list(combinations(range(linear.shape[1]), 2))
    if not columns:
        return tuple(np.zeros(size, dtype=np.int64) for size in (0, 0, 0, 0, 1))
    both = np.array([[linear[:, i], linear[:, j]] for i, j in columns])  # (pairs, 2, c)
    which, cell = np.nonzero((both < none).all(axis=1))
    return which, cell, both[which, 0, cell], both[which, 1, cell], np.array([len(columns) * len(linear)])


def _shifts(
    samples: Sequence[SampleTerms], first: IntArray
) -> tuple[IntArray, IntArray, FloatArray, FloatArray]:
    """Return cells and parameters of all histosys modifiers, with both parts of their shifts."""
    listed = [
        (begin + np.arange(odd.size), np.full(odd.size, p), odd, even)
        for s, begin in zip(samples, first.tolist(), strict=False)
        for p, odd, even in s.shapes
    ]
    if not listed:
        none = np.zeros(0, dtype=np.int64)
        return none, none, np.zeros(0), np.zeros(0)
    cell, number, odd, even = (np.concatenate(part) for part in zip(*listed, strict=True))
    return cell, number, odd, even


def _factors(samples: Sequence[SampleTerms], first: IntArray, none: int) -> IntArray:
    """Return the parameters that are factors of each cell, filled up with `none`."""
    width = max((len(s.factors) + len(s.gammas) for s in samples), default=0)
    linear = np.full((int(first[-1]), width), none)
    for s, begin in zip(samples, first.tolist(), strict=False):
        rows = slice(begin, begin + s.nominal.size)
        for i, p in enumerate([*s.factors, *s.gammas]):
            linear[rows, i] = p
    return linear


SMALLEST = 1e-9  # events; the logarithm of an expectation of zero is not finite
ALPHA, GAMMA, FACTOR = (-5.0, 5.0), (1e-10, 10.0), (0.0, 10.0)  # bounds as in pyhf
ONE_SIDED = 0.7  # even over odd part of what a nuisance does
KINDS = {"normfactor", "normsys", "histosys", "shapesys", "staterror", "shapefactor", "lumi"}


@dataclass(frozen=True, slots=True, eq=False)
class BinnedModel:
    """A likelihood of Poisson bins and constrained parameters."""

    events: Expectation  # Cells of all samples
    names: tuple[str, ...]  # Of the parameters, bins in brackets
    poi: int
    # shape (parameters,)
    start: FloatArray
    low: FloatArray
    high: FloatArray
    fixed: npt.NDArray[np.bool_]  # shape (parameters,)
    # Measured value and error of Gaussian constraints, counts of Poisson ones; nan without such a one, shape
    # (parameters,)
    centre: FloatArray
    width: FloatArray
    tau: FloatArray
    counts: FloatArray  # shape (bins,)
    masked: bool  # Counts are expected ones
    one_sided: npt.NDArray[np.int64]  # Nuisances that move events the same way for both signs

    def expected(self, x: FloatArray) -> FloatArray:
        """Return the expected events at parameters (sets, parameters), shape (sets, bins)."""
        return self.events.total(x)

    def penalty(self, x: FloatArray, aux: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return −ln of the constraints (without constants), its gradient and its diagonal curvature."""
        gauss, poisson = np.isfinite(self.width), np.isfinite(self.tau)
        value, gradient, curvature = np.zeros(len(x)), np.zeros(x.shape), np.zeros(x.shape)
        pull = (x[:, gauss] - aux[:, gauss]) / self.width[gauss]
        value += 0.5 * (pull**2).sum(axis=1)
        gradient[:, gauss], curvature[:, gauss] = pull / self.width[gauss], self.width[gauss] ** -2.0
        gamma, tau, seen = x[:, poisson], self.tau[poisson], aux[:, poisson]
        value += (gamma * tau - seen * np.log(gamma)).sum(axis=1)
        gradient[:, poisson], curvature[:, poisson] = tau - seen / gamma, np.maximum(seen, 1e-3) / gamma**2
        return value, gradient, curvature

    @property
    def aux(self) -> FloatArray:
        """Observed auxiliary measurements, shape (1, parameters): counts where they are counted."""
        return np.where(np.isfinite(self.tau), self.tau, self.centre)[None, :]


@dataclass(slots=True)
class _Parameters:
    """Parameters as they are met in a workspace."""

    settings: Mapping[str, Mapping[str, Any]]
    rows: dict[str, tuple[float, ...]] = field(
        default_factory=dict
    )  # start, low, high, fixed, centre, width, tau

    def add(
        self, name: str, index: int | None, start: float, bounds: tuple[float, float], *constraint: float
    ) -> int:
        """Return the number of a parameter, made where it is new; the measurement may set it up otherwise."""
        label = name if index is None else f"{name}[{index}]"
        if label not in self.rows:
            setting, i = self.settings.get(name, {}), index or 0
            centre, width, tau = constraint or (np.nan, np.nan, np.nan)
            if "auxdata" in setting and np.isfinite(width):
                centre = float(setting["auxdata"][i])
            if "sigmas" in setting and np.isfinite(width):
                width = float(setting["sigmas"][i])
            low, high = setting["bounds"][i] if "bounds" in setting else bounds
            value = float(setting["inits"][i]) if "inits" in setting else start
            if not np.isfinite([value, low, high]).all():
                raise PhysicsError(
                    f"parameter {label!r} of the measurement: {value}, bounds {low} to {high} must be finite"
                )
            held = float(bool(setting.get("fixed")) or (bool(constraint) and tau == 0.0))
            self.rows[label] = (
                value,
                float(low),
                float(high),
                held,
                centre,
                width,
                np.nan if tau == 0.0 else tau,
            )
        return list(self.rows).index(label)


NO_CONSTRAINT: tuple[float, ...] = ()


def binned_model(workspace: Mapping[str, Any]) -> BinnedModel:
    """Return a workspace as arrays."""
    config = workspace["measurements"][0]["config"]
    parameters = _Parameters({entry["name"]: entry for entry in config["parameters"]})
    observed = {o["name"]: o["data"] for o in workspace["observations"]}
    samples: list[SampleTerms] = []
    counts: list[float] = []
    for channel in workspace["channels"]:
        bins = len(channel["samples"][0]["data"])
        place = slice(len(counts), len(counts) + bins)
        counts += [float(n) for n in observed[channel["name"]]]
        errors = staterrors(channel)
        samples += [_terms(sample, place, errors, parameters) for sample in channel["samples"]]
    if config["poi"] not in parameters.rows:
        raise PhysicsError(f"exact limits: no sample carries the parameter of interest {config['poi']!r}")
    held = parameters.settings.get(config["poi"], {})
    if held.get("fixed") or "auxdata" in held or "sigmas" in held:
        raise PhysicsError(
            f"parameter {config['poi']!r}: the parameter of interest can be neither fixed nor constrained"
        )
    table = np.array(list(parameters.rows.values()), dtype=np.float64)
    names = tuple(parameters.rows)
    poi = names.index(config["poi"])
    table[poi, 2] = max(table[poi, 2], 1e6)  # the statistic itself bounds the strength
    return BinnedModel(
        expectation_of(samples, len(counts), len(names), poi),
        names,
        poi,
        np.clip(table[:, 0], table[:, 1], table[:, 2]),
        table[:, 1],
        table[:, 2],
        table[:, 3] > 0,
        table[:, 4],
        table[:, 5],
        table[:, 6],
        np.array(counts),
        workspace["measurements"][0]["name"] == MASKED,
        _one_sided(samples, len(names)),
    )


def _one_sided(samples: Sequence[SampleTerms], parameters: int) -> npt.NDArray[np.int64]:
    odd, even = np.zeros(parameters), np.zeros(parameters)
    for s in samples:
        for p, o, e in s.shapes:
            odd[p] += np.abs(o).sum()
            even[p] += np.abs(e).sum()
        for p, low, high in s.norms:
            odd[p] += 0.5 * abs(high - low) * s.nominal.sum()
            even[p] += abs(0.5 * (high + low) - 1.0) * s.nominal.sum()
    return np.flatnonzero(even > ONE_SIDED * odd)


def _terms(
    sample: Mapping[str, Any], place: slice, errors: Mapping[str, Sequence[float]], parameters: _Parameters
) -> SampleTerms:
    nominal = np.asarray(sample["data"], dtype=np.float64)
    found = SampleTerms(place, nominal, [], [], [], [])
    for modifier in sample["modifiers"]:
        name, kind, data = modifier["name"], modifier["type"], modifier["data"]
        where = f"exact limits: sample {sample['name']!r}, {kind} {name!r}"
        if kind not in KINDS:
            raise PhysicsError(f"{where} is not of HistFactory")
        if kind == "histosys":
            p = parameters.add(name, None, 0.0, ALPHA, 0.0, 1.0, np.nan)
            high, low = (np.asarray(data[side], dtype=np.float64) for side in ("hi_data", "lo_data"))
            found.shapes.append((p, 0.5 * (high - low), 0.5 * (high + low) - nominal))
        elif kind == "normsys":
            if not min(data["hi"], data["lo"]) > 0:
                raise PhysicsError(f"{where}: its factors {data['hi']}, {data['lo']} must be positive")
            p = parameters.add(name, None, 0.0, ALPHA, 0.0, 1.0, np.nan)
            found.norms.append((p, float(data["lo"]), float(data["hi"])))
        elif kind == "normfactor":
            found.factors.append(parameters.add(name, None, 1.0, FACTOR))
        elif kind == "lumi":
            setting = parameters.settings.get(name, {})
            if not {"auxdata", "sigmas"} <= set(setting):
                raise PhysicsError(f"{where}: the measurement gives no auxdata and sigmas of it")
            found.factors.append(parameters.add(name, None, 1.0, FACTOR, 1.0, 1.0, np.nan))
        else:
            found.gammas.append(_bin_wise(name, kind, nominal, data, errors, parameters))
    if not all(
        np.isfinite(part).all() for part in (nominal, *(s for _, *pair in found.shapes for s in pair))
    ):
        raise PhysicsError(f"exact limits: sample {sample['name']!r} holds numbers that are not finite")
    return found


def _bin_wise(
    name: str,
    kind: str,
    nominal: FloatArray,
    data: Any,
    errors: Mapping[str, Sequence[float]],
    parameters: _Parameters,
) -> npt.NDArray[np.int64]:
    """Return the parameters of a shapefactor, shapesys (Poisson) or staterror (Gaussian), one per bin.

    Bins without events or without error have a factor that is held at one, as in pyhf.
    """
    numbers = []
    for i, events in enumerate(nominal):
        constraint: tuple[float, ...] = NO_CONSTRAINT
        bounds = FACTOR if kind == "shapefactor" else GAMMA
        if kind == "shapesys":
            tau = (events / data[i]) ** 2 if events > 0 and data[i] > 0 else 0.0
            constraint = (np.nan, np.nan, tau)
        elif kind == "staterror":
            width = float(errors[name][i])
            constraint = (1.0, width, np.nan) if width > 0 else (np.nan, np.nan, 0.0)
        numbers.append(parameters.add(name, i, 1.0, bounds, *constraint))
    return np.array(numbers)
