"""Training of the flow on weighted pairs; signed weights are allowed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray
from gammastar.core.stats import effective_size
from gammastar.flow.bijection import Bijection, Gaussianiser, inside_limits, make_bijection
from gammastar.flow.model import (
    KinematicFlow,
    Network,
    initial_network,
    log_density,
    one_thread,
)
from gammastar.flow.options import FlowOptions, PairTable, TrainingReport

__all__ = ["fit", "fit_pairs"]

_LOG = logging.getLogger(__name__)
_MIN_EFFECTIVE = 200.0
_MAX_BOOST = 30.0  # largest relative weight that `mass_flattening` gives

Progress = Callable[[int, int, float, float], None]


@dataclass(frozen=True, slots=True, eq=False)
class _Table:
    mass: FloatArray
    pt: FloatArray
    energy: FloatArray
    weight: FloatArray
    event: npt.NDArray[np.int64]

    def select(self, mask: npt.NDArray[np.bool_]) -> _Table:
        return _Table(self.mass[mask], self.pt[mask], self.energy[mask], self.weight[mask], self.event[mask])


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """Tensors of the training or of the validation sample; `offset` is −Σ w ln|Jacobian| / Σ w."""

    x: Tensor
    context: Tensor
    weight: Tensor
    offset: float


def fit(
    mass: FloatArray,
    pt: FloatArray,
    energy: FloatArray,
    weight: FloatArray | None = None,
    *,
    beam_energy: float,
    options: FlowOptions | None = None,
    rng: np.random.Generator,
    progress: Progress | None = None,
) -> KinematicFlow:
    """Train a flow on pairs that are events of their own; see `fit_pairs`."""
    mass, pt, energy = (np.asarray(a, dtype=np.float64) for a in (mass, pt, energy))
    weight = np.ones(len(mass)) if weight is None else np.asarray(weight, dtype=np.float64)
    table = _Table(mass, pt, energy, weight, np.arange(len(mass), dtype=np.int64))
    return fit_pairs(table, beam_energy=beam_energy, options=options, rng=rng, progress=progress)


def fit_pairs(
    pairs: PairTable,
    *,
    beam_energy: float,
    options: FlowOptions | None = None,
    rng: np.random.Generator,
    progress: Progress | None = None,
) -> KinematicFlow:
    """Train a flow p(pt, energy | mass) on weighted pairs.

    Parameters
    ----------
    pairs : PairTable
        Columns mass, pt, energy [GeV], weight, event, shape (n,).
    beam_energy : float
        Energy of the proton beam [GeV]; no sample reaches it.
    options : FlowOptions, optional
    rng : numpy.random.Generator
        Decides split, start and order; the same generator gives the same flow.
    progress : callable, optional
        Called as ``progress(epoch, n_epochs, train_loss, validation_loss)`` after each epoch.

    Returns
    -------
    KinematicFlow

    Raises
    ------
    PhysicsError
        If a pair lies outside the physical limits, a number is not finite, or the weights leave too little
        to learn from.

    Notes
    -----
    Minimises −Σ w ln p / Σ w. With signed weights (opposite sign minus same sign) this is unbiased but not
    bounded below, so the parameters of the best validation loss are kept: the loss of the held-out events
    with their signed weights (arXiv:1905.11719). Near two background pairs per signal pair and above, use
    posterior weights instead.
    """
    options = FlowOptions() if options is None else options
    table, mass_range = _validated(pairs, beam_energy, options)
    held_out = _held_out(table.event, options.validation, rng)
    train, validation = table.select(~held_out), table.select(held_out)
    for name, part in (("training", train), ("validation", validation)):
        if not part.weight.sum() > 0:
            msg = (
                f"the weights of the {name} sample ({len(part.mass)} pairs) sum to {part.weight.sum():.4g}; "
                "the sum must be positive: check the background subtraction"
            )
            raise PhysicsError(msg)
    bijection = make_bijection(
        train.mass, train.pt, train.energy, train.weight, beam_energy=beam_energy, mass_range=mass_range
    )
    train, validation = (_flattened(part, bijection.context, options) for part in (train, validation))
    with one_thread():
        network, train_loss, validation_loss = _optimise(
            _part(bijection, train), _part(bijection, validation), options, rng, progress
        )
    weight = np.concatenate([train.weight, validation.weight])
    report = TrainingReport(
        n_pairs=len(weight),
        effective_size=effective_size(weight),
        negative_fraction=float(-weight[weight < 0].sum() / weight[weight > 0].sum()),
        train_loss=tuple(train_loss),
        validation_loss=tuple(validation_loss),
        best_epoch=int(np.argmin(validation_loss)),
        min_slope=min(_min_slope(bijection.transverse), _min_slope(bijection.longitudinal)),
    )
    _LOG.info(
        "flow trained on %d pairs (effective %.0f): validation loss %.4f at epoch %d",
        report.n_pairs,
        report.effective_size,
        min(validation_loss),
        report.best_epoch,
    )
    return KinematicFlow(bijection, network, report)


def _validated(
    pairs: PairTable, beam_energy: float, options: FlowOptions
) -> tuple[_Table, tuple[float, float]]:
    mass, pt, energy, weight = (
        np.asarray(a, dtype=np.float64) for a in (pairs.mass, pairs.pt, pairs.energy, pairs.weight)
    )
    table = _Table(mass, pt, energy, weight, np.asarray(pairs.event, dtype=np.int64))
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
        msg = f"effective sample size {size:.1f} ({len(outside)} pairs); at least {_MIN_EFFECTIVE:.0f} needed"
        raise PhysicsError(msg)
    mass_range = (float(table.mass.min()), float(table.mass.max()))
    return table, mass_range if options.mass_range is None else options.mass_range


def _held_out(
    event: npt.NDArray[np.int64], fraction: float, rng: np.random.Generator
) -> npt.NDArray[np.bool_]:
    unique, index = np.unique(event, return_inverse=True)
    chosen: npt.NDArray[np.bool_] = (rng.permutation(len(unique)) < fraction * len(unique))[index]
    return chosen


def _flattened(table: _Table, context: Gaussianiser, options: FlowOptions) -> _Table:
    if options.mass_flattening == 0:
        return table
    score, log_slope = context.forward(table.mass)
    log_rarity = options.mass_flattening * (0.5 * score**2 - log_slope)
    boost = np.exp(np.minimum(log_rarity - np.median(log_rarity), np.log(_MAX_BOOST)))
    return replace(table, weight=table.weight * boost)


def _part(bijection: Bijection, table: _Table) -> _Part:
    x, log_jacobian = bijection.forward(table.mass, table.pt, table.energy)
    context = bijection.condition(table.mass)
    # Normalised to mean one over the sample: in a batch of signed weights the sum may come close to zero.
    weight = table.weight / table.weight.mean()
    return _Part(
        x=torch.from_numpy(x.astype(np.float32)),
        context=torch.from_numpy(context.astype(np.float32)),
        weight=torch.from_numpy(weight.astype(np.float32)),
        offset=float(-np.mean(weight * log_jacobian)),
    )


def _loss(network: Network, x: Tensor, context: Tensor, weight: Tensor) -> Tensor:
    return -(weight * log_density(network, x, context)).mean()


def _batches(n: int, batch: int, rng: np.random.Generator) -> Iterator[Tensor]:
    """Yield index batches for ever, passing through a new permutation each time."""
    rest = np.empty(0, dtype=np.int64)
    while True:
        while len(rest) < batch:
            rest = np.concatenate([rest, rng.permutation(n)])
        yield torch.from_numpy(rest[:batch])
        rest = rest[batch:]


def _optimise(
    train: _Part,
    validation: _Part,
    options: FlowOptions,
    rng: np.random.Generator,
    progress: Progress | None,
) -> tuple[Network, list[float], list[float]]:
    network = initial_network(
        train.context.shape[-1], bins=options.bins, hidden=options.hidden, layers=options.layers, rng=rng
    )
    parameters = [tensor.requires_grad_() for tensor in network.parameters]
    # Small samples: many passes between two looks at the held-out pairs would overfit unseen.
    steps = max(1, min(options.epoch_size, len(train.weight)) // options.batch)
    optimiser = torch.optim.Adam(
        parameters, lr=options.learning_rate, weight_decay=options.weight_decay, foreach=True
    )
    total_steps = max(steps * options.epochs + 1, 5)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        # at least one step of warm-up, also in the shortest training
        optimiser,
        options.learning_rate,
        total_steps=total_steps,
        pct_start=max(0.2, 2.0 / total_steps),
    )
    batches = _batches(len(train.weight), options.batch, rng)
    train_losses: list[float] = []
    validation_losses: list[float] = []
    best, best_epoch = network.to(torch.float32), 0
    for epoch in range(options.epochs):
        total = 0.0
        for index in (next(batches) for _ in range(steps)):
            loss = _loss(network, train.x[index], train.context[index], train.weight[index])
            optimiser.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(parameters, 5.0)
            optimiser.step()
            schedule.step()
            total += float(loss.detach())
        with torch.no_grad():
            held_out = float(_loss(network, validation.x, validation.context, validation.weight))
        train_losses.append(total / steps + train.offset)
        validation_losses.append(held_out + validation.offset)
        if progress is not None:
            progress(epoch, options.epochs, train_losses[-1], validation_losses[-1])
        if not np.isfinite(validation_losses[-1]):
            del train_losses[-1], validation_losses[-1]
            break
        if validation_losses[-1] <= min(validation_losses):
            best, best_epoch = network.to(torch.float32), epoch
        elif epoch - best_epoch >= options.patience:
            break
    if not validation_losses:
        msg = f"the loss is not finite at learning_rate = {options.learning_rate:g}: lower it"
        raise PhysicsError(msg)
    return best, train_losses, validation_losses


def _min_slope(one: Gaussianiser) -> float:
    standard = (one.z[-1] - one.z[0]) / (one.x[-1] - one.x[0])
    return float(one.slope.min() / standard)
