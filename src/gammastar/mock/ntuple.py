"""From a muon pair to the ntuple: a third muon, what the spectrometer keeps, branches, record and digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol, TypeAlias

import awkward as ak
import numpy as np
import numpy.typing as npt

from gammastar.core.constants import LEPTON_MASS
from gammastar.core.records import BoolArray, FloatArray, IntArray, Rng
from gammastar.mock import spectrometer
from gammastar.mock.card import Card
from gammastar.mock.cocktail import Columns, Dimuons, with_energy
from gammastar.mock.combinatorial import CharmPairs, DecayMuons, MuonPairs, decay_depth
from gammastar.mock.spectrometer import accepted, pair_kinematics

COMBINATORIAL = 8  # process code


@dataclass(frozen=True, slots=True, eq=False)
class Candidates(Columns):
    """Events with up to three muons: slots 0 and 1 are the pair, slot 2 a decay muon of the same event."""

    p: FloatArray  # (3, 3, n): component, slot, event
    charge: npt.NDArray[np.int8]  # (3, n)
    present: BoolArray  # (3, n)
    mother: npt.NDArray[np.int32]  # (3, n)
    process: npt.NDArray[np.int8]  # (n,)
    gen: FloatArray  # (3, n): mass, pt, energy
    weight: FloatArray  # (n,)
    offset: FloatArray  # (2, 3, n): x and y of the track at the vertex [µm], zero without displacement
    kept: FloatArray  # (3, n): share of the momentum left after radiation
    decay_z: FloatArray  # (3, n): where the muon was born, along the beam from the interaction [cm]

    def __len__(self) -> int:
        return len(self.weight)


Drawn: TypeAlias = tuple[FloatArray, npt.NDArray[np.int8], npt.NDArray[np.int32], FloatArray]
"""Momenta, shape (3, n), charges, mothers and places of decay [cm] of muons."""


def _draw_muons(
    muons: DecayMuons,
    index: IntArray,
    rng: Rng,
    *,
    turn: FloatArray | None = None,
    sextants: int = 1,
    length: float = np.inf,
) -> Drawn:
    """Return muons at fresh azimuths, or turned by that of their event; by whole sextants, clear of coils."""
    px, py, pz, _ = muons.p[:, index]
    pt = np.hypot(px, py)
    if turn is None and sextants == 1:
        phi = rng.uniform(-np.pi, np.pi, len(index))
    else:
        phi = np.arctan2(py, px) + (_turn(len(index), sextants, rng) if turn is None else turn)
    p = np.stack([pt * np.cos(phi), pt * np.sin(phi), pz])
    z = decay_depth(p, muons.flight[index], length, rng.spawn(1)[0])  # the other numbers stay as they are
    return p, muons.charge[index], muons.mother[index], z


def _turn(n: int, sextants: int, rng: Rng) -> FloatArray:
    if sextants == 1:
        return np.asarray(rng.uniform(-np.pi, np.pi, n))
    return np.asarray(rng.integers(0, sextants, n) * (2.0 * np.pi / sextants))


def _third(muons: DecayMuons | None, present: BoolArray, rng: Rng, sextants: int, length: float) -> Drawn:
    """Return the third muons of the events where one is present, zeros in the others."""
    n = len(present)
    p, charge, mother = np.zeros((3, n)), np.ones(n, dtype=np.int8), np.zeros(n, dtype=np.int32)
    place = np.zeros(n)
    if muons is not None and bool(present.any()):
        cumulative = np.cumsum(muons.weight)
        index = np.searchsorted(cumulative, rng.random(int(present.sum())) * cumulative[-1])
        p[:, present], charge[present], mother[present], place[present] = _draw_muons(
            muons, index.astype(np.int64), rng, sextants=sextants, length=length
        )
    return p, charge, mother, place


def signal_candidates(
    card: Card,
    dimuons: Dimuons,
    rng: Rng,
    *,
    muons: DecayMuons | None = None,
    probability: float = 0.0,
    minimum: int = 0,
) -> Candidates:
    """Return the cocktail events with at least `minimum` accepted muons."""
    pdg = np.zeros(128, dtype=np.int32)
    for mode in card.modes.values():
        pdg[mode.process] = card.mesons[mode.meson].pdg
    parent = pdg[dimuons.process]
    pairs = CharmPairs(dimuons, np.zeros((2, 2, 0)), np.stack([parent, parent]), np.zeros((2, 0)))
    return charm_candidates(card, pairs, rng, muons=muons, probability=probability, minimum=minimum)


def charm_candidates(
    card: Card,
    pairs: CharmPairs,
    rng: Rng,
    *,
    muons: DecayMuons | None = None,
    probability: float = 0.0,
    minimum: int = 2,
) -> Candidates:
    """Return the events of open charm with at least `minimum` accepted muons; as `signal_candidates`."""
    dimuons = pairs.dimuons
    both = [accepted(muon, card.detector) for muon in (dimuons.plus, dimuons.minus)]
    present = np.stack([*both, rng.random(len(dimuons)) < probability])
    chosen: Any = np.flatnonzero(present.sum(axis=0) >= minimum) if minimum > 0 else slice(None)
    present = present[:, chosen]
    n = present.shape[1]
    length = card.background.decay_length
    p, charge, mother, place = _third(muons, present[2], rng, card.detector.sextants, length)
    offset, decay_z = np.zeros((2, 3, n)), np.zeros((3, n))
    decay_z[2] = place
    if pairs.offset.size:
        offset[:, :2], decay_z[:2] = pairs.offset[:, :, chosen], pairs.decay_z[:, chosen]
    return Candidates(
        p=np.stack([dimuons.plus[:3, chosen], dimuons.minus[:3, chosen], p], axis=1),
        charge=np.stack([np.ones(n, dtype=np.int8), -np.ones(n, dtype=np.int8), charge]),
        present=present,
        mother=np.concatenate([pairs.mother[:, chosen], mother[np.newaxis]]),
        process=dimuons.process[chosen],
        gen=np.stack([dimuons.mass[chosen], dimuons.pt[chosen], dimuons.energy[chosen]]),
        weight=dimuons.weight[chosen],
        offset=offset,
        kept=np.concatenate([dimuons.kept[:, chosen], np.ones((1, n))]),
        decay_z=decay_z,
    )


def background_candidates(
    pairs: MuonPairs, expected: float, probability: float, rng: Rng, sextants: int = 1, length: float = np.inf
) -> Candidates:
    """Return unweighted background events, `expected` per unit of weight; hadrons decay on `length` [m]."""
    times = rng.poisson(expected * pairs.weight)
    first, second = np.repeat(pairs.first, times), np.repeat(pairs.second, times)
    n = len(first)
    turn = _turn(n, sextants, rng) if pairs.muons.correlated else None
    draw = partial(_draw_muons, pairs.muons, rng=rng, turn=turn, sextants=sextants, length=length)
    a, b = draw(first), draw(second)
    present = rng.random(n) < probability
    p, charge, mother, place = _third(pairs.muons, present, rng, sextants, length)
    both = np.ones(n, dtype=np.bool_)
    p_all = np.stack([a[0], b[0], p], axis=1)
    mass, pt, energy = pair_kinematics(with_energy(p_all[:, 0]), with_energy(p_all[:, 1]))
    return Candidates(
        p=p_all,
        charge=np.stack([a[1], b[1], charge]),
        present=np.stack([both, both, present]),
        mother=np.stack([a[2], b[2], mother]),
        process=np.full(n, COMBINATORIAL, dtype=np.int8),
        gen=np.stack([mass, pt, energy]),
        weight=np.ones(n),
        offset=np.zeros((2, 3, n)),
        kept=np.ones((3, n)),
        decay_z=np.stack([a[3], b[3], place]),
    )


def triggered(card: Card, candidates: Candidates, rng: Rng, *, prescaled: bool = True) -> BoolArray:
    """Return True for events with two accepted muons whose leading slots pass trigger and reconstruction."""
    enough = candidates.present.sum(axis=0) >= 2
    chosen = np.flatnonzero(enough)
    slots = np.argsort(~candidates.present[:, chosen], axis=0, kind="stable")[:2]
    p = candidates.p[:, slots, chosen]
    mass = LEPTON_MASS[card.lepton]
    pair = pair_kinematics(with_energy(p[:, 0], mass), with_energy(p[:, 1], mass))
    probability = spectrometer.efficiency(*pair, card.efficiency)
    if card.spectrometer is not None:
        some = candidates.take(chosen)
        muons = some.p, some.charge, some.present
        probability *= spectrometer.recorded_share(card, *muons, prescaled=prescaled)
    enough[chosen] = rng.random(len(chosen)) < probability
    return np.asarray(enough, dtype=np.bool_)


def false_pairs(candidates: Candidates) -> FloatArray:
    """Return weighted numbers of +−, ++ and −− pairs that hold the third muon, shape (3,)."""
    total = np.zeros(3)
    for slot in (0, 1):
        both = candidates.present[slot] & candidates.present[2]
        charge = candidates.charge[slot] + candidates.charge[2]
        total += [float(candidates.weight[both & (charge == q)].sum()) for q in (0, 2, -2)]
    return total


DIMUON_TRIGGER = 1
DECAY_HADRONS = (211, 321)
VERTEX_SIGMA = 0.02  # cm, along the beam
BEAM_SIGMA = 0.05  # cm, beam spot
OFFSET_SIGMA = 60.0  # µm, of a prompt muon at the vertex
KINK = 2.0  # offsets and matching χ² of muons from decays in flight are wider
ADDED = ("N_POT", "n_generated", "n_events", "n_bursts")


def event_branches(card: Card, candidates: Candidates, run: int, rng: Rng) -> dict[str, Any]:
    """Return the flat branches of every event."""
    n = len(candidates)
    number = np.arange(n, dtype=np.int64)
    recorded = candidates.present.sum(axis=0) >= 2
    beam = rng.standard_normal((2, n)) * BEAM_SIGMA
    z = spectrometer.vertex_z(card.target, rng.uniform(-0.5, 0.5, n)) + VERTEX_SIGMA * rng.standard_normal(n)
    return {
        "run": np.full(n, run, dtype=np.int32),
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


def muon_branches(card: Card, candidates: Candidates, rng: Rng, *, truth: bool) -> ak.Array:
    """Return the jagged record array of measured muons, in random order within the event."""
    event, slot = np.nonzero(candidates.present.T)
    order = np.lexsort((rng.random(len(event)), event))  # the order must not give the charge away
    event, slot = event[order], slot[order]
    true = candidates.p[:, slot, event]
    mother = candidates.mother[slot, event]
    wide = np.where(np.isin(np.abs(mother), DECAY_HADRONS), KINK, 1.0)
    displaced = candidates.offset[:, slot, event]
    measured = spectrometer.smear(true, card.detector, rng)
    columns: dict[str, npt.NDArray[Any]] = {
        **dict(zip(("px", "py", "pz"), measured.astype(np.float32), strict=True)),
        "charge": candidates.charge[slot, event],
        "chi2match": (wide * rng.exponential(1.0, len(event))).astype(np.float32),
        "dx": (wide * OFFSET_SIGMA * rng.standard_normal(len(event)) + displaced[0]).astype(np.float32),
        "dy": (wide * OFFSET_SIGMA * rng.standard_normal(len(event)) + displaced[1]).astype(np.float32),
    }
    if truth:
        columns["motherPdg"] = mother
        number = np.repeat(np.arange(3, dtype=np.int8)[:, np.newaxis], len(candidates), axis=1)
        number[1:, _with_photon(card, candidates)] -= 1  # the muons of one photon share one mother
        columns["motherIdx"] = number[slot, event]
        columns["decayZ"] = candidates.decay_z[slot, event].astype(np.float32)
        columns |= dict(zip(("gen_px", "gen_py", "gen_pz"), true.astype(np.float32), strict=True))
        if card.radiation:
            columns["fsr"] = candidates.kept[slot, event].astype(np.float32)
    if card.spectrometer is not None:
        columns |= dict(zip(("hidden_px", "hidden_py", "hidden_pz"), true, strict=True))
        columns |= dict(zip(("hidden_dx", "hidden_dy"), displaced, strict=True))
        columns["hidden_wide"] = wide > 1.0
    counts = candidates.present.sum(axis=0)
    return ak.unflatten(ak.zip(columns), counts)


def _with_photon(card: Card, candidates: Candidates) -> BoolArray:
    photon = np.asarray(candidates.process != COMBINATORIAL)
    if card.charm is not None:
        photon &= candidates.process != card.charm.process
    return photon


def truth_branches(card: Card, candidates: Candidates) -> dict[str, Any]:
    """Return the branches of the generated virtual photon; zero for background and charm, which have none."""
    mass, pt, energy = np.where(_with_photon(card, candidates), candidates.gen, 0.0)
    return {"gen_process": candidates.process, "gen_mll": mass, "gen_qT": pt, "gen_E": energy}


def richer(
    card: Card, candidates: Candidates, branches: dict[str, Any], pot: float, rng: Rng
) -> dict[str, Any]:
    """Add what ``[spectrometer]`` and ``[target.pieces]`` ask for; return numbers of the record."""
    n = len(candidates)
    meta: dict[str, Any] = {}
    if card.target.pieces is not None:
        branches["target"], place = spectrometer.pieces(card.target, n, rng)
        branches["PV_z"] = (branches["PV_z"] + place).astype(np.float32)
    part = card.spectrometer
    if part is None:
        return meta
    counts = candidates.present.sum(axis=0)
    bits, prescale = spectrometer.fired(card, candidates.p, candidates.charge, candidates.present)
    branches["trigger"] = np.where(counts >= 2, bits, 0).astype(np.uint32)
    branches["burst"], meta["n_bursts"] = spectrometer.bursts(n, pot, part, rng)
    meta["pot_per_burst"] = pot / meta["n_bursts"]
    branches |= spectrometer.event_columns(part, counts, rng)
    if bool(np.all(candidates.weight == 1.0)):  # data-like: some events stand for several
        branches["prescale"] = np.maximum(prescale, 1).astype(np.float32)
    muons = branches["Muon"]
    flat = ak.flatten(muons)
    true = np.stack([ak.to_numpy(flat[f"hidden_{key}"]) for key in ("px", "py", "pz")])
    columns = dict(spectrometer.muon_columns(card, part, true, ak.to_numpy(flat["hidden_wide"]), rng))
    for key in ("dx", "dy"):
        columns[key] = (columns[key] + ak.to_numpy(flat[f"hidden_{key}"])).astype(np.float32)
    for key, values in columns.items():
        muons = ak.with_field(muons, ak.unflatten(values, counts), key)
    branches["Muon"] = muons
    return meta


class ContentDigest:
    """SHA-256 of names, types and values of branches and of the record: of blocks as of the whole."""

    def __init__(self) -> None:
        self._parts: dict[str, Any] = {}

    def _add(self, name: str, values: Any) -> None:
        array = np.ascontiguousarray(values)
        if name not in self._parts:
            self._parts[name] = hashlib.sha256(f"{name} {array.dtype.str}".encode())
        self._parts[name].update(array.tobytes())

    def update(self, branches: Mapping[str, Any]) -> None:
        """Take the entries of a block."""
        for name, values in branches.items():
            members = getattr(values, "fields", [])
            if not members:
                self._add(name, values)
                continue
            self._add(f"n{name}", ak.to_numpy(ak.num(values)).astype(np.int64))
            for member in members:
                self._add(f"{name}.{member}", ak.to_numpy(ak.flatten(values[member])))

    def hexdigest(self, meta: Mapping[str, Any]) -> str:
        """Return the digest of what was taken and of the record of the sample."""
        total = hashlib.sha256()
        for name in sorted(self._parts):
            total.update(f"{name} {self._parts[name].hexdigest()}".encode())
        total.update(json.dumps(dict(meta), sort_keys=True, default=float).encode())
        return total.hexdigest()


@dataclass(frozen=True, slots=True, eq=False)
class SimulatedEvents:
    """A mock sample."""

    # ``Muon`` is a jagged record array (px, py, pz [GeV], charge, chi2match, dx, dy [µm]; with truth also
    # motherPdg, gen_px, gen_py, gen_pz, motherIdx (the same for muons of one photon) and decayZ [cm], where
    # the muon was born, along the beam from the interaction), the others are flat. Weights are ``weight ×
    # prescale``
    branches: Mapping[str, Any]
    meta: Mapping[str, Any]  # Exposure, sums of weights per process, seed, card digest, background and its R

    def __len__(self) -> int:
        return len(self.branches["event"])

    @property
    def digest(self) -> str:
        """SHA-256 of the content: names, types and values of all branches, and the record."""
        total = ContentDigest()
        total.update(self.branches)
        return total.hexdigest(self.meta)

    def meta_branches(self) -> dict[str, Any]:
        """Return `meta` as branches of one entry; nested keys are joined with an underscore."""
        flat: dict[str, Any] = {}
        for key, value in self.meta.items():
            nested = isinstance(value, Mapping)
            flat |= {f"{key}_{name}": item for name, item in value.items()} if nested else {key: value}
        single = ((key, value, isinstance(value, str)) for key, value in flat.items())
        return {key: ak.Array([value]) if text else np.array([value]) for key, value, text in single}


def shifted(block: SimulatedEvents, events: int, bursts: int, per_burst: int) -> SimulatedEvents:
    """Return a block whose events and bursts (of `per_burst`, or drawn) count from these numbers."""
    if events == 0:
        return block
    branches = dict(block.branches)
    branches["event"] = branches["event"] + np.int64(events)
    if "n_bursts" in block.meta:
        branches["burst"] = branches["burst"] + np.int32(bursts)
    else:
        branches["burst"] = (branches["event"] // per_burst).astype(np.int32)
    return replace(block, branches=branches)


def combined_meta(metas: Sequence[Mapping[str, Any]], *, shared_engine: bool = False) -> dict[str, Any]:
    """Return the record of a sample from those of its blocks."""
    whole = dict(metas[0])
    if len(metas) == 1:
        return whole
    whole |= {key: sum(meta[key] for meta in metas) for key in ADDED if key in whole}
    sums = [meta["sum_weights"] for meta in metas]
    whole["sum_weights"] = {key: sum(one[key] for one in sums) for key in sums[0]}
    if "pot_per_burst" in whole:
        whole["pot_per_burst"] = whole["N_POT"] / whole["n_bursts"]
    if "pythia_events" in whole and not shared_engine:
        counts = np.array([meta["pythia_events"] for meta in metas], dtype=np.float64)
        share, each = counts / counts.sum(), [meta["pythia_multiplicity"] for meta in metas]
        whole["pythia_events"] = int(counts.sum())
        whole["pythia_sigma_mb"] = float(np.dot(share, [meta["pythia_sigma_mb"] for meta in metas]))
        whole["pythia_multiplicity"] = {k: float(np.dot(share, [one[k] for one in each])) for k in each[0]}
    return whole


def joined(blocks: Sequence[SimulatedEvents], *, shared_engine: bool = False) -> SimulatedEvents:
    """Return several blocks as one sample."""
    if len(blocks) == 1:
        return blocks[0]
    columns = {key: [block.branches[key] for block in blocks] for key in blocks[0].branches}
    branches = {k: (ak if k == "Muon" else np).concatenate(parts) for k, parts in columns.items()}
    meta = combined_meta([block.meta for block in blocks], shared_engine=shared_engine)
    return SimulatedEvents(branches, meta)


class TreeFile(Protocol):
    """An open file of trees, as ``store.events.tree_writer`` gives it."""

    def extend(self, name: str, branches: Mapping[str, Any]) -> None:
        """Add rows to a tree."""


def write_blocks(
    file: TreeFile, blocks: Iterable[SimulatedEvents], *, shared_engine: bool = False
) -> dict[str, Any]:
    """Stream a mock sample into the trees ``events`` and ``meta`` of an open file.

    Return the record of the sample (`combined_meta`), with ``content_sha256``, the digest of all of it.
    """
    digest, metas = ContentDigest(), []
    for block in blocks:
        file.extend("events", block.branches)
        digest.update(block.branches)
        metas.append(block.meta)
    meta = combined_meta(metas, shared_engine=shared_engine)
    meta["content_sha256"] = digest.hexdigest(meta)
    file.extend("meta", SimulatedEvents({}, meta).meta_branches())
    return meta
