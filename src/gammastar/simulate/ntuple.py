"""Recorded events, data-like or simulated with truth, ready to be written as a tree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Literal, TypeAlias, get_args

import awkward as ak
import numpy as np
import numpy.typing as npt

from gammastar.core.errors import PhysicsError
from gammastar.core.rng import stream
from gammastar.simulate.assembly import (
    MISS_PRESCALE,
    Progress,
    background_sample,
    charm_sample,
    cocktail_sample,
    data_sample,
)
from gammastar.simulate.candidates import COMBINATORIAL, Candidates
from gammastar.simulate.card import Card
from gammastar.simulate.combinatorial import PAIRINGS, Pairing
from gammastar.simulate.detector import smear

__all__ = ["KINDS", "Kind", "SimulatedEvents", "simulate_events"]

Kind: TypeAlias = Literal["data", "mc", "background", "charm"]
KINDS: tuple[str, ...] = get_args(Kind)

RUN = {"data": 5001, "mc": 6001, "background": 7001, "charm": 8001}
DIMUON_TRIGGER = 1
DECAY_HADRONS = (211, 321)
VERTEX_SIGMA = 0.02  # cm, along the beam
BEAM_SIGMA = 0.05  # cm, beam spot
OFFSET_SIGMA = 60.0  # µm, of a prompt muon at the vertex
KINK = 2.0  # offsets and matching χ² of muons from decays in flight are wider


@dataclass(frozen=True, slots=True, eq=False)
class SimulatedEvents:
    """A mock sample.

    Attributes
    ----------
    branches : mapping of str to array, equal lengths
        ``Muon`` is a jagged record array (px, py, pz [GeV], charge, chi2match, dx, dy [µm]; with truth also
        motherPdg, gen_px, gen_py, gen_pz), the others are flat. Weights are ``weight × prescale``.
    meta : mapping
        Exposure, sums of weights per process, seed, card digest, background and its R.
    """

    branches: Mapping[str, Any]
    meta: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.branches["event"])

    def meta_branches(self) -> dict[str, Any]:
        """Return `meta` as branches of one entry; nested keys are joined with an underscore."""
        flat: dict[str, Any] = {}
        for key, value in self.meta.items():
            items = (
                {f"{key}_{name}": item for name, item in value.items()}
                if isinstance(value, Mapping)
                else {key: value}
            )
            flat |= items
        return {
            key: ak.Array([value]) if isinstance(value, str) else np.array([value])
            for key, value in flat.items()
        }


def simulate_events(
    card: Card,
    n: int,
    *,
    kind: Kind = "data",
    prior: str = "nominal",
    pairing: Pairing = "same-event",
    seed: int = 0,
    miss_prescale: int = MISS_PRESCALE,
    progress: Progress | None = None,
) -> SimulatedEvents:
    """Simulate a mock dimuon ntuple.

    Parameters
    ----------
    card : Card
    n : int
        ``"mc"``: expected number of rows; otherwise expected number of recorded opposite-sign pairs.
    kind : {"data", "mc", "background", "charm"}
        ``"data"``: unweighted cocktail, pairs of decay muons, third muons and, where the card has it, open
        charm, no truth. ``"mc"``: cocktail with truth, dimuons that are not recorded included (fewer than
        two muons). ``"background"``: pairs of decay muons alone, with truth, for the like-sign ratio R.
        ``"charm"``: open charm alone, a template whose normalisation is `N_POT`.
    prior : str
        ``"nominal"`` or a key of the card's priors.
    pairing : {"same-event", "mixed"}
        Of decay muons; ``"mixed"`` has R = 1.
    seed : int
    miss_prescale : int
        Simulated dimuons that are not recorded are kept once in this many; the branch ``prescale`` says so.
    progress : callable, optional
        Called as ``progress(done, total)`` after each chunk of dimuons.

    Returns
    -------
    SimulatedEvents

    Raises
    ------
    PhysicsError
        If `n`, `kind`, `pairing` or `miss_prescale` is out of range, or the card records nothing.
    SteeringError
        If the card has no such prior.
    """
    _check(n > 0, f"simulate_events: n = {n!r} must be positive")
    _check(str(kind) in KINDS, f"simulate_events: kind = {kind!r} is not one of {list(KINDS)}")
    _check(str(pairing) in PAIRINGS, f"simulate_events: pairing = {pairing!r} is not one of {list(PAIRINGS)}")
    _check(miss_prescale >= 1, f"simulate_events: miss_prescale = {miss_prescale!r} must be at least 1")
    source = card.with_prior(prior)
    rng = stream(seed, "simulate", kind)
    if kind == "data":
        candidates, meta = data_sample(source, n, rng, pairing, progress)
    elif kind == "mc":
        candidates, meta = cocktail_sample(source, n, rng, miss_prescale, progress)
    elif kind == "background":
        candidates, meta = background_sample(source, n, rng, pairing)
    else:
        candidates, meta = charm_sample(source, n, rng, progress)
    branches = _event_branches(source, candidates, kind, rng)
    branches["Muon"] = _muons(source, candidates, rng, truth=kind != "data")
    if kind != "data":
        branches |= _truth(source, candidates)
    return SimulatedEvents(
        branches=branches,
        meta={
            "card": card.name,
            "card_digest": card.digest,
            "prior": prior,
            "kind": kind,
            "seed": seed,
            "version": metadata.version("gammastar"),
            "numpy": np.__version__,
            "beam_energy": card.beam.energy,
            "L": card.target.thickness,
            "A": card.target.a,
            "Z": card.target.z,
            "sigma_inel": card.target.sigma_inel,
            "n_events": len(candidates),
            **meta,
            "sum_weights": _sums(source, candidates),
        },
    )


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise PhysicsError(message)


def _sums(card: Card, candidates: Candidates) -> dict[str, float]:
    """Return the sum of weights (times prescale) of every process."""
    total = np.bincount(candidates.process, candidates.weight, minlength=128)
    names = {key: mode.process for key, mode in card.modes.items() if mode.enabled}
    names |= {"combinatorial": COMBINATORIAL}
    if card.charm is not None and card.has_charm:
        names |= {"charm": card.charm.process}
    return {key: float(total[code]) for key, code in names.items()}


def _event_branches(
    card: Card, candidates: Candidates, kind: Kind, rng: np.random.Generator
) -> dict[str, Any]:
    n = len(candidates)
    number = np.arange(n, dtype=np.int64)
    recorded = candidates.present.sum(axis=0) >= 2
    beam = rng.standard_normal((2, n)) * BEAM_SIGMA
    z = rng.uniform(-0.5, 0.5, n) * card.target.z_size + VERTEX_SIGMA * rng.standard_normal(n)
    return {
        "run": np.full(n, RUN[kind], dtype=np.int32),
        "burst": (number // card.run.events_per_burst).astype(np.int32),
        "event": number,
        "target": np.full(n, card.target.index, dtype=np.int8),
        "trigger": np.where(recorded, DIMUON_TRIGGER, 0).astype(np.uint32),
        "PV_x": beam[0].astype(np.float32),
        "PV_y": beam[1].astype(np.float32),
        "PV_z": z.astype(np.float32),
        "weight": np.ones(n, dtype=np.float64),
        "prescale": candidates.weight.astype(np.float32),
    }


def _muons(card: Card, candidates: Candidates, rng: np.random.Generator, *, truth: bool) -> ak.Array:
    """Return the jagged record array of measured muons, in random order within the event."""
    event, slot = np.nonzero(candidates.present.T)
    order = np.lexsort((rng.random(len(event)), event))  # the order must not give the charge away
    event, slot = event[order], slot[order]
    true = candidates.p[:, slot, event]
    mother = candidates.mother[slot, event]
    wide = np.where(np.isin(np.abs(mother), DECAY_HADRONS), KINK, 1.0)
    displaced = candidates.offset[:, slot, event]
    columns: dict[str, npt.NDArray[Any]] = {
        **dict(zip(("px", "py", "pz"), smear(true, card.detector, rng).astype(np.float32), strict=True)),
        "charge": candidates.charge[slot, event],
        "chi2match": (wide * rng.exponential(1.0, len(event))).astype(np.float32),
        "dx": (wide * OFFSET_SIGMA * rng.standard_normal(len(event)) + displaced[0]).astype(np.float32),
        "dy": (wide * OFFSET_SIGMA * rng.standard_normal(len(event)) + displaced[1]).astype(np.float32),
    }
    if truth:
        columns["motherPdg"] = mother
        columns |= dict(zip(("gen_px", "gen_py", "gen_pz"), true.astype(np.float32), strict=True))
    counts = candidates.present.sum(axis=0)
    return ak.unflatten(ak.zip(columns), counts)


def _truth(card: Card, candidates: Candidates) -> dict[str, Any]:
    """Return the branches of the generated virtual photon; zero for background and charm, which have none."""
    photon = candidates.process != COMBINATORIAL
    if card.charm is not None:
        photon &= candidates.process != card.charm.process
    mass, pt, energy = np.where(photon, candidates.gen, 0.0)
    return {"gen_process": candidates.process, "gen_mll": mass, "gen_qT": pt, "gen_E": energy}
