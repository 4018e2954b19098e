"""Recorded events, data-like or simulated with truth, ready to be written as a tree."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypedDict, Unpack, get_args

import awkward as ak
import numpy as np

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
from gammastar.simulate.branches import (
    event_branches,
    muon_branches,
    richer,
    truth_branches,
    without_hidden,
)
from gammastar.simulate.candidates import COMBINATORIAL, Candidates
from gammastar.simulate.card import Card
from gammastar.simulate.card_parts import PythiaCard
from gammastar.simulate.combinatorial import PAIRINGS, Pairing
from gammastar.simulate.engines import ENGINES, TOY, Engine, EngineName, normalised, pythia_engine

__all__ = ["KINDS", "Kind", "SimulatedEvents", "simulate_events"]

Kind: TypeAlias = Literal["data", "mc", "background", "charm"]
KINDS: tuple[str, ...] = get_args(Kind)

DIMUONS_PER_RECORDED = 24  # generated for one recorded
FEWEST_EVENTS = 20_000
RUN = {"data": 5001, "mc": 6001, "background": 7001, "charm": 8001}


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

    @property
    def digest(self) -> str:
        """SHA-256 of the content: names, types and values of all branches, and the record."""
        total = hashlib.sha256()
        for name in sorted(self.branches):
            form, length, buffers = ak.to_buffers(ak.to_packed(ak.Array(self.branches[name])))
            total.update(f"{name} {length} {form}".encode())
            for key in sorted(buffers):
                total.update(np.ascontiguousarray(buffers[key]).tobytes())
        total.update(json.dumps(dict(self.meta), sort_keys=True, default=float).encode())
        return total.hexdigest()

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


class Options(TypedDict, total=False):
    """Further arguments of `simulate_events`."""

    pairing: Pairing
    miss_prescale: int
    workers: int
    cache: str | Path | None
    n_events: int | None


def simulate_events(
    card: Card,
    n: int,
    *,
    kind: Kind = "data",
    prior: str = "nominal",
    seed: int = 0,
    progress: Progress | None = None,
    engine: EngineName | Engine = "toy",
    **options: Unpack[Options],
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
    seed : int
    progress : callable, optional
        Called as ``progress(done, total)`` after each chunk of dimuons, and of generated events before.
    engine : {"toy", "pythia"} or Engine
        Where hadrons come from. ``"pythia"`` generates what `n` asks for first; an engine made before
        (`pythia_engine`) serves several samples.
    pairing : {"same-event", "mixed"}
        Of decay muons; ``"mixed"`` has R = 1.
    miss_prescale : int
        Simulated dimuons that are not recorded are kept once in this many [5], as ``prescale`` says.
    workers : int
        Processes of Pythia [1]; the sample does not depend on their number.
    cache : path
        Folder for finished shares of Pythia: an interrupted run goes on there and gives the same sample.
    n_events : int
        Inelastic events of Pythia [from `n` and the card's ``pythia.reuse``].

    Returns
    -------
    SimulatedEvents

    Raises
    ------
    PhysicsError
        If `n`, `kind`, `pairing` or `miss_prescale` is out of range, or the card records nothing.
    SteeringError
        If the card has no such prior.
    UserError
        If the engine is Pythia and pythia8mc is not installed.
    """
    pairing = options.get("pairing", "same-event")
    miss_prescale = options.get("miss_prescale", MISS_PRESCALE)
    _check(n > 0, f"simulate_events: n = {n!r} must be positive")
    _check(str(kind) in KINDS, f"simulate_events: kind = {kind!r} is not one of {list(KINDS)}")
    _check(str(pairing) in PAIRINGS, f"simulate_events: pairing = {pairing!r} is not one of {list(PAIRINGS)}")
    _check(miss_prescale >= 1, f"simulate_events: miss_prescale = {miss_prescale!r} must be at least 1")
    source = card.with_prior(prior)
    made = _engine(source, n, kind, seed, progress, engine, options)
    source = normalised(source, made)
    rng = stream(seed, "simulate", kind)
    if kind == "data":
        candidates, meta = data_sample(source, n, rng, pairing, progress, made)
    elif kind == "mc":
        candidates, meta = cocktail_sample(source, n, rng, miss_prescale, progress, made)
    elif kind == "background":
        candidates, meta = background_sample(source, n, rng, pairing, made)
    else:
        candidates, meta = charm_sample(source, n, rng, progress, made)
    branches = event_branches(source, candidates, RUN[kind], rng)
    branches["Muon"] = muon_branches(source, candidates, rng, truth=kind != "data")
    more = richer(source, candidates, branches, meta["N_POT"], stream(seed, "simulate", kind, "detector"))
    branches["Muon"] = without_hidden(branches["Muon"])
    if kind != "data":
        branches |= truth_branches(source, candidates)
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
            "engine": made.name,
            **made.meta(),
            **meta,
            **more,
            "sum_weights": _sums(source, candidates),
        },
    )


def _engine(
    card: Card,
    n: int,
    kind: Kind,
    seed: int,
    progress: Progress | None,
    engine: EngineName | Engine,
    options: Options,
) -> Engine:
    """Return the engine, made if it was named."""
    if not isinstance(engine, str):
        return engine
    _check(engine in ENGINES, f"simulate_events: engine = {engine!r} is not one of {list(ENGINES)}")
    if engine == "toy":
        return TOY
    n_events = options.get("n_events") or _events_wanted(card, n, kind)
    return pythia_engine(
        card,
        n_events,
        seed=seed,
        workers=options.get("workers", 1),
        cache=options.get("cache"),
        progress=progress,
    )


def _events_wanted(card: Card, n: int, kind: Kind) -> int:
    """Return inelastic events that serve a sample: each meson decays `reuse` times on average."""
    reuse = (card.pythia or PythiaCard()).reuse
    dimuons = n if kind == "mc" else DIMUONS_PER_RECORDED * n
    per_event = 2.7 if (card.pythia or PythiaCard()).system == "pp" else 5.0
    return max(int(np.ceil(dimuons / (per_event * reuse))), FEWEST_EVENTS)


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
