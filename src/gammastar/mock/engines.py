"""Sources of hadrons: power laws and Gaussians of the card (toy), or events that Pythia generated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal, Protocol, TypeAlias, get_args

import numpy as np

from gammastar.core.errors import require
from gammastar.core.records import BoolArray, FloatArray, IntArray, Rng
from gammastar.mock import combinatorial, pythia
from gammastar.mock.card import Card, Mode
from gammastar.mock.cocktail import momentum, rapidity_limit, toy_mesons
from gammastar.mock.combinatorial import CharmPairs, DecayMuons
from gammastar.mock.pythia import Pool, Process, make_pool
from gammastar.mock.spectrometer import accepted
from gammastar.physics.mesons import beam_frame

Progress: TypeAlias = Callable[[int, int], None]
EngineName: TypeAlias = Literal["toy", "pythia"]
ENGINES: tuple[str, ...] = get_args(EngineName)
EVENTS = 20_000  # resampled events at a time
NEAR = 50  # neighbours in mass of a virtual photon
N_HARD = 10_000  # events of charm, and of Drell-Yan


class Engine(Protocol):
    """What assembles events needs from an engine."""

    @property
    def name(self) -> str:
        """Its name."""

    def mesons(self, card: Card, mode: Mode, mass: FloatArray, rng: Rng) -> FloatArray:
        """Return four-momenta of mesons of these masses, shape (4, n) [GeV]."""

    def decay_muons(self, card: Card, n: int, rng: Rng) -> DecayMuons:
        """Return decay muons of `n` interactions."""

    def charm(self, card: Card, n: int, rng: Rng) -> CharmPairs:
        """Return `n` lepton pairs of open charm."""

    def meta(self) -> Mapping[str, Any]:
        """Return what the record of a sample says about the engine."""


@dataclass(frozen=True)
class ToyEngine:
    """Power laws and Gaussians, charge-balanced clusters and charm spectra of the card, which says all."""

    name: str = "toy"
    mesons = staticmethod(toy_mesons)
    decay_muons = staticmethod(combinatorial.decay_muons)
    charm = staticmethod(combinatorial.generate_charm)
    meta: ClassVar[Callable[[], Mapping[str, Any]]] = dict


TOY = ToyEngine()


@dataclass(frozen=True, eq=False)
class PythiaEngine:
    """Hadrons of Pythia, decays of our own."""

    # Inelastic events, pairs of charmed hadrons, Drell-Yan photons; the last two may be missing
    soft: Pool
    charm_pool: Pool | None = None
    photons: Pool | None = None
    name: str = "pythia"

    def mesons(self, card: Card, mode: Mode, mass: FloatArray, rng: Rng) -> FloatArray:
        """Return mesons with pt and rapidity of generated ones; the toy's where Pythia made none."""
        pdg, n = card.mesons[mode.meson].pdg, len(mass)
        if mode.continuum is not None and self.photons is not None:
            pt, y = self._photons(mass, rng)
        elif f"{pdg}_pt" in self.soft.arrays and len(self.soft.arrays[f"{pdg}_pt"]):
            index = self._drawn(pdg, n, rng)
            pt, y = (self.soft.arrays[f"{pdg}_{key}"][index].astype(np.float64) for key in ("pt", "y"))
        else:
            return toy_mesons(card, mode, mass, rng)
        sqrt_s, y_cm = beam_frame(card.beam.energy)
        limit = rapidity_limit(sqrt_s, mass, np.sqrt(mass**2 + pt**2))
        y = np.clip(y - y_cm, -limit, limit)
        if mode.continuum is not None or self.soft.system == "pp":  # both ends of the collision are alike
            y *= rng.choice(np.array([-1.0, 1.0]), n)
        return momentum(mass, pt, y_cm + y, rng.uniform(-np.pi, np.pi, n))

    @cached_property
    def _cumulative(self) -> dict[int, FloatArray]:
        """Running sums of the weights of the mesons of each species."""
        arrays, of = self.soft.arrays, (*pythia.NEUTRAL, *pythia.MESONS)
        return {k: np.cumsum(arrays[f"{k}_weight"], dtype=np.float64) for k in of if f"{k}_pt" in arrays}

    def _drawn(self, pdg: int, n: int, rng: Rng) -> IntArray:
        """Return the numbers of `n` mesons of a species, drawn with their weights."""
        cumulative = self._cumulative[pdg]
        if cumulative[-1] == len(cumulative) * cumulative[0]:  # pp: all weights are one
            return rng.integers(0, len(cumulative), n)
        return np.asarray(np.searchsorted(cumulative, rng.random(n) * cumulative[-1]), dtype=np.int64)

    def _photons(self, mass: FloatArray, rng: Rng) -> tuple[FloatArray, FloatArray]:
        """Return pt and rapidity of generated photons of about these masses."""
        arrays = {} if self.photons is None else self.photons.arrays
        order = np.argsort(arrays["photon_mass"])
        near = np.searchsorted(arrays["photon_mass"][order], mass)
        near += rng.integers(-NEAR, NEAR + 1, len(mass))
        index = order[np.clip(near, 0, len(order) - 1)]
        pt, y = (arrays[f"photon_{key}"][index].astype(np.float64) for key in ("pt", "y"))
        return pt, y

    def decay_muons(self, card: Card, n: int, rng: Rng) -> DecayMuons:
        """Return decay muons of `n` interactions, drawn from the generated ones with their weights.

        Muons of one interaction keep their azimuths. Copies of an event that serves more than once follow
        each other: they are in one block of the jackknife of R.
        """
        weight = self.soft.arrays["event_weight"]
        if weight.min() == weight.max():
            again, rest = divmod(n, len(weight))
            last = rng.choice(len(weight), rest, replace=False)
            events = np.concatenate([np.tile(np.arange(len(weight)), again), last])
        else:
            events = rng.choice(len(weight), n, p=weight / weight.sum())
        events = np.sort(events)
        starts = range(0, n, EVENTS)
        parts = [self._muons(card, events[start : start + EVENTS], start, rng) for start in starts]
        return DecayMuons.concatenate(parts, n_events=n, correlated=True)

    @cached_property
    def _starts(self) -> IntArray:
        return np.searchsorted(self.soft.arrays["hadron_event"], np.arange(self.soft.n_events + 1))

    def _muons(self, card: Card, events: IntArray, first: int, rng: Rng) -> DecayMuons:
        counts = self._starts[events + 1] - self._starts[events]
        ends = np.cumsum(counts)
        index = np.arange(ends[-1]) + np.repeat(self._starts[events] - ends + counts, counts)
        number = np.repeat(np.arange(len(events)) + first, counts)
        pdg = self.soft.arrays["hadron_pdg"][index].astype(np.int32)
        hadron_p = self.soft.arrays["hadron_p"][:, index].astype(np.float64)
        parts, n = [], len(events)
        for hadron in card.background.hadrons.values():
            chosen = np.flatnonzero(np.abs(pdg) == hadron.pdg)
            p = hadron_p[:, chosen]
            if hadron.pdg == combinatorial.NEUTRAL_PION:
                lepton, mother = combinatorial.photon_electrons(p, rng)
                weight, flight = np.full(len(chosen), hadron.branching), np.zeros(len(chosen))
            else:
                length, mother = card.background.decay_length, pdg[chosen]
                lepton, weight, flight = combinatorial.in_flight(p, hadron, length, rng)
            seen = np.flatnonzero(accepted(lepton, card.detector))
            sign, event = np.sign(mother[seen]).astype(np.int8), number[chosen[seen]]
            about = sign, mother[seen], weight[seen], event, flight[seen], n
            parts.append(DecayMuons(lepton[:, seen], *about))
        return DecayMuons.concatenate(parts, n_events=n).ordered()

    def charm(self, card: Card, n: int, rng: Rng) -> CharmPairs:
        """Return pairs of charmed hadrons of HardQCD:hardccbar, decayed by the same code as the toy's."""
        if self.charm_pool is None or card.charm is None:
            return combinatorial.generate_charm(card, n, rng)
        arrays = self.charm_pool.arrays
        branching = {h.pdg: h.branching for h in card.charm.hadrons.values()}
        table = np.zeros(max(4122, *branching) + 1)
        table[list(branching)] = list(branching.values())
        weight = np.cumsum(arrays["charm_weight"] * np.prod(table[np.abs(arrays["charm_pdg"])], axis=0))
        require(weight[-1] > 0, "charm: the card has none of Pythia's charmed hadrons (411, 421, 431, 4122)")
        index = np.searchsorted(weight, rng.random(n) * weight[-1])
        p = arrays["charm_p"][:, :, index]
        turn = rng.uniform(-np.pi, np.pi, n)
        cosine, sine = np.cos(turn), np.sin(turn)
        pz, energy = _mirrored(p[2], p[3], beam_frame(card.beam.energy)[1], rng.random(n) < 0.5)
        p = np.stack([cosine * p[0] - sine * p[1], sine * p[0] + cosine * p[1], pz, energy])
        rate = np.full(n, combinatorial.charm_rate(card) * card.target.interactions / n)
        return combinatorial.decay_charm(card, p, arrays["charm_pdg"][:, index], rate, rng)

    def meta(self) -> Mapping[str, Any]:
        """Return events, cross section, multiplicities and rate of the generator."""
        return {
            "pythia8mc": pythia.version(),
            "pythia_system": self.soft.system,
            "pythia_events": self.soft.n_events,
            "pythia_sigma_mb": self.soft.sigma,
            "pythia_multiplicity": {
                str(pdg): self.soft.multiplicity(pdg)
                for pdg in (*pythia.NEUTRAL, *pythia.MESONS)
                if f"{pdg}_weight" in self.soft.arrays
            },
        }


def _mirrored(
    pz: FloatArray, energy: FloatArray, y_cm: float, chosen: BoolArray
) -> tuple[FloatArray, FloatArray]:
    """Return pz and E, those of the chosen ones with the rapidity in the centre of mass reversed."""
    sinh, cosh = np.sinh(2.0 * y_cm), np.cosh(2.0 * y_cm)
    mirrored = sinh * energy - cosh * pz, cosh * energy - sinh * pz
    return np.where(chosen, mirrored[0], pz), np.where(chosen, mirrored[1], energy)


def pythia_engine(
    card: Card,
    n_events: int,
    *,
    seed: int | tuple[int, int] = 0,
    workers: int = 1,
    progress: Progress | None = None,
    n_hard: int = N_HARD,
) -> PythiaEngine:
    """Generate with Pythia what a card needs: soft events, and charm and Drell-Yan where it has them.

    Parameters
    ----------
    n_events : int
        Inelastic events.
    seed : int or (int, int)
        Seed, or seed and number of a block, whose events are others.
    workers, progress
        As `make_pool`.
    n_hard : int
        Events of charm, and of Drell-Yan; each serves mirrored as well.
    """
    process: Process = "soft" if card.lepton == "mu" else "electrons"
    continuum = any(mode.enabled and mode.continuum is not None for mode in card.modes.values())
    kept: dict[str, Any] = {"seed": seed, "workers": workers}
    soft = make_pool(card, n_events, process=process, progress=progress, **kept)
    charm = make_pool(card, n_hard, process="charm", **kept) if card.has_charm else None
    photons = make_pool(card, n_hard, process="drell_yan", **kept) if continuum else None
    return PythiaEngine(soft, charm, photons)


def normalised(card: Card, engine: Engine) -> Card:
    """Return the card with the yields of the generator, if its section ``[pythia]`` asks for them."""
    options = card.pythia
    if not isinstance(engine, PythiaEngine) or options is None or options.normalisation == "card":
        return card
    mesons = dict(card.mesons)
    for key, meson in card.mesons.items():
        if f"{meson.pdg}_pt" in engine.soft.arrays:
            factor = options.species.get(key, 1.0)
            update = {"multiplicity": engine.soft.multiplicity(meson.pdg) * factor}
            if options.system == "pPb":
                update["a_factor"] = 1.0
            mesons[key] = meson.model_copy(update=update)
    return card.model_copy(update={"mesons": mesons})
