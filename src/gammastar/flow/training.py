"""Training: the steps of the optimiser on a processor or a CUDA device."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray, IntArray, Rng, effective_size
from gammastar.flow.model import KinematicFlow
from gammastar.flow.network import (
    Bijection,
    Gaussianiser,
    device_of,
    log_density,
    make_bijection,
    one_thread,
    spline_flow,
)
from gammastar.flow.options import FlowOptions, PairTable, Table, TrainingReport, flattened, split, validated

_RISE = 10.0  # nats above the best validation loss at which a training has diverged
_ALIKE = 5e-4  # nats: 20 000 held-out pairs of unequal weights do not tell closer epochs apart
_WARM_UP = 0.2  # share of the steps of the OneCycle schedule with a rising rate
_MOMENTUM = (0.85, 0.95)  # Adam's first moment runs against the rate
_CHUNK, _CHUNK_CUDA = 2048, 16_384
Progress = Callable[[int, int, float, float], None]
LogDensity: TypeAlias = Callable[[Tensor, Tensor], Tensor]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """The training or the validation sample, one row per pair, which a step fetches with one access."""

    rows: Tensor  # Context, x and weight, shape (n, n_context + n_x + 1)
    n_context: int
    offset: float  # −Σ w ln|Jacobian| / Σ w

    @classmethod
    def of(cls, x: FloatArray, context: FloatArray, weight: FloatArray, log_jacobian: FloatArray) -> Part:
        """Return the sample of columns: shapes (n, n_x), (n, n_context), (n,), (n,)."""
        # Normalised to mean one over the sample: in a batch of signed weights the sum may come close to zero.
        weight = weight / weight.mean()
        rows = np.empty((len(weight), context.shape[1] + x.shape[1] + 1), dtype=np.float32)
        rows[:, : context.shape[1]], rows[:, context.shape[1] : -1], rows[:, -1] = context, x, weight
        return cls(torch.from_numpy(rows), context.shape[1], float(-np.mean(weight * log_jacobian)))

    def __len__(self) -> int:
        return len(self.rows)

    def loss(self, log_density: LogDensity, rows: Tensor) -> Tensor:
        """Return −w ln p of some rows, shape (n,), without the Jacobian."""
        x, context = rows[:, self.n_context : -1], rows[:, : self.n_context]
        return -(rows[:, -1] * log_density(x, context))

    def to(self, device: torch.device) -> Part:
        """Return the same sample on another device."""
        return Part(self.rows.to(device), self.n_context, self.offset)

    def drawn(self) -> tuple[Part, FloatArray]:
        """Return the sample with weights of one size, and Σ |weight| up to each pair over the whole, (n,)."""
        weight = self.rows[:, -1].cpu().numpy().astype(np.float64)
        summed = np.cumsum(np.abs(weight))
        rows = self.rows.clone()
        rows[:, -1] = torch.sign(rows[:, -1]) * (summed[-1] / weight.sum())
        return Part(rows, self.n_context, self.offset), summed / summed[-1]


@dataclass(frozen=True, slots=True, eq=False)
class Order:
    """Which pairs each step takes: shuffled passes of a seed.

    A pass has as many places as there are pairs, which pairs take in proportion to |weight| (systematic
    resampling: their number is the expected one to within one place); of equal pairs each takes one. In a
    step that took pairs as they come the few of large weight would make most of the noise (Needell, Srebro
    and Ward, arXiv:1310.5715).
    """

    seed: int
    summed: FloatArray  # From `Part.drawn`, shape (n,)
    batch: int  # Pairs per step

    def _pass(self, number: int) -> IntArray:
        rng, n = np.random.default_rng([self.seed, number]), len(self.summed)
        shuffled = rng.permutation(n)
        last = np.floor(n * self.summed + rng.random()).astype(np.int64)
        return np.repeat(np.arange(n), np.diff(last, prepend=0))[shuffled]

    def indices(self, device: torch.device) -> Iterator[Tensor]:
        """Yield the indices of each step, without end."""
        number, index = 0, self._pass(0)
        while True:
            while len(index) < self.batch:
                number += 1
                index = np.concatenate([index, self._pass(number)])
            yield torch.from_numpy(index[: self.batch]).to(device)
            index = index[self.batch :]


def learning_rate(step: int, n_steps: int, options: FlowOptions) -> tuple[float, float]:
    """Return learning rate and first momentum of Adam at a step.

    ``schedule = "one-cycle"``: a cosine up from 1/25 of the rate in a fifth of the steps and down to 1e-5 of
    it (arXiv:1708.07120); "constant": as in Appendix A of the data-driven paper.
    """
    peak = options.learning_rate
    if options.schedule == "constant":
        return peak, 0.9
    turn = max(_WARM_UP * n_steps, 2.0) - 1.0
    rising = step <= turn
    share = step / turn if rising else min((step - turn) / max(n_steps - turn, 1.0), 1.0)
    start, end = (peak / 25.0, peak) if rising else (peak, peak / 2.5e5)
    first, last = _MOMENTUM[::-1] if rising else _MOMENTUM
    weight = 0.5 * (1.0 + math.cos(math.pi * share))
    return end + (start - end) * weight, last + (first - last) * weight


def held_out_loss(log_density: LogDensity, part: Part) -> float:
    """Return −Σ w ln p / n of a sample, with the Jacobian."""
    with torch.no_grad():  # in parts, which a processor's cache holds
        size = _CHUNK_CUDA if part.rows.is_cuda else _CHUNK
        pieces = [part.loss(log_density, rows).sum() for rows in torch.split(part.rows, size)]
    return float(torch.stack(pieces).sum(dtype=torch.float64)) / len(part) + part.offset


@dataclass(slots=True)
class Course:
    """How a training went: losses per epoch, the epoch that was kept, why it ended early ("" if not)."""

    train_loss: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    best_epoch: int = 0
    stopped: str = ""


@dataclass(slots=True)
class _State:
    """Where a training stands."""

    parameters: list[Tensor]
    best: list[Tensor]
    optimiser: torch.optim.Adam
    course: Course
    epoch: int = 0


def _epoch(
    state: _State,
    indices: Iterator[Tensor],
    steps: int,
    loss: Callable[[Tensor], Tensor],
    options: FlowOptions,
) -> float:
    """Run one epoch and return the mean loss, without the Jacobian; not finite if the training diverged."""
    losses = []
    for number in range(state.epoch * steps, (state.epoch + 1) * steps):
        rate, momentum = learning_rate(number, steps * options.epochs, options)
        for group in state.optimiser.param_groups:
            group["lr"], group["betas"] = rate, (momentum, 0.999)
        state.optimiser.zero_grad()
        now = loss(next(indices))
        torch.autograd.backward(now)
        if options.clip > 0:
            torch.nn.utils.clip_grad_norm_(state.parameters, options.clip)
        state.optimiser.step()
        losses.append(now.detach())
    return float(torch.stack(losses).mean(dtype=torch.float64))


def optimise(
    parameters: list[Tensor],
    log_density: LogDensity,
    samples: Sequence[Part],
    options: FlowOptions,
    *,
    rng: Rng,
    progress: Progress | None = None,
) -> Course:
    """Minimise −Σ w ln p / Σ w and leave the kept epoch in `parameters`, also where the loss diverges."""
    train, validation = samples
    parameters = [tensor.requires_grad_() for tensor in parameters]
    # Small samples: many passes between two looks at the held-out pairs would overfit unseen.
    steps = max(1, min(options.epoch_size, len(train)) // options.batch)
    batch, seed = min(options.batch, len(train)), int(rng.integers(2**62))
    decay = options.weight_decay + options.prior / len(train)
    adam = torch.optim.Adam(parameters, weight_decay=decay, fused=True)
    state = _State(parameters, [p.detach().clone() for p in parameters], adam, Course())
    even, summed = train.drawn()
    indices = Order(seed, summed, batch).indices(train.rows.device)
    course = state.course

    def loss(index: Tensor) -> Tensor:
        return even.loss(log_density, even.rows.index_select(0, index)).mean()

    while state.epoch < options.epochs and not course.stopped:
        now = _epoch(state, indices, steps, loss, options) + train.offset
        held_out = held_out_loss(log_density, validation)
        best = min(course.validation_loss, default=math.inf)
        if not (math.isfinite(now) and math.isfinite(held_out)) or held_out > best + _RISE:
            course.stopped = f"diverged in epoch {state.epoch} (loss {now:.4g}, validation {held_out:.4g})"
            _LOG.warning("training %s; the parameters of the best epoch are kept", course.stopped)
            break
        _accept(state, now, held_out, options)
        if progress is not None:
            progress(state.epoch - 1, options.epochs, now, held_out)
    if not course.validation_loss:
        raise PhysicsError(f"the loss is not finite at learning_rate = {options.learning_rate:g}: lower it")
    with torch.no_grad():
        for tensor, kept in zip(parameters, state.best, strict=True):
            tensor.copy_(kept)
    return course


def _accept(state: _State, now: float, held_out: float, options: FlowOptions) -> None:
    """Book an epoch, keep the last of those that the held-out pairs do not tell apart; stop after many."""
    course = state.course
    if held_out <= min(course.validation_loss, default=math.inf) + _ALIKE:
        state.best, course.best_epoch = [p.detach().clone() for p in state.parameters], state.epoch
    elif state.epoch - course.best_epoch >= options.patience:
        course.stopped = f"no better epoch since {course.best_epoch}"
    course.train_loss.append(now)
    course.validation_loss.append(held_out)
    state.epoch += 1


def fit(
    mass: FloatArray,
    pt: FloatArray,
    energy: FloatArray,
    weight: FloatArray | None = None,
    *,
    beam_energy: float,
    options: FlowOptions | None = None,
    rng: Rng,
    progress: Progress | None = None,
) -> KinematicFlow:
    """Train a flow on pairs that are events of their own; see `fit_pairs`.

    Parameters
    ----------
    mass, pt, energy : NDArray, shape (n,) [GeV]
    weight : NDArray, shape (n,), optional
        Positive.
    beam_energy : float [GeV]
    progress : function, optional
        Told epoch, epochs and both losses.
    """
    mass, pt, energy = (np.asarray(a, dtype=np.float64) for a in (mass, pt, energy))
    weight = np.ones(len(mass)) if weight is None else np.asarray(weight, dtype=np.float64)
    table = Table(mass, pt, energy, weight, np.arange(len(mass), dtype=np.int64))
    return fit_pairs(table, beam_energy=beam_energy, options=options, rng=rng, progress=progress)


def fit_pairs(
    pairs: PairTable,
    *,
    beam_energy: float,
    options: FlowOptions | None = None,
    rng: Rng,
    progress: Progress | None = None,
) -> KinematicFlow:
    """Train a flow p(pt, energy | mass) on weighted pairs.

    Parameters
    ----------
    pairs : PairTable
        Columns mass, pt, energy [GeV], weight, event, shape (n,).
    beam_energy : float
        Energy of the proton beam [GeV]; no sample reaches it.
    rng : numpy.random.Generator
        Decides split, start and order; the same generator gives the same flow.
    progress : callable, optional
        Called as ``progress(epoch, n_epochs, train_loss, validation_loss)`` after each epoch.

    Raises
    ------
    PhysicsError
        If a pair lies outside the physical limits, a number is not finite, a window of mass holds fewer pairs
        than asked for, or the weights leave too little to learn from.

    Notes
    -----
    Minimises −Σ w ln p / Σ w. With signed weights (opposite sign minus same sign) this is unbiased but not
    bounded below, so the parameters of the best validation loss are kept: the loss of the held-out events
    with their signed weights (arXiv:1905.11719). Near two background pairs per signal pair and above, use
    posterior weights instead.
    """
    options = FlowOptions() if options is None else options
    table, mass_range = validated(pairs, beam_energy, options)
    train, validation = split(table, options.validation, rng)
    columns = train.mass, train.pt, train.energy, train.weight
    ends: Any = {"beam_energy": beam_energy, "mass_range": mass_range}
    bijection = make_bijection(*columns, **ends, octaves=options.octaves)
    train, validation = (flattened(part, bijection.context, options) for part in (train, validation))
    device = device_of(options.device)
    parts = (_part(bijection, train).to(device), _part(bijection, validation).to(device))
    network = spline_flow(
        parts[0].n_context, bins=options.bins, hidden=options.hidden, layers=options.layers, rng=rng
    ).to(device)
    with one_thread():
        course = optimise(
            list(network.parameters()),
            lambda x, context: log_density(network, x, context),
            parts,
            options,
            rng=rng,
            progress=progress,
        )
    slope = min(_min_slope(bijection.transverse), _min_slope(bijection.longitudinal))
    report = _report(course, np.concatenate([train.weight, validation.weight]), slope)
    return KinematicFlow(bijection, network.cpu().requires_grad_(False), report)


def _report(course: Course, weight: FloatArray, min_slope: float) -> TrainingReport:
    report = TrainingReport(
        n_pairs=len(weight),
        effective_size=effective_size(weight),
        negative_fraction=float(-weight[weight < 0].sum() / weight[weight > 0].sum()),
        train_loss=tuple(course.train_loss),
        validation_loss=tuple(course.validation_loss),
        best_epoch=course.best_epoch,
        min_slope=min_slope,
        stopped=course.stopped,
    )
    _LOG.info(
        "flow trained on %d pairs (effective %.0f): validation loss %.4f at epoch %d",
        *(report.n_pairs, report.effective_size, min(report.validation_loss), report.best_epoch),
    )
    return report


def _part(bijection: Bijection, table: Table) -> Part:
    n, columns = len(table.mass), []
    for start in range(0, n, _CHUNK):  # what is computed stays in a processor's cache
        mass, pt, energy = (a[start : start + _CHUNK] for a in (table.mass, table.pt, table.energy))
        x, log_jacobian = bijection.forward(mass, pt, energy)
        context = bijection.condition(mass)
        columns.append((x.astype(np.float32), context.astype(np.float32), log_jacobian))
    x, context, log_jacobian = (np.concatenate(column) for column in zip(*columns, strict=True))
    return Part.of(x, context, table.weight, log_jacobian)


def _min_slope(one: Gaussianiser) -> float:
    standard = (one.z[-1] - one.z[0]) / (one.x[-1] - one.x[0])
    return float(one.slope.min() / standard)
