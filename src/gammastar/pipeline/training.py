"""Training of the flow as the steering says: preset, device, checkpoints, and the ensemble for its band."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gammastar.config.learning import FlowSection
from gammastar.core.errors import InputFileError, SteeringError
from gammastar.core.rng import stream
from gammastar.pipeline.context import Tell
from gammastar.store.folder import sweep

if TYPE_CHECKING:
    from gammastar.flow import FlowOptions, FlowVariations, KinematicFlow, NearPairs, PairTable, PaperFlow

__all__ = ["CHECKPOINTS", "flow_options", "flow_variations", "saved_digests", "train_flow"]

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
