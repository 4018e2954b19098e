"""Section ``[flow]``: what is learned from, the flow with its ensemble and check, the spin density."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gammastar import spectrum
from gammastar.config import Steering
from gammastar.config.measured import FlowSection
from gammastar.core.constants import LEPTON_MASS
from gammastar.core.errors import PhysicsError, SteeringError, UserError
from gammastar.core.records import Arrays, FloatArray
from gammastar.core.sampling import Sampler, stream
from gammastar.physics.polarisation import COEFFICIENTS, SpinDensities, physical
from gammastar.pipeline.context import (
    Context,
    Tell,
    axes_of,
    domain_of,
    forward_of,
    needed,
    simulation_of,
    with_measured_kinematics,
)
from gammastar.spectrum import TrainingSet, angles
from gammastar.store.folder import read_tensors, sweep, write_tensors
from gammastar.store.manifest import digest

if TYPE_CHECKING:
    from gammastar.flow import FlowOptions, FlowVariations
    from gammastar.flow.density_tests import DensityTest
    from gammastar.flow.options import PairTable


SPIN_FILE, PAIRS_FILE = "spin_density.safetensors", "flow_pairs.json"
COARSE = 0.5  # resolutions between measured pairs and the simulated ones that tell their true mass
GIVEN = ("bins", "hidden", "layers", "epochs", "epoch_size", "batch", "learning_rate")


def training(ctx: Context, state: Any) -> TrainingSet:
    """Return what kinematics are learned from: pairs of data or OmniFold, simulated ones beyond."""
    if state.training is not None:
        found: TrainingSet = state.training
        return found
    pairs, truth = needed(state.pairs, "select"), needed(state.truth, "unfold")
    subtraction, unfolding = needed(state.subtraction, "subtract"), needed(state.unfolding, "unfold")
    exposed, section = needed(ctx.steering.spectrum, "spectrum"), needed(ctx.steering.unfold, "unfold")
    edges = np.asarray(axes_of(section, ctx.steering.select)[0].edges)
    outside = forward_of(ctx, state) if exposed.extrapolate else False
    options = {"beam_energy": exposed.beam_energy, "edges": edges, "outside": outside}
    domain = domain_of(ctx, state)
    if "omnifold_weight" in unfolding:
        weight = unfolding["omnifold_weight"]
        state.training = spectrum.unbinned_training_set(truth.sample, weight, domain, **options)
    else:
        signed = "trained_weights" in subtraction and str(subtraction["trained_weights"][0]) == "signed"
        posterior = subtraction["posterior"]
        weights = (subtraction["weight"] if signed else posterior, posterior)
        known = with_measured_kinematics(simulation_of(section, truth), unfolding).sample
        state.training = spectrum.training_set(pairs, weights, known, domain, seed=ctx.seed, **options)
        if state.training.coarse > COARSE:
            ctx.cache.alarm(
                f"kinematics at true mass: simulated pairs lie {state.training.coarse:.2g} resolutions from "
                f"the measured ones they stand for; simulate more than {len(known)} pairs"
            )
    return training(ctx, state)


def write_pairs_near(folder: Path, pairs: TrainingSet, mass_range: tuple[float, float]) -> None:
    """Write ``flow_pairs.json``, the effective number of pairs about each mass."""
    from gammastar import flow

    flow.LocalStatistics.of(pairs.mass, pairs.weight, mass_range).save(folder / PAIRS_FILE)


def pairs_near(folder: Path) -> Callable[[float], float] | None:
    """Return the effective number of pairs behind the kinematics about a mass [GeV], None if unknown."""
    from gammastar import flow

    path = folder / PAIRS_FILE
    if not path.is_file():
        return None
    known = flow.LocalStatistics.load(path)
    return lambda mass: float(known.at(np.array([mass]))[0])


def histogram_sampler(ctx: Context, pairs: TrainingSet, beam_energy: float) -> Sampler:
    """Return the histogram sampler, on the axes of [flow] where given, else of the spectrum."""
    axes = axes_of(ctx.steering.flow, ctx.steering.unfold, ctx.steering.select)
    return spectrum.histogram_sampler(pairs, axes, beam_energy)


def flow_stage(ctx: Context, state: Any) -> None:
    """Train or reload the flow and its ensemble, and check it against its pairs."""
    from gammastar import flow

    section = needed(ctx.steering.flow, "flow")
    exposure = needed(needed(state.spectrum, "spectrum").exposure, "spectrum")
    pairs, beam_energy = training(ctx, state), exposure.beam_energy
    edges = axes_of(ctx.steering.unfold, ctx.steering.select)[0].edges
    options = flow_options(section, (float(edges[0]), float(edges[-1])))
    content = digest(pairs.mass, pairs.pt, pairs.energy, pairs.weight)
    key = ctx.cache.key(section, content, digest(beam_energy, repr(options)))

    def compute() -> Arrays:
        each: Callable[..., Iterable[Any]] = map
        on_gpu = options.device == "cuda" or (options.device == "auto" and flow.has_cuda())
        if ctx.executor is not None and not on_gpu:  # one device trains one flow after the other
            each = functools.partial(ctx.executor.map, stage="flow")
        where: dict[str, Any] = {"folder": ctx.folder, "seed": ctx.seed}
        train_flow(options, pairs, beam_energy, tell=ctx.tell, **where)
        if section.members:
            ctx.tell("flow", None, f"{section.members} members on replicas of the events")
        train_members(section.members, options, pairs, beam_energy, each=each, **where)
        trained = flow.load(ctx.folder / "flow")
        report, members = trained.report, flow.load_variations(ctx.folder)
        return (
            _windows(ctx, section, pairs, trained, members)
            | _density(ctx, pairs, trained, members)
            | {
                "digest": np.array(digest(flow.saved_digests(ctx.folder))),
                "train_loss": np.array(report.train_loss),
                "validation_loss": np.array(report.validation_loss),
                "best_epoch": np.array(report.best_epoch),
                "n_pairs": np.array(report.n_pairs),
                "effective_size": np.array(report.effective_size),
            }
        )

    state.learning = ctx.cache.arrays("flow", key, compute)
    if digest(flow.saved_digests(ctx.folder)) != str(state.learning["digest"]):
        raise UserError(f"{ctx.folder / 'flow'}: is not the flow that this run trained; run without --resume")
    state.flow = flow.load(ctx.folder / "flow")


def flow_options(section: FlowSection, mass_range: tuple[float, float]) -> FlowOptions:
    """Return the options of a section: what it gives, and the default values for the rest."""
    from gammastar import flow

    if section.device == "cuda" and not flow.has_cuda():
        raise SteeringError(
            "flow.device = 'cuda': this computer has no CUDA device that torch can use; set flow.device = "
            "'cpu' (the same physics), or install a CUDA build of torch"
        )
    given = {name: getattr(section, name) for name in GIVEN if getattr(section, name) is not None}
    return flow.FlowOptions(
        **given,
        mass_flattening=section.mass_flattening,
        mass_range=mass_range,
        min_window_pairs=section.min_window_pairs,
        window=section.window,
        device=section.device,
    )


def train_flow(
    options: FlowOptions, pairs: PairTable, beam_energy: float, *, folder: Path, seed: int, tell: Tell
) -> None:
    """Train the flow and save it."""
    from gammastar import flow

    def progress(epoch: int, n_epochs: int, train: float, validation: float) -> None:
        text = f"epoch {epoch + 1}/{n_epochs}: loss {train:.4f}, validation {validation:.4f}"
        tell("flow", (epoch + 1) / n_epochs, text)

    rng = stream(seed, "flow")
    trained = flow.fit_pairs(pairs, beam_energy=beam_energy, options=options, rng=rng, progress=progress)
    flow.save(trained, folder / "flow")


def train_members(
    members: int,
    options: FlowOptions,
    pairs: PairTable,
    beam_energy: float,
    *,
    folder: Path,
    seed: int,
    each: Callable[..., Iterable[Any]] = map,
) -> None:
    """Train the members of an ensemble, if there are to be any, and save them instead of those before."""
    from gammastar import flow

    sweep(folder, "members", drop=False)
    if not members:
        return
    ensemble = flow.fit_ensemble(
        pairs,
        beam_energy=beam_energy,
        options=options,
        members=members,
        seed=seed,
        bootstrap=getattr(pairs, "replica", None) or True,
        each=each,
    )
    used = np.asarray(getattr(pairs, "measured", np.ones(len(pairs.mass), dtype=np.bool_)))
    local = flow.LocalStatistics.of(pairs.mass[used], pairs.weight[used], ensemble.mass_range)
    flow.save_members(ensemble, local, folder)


def _windows(
    ctx: Context, section: FlowSection, pairs: TrainingSet, trained: Sampler, members: FlowVariations | None
) -> Arrays:
    """Compare the flow and its replicas with the pairs in windows of mass."""
    from gammastar import flow

    ctx.tell("flow", None, "Kullback-Leibler divergence in windows of mass")
    try:
        check = flow.check_windows(
            trained,
            pairs.points,
            pairs.reference,
            mass_range=section.check_range,
            window=section.window,
            n_draws=section.n_draws,
            rng=lambda: stream(ctx.seed, "flow", "check"),
            members=() if members is None else members.ensemble.members,
        )
    except PhysicsError as error:  # too few pairs for a check are no reason to stop
        ctx.cache.alarm(f"the flow is not checked in windows of mass: {error}")
        return {}
    names = ("mass", "model", "error", "data", "tested", "inside")
    return {f"kl_{name}": getattr(check, name) for name in names}


def _density(ctx: Context, pairs: TrainingSet, trained: Sampler, members: FlowVariations | None) -> Arrays:
    """Test the flow against the pairs of the data, inside the measured domain."""
    from gammastar import flow
    from gammastar.flow.density_tests import density_slices

    ctx.tell("flow", None, "energy distance of the flow and the measured pairs")
    measured, names = pairs.measured, ("energy", "pt")
    how: dict[str, Any] = {
        "weight": pairs.reference[measured],
        "event": np.asarray(pairs.event)[measured],
        "inside": pairs.in_domain,
        "replicas": None if members is None else replace(members, local=None).weights,
    }
    try:
        seeds = stream(ctx.seed, "flow", "density")
        test = flow.density_test(trained, pairs.points[measured], rng=seeds, **how)
    except PhysicsError as error:  # too few pairs for a test are no reason to stop
        ctx.cache.alarm(f"the density of the flow is not tested: {error}")
        return {}
    slices = density_slices(trained, pairs.points[measured], rng=stream(ctx.seed, "flow", "slices"), **how)
    _judge(ctx, test)
    return {
        "density_p": np.array([test.p_value, test.band_p_value]),
        "density_size": np.array([test.n_pairs, test.effective_size]),
        "density_level": np.array([test.options.significance, test.options.power]),
        "density_smallest": np.array([test.smallest[name] for name in names]),
        "density_shift": np.array([(*test.shift[name], test.band[name]) for name in names]),
        "slice_mass": np.array([(low, high) for low, high, _ in slices]).reshape(-1, 2),
        "slice_p": np.array([(one.verdict, one.effective_size) for _, _, one in slices]).reshape(-1, 2),
        "slice_shift": np.array(
            [
                [(*one.shift[name], one.band[name], one.smallest[name]) for name in names]
                for _, _, one in slices
            ]
        ).reshape(-1, 2, 4),
    }


def _judge(ctx: Context, test: DensityTest) -> None:
    """Alarm where the flow is off by more than its band, or without one by more than matters."""
    if not test.matters:
        return
    within = "" if np.isnan(test.band_p_value) else ", beyond what its replicas differ by"
    ctx.cache.alarm(
        f"the flow is not the density of its measured pairs (p = {test.verdict:.1g}{within}): in the "
        f"mean energies of the pairs are {100 * test.shift['energy'][0]:+.2g} % from the flow's, q_T "
        f"{100 * test.shift['pt'][0]:+.2g} %; train longer (flow.epochs)"
    )


def columns_for_angles(steering: Steering) -> tuple[str, ...]:
    """Return the columns of pairs that the spin density needs."""
    return angles.ANGLES if steering.flow is not None and steering.flow.angles is not None else ()


def spin_stage(ctx: Context, state: Any) -> None:
    """Fit the spin density of the measured pairs and write it; nothing without ``[flow] angles``."""
    section, exposed = ctx.steering.flow, ctx.steering.spectrum
    if section is None or section.angles is None or exposed is None:
        return
    pairs, truth = needed(state.pairs, "select"), needed(state.truth, "unfold")
    kept, unfolded = needed(state.subtraction, "subtract"), needed(state.unfolded, "unfold")
    how = (section.angles, LEPTON_MASS[exposed.lepton])
    key = ctx.cache.key(None, ctx.cache.key_of("select", "subtract", "match", "unfold"), digest(*how))
    removed = kept.get("removed_angles", np.zeros((7, 0)))
    own = {int(k) for k in removed[6]}

    def compute() -> dict[str, FloatArray]:
        ctx.tell("flow", None, f"spin density in {len(how[0]) - 1} regions of mass")
        simulated = angles.simulated_angles(truth.sample, unfolded)
        data = angles.measured_angles(pairs, kept["weight"])
        relative = {k: kept["removed"][k][1] / kept["removed"][k][0] for k in own}
        try:
            return angles.fit_without(data, simulated, removed, relative, how).arrays()
        except PhysicsError as error:
            raise SteeringError(f"flow.angles: {error}") from error

    state.spin = SpinDensities.of(ctx.cache.arrays("spin", key, compute))
    write_tensors(ctx.folder / SPIN_FILE, state.spin.arrays())
    _tell_spin(ctx, state.spin, exposed.lepton, kept, own)


def _tell_spin(ctx: Context, spin: SpinDensities, lepton: str, kept: Arrays, own: set[int]) -> None:
    """Write the coefficients of each region, with frame and errors, for manifest and report."""
    for low, high, text in angles.spin_rows(spin, LEPTON_MASS[lepton]):
        name = f"{', '.join(COEFFICIENTS)} of {lepton} pairs, {low:g} to {high:g} GeV, frame laboratory"
        ctx.cache.numbers[name] = text
    for i, moments in enumerate(spin.moments):
        if not np.allclose(physical(moments), moments):
            low, high = spin.edges[i : i + 2]
            ctx.cache.notes.append(
                f"spin density from {low:g} to {high:g} GeV: the fitted coefficients lie beyond what a "
                "vector can have; decays take the nearest ones that it can"
            )
    left = [str(name) for k, name in enumerate(kept["removed_names"]) if k not in own]
    if left:
        ctx.cache.notes.append(
            f"spin density: {', '.join(left)}: known without decay angles, so not taken from those of the "
            "pairs; the coefficients shift by the share"
        )


def read_spin(folder: Path) -> SpinDensities | None:
    """Read the spin density of a run; None if the run has none."""
    path = folder / SPIN_FILE
    if not path.is_file():
        return None
    return SpinDensities.of(read_tensors(path, {"edges": 1, "moments": 2, "cov": 3, "pairs": 1}))
