"""Leptons for mixing, and the pair selection of the data on mixed pairs."""

import awkward as ak
import numpy as np
import pytest

from gammastar import select
from gammastar.core.errors import SteeringError, UserError
from gammastar.core.records import regular
from gammastar.core.sampling import stream
from gammastar.subtract import mixed_pairs, mixing_pool


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
    mixed = mixed_pairs(mixing_pool([select.singles(events())]), 2000, rng=stream(2))
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


def with_weights(chunk, weight):
    return ak.with_field(chunk, weight, "weight")


@pytest.mark.parametrize("unit", [True, False])
def test_histograms_without_a_table_of_pairs_are_those_with_one(unit):
    chunk = events(3000)
    if not unit:
        chunk = with_weights(chunk, stream(3).uniform(0.5, 2, 3000))
    broken = ak.to_numpy(ak.flatten(chunk.lepton.px)).copy()
    broken[5] = np.nan
    lepton = ak.with_field(chunk.lepton, ak.unflatten(broken, ak.num(chunk.lepton)), "px")
    chunk = ak.with_field(chunk, lepton, "lepton")
    axes = (regular("mass", 20, 0.2, 3.0), regular("pt", 5, 0.0, 2.0), regular("energy", 4, 0, 80))
    for cuts in (None, select.Cuts(lepton={"pt": (0.1, 9.0)}, pair={"mass": (0.3, 2.0), "energy": (10, 70)})):
        found, flow = select.histograms([chunk[:1000], chunk[1000:]], axes, cuts)
        pairs, expected = select.pairs(chunk, cuts)
        table = select.fill(pairs, axes)
        for name in ("os", "pp", "mm"):
            ours, theirs = getattr(found, name), getattr(table, name)
            np.testing.assert_allclose(ours.values(flow=True), theirs.values(flow=True), rtol=1e-12)
            np.testing.assert_allclose(ours.variances(), theirs.variances(), rtol=1e-12)
        assert [(s.name, s.n) for s in flow.steps] == [(s.name, s.n) for s in expected.steps]
        for one, other in zip(flow.rows(), expected.rows(), strict=True):
            for key in ("weight", "variance", "os", "pp", "mm"):
                assert one[key] == pytest.approx(other[key], rel=1e-9)
    flat = {k: ak.to_numpy(ak.flatten(chunk.lepton[k])) for k in ("px", "py", "pz", "mass", "charge")}
    flat["offsets"] = np.concatenate([[0], np.cumsum(ak.to_numpy(ak.num(chunk.lepton)))])
    flat["weight"] = ak.to_numpy(chunk.weight)
    again, flow = select.histograms([flat], axes)
    np.testing.assert_allclose(again.os.values(), select.fill(select.pairs(chunk)[0], axes).os.values())
    assert flow.not_finite == 1
    with pytest.raises(UserError, match="flat columns"):
        select.histograms([flat], axes, select.Cuts(lepton={"pt": (0.1, 9.0)}))
    with pytest.raises(UserError, match="no chunk"):
        select.histograms([], axes)
