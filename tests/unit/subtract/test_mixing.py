"""Mixed events, hashed replicas and few counts: R of asymmetric acceptances, the trap, coverage."""

from dataclasses import replace

import numpy as np
import pytest

from gammastar.core.constants import M_MU
from gammastar.core.errors import UserError
from gammastar.core.pairs import Pairs
from gammastar.core.records import PairHists, filled, regular
from gammastar.core.sampling import event_seeds, replica_weights, stream
from gammastar.subtract import (
    Pool,
    bootstrap_covariance,
    control_ratio,
    mixed_pairs,
    mixed_spectrum,
    mixing_pool,
    r_factor,
    same_sign,
)
from gammastar.subtract.estimate import ChargeRatio, combinatorial, with_bootstrap
from gammastar.subtract.mixing import with_multiplicity

AXES = (regular("mass", 9, 0.2, 2.0),)
ALL = np.ones(9, dtype=bool)


def singles(rng, plus, minus, asymmetric=True):
    """Return leptons of events with the given numbers of each charge, after a charge-dependent acceptance."""
    n_events = len(plus)
    charge = np.concatenate([np.ones(plus.sum(), np.int8), -np.ones(minus.sum(), np.int8)])
    event = np.concatenate([np.repeat(np.arange(n_events), plus), np.repeat(np.arange(n_events), minus)])
    n = len(charge)
    pt, eta, phi = rng.gamma(2, 0.25, n), rng.uniform(2.5, 4.2, n), rng.uniform(0, 2 * np.pi, n)
    up = charge > 0
    chance = np.where(up, 0.75 * (1 - np.exp(-pt / 0.35)), 0.60 * (1 - np.exp(-pt / 0.5)))
    chance *= np.where(up, 1 + 0.3 * np.cos(phi), 1 - 0.3 * np.cos(phi)) / 1.3
    keep = rng.random(n) < (chance if asymmetric else 0.5)
    p = np.stack([pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta), np.full(n, M_MU)], axis=1)
    return p[keep], charge[keep], event[keep]


def pooled(p, charge, event, group=None, **options):
    return mixing_pool([(p, charge, event, np.zeros_like(event) if group is None else group)], **options)


def hists_of(p, charge, event):
    """Pair all leptons of an event (few per event: a shift of the sorted list finds every pair)."""
    order = np.argsort(event, kind="stable")
    p, charge, event = p[order], charge[order], event[order]
    content = {0: [], 2: [], -2: []}
    for shift in range(1, 12):
        same = np.flatnonzero(event[shift:] == event[:-shift])
        total = p[same] + p[same + shift]
        e = sum(np.sqrt((q[:, :3] ** 2).sum(axis=1) + M_MU**2) for q in (p[same], p[same + shift]))
        mass = np.sqrt(e**2 - (total[:, :3] ** 2).sum(axis=1))
        sign = charge[same] + charge[same + shift]
        for key, found in content.items():
            found.append(np.histogram(mass[sign == key], AXES[0].edges)[0])
    parts = [np.sum(content[key], axis=0).astype(float) for key in (0, 2, -2)]
    return PairHists(*(filled(AXES, n, n) for n in parts))


def fill(pairs):
    parts = []
    for mask in (pairs.os, pairs.pp, pairs.mm):
        edges, w = AXES[0].edges, pairs.weight[mask]
        n = np.histogram(pairs.mass[mask], edges, weights=w)[0]
        parts.append(filled(AXES, n, np.histogram(pairs.mass[mask], edges, weights=w**2)[0]))
    return PairHists(*parts)


def test_r_is_one_where_the_acceptance_does_not_tell_charges_apart():
    rng = stream(1, "symmetric")
    made = singles(rng, rng.poisson(0.4, 20_000), rng.poisson(0.25, 20_000), asymmetric=False)
    pool = pooled(*made)
    mixed = mixed_pairs(pool, 60_000, rng=rng)
    r, sigma = r_factor(mixed, AXES)
    assert np.ptp(r) == 0
    assert r[0] == pytest.approx(1, abs=3 * sigma[0])
    assert sigma[0] < 0.02


@pytest.mark.long
def test_background_of_uncorrelated_leptons_is_exact_with_r_from_mixing():
    rng = stream(2, "poisson")
    made = singles(rng, rng.poisson(0.7, 400_000), rng.poisson(0.7, 400_000))
    hists = hists_of(*made)
    pool = pooled(*made, most=50_000)
    mixed = mixed_pairs(pool, 300_000, rng=rng)
    r, sigma = r_factor(mixed, AXES, coarse={"mass": AXES[0].edges})
    assert np.ptp(r) > 0.02  # the acceptance makes R depend on the mass
    ratio, error = control_ratio(hists, ALL, method="regions", r_factor=r)
    total = np.hypot(error, np.average(sigma / r, weights=hists.os.values()))
    assert total < 0.02
    assert ratio == pytest.approx(1, abs=3 * total)
    shape = mixed_spectrum(hists, fill(mixed))
    assert abs(shape.values.sum()) < 3 * np.sqrt(shape.cov.sum())


def test_multiplicity_trap_is_seen_by_the_control_region_and_not_by_mixing():
    rng = stream(3, "trap")
    plus, minus = ((rng.random((2, 250_000)) < [[0.35], [0.175]]).sum(axis=0) for _ in range(2))
    made = singles(rng, plus, minus)
    hists = hists_of(*made)
    mixed = mixed_pairs(pooled(*made, most=50_000), 100_000, rng=rng)
    r, _ = r_factor(mixed, AXES)
    ratio, error = control_ratio(hists, ALL, r_factor=r)
    assert ratio == pytest.approx(2.25, abs=max(0.05, 3 * error))
    assert (ratio - 1) / error > 5  # the alarm
    both, _ = with_multiplicity(r, 0.01 * r, 2.25, 0.09)
    cured, error = control_ratio(hists, ALL, r_factor=both)
    assert cured == pytest.approx(1, abs=3 * error)


def test_classes_are_not_mixed_with_each_other():
    rng = stream(4, "classes")
    p, charge, event = singles(rng, rng.poisson(0.8, 5000), rng.poisson(0.8, 5000))
    group = np.where(event % 2, 7, 3)
    p[:, 3] = np.where(group == 7, 10.0, M_MU)  # tag the class by a mass
    mixed = mixed_pairs(pooled(p, charge, event, group), 4000, rng=rng)
    heavy = mixed.mass > 15
    assert heavy.any()
    assert (mixed.mass[~heavy] < 10).all()
    assert not (mixed.columns["event_1"] == mixed.columns["event_2"]).any()
    small = pooled(p, charge, event, group, most=500)
    assert 480 < np.sum(small.group == 7) <= 500
    with pytest.raises(UserError, match="charges"):
        Pool(p, charge, event[:5], group)
    with pytest.raises(UserError, match="n = 0"):
        mixed_pairs(small, 0, rng=rng)


def test_classes_count_with_the_pairs_that_their_events_hold():
    """Softer leptons in events of more of them: the mixed spectra are those of the data, sum and shape."""
    rng = stream(6, "multiplicity")
    k = rng.choice([1, 2, 3, 5], 60_000, p=[0.5, 0.3, 0.15, 0.05])
    event = np.repeat(np.arange(len(k)), k)
    size = np.repeat(k, k)
    charge = np.where(rng.random(len(event)) < 0.6, 1, -1).astype(np.int8)
    pt, eta, phi = rng.gamma(2, 0.4 / size), rng.uniform(2.5, 4.2, len(size)), rng.uniform(0, 7, len(size))
    mass = np.full(len(size), M_MU)
    p = np.stack([pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta), mass], axis=1)
    data = hists_of(p, charge, event)
    mixed = mixed_pairs(pooled(p, charge, event, np.minimum(size, 4)), 300_000, rng=rng)
    assert not np.isin(mixed.columns["event_1"], np.flatnonzero(k == 1)).any()  # no pairs in the data
    for ours, theirs in zip(three(data), three(fill(mixed)), strict=True):
        n, m = ours.values(), theirs.values()
        assert m.sum() == pytest.approx(n.sum(), abs=4 * np.sqrt(n.sum()))
        chi2 = np.sum((n - m) ** 2 / (n + theirs.variances()))
        assert chi2 < 9 + 3 * np.sqrt(2 * 9)


def three(hists):
    return hists.os, hists.pp, hists.mm


def test_hashed_weights_are_poisson_independent_and_know_nothing_of_chunks():
    event = np.arange(200_000) * 3 - 50_000
    seed = event_seeds(event, dataset="run A", run=12)
    weight = replica_weights(seed, 3)
    np.testing.assert_array_equal(weight[:, 1000:1010], replica_weights(seed[1000:1010], 3))
    np.testing.assert_array_equal(weight[2], replica_weights(seed, range(2, 3))[0])
    assert weight.mean() == pytest.approx(1, abs=0.005)
    assert weight.var() == pytest.approx(1, abs=0.01)
    assert np.abs(np.corrcoef(weight) - np.eye(3)).max() < 0.01
    assert abs(np.corrcoef(weight[0, 1:], weight[0, :-1])[0, 1]) < 0.01
    other = replica_weights(event_seeds(event, dataset="run B", run=12), 1)[0]
    assert abs(np.corrcoef(other, weight[0])[0, 1]) < 0.01
    assert event_seeds(event[:1], run=1) != event_seeds(event[:1], run=2)
    with pytest.raises(UserError, match="at least one"):
        replica_weights(seed, 0)


def test_bootstrap_draws_events_by_their_hash():
    rng = stream(5, "boot")
    n = 4000
    charge = rng.choice(np.array([0, 2, -2], np.int8), size=n, p=[0.6, 0.25, 0.15])
    pairs = Pairs(rng.uniform(0.2, 2, n), np.ones(n), np.full(n, 30.0), charge, np.ones(n), np.arange(n) // 2)
    axes = (regular("mass", 3, 0.2, 2.0),)
    drawn = bootstrap_covariance([pairs], axes, n_replicas=150)
    weight = replica_weights(event_seeds(pairs.event), 150)
    found = []
    for w in weight:
        parts = []
        for mask in (pairs.os, pairs.pp, pairs.mm):
            content = np.histogram(pairs.mass[mask], axes[0].edges, weights=w[mask])[0]
            parts.append(filled(axes, content, content))
        found.append(same_sign(PairHists(*parts)).values)
    np.testing.assert_allclose(drawn, np.cov(np.array(found), rowvar=False), rtol=1e-9, atol=1e-9)


def test_errors_of_acceptance_and_multiplicity_add_in_quadrature():
    r, sigma = with_multiplicity(np.array([1.1, 0.9]), 0.03 * np.array([1.1, 0.9]), 1.2, 0.048)
    np.testing.assert_allclose(r, [1.32, 1.08])
    np.testing.assert_allclose(sigma / r, 0.05)
    with pytest.raises(UserError, match="positive"):
        with_multiplicity(0.0, 0.1, 1.0, 0.1)


def test_error_of_r_is_that_of_new_leptons():
    """Scatter of R over samples of other leptons: pairs share legs, it is more than that of pairs."""
    halves, found = {"mass": [0.2, 0.6, 2.0]}, []
    for k in range(30):
        rng = stream(k, "few")
        made = singles(rng, rng.poisson(0.8, 200), rng.poisson(0.8, 200))
        mixed = mixed_pairs(pooled(*made), 8000, rng=rng)
        found.append([x[[0, -1]] for x in r_factor(mixed, AXES, coarse=halves)])
    r, sigma = np.array(found).transpose(1, 0, 2)
    ratio = np.sqrt((sigma**2).mean(axis=0)) / r.std(axis=0, ddof=1)
    noise = 1 + 3 / np.sqrt(2 * 30)
    assert (ratio > 1 / noise).all()
    assert (ratio < 1.3 * noise).all()  # 1.3: marked, seen before it was set; 2 until pairs counted once


def test_cells_that_no_replica_fills_keep_the_variance_of_the_formula():
    """Events without a pair in a cell cannot say how many another sample would have there."""
    rng = stream(9, "empty")
    n = 3000
    charge = rng.choice(np.array([0, 2, -2], np.int8), size=n, p=[0.6, 0.2, 0.2])
    pairs = Pairs(rng.uniform(0.2, 1.6, n), np.ones(n), np.full(n, 30.0), charge, np.ones(n), np.arange(n))
    hists = fill(pairs)  # nothing beyond 1.6 GeV
    plain = combinatorial(hists, ChargeRatio(1.0, 0.0), method="regions").spectrum
    known = np.diag(plain.cov) + np.where(np.arange(9) > 6, 2.0, 0.0)
    spectrum = replace(plain, cov=np.diag(known))
    found = with_bootstrap([pairs], hists, spectrum, ChargeRatio(1.0, 0.0), method="regions", n_replicas=200)
    variance = np.diag(found.cov)
    np.testing.assert_allclose(variance[7:], 2.0)
    np.testing.assert_allclose(found.hist.variances(), variance)
    np.testing.assert_allclose(variance[:7] / known[:7], 1.0, atol=4 * np.sqrt(2 / 200))
