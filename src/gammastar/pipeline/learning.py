"""The flow: its training set in the measured domain and outside, training, check."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gammastar import spectrum, unfold
from gammastar.core.errors import SteeringError, UserError
from gammastar.core.pairs import MatchedPairs, Pairs
from gammastar.core.records import BoolArray, FloatArray, Spectrum
from gammastar.core.rng import stream
from gammastar.core.sampler import Sampler
from gammastar.core.stats import effective_size, filled
from gammastar.pipeline.checkpoint import Arrays
from gammastar.pipeline.context import Context, axes_of
from gammastar.store.manifest import digest

__all__ = ["InDomain", "TrainingSet", "flow_stage", "histogram_sampler", "training_set"]

InDomain = Callable[[FloatArray, FloatArray, FloatArray], BoolArray]
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingSet:
    """Weighted pairs of the density before acceptance: measured ones, and simulated ones elsewhere.

    Attributes
    ----------
    mass, pt, energy : NDArray, shape (n,) [GeV]
    weight : NDArray, shape (n,)
        Subtraction weight over efficiency for pairs of the data, scaled simulation outside the domain.
    event : NDArray of int64, shape (n,)
    measured : NDArray of bool, shape (n,)
        True for pairs of the data.
    domain : Spectrum
        The cells of the acceptance map; its values are the efficiencies.
    """

    mass: FloatArray
    pt: FloatArray
    energy: FloatArray
    weight: FloatArray
    event: Any
    measured: BoolArray
    domain: Spectrum

    def in_domain(self, mass: FloatArray, pt: FloatArray, energy: FloatArray) -> BoolArray:
        """Return where dileptons of these kinematics were measured."""
        return spectrum.in_domain(self.domain, mass, pt, energy)


def _acceptance(ctx: Context, matched: MatchedPairs) -> tuple[Any, Spectrum, float]:
    unfolding = ctx.steering.unfold
    if unfolding is None:
        msg = "[unfold] is needed for the acceptance map of the flow"
        raise SteeringError(msg)
    selection = ctx.steering.select
    true_axes = axes_of(unfolding, selection)
    axes = axes_of(ctx.steering.flow, unfolding if unfolding.mass else selection)
    if ctx.steering.flow is None:
        axes = true_axes
    response = unfold.response(matched, axes, axes, n_replicas=0)
    floor = unfolding.efficiency_floor
    shape = tuple(len(axis) for axis in axes)
    domain = response.efficiency.reshape(shape) >= floor
    n = response.efficiency.size
    hist = filled(axes, response.efficiency, np.zeros(n))
    return response, Spectrum(hist, np.broadcast_to(0.0, (n, n)), "counts", None, domain), floor


def training_set(ctx: Context, pairs: Pairs, weight: FloatArray, matched: MatchedPairs) -> TrainingSet:
    """Return the pairs that the flow learns from.

    Inside the domain: pairs of the data with subtraction weight over efficiency. Outside: simulated true
    pairs, scaled in each mass bin to the measured yield, as in `spectrum.extrapolate`; they carry
    ``measured = False``. Pairs beyond the physical limits of the beam are dropped.
    """
    section = ctx.steering.spectrum
    if section is None:
        msg = "[spectrum] is needed for the beam energy"
        raise SteeringError(msg)
    response, domain, floor = _acceptance(ctx, matched)
    values = np.stack([pairs.mass, pairs.pt, pairs.energy], axis=1)
    corrected = weight * unfold.acceptance_weights(values, response, floor=floor)
    edges = np.asarray(domain.hist.axes[0].edges)
    true = matched.true
    inside = spectrum.in_domain(domain, true[:, 0], true[:, 1], true[:, 2])
    covered = (true[:, 0] >= edges[0]) & (true[:, 0] < edges[-1]) & (true[:, 2] < section.beam_energy)
    n_bins = len(edges) - 1
    mass_bin = np.clip(np.searchsorted(edges, true[:, 0], "right") - 1, 0, n_bins - 1)
    prior = np.bincount(mass_bin[inside], matched.weight[inside], n_bins)
    data_bin = np.clip(np.searchsorted(edges, pairs.mass, "right") - 1, 0, n_bins - 1)
    measured = np.bincount(data_bin, corrected, n_bins)
    scale = np.divide(np.clip(measured, 0.0, None), prior, out=np.zeros(n_bins), where=prior > 0)
    outer = np.flatnonzero(covered & ~inside) if section.extrapolate else np.zeros(0, dtype=np.int64)
    kept = np.flatnonzero((corrected != 0) & (pairs.energy < section.beam_energy))
    logger.info(
        "training set: %d measured pairs (effective %.0f), %d extrapolated ones",
        *(len(kept), effective_size(corrected[kept]), len(outer)),
    )
    return TrainingSet(
        mass=np.concatenate([pairs.mass[kept], true[outer, 0]]),
        pt=np.concatenate([pairs.pt[kept], true[outer, 1]]),
        energy=np.concatenate([pairs.energy[kept], true[outer, 2]]),
        weight=np.concatenate([corrected[kept], matched.weight[outer] * scale[mass_bin[outer]]]),
        event=np.concatenate([pairs.event[kept], -1 - matched.event[outer]]),
        measured=np.arange(len(kept) + len(outer)) < len(kept),
        domain=domain,
    )


def _train(ctx: Context, training: TrainingSet, beam_energy: float) -> None:
    from gammastar import flow

    section = ctx.steering.flow
    if section is None:
        msg = "[flow] is needed to train a flow"
        raise SteeringError(msg)
    edges = np.asarray(training.domain.hist.axes[0].edges)
    options = flow.FlowOptions(
        bins=section.bins,
        hidden=section.hidden,
        layers=section.layers,
        epochs=section.epochs,
        epoch_size=section.epoch_size,
        batch=section.batch,
        learning_rate=section.learning_rate,
        mass_flattening=section.mass_flattening,
        mass_range=(float(edges[0]), float(edges[-1])),
    )

    def progress(epoch: int, n_epochs: int, train: float, validation: float) -> None:
        text = f"epoch {epoch + 1}/{n_epochs}: loss {train:.4f}, validation {validation:.4f}"
        ctx.tell("flow", (epoch + 1) / n_epochs, text)

    found = flow.fit_pairs(
        training,
        beam_energy=beam_energy,
        options=options,
        rng=stream(ctx.seed, "flow"),
        progress=progress,
    )
    flow.save(found, ctx.folder / "flow")


def _posterior_weights(ctx: Context, training: TrainingSet, data: FloatArray) -> FloatArray:
    """Return weights without signs: positive ones times the signal fraction of their cell, others zero.

    A density has no negative weights; the cells are those of the selection, where the subtraction was made.
    """
    edges = [np.asarray(axis.edges) for axis in axes_of(ctx.steering.select)]
    positive = np.clip(training.weight, 0.0, None)
    total, _ = np.histogramdd(data, bins=edges, weights=training.weight)
    above, _ = np.histogramdd(data, bins=edges, weights=positive)
    share = np.clip(np.divide(total, above, out=np.zeros_like(total), where=above > 0), 0.0, 1.0)
    index = tuple(
        np.clip(np.searchsorted(e, data[:, i], "right") - 1, 0, len(e) - 2) for i, e in enumerate(edges)
    )
    return np.asarray(positive * share[index], dtype=np.float64)


def _check(ctx: Context, training: TrainingSet, sampler: Sampler) -> Arrays:
    """Compare the flow with its training pairs."""
    from gammastar import flow

    section = ctx.steering.flow
    if section is None:
        msg = "[flow] is needed for the check of the flow"
        raise SteeringError(msg)
    low, high = section.check_range
    masses = np.arange(low, high + 1e-9, section.window)
    ctx.tell("flow", None, f"Kullback-Leibler divergence in {len(masses)} windows")
    data = np.stack([training.mass, training.pt, training.energy], axis=1)
    posterior = _posterior_weights(ctx, training, data)
    positive = posterior > 0
    scan = flow.kl_scan(
        sampler,
        data[positive],
        masses=masses,
        weight=posterior[positive],
        half_width=0.5 * section.window,
        n_draws=section.n_draws,
        rng=stream(ctx.seed, "flow", "check"),
    )
    quantiles = np.nanquantile(scan.data_draws, [0.025, 0.16, 0.5, 0.84, 0.975], axis=1).T
    return {
        "kl_mass": scan.mass,
        "kl_model": scan.model_mean,
        "kl_data": quantiles,
        "kl_tested": scan.tested,
        "kl_inside": scan.inside,
    }


def flow_stage(ctx: Context, training: TrainingSet, beam_energy: float) -> tuple[Any, Arrays]:
    """Train or reload the flow; return it and the arrays of its check.

    Raises
    ------
    UserError
        If a resumed flow is not the one that was trained.
    """
    from gammastar import flow

    content = digest(training.mass, training.pt, training.energy, training.weight)
    key = ctx.book.key(ctx.steering.flow, content, digest(beam_energy))

    def compute() -> Arrays:
        _train(ctx, training, beam_energy)
        found = flow.load(ctx.folder / "flow")
        report = found.report
        return _check(ctx, training, found) | {
            "digest": np.array(flow.digest(found.to_tensors())),
            "train_loss": np.array(report.train_loss),
            "validation_loss": np.array(report.validation_loss),
            "n_pairs": np.array(report.n_pairs),
            "effective_size": np.array(report.effective_size),
        }

    arrays = ctx.book.arrays("flow", key, compute)
    found = flow.load(ctx.folder / "flow")
    if flow.digest(found.to_tensors()) != str(arrays["digest"]):
        msg = f"{ctx.folder / 'flow'}: is not the flow that this run trained; run without --resume"
        raise UserError(msg)
    return found, arrays


def histogram_sampler(training: TrainingSet, beam_energy: float) -> Sampler:
    """Return the torch-free twin of the flow: a histogram of the same weighted pairs."""
    axes = tuple(training.domain.hist.axes)
    edges = [np.asarray(axis.edges) for axis in axes]
    points = np.stack([training.mass, training.pt, training.energy], axis=1)
    content, _ = np.histogramdd(points, bins=edges, weights=training.weight)
    square, _ = np.histogramdd(points, bins=edges, weights=training.weight**2)
    hist = filled(axes, content, square)
    found = Spectrum(hist, training.domain.cov, "counts", None, training.domain.domain)
    return spectrum.HistSampler(found, beam_energy=beam_energy)
