"""Training of a flow on weighted pairs; signed weights are allowed."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray
from gammastar.core.stats import effective_size
from gammastar.flow.bijection import Bijection, Gaussianiser, make_bijection
from gammastar.flow.model import KinematicFlow, one_thread
from gammastar.flow.network import Network, initial_network, log_density
from gammastar.flow.optimise import Course, Part, Progress, optimise
from gammastar.flow.options import FlowOptions, PairTable, TrainingReport
from gammastar.flow.paper import PaperFlow, Standardiser, initial_paper_network
from gammastar.flow.samples import Table, flattened, split, validated

__all__ = ["fit", "fit_pairs", "fit_paper", "has_cuda"]

_LOG = logging.getLogger(__name__)


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
    checkpoint: Path | None = None,
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
    checkpoint : Path, optional
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
    device = _device(options)
    parts = (_part(bijection, train).to(device), _part(bijection, validation).to(device))
    network = initial_network(
        parts[0].context.shape[-1], bins=options.bins, hidden=options.hidden, layers=options.layers, rng=rng
    )
    network = Network(
        tuple(t.to(device) for t in network.weights), tuple(t.to(device) for t in network.biases)
    )
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
    network = Network(
        tuple(t.detach().cpu() for t in network.weights), tuple(t.detach().cpu() for t in network.biases)
    )
    return KinematicFlow(bijection, network, report)


def fit_paper(
    pairs: PairTable,
    *,
    beam_energy: float,
    options: FlowOptions | None = None,
    rng: np.random.Generator,
    progress: Progress | None = None,
    checkpoint: Path | None = None,
) -> PaperFlow:
    """Train the flow of the data-driven paper on weighted pairs; arguments and errors as `fit_pairs`.

    `options` is `FlowOptions.paper()` by default, with 500 epochs.
    """
    options = FlowOptions.paper() if options is None else options
    table, mass_range = validated(pairs, beam_energy, options)
    train, validation = split(table, options.validation, rng)
    scaler = Standardiser.of(train.mass, train.pt, train.energy, train.weight)
    device = _device(options)
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


def has_cuda() -> bool:
    """Return whether torch can train on a CUDA device here."""
    return bool(torch.cuda.is_available())


def _device(options: FlowOptions) -> torch.device:
    if options.device.startswith("cuda") and not has_cuda():
        msg = f"FlowOptions.device = {options.device!r}: no CUDA device is available; use 'cpu'"
        raise PhysicsError(msg)
    return torch.device(options.device)


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
