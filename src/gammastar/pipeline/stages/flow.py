"""The flow of a run: its training set in the measured domain and outside, training, check."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gammastar import spectrum
from gammastar.config.measured import FlowSection
from gammastar.core.axes import effective_size, filled
from gammastar.core.errors import InputFileError, PhysicsError, SteeringError, UserError
from gammastar.core.pairs import MatchedPairs, Pairs
from gammastar.core.records import BoolArray, FloatArray, Spectrum
from gammastar.core.sampling import Sampler, stream
from gammastar.pipeline.cache import Arrays
from gammastar.pipeline.context import Context, Tell, axes_of
from gammastar.store.folder import sweep
from gammastar.store.manifest import digest
from gammastar.unfold.acceptance import EfficiencyMap, efficiency_map

if TYPE_CHECKING:
    from gammastar.flow import (
        DensityTest,
        FlowOptions,
        FlowVariations,
        KinematicFlow,
        NearPairs,
        PairTable,
        PaperFlow,
    )

__all__ = [
    "CHECKPOINTS",
    "Domain",
    "InDomain",
    "TrainingSet",
    "flow_options",
    "flow_stage",
    "flow_variations",
    "histogram_sampler",
    "saved_digests",
    "train_flow",
    "training_set",
]

InDomain = Callable[[FloatArray, FloatArray, FloatArray], BoolArray]
ALARM = 1e-3  # p-value
MATTERS = 0.02  # mean relative shift below which a flow without replicas, whose error is unknown, is let be
logger = logging.getLogger(__name__)


STEM, MEMBERS, CHECKPOINTS = "flow", "flow_members", "training"
NEAR = f"{MEMBERS}.pairs.json"
GIVEN = ("bins", "hidden", "layers", "epochs", "epoch_size", "batch", "learning_rate")


def flow_options(section: FlowSection, mass_range: tuple[float, float]) -> FlowOptions:
    """Return the options of a section: what it gives, and the preset's values for the rest.

    Raises
    ------
    SteeringError
        If the device is not there, or an ensemble of the paper's preset is asked for.
    """
    from gammastar import flow

    if section.preset == "paper" and section.members:
        msg = "flow.members: an ensemble is of the default preset; set flow.preset = 'default' or members = 0"
        raise SteeringError(msg)
    if section.device == "cuda" and not flow.has_cuda():
        msg = (
            "flow.device = 'cuda': this computer has no CUDA device that torch can use; set flow.device = "
            "'cpu' (the same physics), or install a CUDA build of torch"
        )
        raise SteeringError(msg)
    given = {name: getattr(section, name) for name in GIVEN if getattr(section, name) is not None}
    make = flow.FlowOptions.paper if section.preset == "paper" else flow.FlowOptions
    return make(
        **given,
        mass_flattening=section.mass_flattening,
        mass_range=mass_range,
        min_window_pairs=section.min_window_pairs,
        window=section.window,
        checkpoint_every=section.checkpoint_every,
        device=section.device,
    )


def train_flow(
    section: FlowSection,
    options: FlowOptions,
    pairs: PairTable,
    beam_energy: float,
    *,
    folder: Path,
    seed: int,
    tell: Tell,
    each: Callable[..., Iterable[Any]] = map,
) -> dict[str, str]:
    """Train the flow and the members of its ensemble and save them; return their digests by name.

    A training that was interrupted goes on from its checkpoint in ``training/`` (see `flow.fit_pairs`) and
    ends with the same numbers; the checkpoints are removed at the end.

    Parameters
    ----------
    section : FlowSection
    options : FlowOptions
    pairs : PairTable
    beam_energy : float [GeV]
    folder : Path
        Gets ``flow.json`` and ``flow.safetensors``, ``flow_members.00.json`` … for every member, and
        ``flow_members.pairs.json``, the number of pairs near each mass (measured ones, where this is known).
    seed : int
    tell : callable
        Receives progress.
    each : function like ``map``
        Where the members are trained.
    """
    from gammastar import flow

    def progress(epoch: int, n_epochs: int, train: float, validation: float) -> None:
        text = f"epoch {epoch + 1}/{n_epochs}: loss {train:.4f}, validation {validation:.4f}"
        tell("flow", (epoch + 1) / n_epochs, text)

    checkpoints = folder / CHECKPOINTS
    train: Any = flow.fit_paper if options.preset == "paper" else flow.fit_pairs
    found: KinematicFlow | PaperFlow = train(
        pairs,
        beam_energy=beam_energy,
        options=options,
        rng=stream(seed, "flow"),
        progress=progress,
        checkpoint=checkpoints / "flow.checkpoint",
    )
    flow.save(found, folder / STEM)
    digests = {STEM: flow.digest(found.to_tensors())}
    sweep(folder, "members", drop=False)
    if section.members:
        tell("flow", None, f"{section.members} members on replicas of the events")
        ensemble = flow.fit_ensemble(
            pairs,
            beam_energy=beam_energy,
            options=options,
            members=section.members,
            seed=seed,
            folder=checkpoints.resolve(),  # workers have a working folder of their own
            each=each,
        )
        flow.save_ensemble(ensemble, folder / MEMBERS)
        digests[MEMBERS] = " ".join(flow.digest(member.to_tensors()) for member in ensemble.members)
        used = np.asarray(getattr(pairs, "measured", np.ones(len(pairs.mass), dtype=np.bool_)))
        near = flow.NearPairs.of(pairs.mass[used], pairs.weight[used], ensemble.mass_range)
        near.save(folder / NEAR)
        digests[NEAR] = _near_digest(near)
    sweep(checkpoints, "checkpoints")
    return digests


def saved_digests(folder: Path) -> dict[str, str]:
    """Return the digests of the flow and the members in a folder, as `train_flow` gives them."""
    from gammastar import flow

    digests = {STEM: flow.digest(flow.load(folder / STEM).to_tensors())}
    members = sorted(folder.glob(f"{MEMBERS}.[0-9][0-9].json"))
    if members:
        found = [flow.load(path.with_suffix("")) for path in members]
        digests[MEMBERS] = " ".join(flow.digest(member.to_tensors()) for member in found)
    if members and (folder / NEAR).is_file():
        digests[NEAR] = _near_digest(flow.NearPairs.load(folder / NEAR))
    return digests


def _near_digest(near: NearPairs) -> str:
    from gammastar import flow

    return flow.digest({"mass": near.mass, "count": near.count, "half_width": np.array(near.half_width)})


def flow_variations(folder: Path) -> FlowVariations | None:
    """Return the flow of a result folder with its members, or None if there is no ensemble.

    What a later stage does with it: draw one sample of the nominal flow, compute the yield with the sample's
    weights times each row of ``weights(mass, pt, energy)``, and turn the members' yields over all masses and
    couplings into few shifts with ``components``; each shift is one nuisance parameter common to all bins.
    The weights carry the whole band (see `flow.FlowVariations`): members, their small number, and the pairs
    of the data near each mass.

    Raises
    ------
    InputFileError
        If a file is damaged, or the flow is of the paper's preset.
    """
    from gammastar import flow

    if not any(folder.glob(f"{MEMBERS}.[0-9][0-9].json")):
        return None
    nominal = flow.load(folder / STEM)
    if not isinstance(nominal, flow.KinematicFlow):
        msg = f"{folder / STEM}: a flow of the paper's preset has no members; remove {MEMBERS}.*"
        raise InputFileError(msg)
    near = flow.NearPairs.load(folder / NEAR) if (folder / NEAR).is_file() else None
    return flow.FlowVariations(nominal, flow.load_ensemble(folder / MEMBERS), near)


@dataclass(frozen=True)
class Domain:
    """Where dileptons were measured: a smooth efficiency map above its floor."""

    map: EfficiencyMap
    floor: float

    def weights(self, mass: FloatArray, pt: FloatArray, energy: FloatArray) -> FloatArray:
        """Return one over the efficiency, 0 outside the domain."""
        return self.map.weights(mass, pt, energy, floor=self.floor)

    def in_domain(self, mass: FloatArray, pt: FloatArray, energy: FloatArray) -> BoolArray:
        """Return where dileptons of these kinematics were measured."""
        return np.asarray(self.weights(mass, pt, energy) > 0, dtype=np.bool_)

    def arrays(self) -> dict[str, FloatArray]:
        """Return what a record keeps."""
        kept = {name: getattr(self.map, name) for name in ("low", "high", "values", "found")}
        return kept | {"floor": np.array([self.floor])}

    @staticmethod
    def of(arrays: Mapping[str, FloatArray]) -> Domain:
        """Return the domain of a record."""
        found = EfficiencyMap(*(arrays[name] for name in ("low", "high", "values", "found")))
        return Domain(found, float(arrays["floor"][0]))


@dataclass(frozen=True)
class TrainingSet:
    """Weighted pairs of the density before acceptance: measured ones, and simulated ones elsewhere.

    Attributes
    ----------
    mass, pt, energy : NDArray, shape (n,) [GeV]
    weight : NDArray, shape (n,)
        Subtraction weight over efficiency for pairs of the data, scaled simulation outside the domain.
    reference : NDArray, shape (n,)
        The same with posterior weights, which are not negative: for comparisons of densities.
    event : NDArray of int64, shape (n,)
    measured : NDArray of bool, shape (n,)
        True for pairs of the data.
    domain : Domain
    """

    mass: FloatArray
    pt: FloatArray
    energy: FloatArray
    weight: FloatArray
    reference: FloatArray
    event: Any
    measured: BoolArray
    domain: Domain

    def in_domain(self, mass: FloatArray, pt: FloatArray, energy: FloatArray) -> BoolArray:
        """Return where dileptons of these kinematics were measured."""
        return self.domain.in_domain(mass, pt, energy)


def training_set(
    ctx: Context,
    pairs: Pairs,
    subtraction: Arrays,
    matched: MatchedPairs,
    domain: Domain | None = None,
) -> TrainingSet:
    """Return the pairs that the flow learns from; the measured domain is that of `matched` unless given.

    Inside the domain: pairs of the data with subtraction weight over efficiency. Outside: simulated true
    pairs, scaled in each mass bin to the measured yield, as in `spectrum.extrapolate`; they carry
    ``measured = False``. Pairs beyond the physical limits of the beam are dropped.
    """
    section, unfolding = ctx.steering.spectrum, ctx.steering.unfold
    if section is None or unfolding is None:
        msg = "[unfold] and [spectrum] are needed for the training set of the flow"
        raise SteeringError(msg)
    domain = domain or Domain(efficiency_map(matched), unfolding.efficiency_floor)
    inverse = domain.weights(pairs.mass, pairs.pt, pairs.energy)
    inverse = np.where(pairs.energy < section.beam_energy, inverse, 0.0)
    reference = subtraction["posterior"] * inverse
    corrected = reference if _positive(subtraction) else subtraction["weight"] * inverse
    outer, outer_weight = _outside(ctx, pairs.mass, reference, matched, domain)
    kept = np.flatnonzero((corrected != 0) | (reference != 0))
    logger.info(
        "training set: %d measured pairs (effective %.0f), %d extrapolated ones",
        *(len(kept), effective_size(corrected[kept]), len(outer)),
    )
    true = matched.true
    return TrainingSet(
        mass=np.concatenate([pairs.mass[kept], true[outer, 0]]),
        pt=np.concatenate([pairs.pt[kept], true[outer, 1]]),
        energy=np.concatenate([pairs.energy[kept], true[outer, 2]]),
        weight=np.concatenate([corrected[kept], outer_weight]),
        reference=np.concatenate([reference[kept], outer_weight]),
        event=np.concatenate([pairs.event[kept], -1 - matched.event[outer]]),
        measured=np.arange(len(kept) + len(outer)) < len(kept),
        domain=domain,
    )


def _positive(subtraction: Arrays) -> bool:
    """Return whether the flow learns from weights that are not negative."""
    return "trained_weights" not in subtraction or str(subtraction["trained_weights"][0]) != "signed"


def _outside(
    ctx: Context, mass: FloatArray, weight: FloatArray, matched: MatchedPairs, domain: Domain
) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """Return simulated true pairs outside the domain and their weights, scaled in each mass bin."""
    section, unfolding = ctx.steering.spectrum, ctx.steering.unfold
    if section is None or unfolding is None or not section.extrapolate:
        return np.zeros(0, dtype=np.int64), np.zeros(0)
    edges = np.asarray(axes_of(unfolding, ctx.steering.select)[0].edges)
    true, n_bins = matched.true, len(edges) - 1
    inside = domain.in_domain(true[:, 0], true[:, 1], true[:, 2])
    covered = (true[:, 0] >= edges[0]) & (true[:, 0] < edges[-1]) & (true[:, 2] < section.beam_energy)

    def bins(values: FloatArray) -> npt.NDArray[np.int64]:
        return np.clip(np.searchsorted(edges, values, "right") - 1, 0, n_bins - 1)

    prior = np.bincount(bins(true[inside, 0]), matched.weight[inside], n_bins)
    measured = np.bincount(bins(mass), weight, n_bins)
    scale = np.divide(np.clip(measured, 0.0, None), prior, out=np.zeros(n_bins), where=prior > 0)
    outer = np.flatnonzero(covered & ~inside)
    return outer, matched.weight[outer] * scale[bins(true[outer, 0])]


def _options(ctx: Context) -> FlowOptions:
    section = ctx.steering.flow
    if section is None:
        msg = "[flow] is needed to train a flow"
        raise SteeringError(msg)
    edges = np.asarray(axes_of(ctx.steering.unfold, ctx.steering.select)[0].edges)
    return flow_options(section, (float(edges[0]), float(edges[-1])))


def _train(ctx: Context, options: FlowOptions, training: TrainingSet, beam_energy: float) -> dict[str, str]:
    section = ctx.steering.flow
    if section is None:
        msg = "[flow] is needed to train a flow"
        raise SteeringError(msg)
    if not ctx.book.resume or ctx.book.force == "flow":
        sweep(ctx.folder / CHECKPOINTS, "checkpoints")
    each: Callable[..., Iterable[Any]] = map
    if ctx.farm is not None:
        each = functools.partial(ctx.farm.map, stage="flow")
    where: dict[str, Any] = {"folder": ctx.folder, "seed": ctx.seed, "tell": ctx.tell, "each": each}
    return train_flow(section, options, training, beam_energy, **where)


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
    positive = training.reference > 0

    def compared(one: Sampler, n_draws: int) -> flow.KLScan:
        return flow.kl_scan(
            one,
            data[positive],
            masses=masses,
            weight=training.reference[positive],
            half_width=0.5 * section.window,
            n_draws=n_draws,
            rng=stream(ctx.seed, "flow", "check"),
        )

    scan, few = compared(sampler, section.n_draws), max(5, section.n_draws // 10)
    quantiles = np.nanquantile(scan.data_draws, [0.025, 0.16, 0.5, 0.84, 0.975], axis=1).T
    members = flow_variations(ctx.folder)
    means = [] if members is None else [compared(one, few).model_mean for one in members.ensemble.members]
    spread = np.std(means, axis=0, ddof=1) if means else np.zeros(len(masses))
    return {
        "kl_mass": scan.mass,
        "kl_model": scan.model_mean,
        "kl_error": 1.96 * np.hypot(scan.model_draws.std(axis=1), spread),  # of draws and of trainings
        "kl_data": quantiles,
        "kl_tested": scan.tested,
        "kl_inside": scan.inside,
    } | _density(ctx, training, sampler, members)


def _density(ctx: Context, training: TrainingSet, sampler: Sampler, members: FlowVariations | None) -> Arrays:
    """Test the flow against the pairs of the data, inside the measured domain."""
    from gammastar import flow

    ctx.tell("flow", None, "energy distance of the flow and the measured pairs")
    data = np.stack([training.mass, training.pt, training.energy], axis=1)[training.measured]
    try:
        found = flow.density_test(
            sampler,
            data,
            weight=training.reference[training.measured],
            event=np.asarray(training.event)[training.measured],
            inside=training.in_domain,
            replicas=None if members is None else replace(members, near=None).weights,
            rng=stream(ctx.seed, "flow", "density"),
        )
    except PhysicsError as error:  # too few pairs for a test are no reason to stop
        ctx.book.alarm(f"the density of the flow is not tested: {error}")
        return {}
    _judge(ctx, found)
    names = ("energy", "pt")
    return {
        "density_p": np.array([found.p_value, found.band_p_value]),
        "density_size": np.array([found.n_pairs, found.effective_size]),
        "density_level": np.array([found.options.significance, found.options.power]),
        "density_smallest": np.array([found.smallest[name] for name in names]),
        "density_shift": np.array([(*found.shift[name], found.band[name]) for name in names]),
    }


def _judge(ctx: Context, found: DensityTest) -> None:
    """Alarm where the flow is off by more than its band, or without one by more than matters."""
    banded = not np.isnan(found.band_p_value)
    largest = max(abs(shift) for shift, _ in found.shift.values())
    if found.verdict >= ALARM or not (banded or largest > MATTERS):
        return
    within = ", beyond what its replicas differ by" if banded else ""
    ctx.book.alarm(
        f"the flow is not the density of its measured pairs (p = {found.verdict:.1g}{within}): in the mean "
        f"energies of the pairs are {100 * found.shift['energy'][0]:+.2g} % from the flow's, q_T "
        f"{100 * found.shift['pt'][0]:+.2g} %; train longer (flow.epochs)"
    )


def flow_stage(ctx: Context, training: TrainingSet, beam_energy: float) -> tuple[Any, Arrays]:
    """Train or reload the flow and its ensemble; return it and the arrays of its check.

    Raises
    ------
    UserError
        If a resumed flow is not the one that was trained.
    """
    from gammastar import flow

    content = digest(training.mass, training.pt, training.energy, training.weight)
    options = _options(ctx)
    key = ctx.book.key(ctx.steering.flow, content, digest(beam_energy, repr(options)))

    def compute() -> Arrays:
        digests = _train(ctx, options, training, beam_energy)
        found = flow.load(ctx.folder / "flow")
        report = found.report
        return _check(ctx, training, found) | {
            "digest": np.array(digest(digests)),
            "train_loss": np.array(report.train_loss),
            "validation_loss": np.array(report.validation_loss),
            "n_pairs": np.array(report.n_pairs),
            "effective_size": np.array(report.effective_size),
        }

    arrays = ctx.book.arrays("flow", key, compute)
    if digest(saved_digests(ctx.folder)) != str(arrays["digest"]):
        msg = f"{ctx.folder / 'flow'}: is not the flow that this run trained; run without --resume"
        raise UserError(msg)
    return flow.load(ctx.folder / "flow"), arrays


def histogram_sampler(ctx: Context, training: TrainingSet, beam_energy: float) -> Sampler:
    """Return the torch-free twin of the flow: a histogram of the same weighted pairs.

    Its axes are those of [flow] where they are given, else those of the spectrum.
    """
    fallback = (
        ctx.steering.unfold if ctx.steering.unfold and ctx.steering.unfold.mass else ctx.steering.select
    )
    axes = axes_of(ctx.steering.flow, fallback)
    edges = [np.asarray(axis.edges) for axis in axes]
    points = np.stack([training.mass, training.pt, training.energy], axis=1)
    content, _ = np.histogramdd(points, bins=edges, weights=training.reference)
    square, _ = np.histogramdd(points, bins=edges, weights=training.reference**2)
    n = content.size
    hist = filled(axes, content, square)
    cov = np.broadcast_to(0.0, (n, n))
    found = Spectrum(hist, cov, "counts", None, np.ones(content.shape, dtype=np.bool_))
    return spectrum.HistSampler(found, beam_energy=beam_energy)
