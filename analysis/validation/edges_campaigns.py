"""Campaigns to the contour: data with hadrons of Pythia, response of the toy, rate, kinematics and edges.

A campaign draws reconstructed pairs from one large sample (with replacement, Poisson number), takes the toy's
simulation under one of a few thrown priors, and goes through unfolding, rate at exact masses, training pairs,
histogram sampler, extrapolation and yields with the package's functions. What it states is compared with
events of an independent Monte Carlo (`edges_truth`) at the edges it states: where the truth has t events at
an edge that was stated for s, the true edge lies within the stated band if |ln(t/s)| < ln κ. Protons are
stated with their error of 10 %.

Written before any of it was compared: of n independent campaigns 0.683 ± √(0.683·0.317/n) are covered, of 100
0.683 ± 0.047. What all campaigns share (Pythia where nothing is measured) is one draw of the extrapolation's
error for each group of masses, so that an edge is covered in nearly all campaigns or in nearly none, and the
masses beside it with it. Of 8 masses about 5 are taken as independent: a lower or upper edge of a detector
passes with at least 0.683 − 2·√(0.683·0.317/5) = 0.27 covered, all edges of three detectors together (two
sides, 15 of 48 taken as independent) with at least 0.683 − 2·0.12 = 0.44 and no bound from above: more is
conservative and stated with its number. No edge may lie beyond 3.5 σ.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from na60_dimuon.pythia_pools import kept_engine
from validation import edges_truth

from gammastar import accept, mock, predict, select, spectrum, unfold
from gammastar.accept.expected_events import Sight
from gammastar.core.constants import M_MU
from gammastar.core.files import data_path
from gammastar.core.pairs import MatchedPairs, Pairs
from gammastar.core.records import Exposure, Spectrum, filled, variable
from gammastar.core.sampling import stream
from gammastar.core.sources import PRIOR
from gammastar.mock.cocktail import mass_spectrum, mode_rates
from gammastar.mock.engines import normalised
from gammastar.physics.detector import load_detector
from gammastar.physics.qed import RTable, dark_photon_rate
from gammastar.pipeline.stages.accept import yields_at
from gammastar.pipeline.stages.predict import photons_of
from gammastar.predict.mixture import TargetTransfer
from gammastar.predict.production import measured_production, rate_of
from gammastar.spectrum.extrapolation import highest_energies
from gammastar.spectrum.mass_shape import COHERENCE, resolution_of
from gammastar.unfold.folding import Options
from gammastar.unfold.methods import METHODS
from gammastar.unfold.response_matrix import without_replicas
from gammastar.unfold.simulation import in_window, kinematic_factors, with_kinematics
from gammastar.unfold.systematics import response_variations

FOLDER = Path(__file__).resolve().parents[2] / "results" / "campaigns"
POOL, KEPT = FOLDER / "pool", FOLDER / "edges"
N_POOL, N_DATA, N_TRUTH, N_RESPONSE, N_PAIRS = 1_600_000, 1_200_000, 10_000_000, 1_800_000, 45_000
N_PRIORS, N_PARTS, N_SAMPLE, SEED = 8, 8, 12_000, 900
BEAM, FLOOR, POT_SIGMA = 400.0, 0.01, 0.1
MASSES = np.array([0.25, 0.3, 0.4, 0.5, 0.65, 0.7827, 0.9, 1.0195])
WINDOW = 0.01  # GeV: photons about a mass, whose momenta are kept
COUPLINGS = np.geomspace(1e-9, 1e-3, 121)
LEVEL = 2.3026  # events of the edges
DETECTORS = ("ship_ecn3", "shadows_like", "na62_dump")
EDGES = np.concatenate([np.arange(0.2125, 0.7, 0.05), np.arange(0.7125, 1.12, 0.025)])
AXES = tuple(
    variable(name, edges)
    for name, edges in (
        ("mass", EDGES.tolist()),
        ("pt", [0.0, 0.3, 0.6, 1.0, 6.0]),
        ("energy", [0.2, 6.0, 12.0, 20.0, 30.0, 45.0, 80.0, 400.0]),
    )
)
FINE = (
    AXES[0],
    variable("pt", [0.0, 0.15, 0.3, 0.45, 0.6, 0.8, 1.0, 1.2, 1.4, 1.7, 2.0, 2.3, 2.6, 3.0, 3.5, 4.0, 6.0]),
    variable("energy", [0.2, 6, 8, 10, 12, 15, 18, 22, 26, 30, 36, 45, 60, 80, *range(100, 401, 20)]),
)
KINDS = ("spectrum", "kinematics", "extrapolation", "sample")
FEWEST = 10.0  # effective pairs and drawn particles behind an edge, the default of [infer] min_effective


def matched(card: Any, n: int, seed: int, **options: Any) -> MatchedPairs:
    """Return simulated photons with the pairs that were reconstructed from them."""
    import awkward as ak

    made = mock.simulate_events(card, n, kind="mc", seed=seed, **options)
    weight = np.asarray(made.branches["weight"]) * np.asarray(made.branches["prescale"])
    muon, n = made.branches["Muon"], len(weight)
    momenta = {name: ak.values_astype(muon[name], np.float64) for name in ("px", "py", "pz")}
    lepton = ak.zip({**momenta, "mass": ak.full_like(momenta["px"], M_MU), "charge": muon["charge"]})
    rows = ak.zip({"lepton": lepton, "event": np.arange(n), "weight": weight}, depth_limit=1)
    pairs = select.pairs(rows)[0]
    reco = np.full((n, 3), np.nan)
    reco[pairs.event] = np.stack([pairs.mass, pairs.pt, pairs.energy], axis=1)
    names = ("gen_mll", "gen_qT", "gen_E")
    true = np.stack([np.asarray(made.branches[k], dtype=np.float64) for k in names], axis=1)
    return MatchedPairs(true, reco, weight, np.arange(n), np.empty((0, 3)), np.empty(0))


@dataclass(frozen=True)
class Shared:
    """What all campaigns share: measured pairs to draw from, their protons, truth at the masses."""

    card: Any
    reco: np.ndarray
    pot: float
    rate: np.ndarray
    photons: list[list[tuple[np.ndarray, np.ndarray]]]  # by mass and part
    truth: dict[str, tuple[np.ndarray, np.ndarray]]
    model: Any


def _kept(path: Path, make: Any) -> dict[str, np.ndarray]:
    """Return the arrays of a file, which is made if it is not there."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp.npz")
        np.savez_compressed(temporary, **make())
        temporary.replace(path)
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


@functools.cache
def shared() -> Shared:
    """Return what is generated once."""
    card = mock.load_card(data_path("cards/na60_full.toml"), leave_out=("drell_yan", "jpsi"))
    model = predict.DarkPhoton(RTable.read(data_path("measurements/r_ratio.csv")))
    found = _kept(KEPT / "photons.npz", lambda: _photons(card))
    photons = [[(found[f"p{k}_{i}"], found[f"w{k}_{i}"]) for i in range(N_PARTS)] for k in range(len(MASSES))]
    flown = _kept(KEPT / "truth.npz", lambda: _truth(photons, model))
    truth = {name: (flown[name], flown[f"{name} error"]) for name in DETECTORS}
    return Shared(card, found["reco"], float(found["pot"]), found["rate"], photons, truth, model)


def pool(card: Any) -> Any:
    """Return Pythia's hadrons, generated once and kept."""
    return kept_engine(card, N_POOL, POOL, seed=500, workers=1)


def _photons(card: Any) -> dict[str, Any]:
    """Return reconstructed pairs and their protons, the true rate and the momenta at each mass.

    The last from hadrons in `N_PARTS` parts, since few of them are hard and each is drawn again and again.
    """
    engine = pool(card)
    own = normalised(card, engine)
    data = matched(card, N_DATA, SEED, engine=engine)
    per_proton = sum(mode_rates(own).values()) * own.target.interactions
    rate = dark_photon_rate(mass_spectrum(own, MASSES), MASSES, M_MU)
    result = {"reco": data.reco[data.reconstructed], "pot": data.weight.sum() / per_proton, "rate": rate}
    for part in range(N_PARTS):
        every = engine.soft.arrays.items()
        hadrons = {name: column[part::N_PARTS] if column.ndim else column for name, column in every}
        some = replace(engine, soft=replace(engine.soft, arrays=hadrons))
        pairs = mock.generate_pairs(own, N_TRUTH // N_PARTS, stream(SEED, "truth", part), mesons=some.mesons)
        for k, mass in enumerate(MASSES):
            near = np.abs(pairs.mass - mass) < WINDOW
            pt, energy, m, weight = (a[near] for a in (pairs.pt, pairs.energy, pairs.mass, pairs.weight))
            pz = np.sqrt(np.clip(energy**2 - m**2 - pt**2, 0.0, None))
            result[f"p{k}_{part}"] = np.stack([pt, np.zeros_like(pt), pz])
            result[f"w{k}_{part}"] = weight * rate[k] / weight.sum()
    return result


def _truth(photons: list[list[tuple[np.ndarray, np.ndarray]]], model: Any) -> dict[str, np.ndarray]:
    """Return the events of every detector at all masses and couplings, with their errors."""
    result = {}
    for name in DETECTORS:
        every = np.array(
            [[_flown(one, k, name, model) for one in parts] for k, parts in enumerate(photons)]
        )  # masses, parts of the hadrons, couplings
        result[name] = every.mean(axis=1)
        result[f"{name} error"] = every.std(axis=1, ddof=1) / np.sqrt(N_PARTS)
    return result


def _flown(photons: tuple[np.ndarray, np.ndarray], k: int, name: str, model: Any) -> np.ndarray:
    """Return events; photons that are hard or far from the beam, few and decisive, fly more often."""
    mass, (p, weight) = float(MASSES[k]), photons
    rng, sums = stream(SEED, "decays", name, k), np.zeros(len(COUPLINGS))
    rare = (p[2] > 60.0) | (p[0] > 0.8)
    for part, times in ((rare, 20), (~rare, 4)):
        for block in np.array_split(np.tile(np.flatnonzero(part), times), 1 + times * part.sum() // 500_000):
            some = p[:, block], weight[block] / times
            what = model.ctau, model.branching(mass)
            sums += edges_truth.events(some, mass, name, COUPLINGS, what, rng)
    return sums


@functools.cache
def response(prior: int) -> tuple[Any, ...]:
    """Return simulation, response, domain and forward power law under a thrown prior."""
    card = shared().card
    rng, sigma = stream(SEED, "prior", prior), card.priors["varied"]
    values = {
        "p0": sigma.p0 ** rng.normal(),
        "y_width": sigma.y_width ** rng.normal(),
        "yields": {key: value ** rng.normal() for key, value in sorted(sigma.yields.items())},
    }
    thrown = card.priors["varied"].model_copy(update=values)
    card = card.model_copy(update={"priors": {"used": thrown, **card.priors}}).with_prior("used")
    known = matched(card, N_RESPONSE, SEED + 1 + prior)
    domain = spectrum.Domain(spectrum.efficiency_map(known), FLOOR)
    inside = domain.in_domain(*known.true.T)
    forward = spectrum.forward_power((known.true, known.weight), inside, EDGES, BEAM)
    cells = forward.cells(AXES, (known.true, known.weight))
    return known, unfold.fine_response(known, AXES, AXES), domain, inside, forward, cells


def campaign(i: int) -> dict[str, np.ndarray]:
    """Return a campaign of `made`, once made: delete ``results/campaigns/edges`` to have them made again."""
    return _kept(KEPT / f"{i:04d}.npz", lambda: made(i))


@functools.cache
def unfolder(prior: int) -> tuple[Any, np.ndarray]:
    """Return the default unfolding and the relative shift of cells by the prior, of one reference sample.

    A run finds smoothness and shift from its own data; they hardly differ and take most of the time.
    """
    known, fine = response(prior)[:2]
    common, rng = shared(), stream(SEED, "reference", prior)
    measured = counted(common.reco[rng.integers(0, len(common.reco), N_PAIRS)])
    counts = measured.values.ravel()
    found, _ = METHODS["likelihood"].prepare(measured, fine.response, Options(observed=(counts, counts)))
    view = with_kinematics(kinematic_factors(found(measured, fine.response), fine.response, [known]))
    (varied,) = response_variations(fine.view(known), fine.response, views=[("prior", view)])
    both = (found(measured, without_replicas(one)) for one in (fine.response, varied.response))
    values, moved = (one.values.ravel() for one in both)
    return found, np.divide(moved - values, values, out=np.zeros(len(values)), where=values > 0)


def counted(reco: np.ndarray) -> Spectrum:
    """Return reconstructed pairs in their cells."""
    counts = np.histogramdd(reco, [np.asarray(a.edges) for a in AXES])[0]
    return Spectrum(filled(AXES, counts, counts), np.diag(counts.ravel()), "counts", None, counts >= 0)


def unfolded(measured: Spectrum, prior: int) -> Spectrum:
    """Return unfolded pairs as a run makes them, with the prior of the simulation as source."""
    fine, (method, relative) = response(prior)[1], unfolder(prior)
    counts = measured.values.ravel()
    found = replace(method, observed=(counts, counts))(measured, fine.response)
    shift = relative * found.values.ravel()
    whole = replace(found, hist=found.hist, cov=found.cov + np.outer(shift, shift))
    return replace(fine.summed(whole), shifts={PRIOR: fine.sums @ shift})


def mass_bins(k: int) -> dict[str, np.ndarray]:
    """Return photons in bins of mass of a sample of its own, and those that were generated, by cell."""
    return _kept(KEPT / f"bins_{k}.npz", lambda: _mass_bins(k))


def _mass_bins(k: int) -> dict[str, Any]:
    card = shared().card
    data = matched(card, N_DATA // 3, SEED + 200 + k, engine=pool(card))
    found = unfolded(counted(data.reco[data.reconstructed]), k % N_PRIORS)
    true = np.histogramdd(data.true, [np.asarray(a.edges) for a in AXES], weights=data.weight)[0]
    return {"cells": found.values, "cov": found.cov, "domain": found.domain, "true": true}


def made(i: int) -> dict[str, Any]:
    """Return rate, and for every detector stated events, their ln κ and the part beyond measured energies."""
    common, rng = shared(), stream(SEED, "campaign", i)
    known, fine, domain, inside, forward, cells = response(i % N_PRIORS)
    reco = common.reco[rng.integers(0, len(common.reco), rng.poisson(N_PAIRS))]
    pot = common.pot * N_PAIRS / len(common.reco) * (1.0 + POT_SIGMA * rng.normal())
    weight = np.ones(len(reco))
    measured = counted(reco)
    found = unfolded(measured, i % N_PRIORS)
    exposure = Exposure(BEAM, 207.2, 82.0, 0.01, pot, POT_SIGMA)
    prior = (fine.sums @ fine.response.prior).reshape(measured.values.shape) * cells
    per_pot = spectrum.extrapolate(spectrum.per_pot(found, exposure), filled(AXES, prior, prior))
    pairs = Pairs(*reco.T, np.zeros(len(reco), np.int8), weight, np.arange(len(reco)))
    options = {"beam_energy": BEAM, "edges": EDGES, "seed": i, "outside": forward}
    training = spectrum.training_set(pairs, (weight, weight), known, domain, **options)
    sampler = spectrum.histogram_sampler(training, FINE, BEAM)
    own = training.measured & (training.mass > EDGES[0]) & (training.mass < EDGES[-1])
    data = training.points[own]
    seen = inside & (known.true[:, 2] < BEAM)
    trend = spectrum.fit_trend(
        (data, training.reference[own]), (known.true[seen], known.weight[seen]), EDGES, BEAM
    )
    counts = spectrum.mass_counts(measured, resolution_of(in_window(known, AXES), per_pot))
    photon = replace(
        photons_of(per_pot, M_MU, sampler, training.in_domain, coherence=COHERENCE, counts=counts),
        near=training.near,
    )
    production = measured_production(photon, [], common.model, exposure, lambda _: {})
    highest = highest_energies(data, trend.mass)
    production = replace(production, trend=replace(trend, forward=forward, energy=highest))
    return _planes(production, rate_of(production, MASSES, {}, i), i)


def _planes(production: Any, rate: Any, i: int) -> dict[str, Any]:
    law = TargetTransfer(((0.0, edges_truth.ALPHA),), edges_truth.ALPHA_INELASTIC)
    where = accept.Measured(production.exposure, "per_interaction")
    sights = {
        name: functools.partial(
            Sight.of,
            couplings=COUPLINGS,
            model=shared().model,
            detector=load_detector(data_path(f"detectors/{name}.toml")),
            final_states=("ee", "mumu"),
            measured=where,
        )
        for name in DETECTORS
    }
    rows = [yields_at(production, MASSES, sights, (i, N_SAMPLE, law, ()), k) for k in range(len(MASSES))]
    found: dict[str, Any] = {"rate": rate.value, "rate_error": rate.error()}
    for name in DETECTORS:
        plane = accept.plane_of(rate, [row[name] for row in rows], width_sigma=np.zeros(len(MASSES)))
        square = sum(spread**2 for spread in plane.spreads(KINDS).values()) + POT_SIGMA**2
        found |= {f"signal|{name}": plane.signal, f"sigma|{name}": np.sqrt(square)}
        found |= {f"beyond|{name}": plane.beyond / np.maximum(plane.signal, 1e-300)}
        found |= {f"end|{name}": plane.data_end(FEWEST)}
    return found


def edges_of(signal: np.ndarray, end: np.ndarray | float = np.inf) -> np.ndarray:
    """Return the couplings between which a signal (n, k) exceeds the level, (n, 2); nan without.

    A contour stops at `end`, where the data do, (n,).
    """
    result, log_g = np.full((len(signal), 2), np.nan), np.log(COUPLINGS)
    for i, row in enumerate(np.log(np.maximum(signal, 1e-300))):
        above = np.flatnonzero(row >= np.log(LEVEL))
        for side, (a, b) in enumerate(
            ((above[0], above[0] - 1), (above[-1], above[-1] + 1)) if len(above) else ()
        ):
            if 0 <= b < len(row):
                part = (row[a] - np.log(LEVEL)) / (row[a] - row[b])
                result[i, side] = np.exp(log_g[a] + part * (log_g[b] - log_g[a]))
    last = np.broadcast_to(end, len(result))
    result[result[:, 0] >= last] = np.nan
    return np.minimum(result, np.stack([np.full(len(last), np.inf), last], axis=1))


def at(rows: np.ndarray, coupling: np.ndarray, *, log: bool = False) -> np.ndarray:
    """Return rows (n, k) at one coupling each, straight in ln of the coupling, and of the value if asked."""
    values = np.log(np.maximum(rows, 1e-300)) if log else rows
    found = [np.interp(np.log(g), np.log(COUPLINGS), row) for g, row in zip(coupling, values, strict=True)]
    return np.exp(found) if log else np.array(found)


def compared(found: dict[str, Any], name: str) -> dict[str, np.ndarray]:
    """Return at both stated edges of a campaign, shape (masses, 2): ln(true/stated), ln κ, part beyond."""
    signal, (true, error) = found[f"signal|{name}"], shared().truth[name]
    edges = edges_of(signal, found[f"end|{name}"])
    rows = {"edge": edges, "true_edge": edges_of(true), "ends": edges == found[f"end|{name}"][:, None]}
    for key in ("log", "sigma", "beyond", "true_error"):
        rows[key] = np.full(edges.shape, np.nan)
    for side in (0, 1):
        stated, own = at(signal, edges[:, side], log=True), at(true, edges[:, side], log=True)
        rows["log"][:, side] = np.log(own / stated)
        rows["true_error"][:, side] = at(error, edges[:, side], log=True) / own
        for key in ("sigma", "beyond"):
            rows[key][:, side] = at(found[f"{key}|{name}"], edges[:, side])
    return rows
