"""Pairs are complete, exact in double precision and treated alike for both charges."""

from itertools import combinations

import awkward as ak
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gammastar import select
from gammastar.core.constants import M_E, M_MU
from gammastar.core.errors import PhysicsError, SteeringError
from gammastar.core.pairs import MatchedPairs, Pairs
from gammastar.core.records import regular, variable

FIELDS = ("px", "py", "pz")


def make_events(momenta, charges, mass=M_MU, weight=None):
    """Return events from lists of momenta [(n_i, 3)] and charges [(n_i,)]."""
    counts = [len(q) for q in charges]
    flat = np.concatenate([np.reshape(p, (-1, 3)) for p in momenta]) if momenta else np.empty((0, 3))
    record = ak.zip(
        {
            **{name: flat[:, i] for i, name in enumerate(FIELDS)},
            "mass": np.full(len(flat), mass),
            "charge": np.concatenate([np.asarray(q, float) for q in charges]) if charges else np.empty(0),
        }
    )
    n = len(counts)
    fields = {
        "lepton": ak.unflatten(record, np.asarray(counts, dtype=np.int64)),
        "event": np.arange(n, dtype=np.int64),
        "weight": np.ones(n) if weight is None else np.asarray(weight, float),
    }
    return ak.zip(fields, depth_limit=1)


def random_events(n, rng, mean=3.0):
    counts = rng.poisson(mean, n)
    return make_events(
        [rng.normal(0, [1, 1, 20], (k, 3)) for k in counts],
        [rng.choice([-1, 1], k) for k in counts],
        weight=rng.uniform(0.5, 1.5, n),
    ), counts


def test_all_combinations_against_a_plain_loop():
    rng = np.random.default_rng(3)
    events, counts = random_events(200, rng)
    found, flow = select.pairs(events)
    assert len(found) == np.sum(counts * (counts - 1) // 2)
    expected = []
    for event in ak.to_list(events):
        for a, b in combinations(event["lepton"], 2):
            p1, p2 = (np.array([x[k] for k in FIELDS]) for x in (a, b))
            energy = np.hypot(np.linalg.norm(p1), M_MU) + np.hypot(np.linalg.norm(p2), M_MU)
            total = p1 + p2
            expected.append(
                (
                    np.sqrt(energy**2 - total @ total),
                    np.hypot(total[0], total[1]),
                    energy,
                    a["charge"] + b["charge"],
                    event["weight"],
                    np.arccos(p1 @ p2 / np.linalg.norm(p1) / np.linalg.norm(p2)),
                )
            )
    mass, pt, energy, charge, weight, angle = np.array(expected).T
    np.testing.assert_allclose(found.mass, mass, rtol=1e-8)
    np.testing.assert_allclose(found.pt, pt, rtol=1e-10)
    np.testing.assert_allclose(found.energy, energy)
    np.testing.assert_array_equal(found.charge, charge)
    np.testing.assert_array_equal(found.weight, weight)
    np.testing.assert_allclose(found.columns["angle"], angle, atol=1e-6)
    last = flow["pairs"]
    assert (last.os, last.pp, last.mm) == pytest.approx(
        [weight[found.os].sum(), weight[found.pp].sum(), weight[found.mm].sum()]
    )


@pytest.mark.parametrize(("mass", "label"), [(M_MU, "mu"), (M_E, "e")])
@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-6, 1e-4, 1e-2, 3.0])
def test_mass_is_exact_for_fast_collinear_leptons(mass, label, angle):
    # m² = 2m² + 2(E₁E₂ − p₁p₂ cos θ) in extended precision, cos θ = 1 − 2 sin²(θ/2)
    p = np.array([150.0, 70.0])
    momenta = [[0.0, 0.0, p[0]], [p[1] * np.sin(angle), 0.0, p[1] * np.cos(angle)]]
    found, _ = select.pairs(make_events([momenta], [[1, -1]], mass=mass))
    from decimal import Decimal, getcontext

    getcontext().prec = 60
    m, a, b = Decimal(mass), Decimal(p[0]), Decimal(p[1])
    half = Decimal(float(np.sin(angle / 2)))
    energies = ((a * a + m * m) * (b * b + m * m)).sqrt()
    exact = (2 * m * m + 2 * (energies - a * b * (1 - 2 * half * half))).sqrt()
    assert found.mass[0] == pytest.approx(float(exact), rel=1e-12), label
    assert found.mass[0] >= 2 * mass * (1 - 1e-15)
    assert found.columns["angle"][0] == pytest.approx(angle, rel=1e-9)


@pytest.mark.long
def test_single_precision_input_does_not_spoil_the_mass():
    rng = np.random.default_rng(5)
    momenta = rng.normal([0, 0, 100], 0.1, (1000, 2, 3))
    double, _ = select.pairs(make_events(list(momenta), [[1, -1]] * 1000))
    single, _ = select.pairs(make_events(list(momenta.astype(np.float32)), [[1, -1]] * 1000))
    assert np.max(np.abs(double.mass - single.mass)) < 1e-4


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(*[st.floats(-50, 50)] * 3, st.sampled_from([-1, 1])), min_size=2, max_size=6),
    st.floats(-2, 2),
)
def test_mass_is_invariant_and_charges_are_conjugate(leptons, rapidity):
    momenta = np.array([x[:3] for x in leptons])
    charges = [x[3] for x in leptons]
    energy = np.sqrt(np.sum(momenta**2, axis=1) + M_MU**2)
    boosted = momenta.copy()
    boosted[:, 2] = np.cosh(rapidity) * momenta[:, 2] + np.sinh(rapidity) * energy
    rest, _ = select.pairs(make_events([momenta], [charges]))
    lab, _ = select.pairs(make_events([boosted], [[-q for q in charges]]))
    np.testing.assert_allclose(np.sort(lab.mass), np.sort(rest.mass), rtol=1e-6)
    assert (lab.os.sum(), lab.pp.sum(), lab.mm.sum()) == (rest.os.sum(), rest.mm.sum(), rest.pp.sum())
    assert np.all(rest.mass >= 2 * M_MU * (1 - 1e-12))


def test_ranges_act_on_both_leptons_and_on_pairs():
    events, _ = random_events(300, np.random.default_rng(11))
    cuts = select.Cuts(
        lepton={"momentum": (5, 60), "theta": (0, 0.5), "eta": (0.5, 9), "pt": (0.2, 5), "energy": (6, 50)},
        pair={"mass": (0.5, 3.0), "pt": (0.1, 4), "energy": (15, 90), "angle": (0.01, 0.4)},
    )
    found, flow = select.pairs(events, cuts)
    assert 0 < len(found) < flow["pairs"].n < flow["leptons"].n
    for name, (low, high) in cuts.pair.items():
        value = found.columns["angle"] if name == "angle" else getattr(found, name)
        assert np.all((value >= low) & (value < high))
    lepton = events.lepton
    p = np.sqrt(lepton.px**2 + lepton.py**2 + lepton.pz**2)
    pt = np.hypot(lepton.px, lepton.py)
    energy, eta = np.sqrt(p**2 + M_MU**2), np.arctanh(lepton.pz / p)
    keep = (p >= 5) & (p < 60) & (lepton.pz / p > np.cos(0.5)) & (eta >= 0.5) & (pt >= 0.2) & (pt < 5)
    keep = keep & (energy >= 6) & (energy < 50)
    assert flow["lepton energy"].n == ak.sum(keep)
    assert np.array_equal(select.counting(cuts)(events).mass, found.mass)


def test_ghost_veto_acts_on_all_charges_alike():
    base = np.array([[0.3, 0.1, 20.0], [0.3 + 1e-7, 0.1, 20.0]])
    apart = np.array([[0.3, 0.1, 20.0], [-0.3, 0.4, 15.0]])
    charges = [[1, 1], [1, -1], [-1, -1]]
    events = make_events([base] * 3 + [apart] * 3, charges * 2)
    for ghost in ({"angle": 1e-4}, {"excess": 1e-6}):
        found, flow = select.pairs(events, select.Cuts(ghost=select.GhostVeto(**ghost)))
        assert np.array_equal(found.event, [3, 4, 5])
        assert (flow["ghost veto"].os, flow["ghost veto"].pp, flow["ghost veto"].mm) == (1, 1, 1)
    with pytest.raises(SteeringError, match=r"ghost\.angle = -1"):
        select.GhostVeto(angle=-1)


def test_functions_of_events_leptons_and_pairs():
    events, counts = random_events(100, np.random.default_rng(2))

    def two_or_three(chunk):
        return (ak.num(chunk.lepton) >= 2) & (ak.num(chunk.lepton) <= 3)

    def forward(chunk):
        return chunk.lepton.pz > 0

    def heavy(found):
        return found.mass > 1

    cuts = select.Cuts(event_functions=(forward, two_or_three), pair_functions=(heavy,))
    found, flow = select.pairs(events, cuts)
    inside = (counts >= 2) & (counts <= 3)
    assert flow["two_or_three"].n == inside.sum()
    assert flow["leptons"].n == ak.sum(events.lepton.pz[inside] > 0)
    assert np.all(found.mass > 1)
    with pytest.raises(SteeringError, match="one bool per event or per lepton"):
        select.pairs(events, select.Cuts(event_functions=(lambda chunk: chunk.weight,)))
    with pytest.raises(SteeringError, match="one bool per pair"):
        select.pairs(events, select.Cuts(pair_functions=(lambda found: found.mass,)))


def test_leptons_that_are_not_finite_are_masked_and_counted():
    momenta = [
        np.array([[0, 0, 5.0], [0, 0.1, 6.0], [np.nan, 0, 7]]),
        np.array([[0, 0, 5.0], [0, np.inf, 1.0]]),
    ]
    events = make_events(momenta, [[1, -1, 1], [1, 0]])
    found, flow = select.pairs(events)
    assert len(found) == 1
    assert (flow["leptons"].n, flow["finite"].n, flow.not_finite) == (5, 3, 2)


def test_lepton_and_event_columns_travel_with_the_pair():
    events = make_events([np.array([[0, 0, 5.0], [0, 0.1, 6.0]])] * 2, [[-1, 1], [1, 1]])
    events["lepton", "chi2"] = ak.Array([[1.0, 2.0], [3.0, 4.0]])
    events["columns"] = ak.zip({"target": np.array([7.0, 8.0])}, depth_limit=1)
    found, _ = select.pairs(events)
    assert found.columns["chi2_1"].tolist() == [2.0, 3.0]  # the positive lepton is first
    assert found.columns["chi2_2"].tolist() == [1.0, 4.0]
    assert found.columns["target"].tolist() == [7.0, 8.0]
    kept, _ = select.pairs(events, select.Cuts(lepton={"chi2": (0, 3.5)}, pair={"target": (0, 7.5)}))
    assert len(kept) == 1


def test_chunks_add_up_to_the_whole():
    events, _ = random_events(500, np.random.default_rng(13))
    cuts = select.Cuts(lepton={"momentum": (2, 100)}, ghost=select.GhostVeto(angle=0.01))
    whole, flow = select.pairs(events, cuts)
    parts, added = select.collect((events[i : i + 77] for i in range(0, 500, 77)), cuts)
    np.testing.assert_array_equal(whole.mass, parts.mass)
    assert [s.n for s in flow.steps] == [s.n for s in added.steps]
    assert added.rows()[-1]["weight"] == pytest.approx(flow.rows()[-1]["weight"])
    assert sum([flow, flow])["pairs"].n == 2 * flow["pairs"].n
    assert "ghost veto" in str(flow)
    with pytest.raises(PhysicsError, match="different selections"):
        flow + select.pairs(events)[1]
    with pytest.raises(PhysicsError, match="no step 'x'"):
        flow["x"]


@pytest.mark.parametrize("events", [make_events([], []), make_events([np.empty((0, 3))] * 3, [[]] * 3)])
def test_no_leptons_give_empty_results(events):
    cuts = select.Cuts(
        lepton={"momentum": (2, 100)}, pair={"mass": (0, 1)}, ghost=select.GhostVeto(angle=0.1)
    )
    found, flow = select.pairs(events, cuts)
    assert len(found) == 0
    assert flow["pairs"].n == 0
    hists = select.fill(found, (regular("mass", 5, 0.2, 1.2), regular("pt", 3, 0, 3)))
    assert hists.os.sum().value == 0
    empty, nothing = select.collect([], cuts)
    assert len(empty) == 0
    assert nothing.steps == ()


def test_fill_keeps_weights_and_squares():
    events, _ = random_events(400, np.random.default_rng(17))
    found, _ = select.pairs(events)
    hists = select.fill(found, (variable("mass", [0.2, 1, 5, 500]), regular("angle", 2, 0, 4)))
    for hist, mask in ((hists.os, found.os), (hists.pp, found.pp), (hists.mm, found.mm)):
        total = hist.sum(flow=True)
        assert total.value == pytest.approx(found.weight[mask].sum())
        assert total.variance == pytest.approx((found.weight[mask] ** 2).sum())
    with pytest.raises(SteeringError, match=r"pair\.rapidity: unknown quantity"):
        select.fill(found, (regular("rapidity", 2, 0, 4),))


def test_wrong_cuts_are_refused():
    events = make_events([np.ones((2, 3))], [[1, -1]])
    for ranges in ({"lepton": {"energy": (5, 3)}}, {"pair": {"mass": (1,)}}):
        with pytest.raises(SteeringError, match="low < high"):
            select.Cuts(**ranges)
    with pytest.raises(SteeringError, match=r"lepton\.mas: unknown quantity"):
        select.pairs(events, select.Cuts(lepton={"mas": (0, 1)}))


def test_records_refuse_inconsistent_input():
    one, charge, event = np.ones(2), np.zeros(2, np.int8), np.arange(2)
    with pytest.raises(PhysicsError, match=r"Pairs\.pt has shape \(3,\)"):
        Pairs(one, np.ones(3), one, charge, one, event)
    with pytest.raises(PhysicsError, match="sum of two charges"):
        Pairs(one, one, one, np.array([1, 0], np.int8), one, event)
    pairs = Pairs(one, one, one, charge, one, event, {"x": one})
    assert len(Pairs.concatenate([pairs, pairs.select(np.array([True, False]))])) == 3
    with pytest.raises(PhysicsError, match="extra columns differ"):
        Pairs.concatenate([pairs, Pairs(one, one, one, charge, one, event)])
    kinematics = np.ones((2, 3))
    half = np.array([[1, np.nan, 1], [1, 1, 1]])
    with pytest.raises(PhysicsError, match="only partly nan"):
        MatchedPairs(kinematics, half, one, event, np.empty((0, 3)), np.empty(0))
    good = MatchedPairs(kinematics, kinematics, one, event, np.empty((0, 3)), np.empty(0))
    assert len(MatchedPairs.concatenate([good, good]).select(np.array([0, 0, 3]))) == 3
    assert len(MatchedPairs.concatenate([])) == 0
