"""Recorded events, data-like or simulated with truth, ready to be written as a tree."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict, Unpack

from gammastar.core.errors import PhysicsError
from gammastar.simulate import pythia
from gammastar.simulate.assembly import KINDS, MISS_PRESCALE, Kind, Progress
from gammastar.simulate.blocks import Request, make_blocks
from gammastar.simulate.card import Card
from gammastar.simulate.combinatorial import PAIRINGS, Pairing
from gammastar.simulate.engines import ENGINES, Engine, EngineName
from gammastar.simulate.sample import SimulatedEvents, joined

__all__ = ["KINDS", "Kind", "SimulatedEvents", "simulate_blocks", "simulate_events"]


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
        Folder for finished blocks and shares of Pythia: an interrupted run goes on there and gives the same
        sample.
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
    request = _request(card, n, kind, prior, seed, progress, engine, options)
    return joined(list(make_blocks(request)), shared_engine=not isinstance(engine, str))


def simulate_blocks(
    card: Card,
    n: int,
    *,
    kind: Kind = "data",
    prior: str = "nominal",
    seed: int = 0,
    progress: Progress | None = None,
    engine: EngineName | Engine = "toy",
    **options: Unpack[Options],
) -> Iterator[SimulatedEvents]:
    """Return the sample of `simulate_events` in blocks, one after the other: memory stays flat.

    Parameters
    ----------
    card, n, kind, prior, seed, progress, engine, **options
        As `simulate_events`, and refused here already where they are out of range.

    Returns
    -------
    iterator of SimulatedEvents
        `combined_meta` of the blocks' records is that of the sample.
    """
    return make_blocks(_request(card, n, kind, prior, seed, progress, engine, options))


def _request(
    card: Card,
    n: int,
    kind: Kind,
    prior: str,
    seed: int,
    progress: Progress | None,
    engine: EngineName | Engine,
    options: Options,
) -> Request:
    """Return the checked request."""
    pairing = options.get("pairing", "same-event")
    miss_prescale = options.get("miss_prescale", MISS_PRESCALE)
    _check(n > 0, f"simulate_events: n = {n!r} must be positive")
    _check(str(kind) in KINDS, f"simulate_events: kind = {kind!r} is not one of {list(KINDS)}")
    _check(str(pairing) in PAIRINGS, f"simulate_events: pairing = {pairing!r} is not one of {list(PAIRINGS)}")
    _check(miss_prescale >= 1, f"simulate_events: miss_prescale = {miss_prescale!r} must be at least 1")
    known = not isinstance(engine, str) or engine in ENGINES
    _check(known, f"simulate_events: engine = {engine!r} is not one of {list(ENGINES)}")
    card.with_prior(prior)
    if engine == "pythia":
        pythia.version()  # says what to install if it is absent
    return Request(
        *(card, n, kind, prior, seed, engine, pairing, miss_prescale),
        workers=options.get("workers", 1),
        cache=options.get("cache"),
        n_events=options.get("n_events"),
        progress=progress,
    )


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise PhysicsError(message)
