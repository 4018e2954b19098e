"""Leptons for mixing, and the pair selection of the data on mixed pairs."""

import awkward as ak
import numpy as np
import pytest

from gammastar import select
from gammastar.core.errors import SteeringError
from gammastar.core.rng import stream
from gammastar.subtract import Pool, mixed_pairs


def events(n=400):
    rng = stream(1, "singles")
    counts = rng.poisson(1.5, n)
    total = int(counts.sum())
    lepton = ak.zip(
        {
            "px": rng.normal(0, 0.4, total),
            "py": rng.normal(0, 0.4, total),
            "pz": rng.uniform(3, 40, total),
            "mass": np.full(total, 0.10566),
            "charge": rng.choice([-1.0, 1.0], total),
        }
    )
    return ak.zip(
        {"lepton": ak.unflatten(lepton, counts), "event": np.arange(n) + 100, "weight": np.ones(n)},
        depth_limit=1,
    )


def test_the_leptons_are_those_of_the_pairs():
    chunk = events()
    cuts = select.Cuts(lepton={"momentum": (5.0, 30.0)}, event_functions=[lambda e: e.event % 2 == 0])
    momentum, charge, event, multiplicity = select.singles(chunk, cuts)
    pairs, flow = select.pairs(chunk, cuts)
    assert len(charge) == flow["lepton momentum"].n
    assert not (event % 2).any()
    _, counts = np.unique(event, return_counts=True)
    assert np.sum(counts * (counts - 1) // 2) == len(pairs)
    assert multiplicity.max() <= 4
    p = np.linalg.norm(momentum[:, :3], axis=1)
    assert p.min() >= 5
    assert p.max() < 30


def test_mixed_pairs_pass_the_selection_of_the_data():
    momentum, charge, event, group = select.singles(events())
    mixed = mixed_pairs(Pool.of(momentum, charge, event, group), 2000, rng=stream(2))
    cuts = select.Cuts(
        pair={"mass": (0.3, 2.0), "angle": (0.0, 1.0)},
        ghost=select.GhostVeto(angle=0.02),
        pair_functions=[lambda p: p.energy > 10],
    )
    kept = select.apply(mixed, cuts)
    assert 0 < len(kept) < len(mixed)
    assert kept.columns["angle"].min() >= 0.02
    assert kept.energy.min() > 10
    assert kept.mass.max() < 2
    with pytest.raises(SteeringError, match="unknown quantity"):
        select.apply(mixed, select.Cuts(pair={"helicity": (0.0, 1.0)}))
