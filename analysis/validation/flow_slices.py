"""The flow against the truth in slices of true mass: resolution, efficiency and another prior in between."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from validation.flow_mock import BEAM, CARD

from gammastar import mock, select
from gammastar.core.constants import M_MU
from gammastar.core.pairs import MatchedPairs, Pairs
from gammastar.core.sampling import stream
from gammastar.flow import FlowOptions, FlowVariations, fit_ensemble, fit_pairs
from gammastar.flow.density_tests import density_slices
from gammastar.spectrum import Domain, efficiency_map, training_set

SEED, EDGES = 21, np.linspace(0.2125, 1.1125, 37)
FLOOR, TESTED = 0.02, 0.04  # efficiencies: below twice the floor pairs stand for 25 and more others
OPTIONS = FlowOptions(mass_range=(0.2125, 1.1125), epochs=14)
MEMBERS = 8


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
        for name, text in (("energy", "ln E"), ("pt", "ln q_T")):
            shift, error = one.shift[name]
            yield {
                "quantity": f"{where}: mean {text} of the truth less the flow's",
                "ours": shift,
                "expected": 0.0,
                "tolerance": 3.0 * float(np.hypot(error, one.band[name])),
                "source": f"three errors; finds {100 * one.smallest[name]:.1f} % at {one.options.power:g}",
            }
        yield {
            "quantity": f"{where}: p-value of the energy distance, within the replicas",
            "ours": one.band_p_value,
            "expected": 0.5005,
            "tolerance": 0.4995,
            "source": "above 0.001",
        }
