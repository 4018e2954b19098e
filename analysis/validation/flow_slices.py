"""The flow against the truth in slices of true mass: resolution, efficiency and another prior in between.

Also of two whole runs, with background, subtraction and unfolding before the flow: the main job, whose truth
is what Pythia's hadrons decay to, and the carbon experiment of the folder that GAMMASTAR_FOREIGN names.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from validation import edges_campaigns, foreign
from validation.flow_mock import BEAM, CARD

import gammastar as gs
from gammastar import mock, select
from gammastar.core.constants import M_MU
from gammastar.core.pairs import MatchedPairs, Pairs
from gammastar.core.sampling import stream
from gammastar.flow import FlowOptions, FlowVariations, fit_ensemble, fit_pairs, load_variations
from gammastar.flow.density_tests import DensityTest, density_slices
from gammastar.mock.engines import normalised
from gammastar.pipeline.record import read_domain
from gammastar.spectrum import Domain, efficiency_map, training_set

SEED, EDGES = 21, np.linspace(0.2125, 1.1125, 37)
FLOOR, TESTED = 0.02, 0.04  # efficiencies: below twice the floor pairs stand for 25 and more others
OPTIONS = FlowOptions(mass_range=(0.2125, 1.1125), epochs=14)
MEMBERS = 8
MAIN = Path(__file__).resolve().parents[1] / "na60_dimuon" / "steering.toml"
CARBON, N_TRUTH = 31, 2_000_000  # seed of the bank's experiment; photons of the main job's truth


def matched(n: int, prior: str, seed: int) -> MatchedPairs:
    """Return simulated photons of a prior with the pairs that were reconstructed from them."""
    import awkward as ak

    made = mock.simulate_events(CARD, n, kind="mc", prior=prior, seed=seed)
    weight = np.asarray(made.branches["weight"]) * np.asarray(made.branches["prescale"])
    muon = made.branches["Muon"]
    momenta = {name: ak.values_astype(muon[name], np.float64) for name in ("px", "py", "pz")}
    lepton = ak.zip({**momenta, "mass": ak.full_like(momenta["px"], M_MU), "charge": muon["charge"]})
    rows = ak.zip({"lepton": lepton, "event": np.arange(n := len(weight)), "weight": weight}, depth_limit=1)
    pairs = select.pairs(rows)[0]
    reco = np.full((n, 3), np.nan)
    reco[pairs.event] = np.stack([pairs.mass, pairs.pt, pairs.energy], axis=1)
    names = ("gen_mll", "gen_qT", "gen_E")
    true = np.stack([np.asarray(made.branches[k], dtype=np.float64) for k in names], axis=1)
    return MatchedPairs(true, reco, weight, np.arange(n), np.empty((0, 3)), np.empty(0))


def rows() -> Iterator[dict]:
    """Yield shifts of truth and flow per slice, with three errors as tolerance, and the power of the test.

    With a simulation of another prior they are stated alone: outside the domain, which holds four fifths of
    the photons, simulated pairs stand, and a flow that is smooth carries some of their prior across its edge.
    """
    yield from _compared("nominal")
    for row in _compared("varied"):
        yield row | {"measured": True}
    yield from _main_job()
    yield from _carbon()


def _main_job() -> Iterator[dict]:
    """Yield the slices of the main job, with truth of a pool of Pythia that is not the job's."""
    with tempfile.TemporaryDirectory() as name:
        gs.run(MAIN, output=Path(name) / "results", only="flow")
        yield from of_run("main job", Path(name) / "results", pythia_truth())


def pythia_truth() -> np.ndarray:
    """Return true mass, q_T and energy of photons from the hadrons of the campaigns, shape (n, 3)."""
    campaigns = edges_campaigns
    card = campaigns.shared().card
    engine = campaigns.pool(card)
    photons = mock.generate_pairs(
        normalised(card, engine), N_TRUTH, stream(SEED, "pythia"), mesons=engine.mesons
    )
    return np.stack([photons.mass, photons.pt, photons.energy], axis=1)


def _carbon() -> Iterator[dict]:
    """Yield the slices of the bank's carbon experiment, as `init` proposes, with members for the band."""
    bank = os.environ.get("GAMMASTAR_FOREIGN", "")
    if not bank:
        yield {"quantity": "carbon", "expected": 0.0, "skipped": "GAMMASTAR_FOREIGN"}
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        foreign._of_the_bank(folder, "carbon", CARBON, Path(bank))
        with (folder / "steering.toml").open("a", encoding="utf-8") as file:
            file.write(f"\n[flow]\nmembers = {MEMBERS}\n")
        gs.run(folder / "steering.toml", output=folder / "results")
        with np.load(folder / "truth.npz") as file:
            truth = np.stack([file[k].astype(np.float64) for k in ("mass", "pt", "energy")], axis=1)
        yield from of_run(f"carbon, seed {CARBON}", folder / "results", truth)


def of_run(what: str, results: Path, truth: np.ndarray) -> Iterator[dict]:
    """Yield the slices of a finished run against photons of its truth, where twice the floor is measured."""
    kept = read_domain(results / "domain.safetensors")
    variations = load_variations(results)
    found = density_slices(
        variations.nominal,
        truth,
        weight=np.ones(len(truth)),
        inside=Domain(kept.map, 2 * kept.floor).in_domain,
        replicas=variations.weights,
        rng=stream(SEED, "slices"),
    )
    for low, high, one in found:
        yield from _shifts(f"{what}, {low:.3f} to {high:.3f} GeV", one)


def _shifts(where: str, one: DensityTest) -> Iterator[dict]:
    for name, text in (("energy", "ln E"), ("pt", "ln q_T")):
        shift, error = one.shift[name]
        yield {
            "quantity": f"{where}: mean {text} of the truth less the flow's",
            "ours": shift,
            "expected": 0.0,
            "tolerance": 3.0 * float(np.hypot(error, one.band[name])),
            "source": f"three errors; finds {100 * one.smallest[name]:.1f} % at {one.options.power:g}",
        }


def _compared(prior: str) -> Iterator[dict]:
    n = 600_000
    data, simulation = matched(n, "nominal", SEED), matched(n, prior, SEED + 1)
    truth = mock.generate_pairs(CARD, n, stream(SEED, "truth"))
    chosen = data.reconstructed & (data.reco[:, 0] > EDGES[0]) & (data.reco[:, 0] < EDGES[-1])
    weight, event = data.weight[chosen], data.event[chosen]
    pairs = Pairs(*data.reco[chosen].T, np.zeros(len(weight), np.int8), weight, event)
    domain = Domain(efficiency_map(simulation), FLOOR)
    options = {"beam_energy": BEAM, "edges": EDGES, "seed": SEED, "outside": True}
    training = training_set(pairs, (weight, weight), simulation, domain, **options)
    start = {"beam_energy": BEAM, "options": OPTIONS}
    flow = fit_pairs(training, rng=stream(SEED, "flow"), **start)
    members = fit_ensemble(training, members=MEMBERS, seed=SEED, bootstrap=training.replica, **start)
    points = np.stack([truth.mass, truth.pt, truth.energy], axis=1)
    found = density_slices(
        flow,
        points,
        weight=np.asarray(truth.weight),
        inside=Domain(domain.map, TESTED).in_domain,
        replicas=FlowVariations(flow, members).weights,
        rng=stream(SEED, "slices"),
    )
    for low, high, one in found:
        where = f"simulation of prior {prior!r}, {low:.3f} to {high:.3f} GeV"
        yield from _shifts(where, one)
        yield {
            "quantity": f"{where}: p-value of the energy distance, within the replicas",
            "ours": one.band_p_value,
            "expected": 0.5005,
            "tolerance": 0.4995,
            "source": "above 0.001",
        }
