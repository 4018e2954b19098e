"""Training: the pairs and their checks, epochs, checkpoints, both presets."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.numpy import load as decode_tensors
from safetensors.numpy import save as encode_tensors
from torch import Tensor

from gammastar.core.axes import effective_size
from gammastar.core.documents import from_json
from gammastar.core.errors import PhysicsError
from gammastar.core.files import Pathlike, write_whole
from gammastar.core.records import BoolArray, FloatArray
from gammastar.flow.bijection import Bijection, Gaussianiser, inside_limits, make_bijection
from gammastar.flow.model import KinematicFlow, digest
from gammastar.flow.network import Network, initial_network, log_density, one_thread
from gammastar.flow.options import FlowOptions, PairTable, TrainingReport
from gammastar.flow.paper import PaperFlow, Standardiser, initial_paper_network
from gammastar.flow.steps import (
    Gradient,
    LogDensity,
    Order,
    Part,
    device_of,
    gradient,
    held_out_loss,
    learning_rate,
)

__all__ = [
    "Course",
    "Progress",
    "Table",
    "fit",
    "fit_pairs",
    "fit_paper",
    "flattened",
    "optimise",
    "split",
    "validated",
]

_FORMAT = "gammastar-training-1"
_RISE = 10.0  # nats above the best validation loss at which a training has diverged
Progress = Callable[[int, int, float, float], None]

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


@dataclass(slots=True)
class Course:
    """How a training went: losses per epoch, the epoch that was kept, why it ended early ("" if not)."""

    train_loss: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    best_epoch: int = 0
    stopped: str = ""


@dataclass(slots=True)
class _State:
    """Everything that a training needs to go on."""

    parameters: list[Tensor]
    best: list[Tensor]
    optimiser: torch.optim.Adam
    course: Course
    epoch: int = 0

    def save(self, path: Path, key: str) -> None:
        moments = [self.optimiser.state[p] for p in self.parameters]
        groups = {
            "now": self.parameters,
            "best": self.best,
            "first": [m["exp_avg"] for m in moments],
            "second": [m["exp_avg_sq"] for m in moments],
        }
        tensors = {f"{n}{i}": t.detach().cpu().numpy() for n, g in groups.items() for i, t in enumerate(g)}
        entries = {
            "format": _FORMAT,
            "digest": digest(tensors),
            "key": key,
            "epoch": self.epoch,
            **asdict(self.course),
        }
        entries["step"] = float(moments[0]["step"])
        card = np.frombuffer(json.dumps(entries).encode(), dtype=np.uint8).copy()
        write_whole(path, encode_tensors(tensors | {"card": card}))

    def load(self, path: Path, key: str) -> bool:
        """Go on from a checkpoint; return False if there is none of this training."""
        try:
            tensors = decode_tensors(path.read_bytes())
            entries: dict[str, Any] = from_json(tensors.pop("card").tobytes())
            whole = entries["digest"] == digest(tensors)
        except (OSError, SafetensorError, LookupError, TypeError, ValueError):
            whole = False
        if not whole:
            _LOG.warning("%s: no readable checkpoint; the training starts anew", path)
            return False
        if entries["format"] != _FORMAT or entries["key"] != key:
            _LOG.warning("%s: is of other pairs, options or version; the training starts anew", path)
            return False
        with torch.no_grad():
            for i, (now, best) in enumerate(zip(self.parameters, self.best, strict=True)):
                now.copy_(torch.from_numpy(tensors[f"now{i}"]))
                best.copy_(torch.from_numpy(tensors[f"best{i}"]))
                self.optimiser.state[now] = {
                    "step": torch.tensor(entries["step"], device=now.device),
                    "exp_avg": torch.from_numpy(tensors[f"first{i}"]).to(now.device),
                    "exp_avg_sq": torch.from_numpy(tensors[f"second{i}"]).to(now.device),
                }
        self.epoch = int(entries["epoch"])
        self.course = Course(
            entries["train_loss"], entries["validation_loss"], entries["best_epoch"], entries["stopped"]
        )
        return True


def _key(parameters: list[Tensor], train: Part, validation: Part, options: FlowOptions, seed: int) -> str:
    result = hashlib.sha256(f"{torch.__version__} {options} {seed}".encode())
    for tensor in (*parameters, *(t for p in (train, validation) for t in (p.x, p.context, p.weight))):
        result.update(tensor.detach().cpu().numpy().tobytes())
    return result.hexdigest()


def _epoch(state: _State, order: Order, gradient: Gradient, train: Part, options: FlowOptions) -> float:
    """Run one epoch and return the mean loss; not finite if the training diverged."""
    device = train.x.device
    total = torch.zeros((), dtype=torch.float64, device=device)
    group = state.optimiser.param_groups[0]
    n_steps = order.steps * options.epochs
    for number, index in enumerate(order.epoch(state.epoch, device)):
        rate, momentum = learning_rate(state.epoch * order.steps + number, n_steps, options)
        group["lr"], group["betas"] = rate, (momentum, 0.999)
        total += gradient(index)
        state.optimiser.step()
    return float(total) / order.steps + train.offset


def optimise(
    parameters: list[Tensor],
    log_density: LogDensity,
    samples: Sequence[Part],
    options: FlowOptions,
    *,
    rng: np.random.Generator,
    progress: Progress | None = None,
    checkpoint: Path | None = None,
) -> Course:
    """Minimise −Σ w ln p / Σ w; the parameters of the best validation loss are left in `parameters`.

    Parameters
    ----------
    parameters : list of Tensor
        Leaf tensors; changed in place.
    log_density : callable
        ln p(x | context), shape (n,), with these parameters.
    samples : two Parts
        For training and for validation.
    options : FlowOptions
    rng : numpy.random.Generator
    progress : callable, optional
    checkpoint : path, optional
        File that is written every `options.checkpoint_every` epochs; a training of the same pairs, options
        and start goes on from it and ends with the same numbers as one that was not interrupted.

    Raises
    ------
    PhysicsError
        If the very first epoch gives no finite loss.

    Notes
    -----
    A loss that is not finite, or far above the best one, ends the training with the last good parameters; the
    report says so.
    """
    train, validation = samples
    parameters = [tensor.requires_grad_() for tensor in parameters]
    # Small samples: many passes between two looks at the held-out pairs would overfit unseen.
    steps = max(1, min(options.epoch_size, len(train.weight)) // options.batch)
    batch = min(options.batch, len(train.weight))
    order = Order(int(rng.integers(2**62)), len(train.weight), batch, steps)
    decay = options.weight_decay + options.prior / len(train.weight)
    on_gpu = train.x.is_cuda
    adam = torch.optim.Adam(
        parameters, lr=options.learning_rate, weight_decay=decay, foreach=not on_gpu, fused=on_gpu
    )
    state = _State(parameters, [p.detach().clone() for p in parameters], adam, Course())
    key = _key(parameters, train, validation, options, order.seed) if checkpoint is not None else ""
    if checkpoint is not None and checkpoint.is_file() and state.load(checkpoint, key):
        _LOG.info("training goes on from %s at epoch %d", checkpoint, state.epoch)
    course, step = state.course, gradient(parameters, log_density, train, options, batch)
    while state.epoch < options.epochs and not course.stopped:
        now = _epoch(state, order, step, train, options)
        held_out = held_out_loss(log_density, validation)
        best = min(course.validation_loss, default=math.inf)
        if not (math.isfinite(now) and math.isfinite(held_out)) or held_out > best + _RISE:
            course.stopped = f"diverged in epoch {state.epoch} (loss {now:.4g}, validation {held_out:.4g})"
            _LOG.warning("training %s; the parameters of the best epoch are kept", course.stopped)
            break
        _accept(state, now, held_out, options)
        if progress is not None:
            progress(state.epoch - 1, options.epochs, now, held_out)
        if checkpoint is not None and state.epoch % options.checkpoint_every == 0:
            state.save(checkpoint, key)
    if not course.validation_loss:
        msg = f"the loss is not finite at learning_rate = {options.learning_rate:g}: lower it"
        raise PhysicsError(msg)
    with torch.no_grad():
        for tensor, kept in zip(parameters, state.best, strict=True):
            tensor.copy_(kept)
    return course


def _accept(state: _State, now: float, held_out: float, options: FlowOptions) -> None:
    """Book an epoch, keep its parameters if they are the best, stop when none was for long."""
    course = state.course
    if held_out <= min(course.validation_loss, default=math.inf):
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
    rng: np.random.Generator,
    progress: Progress | None = None,
) -> KinematicFlow:
    """Train a flow on pairs that are events of their own; see `fit_pairs`."""
    mass, pt, energy = (np.asarray(a, dtype=np.float64) for a in (mass, pt, energy))
    weight = np.ones(len(mass)) if weight is None else np.asarray(weight, dtype=np.float64)
    table = Table(mass, pt, energy, weight, np.arange(len(mass), dtype=np.int64))
    return fit_pairs(table, beam_energy=beam_energy, options=options, rng=rng, progress=progress)


def fit_pairs(
    pairs: PairTable,
    *,
    beam_energy: float,
    options: FlowOptions | None = None,
    rng: np.random.Generator,
    progress: Progress | None = None,
    checkpoint: Pathlike | None = None,
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
    checkpoint : path, optional
        File of the state after the last epochs. If it is there and of the same pairs, options and generator,
        the training goes on from it; else it is written anew.

    Returns
    -------
    KinematicFlow

    Raises
    ------
    PhysicsError
        If a pair lies outside the physical limits, a number is not finite, a window of mass holds fewer pairs
        than asked for, the weights leave too little to learn from, or `options.preset` is "paper" (see
        `fit_paper`).

    Notes
    -----
    Minimises −Σ w ln p / Σ w. With signed weights (opposite sign minus same sign) this is unbiased but not
    bounded below, so the parameters of the best validation loss are kept: the loss of the held-out events
    with their signed weights (arXiv:1905.11719). Near two background pairs per signal pair and above, use
    posterior weights instead.
    """
    checkpoint = None if checkpoint is None else Path(checkpoint)
    options = FlowOptions() if options is None else options
    if options.preset != "default":
        msg = "fit_pairs trains the default preset; use fit_paper for the paper's"
        raise PhysicsError(msg)
    table, mass_range = validated(pairs, beam_energy, options)
    train, validation = split(table, options.validation, rng)
    bijection = make_bijection(
        *(train.mass, train.pt, train.energy, train.weight),
        beam_energy=beam_energy,
        mass_range=mass_range,
        octaves=options.octaves,
    )
    train, validation = (flattened(part, bijection.context, options) for part in (train, validation))
    device = device_of(options.device)
    parts = (_part(bijection, train).to(device), _part(bijection, validation).to(device))
    network = initial_network(
        parts[0].context.shape[-1], bins=options.bins, hidden=options.hidden, layers=options.layers, rng=rng
    ).to(device)
    with one_thread():
        course = optimise(
            network.parameters,
            lambda x, context: log_density(network, x, context),
            parts,
            options,
            rng=rng,
            progress=progress,
            checkpoint=checkpoint,
        )
    slope = min(_min_slope(bijection.transverse), _min_slope(bijection.longitudinal))
    report = _report(course, np.concatenate([train.weight, validation.weight]), slope)
    return KinematicFlow(bijection, network.trained(), report)


def fit_paper(
    pairs: PairTable,
    *,
    beam_energy: float,
    options: FlowOptions | None = None,
    rng: np.random.Generator,
    progress: Progress | None = None,
    checkpoint: Pathlike | None = None,
) -> PaperFlow:
    """Train the flow of the data-driven paper on weighted pairs; arguments and errors as `fit_pairs`.

    `options` is `FlowOptions.paper()` by default, with 500 epochs.
    """
    checkpoint = None if checkpoint is None else Path(checkpoint)
    options = FlowOptions.paper() if options is None else options
    table, mass_range = validated(pairs, beam_energy, options)
    train, validation = split(table, options.validation, rng)
    scaler = Standardiser.of(train.mass, train.pt, train.energy, train.weight)
    device = device_of(options.device)
    network = initial_paper_network(options, rng).to(device)
    parts = []
    for part in (train, validation):
        x, context, log_jacobian = scaler.forward(part.mass, part.pt, part.energy)
        parts.append(_tensors(x, context, part.weight, log_jacobian).to(device))
    with one_thread():
        course = optimise(
            list(network.parameters()),
            network.log_density,
            parts,
            options,
            rng=rng,
            progress=progress,
            checkpoint=checkpoint,
        )
    report = _report(course, table.weight, float("nan"))
    return PaperFlow(scaler, network.cpu().requires_grad_(False), beam_energy, mass_range, report)


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


def _tensors(x: FloatArray, context: FloatArray, weight: FloatArray, log_jacobian: FloatArray) -> Part:
    # Normalised to mean one over the sample: in a batch of signed weights the sum may come close to zero.
    weight = weight / weight.mean()
    return Part(
        x=torch.from_numpy(x.astype(np.float32)),
        context=torch.from_numpy(context.astype(np.float32)),
        weight=torch.from_numpy(weight.astype(np.float32)),
        offset=float(-np.mean(weight * log_jacobian)),
    )


def _part(bijection: Bijection, table: Table) -> Part:
    x, log_jacobian = bijection.forward(table.mass, table.pt, table.energy)
    return _tensors(x, bijection.condition(table.mass), table.weight, log_jacobian)


def _min_slope(one: Gaussianiser) -> float:
    standard = (one.z[-1] - one.z[0]) / (one.x[-1] - one.x[0])
    return float(one.slope.min() / standard)
